"""The client's connection, on a transport that only counts its writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

from gateway.server.client import ClientConnection


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


def client() -> tuple[ClientConnection, Counted]:
    transport: Any = Counted()
    return ClientConnection(transport, FlowControl(transport), asyncio.get_running_loop()).begin_response(), transport


async def turn() -> None:
    """Until what was to be done soon is done."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


async def test_a_head_goes_out_with_what_follows_it_at_once() -> None:
    one, transport = client()
    one.write(b"head;")
    one.send_chunk(b"first")
    one.send_chunk(b"second piece")
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
        one.begin_response().write(b"head;")
        one.write(b"body;")
    one.begin_response().write(b"last head")
    one.close()
    assert (transport.writes, transport.closed) == ([b"head;body;", b"head;body;", b"last head"], True)


async def test_nothing_is_written_to_a_client_that_left() -> None:
    one, transport = client()
    calls: list[None] = []
    one.on_disconnect = lambda: calls.append(None)
    one.write(b"head;")
    one.connection_lost()
    one.send_chunk(b"more")
    await turn()
    assert (transport.writes, calls, one.disconnected) == ([], [None], True)


async def test_a_client_of_http_1_0_gets_pieces_without_their_sizes() -> None:
    one, transport = client()
    one.begin_response(chunked=False).write(b"head;")
    one.send_chunk(b"first")
    assert transport.writes == [b"head;first"]
