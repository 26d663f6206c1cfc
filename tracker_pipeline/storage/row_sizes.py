"""What rows take in Postgres, about, however large their table has grown meanwhile.

A table keeps the space of rows that were deleted, so that its size by its number of rows says nothing once most of
them were archived: a few rows left of many would seem to need the space of all.

What belongs here: the size of rows that are still there. What does not: partitions, which give all their space back.
"""

from typing import Final

from tracker_pipeline.storage.catalogue import LiveTable
from tracker_pipeline.storage.database import Connection

_SAMPLE_ROWS: Final = 1_000
_POINTER_BYTES: Final = 4
_SIZES = """
SELECT sum(pg_table_size(c.oid)), sum(pg_indexes_size(c.oid)),
       (SELECT count(*) FROM pg_index WHERE indrelid = %(oid)s)
FROM pg_class c
WHERE c.oid = %(oid)s OR c.oid IN (SELECT relid FROM pg_partition_tree(%(oid)s::oid::regclass))
"""


def bytes_per_row(connection: Connection, table: LiveTable, source: str, condition: str) -> float:
    """Bytes of a row of some rows of a table, with its share of the indexes; 0 where there are none.

    Args:
        connection: to the database.
        table: as the catalogue has it.
        source: where to read, quoted.
        condition: SQL on the rows.
    """
    sample = f"SELECT * FROM {source} WHERE {condition} LIMIT {_SAMPLE_ROWS}"  # noqa: S608
    # A table may have a column of any name, which a bare one would mean instead of the row.
    row = connection.execute(f"SELECT avg(pg_column_size(t.*)) FROM ({sample}) AS t").fetchone()  # noqa: S608
    own = float(row[0]) + _POINTER_BYTES if row and row[0] is not None else 0.0
    found = connection.execute(_SIZES, {"oid": table.oid}).fetchone()
    rows_bytes, index_bytes, indexes = found or (0, 0, 0)
    # An index has less of a row than the row itself, however much of its space is empty.
    share = min(float(index_bytes or 0) / float(rows_bytes), float(indexes)) if rows_bytes else 0.0
    return own * (1 + share)
