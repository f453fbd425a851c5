"""Whatever happens in whatever order: the ledger balances after every operation and a reward is used at most once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ratchet.buffer import EmbeddedServer, Store, open_store
from ratchet.buffer.schema import SHADOW_TENANT
from ratchet.config import StoreConfig
from ratchet.errors import Conflict, TargetNotYours
from ratchet.types import Example, ExampleKind, FeedbackPost, Interaction, MetricType, PolicyRecord
from tests.support.fault_figures import FULL
from tests.support.stores import BASE, POLICY, TENANT, candidate, interaction, post
from tests.unit.buffer.store_snapshot import Slot, Snapshot, slot_of, snapshot

T = TypeVar("T")
EXAMPLES = 250 if FULL else 40
STEPS = 50
PHASES = (Phase.reuse, Phase.generate)  # no shrinking: each try asks a real server thousands of times
CHOICES = 2
TARGETS = 3
EPISODE = "talk"
TARGET = st.integers(0, TARGETS - 1)
VALUE = st.sampled_from([0.0, 0.5, 1.0, True, "words"])
TENANTS = st.sampled_from([TENANT, TENANT, TENANT, "other"])
SINGLE: dict[str, tuple[MetricType, Any]] = {
    "thumb": ("boolean", True),
    "note": ("comment", "Too long."),
    "edited": ("demonstration", "It is on its way."),
}
KINDS = list(get_args(ExampleKind))


class Interleavings(RuleBasedStateMachine):
    """Clients, a recorder and a learner at one store. Few targets, so that operations meet."""

    runner: asyncio.Runner
    store: Store

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def raw(self, *command: str | int) -> Any:
        return self.do(self.store.interactions._link.do(*command))

    def policy(self) -> PolicyRecord:
        record = self.do(self.store.registry.policy(POLICY))
        assert record is not None
        return record

    def new(self, at: int) -> Interaction:
        """An answer for place `at`; all but the last are turns of one episode."""
        return interaction(CHOICES, episode_id=EPISODE if at < TARGETS - 1 else None)

    @initialize()
    def begin(self) -> None:
        store_id = self.raw("GET", "r:store")
        self.raw("FLUSHDB")
        self.raw("SET", "r:store", store_id)
        self.do(self.store.registry.ensure(POLICY, BASE))
        self.items = [self.new(at) for at in range(TARGETS)]
        self.fbs: set[str] = set()
        self.keys: dict[tuple[str, str], str] = {}
        self.deleted: list[str] = []
        self.leased: list[str] = []
        self.candidate: int | None = None
        self.used_slots: set[Slot] = set()
        self.used: dict[str, str] = {}

    # Clients and the recorder

    @rule(at=TARGET)
    def an_answer_is_recorded(self, at: int) -> None:
        self.do(self.store.interactions.put([self.items[at]]))

    @rule(at=TARGET)
    def its_retention_ends(self, at: int) -> None:
        item = self.items[at]
        if self.raw("PTTL", f"r:m:{item.id}") > 0:  # a leased one is kept
            self.raw("DEL", f"r:i:{item.id}", f"r:m:{item.id}")
            self.items[at] = self.new(at)

    @rule(at=TARGET, tenant=st.sampled_from([TENANT, TENANT, "other"]))
    def a_client_deletes_it(self, at: int, tenant: str) -> None:
        item = self.items[at]
        known = bool(self.raw("EXISTS", f"r:m:{item.id}"))
        assert self.do(self.store.interactions.delete(item.id, tenant, route=item.route)) == (known and tenant == TENANT)
        if known and tenant == TENANT:
            self.do(self.store.interactions.put([item]))
            with pytest.raises(TargetNotYours):
                self.do(self.store.feedback.post(post(item.id)))
            self.deleted.append(item.id)
            self.items[at] = self.new(at)

    def send(self, feedback: FeedbackPost) -> None:
        try:
            fb = self.do(self.store.feedback.post(feedback))
        except TargetNotYours:
            assert feedback.tenant == "other"
            return
        self.fbs.add(fb)
        if (feedback.tenant, feedback.target, f"{feedback.choice}:{feedback.metric}") in self.used_slots:
            record = self.do(self.store.feedback.record(fb))
            assert record is not None
            assert record["state"] == "rejected"
            assert record["reason"] == "too_late" or feedback.type == "preference"

    @rule(at=TARGET, choice=st.sampled_from([0, 0, 1, 1, CHOICES]), value=VALUE, tenant=TENANTS)
    def somebody_rates_it(self, at: int, choice: int, value: object, tenant: str) -> None:
        self.send(post(self.items[at].id, value, choice=choice, tenant=tenant))

    @rule(at=st.integers(0, TARGETS), choice=st.sampled_from([0, 1, CHOICES]), metric=st.sampled_from([*SINGLE]), tenant=TENANTS)
    def somebody_says_more_of_it_or_of_the_episode(self, at: int, choice: int, metric: str, tenant: str) -> None:
        kind, value = SINGLE[metric]
        target = self.items[at].id if at < TARGETS else EPISODE
        self.send(post(target, value, choice=choice, metric=metric, type=kind, tenant=tenant))

    @rule(at=TARGET, chosen=TARGET, over=TARGET, choices=st.sampled_from([(0, 0), (0, 0), (0, 1), (1, CHOICES)]), tenant=TENANTS)
    def somebody_prefers_one_to_another(self, at: int, chosen: int, over: int, choices: tuple[int, int], tenant: str) -> None:
        self.send(self.preference(self.items[at].id, chosen, over, choices, tenant))

    def preference(self, target: str, chosen: int, over: int, choices: tuple[int, int], tenant: str) -> FeedbackPost:
        value = {"target": self.items[chosen].id, "choice": choices[0], "over": self.items[over].id, "over_choice": choices[1]}
        return post(target, value, metric="better", type="preference", tenant=tenant)

    @rule(at=TARGET, key=st.sampled_from(["k1", "k2"]), times=st.integers(1, 3))
    def the_same_post_is_sent_again_and_again(self, at: int, key: str, times: int) -> None:
        for _ in range(times):
            fb = self.do(self.store.feedback.post(post(self.items[at].id, 0.25, idempotency_key=key)))
            assert self.keys.setdefault((TENANT, key), fb) == fb
            self.fbs.add(fb)

    @rule(
        at=TARGET, values=st.sampled_from([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), recorded=st.sampled_from([True, True, False])
    )
    def all_its_choices_are_rated(self, at: int, values: list[float], recorded: bool) -> None:
        if recorded:
            self.an_answer_is_recorded(at)
        for choice, value in enumerate(values):
            self.somebody_rates_it(at, choice, value, TENANT)

    # The learner

    @rule(rewards=st.sampled_from([[0.0, 1.0], [1.0, 1.0]]))
    def a_shadow_group_is_scored(self, rewards: list[float]) -> None:
        self.do(self.store.experience.add_shadow(interaction(CHOICES, tenant=SHADOW_TENANT), rewards))

    @rule(
        at=TARGET,
        way=st.sampled_from(["on", "on", "on", "back", "again", "more", "reject"]),
        kinds=st.sampled_from([KINDS, KINDS, ["group"], ["lone", "pair"]]),
        max_examples=st.integers(1, 4),
        oldest=st.sampled_from([0, 0, 0, 1]),
        revised=st.booleans(),
    )
    def the_learner_goes_on(self, at: int, way: str, kinds: list[ExampleKind], max_examples: int, oldest: int, revised: bool) -> None:
        if revised:
            self._revise()
        if self.candidate is not None:
            self._decide(way)
        elif not self.leased or way == "again":
            self._lease(dict.fromkeys(kinds, oldest), max_examples)
        elif way == "more":
            self._more(dict.fromkeys(kinds, oldest), max_examples)
        elif way == "reject":
            self._reject(self.leased[: at + 1])
        elif way == "back":
            self.do(self.store.experience.release(POLICY))
            self.leased = []
        else:
            self._commit(self.leased[at % 2 :], self.leased[: at % 2 and at])

    @rule(at=TARGET, end=st.sampled_from(["on", "on", "back", "reject", "release"]), revised=st.booleans(), deleted=st.booleans())
    def the_learner_makes_a_step(self, at: int, end: str, revised: bool, deleted: bool) -> None:
        if self.candidate is not None:
            self._decide(end)
        self._lease(dict.fromkeys(KINDS, 0), 3)
        if revised:
            self._revise()
        if deleted:
            self.a_client_deletes_it(at, TENANT)
        self.all_agree()
        if self.leased and end == "reject":
            self._reject(self.leased[at:])
        elif end == "release":
            self.do(self.store.experience.release(POLICY))
            self.leased = []
        elif self.leased:
            self._commit(self.leased[at % 2 :], [])
            self._decide(end)

    def _revise(self) -> None:
        """Clients think again while their feedback is learned from."""
        for tenant, target, field in sorted(self.do(snapshot(self.store)).slots_of(self.leased)):
            choice, metric = field.split(":")
            kind, value = SINGLE.get(metric, ("float", 0.75))
            if target in self.deleted:
                continue
            if metric == "better":
                self.send(self.preference(target, 0, 1, (0, 0), tenant))
            else:
                self.send(post(target, value, choice=int(choice), metric=metric, type=kind, tenant=tenant))

    def _lease(self, kinds: dict[ExampleKind, int], max_examples: int) -> None:
        step = self.policy().step + 1
        lease = self.do(self.store.experience.lease(POLICY, step, kinds=kinds, max_examples=max_examples))
        found = lease.examples if lease is not None else []
        ids = [example.id for example in found]
        assert not self.leased or ids == self.leased
        assert self.leased or (len(ids) <= max_examples and all(example.kind in kinds for example in found))
        self._check_the_lease(found)
        self.leased = ids

    def _more(self, kinds: dict[ExampleKind, int], max_examples: int) -> None:
        lease = self.do(self.store.experience.more(POLICY, self.policy().step + 1, kinds=kinds, max_examples=max_examples))
        ids = [example.id for example in lease.examples]
        assert set(self.leased) <= set(ids)
        assert len(ids) <= len(self.leased) + max_examples
        self._check_the_lease(lease.examples)
        self.leased = ids

    def _check_the_lease(self, examples: list[Example]) -> None:
        """Each example has the interactions and signals of its kind, and none that was used already."""
        numbers = {"group": (1, CHOICES), "pair": (2, 1)}
        for example in examples:
            parts, signals = numbers.get(example.kind, (1, 1))
            assert len(example.interactions) == parts or (example.kind == "episode" and example.interactions)
            assert len(example.signals) == signals
            slots = {(signal.tenant, signal.target, f"{signal.choice}:{signal.metric}") for signal in example.signals}
            assert example.shadow or self.used_slots.isdisjoint(slots)
            turns = [item.turn for item in example.interactions if item.turn is not None]
            assert example.kind == "pair" or turns == sorted(turns)
            if example.kind == "pair":
                value = example.signals[0].value
                assert [item.id for item in example.interactions] == [value["target"], value["over"]]

    def _reject(self, ids: list[str]) -> None:
        for _ in range(2):
            self.do(self.store.experience.reject(POLICY, self.policy().step + 1, dict.fromkeys(ids, "zero_spread")))
        self.leased = [item for item in self.leased if item not in ids]

    def _commit(self, consumed: list[str], rejected: list[str]) -> None:
        record = self.policy()
        version = candidate(record.next_version, record.step + 1, consumed)
        for _ in range(2):
            reasons = {item: "zero_spread" for item in rejected if item not in consumed}
            self.do(self.store.registry.commit_step(POLICY, record.step + 1, version, rejected=reasons))
        self.candidate, self.leased = version.version, consumed

    def _decide(self, way: str) -> None:
        assert self.candidate is not None
        step, kinds = self.policy().step + 1, {KINDS[0]: 0}
        for forbidden in (
            self.store.experience.release(POLICY),
            self.store.experience.lease(POLICY, step, kinds=kinds, max_examples=1),
            self.store.experience.more(POLICY, step - 1, kinds=kinds, max_examples=1),
            self.store.experience.reject(POLICY, step - 1, {}),
        ):
            with pytest.raises(Conflict):
                self.do(forbidden)
        slots = self.do(snapshot(self.store)).slots_of(self.leased)
        for _ in range(2):
            if way == "back":
                self.do(self.store.registry.refuse(POLICY, self.candidate, gate="heldout", verdict={}))
            else:
                live = self.policy().live
                self.do(self.store.registry.publish(POLICY, self.candidate, expect_live=live, verdict={}))
        if way != "back":
            self.used_slots |= slots
        self.candidate, self.leased = None, []

    # Time and an operator

    @rule(first=st.integers(0, 5))
    def a_rewards_time_comes(self, first: int) -> None:
        for fb in self.raw("ZRANGE", "r:due", first, first):
            self.raw("ZADD", "r:due", 1, fb)
        self.do(self.store.feedback.expire(1))

    @rule(to=st.integers(0, 3))
    def an_operator_moves_the_pointer(self, to: int) -> None:
        try:
            self.do(self.store.registry.move(POLICY, to, expect_live=self.policy().live, reason="rollback"))
        except Conflict:
            found = self.do(self.store.registry.version(POLICY, to))
            assert found is None or found.state in ("candidate", "refused")

    # What must hold after each of them

    @invariant()
    def all_agree(self) -> None:
        if hasattr(self, "fbs"):
            found = self.do(snapshot(self.store))
            found.check_the_ledger(self.fbs)
            found.check_the_states(self.leased)
            found.check_the_singles()
            found.check_the_queues(self.leased)
            self.check_the_groups(found)
            self.check_what_is_used(found)

    def check_the_groups(self, found: Snapshot) -> None:
        """A recorded answer whose every choice has a number pending is ready; one without, or not recorded, is not."""
        held = {slot_of(record): record for record in found.records.values() if record["state"] == "pending"}
        for item in self.items:
            pending = [held.get((TENANT, item.id, f"{choice}:reward")) for choice in range(CHOICES)]
            state = found.examples.get(item.id, {}).get("state")
            if all(record and record["score"] for record in pending) and f"r:m:{item.id}" in found.keys:
                assert state == "ready"
            if state == "ready":
                assert all(pending)  # a word may have replaced a number: the lease finds out
        for ident in self.deleted:
            assert f"r:m:{ident}" not in found.keys
            assert (f"r:i:{ident}" in found.keys) == (ident in found.held)
            assert (ident in found.examples) == (ident in self.leased)

    def check_what_is_used(self, found: Snapshot) -> None:
        """A reward is used by one version, for good."""
        for fb, record in found.records.items():
            if record["state"] == "used":
                assert self.used.setdefault(fb, record["used_by"]) == record["used_by"]
            assert record["state"] == "used" or fb not in self.used


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[type[Interleavings]]:
    """The state machine on one real server, emptied before each run of operations."""
    with asyncio.Runner() as runner:
        server = runner.run(EmbeddedServer.start(tmp_path, StoreConfig()))
        store = runner.run(open_store("embedded", StoreConfig(), data=tmp_path))
        yield type("Machine", (Interleavings,), {"runner": runner, "store": store})
        runner.run(store.close())
        runner.run(server.stop())


@pytest.mark.slow
def test_any_interleaving_keeps_the_ledger_balanced_and_uses_a_reward_at_most_once(machine: type[Interleavings]) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES
        ),
    )
