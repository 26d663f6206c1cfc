"""Where Binance's public dump files are: a folder with any layout, or a bucket with the publisher's.

What belongs here: which files there are of a symbol and timeframe, and a verified copy of one. What does not: what is
in them (`bar_file_formats.py`) and which of them answer a request (`dumps.py`).
"""

import hashlib
import html
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

from tracker_pipeline.resources.bar_source import MarketType
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.http_session import HttpSession, NotFoundError
from tracker_pipeline.resources.symbols import facts_of_name

_FOLDERS: Final[dict[MarketType, str]] = {"spot": "data/spot", "linear": "data/futures/um"}
_PERIOD: Final = re.compile(r"-(?P<year>\d{4})-(?P<month>\d{2})(-(?P<day>\d{2}))?\.(zip|csv|csv\.gz)$")


@dataclass(frozen=True)
class DumpFile:
    """One dump.

    Attributes:
        place: its path or key.
        start: beginning of its month or day, UTC.
        end: end of it.
    """

    place: str
    start: datetime
    end: datetime

    @property
    def is_month(self) -> bool:
        """Whether it holds a month, not a day."""
        return self.end - self.start > timedelta(days=1)


class DumpArchive(Protocol):
    """A place with dump files.

    Attributes:
        place: for messages.
        is_complete: whether what it does not list was never published, as opposed to not fetched by us.
    """

    place: str
    is_complete: bool

    def now(self) -> datetime:
        """Its clock."""

    def natives(self) -> list[str]:
        """The venue's names of the symbols that it has files of."""

    def files(self, native: str, timeframe: str) -> list[DumpFile]:
        """The dumps of a symbol and timeframe, in order."""

    @contextmanager
    def opened(self, file: DumpFile) -> Iterator[Path]:
        """A local copy that is what the publisher's checksum says, where there is one.

        Raises:
            TransientError: it could not be fetched, or not whole.
            PermanentError: it is damaged.
        """

    def close(self) -> None:
        """Give back connections."""


class FolderArchive:
    """Dump files in a folder and those below it.

    Args:
        folder: the folder.
        market_type: spot or linear; files below a folder that says another market are left out.

    Raises:
        PermanentError: there is no such folder.
    """

    is_complete = False

    def __init__(self, folder: Path, market_type: MarketType) -> None:
        if not folder.is_dir():
            raise PermanentError(
                f"there is no folder {folder} with dump files; correct market.source.location"
            )
        self.place = str(folder)
        self._folder = folder
        self._market_type = market_type

    def now(self) -> datetime:
        """Our own clock: a dump is of a day that was over when it was made."""
        return datetime.now(UTC)

    def natives(self) -> list[str]:
        """The venue's names of the symbols that it has files of."""
        return sorted({native for native, _ in self._index})

    def files(self, native: str, timeframe: str) -> list[DumpFile]:
        """The dumps of a symbol and timeframe, in order."""
        return self._index.get((native, timeframe), [])

    @contextmanager
    def opened(self, file: DumpFile) -> Iterator[Path]:
        """The file itself, if its checksum beside it says that it is whole."""
        path = Path(file.place)
        beside = path.with_name(path.name + ".CHECKSUM")
        if beside.is_file() and not _is_whole(path, beside.read_text("utf-8")):
            raise PermanentError(f"{path.name} is not what its checksum file says; fetch it again")
        yield path

    def close(self) -> None:
        """Nothing is open."""

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[DumpFile]]:
        found: dict[tuple[str, str], dict[datetime, DumpFile]] = {}
        for path in sorted(self._folder.rglob("*")):
            facts, file = facts_of_name(path), _dump_file(str(path))
            if file is None or not facts.is_dump or facts.market_type not in (None, self._market_type):
                continue
            assert facts.symbol is not None and facts.timeframe is not None  # noqa: S101, PT018  # a dump's name
            kept = found.setdefault((facts.symbol, facts.timeframe), {})
            kept.setdefault(file.start if file.is_month else file.start + timedelta(hours=1), file)
        return {key: sorted(files.values(), key=_order) for key, files in found.items()}


class BucketArchive:
    """The publisher's bucket, or one that is like it: keys by its layout, listed as S3 lists.

    Args:
        url: of the bucket.
        market_type: spot or linear.
        hosts: folder in which processes share what they know of hosts.
    """

    is_complete = True

    def __init__(self, url: str, market_type: MarketType, hosts: Path | None = None) -> None:
        self._session = HttpSession("the dump archive", url, hosts=hosts)
        self.place = self._session.place
        self._root = _FOLDERS[market_type]
        self._listed: dict[tuple[str, str], list[DumpFile]] = {}

    def now(self) -> datetime:
        """Its clock, to the second."""
        response = self._session.get(
            "its clock", "/", {"prefix": f"{self._root}/", "delimiter": "/", "max-keys": 1}
        )
        try:
            return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
        except (KeyError, ValueError, TypeError):
            raise TransientError(f"{self.place} does not tell the time; try again later") from None

    def natives(self) -> list[str]:
        """The venue's names of the symbols that it has files of."""
        prefix = f"{self._root}/monthly/klines/"
        found = self._keys(prefix, "symbols")
        return sorted(key.removeprefix(prefix).rstrip("/") for key in found if key.endswith("/"))

    def files(self, native: str, timeframe: str) -> list[DumpFile]:
        """The dumps of a symbol and timeframe, in order; asked for once."""
        key = (native, timeframe)
        if key not in self._listed:
            keys = [
                key
                for period in ("monthly", "daily")
                for key in self._keys(
                    f"{self._root}/{period}/klines/{native}/{timeframe}/",
                    f"its {timeframe} files of {native}",
                )
            ]
            files = [file for file in map(_dump_file, keys) if file is not None]
            self._listed[key] = sorted(files, key=_order)
        return self._listed[key]

    @contextmanager
    def opened(self, file: DumpFile) -> Iterator[Path]:
        """A copy in a folder that is removed afterwards."""
        name = file.place.rsplit("/", 1)[-1]
        with tempfile.TemporaryDirectory(prefix="tracker-dump-") as folder:
            path = Path(folder) / name
            path.write_bytes(self._session.get(name, f"/{file.place}").content)
            try:
                checksum = self._session.get(f"the checksum of {name}", f"/{file.place}.CHECKSUM").text
            except NotFoundError:
                checksum = ""
            if checksum and not _is_whole(path, checksum):
                raise TransientError(f"{name} of {self.place} is not what its checksum says; try again later")
            yield path

    def close(self) -> None:
        """Close the connections and forget what was listed."""
        self._session.close()
        self._listed.clear()

    def _keys(self, prefix: str, what: str) -> list[str]:
        """All keys and folders directly below a prefix, page after page."""
        found: list[str] = []
        marker = ""
        while True:
            query = {"prefix": prefix, "delimiter": "/", **({"marker": marker} if marker else {})}
            text = self._session.get(f"the list of {what}", "/", query).text
            if "<ListBucketResult" not in text or "</ListBucketResult>" not in text:
                raise PermanentError(
                    f"{self.place} does not list its files as S3 does; correct market.source.location"
                )
            page = [html.unescape(key) for key in re.findall(r"<Key>([^<]+)</Key>", text)]
            folders = re.findall(r"<CommonPrefixes>\s*<Prefix>([^<]+)</Prefix>", text)
            page += [html.unescape(folder) for folder in folders]
            found += page
            following = re.search(r"<NextMarker>([^<]+)</NextMarker>", text)
            if "<IsTruncated>true" not in text or not page:
                return found
            marker = html.unescape(following[1]) if following else max(page)


def _dump_file(place: str) -> DumpFile | None:
    match = _PERIOD.search(place)
    if match is None:
        return None
    year, month, day = int(match["year"]), int(match["month"]), match["day"]
    start = datetime(year, month, int(day or 1), tzinfo=UTC)
    if day:
        return DumpFile(place, start, start + timedelta(days=1))
    return DumpFile(place, start, (start + timedelta(days=32)).replace(day=1))


def _order(file: DumpFile) -> tuple[datetime, bool]:
    return file.start, not file.is_month


def _is_whole(path: Path, checksum: str) -> bool:
    """Whether a file has the SHA-256 that a line like that of sha256sum gives."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == checksum.split(maxsplit=1)[0].lower()
