"""Feedback of every type, and what the store makes of it."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

from ratchet.buffer import Store
from ratchet.types import Example, ExampleKind, FeedbackPost, Interaction, MetricType
from tests.support.stores import POLICY, interaction, post

ALL: dict[ExampleKind, int] = dict.fromkeys(get_args(ExampleKind), 0)
SINGLES = ["lone", "pair", "comment", "demonstration", "episode"]
"""Kinds whose examples are of one feedback."""


def typed(target: str, type_: MetricType, value: Any, **fields: Any) -> FeedbackPost:
    """Feedback on the metric that is named after its type, from a key."""
    return post(target, value, **({"metric": type_, "type": type_, "key_id": "k1"} | fields))


def preference(
    chosen: Interaction, rejected: Interaction, *, target: str = "", choices: tuple[int, int] = (0, 0), **fields: Any
) -> FeedbackPost:
    value = {"target": chosen.id, "choice": choices[0], "over": rejected.id, "over_choice": choices[1]}
    return typed(target or chosen.id, "preference", value, **fields)


async def recorded(store: Store, n: int = 1, **fields: Any) -> Interaction:
    item = interaction(n, **fields)
    await store.interactions.put([item])
    return item


async def counts(store: Store) -> dict[str, int]:
    """Ready examples of each kind that has any."""
    found = {kind: await store.experience.ready(POLICY, [kind]) for kind in ALL}
    return {kind: n for kind, n in found.items() if n}


async def lease(store: Store, step: int = 1, **kinds: int) -> list[Example]:
    found = await store.experience.lease(POLICY, step, kinds=kinds or ALL, max_examples=99)  # type: ignore[arg-type]
    return found.examples if found is not None else []


async def state(store: Store, fb: str) -> str:
    record = await store.feedback.record(fb)
    assert record is not None
    return f"{record['state']}:{record['reason']}".rstrip(":")


async def expire_all(store: Store) -> None:
    async with asyncio.timeout(10):
        while (await store.feedback.ledger()).pending:
            await store.feedback.expire()


async def one_of(store: Store, kind: str, **fields: Any) -> tuple[Interaction, FeedbackPost]:
    """An interaction, and the feedback that makes it an example of this kind."""
    item = await recorded(store, episode_id="talk-1" if kind == "episode" else None, **fields)
    posts = {
        "lone": typed(item.id, "boolean", True),
        "comment": typed(item.id, "comment", "Fine."),
        "demonstration": typed(item.id, "demonstration", "It is on its way."),
        "episode": typed("talk-1", "float", 1.0),
    }
    if kind == "pair":
        return item, preference(await recorded(store), item, target=item.id)
    return item, posts[kind]
