"""What the `tracker` command does, one module for each verb that takes more than a few lines.

What belongs here: orchestration for a person at a terminal. What does not: options and help texts (`cli.py`).
"""
