"""Tables of ours: Postgres for hot rows, Parquet for cold ones, and one read over both.

What belongs here: migrations, writes, the IO managers, the archive manifest, spanning reads. What does not: where
rows come from (`resources`), what they mean (`domain`), when they are made (`assets`, `automation`).
"""

from tracker_pipeline.storage.spanning import scan

__all__ = ["scan"]
