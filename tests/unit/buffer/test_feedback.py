"""The feedback state machine, transition by transition."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from ratchet.buffer import Store
from ratchet.config import StoreConfig
from ratchet.errors import TargetNotYours, TooManyParked
from ratchet.types import Ledger
from tests.support.stores import POLICY, TENANT, candidate, embedded_store, interaction, post, rate, rated_group

UNSEEN = "chatcmpl-" + "a" * 32


async def state(store: Store, fb: str) -> str:
    record = await store.feedback.record(fb)
    assert record is not None
    return f"{record['state']}:{record['reason']}".rstrip(":")


async def expired(store: Store, wanted: int) -> int:
    """Expires two at a time until it was `wanted`."""
    total = 0
    async with asyncio.timeout(10):
        while total < wanted:
            total += await store.feedback.expire(2)
    return total


async def leased_group(store: Store) -> tuple[str, list[str]]:
    item = interaction(2)
    await store.interactions.put([item])
    fbs = await rate(store, item, [1.0, 0.0])
    assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1) is not None
    return item.id, fbs


async def test_a_post_is_pending_and_counted(store: Store) -> None:
    item = interaction()
    await store.interactions.put([item])
    fb = await store.feedback.post(post(item.id, 0.8, metadata={"who": "é"}, key_id="k1"))
    record = await store.feedback.record(fb)
    assert record is not None
    assert {"tenant": TENANT, "target": item.id, "choice": 0, "metric": "reward", "value": 0.8, "parked": False}.items() <= record.items()
    assert (record["state"], record["metadata"], record["key_id"]) == ("pending", {"who": "é"}, "k1")
    assert await store.feedback.ledger() == Ledger(received=1, pending=1)
    assert await store.feedback.record("fb_none") is None


async def test_a_thousand_identical_posts_at_once_count_once(store: Store) -> None:
    same = post(UNSEEN, 1.0, idempotency_key="once")
    ids = await asyncio.gather(*(store.feedback.post(same) for _ in range(1000)))
    assert len(set(ids)) == 1
    assert await store.feedback.ledger() == Ledger(received=1, pending=1)


async def test_an_idempotency_key_is_each_tenants_own(store: Store) -> None:
    mine = await store.feedback.post(post(UNSEEN, idempotency_key="k"))
    other = await store.feedback.post(post(UNSEEN, idempotency_key="k", tenant="other"))
    assert mine != other
    assert (await store.feedback.ledger()).received == 2


async def test_a_revision_of_a_pending_reward_supersedes_it(store: Store) -> None:
    item = interaction()
    await store.interactions.put([item])
    first = await store.feedback.post(post(item.id, 0.1))
    second = await store.feedback.post(post(item.id, 0.9))
    assert (await state(store, first), await state(store, second)) == ("rejected:superseded", "pending")
    assert await store.feedback.ledger() == Ledger(received=2, pending=1, rejected={"superseded": 1})


async def test_other_metrics_and_choices_are_other_slots(store: Store) -> None:
    item = interaction(2)
    await store.interactions.put([item])
    for fields in ({"choice": 0}, {"choice": 1}, {"metric": "helpful"}, {"metric": "note", "value": "fine"}):
        await store.feedback.post(post(item.id, **fields))
    assert await store.feedback.ledger() == Ledger(received=4, pending=4)


async def test_feedback_on_another_tenants_answer_is_refused_and_not_counted(store: Store) -> None:
    item = interaction()
    await store.interactions.put([item])
    with pytest.raises(TargetNotYours):
        await store.feedback.post(post(item.id, tenant="other"))
    with pytest.raises(TargetNotYours):
        await store.feedback.answered(item.id, "other")
    assert await store.feedback.ledger() == Ledger()


async def test_who_answered_a_target_and_in_how_many_choices_is_known_once_it_is_recorded(store: Store) -> None:
    item = interaction(episode_id="talk-1")
    assert await store.feedback.answered(item.id, TENANT) is None
    await store.interactions.put([item])
    assert await store.feedback.answered(item.id, TENANT) == (POLICY, 1)
    assert await store.feedback.answered("talk-1", TENANT) == (POLICY, None)
    assert await store.feedback.answered("talk-1", "other") is None


async def test_parked_feedback_joins_when_its_interaction_arrives(store: Store) -> None:
    item = interaction(2)
    fbs = await rate(store, item, [1.0, 0.0])
    record = await store.feedback.record(fbs[0])
    assert record is not None
    assert record["parked"]
    assert await store.experience.ready(POLICY, ["group"]) == 0
    await store.interactions.put([item])
    record = await store.feedback.record(fbs[0])
    assert record is not None
    assert (record["parked"], record["state"]) == (False, "pending")
    assert await store.experience.ready(POLICY, ["group"]) == 1


async def test_feedback_parked_for_what_proves_anothers_is_rejected(store: Store) -> None:
    item = interaction()
    theirs = await store.feedback.post(post(item.id, tenant="other"))
    mine = await store.feedback.post(post(item.id))
    await store.interactions.put([item])
    assert (await state(store, theirs), await state(store, mine)) == ("rejected:not_yours", "pending")


async def test_a_choice_that_does_not_exist_is_rejected_known_or_parked(store: Store) -> None:
    item = interaction(2)
    parked = await store.feedback.post(post(item.id, choice=2))
    await store.interactions.put([item])
    known = await store.feedback.post(post(item.id, choice=7))
    assert await state(store, parked) == await state(store, known) == "rejected:no_such_choice"


async def test_parked_feedback_is_bounded_per_tenant_and_room_comes_back(tmp_path: Path) -> None:
    async with embedded_store(tmp_path, StoreConfig(max_parked=2)) as store:
        items = [interaction() for _ in range(3)]
        for item in items[:2]:
            await store.feedback.post(post(item.id))
        with pytest.raises(TooManyParked):
            await store.feedback.post(post(items[2].id))
        await store.feedback.post(post(items[0].id, 0.5))  # a revision takes no further room
        await store.feedback.post(post(items[2].id, tenant="other"))
        await store.interactions.put([items[0]])
        await store.feedback.post(post(items[2].id))
        assert await store.feedback.ledger() == Ledger(received=5, pending=4, rejected={"superseded": 1})


async def test_feedback_on_an_episode_parks_until_a_turn_of_it_is_recorded(store: Store) -> None:
    fb = await store.feedback.post(post("talk-1", choice=0))
    await store.interactions.put([interaction(episode_id="talk-1", tenant="other")])
    record = await store.feedback.record(fb)
    assert record is not None
    assert record["parked"]
    await store.interactions.put([interaction(episode_id="talk-1")])
    record = await store.feedback.record(fb)
    assert record is not None
    assert (record["parked"], record["state"]) == (False, "pending")


async def test_a_reward_expires_once_and_takes_its_ready_group_along(tmp_path: Path) -> None:
    async with embedded_store(tmp_path, StoreConfig(feedback_ttl_hours=1e-9)) as store:
        await rated_group(store, [1.0, 0.0])
        await store.feedback.post(post(UNSEEN))
        assert await expired(store, 3) == 3
        assert await store.feedback.expire() == 0
        assert await store.feedback.ledger() == Ledger(received=3, expired=3)
        assert await store.experience.ready(POLICY, ["group"]) == 0
        assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=9) is None


async def test_a_revision_of_a_leased_reward_waits_and_a_second_supersedes_it(store: Store) -> None:
    target, fbs = await leased_group(store)
    first, second = await store.feedback.post(post(target, 0.3)), await store.feedback.post(post(target, 0.4))
    assert [await state(store, fb) for fb in (*fbs, first, second)] == ["leased", "leased", "rejected:superseded", "waiting"]
    assert await store.feedback.ledger() == Ledger(received=4, pending=3, rejected={"superseded": 1})


async def test_a_late_revision_is_rejected_as_too_late(store: Store) -> None:
    target, fbs = await leased_group(store)
    waiting = await store.feedback.post(post(target, 0.3))
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [target]))
    await store.registry.publish(POLICY, 1, expect_live=0, verdict={})
    after = await store.feedback.post(post(target, 0.4, choice=1))
    assert [await state(store, fb) for fb in (*fbs, waiting, after)] == ["used", "used", "rejected:too_late", "rejected:too_late"]
    assert await store.feedback.ledger() == Ledger(received=4, used=2, rejected={"too_late": 2})


async def test_a_refusal_rejects_what_was_learned_from_and_the_revision_takes_the_slot(store: Store) -> None:
    target, fbs = await leased_group(store)
    waiting = await store.feedback.post(post(target, 0.3))
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [target]))
    await store.registry.refuse(POLICY, 1, gate="heldout", verdict={"passed": False})
    assert [await state(store, fb) for fb in (*fbs, waiting)] == ["rejected:gate", "rejected:gate", "pending"]
    record = await store.feedback.record(fbs[0])
    assert record is not None
    assert record["gate"] == "heldout"
    assert await store.experience.ready(POLICY, ["group"]) == 0
    await store.feedback.post(post(target, 0.7, choice=1))
    assert await store.experience.ready(POLICY, ["group"]) == 1


async def test_a_release_brings_the_revised_reward_into_the_next_lease(store: Store) -> None:
    target, fbs = await leased_group(store)
    await store.feedback.post(post(target, 0.25))
    await store.experience.release(POLICY)
    assert [await state(store, fb) for fb in fbs] == ["rejected:superseded", "pending"]
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    assert lease is not None
    assert lease.examples[0].rewards == [0.25, 0.0]


@pytest.mark.parametrize("value", ["text", {"target": "a", "over": "b"}, None, math.nan, [1]])
async def test_a_value_that_is_no_number_completes_no_group(store: Store, value: object) -> None:
    item = interaction(2)
    await store.interactions.put([item])
    await store.feedback.post(post(item.id, 1.0))
    await store.feedback.post(post(item.id, value, choice=1))
    assert await store.experience.ready(POLICY, ["group"]) == 0


async def test_booleans_count_as_one_and_zero(store: Store) -> None:
    await rated_group(store, [True, False, True])
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    assert lease is not None
    assert lease.examples[0].rewards == [1.0, 0.0, 1.0]
