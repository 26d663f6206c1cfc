"""An HTTP server that receives what is sent to a webhook, and refuses it when told to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from tracker_pipeline_tests.serving import served


class Receiver:
    """What was received, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.received: list[dict[str, Any]] = []

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.received]

    async def receive(self, request: web.Request) -> web.Response:
        if self.status == 200:
            self.received.append(json.loads(await request.text()))
        return web.Response(status=self.status)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port; its `url` is one that apprise takes."""
    one = Receiver()
    app = web.Application()
    app.router.add_post("/hook", one.receive)
    with served(app) as address:
        one.url = address.replace("http://", "json://") + "/hook"
        yield one
