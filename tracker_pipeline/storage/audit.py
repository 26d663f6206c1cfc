"""Compares the manifest with the lake: missing, altered and orphaned files, counts, keys that stand twice.

What belongs here: finding what is wrong. What does not: repairing (`restore`, `sweeping`).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import UNFINISHED, LakeStore, lake_store, sha256_of
from tracker_pipeline.storage.manifest import Batch, is_part_path, live_batches_of
from tracker_pipeline.storage.part_loading import key_of_part
from tracker_pipeline.storage.shared_keys import parts_sharing_keys
from tracker_pipeline.storage.sweeping import GRACE

MISSING = "missing"
ALTERED = "altered"
MISCOUNTED = "other number of rows than the manifest says"
KEY_TWICE = "keys that another part has as well"
KEY_REUSED = "keys that were used again in another part; both rows are kept"
ORPHANED = "not in the manifest"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        table: schema and table, as far as the path tells.
        file: relative to the lake.
        problem: one of the constants of this module.
        is_loss: whether rows cannot be read or are doubled; a leftover is no loss, nor is a key of two rows.
    """

    table: str
    file: str
    problem: str
    is_loss: bool = True


@dataclass
class Audit:
    """What was found.

    Attributes:
        parts: live parts that were looked at.
        rows: that they hold by the manifest.
        bytes: that they take.
        unfinished: leftovers of runs that broke off or are at work; they are swept.
    """

    problems: list[Problem] = field(default_factory=list)
    parts: int = 0
    rows: int = 0
    bytes: int = 0
    unfinished: int = 0

    @property
    def losses(self) -> list[Problem]:
        """Problems that concern rows."""
        return [problem for problem in self.problems if problem.is_loss]

    @property
    def orphans(self) -> list[Problem]:
        """Files that no entry of the manifest lists."""
        return [problem for problem in self.problems if problem.problem == ORPHANED]


def audit(
    names: Sequence[str] | None = None, *, quick: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Audit:
    """Read every live file and compare it with its manifest entry; list what the manifest does not know.

    Args:
        names: tables; all that the manifest has, or that lie in the lake, if not given.
        quick: compare sizes and read no file.
        tell: told what it is at.

    Raises:
        PermanentError: a table has nothing in the lake and no policy.
        TransientError: the database or the lake does not answer.
    """
    store, found = lake_store(), Audit()
    with connect() as connection:
        known = [
            row[0] for row in connection.execute("SELECT DISTINCT table_name FROM archive.batches ORDER BY 1")
        ]
        get_policies().refuse_unknown(connection, names or ())
        parts = {name: live_batches_of(connection, name) for name in names or known}
    for name, own in parts.items():
        tell(name)
        intact = _intact(store, name, own, found, quick=quick)
        if not quick:
            _find_shared_keys(store, name, intact, found)
    tell("files that no part claims")
    for name in names or [""]:
        _find_orphans(store, name, found)
    return found


def _intact(store: LakeStore, name: str, parts: Sequence[Batch], found: Audit, *, quick: bool) -> list[Batch]:
    """The parts that are as the manifest says."""
    intact = []
    for part in parts:
        found.parts += 1
        found.rows += part.rows
        found.bytes += part.bytes
        problem = _problem_of(store, part, quick=quick)
        if problem:
            found.problems.append(Problem(name, part.path, problem))
        else:
            intact.append(part)
    return intact


def _find_shared_keys(store: LakeStore, name: str, parts: Sequence[Batch], found: Audit) -> None:
    """Parts that share a key: doubled rows where a key is for ever one row's, else keys that were used again."""
    policy = get_policies().archived.get(name)
    if policy is None:
        return
    comparable: dict[tuple[tuple[str, ...], date | None], list[str]] = defaultdict(list)
    for part in parts:
        key = key_of_part(name, part)
        # A key with the time in it belongs to one day.
        day = part.data_day if policy.time_column in key else None
        comparable[key, day].append(part.path)
    for (key, _), paths in comparable.items():
        if not key or len(paths) < 2:
            continue
        for path, count in parts_sharing_keys(store, key, paths).items():
            is_loss = policy.same_key == "correct"
            problem = f"{count:,} {KEY_TWICE if is_loss else KEY_REUSED}"
            found.problems.append(Problem(name, path, problem, is_loss=is_loss))


def _problem_of(store: LakeStore, part: Batch, *, quick: bool) -> str | None:
    size = store.size(part.path)
    if size is None:
        return MISSING
    if quick:
        return None if size == part.bytes else ALTERED
    if size != part.bytes or sha256_of(store, part.path) != part.sha256:
        return ALTERED
    with store.open(part.path) as source:
        try:
            rows = pq.ParquetFile(source).metadata.num_rows
        except pa.ArrowInvalid:
            return ALTERED
    return MISCOUNTED if rows != part.rows else None


def _find_orphans(store: LakeStore, name: str, found: Audit) -> None:
    with (
        connect() as connection
    ):  # read before the list, or a part published meanwhile would look like an orphan
        listed = {row[0] for row in connection.execute("SELECT path FROM archive.batches").fetchall()}
    started = datetime.now(UTC)
    for file in store.list(name.replace(".", "/", 1)):
        if file.path in listed or not is_part_path(file.path):
            continue
        if file.path.endswith(UNFINISHED) or (started - file.modified < GRACE and _is_committed(file.path)):
            found.unfinished += 1
            continue
        table = ".".join(file.path.split("/")[:2])
        found.problems.append(Problem(table, file.path, ORPHANED, is_loss=False))


def _is_committed(path: str) -> bool:
    """Whether the manifest has got a file since it was read."""
    with connect() as connection:
        return bool(connection.execute("SELECT 1 FROM archive.batches WHERE path = %s", [path]).fetchone())
