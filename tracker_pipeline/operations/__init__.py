"""Watching over the pipeline from outside of its runs: freshness, causes, alerts, health, reports.

Nothing here needs Dagster to be running, nor imports it, so that the health service starts at once and answers when
Dagster is down.

What belongs here: what is wrong and who is told. What does not: HTTP (`commands.health`), when it is looked at
(`automation.watch`).
"""
