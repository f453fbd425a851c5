"""Real stores for tests, and records to put in them. Import from here; it needs no conftest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from ratchet import names
from ratchet.buffer import EmbeddedServer, Store, open_store
from ratchet.buffer.embedded import url_of
from ratchet.config import StoreConfig
from ratchet.types import Choice, Example, FeedbackPost, Interaction, PolicyVersionRecord, Sampling, Signal

TENANT = "acme"
POLICY = "support"
BASE = "smollm2"


@asynccontextmanager
async def embedded_store(data: Path, config: StoreConfig | None = None) -> AsyncIterator[Store]:
    """A store on a real embedded server under `data`, gone afterwards."""
    config = config or StoreConfig()
    server = await EmbeddedServer.start(data, config)
    try:
        store = await open_store("embedded", config, data=data)
        try:
            yield store
        finally:
            await store.close()
    finally:
        await server.stop()


@asynccontextmanager
async def emptied(data: Path) -> AsyncIterator[Store]:
    """A store on the server that runs under `data`, with all that was in it gone."""
    async with Redis.from_url(url_of(data)) as client:
        await client.flushall()
    store = await open_store("embedded", StoreConfig(), data=data)
    try:
        yield store
    finally:
        await store.close()


async def listed(store: Store, tenant: str, **filters: Any) -> tuple[list[Interaction], bool]:
    """A tenant's interactions as `scan` lists them, and whether more follow."""
    found = await store.interactions.scan(tenant, **filters)
    return found.items, found.more


def interaction(n: int = 1, **fields: Any) -> Interaction:
    """A complete, trainable answer of `n` choices to a short prompt, unless `fields` say otherwise."""
    choices = [
        Choice(i, [10 + i, 11, 2], [-0.5, -0.25, -0.125 - i], {"role": "assistant", "content": f"answer {i}"}, "stop") for i in range(n)
    ]
    base: dict[str, Any] = {
        "id": names.mint(names.CHAT_PREFIX),
        "tenant": TENANT,
        "policy": POLICY,
        "version": 0,
        "base": BASE,
        "engine": "local",
        "route": "/v1/chat/completions",
        "created": 1_700_000_000.25,
        "status": "complete",
        "request": {"model": POLICY, "messages": [{"role": "user", "content": "Where is my parcel?"}], "n": n},
        "prompt_ids": [1, 2, 3, 4],
        "choices": choices,
        "sampling": Sampling(max_tokens=16),
        "model": POLICY,
    }
    return Interaction(**(base | fields))


def post(target: str, value: Any = 1.0, *, choice: int = 0, **fields: Any) -> FeedbackPost:
    """Feedback of the test tenant on the metric `reward`."""
    return FeedbackPost(**({"tenant": TENANT, "target": target, "metric": "reward", "value": value, "choice": choice} | fields))


def group_of(item: Interaction, rewards: list[float], *, ident: str = "", shadow: bool = False) -> Example:
    """The group that `item` and its rewards [n] make, as it is leased; natural ones rated by the item's tenant."""
    tenant = "" if shadow else item.tenant
    signals = [Signal(item.id, choice, item.metric, value, tenant=tenant) for choice, value in enumerate(rewards)]
    return Example(ident or item.id, "group", [item], signals, shadow)


def candidate(version: int, step: int, consumed: list[str], **fields: Any) -> PolicyVersionRecord:
    """A version as the learner commits it."""
    base: dict[str, Any] = {"policy": POLICY, "version": version, "state": "candidate", "created": 1_700_000_000.5, "step": step}
    return PolicyVersionRecord(**(base | {"consumed": consumed, "checkpoint": f"{step:064x}"} | fields))


async def rate(store: Store, item: Interaction, rewards: list[float]) -> list[str]:
    """Posts one reward [n] a choice; the feedback ids."""
    return [await store.feedback.post(post(item.id, value, choice=i)) for i, value in enumerate(rewards)]


async def rated_group(store: Store, rewards: list[float], **fields: Any) -> Interaction:
    """A recorded interaction whose every choice is rated: a ready natural group."""
    item = interaction(len(rewards), **fields)
    await store.interactions.put([item])
    await rate(store, item, rewards)
    return item
