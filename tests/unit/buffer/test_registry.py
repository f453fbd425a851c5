"""The registry: compare-and-set pointers, single transactions, events."""

from __future__ import annotations

import asyncio

import pytest

from ratchet.buffer import Store
from ratchet.errors import Conflict
from ratchet.types import Ledger, PolicyEvent
from tests.support.stores import BASE, POLICY, candidate, interaction, post, rated_group


async def published(store: Store, version: int) -> None:
    record = await store.registry.policy(POLICY)
    assert record is not None
    await store.registry.commit_step(POLICY, record.step + 1, candidate(version, record.step + 1, []))
    await store.registry.publish(POLICY, version, expect_live=record.live, verdict={"passed": True})


async def states(store: Store) -> dict[int, str]:
    return {record.version: record.state for record in await store.registry.versions(POLICY)}


async def test_a_new_policy_serves_its_base_as_version_zero(store: Store) -> None:
    first = await store.registry.ensure(POLICY, BASE)
    assert (first.live, first.epoch, first.next_version, first.step) == (0, 0, 1, 0)
    assert await store.registry.ensure(POLICY, BASE) == first
    assert await states(store) == {0: "live"}
    assert await store.registry.policy("none") is None
    assert await store.registry.version(POLICY, 3) is None
    await store.registry.ensure("aide", BASE)
    assert [record.name for record in await store.registry.policies()] == ["aide", POLICY]


async def test_a_policy_keeps_its_base(store: Store) -> None:
    with pytest.raises(Conflict, match="another name"):
        await store.registry.ensure(POLICY, "other")


async def test_a_commit_moves_step_and_version_together_and_only_by_one(store: Store) -> None:
    record = candidate(1, 1, [], parent=0, reward=0.123456789012345, kl=1e-17, path="adapters/support/1-abc", digest="abc")
    with pytest.raises(Conflict):
        await store.registry.commit_step(POLICY, 2, record)
    with pytest.raises(Conflict):
        await store.registry.commit_step(POLICY, 1, candidate(2, 1, []))
    for _ in range(2):
        await store.registry.commit_step(POLICY, 1, record)
    with pytest.raises(Conflict):
        await store.registry.commit_step(POLICY, 1, candidate(2, 1, []))
    policy = await store.registry.policy(POLICY)
    assert policy is not None
    assert (policy.step, policy.next_version, policy.live) == (1, 2, 0)
    assert await store.registry.version(POLICY, 1) == record


async def test_a_commit_consumes_only_what_it_leased_and_the_rest_is_dropped(store: Store) -> None:
    kept, left = await rated_group(store, [1.0, 0.0]), await rated_group(store, [0.0, 1.0])
    await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=2)
    with pytest.raises(Conflict):
        await store.registry.commit_step(POLICY, 1, candidate(1, 1, [kept.id, "chatcmpl-other"]))
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [kept.id]))
    assert await store.feedback.ledger() == Ledger(received=4, pending=2, rejected={"dropped": 2})
    await store.registry.publish(POLICY, 1, expect_live=0, verdict={})
    assert await store.feedback.ledger() == Ledger(received=4, used=2, rejected={"dropped": 2})
    assert left.id != kept.id


async def test_a_commit_rejects_what_the_algorithm_set_aside_with_its_reason(store: Store) -> None:
    kept, flat, rest = [await rated_group(store, rewards) for rewards in ([1.0, 0.0], [0.5, 0.5], [0.0, 1.0])]
    await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=9)
    for rejected in ({kept.id: "zero_spread"}, {flat.id: "zero_spread", "chatcmpl-other": "zero_spread"}):
        with pytest.raises(Conflict, match="rejected example"):
            await store.registry.commit_step(POLICY, 1, candidate(1, 1, [kept.id]), rejected=rejected)
    assert await store.feedback.ledger() == Ledger(received=6, pending=6)
    for _ in range(2):
        await store.registry.commit_step(POLICY, 1, candidate(1, 1, [kept.id]), rejected={flat.id: "zero_spread"})
    assert await store.feedback.ledger() == Ledger(received=6, pending=2, rejected={"zero_spread": 2, "dropped": 2})
    await store.registry.publish(POLICY, 1, expect_live=0, verdict={})
    assert await store.feedback.ledger() == Ledger(received=6, used=2, rejected={"zero_spread": 2, "dropped": 2})
    assert rest.id not in (kept.id, flat.id)


async def test_the_next_step_waits_for_the_candidate_to_be_decided(store: Store) -> None:
    item = await rated_group(store, [1.0, 0.0])
    await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [item.id]))
    with pytest.raises(Conflict):
        await store.experience.lease(POLICY, 2, kinds={"group": 0}, max_examples=1)
    await store.registry.refuse(POLICY, 1, gate="sanity", verdict={"passed": False})
    assert await store.experience.lease(POLICY, 2, kinds={"group": 0}, max_examples=1) is None


async def test_publishing_is_one_move_however_often_it_is_sent(store: Store) -> None:
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, []))
    for _ in range(2):
        record = await store.registry.publish(POLICY, 1, expect_live=0, verdict={"passed": True, "kl": 0.25})
        assert (record.live, record.epoch) == (1, 1)
    assert await states(store) == {0: "retired", 1: "live"}
    version = await store.registry.version(POLICY, 1)
    assert version is not None
    assert version.verdict == {"passed": True, "kl": 0.25}


async def test_a_publish_loses_to_an_operators_move(store: Store) -> None:
    await published(store, 1)
    await store.registry.commit_step(POLICY, 2, candidate(2, 2, []))
    await store.registry.move(POLICY, 0, expect_live=1, reason="rollback")
    with pytest.raises(Conflict):
        await store.registry.publish(POLICY, 2, expect_live=1, verdict={})
    assert await states(store) == {0: "live", 1: "rolled_back", 2: "candidate"}


async def test_a_refused_version_never_serves(store: Store) -> None:
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, []))
    for _ in range(2):
        await store.registry.refuse(POLICY, 1, gate="heldout", verdict={"passed": False, "gate": "heldout"})
    for move in (
        store.registry.publish(POLICY, 1, expect_live=0, verdict={}),
        store.registry.move(POLICY, 1, expect_live=0, reason="promote"),
        store.registry.move(POLICY, 9, expect_live=0, reason="promote"),
    ):
        with pytest.raises(Conflict):
            await move
    version = await store.registry.version(POLICY, 1)
    assert version is not None
    assert (version.state, version.verdict["gate"]) == ("refused", "heldout")


async def test_of_moves_at_once_one_wins(store: Store) -> None:
    await published(store, 1)
    await published(store, 2)
    moves = [store.registry.move(POLICY, to, expect_live=2, reason="rollback") for to in (0, 1)]
    results = await asyncio.gather(*moves, return_exceptions=True)
    assert [isinstance(result, Conflict) for result in results].count(True) == 1


async def test_a_live_version_cannot_be_refused(store: Store) -> None:
    await published(store, 1)
    with pytest.raises(Conflict):
        await store.registry.refuse(POLICY, 1, gate="heldout", verdict={})


async def test_what_is_retained_is_the_live_version_and_those_live_before_it(store: Store) -> None:
    for version in range(1, 5):
        await published(store, version)
    assert [record.version for record in await store.registry.retained(POLICY, 2)] == [4, 3, 2]
    await store.registry.move(POLICY, 2, expect_live=4, reason="rollback")
    assert [record.version for record in await store.registry.retained(POLICY, 2)] == [2, 4, 3]
    await store.registry.move(POLICY, 0, expect_live=2, reason="rollback")
    assert [record.version for record in await store.registry.retained(POLICY, 2)] == [2, 4]
    assert await store.registry.lived(POLICY) == [0, 2, 4, 3, 1]


async def test_events_begin_with_the_pointers_and_follow_each_move(store: Store) -> None:
    events = store.registry.events()
    assert await anext(events) == PolicyEvent(POLICY, 0, 0, "flip")
    await store.registry.announce_loading(POLICY)
    await published(store, 1)
    await store.registry.commit_step(POLICY, 2, candidate(2, 2, []))
    await store.registry.refuse(POLICY, 2, gate="heldout", verdict={})
    await store.registry.move(POLICY, 0, expect_live=1, reason="rollback")
    seen = [await anext(events) for _ in range(4)]
    assert [(event.kind, event.live, event.epoch) for event in seen] == [
        ("loading", 0, 0),
        ("flip", 1, 1),
        ("refused", 1, 1),
        ("flip", 0, 2),
    ]
    await events.aclose()  # type: ignore[attr-defined]


async def test_a_training_job_waits_once_and_until_a_step_has_its_groups(store: Store) -> None:
    job = await store.registry.request_training(POLICY)
    assert await store.registry.request_training(POLICY) == job
    assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1) is None
    assert await store.registry.requested_training(POLICY) == job
    await rated_group(store, [0.0, 1.0])
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    assert await store.registry.requested_training(POLICY) is None
    again = await store.registry.request_training(POLICY)
    assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1) == lease
    assert await store.registry.requested_training(POLICY) == again != job, "asked for after the step began"


async def test_the_learners_status_is_what_it_last_said(store: Store) -> None:
    assert await store.registry.status(POLICY) == {}
    await store.registry.set_status(POLICY, {"phase": "gating", "history": [{"version": 1, "kl": 0.5}]})
    assert await store.registry.status(POLICY) == {"phase": "gating", "history": [{"version": 1, "kl": 0.5}]}


async def test_a_reward_is_used_by_the_one_version_its_record_names(store: Store) -> None:
    item = interaction(2)
    await store.interactions.put([item])
    fbs = [await store.feedback.post(post(item.id, float(i), choice=i)) for i in range(2)]
    await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [item.id]))
    await store.registry.publish(POLICY, 1, expect_live=0, verdict={})
    record = await store.feedback.record(fbs[0])
    assert record is not None
    assert record["used_by"] == "support@1"
