"""Every kind of example: what makes it ready, and what it holds when it is leased."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ratchet.buffer import Store
from ratchet.buffer.schema import blob
from ratchet.config import StoreConfig
from ratchet.types import Ledger, MetricType, Signal
from tests.support.stores import BASE, POLICY, TENANT, embedded_store, interaction, post, rated_group
from tests.unit.buffer.feedback_examples import ALL, counts, expire_all, lease, preference, recorded, state, typed


@pytest.mark.parametrize(
    ("type_", "value", "kind", "rewards"),
    [
        ("float", 0.25, "lone", [0.25]),
        ("float", 1, "lone", [1.0]),
        ("boolean", True, "lone", [1.0]),
        ("boolean", False, "lone", [0.0]),
        ("comment", "Too long.", "comment", []),
        ("demonstration", "It is on its way.", "demonstration", []),
    ],
)
async def test_one_signal_on_one_answer_is_an_example_of_its_types_kind(
    store: Store, type_: MetricType, value: Any, kind: str, rewards: list[float]
) -> None:
    item = await recorded(store)
    fb = await store.feedback.post(typed(item.id, type_, value))
    assert await counts(store) == {kind: 1}
    [found] = await lease(store)
    assert (found.id, found.kind, found.shadow) == (f"{item.id}:0:{type_}", kind, False)
    assert found.interactions == [item]
    assert found.signals == [Signal(item.id, 0, type_, value, fb, TENANT, "k1")]
    assert type(found.signals[0].value) is type(value)
    assert found.rewards == rewards
    assert await state(store, fb) == "leased"
    assert await counts(store) == {}


async def test_a_groups_signals_name_their_feedback_and_its_principal(store: Store) -> None:
    item = await recorded(store, 2)
    fbs = [await store.feedback.post(post(item.id, float(i), choice=i, key_id=f"k{i}")) for i in (1, 0)]
    [found] = await lease(store)
    assert found.signals == [
        Signal(item.id, 0, "reward", 0.0, fbs[1], TENANT, "k0"),
        Signal(item.id, 1, "reward", 1.0, fbs[0], TENANT, "k1"),
    ]


async def test_a_choice_rated_on_another_metric_than_its_groups_is_a_lone_example(store: Store) -> None:
    item = await rated_group(store, [1.0, 0.0])
    await store.feedback.post(typed(item.id, "boolean", True, choice=1))
    assert await counts(store) == {"group": 1, "lone": 1}
    group, lone = await lease(store)
    assert (group.id, lone.id, lone.signals[0].choice) == (item.id, f"{item.id}:1:boolean", 1)
    assert group.interactions == lone.interactions == [item]


async def test_an_answer_rated_on_its_groups_metric_waits_for_the_whole_group(store: Store) -> None:
    item = await recorded(store, 2)
    await store.feedback.post(post(item.id, 1.0))
    assert await counts(store) == {}


@pytest.mark.parametrize(
    ("fields", "ready"),
    [
        ({"untrainable": "top_p"}, {"lone": 1, "comment": 1}),
        ({"status": "truncated"}, {}),
        ({"status": "error"}, {}),
        ({"policy": BASE}, {}),
    ],
)
async def test_an_answer_without_exact_ids_still_teaches_what_needs_none_and_an_incomplete_one_nothing(
    store: Store, fields: dict[str, str], ready: dict[str, int]
) -> None:
    item = await recorded(store, **fields)
    await store.feedback.post(typed(item.id, "boolean", True))
    await store.feedback.post(typed(item.id, "comment", "Fine."))
    assert await counts(store) == ready
    assert await store.experience.ready(BASE, ALL) == 0
    assert await store.feedback.ledger() == Ledger(received=2, pending=2)


@pytest.mark.parametrize("order", ["chosen", "rejected", "feedback"])
async def test_a_preference_joins_both_answers_in_whatever_order_all_come(store: Store, order: str) -> None:
    chosen, rejected = interaction(), interaction(2)
    arrivals: dict[str, Any] = {"chosen": chosen, "rejected": rejected, "feedback": preference(chosen, rejected, choices=(0, 1))}
    fb = ""
    for name in [order, *(other for other in arrivals if other != order)]:
        assert await counts(store) == {}
        if name == "feedback":
            fb = await store.feedback.post(arrivals[name])
        else:
            await store.interactions.put([arrivals[name]])
    assert await counts(store) == {"pair": 1}
    assert await store.interactions._link.do("HGETALL", "r:parked") == {}
    [found] = await lease(store)
    assert (found.id, found.kind, found.interactions) == (f"{chosen.id}:0:preference", "pair", [chosen, rejected])
    value = {"target": chosen.id, "choice": 0, "over": rejected.id, "over_choice": 1}
    assert found.signals == [Signal(chosen.id, 0, "preference", value, fb, TENANT, "k1")]
    assert found.rewards == []


async def test_a_preference_is_parked_until_the_last_answer_it_names_is_known(store: Store) -> None:
    target, chosen, rejected = interaction(), interaction(), interaction()
    fb = await store.feedback.post(preference(chosen, rejected, target=target.id))
    for item in (rejected, target, chosen):
        record = await store.feedback.record(fb)
        assert record is not None
        assert (record["state"], record["parked"]) == ("pending", True)
        assert await counts(store) == {}
        await store.interactions.put([item])
    assert await counts(store) == {"pair": 1}
    [found] = await lease(store)
    assert (found.id, found.interactions) == (f"{target.id}:0:preference", [chosen, rejected])


async def test_a_preference_between_two_choices_of_one_answer_is_a_pair(store: Store) -> None:
    item = await recorded(store, 2)
    await store.feedback.post(preference(item, item, choices=(1, 0)))
    [found] = await lease(store)
    assert found.interactions == [item, item]
    await store.experience.release(POLICY)
    assert await store.interactions._link.do("PTTL", blob(item.id)) > 0
    assert await counts(store) == {"pair": 1}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("fields", "choices", "reason"), [({"tenant": "other"}, (0, 0), "not_yours"), ({}, (0, 1), "no_such_choice")])
async def test_a_preference_over_what_is_not_the_callers_or_not_there_is_rejected(
    store: Store, known: bool, fields: dict[str, str], choices: tuple[int, int], reason: str
) -> None:
    chosen, rejected = await recorded(store), interaction(**fields)
    if known:
        await store.interactions.put([rejected])
    fb = await store.feedback.post(preference(chosen, rejected, choices=choices))
    if not known:
        assert await state(store, fb) == "pending"
        await store.interactions.put([rejected])
    assert await state(store, fb) == f"rejected:{reason}"
    assert await counts(store) == {}
    assert await store.feedback.ledger() == Ledger(received=1, rejected={reason: 1})
    assert await store.interactions._link.do("HGETALL", "r:parked") == {}


async def test_an_invalid_preference_leaves_the_earlier_one_in_its_slot(store: Store) -> None:
    chosen, rejected, theirs = await recorded(store), await recorded(store), await recorded(store, tenant="other")
    kept = await store.feedback.post(preference(chosen, rejected))
    await store.feedback.post(preference(chosen, theirs))
    assert await state(store, kept) == "pending"
    assert await counts(store) == {"pair": 1}


async def test_a_preference_that_names_another_unknown_answer_takes_the_ready_one_out(store: Store) -> None:
    chosen, rejected, later = await recorded(store), await recorded(store), interaction()
    first = await store.feedback.post(preference(chosen, rejected))
    second = await store.feedback.post(preference(chosen, later))
    assert [await state(store, fb) for fb in (first, second)] == ["rejected:superseded", "pending"]
    assert await counts(store) == {}
    await store.interactions.put([later])
    [found] = await lease(store)
    assert found.interactions == [chosen, later]


async def test_a_preference_against_the_bases_answer_teaches_the_policy_whose_answer_it_is_posted_on(store: Store) -> None:
    own, bases = await recorded(store, version=5), await recorded(store, policy=BASE)
    await store.feedback.post(preference(bases, own, target=own.id))
    await store.feedback.post(preference(own, bases, target=bases.id))
    assert await counts(store) == {"pair": 1}
    assert await store.experience.ready(BASE, ALL) == 0
    [found] = await lease(store, pair=5)  # the base's answer, version 0, is no stale one of the policy
    assert found.interactions == [bases, own]


async def test_a_parked_preference_counts_once_against_the_bound_and_leaves_nothing_when_it_ends(tmp_path: Path) -> None:
    async with embedded_store(tmp_path, StoreConfig(max_parked=1, feedback_ttl_hours=1e-9)) as store:
        chosen, rejected = interaction(), interaction()
        for _ in range(3):  # each supersedes the one before
            await store.feedback.post(preference(chosen, rejected))
        link = store.interactions._link
        assert await link.do("HGETALL", "r:parked") == {TENANT.encode(): b"1"}
        await expire_all(store)
        assert await link.do("HGETALL", "r:parked") == {}
        assert await link.do("EXISTS", f"r:pk:{rejected.id}") == 0


async def test_an_episode_is_its_turns_in_order_with_one_signal(store: Store) -> None:
    turns = [await recorded(store, episode_id="talk-1", version=version) for version in (3, 4, 3)]
    await recorded(store, episode_id="talk-1", tenant="other")
    await recorded(store, episode_id="talk-2")
    fb = await store.feedback.post(typed("talk-1", "float", 0.5))
    last = await recorded(store, episode_id="talk-1", version=4)
    assert await counts(store) == {"episode": 1}
    [found] = await lease(store)
    for turn, item in enumerate([*turns, last]):
        item.turn = turn
    assert (found.kind, found.interactions) == ("episode", [*turns, last])
    assert found.signals == [Signal("talk-1", 0, "float", 0.5, fb, TENANT, "k1")]
    await store.experience.release(POLICY)
    assert await lease(store, episode=4) == []
    assert (await store.feedback.ledger()).rejected == {"stale": 1}


async def test_two_tenants_episodes_of_one_name_are_two_examples(store: Store) -> None:
    for tenant in (TENANT, "other"):
        await recorded(store, episode_id="talk-1", tenant=tenant)
        await store.feedback.post(typed("talk-1", "boolean", True, tenant=tenant))
    found = await lease(store)
    assert len({example.id for example in found}) == 2
    assert sorted(example.signals[0].tenant for example in found) == sorted([TENANT, "other"])


async def test_feedback_on_an_episode_waits_for_its_first_turn(store: Store) -> None:
    await store.feedback.post(typed("talk-1", "float", 0.5))
    assert await counts(store) == {}
    await recorded(store, episode_id="talk-1")
    assert await counts(store) == {"episode": 1}


async def test_a_turn_keeps_its_index_when_it_is_put_again_and_is_read_with_it(store: Store) -> None:
    turns = [interaction(episode_id="talk-1") for _ in range(3)]
    for item in (turns[0], turns[1], turns[0], turns[2]):
        await store.interactions.put([item])
    assert [(await store.interactions.get(item.id, TENANT)).turn for item in turns] == [0, 1, 2]  # type: ignore[union-attr]
    assert [item.turn for item in await store.interactions.many([item.id for item in turns])] == [0, 1, 2]
    alone = await recorded(store)
    assert (await store.interactions.get(alone.id, TENANT)) == alone


async def test_an_episodes_deleted_turn_is_left_out_and_with_its_last_the_episode_ends(store: Store) -> None:
    turns = [await recorded(store, episode_id="talk-1") for _ in range(3)]
    await store.feedback.post(typed("talk-1", "float", 0.5))
    await store.interactions.delete(turns[1].id, TENANT, route=turns[1].route)
    [found] = await lease(store)
    assert [(item.id, item.turn) for item in found.interactions] == [(turns[0].id, 0), (turns[2].id, 2)]
    await store.interactions.delete(turns[2].id, TENANT, route=turns[2].route)
    assert await lease(store) == [found], "what is leased stays"
    await store.experience.release(POLICY)
    assert await store.interactions._link.do("EXISTS", blob(turns[2].id)) == 0
    [found] = await lease(store)
    assert [item.id for item in found.interactions] == [turns[0].id]
    await store.interactions.delete(turns[0].id, TENANT, route=turns[0].route)
    await store.experience.release(POLICY)
    assert (await store.feedback.ledger()).rejected == {"deleted": 1}
