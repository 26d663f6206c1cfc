"""Address lists from files and URLs, and the packaged list of addresses that are no whales.

What belongs here: reading, and naming the line that is wrong. What does not: what the lists mean
(`domain.addresses`).

A list is CSV with a header. Known are `address,label` and the account exports of Etherscan, whose columns are called
`Address` and `Name Tag`; other columns are passed over. An exclusion list has `category` and `reason` beside these.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Final, cast, get_args

import httpx

from tracker_pipeline.domain.addresses import Category, ListedAddress, WellKnownAddress, display, normalise
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.resources.json_rpc import shown

_ADDRESS_COLUMNS: Final = ("address",)
_LABEL_COLUMNS: Final = ("label", "nametag")
_TIMEOUT: Final = timedelta(seconds=30)
_WELL_KNOWN: Final = "well_known_addresses.csv"


def read_address_list(place: str | Path) -> tuple[ListedAddress, ...]:
    """Read one list.

    Args:
        place: a file, or a URL of http or https.

    Returns:
        Its lines in order, addresses lower-case. The source is the name of the file, or scheme and host of the URL.

    Raises:
        PermanentError: there is no such list, it is not a CSV of addresses, a line is wrong, or two lines name one
            address differently; the text names list and lines.
        TransientError: the URL did not answer.
    """
    text, source = _text_of(place)
    return _parse(text, source)


def read_exclusion_list(place: str | Path) -> tuple[WellKnownAddress, ...]:
    """Read a list of addresses not to watch: CSV with the columns address, reason and perhaps label and category.

    Args:
        place: a file, or a URL of http or https.

    Raises:
        PermanentError: as `read_address_list`, and where a line has no reason or an unknown category.
        TransientError: the URL did not answer.
    """
    text, source = _text_of(place)
    return _exclusions(text, source)


def read_well_known_addresses() -> tuple[WellKnownAddress, ...]:
    """Read the packaged list of exchanges, bridges, contracts and burn addresses."""
    text = resources.files("tracker_pipeline").joinpath(_WELL_KNOWN).read_text("utf-8")
    return _exclusions(text, _WELL_KNOWN)


def _exclusions(text: str, source: str) -> tuple[WellKnownAddress, ...]:
    found = []
    for line, row in _rows(text, source):
        if not row.get("reason"):
            raise PermanentError(f"{source}, line {line}: no reason is given why the address is excluded")
        found.append(
            WellKnownAddress(
                address=_address(row["address"], source, line),
                label=row.get("label") or row["reason"],
                category=_category(row.get("category") or "unknown", source, line),
                reason=row["reason"],
                network=row.get("network") or "*",
            )
        )
    return tuple(found)


def _text_of(place: str | Path) -> tuple[str, str]:
    """Content of a file or URL, and what messages call it."""
    text = str(place)
    if "://" in text:
        source = shown(text)
        return _download(text, source), source
    path = Path(text).expanduser()
    try:
        return path.read_text("utf-8-sig"), path.name
    except OSError as error:
        raise PermanentError(f"the address list {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise PermanentError(f"the address list {path} is not UTF-8 text; save it as CSV in UTF-8") from None


def _download(url: str, source: str) -> str:
    # The causes are left out on purpose: their texts may hold the URL, and with it a key.
    try:
        response = httpx.get(url, timeout=_TIMEOUT.total_seconds(), follow_redirects=True)
    except httpx.HTTPError as error:
        raise TransientError(
            f"the address list of {source} cannot be fetched ({type(error).__name__}); check that it is up"
        ) from None
    status = response.status_code
    if response.is_server_error or status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT):
        raise TransientError(f"the address list of {source} gave HTTP status {status}; try again later")
    if not response.is_success:
        raise PermanentError(f"the address list of {source} gave HTTP status {status}; correct the URL")
    return response.text


def _parse(text: str, source: str) -> tuple[ListedAddress, ...]:
    rows = list(_rows(text, source))
    if not rows:
        raise PermanentError(f"{source} lists no address; a CSV with the columns address,label is needed")
    entries = []
    named: dict[str, tuple[str, int]] = {}
    for line, row in rows:
        address = _address(_first(row, _ADDRESS_COLUMNS), source, line)
        label = _first(row, _LABEL_COLUMNS) or None
        if label is not None:
            other, at = named.setdefault(address, (label, line))
            if other != label:
                raise PermanentError(
                    f"{source}: {display(address)} is {other!r} in line {at} and {label!r} in line {line};"
                    " correct one of them"
                )
        entries.append(ListedAddress(address, label, source))
    return tuple(entries)


def _rows(text: str, source: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and columns by plain name, of each line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        names = [_plain(name) for name in next(reader, [])]
        if not set(names) & set(_ADDRESS_COLUMNS):
            raise PermanentError(f"{source} has no column address in line 1; a CSV with a header is needed")
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, dict(zip(names, (cell.strip() for cell in row), strict=False))
    except csv.Error as error:
        raise PermanentError(f"{source}, line {reader.line_num}, is not CSV: {error}") from None


def _plain(name: str) -> str:
    """Name Tag, name_tag and nameTag are the same column."""
    return "".join(character for character in name.lower() if character.isalnum())


def _first(row: Mapping[str, str], names: Iterable[str]) -> str:
    return next((row[name] for name in names if row.get(name)), "")


def _address(text: str, source: str, line: int) -> str:
    try:
        return normalise(text)
    except ValueError as error:
        raise PermanentError(f"{source}, line {line}: {error}") from None


def _category(text: str, source: str, line: int) -> Category:
    if text not in get_args(Category):
        raise PermanentError(
            f"{source}, line {line}: {text!r} is not a category; known are {', '.join(get_args(Category))}"
        )
    return cast(Category, text)
