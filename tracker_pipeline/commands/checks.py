"""`tracker checks`: which checks failed, for a CI that has to end with 1.

`dagster asset materialize` ends with 0 where a check fails that does not block; this makes up for it.

What belongs here: the question. What does not: how it is printed (`cli`).
"""

from datetime import datetime

from tracker_pipeline.operations import instance_state
from tracker_pipeline.storage.database import connect


def failed_since(moment: datetime) -> list[dict[str, str]]:
    """Asset, check and description of each check whose last evaluation since a moment failed."""
    with connect() as connection:
        if not instance_state.is_there(connection):
            return []
        return [
            {"asset": failed.asset, "check": failed.check, "said": failed.description}
            for failed in instance_state.failed_checks(connection, moment)
        ]
