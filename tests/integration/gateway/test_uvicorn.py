"""The internals of uvicorn that the gateway builds on, in the version that is installed: each is there and does what the gateway needs.

pyproject.toml allows one minor version of uvicorn. For the next one, run this file with it first.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from httptools import HttpRequestParser
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.server import client, ports, protocol, unframed
from gateway.server.protocol import LimitedProtocol
from tests.support.raw_http import DEADLINE, Wire, head

OURS = "gateway/server/protocol.py, client.py, unframed.py and ports.py"
GET = head("GET", "/")


def function(value: object) -> bool:
    return callable(value)


def a(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


def none_or(*kinds: type) -> Callable[[object], bool]:
    return lambda value: value is None or isinstance(value, kinds)


USED: dict[str, dict[str, Callable[[object], bool]]] = {
    "HttpToolsProtocol": {
        "connection_made": function,
        "connection_lost": function,
        "on_message_begin": function,
        "on_headers_complete": function,
        "on_body": function,
        "on_message_complete": function,
        "_start_asgi_task": function,
        "loop": a(asyncio.AbstractEventLoop),
        "connections": a(set),
        "server_state": a(ServerState),
        "flow": a(FlowControl),
        "parser": a(HttpRequestParser),
        "transport": a(asyncio.Transport),
        "scope": a(dict),
        "url": a(bytes),
        "headers": a(list),
        "pipeline": a(deque),
        "cycle": a(RequestResponseCycle),
    },
    "RequestResponseCycle": {
        "scope": a(dict),
        "transport": a(object),
        "flow": a(FlowControl),
        "message_event": a(asyncio.Event),
        "disconnected": a(bool),
        "keep_alive": a(bool),
        "waiting_for_100_continue": a(bool),
        "more_body": a(bool),
        "response_started": a(bool),
        "response_complete": a(bool),
        "chunked_encoding": none_or(bool),
        "expected_content_length": a(int),
    },
    "FlowControl": {"write_paused": a(bool), "resume_reading": function, "drain": function},
    "ServerState": {"total_requests": a(int), "default_headers": a(list)},
    "HttpRequestParser": {"feed_data": function, "should_upgrade": function},
}
"""What the gateway uses of an object, beside what asyncio documents, and what it has to be."""


class Site:
    """A uvicorn server, with the protocol of its last connection, while the application waits."""

    def __init__(self) -> None:
        self.port = 0
        self.protocols: list[HttpToolsProtocol] = []
        self.called = asyncio.Event()
        self.go = asyncio.Event()
        self.app: Callable[[Scope, Receive, Send], Any] = self.wait

    async def wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called.set()
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    @property
    def protocol(self) -> HttpToolsProtocol:
        return self.protocols[-1]

    async def wire(self) -> Wire:
        return await Wire.open(f"http://127.0.0.1:{self.port}")


@asynccontextmanager
async def serving(kind: type[HttpToolsProtocol] = HttpToolsProtocol) -> AsyncIterator[Site]:
    site = Site()

    class Remembered(kind):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            site.protocols.append(self)

    sock = ports.listen("127.0.0.1", 0)
    site.port = sock.getsockname()[1]
    config = uvicorn.Config(site, loop="none", http=Remembered, ws="none", lifespan="off", log_config=None, access_log=False)
    server = ports.Server(config)
    running = asyncio.create_task(server.serve([sock]))
    try:
        async with asyncio.timeout(DEADLINE):
            yield site
    finally:
        site.go.set()
        server.should_exit = True
        await running


def inherited(tree: ast.AST, owners: tuple[str, ...], known: set[str]) -> set[str]:
    """Attributes that a file uses of what it calls by one of these names, without those `known`."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {node.attr for node in nodes if ast.unparse(node.value) in owners} - known


def tree(module: Any) -> ast.AST:
    return ast.parse(Path(module.__file__).read_text())


def own() -> set[str]:
    """What LimitedProtocol defines itself, or asyncio documents."""
    assigned = [node.targets[0] for node in ast.walk(tree(protocol)) if isinstance(node, ast.Assign)]
    assigned += [node.target for node in ast.walk(tree(protocol)) if isinstance(node, ast.AnnAssign)]
    named = {node.attr for node in assigned if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"}
    return (named | set(vars(LimitedProtocol)) | {"limit"}) - set(USED["HttpToolsProtocol"])


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("HttpToolsProtocol", inherited(tree(protocol), ("self", "super()"), own())),
        (
            "RequestResponseCycle",
            inherited(tree(protocol), ("cycle", "self.cycle", "self._current"), set()) | inherited(tree(unframed), ("cycle",), set()),
        ),
        (
            "FlowControl",
            inherited(tree(protocol), ("self.flow",), set())
            | inherited(tree(client), ("self._flow",), set())
            | inherited(tree(unframed), ("cycle.flow",), set()),
        ),
        ("ServerState", inherited(tree(protocol), ("self.server_state",), set())),
        ("HttpRequestParser", inherited(tree(protocol), ("self.parser",), set())),
    ],
)
def test_whatever_the_gateway_uses_of_uvicorn_is_in_the_table_of_this_file(kind: str, found: set[str]) -> None:
    assert found == set(USED[kind])


@pytest.mark.parametrize("kind", USED)
async def test_each_attribute_is_there_and_is_what_the_gateway_takes_it_for(kind: str) -> None:
    async with serving() as site:
        wire = await site.wire()
        await wire.send(GET)
        await site.called.wait()
        made: Any = site.protocol
        owners = {
            "HttpToolsProtocol": made,
            "RequestResponseCycle": made.cycle,
            "FlowControl": made.flow,
            "ServerState": made.server_state,
            "HttpRequestParser": made.parser,
        }
        missing = object()
        found = {name: getattr(owners[kind], name, missing) for name in USED[kind]}
        for name, value in found.items():
            assert value is not missing, f"uvicorn {uvicorn.__version__} has no {kind}.{name}, which {OURS} use"
            assert USED[kind][name](value), f"uvicorn {uvicorn.__version__}: {kind}.{name} is {value!r}, not what {OURS} take it for"
        wire.close()


REPLACED: dict[Callable[..., Any], str] = {
    HttpToolsProtocol.data_received: "010a7ae59a5d3b1a",
    HttpToolsProtocol.on_response_complete: "64e254f28e389e76",
    uvicorn.Server.capture_signals: "e1bbcd4770d1c887",
}
"""Methods that the gateway replaces without calling them, and the beginning of the sha256 of their source."""


@pytest.mark.parametrize("method", REPLACED, ids=lambda method: method.__qualname__)
def test_a_method_that_the_gateway_replaces_is_still_what_it_replaced(method: Callable[..., Any]) -> None:
    found = hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:16]
    assert found == REPLACED[method], f"uvicorn {uvicorn.__version__} changed {method.__qualname__}: compare it with ours in {OURS}"


def test_the_status_lines_are_bytes_that_end_a_line() -> None:
    assert httptools_impl.STATUS_LINE[431].startswith(b"HTTP/1.1 431 ")
    assert httptools_impl.STATUS_LINE[431].endswith(b"\r\n")


async def test_each_request_has_a_state_of_its_own() -> None:
    states: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        states.append(scope["state"])
        await site.wait(scope, receive, send)

    async with serving() as site:
        site.app = app
        site.go.set()
        wire = await site.wire()
        for _ in range(2):
            await wire.send(GET)
            await wire.answer()
        wire.close()
    assert states == [{}, {}]
    assert states[0] is not states[1]


async def test_a_response_is_written_to_the_transport_that_its_cycle_has() -> None:
    written: list[bytes] = []

    class Elsewhere(HttpToolsProtocol):
        def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
            class Transport:
                def write(self, data: bytes) -> None:
                    written.append(data)

            cycle.transport = Transport()  # type: ignore[assignment]
            super()._start_asgi_task(cycle, app)

    async with serving(Elsewhere) as site:
        wire = await site.wire()
        await wire.send(GET)
        await site.called.wait()
        cycle = site.protocol.cycle
        site.go.set()
        while not cycle.response_complete:
            await asyncio.sleep(0)
        assert [data.split(b"\r\n")[0] for data in written] == [b"HTTP/1.1 200 OK", b"ok"]
        wire.close()


async def test_a_request_behind_another_one_waits_in_the_pipeline_with_its_application() -> None:
    async with serving() as site:
        wire = await site.wire()
        await wire.send(GET)
        await site.called.wait()
        first = site.protocol.cycle
        await wire.send(GET + GET)
        while len(site.protocol.pipeline) < 2:
            await asyncio.sleep(0)
        (last, app), (second, _) = site.protocol.pipeline
        assert callable(app)
        assert site.protocol.cycle is last
        assert first is not second is not last
        assert not (first.response_started or second.response_started)
        site.go.set()
        assert [(await wire.answer()).body for _ in range(3)] == [b"ok"] * 3
        assert first.response_complete and second.response_complete and last.response_complete
        assert not site.protocol.pipeline
        wire.close()


async def test_a_cycle_knows_how_far_its_request_and_its_response_are_and_reports_the_end_once() -> None:
    ends: list[bool] = []

    class Counting(HttpToolsProtocol):
        def on_response_complete(self) -> None:
            ends.append(self.cycle.response_complete)
            super().on_response_complete()

    async with serving(Counting) as site:
        wire = await site.wire()
        await wire.send(head("POST", "/", content_length="2") + b"a")
        await site.called.wait()
        cycle = site.protocol.cycle
        assert (cycle.more_body, cycle.response_started, cycle.response_complete, cycle.keep_alive) == (True, False, False, True)
        await wire.send(b"b")
        while cycle.more_body:
            await asyncio.sleep(0)
        site.go.set()
        await wire.answer()
        assert (cycle.response_started, cycle.response_complete, ends) == (True, True, [True])
        wire.close()


async def test_a_cycle_that_is_marked_disconnected_sends_nothing_and_wakes_its_application() -> None:
    async with serving() as site:
        received: list[Any] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            received.append(await receive())
            site.called.set()
            received.append(await receive())
            await send({"type": "http.response.start", "status": 200, "headers": []})

        site.app = app
        wire = await site.wire()
        await wire.send(head("POST", "/", content_length="2") + b"a")
        await site.called.wait()
        cycle = site.protocol.cycle
        cycle.disconnected = True
        cycle.message_event.set()
        while len(received) < 2:
            await asyncio.sleep(0)
        assert received[1] == {"type": "http.disconnect"}
        assert not cycle.response_started
        wire.close()


async def test_a_cycle_without_keep_alive_closes_its_connection() -> None:
    async with serving() as site:
        wire = await site.wire()
        await wire.send(GET)
        await site.called.wait()
        site.protocol.cycle.keep_alive = False
        site.go.set()
        answer = await wire.answer()
        assert answer.headers["connection"] == "close"
        await wire.closed()
        wire.close()


@pytest.mark.parametrize(("chunked", "framed"), [(False, b"ab"), (None, b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")])
async def test_a_body_is_sent_in_chunks_unless_its_cycle_says_otherwise(chunked: bool | None, framed: bytes) -> None:
    async with serving() as site:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            cycle = site.protocol.cycle
            cycle.chunked_encoding, cycle.keep_alive = chunked, False
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for part, more in ((b"a", True), (b"b", False)):
                if chunked is False:
                    cycle.expected_content_length = len(part)
                await send({"type": "http.response.body", "body": part, "more_body": more})

        site.app = app
        wire = await site.wire()
        await wire.send(GET)
        assert (await wire.reader.read()).partition(b"\r\n\r\n")[2] == framed
        wire.close()


async def test_send_waits_while_the_flow_is_paused() -> None:
    async with serving() as site:
        wire = await site.wire()
        await wire.send(GET)
        await site.called.wait()
        made = site.protocol
        made.pause_writing()
        assert made.flow.write_paused
        site.go.set()
        draining = asyncio.create_task(made.flow.drain())
        await asyncio.sleep(0)
        assert not (draining.done() or made.cycle.response_started)
        made.resume_writing()
        await draining
        assert (await wire.answer()).body == b"ok"
        wire.close()


async def test_a_server_lists_its_sockets_and_ends_when_it_is_told_to() -> None:
    sock = ports.listen("127.0.0.1", 0)
    server = ports.Server(uvicorn.Config(Site(), loop="none", http=HttpToolsProtocol, lifespan="off", log_config=None))
    running = asyncio.create_task(server.serve([sock]))
    while not server.started:
        await asyncio.sleep(0)
    assert [listening.sockets[0].getsockname() for listening in server.servers] == [sock.getsockname()]
    server.should_exit = True
    await running
