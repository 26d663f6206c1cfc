"""Where the lake's files lie: a folder, or a bucket of an object store that speaks S3.

A file appears under its name whole or not at all: in a folder by a rename after the bytes are on disk, in a bucket by
the put itself, which is read back. Files are never changed afterwards.

What belongs here: bytes under names. What does not: what is in a file (`lake`), which files are live (`manifest`).
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.settings import get_settings

UNFINISHED = ".unfinished"


Step = Callable[[str], None]


def no_step(_: str) -> None:
    """Nobody wants to know how far it is."""


@dataclass(frozen=True)
class Stored:
    """A file under its name, for good."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Found:
    """A file that was come across when the store was listed."""

    path: str
    bytes: int
    modified: datetime


class Staged(Protocol):
    """A file in the making: write to `file`, read it back from there, then publish it."""

    file: Path

    def publish(self, step: Step = no_step) -> Stored:
        """Make it durable and give it its name, in one step that happens wholly or not at all.

        Args:
            step: told "after fsync" and "after rename" as they are reached; a put is both.
        """
        ...


class LakeStore(Protocol):
    """Files under names relative to the root, such as `market/ohlc_15m/day=2024-05-01/part-….parquet`.

    Every method raises a TransientError where the store does not answer or refuses, with the store's own reason.
    """

    @property
    def name(self) -> str:
        """The root, as a person would write it."""
        ...

    @property
    def storage_options(self) -> Mapping[str, str] | None:
        """How Polars gets at `locations`."""
        ...

    def stage(self, path: str) -> Any:
        """A context manager that yields a `Staged`; what is not published by its end is removed."""
        ...

    def open(self, path: str) -> BinaryIO:
        """The file for reading, seekable; also understood by pyarrow."""
        ...

    def locations(self, paths: Sequence[str]) -> list[str]:
        """Absolute names for programs that read the store by themselves."""
        ...

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Those of `paths` that do not exist."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes of the file, None where there is none."""
        ...

    def delete(self, path: str) -> None:
        """Remove the file if it exists."""
        ...

    def list(self, prefix: str = "") -> Iterator[Found]:
        """All files below a folder, unfinished ones included."""
        ...

    @property
    def workplace(self) -> Path:
        """The folder in which files are made."""
        ...


def lake_store() -> LakeStore:
    """The store that `TRACKER_LAKE_URI` names.

    Raises:
        PermanentError: it names a kind of store that we do not know, or no bucket.
    """
    return store_at(get_settings().lake)


@cache
def store_at(uri: str) -> LakeStore:
    """The store of a folder, a `file://` or an `s3://bucket/prefix`."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return FolderStore(Path(uri).expanduser().absolute())
    if scheme == "file":
        return FolderStore(Path(rest).absolute())
    if scheme == "s3":
        if not rest.strip("/"):
            raise PermanentError("TRACKER_LAKE_URI names no bucket: give s3://bucket/prefix")
        from tracker_pipeline.storage.s3_store import S3Store

        return S3Store(rest.strip("/"))
    raise PermanentError(
        f"TRACKER_LAKE_URI names a {scheme} store, which is not supported: give a folder or s3://bucket/prefix"
    )


def sha256_of(store: LakeStore, path: str) -> str:
    """SHA-256 of a file of the store."""
    with store.open(path) as source:
        return digest(source)


def digest(source: BinaryIO) -> str:
    """SHA-256 of all that is left in a stream."""
    return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]


def free_disk_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, which need not be there yet."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    return shutil.disk_usage(there).free


class FolderStore:
    """A folder. Other processes may use it at the same time."""

    storage_options = None

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    @contextmanager
    def stage(self, path: str) -> Iterator[Staged]:
        """See `LakeStore`."""
        target = self.root / path
        staged = _StagedInFolder(self, path, target)
        with self._said_plainly("written to"):
            _create_synced(target.parent)
        try:
            yield staged
        except OSError as error:
            raise self._failure("written to", error) from error
        finally:
            staged.file.unlink(missing_ok=True)

    def open(self, path: str) -> BinaryIO:
        """See `LakeStore`."""
        with self._said_plainly("read"):
            return (self.root / path).open("rb")

    def locations(self, paths: Sequence[str]) -> list[str]:
        """See `LakeStore`."""
        return [str(self.root / path) for path in paths]

    def missing(self, paths: Sequence[str]) -> list[str]:
        """See `LakeStore`."""
        return [path for path in paths if not (self.root / path).exists()]

    def size(self, path: str) -> int | None:
        """See `LakeStore`."""
        with self._said_plainly("read"):
            try:
                return (self.root / path).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def delete(self, path: str) -> None:
        """See `LakeStore`."""
        with self._said_plainly("written to"):
            (self.root / path).unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[Found]:
        """See `LakeStore`."""
        for path in sorted((self.root / prefix).rglob("*")):
            with suppress(FileNotFoundError):  # gone since the folder was read
                if path.is_file():
                    facts = path.stat()
                    modified = datetime.fromtimestamp(facts.st_mtime, UTC)
                    yield Found(path.relative_to(self.root).as_posix(), facts.st_size, modified)

    @property
    def workplace(self) -> Path:
        """See `LakeStore`."""
        return self.root

    @contextmanager
    def _said_plainly(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(what, error) from error

    def _failure(self, what: str, error: OSError) -> TransientError:
        return TransientError(f"the lake {self.name} cannot be {what}: {error.strerror or error}")


class _StagedInFolder:
    """Beside its target, so that the rename stays within one file system."""

    def __init__(self, store: FolderStore, path: str, target: Path) -> None:
        self._store = store
        self._path = path
        self._target = target
        self.file = target.with_name(target.name + UNFINISHED)

    def publish(self, step: Step = no_step) -> Stored:
        """Sync the bytes, rename, sync the folder."""
        with self.file.open("rb") as source:
            os.fsync(source.fileno())
            size = os.fstat(source.fileno()).st_size
            found = digest(cast("BinaryIO", source))
        step("after fsync")
        self.file.replace(self._target)
        _sync_folder(self._target.parent)
        step("after rename")
        return Stored(self._path, size, found)


def _create_synced(folder: Path) -> None:
    """Create a folder and those above it, each on disk before the next is relied on."""
    absent = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(absent):
        one.mkdir(exist_ok=True)
        _sync_folder(one.parent)
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(folder))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
