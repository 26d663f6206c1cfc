"""When assets run: jobs, schedules and sensors.

What belongs here: selections and times. What does not: what assets do.
"""
