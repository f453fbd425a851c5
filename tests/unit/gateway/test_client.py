"""The client's connection as who answers sees it: under a real uvicorn, and against a transport that only counts its writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httpx
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from gateway.server.client import Client
from gateway.server.http import part, respond
from tests.support.wire import Wire, head
from tests.unit.gateway.test_protocol import SHORT, port


class Counted:
    """A transport that keeps what each write brought."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def writelines(self, data: Iterable[bytes]) -> None:
        self.writes.append(b"".join(data))

    def close(self) -> None:
        self.closed = True


def client() -> tuple[Client, Counted]:
    transport: Any = Counted()
    return Client(transport, FlowControl(transport), asyncio.get_running_loop()).answering(), transport


async def turn() -> None:
    """Until what was to be done soon is done."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


async def test_a_head_goes_out_with_what_follows_it_at_once() -> None:
    one, transport = client()
    one.write(b"head;")
    one.piece(b"first")
    one.piece(b"second piece")
    await turn()
    assert transport.writes == [b"head;5\r\nfirst\r\n", b"c\r\nsecond piece\r\n"]


async def test_a_head_that_nothing_follows_waits_no_longer_than_a_turn_of_the_loop() -> None:
    one, transport = client()
    one.write(b"head;")
    assert transport.writes == []
    await turn()
    assert transport.writes == [b"head;"]
    one.write(b"rest")
    assert transport.writes == [b"head;", b"rest"]


async def test_the_next_answers_head_waits_too_and_a_close_sends_it() -> None:
    one, transport = client()
    for _ in range(2):
        one.answering().write(b"head;")
        one.write(b"body;")
    one.answering().write(b"last head")
    one.close()
    assert (transport.writes, transport.closed) == ([b"head;body;", b"head;body;", b"last head"], True)


async def test_nothing_is_written_to_a_client_that_left() -> None:
    one, transport = client()
    left: list[None] = []
    one.on_disconnect = lambda: left.append(None)
    one.write(b"head;")
    one.left()
    one.piece(b"more")
    await turn()
    assert (transport.writes, left, one.over) == ([], [None], True)


async def test_a_client_that_is_behind_is_told_of_and_can_be_waited_for() -> None:
    """Pieces until the client is behind; then ASGI's `send` waits until it has read them, and all of them arrive."""
    sent = bytearray()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope["connection"].piece(b"x" * 2**16):
            sent.extend(b"x" * 2**16)
        await send(part(b""))
        await send(part(b"end", more=False))

    async with port() as made:
        made.app = app
        async with httpx.AsyncClient() as http:
            assert (await http.get(made.url)).content == bytes(sent) + b"x" * 2**16 + b"end"


async def test_a_connection_says_whether_its_requests_came_whole() -> None:
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["connection"].complete)
        while (await receive())["more_body"]:
            pass
        seen.append(scope["connection"].complete)
        await respond(send, 200, b"")

    async with port(header_seconds=20 * SHORT) as made:
        made.app = app
        wire = await Wire.open(made.url)
        await wire.send(head("POST", "/", content_length="3") + b"abc")
        await wire.answer()
        assert seen == [True, True]
        await wire.send(head("POST", "/", content_length="3"))
        while len(seen) < 3:
            await turn()
        await wire.send(b"abc")
        await wire.answer()
        assert seen[2:] == [False, True]
        wire.close()


async def test_a_client_of_http_1_0_gets_pieces_without_their_sizes() -> None:
    one, transport = client()
    one.answering(chunked=False).write(b"head;")
    one.piece(b"first")
    assert transport.writes == [b"head;first"]
