"""A full port: who rests makes room for who comes, and who is at work does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
from starlette.types import Receive, Scope, Send

from gateway.server import connection_limit
from gateway.server.http import respond
from tests.integration.gateway.test_protocol import GET, Port, port
from tests.support.raw_http import Wire, head


class Full:
    """A port and its clients."""

    def __init__(self, made: Port) -> None:
        self.made = made
        self.wires: list[Wire] = []

    async def open(self) -> Wire:
        self.wires.append(await Wire.open(self.made.url))
        return self.wires[-1]

    async def used(self) -> Wire:
        """A connection that had an answer."""
        wire = await self.open()
        await wire.send(GET)
        assert (await wire.answer()).status == 200
        return wire

    async def turns_away(self) -> bool:
        """Whether it has no room for one more."""
        wire = await self.open()
        return (await wire.answer()).error["code"] == "too_many_connections"


@asynccontextmanager
async def full(most: int) -> AsyncIterator[Full]:
    async with port(most) as made:
        full = Full(made)
        yield full
        made.go.set()
        for wire in full.wires:
            wire.close()
            await wire.closed()


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute passes between two looks at the clock."""
    clock = count(0, 60)
    monkeypatch.setattr(connection_limit, "monotonic", lambda: float(next(clock)))


async def test_the_connection_that_rested_longest_makes_room() -> None:
    async with full(3) as it:
        first, second, third = await it.used(), await it.used(), await it.used()
        await first.send(GET)
        assert (await first.answer()).status == 200
        for longest in (second, third, first):
            await it.used()
            await longest.closed()
        assert not it.made.refused


async def test_one_that_was_answered_just_now_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limit, "monotonic", lambda: 7.0)
    async with full(1) as it:
        wire = await it.used()
        assert await it.turns_away()
        await wire.send(GET)
        assert (await wire.answer()).status == 200


@pytest.mark.parametrize("sent", [b"G", GET[:-2], head("POST", "/", content_length="2") + b"x", GET])
async def test_a_request_under_way_is_not_closed_for_another(sent: bytes) -> None:
    async with full(1) as it:
        wire = await it.used()
        it.made.go.clear()
        await wire.send(sent)
        assert await it.turns_away()


async def test_a_connection_that_never_had_an_answer_is_not_closed_for_another() -> None:
    async with full(1) as it:
        await it.open()
        assert await it.turns_away()


async def test_an_answer_that_is_not_read_yet_is_not_cut_off() -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, bytes(2**25))

    async with full(1) as it:
        it.made.app = large
        wire = await it.open()
        await wire.send(GET)
        await wire.reader.readuntil(b"\r\n\r\n")
        assert await it.turns_away()
        assert len(await wire.reader.readexactly(2**25)) == 2**25
