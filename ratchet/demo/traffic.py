"""Simulated users. They stream the whole time, so that every swap happens under live streams, and rate what they get.

Each pauses between two questions: two cores must also sample shadow groups, score candidates and train.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from ratchet.demo.client import Client
from ratchet.demo.exchange import Exchange
from ratchet.demo.task import TRAIN, enthusiastic, messages, shuffled


@dataclass(frozen=True)
class Pace:
    """How much traffic. Pauses are means in seconds; a pause varies by half to either side."""

    readers: int = 2
    """Users who ask for one answer at a time and score it."""
    reader_pause: float = 1.0
    panels: int = 1
    """Users who ask for `panel_size` answers at a time and rate each."""
    panel_pause: float = 6.0
    panel_size: int = 8


@contextlib.asynccontextmanager
async def users(client: Client, policy: str, seed: int, pace: Pace) -> AsyncIterator[None]:
    """Users ask `policy` for as long as the context lasts; at its end each finishes what it is reading."""
    leave = asyncio.Event()

    def user(number: int, turn: Callable[[str], Awaitable[None]], pause: float) -> Coroutine[Any, Any, None]:
        return _user(turn, shuffled(TRAIN, seed, number), pause, random.Random(f"{seed}:{number}"), leave)

    async with asyncio.TaskGroup() as group:
        for number in range(pace.readers):
            group.create_task(user(number, lambda t: read(client, policy, t), pace.reader_pause))
        for number in range(pace.readers, pace.readers + pace.panels):
            group.create_task(user(number, lambda t: judge(client, policy, t, pace.panel_size), pace.panel_pause))
        try:
            yield
        finally:
            leave.set()


async def read(client: Client, policy: str, topic: str) -> None:
    """One answer, streamed and scored: a lone reward, which makes its prompt a candidate for a shadow group."""
    await _rate_all(client, await client.stream(policy, topic))


async def judge(client: Client, policy: str, topic: str, n: int) -> None:
    """`n` answers to one question, each rated: a natural group."""
    await _rate_all(client, await client.stream(policy, topic, n))


async def _rate_all(client: Client, exchange: Exchange) -> None:
    if exchange.error is not None:
        return
    scores = {choice: enthusiastic(messages(exchange.topic), text) for choice, text in exchange.answers.items()}
    await asyncio.gather(*[client.rate(exchange.id, choice, score) for choice, score in sorted(scores.items())])


async def _user(turn: Callable[[str], Awaitable[None]], topics: list[str], pause: float, rng: random.Random, leave: asyncio.Event) -> None:
    for topic in cycle(topics):
        await turn(topic)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(leave.wait(), pause * rng.uniform(0.5, 1.5))
        if leave.is_set():
            return
