"""The outside world: exchanges, bar files, JSON-RPC nodes, the Postgres server, the local sandbox process.

What belongs here: clients that classify every failure as permanent or transient (`errors.py`). What does not:
tables and files of our own (`storage`), formulas (`domain`).
"""
