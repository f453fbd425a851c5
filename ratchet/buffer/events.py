"""Policy events by pub/sub. Pub/sub can lose messages, so every new connection begins with the current pointers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from ratchet.backoff import Backoff
from ratchet.buffer import schema
from ratchet.buffer.link import Link, translated
from ratchet.errors import StoreUnavailable
from ratchet.types import PolicyEvent, PolicyRecord

SILENCE_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two attempts to subscribe."""


async def follow(link: Link, pointers: Callable[[], Awaitable[list[PolicyRecord]]]) -> AsyncIterator[PolicyEvent]:
    """Yield events forever. Waits while the store is unavailable."""
    backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
    while True:
        try:
            async for event in _connected(link, pointers):
                backoff.reset()
                yield event
        except StoreUnavailable:
            await asyncio.sleep(backoff.pause())


async def _connected(link: Link, pointers: Callable[[], Awaitable[list[PolicyRecord]]]) -> AsyncIterator[PolicyEvent]:
    """Subscribe first and read the pointers then, so that no move is missed in between."""
    client = link.listener()
    channel = client.pubsub()
    try:
        with translated():
            await channel.subscribe("r:events:" + (await link.do("GET", schema.STORE_ID)).decode())
        for record in await pointers():
            yield PolicyEvent(record.name, record.live, record.epoch)
        pinged = False
        while True:
            with translated():
                message = await channel.get_message(timeout=SILENCE_SECONDS)
                if message is None and pinged:
                    raise ConnectionError("the subscription went silent")
                pinged = message is None
                if pinged:
                    await channel.ping()
            if message is not None and message["type"] == "message":
                yield msgspec.json.decode(message["data"], type=PolicyEvent)
    finally:
        await channel.aclose()  # type: ignore[no-untyped-call]
        await client.aclose()
