"""A learner's lease on a policy: one owner at a time, and a token that shuts out the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ratchet.buffer import Store
from ratchet.errors import Conflict
from tests.support.stores import POLICY, candidate, rated_group

LONG = 3600.0
SHORT = 0.05


async def taken_over(store: Store, owner: str) -> int:
    """The token `owner` gets once the lease before it has run out."""
    async with asyncio.timeout(10):
        while (token := await store.registry.acquire_learner(POLICY, owner, SHORT)) is None:
            pass
    return token


async def test_one_owner_holds_a_policy_and_gets_its_own_token_back(store: Store) -> None:
    token = await store.registry.acquire_learner(POLICY, "a", LONG)
    assert token == 1
    assert await store.registry.acquire_learner(POLICY, "b", LONG) is None
    assert await store.registry.acquire_learner(POLICY, "a", LONG) == token
    assert await store.registry.acquire_learner("another", "b", LONG) == 1


async def test_tokens_only_grow_whoever_takes_the_lease_next(store: Store) -> None:
    tokens = []
    for owner in ("a", "b", "a"):
        token = await store.registry.acquire_learner(POLICY, owner, LONG)
        assert token is not None
        tokens.append(token)
        await store.registry.release_learner(POLICY, token)
        await store.registry.release_learner(POLICY, token)
    assert tokens == [1, 2, 3]


async def test_a_lease_that_nobody_renews_runs_out(store: Store) -> None:
    first = await store.registry.acquire_learner(POLICY, "a", SHORT)
    second = await taken_over(store, "b")
    assert first is not None
    assert second == first + 1
    assert await store.registry.acquire_learner(POLICY, "a", LONG) is None
    assert not await store.registry.renew_learner(POLICY, "a", first, LONG)
    await store.registry.release_learner(POLICY, first)
    assert await store.registry.renew_learner(POLICY, "b", second, LONG), "a replaced learner releases nothing"


async def test_a_lease_that_ran_out_and_nobody_took_may_be_renewed(store: Store) -> None:
    token = await store.registry.acquire_learner(POLICY, "a", 0.0)
    assert token is not None
    assert await store.registry.renew_learner(POLICY, "a", token, LONG)
    assert await store.registry.acquire_learner(POLICY, "b", LONG) is None
    assert not await store.registry.renew_learner(POLICY, "a", token + 1, LONG)
    assert not await store.registry.renew_learner(POLICY, "b", token, LONG)


Change = Callable[[Store, int], Coroutine[Any, Any, Any]]
CHANGES: dict[str, Change] = {
    "lease": lambda s, token: s.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1, token=token),
    "more": lambda s, token: s.experience.more(POLICY, 1, kinds={"group": 0}, max_examples=1, token=token),
    "reject": lambda s, token: s.experience.reject(POLICY, 1, {}, token=token),
    "release": lambda s, token: s.experience.release(POLICY, token=token),
    "commit": lambda s, token: s.registry.commit_step(POLICY, 1, candidate(1, 1, []), token=token),
    "publish": lambda s, token: s.registry.publish(POLICY, 1, expect_live=0, verdict={}, token=token),
    "refuse": lambda s, token: s.registry.refuse(POLICY, 1, gate="sanity", verdict={}, token=token),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_learner_that_was_replaced_changes_nothing(store: Store, change: str) -> None:
    await rated_group(store, [1.0, 0.0])
    await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    if change in ("publish", "refuse"):
        await store.registry.commit_step(POLICY, 1, candidate(1, 1, []))
    replaced = await store.registry.acquire_learner(POLICY, "a", SHORT)
    current = await taken_over(store, "b")
    assert replaced is not None
    before = (await store.feedback.ledger(), await store.registry.policy(POLICY), await store.registry.versions(POLICY))
    with pytest.raises(Conflict, match="another learner holds support: b"):
        await CHANGES[change](store, replaced)
    assert (await store.feedback.ledger(), await store.registry.policy(POLICY), await store.registry.versions(POLICY)) == before
    await CHANGES[change](store, current)


async def test_a_token_that_was_given_back_is_refused_and_one_that_only_ran_out_is_not(store: Store) -> None:
    token = await store.registry.acquire_learner(POLICY, "a", 0.0)
    assert token is not None
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, []), token=token)
    await store.registry.release_learner(POLICY, token)
    with pytest.raises(Conflict):
        await store.registry.publish(POLICY, 1, expect_live=0, verdict={}, token=token)
    await store.registry.publish(POLICY, 1, expect_live=0, verdict={})
