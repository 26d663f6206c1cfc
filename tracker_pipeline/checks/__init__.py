"""What proves the data: a blocking schema check for every table, and the archive's own.

What belongs here: checks of stored rows. What does not: rules that refuse rows while they are written (`storage`).
"""
