"""A node of an Ethereum-like chain on this machine: JSON-RPC over HTTP POST / and its whales as /whales.csv.

What belongs here: HTTP, the JSON-RPC envelope, batches, the one thread that works on the chain. What does not: the
methods (`chain_methods.py`), blocks and state (`evm.py`), who moves what (`whales.py`).

An answer can be spoilt, delayed or refused in one place: a middleware added to the returned application sees every
request.
"""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from aiohttp import web
from eth_utils import to_checksum_address

from tracker_pipeline.sandbox.chain_methods import RpcError, answer
from tracker_pipeline.sandbox.evm import EvmChain

Json = Any
Result = TypeVar("Result")

_Answer = Callable[[EvmChain, str, Json], Json]

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_LARGEST_BODY: Final = 5 * 1024 * 1024  # as geth; a larger request gets HTTP 413


@dataclass(frozen=True)
class _Node:
    """The chain and the only thread that may touch it."""

    chain: EvmChain
    thread: ThreadPoolExecutor
    clock: Callable[[], datetime]
    state_override: bool

    async def run(self, function: Callable[[EvmChain], Result]) -> Result:
        """Mine what is due, then call `function` with the chain, both off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, self._caught_up, function)

    def _caught_up(self, function: Callable[[EvmChain], Result]) -> Result:
        self.chain.catch_up(self.clock())
        return function(self.chain)


_NODE: Final = web.AppKey("node", _Node)


def make_chain_app(
    *,
    start: datetime,
    seed: int,
    whales: int,
    clock: Callable[[], datetime],
    chain_id: int = 1337,
    state_override: bool = False,
) -> web.Application:
    """Build the node. It mines up to the present when the application starts, then as requests come.

    Args:
        start: time of block 0, aware. The same start and seed give the same blocks, hashes included.
        seed: another seed is another set of whales with other histories.
        whales: funded addresses, at least 1.
        clock: what time it is; blocks up to then exist.
        chain_id: what the chain calls itself.
        state_override: whether `eth_call` takes code that stands at an address for the length of the call. Not every
            node does.
    """

    async def live(app: web.Application) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-chain")
        build = partial(EvmChain, start=start, seed=seed, whales=whales, chain_id=chain_id)
        try:
            chain = await loop.run_in_executor(thread, build)
            app[_NODE] = _Node(chain, thread, clock, state_override)
            await app[_NODE].run(lambda chain: None)
            yield
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    app = web.Application(client_max_size=_LARGEST_BODY)
    app.cleanup_ctx.append(live)
    app.router.add_post("/", _serve_rpc)
    app.router.add_get("/whales.csv", _serve_whales)
    return app


async def _serve_rpc(request: web.Request) -> web.Response:
    body = await request.read()
    node = request.app[_NODE]
    reply = partial(_reply, body=body, answer_to=partial(answer, state_override=node.state_override))
    text = await node.run(lambda chain: json.dumps(reply(chain)))
    return web.Response(text=text, content_type="application/json")


async def _serve_whales(request: web.Request) -> web.Response:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("address", "label"))
    for whale in request.app[_NODE].chain.whales:
        table.writerow((to_checksum_address(whale.address), whale.label))
    return web.Response(text=text.getvalue(), content_type="text/csv")


def _reply(chain: EvmChain, body: bytes, answer_to: _Answer) -> Json:
    try:
        asked = json.loads(body)
    except ValueError:
        return _error(None, RpcError(_PARSE_ERROR, "parse error"))
    if not isinstance(asked, list):
        return _reply_to_one(chain, asked, answer_to)
    if not asked:
        return _error(None, RpcError(_INVALID_REQUEST, "empty batch"))
    return [_reply_to_one(chain, one, answer_to) for one in asked]


def _reply_to_one(chain: EvmChain, asked: Json, answer_to: _Answer) -> Json:
    if not isinstance(asked, dict) or not isinstance(asked.get("method"), str):
        return _error(None, RpcError(_INVALID_REQUEST, "invalid request"))
    try:
        result = answer_to(chain, asked["method"], asked.get("params"))
    except RpcError as error:
        return _error(asked.get("id"), error)
    return {"jsonrpc": "2.0", "id": asked.get("id"), "result": result}


def _error(request_id: Json, error: RpcError) -> Json:
    content = {"code": error.code, "message": error.message}
    if error.data is not None:
        content["data"] = error.data
    return {"jsonrpc": "2.0", "id": request_id, "error": content}
