"""Tables of the archive: the manifest of the lake, and what is held back from it."""

from typing import Final

from tracker_pipeline.domain.schemas.declaration import RUN_ID, Column, T, Table

ARCHIVE_BATCHES: Final = Table(
    name="archive.batches",
    key=("batch_id",),
    description="The manifest of the lake: a file that is not here does not exist for any reader.",
    write="merge",
    columns=(
        Column("batch_id", T.TEXT, "identity of the part"),
        Column("table_name", T.TEXT, "schema and table"),
        Column("data_day", T.DATE, "UTC day of the rows"),
        Column("path", T.TEXT, "file, relative to the lake"),
        Column("rows", T.INT, "rows in the file"),
        Column("bytes", T.INT, "size of the file"),
        Column("sha256", T.TEXT, "hash of the file"),
        Column("content_hash", T.TEXT, "order-independent hash of the rows"),
        Column("min_ts", T.TIME, "earliest row", nullable=True),
        Column("max_ts", T.TIME, "latest row", nullable=True),
        Column("cut", T.TIME, "rows before this moment were eligible", nullable=True),
        Column("schema", T.JSON, "columns and types of the file"),
        Column("state", T.TEXT, "live, superseded (another part holds its rows) or retired (no part does)"),
        Column("created_at", T.TIME, "when the file was written", provenance=True),
        Column("verified_at", T.TIME, "when the file was read back and compared", provenance=True),
        Column("superseded_by", T.TEXT, "the part that replaced it", nullable=True),
        RUN_ID,
        Column("ended_at", T.TIME, "when it stopped being live", nullable=True),
        Column(
            "column_hashes",
            T.JSON,
            "of each column of the file: number of values and sum of their hashes",
        ),
        Column("table_bytes", T.INT, "what the rows took in Postgres, about", nullable=True),
    ),
)

ARCHIVE_HOLDS: Final = Table(
    name="archive.holds",
    key=("table_name", "data_day"),
    description="Days that the archive leaves in Postgres for a while, because somebody restored them.",
    write="merge",
    columns=(
        Column("table_name", T.TEXT, "schema and table"),
        Column("data_day", T.DATE, "UTC day of the rows"),
        Column("held_until", T.TIME, "from when on the day may be archived again"),
        Column("reason", T.TEXT, "why it is held"),
        RUN_ID,
    ),
)

ARCHIVE_DEPLOYMENT: Final = Table(
    name="archive.deployment",
    key=("deployment_id",),
    description="Which database this is: one row, made once.",
    write="merge",
    columns=(
        Column("deployment_id", T.TEXT, "random identity"),
        Column("is_this", T.BOOL, "true, so that there is one row"),
    ),
)
