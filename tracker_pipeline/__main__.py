"""`python -m tracker_pipeline` is the `tracker` command."""

from tracker_pipeline.cli import app

app()
