"""The protocol below the application, under a real uvicorn with an application of a few lines."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import ApiError
from gateway.server import ports
from gateway.server.connection_limit import ConnectionLimit, max_connections
from gateway.server.http import respond
from gateway.server.serve import url
from ratchet.config import LimitsConfig
from tests.support.raw_http import Wire, head

GET = head("GET", "/")
SHORT = 0.3


@dataclass
class Port:
    """A listening server; its application answers with the length of the body, once `go` is set."""

    limit: ConnectionLimit
    refused: list[ApiError]
    url: str = ""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    scopes: list[Scope] = field(default_factory=list)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    app: ASGIApp | None = None
    """What answers instead."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if self.app is not None:
            await self.app(scope, receive, send)
            return
        size, more = 0, scope["path"] != "/unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected.set()
                return
            size += len(message["body"])
            more = message["more_body"]
        await self.go.wait()
        await respond(send, 200, b"%d" % size)


@asynccontextmanager
async def port(most: int = 100, **limits: Any) -> AsyncIterator[Port]:
    refused: list[ApiError] = []
    made = Port(ConnectionLimit(LimitsConfig(**limits), most, refused.append), refused)
    made.go.set()
    sock = ports.listen("127.0.0.1", 0)
    made.url = url(sock)
    server = ports.server(made, made.limit)
    running = asyncio.create_task(server.serve([sock]))
    try:
        yield made
    finally:
        server.should_exit = True
        await running


async def ask(made: Port, data: bytes) -> tuple[int, str]:
    """Status and error code of the first answer to `data`; the connection must close after an error."""
    wire = await Wire.open(made.url)
    await wire.send(data)
    answer = await wire.answer()
    if answer.status != 200:
        assert answer.headers["connection"] == "close"
        await wire.closed()
    wire.close()
    return answer.status, answer.error["code"] if answer.status != 200 else ""


async def test_requests_on_one_connection_are_answered_one_after_the_other() -> None:
    async with port() as made:
        wire = await Wire.open(made.url)
        await wire.send(head("POST", "/", content_length="3") + b"abc" + GET + head("POST", "/", transfer_encoding="chunked"))
        await wire.send(b"2\r\nab\r\n0\r\n\r\n")
        assert [(await wire.answer()).body for _ in range(3)] == [b"3", b"0", b"2"]
        wire.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head("GET", "/", x="v" * 900), 200),
        (head("GET", "/", x="v" * 1100), 431),
        (head("GET", "/" + "p" * 1100), 431),
        (head("GET", "/", **{f"x{i}": "v" * 180 for i in range(10)}), 200),
        (head("GET", "/", **{f"x{i}": "v" * 180 for i in range(11)}), 431),
        (head("GET", "/", **{f"x{i}": "" for i in range(15)}), 200),
        (head("GET", "/", **{f"x{i}": "" for i in range(16)}), 431),
        (head("POST", "/", content_length="100000") + b"x" * 100_000, 200),
    ],
)
async def test_a_header_line_a_whole_header_and_their_number_are_bounded(data: bytes, status: int) -> None:
    async with port(max_header_line=1024, max_header_bytes=2000, max_headers=16) as made:
        wire = await Wire.open(made.url)
        await wire.send(GET + data)  # also behind another request in the same packet
        assert [(await wire.answer()).status for _ in range(2)] == [200, status]
        wire.close()
        assert (await ask(made, data))[0] == status


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\nx"])
async def test_a_header_without_end_is_refused_before_more_of_it_is_kept(start: bytes) -> None:
    async with port() as made:
        wire = await Wire.open(made.url)
        await wire.send(start)
        for _ in range(128):
            await wire.send(b"a" * 2**16)
        answer = await wire.answer()
        assert (answer.status, answer.error["code"]) == (431, "header_too_large")
        wire.close()
        assert not made.scopes


async def test_more_headers_than_may_be_are_refused_while_they_come() -> None:
    async with port() as made:
        assert await ask(made, b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 200) == (431, "header_too_large")


async def test_a_trailer_is_no_header_and_is_bounded() -> None:
    async with port() as made:
        wire = await Wire.open(made.url)
        chunked = head("POST", "/", transfer_encoding="chunked") + b"1\r\na\r\n0\r\n"
        await wire.send(chunked + b"authorization: Bearer x\r\n\r\n")
        assert (await wire.answer()).status == 200
        assert [name for name, _ in made.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]
        wire.close()
        for endless in (b"a:b\r\n" * 200, b"a:" + b"b" * 2**20):
            assert await ask(made, chunked + endless) == (431, "header_too_large")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://host HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT host:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        head("POST", "/", connection="upgrade", upgrade="h2c", content_length="2") + b"{}",
        head("POST", "/", transfer_encoding="chunked") + b"zz\r\n",
    ],
)
async def test_what_is_no_request_is_400_in_openais_shape(data: bytes) -> None:
    async with port() as made:
        assert await ask(made, data) == (400, "invalid_http")
        assert [error.status for error in made.refused] == [400]


async def test_an_offer_to_upgrade_is_passed_over() -> None:
    async with port() as made:
        wire = await Wire.open(made.url)
        await wire.send(head("GET", "/", connection="upgrade", upgrade="websocket") + b"\x81\x05hello")
        assert (await wire.answer()).status == 200
        await wire.closed()
        wire.close()


async def test_a_body_that_breaks_off_in_nonsense_tells_the_application_that_its_client_is_gone() -> None:
    async with port() as made:
        assert await ask(made, head("POST", "/", transfer_encoding="chunked") + b"1\r\na\r\nzz\r\n") == (400, "invalid_http")
        await asyncio.wait_for(made.disconnected.wait(), 5)


async def test_what_is_wrong_behind_a_request_is_told_after_its_answer() -> None:
    async with port() as made:
        made.go.clear()
        wire = await Wire.open(made.url)
        await wire.send(GET + b"nonsense\r\n\r\n")
        asyncio.get_running_loop().call_later(SHORT, made.go.set)
        assert [(await wire.answer()).status for _ in range(2)] == [200, 400]
        await wire.closed()
        wire.close()


async def test_only_a_few_requests_wait_behind_an_answer() -> None:
    async with port() as made:
        wire = await Wire.open(made.url)
        await wire.send(GET * 10_000)
        assert [(await wire.answer()).status for _ in range(10)] == [200] * 9 + [400]
        await wire.closed()
        assert len(made.scopes) == 9
        wire.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"", None), (b"\r\n", None), (b"G", 408), (b"GET / HTTP/1.1\r\nhost", 408)],
)
async def test_a_header_that_does_not_come_in_time_ends_its_connection(data: bytes, status: int | None) -> None:
    async with port(header_seconds=SHORT) as made:
        wire = await Wire.open(made.url)
        await wire.send(data)
        if status is not None:
            answer = await wire.answer()
            assert (answer.status, answer.error["code"]) == (status, "request_timeout")
        assert SHORT * 0.9 <= await wire.closed() < SHORT + 1
        wire.close()


async def test_a_dripped_header_is_cut_off_also_on_a_connection_that_was_used_before() -> None:
    async with port(header_seconds=SHORT) as made:
        for before in (b"", GET):
            wire = await Wire.open(made.url)
            if before:
                await wire.send(before)
                assert (await wire.answer()).status == 200
            await wire.drip(b"GET / HTTP/1.1\r\nx: " + b"a" * 100, SHORT / 10)
            assert await wire.closed() < 2 * SHORT + 1
            wire.close()
        assert [error.status for error in made.refused] == [408, 408]


async def test_an_idle_connection_is_closed_also_if_it_sends_empty_lines() -> None:
    async with port(header_seconds=SHORT, keep_alive_seconds=2 * SHORT) as made:
        wire = await Wire.open(made.url)
        await wire.send(GET)
        assert (await wire.answer()).status == 200
        await wire.drip(b"\r\n" * 50, SHORT / 10)
        assert 2 * SHORT * 0.9 <= await wire.closed() < 2 * SHORT + 1
        assert not made.refused
        wire.close()


async def test_an_answer_that_takes_longer_than_a_header_may_is_not_cut_off() -> None:
    async with port(header_seconds=SHORT, keep_alive_seconds=SHORT) as made:
        made.go.clear()
        wire = await Wire.open(made.url)
        await wire.send(GET)
        asyncio.get_running_loop().call_later(3 * SHORT, made.go.set)
        assert (await wire.answer()).status == 200
        wire.close()


async def test_the_rest_of_a_body_that_nobody_reads_has_as_long_as_a_header() -> None:
    async with port(header_seconds=SHORT) as made:
        wire = await Wire.open(made.url)
        await wire.send(head("POST", "/unread", content_length="1000"))
        assert (await wire.answer()).status == 200
        await wire.drip(b"x" * 1000, SHORT / 10)
        assert await wire.closed() < 2 * SHORT + 1
        wire.close()


@pytest.mark.slow
async def test_a_client_that_does_not_read_its_answer_is_broken_off_after_it_was_closed() -> None:
    async with port(header_seconds=SHORT, keep_alive_seconds=SHORT) as made:

        async def large(scope: Scope, receive: Receive, send: Send) -> None:
            await respond(send, 200, b"x" * 2**24)

        sock = ports.listen("127.0.0.1", 0)
        server = ports.server(large, made.limit)
        running = asyncio.create_task(server.serve([sock]))
        wire = await Wire.open(url(sock))
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(GET)
        async with asyncio.timeout(10):
            while server.server_state.total_requests == 0:
                await asyncio.sleep(0.02)
            while server.server_state.connections:
                await asyncio.sleep(0.02)
        server.should_exit = True
        await running
        wire.close()


async def test_a_connection_past_the_bound_is_told_so_at_once_and_takes_nobodys_place() -> None:
    async with port(most=2) as made:
        first, second = await Wire.open(made.url), await Wire.open(made.url)
        for wire in (first, second):
            await wire.send(GET)
            assert (await wire.answer()).status == 200
            await wire.send(GET[:1])  # so that it does not make room
        turned_away = [await Wire.open(made.url) for _ in range(300)]
        answer = await turned_away[0].answer()
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "too_many_connections", "1")
        await second.send(GET[1:])
        assert (await second.answer()).status == 200
        first.close()
        await first.writer.wait_closed()

        async def taken() -> bool:
            wire = await Wire.open(made.url)
            await wire.send(GET)
            status = (await wire.answer()).status
            wire.close()
            return status == 200

        async with asyncio.timeout(5):
            while not await taken():
                pass
        for wire in turned_away:
            await wire.closed()
            wire.close()
        second.close()


@pytest.fixture
def open_files() -> Iterator[tuple[int, int]]:
    """The bound on this process's open files, put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_bound_on_open_files_is_raised_as_far_as_the_connections_need(open_files: tuple[int, int]) -> None:
    _, hard = open_files
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    limits = LimitsConfig(max_connections=1000, max_inflight=10, max_admin_connections=10)
    assert max_connections(limits) == 1000
    assert 1024 < resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= hard


def test_where_it_cannot_be_raised_fewer_connections_are_taken(open_files: tuple[int, int], caplog: pytest.LogCaptureFixture) -> None:
    _, hard = open_files
    limits = LimitsConfig(max_connections=hard, max_inflight=10, max_admin_connections=10)
    assert 1 <= max_connections(limits) < hard
    assert "only" in caplog.text


async def test_a_client_that_reads_nothing_holds_no_connection_for_ever() -> None:
    """The first answer fills every buffer on the way, so the next one cannot even begin."""
    large, ended = bytes(2**26), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await respond(send, 200, large)
        finally:
            if scope["path"] == "/next":
                ended.set()

    async with port(header_seconds=SHORT) as made:
        made.app = app
        wire = await Wire.open(made.url)
        await wire.send(GET + head("GET", "/next"))
        async with asyncio.timeout(20 * SHORT):
            await ended.wait()
        wire.close()
        await wire.closed()


async def test_a_client_that_reads_slowly_gets_all_of_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, bytes(2**23))

    async with port(header_seconds=SHORT) as made:
        made.app = app
        wire = await Wire.open(made.url)
        await wire.send(GET + GET)
        for _ in range(2):
            await wire.reader.readuntil(b"\r\n\r\n")
            for _ in range(8):
                await wire.reader.readexactly(2**20)
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.Event().wait(), SHORT / 2)
        wire.close()


async def test_a_request_with_others_behind_it_hears_that_its_client_left(caplog: pytest.LogCaptureFixture) -> None:
    began, told = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()
        began.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    async with port() as made:
        made.app = app
        wire = await Wire.open(made.url)
        await wire.send(GET + GET)
        await began.wait()
        wire.close()
        async with asyncio.timeout(20 * SHORT):
            await told.wait()
    assert "without completing" not in caplog.text
