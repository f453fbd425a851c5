"""The held-out table: one pinned version's answers to prompts that no version was trained or chosen on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ratchet.demo.client import Client
from ratchet.demo.exchange import Exchange
from ratchet.demo.task import HELDOUT, enthusiastic, messages

SAMPLES = 2
CONCURRENT = 8


@dataclass(frozen=True)
class Scored:
    """The answers of one pinned version by topic, and their mean reward. `n` is the number of answers."""

    model: str
    answers: dict[str, list[str]]

    @property
    def n(self) -> int:
        return sum(len(texts) for texts in self.answers.values())

    @property
    def mean(self) -> float:
        scores = [enthusiastic(messages(topic), text) for topic, texts in self.answers.items() for text in texts]
        return sum(scores) / len(scores) if scores else 0.0


async def measure(client: Client, model: str, seed: int) -> Scored:
    """Ask a pinned version (`assistant@7`) each held-out prompt SAMPLES times and score its answers.

    The requests are not recorded, and their sampling seeds are the same in every call. A request that fails or that another
    version answers is logged as failed and left out.
    """
    slots = asyncio.Semaphore(CONCURRENT)

    async def one(number: int, topic: str) -> Exchange:
        async with slots:
            return await client.ask(model, topic, SAMPLES, seed * len(HELDOUT) + number)

    exchanges = await asyncio.gather(*[one(number, topic) for number, topic in enumerate(HELDOUT)])
    for exchange in exchanges:
        if exchange.error is None and exchange.policy != model:
            exchange.error = f"answered by {exchange.policy or 'no named version'}"
    return Scored(model, {e.topic: [e.answers[i] for i in sorted(e.answers)] for e in exchanges if e.error is None})
