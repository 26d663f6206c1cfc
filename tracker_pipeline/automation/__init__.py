"""When assets run: jobs and schedules.

What belongs here: selections and times. What does not: what assets do.
"""
