"""Whatever happens in whatever order: the ledger balances after every operation and a reward is used at most once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

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
from ratchet.types import PolicyRecord
from tests.support.figures import FULL
from tests.support.stores import BASE, POLICY, TENANT, candidate, interaction, post

T = TypeVar("T")
EXAMPLES = 250 if FULL else 25
STEPS = 50
PHASES = (Phase.reuse, Phase.generate)  # no shrinking: each try asks a real server thousands of times
CHOICES = 2
TARGETS = 3
TARGET = st.integers(0, TARGETS - 1)
VALUE = st.sampled_from([0.0, 0.5, 1.0, True, "words"])


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

    @initialize()
    def begin(self) -> None:
        store_id = self.raw("GET", "r:store")
        self.raw("FLUSHDB")
        self.raw("SET", "r:store", store_id)
        self.do(self.store.registry.ensure(POLICY, BASE))
        self.items = [interaction(CHOICES) for _ in range(TARGETS)]
        self.fbs: set[str] = set()
        self.keys: dict[tuple[str, str], str] = {}
        self.deleted: list[str] = []
        self.leased: list[str] = []
        self.candidate: int | None = None
        self.used_groups: set[str] = set()
        self.used: dict[str, str] = {}

    @rule(at=TARGET)
    def an_answer_is_recorded(self, at: int) -> None:
        self.do(self.store.interactions.put([self.items[at]]))

    @rule(at=TARGET)
    def its_retention_ends(self, at: int) -> None:
        item = self.items[at]
        if self.raw("PTTL", f"r:m:{item.id}") > 0:  # a leased one is kept
            self.raw("DEL", f"r:i:{item.id}", f"r:m:{item.id}")
            self.items[at] = interaction(CHOICES)

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
            self.items[at] = interaction(CHOICES)

    @rule(at=TARGET, choice=st.sampled_from([0, 0, 1, 1, CHOICES]), value=VALUE, tenant=st.sampled_from([TENANT, TENANT, TENANT, "other"]))
    def somebody_rates_it(self, at: int, choice: int, value: object, tenant: str) -> None:
        target = self.items[at].id
        try:
            fb = self.do(self.store.feedback.post(post(target, value, choice=choice, tenant=tenant)))
        except TargetNotYours:
            assert tenant == "other"
            return
        self.fbs.add(fb)
        if target in self.used_groups and tenant == TENANT and choice < CHOICES:
            record = self.do(self.store.feedback.record(fb))
            assert record is not None
            assert record["reason"] == "too_late"

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

    @rule(rewards=st.sampled_from([[0.0, 1.0], [1.0, 1.0]]))
    def a_shadow_group_is_scored(self, rewards: list[float]) -> None:
        self.do(self.store.experience.add_shadow(interaction(CHOICES, tenant=SHADOW_TENANT), rewards))

    @rule(
        at=TARGET,
        way=st.sampled_from(["on", "on", "on", "back", "again"]),
        max_examples=st.integers(1, 3),
        oldest=st.sampled_from([0, 0, 0, 1]),
        revised=st.booleans(),
    )
    def the_learner_goes(self, at: int, way: str, max_examples: int, oldest: int, revised: bool) -> None:
        if revised:
            self._revise()
        if self.candidate is not None:
            self._decide(way)
        elif not self.leased or way == "again":
            self._lease(max_examples, oldest)
        elif way == "back":
            self.do(self.store.experience.release(POLICY))
            self.leased = []
        else:
            self._commit(self.leased[at % 2 :])

    def _revise(self) -> None:
        """A client thinks again while its reward is learned from."""
        for item in self.items:
            if item.id in self.leased:
                self.fbs.add(self.do(self.store.feedback.post(post(item.id, 0.75))))

    def _lease(self, max_examples: int, oldest: int) -> None:
        step = self.policy().step + 1
        lease = self.do(self.store.experience.lease(POLICY, step, kinds={"group": oldest}, max_examples=max_examples))
        found = [group.id for group in lease.examples] if lease is not None else []
        assert not self.leased or found == self.leased
        assert self.leased or len(found) <= max_examples
        assert self.used_groups.isdisjoint(found)
        self.leased = found

    def _commit(self, consumed: list[str]) -> None:
        record = self.policy()
        version = candidate(record.next_version, record.step + 1, consumed)
        for _ in range(2):
            self.do(self.store.registry.commit_step(POLICY, record.step + 1, version))
        self.candidate, self.leased = version.version, consumed

    def _decide(self, way: str) -> None:
        assert self.candidate is not None
        for forbidden in (
            self.store.experience.release(POLICY),
            self.store.experience.lease(POLICY, self.policy().step + 1, kinds={"group": 0}, max_examples=1),
        ):
            with pytest.raises(Conflict):
                self.do(forbidden)
        for _ in range(2):
            if way == "back":
                self.do(self.store.registry.refuse(POLICY, self.candidate, gate="heldout", verdict={}))
            else:
                live = self.policy().live
                self.do(self.store.registry.publish(POLICY, self.candidate, expect_live=live, verdict={}))
        if way != "back":
            self.used_groups.update(self.leased)
        self.candidate, self.leased = None, []

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

    def records(self) -> dict[str, dict[str, Any]]:
        found = {fb: self.do(self.store.feedback.record(fb)) for fb in self.fbs}
        return {fb: record for fb, record in found.items() if record is not None}

    def check_the_ledger(self, records: dict[str, dict[str, Any]]) -> None:
        """The counters are what a count of the records gives."""
        ledger = self.do(self.store.feedback.ledger())
        states = Counter(record["state"] for record in records.values())
        assert ledger.balances
        assert (ledger.received, ledger.used, ledger.expired) == (len(self.fbs), states["used"], states["expired"])
        assert ledger.pending == states["pending"] + states["waiting"] + states["leased"]
        assert ledger.rejected == dict(Counter(record["reason"] for record in records.values() if record["state"] == "rejected"))
        parked = Counter(record["tenant"] for record in records.values() if record["parked"])
        assert {name.decode(): int(n) for name, n in self.raw("HGETALL", "r:parked").items()} == dict(parked)

    def check_the_states(self, records: dict[str, dict[str, Any]]) -> None:
        """Each reward is where its state says: one a slot, due or leased or settled, used by one version for good."""
        slots = Counter((r["tenant"], r["target"], r["choice"]) for r in records.values() if r["state"] in ("pending", "leased"))
        assert all(n == 1 for n in slots.values())
        due = {fb.decode() for fb in self.raw("ZRANGE", "r:due", 0, -1)}
        assert due == {fb for fb, record in records.items() if record["state"] in ("pending", "waiting")}
        for fb, record in records.items():
            assert record["state"] == "pending" or not record["parked"]
            if record["state"] in ("leased", "waiting"):
                assert record["target"] in self.leased
            if record["state"] == "used":
                assert self.used.setdefault(fb, record["used_by"]) == record["used_by"]
            assert record["state"] == "used" or fb not in self.used

    def check_the_groups(self, records: dict[str, dict[str, Any]]) -> None:
        """A recorded answer whose every choice has a number pending is ready; one without, or not recorded, is not."""
        held = {(r["target"], r["choice"]): r for r in records.values() if r["tenant"] == TENANT and r["state"] == "pending"}
        for item in self.items:
            whole = all((item.id, choice) in held and held[item.id, choice]["score"] for choice in range(CHOICES))
            rated = all((item.id, choice) in held for choice in range(CHOICES))
            state = self.raw("HGET", f"r:x:{item.id}", "state")
            if whole and self.raw("EXISTS", f"r:m:{item.id}"):
                assert state == b"ready"
            if state == b"ready":
                assert rated  # a word may have replaced a number: the lease finds out
            assert (state == b"leased") == (item.id in self.leased)
        for gone in self.deleted:
            assert not self.raw("EXISTS", f"r:m:{gone}")
            assert self.raw("EXISTS", f"r:i:{gone}", f"r:x:{gone}") == (2 if gone in self.leased else 0)
        ready = sum(self.raw("HGET", key.decode(), "state") == b"ready" for key in self.raw("KEYS", "r:x:*"))
        assert self.do(self.store.experience.ready(POLICY, ["group"])) == ready

    @invariant()
    def all_agree(self) -> None:
        if hasattr(self, "fbs"):
            records = self.records()
            self.check_the_ledger(records)
            self.check_the_states(records)
            self.check_the_groups(records)


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
