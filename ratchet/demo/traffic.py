"""Simulated users. They stream all the time, so that every swap happens under live streams, and rate their answers.

Each pauses between two questions, since two cores must also sample shadow groups, score candidates and train.
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
    """How much traffic there is. Pauses are means in seconds; each varies by up to half."""

    readers: int = 2
    """Users who ask for one answer at a time and rate it."""
    reader_pause: float = 1.0
    panels: int = 1
    """Users who ask for `panel_size` answers at a time and rate each."""
    panel_pause: float = 6.0
    panel_size: int = 8


@contextlib.asynccontextmanager
async def users(client: Client, policy: str, seed: int, pace: Pace) -> AsyncIterator[None]:
    """Let users ask `policy` while the block runs. At its end each finishes its current question."""
    leaving = asyncio.Event()

    def user(number: int, turn: Callable[[str], Awaitable[None]], pause: float) -> Coroutine[Any, Any, None]:
        return _user(turn, shuffled(TRAIN, seed, number), pause, random.Random(f"{seed}:{number}"), leaving)

    async with asyncio.TaskGroup() as group:
        for number in range(pace.readers):
            group.create_task(user(number, lambda t: read(client, policy, t), pace.reader_pause))
        for number in range(pace.readers, pace.readers + pace.panels):
            group.create_task(user(number, lambda t: judge(client, policy, t, pace.panel_size), pace.panel_pause))
        try:
            yield
        finally:
            leaving.set()


async def read(client: Client, policy: str, topic: str) -> None:
    """Stream one answer and rate it. A lone reward makes its prompt a candidate for a shadow group."""
    await _rate_all(client, await client.stream(policy, topic))


async def judge(client: Client, policy: str, topic: str, n: int) -> None:
    """Stream `n` answers to one question and rate each, which makes a natural group."""
    await _rate_all(client, await client.stream(policy, topic, n))


async def _rate_all(client: Client, exchange: Exchange) -> None:
    if exchange.error is not None:
        return
    scores = {choice: enthusiastic(messages(exchange.topic), text) for choice, text in exchange.answers.items()}
    await asyncio.gather(*[client.rate(exchange.id, choice, score) for choice, score in sorted(scores.items())])


async def _user(
    turn: Callable[[str], Awaitable[None]], topics: list[str], pause: float, rng: random.Random, leaving: asyncio.Event
) -> None:
    for topic in cycle(topics):
        await turn(topic)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(leaving.wait(), pause * rng.uniform(0.5, 1.5))
        if leaving.is_set():
            return
