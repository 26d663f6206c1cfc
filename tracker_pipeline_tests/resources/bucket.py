"""A bucket of dump files on this machine that lists as S3 does, for tests."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from xml.sax.saxutils import escape

from aiohttp import web

from tracker_pipeline_tests.serving import served


class Bucket:
    """Its files by key, and what was asked for.

    Args:
        page: keys of one page of a listing.
    """

    def __init__(self, page: int = 1000) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.failures = 0
        self._page = page

    def put(self, key: str, csv: str, *, checksum: bool = True) -> None:
        """Add a zipped CSV and its checksum file."""
        name = key.rsplit("/", 1)[-1]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name.replace(".zip", ".csv"), csv)
        self.files[key] = content.getvalue()
        if checksum:
            digest = hashlib.sha256(content.getvalue()).hexdigest()
            self.files[f"{key}.CHECKSUM"] = f"{digest}  {name}\n".encode()

    async def answer(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        if key:
            self.asked.append(key)
            if key not in self.files:
                return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
            return web.Response(body=self.files[key])
        return web.Response(text=self._listing(request.query), content_type="application/xml")

    def _listing(self, query) -> str:
        prefix, marker = query.get("prefix", ""), query.get("marker", "")
        below = {key[: len(prefix)] + key[len(prefix) :].split("/", 1)[0] + ("/" if "/" in key[len(prefix) :] else "")
                 for key in self.files if key.startswith(prefix)}  # fmt: skip
        left = sorted(name for name in below if name > marker)
        page = left[: self._page]
        items = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
            if name.endswith("/")
            else f"<Contents><Key>{escape(name)}</Key><Size>1</Size></Contents>"
            for name in page
        )
        more = str(len(left) > len(page)).lower()
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f"<ListBucketResult><Name>b</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<IsTruncated>{more}</IsTruncated>{items}</ListBucketResult>"
        )


@contextmanager
def serving(bucket: Bucket) -> Iterator[str]:
    """Serve it; yields its URL."""
    app = web.Application()
    app.router.add_get("/store/{key:.*}", bucket.answer)
    with served(app) as url:
        yield f"{url}/store"
