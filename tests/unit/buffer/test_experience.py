"""Groups, leases and prompts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ratchet.buffer import Store
from ratchet.buffer.schema import SHADOW_TENANT
from ratchet.config import StoreConfig
from ratchet.errors import Conflict, TargetNotYours
from ratchet.types import ExampleKind, Interaction, Ledger
from tests.support.stores import BASE, POLICY, TENANT, candidate, embedded_store, interaction, listed, post, rate, rated_group

GROUPS: dict[ExampleKind, int] = {"group": 0}


def shadow(n: int = 2, **fields: object) -> Interaction:
    return interaction(n, tenant=SHADOW_TENANT, **fields)


async def test_a_group_is_ready_once_when_its_last_choice_is_rated(store: Store) -> None:
    item = interaction(3)
    await store.interactions.put([item])
    for choice in (2, 0):
        await store.feedback.post(post(item.id, choice / 2, choice=choice))
        assert await store.experience.ready(POLICY, ["group"]) == 0
    for value in (0.5, 0.6, 0.7):
        await store.feedback.post(post(item.id, value, choice=1))
        assert await store.experience.ready(POLICY, ["group"]) == 1
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=9)
    assert lease is not None
    assert [(group.id, group.shadow, group.rewards) for group in lease.examples] == [(item.id, False, [0.0, 0.7, 1.0])]
    assert lease.examples[0].interactions[0] == item


@pytest.mark.parametrize("fields", [{"untrainable": "top_p"}, {"status": "truncated"}, {"policy": BASE}, {"metric": "helpful"}])
async def test_what_no_gradient_may_learn_from_makes_no_group(store: Store, fields: dict[str, str]) -> None:
    item = await rated_group(store, [1.0, 0.0], **fields)
    assert await store.experience.ready(item.policy, ["group"]) == 0
    assert await store.feedback.ledger() == Ledger(received=2, pending=2)


async def test_a_lone_score_stays_pending_and_is_never_a_group(store: Store) -> None:
    await rated_group(store, [1.0])
    assert await store.experience.ready(POLICY, ["group"]) == 0
    assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1) is None
    assert await store.feedback.ledger() == Ledger(received=1, pending=1)


async def test_the_same_step_gets_the_same_lease_and_another_a_conflict(store: Store) -> None:
    for _ in range(3):
        await rated_group(store, [1.0, 0.0])
    first = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=2)
    await rated_group(store, [1.0, 0.0])
    assert await store.experience.lease(POLICY, 1, kinds={"group": 9}, max_examples=9) == first
    assert await store.experience.ready(POLICY, ["group"]) == 2
    with pytest.raises(Conflict):
        await store.experience.lease(POLICY, 2, kinds={"group": 0}, max_examples=1)


async def test_too_few_groups_lease_nothing_and_stay_ready(store: Store) -> None:
    await rated_group(store, [1.0, 0.0])
    assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=4, min_examples=2) is None
    assert await store.experience.ready(POLICY, ["group"]) == 1
    await rated_group(store, [1.0, 0.0])
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=4, min_examples=2)
    assert lease is not None
    assert len(lease.examples) == 2


async def test_stale_examples_are_rejected_and_flat_groups_are_leased(store: Store) -> None:
    await rated_group(store, [1.0, 0.0], version=1)
    flat = await rated_group(store, [0.5, 0.5], version=5)
    kept = await rated_group(store, [0.0, 0.5], version=5)
    await store.experience.add_shadow(shadow(version=1), [1.0, 0.0])
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 2}, max_examples=9)
    assert lease is not None
    assert [group.id for group in lease.examples] == sorted([flat.id, kept.id])
    assert await store.feedback.ledger() == Ledger(received=6, pending=4, rejected={"stale": 2})
    assert await store.experience.ready(POLICY, ["group"]) == 0


async def test_a_release_makes_the_groups_ready_for_another_step(store: Store) -> None:
    item = await rated_group(store, [1.0, 0.0])
    await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    assert await store.experience.ready(POLICY, ["group"]) == 0
    await store.experience.release(POLICY)
    await store.experience.release(POLICY)
    assert await store.experience.ready(POLICY, ["group"]) == 1
    assert await store.feedback.ledger() == Ledger(received=2, pending=2)
    lease = await store.experience.lease(POLICY, 2, kinds={"group": 0}, max_examples=1)
    assert lease is not None
    assert (lease.step, lease.examples[0].id) == (2, item.id)


async def test_a_lease_grows_durably_and_no_further_than_was_asked(store: Store) -> None:
    for _ in range(5):
        await rated_group(store, [1.0, 0.0])
    with pytest.raises(Conflict, match="holds no lease"):
        await store.experience.more(POLICY, 1, kinds=GROUPS, max_examples=1)
    first = await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=1)
    assert first is not None
    grown = await store.experience.more(POLICY, 1, kinds=GROUPS, max_examples=3)
    assert len(grown.examples) == 4
    assert first.examples[0] in grown.examples
    assert [group.id for group in grown.examples] == sorted(group.id for group in grown.examples)
    assert await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=1) == grown
    assert await store.experience.ready(POLICY, GROUPS) == 1
    for _ in range(2):
        assert len((await store.experience.more(POLICY, 1, kinds=GROUPS, max_examples=9)).examples) == 5
    with pytest.raises(Conflict, match="step 1"):
        await store.experience.more(POLICY, 2, kinds=GROUPS, max_examples=1)
    assert await store.feedback.ledger() == Ledger(received=10, pending=10)


async def test_the_same_call_for_more_sent_twice_grows_the_lease_once(store: Store) -> None:
    for _ in range(3):
        await rated_group(store, [1.0, 0.0])
    await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=1)
    call = {"policy": POLICY, "step": 1, "kinds": GROUPS, "max_examples": 1, "grow": "more_1"}
    for _ in range(2):  # as after a connection that broke before the answer came
        assert len(await store.interactions._link.run("lease", **call)) == 2


async def test_rejected_examples_leave_the_lease_and_the_last_one_ends_it(store: Store) -> None:
    items = sorted([await rated_group(store, rewards) for rewards in ([1.0, 0.0], [0.5, 0.5], [1.0, 1.0])], key=lambda item: item.id)
    await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=9)
    for _ in range(2):
        await store.experience.reject(POLICY, 1, {items[0].id: "zero_spread", items[1].id: "too_long", "chatcmpl-other": "never"})
    lease = await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=9)
    assert lease is not None
    assert [group.id for group in lease.examples] == [items[2].id]
    assert await store.feedback.ledger() == Ledger(received=6, pending=2, rejected={"zero_spread": 2, "too_long": 2})
    with pytest.raises(Conflict, match="step 1"):
        await store.experience.reject(POLICY, 2, {items[2].id: "zero_spread"})
    for _ in range(2):
        await store.experience.reject(POLICY, 1, {items[2].id: "zero_spread"})
    assert await store.feedback.ledger() == Ledger(received=6, rejected={"zero_spread": 4, "too_long": 2})
    assert await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=9) is None
    assert await store.registry.versions(POLICY) == [await store.registry.version(POLICY, 0)]
    with pytest.raises(Conflict, match="holds no lease"):
        await store.experience.more(POLICY, 1, kinds=GROUPS, max_examples=1)


async def test_a_rejected_shadow_group_is_deleted_with_its_answers(store: Store) -> None:
    item = shadow()
    await store.experience.add_shadow(item, [1.0, 1.0])
    await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=9)
    await store.experience.reject(POLICY, 1, {item.id: "zero_spread"})
    assert await store.interactions.get(item.id, None) is None
    assert await store.feedback.ledger() == Ledger()


async def test_a_revision_of_a_rejected_reward_makes_the_group_ready_again(store: Store) -> None:
    item = await rated_group(store, [1.0, 1.0])
    await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=9)
    for choice, value in enumerate((0.0, 1.0)):
        await store.feedback.post(post(item.id, value, choice=choice))
    await store.experience.reject(POLICY, 1, {item.id: "zero_spread"})
    lease = await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=9)
    assert lease is not None
    assert lease.examples[0].rewards == [0.0, 1.0]
    assert await store.feedback.ledger() == Ledger(received=4, pending=2, rejected={"zero_spread": 2})


async def test_a_request_for_a_step_ends_with_the_lease_and_waits_again_when_nothing_in_it_teaches(store: Store) -> None:
    job = await store.registry.request_training(POLICY)
    item = await rated_group(store, [1.0, 1.0])
    await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=9)
    assert await store.registry.requested_training(POLICY) is None
    await store.experience.reject(POLICY, 1, {item.id: "zero_spread"})
    assert await store.registry.requested_training(POLICY) == job


async def test_a_committed_lease_neither_grows_nor_shrinks(store: Store) -> None:
    item = await rated_group(store, [1.0, 0.0])
    await store.experience.lease(POLICY, 1, kinds=GROUPS, max_examples=1)
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [item.id]))
    with pytest.raises(Conflict, match="committed"):
        await store.experience.more(POLICY, 1, kinds=GROUPS, max_examples=1)
    with pytest.raises(Conflict, match="committed"):
        await store.experience.reject(POLICY, 1, {item.id: "zero_spread"})


async def test_a_committed_step_cannot_be_released(store: Store) -> None:
    item = await rated_group(store, [1.0, 0.0])
    await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [item.id]))
    with pytest.raises(Conflict):
        await store.experience.release(POLICY)


async def test_a_shadow_group_is_ready_unlisted_and_out_of_the_ledger(store: Store) -> None:
    item = shadow(3)
    for _ in range(2):
        assert await store.experience.add_shadow(item, [0.1, 0.2, 0.30000000000000004]) == item.id
    assert await store.experience.ready(POLICY, ["group"]) == 1
    assert await listed(store, SHADOW_TENANT, limit=9) == ([], False)
    assert await store.interactions.count() == 0
    with pytest.raises(TargetNotYours):
        await store.feedback.post(post(item.id))
    lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=9)
    assert lease is not None
    assert (lease.examples[0].shadow, lease.examples[0].rewards) == (True, [0.1, 0.2, 0.30000000000000004])
    await store.registry.commit_step(POLICY, 1, candidate(1, 1, [item.id]))
    await store.registry.publish(POLICY, 1, expect_live=0, verdict={})
    assert await store.feedback.ledger() == Ledger()
    assert await store.experience.ready(POLICY, ["group"]) == 0


async def test_a_shadow_group_must_be_the_learners_and_whole(store: Store) -> None:
    with pytest.raises(ValueError, match="tenant"):
        await store.experience.add_shadow(interaction(2), [1.0, 0.0])
    with pytest.raises(ValueError, match="3 rewards for 2 choices"):
        await store.experience.add_shadow(shadow(2), [1.0, 0.0, 0.5])


async def test_a_lease_outlives_its_interactions_retention(tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as store:
        await store.registry.ensure(POLICY, BASE)
        item = await rated_group(store, [1.0, 0.0])
        link = store.interactions._link
        await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1)
        assert await link.do("PTTL", f"r:i:{item.id}") == -1
        await store.experience.release(POLICY)
        assert 0 < await link.do("PTTL", f"r:i:{item.id}") <= StoreConfig().retention_hours * 3_600_000


async def test_a_group_whose_interaction_expired_is_rejected_at_the_lease(store: Store) -> None:
    item = await rated_group(store, [1.0, 0.0])
    await store.interactions._link.do("DEL", f"r:i:{item.id}", f"r:m:{item.id}")
    assert await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1) is None
    assert await store.feedback.ledger() == Ledger(received=2, rejected={"interaction_expired": 2})


async def test_any_order_of_a_thousand_arrivals_gives_the_same_batch(tmp_path: Path) -> None:
    items = [interaction(2) for _ in range(334)]
    batches = []
    for seed in range(2):
        async with embedded_store(tmp_path / str(seed)) as store:
            await store.registry.ensure(POLICY, BASE)
            arrivals: list[tuple[Interaction, int | None]] = [(item, choice) for item in items for choice in (None, 0, 1)]
            random.Random(seed).shuffle(arrivals)
            for item, choice in arrivals:
                if choice is None:
                    await store.interactions.put([item])
                else:
                    await store.feedback.post(post(item.id, choice * 0.5 + items.index(item) % 3, choice=choice))
            assert await store.experience.ready(POLICY, ["group"]) == len(items)
            lease = await store.experience.lease(POLICY, 1, kinds={"group": 0}, max_examples=1000)
            assert lease is not None
            batches.append([(example.id, example.interactions, example.rewards) for example in lease.examples])
    assert len(batches[0]) == len(items)
    assert batches[0] == batches[1]


async def test_prompts_offer_lone_scored_first_then_recent_and_each_once_a_round(store: Store) -> None:
    items = [interaction() for _ in range(4)]
    await store.interactions.put(items)
    await rate(store, items[1], [0.5])
    await store.interactions.put([interaction(status="error"), interaction(policy=BASE), interaction(prompt_ids=[])])
    first = await store.experience.prompts(POLICY, 2)
    assert [item.id for item in first] == [items[1].id, items[3].id]
    rest = await store.experience.prompts(POLICY, 2)
    assert [item.id for item in rest] == [items[2].id, items[0].id]
    again = await store.experience.prompts(POLICY, 9)
    assert [item.id for item in again] == [items[i].id for i in (1, 3, 2, 0)]
    assert await store.experience.prompts("other", 3) == []


async def test_one_call_offers_no_prompt_twice_when_the_round_begins_anew(store: Store) -> None:
    items = [interaction() for _ in range(3)]
    await store.interactions.put(items)
    await store.experience.prompts(POLICY, 2)
    mixed = await store.experience.prompts(POLICY, 3)
    assert sorted(item.id for item in mixed) == sorted(item.id for item in items)


async def test_rewards_of_another_tenant_never_complete_a_group(store: Store) -> None:
    item = interaction(2)
    await store.feedback.post(post(item.id, 1.0, choice=1, tenant="other"))
    await store.interactions.put([item])
    await store.feedback.post(post(item.id, 0.0, choice=0))
    assert await store.experience.ready(POLICY, ["group"]) == 0
    assert (await store.feedback.ledger()).rejected == {"not_yours": 1}
    assert TENANT != "other"
