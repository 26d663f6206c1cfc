"""The archive is watched: every file is audited, and a random day is restored for practice."""

from typing import Any

import dagster as dg

from tracker_pipeline import keys
from tracker_pipeline.assets.declaration import OWNER, further_reading
from tracker_pipeline.resources.failures import RETRIES, classified

# More of them would fill the event log; the command lists all.
_MOST_LISTED = 20


def _figures(**described: str) -> dict[str, Any]:
    columns = [dg.TableColumn(name, "text", description) for name, description in described.items()]
    return {"dagster/column_schema": dg.TableSchema(columns)}


@dg.asset(
    key=keys.ARCHIVE_AUDIT,
    description="Every live file of the lake, compared with its entry in the manifest: there, unaltered, with its"
    " number of rows, no key twice in a day; and files that no entry names. Its check fails where rows are missing or"
    " doubled.",
    group_name="archive",
    owners=[OWNER],
    kinds={"parquet", "postgres"},
    metadata={
        **_figures(
            table="schema and table",
            file="relative to the lake",
            problem="missing, altered, miscounted, orphaned, or keys that stand twice",
        ),
        **further_reading("archive.md", "tracker archive audit"),
    },
    retry_policy=RETRIES,
    pool="archive",
)
def archive_audit(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Read every file that the manifest lists."""
    from tracker_pipeline.storage.audit import audit

    with classified():
        found = audit(tell=context.log.info)
    return dg.MaterializeResult(
        metadata={
            "parts": found.parts,
            "rows": found.rows,
            "bytes": found.bytes,
            "losses": len(found.losses),
            "orphans": len(found.orphans),
            "parts_with_reused_keys": len(found.problems) - len(found.losses) - len(found.orphans),
            "unfinished": found.unfinished,
            "problems": [f"{one.file}: {one.problem}" for one in found.problems[:_MOST_LISTED]],
        }
    )


@dg.asset(
    key=keys.ARCHIVE_RESTORE_DRILL,
    description="A random archived day is read back into a scratch table, and the hash of every column is computed by"
    " Postgres and compared with that of the day it was archived. Fails where the archive could not be restored.",
    group_name="archive",
    owners=[OWNER],
    kinds={"parquet", "postgres"},
    metadata={
        **_figures(table="schema and table", day="UTC day of the rows", rows="that were read back"),
        **further_reading("archive.md", "tracker archive drill"),
    },
    retry_policy=RETRIES,
    pool="archive",
)
def archive_restore_drill(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """Rehearse a restore."""
    from tracker_pipeline.storage.drill import restore_drill

    with classified():
        done = restore_drill(context.run.run_id)
    if done is None:
        return dg.MaterializeResult(
            metadata={"rows": 0, "rows_archived": 0, "note": "nothing is archived yet"}
        )
    return dg.MaterializeResult(
        metadata={
            "table": done.table,
            "day": f"{done.day}",
            "parts": done.parts,
            "rows": done.rows,
            "rows_archived": done.rows_archived,
            "seconds": done.seconds,
        }
    )


ALL = [archive_audit, archive_restore_drill]
