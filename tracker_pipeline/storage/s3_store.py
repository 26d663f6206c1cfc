"""The lake in a bucket: any object store that speaks S3.

Endpoint, region and credentials come from the environment by the names that every S3 program reads: AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. Without a key the usual chain of profiles and
machine roles applies.

What belongs here: puts, gets and lists. What does not: anything that a folder does as well (`lake_store`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO, cast

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.settings import get_settings
from tracker_pipeline.storage.lake_store import Found, Staged, Step, Stored, digest, no_step

_CHUNK_BYTES = 8 * 1024 * 1024
_CONNECT_SECONDS = 5
_REQUEST_SECONDS = 60


class S3Store:
    """Objects below `bucket/prefix`. There is no rename: the put is the step that happens wholly or not at all."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.name = f"s3://{root}"

    @cached_property
    def _files(self) -> Any:
        # Takes 0.1 s to import and starts threads: only where a bucket is used.
        from pyarrow import fs

        endpoint = _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        scheme, _, host = endpoint.rpartition("://") if endpoint else ("https", "", None)
        return fs.S3FileSystem(
            access_key=_environment("AWS_ACCESS_KEY_ID"),
            secret_key=_environment("AWS_SECRET_ACCESS_KEY"),
            session_token=_environment("AWS_SESSION_TOKEN"),
            region=_region(),
            endpoint_override=host,
            scheme=scheme or "https",
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_REQUEST_SECONDS,
        )

    @property
    def storage_options(self) -> Mapping[str, str]:
        """See `LakeStore`."""
        given = {
            "aws_endpoint_url": _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
            "aws_access_key_id": _environment("AWS_ACCESS_KEY_ID"),
            "aws_secret_access_key": _environment("AWS_SECRET_ACCESS_KEY"),
            "aws_session_token": _environment("AWS_SESSION_TOKEN"),
            "aws_region": _region(),
        }
        options = {name: value for name, value in given.items() if value}
        if options.get("aws_endpoint_url", "").startswith("http://"):
            options["aws_allow_http"] = "true"
        return options

    @contextmanager
    def stage(self, path: str) -> Iterator[Staged]:
        """See `LakeStore`. The file is made in `TRACKER_HOME/staging`."""
        with self._in_workplace():
            self.workplace.mkdir(parents=True, exist_ok=True)
            folder = Path(mkdtemp(dir=self.workplace))
        staged = _StagedForPut(self, path, folder / Path(path).name)
        try:
            with self._in_workplace():  # what fails in the bucket is said by `put`
                yield staged
        finally:
            staged.file.unlink(missing_ok=True)
            folder.rmdir()

    @contextmanager
    def _in_workplace(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TransientError(
                f"the folder {self.workplace}, where files for {self.name} are made, cannot be written to:"
                f" {_line(error)}"
            ) from error

    def put(self, file: Path, path: str) -> Stored:
        """Upload a file, read it back and compare."""
        with file.open("rb") as source:
            wanted = digest(cast("BinaryIO", source))
        try:
            self._upload(file, path)
            with self._files.open_input_stream(self._key(path)) as source:
                found = digest(source)
        except OSError as error:
            raise self._failure("written to", error) from error
        if found != wanted:
            self.delete(path)
            raise TransientError(
                f"{self.name}/{path}: the object read back differs from the file that was put"
            )
        return Stored(path, file.stat().st_size, found)

    def _upload(self, file: Path, path: str) -> None:
        sink = self._files.open_output_stream(self._key(path))
        try:
            with file.open("rb") as source:
                while chunk := source.read(_CHUNK_BYTES):
                    sink.write(chunk)
            sink.close()
        except BaseException:
            # Closing completes the object with what it has so far; no manifest will ever list it.
            with suppress(OSError):
                sink.close()
            with suppress(OSError):
                self._files.delete_file(self._key(path))
            raise

    def open(self, path: str) -> BinaryIO:
        """See `LakeStore`."""
        with self._said_plainly("read"):
            return cast("BinaryIO", self._files.open_input_file(self._key(path)))

    def locations(self, paths: Sequence[str]) -> list[str]:
        """See `LakeStore`."""
        return [f"{self.name}/{path}" for path in paths]

    def missing(self, paths: Sequence[str]) -> list[str]:
        """See `LakeStore`. One list of each folder concerned, not one request a file."""
        return [path for path in paths if self.size(path) is None]

    def size(self, path: str) -> int | None:
        """See `LakeStore`."""
        from pyarrow import fs

        with self._said_plainly("read"):
            info = self._files.get_file_info(self._key(path))
        return info.size if info.type == fs.FileType.File else None

    def delete(self, path: str) -> None:
        """See `LakeStore`."""
        if self.size(path) is not None:
            with self._said_plainly("written to"):
                self._files.delete_file(self._key(path))

    def list(self, prefix: str = "") -> Iterator[Found]:
        """See `LakeStore`."""
        from pyarrow import fs

        selector = fs.FileSelector(self._key(prefix).rstrip("/"), recursive=True, allow_not_found=True)
        with self._said_plainly("read"):
            found = self._files.get_file_info(selector)
        for info in sorted(found, key=lambda one: one.path):
            if info.type == fs.FileType.File:
                yield Found(info.path.removeprefix(f"{self._root}/"), info.size, info.mtime)

    @property
    def workplace(self) -> Path:
        """See `LakeStore`."""
        return get_settings().state_folder / "staging"

    def _key(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _said_plainly(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(what, error) from error

    def _failure(self, what: str, error: OSError) -> TransientError:
        return TransientError(f"the lake {self.name} cannot be {what}: {_line(error)}")


class _StagedForPut:
    def __init__(self, store: S3Store, path: str, file: Path) -> None:
        self._store = store
        self._path = path
        self.file = file

    def publish(self, step: Step = no_step) -> Stored:
        """Put the file under its name."""
        step("after fsync")
        stored = self._store.put(self.file, self._path)
        step("after rename")
        return stored


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _environment(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _region() -> str | None:
    return _environment("AWS_REGION", "AWS_DEFAULT_REGION") or (
        "us-east-1" if _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") else None
    )
