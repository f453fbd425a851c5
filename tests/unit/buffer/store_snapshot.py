"""All of a store at one moment, and what must hold at any: read in two round trips, so that a test may look after every step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec

from ratchet.buffer import Store
from ratchet.types import Ledger

SINGLE_METRICS = {"thumb", "note", "edited", "better"}
"""Metrics whose every feedback is an example of its own."""

Slot = tuple[str, str, str]
"""Tenant, target, `choice:metric`."""


@dataclass(frozen=True)
class Snapshot:
    """`records` are feedback by id, `examples` by id, as the store keeps them; `queued` and `due` ids; `held` counts by interaction."""

    keys: set[str]
    records: dict[str, dict[str, Any]]
    examples: dict[str, dict[str, str]]
    held: dict[str, int]
    queued: list[str]
    due: set[str]
    parked: dict[str, int]
    ledger: Ledger

    def slots_of(self, idents: list[str]) -> set[Slot]:
        """The slots of these examples."""
        return {slot for ident in idents if ident in self.examples for slot in slots(self.examples[ident])}

    def check_the_ledger(self, received: set[str]) -> None:
        """The counters are what a count of the records gives."""
        states = Counter(record["state"] for record in self.records.values())
        assert self.ledger.balances
        assert set(self.records) == received
        assert (self.ledger.received, self.ledger.used, self.ledger.expired) == (len(received), states["used"], states["expired"])
        assert self.ledger.pending == states["pending"] + states["waiting"] + states["leased"]
        rejected = Counter(record["reason"] for record in self.records.values() if record["state"] == "rejected")
        assert self.ledger.rejected == dict(rejected)
        assert self.parked == dict(Counter(record["tenant"] for record in self.records.values() if record["parked"] == "1"))

    def check_the_states(self, leased: list[str]) -> None:
        """Each reward is where its state says: one a slot, due or leased or settled; parked only while what it names is unknown."""
        taken = Counter(slot_of(record) for record in self.records.values() if record["state"] in ("pending", "leased"))
        assert all(n == 1 for n in taken.values())
        assert self.due == {fb for fb, record in self.records.items() if record["state"] in ("pending", "waiting")}
        held = self.slots_of(leased)
        for record in self.records.values():
            if record["parked"] == "1":
                assert record["state"] == "pending"
                assert not all(self.keys & names for names in named_by(record)), "all that it names is known"
            if record["state"] in ("leased", "waiting"):
                assert slot_of(record) in held

    def check_the_singles(self) -> None:
        """Feedback that is an example of its own, and not parked, is ready or leased; and no other example is of one feedback."""
        found = {}
        for record in self.records.values():
            if record["state"] not in ("pending", "leased") or record["parked"] == "1":
                continue
            assert record["metric"] not in SINGLE_METRICS or "example" in record
            if "example" in record:
                assert record["example"] not in found
                found[record["example"]] = "ready" if record["state"] == "pending" else "leased"
        assert found == {ident: example["state"] for ident, example in self.examples.items() if "field" in example}

    def check_the_queues(self, leased: list[str]) -> None:
        """An example is ready and in its queue, or leased; no slot is in two; what is leased holds its interactions."""
        assert sorted(self.queued) == sorted(ident for ident, example in self.examples.items() if example["state"] == "ready")
        assert sorted(leased) == sorted(ident for ident, example in self.examples.items() if example["state"] == "leased")
        taken = Counter(slot for example in self.examples.values() for slot in slots(example))
        assert all(n == 1 for n in taken.values())
        names = [name for example in self.examples.values() for name, _ in msgspec.json.decode(example.get("names", "[]"))]
        assert self.held == dict(Counter(names))


async def snapshot(store: Store) -> Snapshot:
    """The store as it is now; nobody else may write meanwhile."""
    link = store.interactions._link
    keys = {key.decode() for key in await link.do("KEYS", "r:*")}
    parts = {prefix: sorted(key for key in keys if key.startswith(prefix)) for prefix in ("r:f:", "r:x:", "r:held:", "r:ready:")}
    commands: list[tuple[str | int, ...]] = [("HGETALL", key) for key in parts["r:f:"] + parts["r:x:"]]
    commands += [("GET", key) for key in parts["r:held:"]]
    commands += [("ZRANGE", key, 0, -1) for key in parts["r:ready:"]]
    commands += [("ZRANGE", "r:due", 0, -1), ("HGETALL", "r:parked")]
    rows = iter(await link.together(*commands))
    return Snapshot(
        keys=keys,
        records={key.removeprefix("r:f:"): _texts(next(rows)) for key in parts["r:f:"]},
        examples={key.removeprefix("r:x:"): _texts(next(rows)) for key in parts["r:x:"]},
        held={key.removeprefix("r:held:"): int(next(rows)) for key in parts["r:held:"]},
        queued=[ident.decode() for _ in parts["r:ready:"] for ident in next(rows)],
        due={fb.decode() for fb in next(rows)},
        parked={tenant.decode(): int(n) for tenant, n in next(rows).items()},
        ledger=await store.feedback.ledger(),
    )


def slot_of(record: dict[str, str]) -> Slot:
    """The slot that the feedback is, or was, in."""
    return record["tenant"], record["target"], f"{record['choice']}:{record['metric']}"


def slots(example: dict[str, str]) -> list[Slot]:
    """The slots of an example; a shadow group has none."""
    if "shadow" in example:
        return []
    fields = [example["field"]] if "field" in example else [f"{i}:{example['metric']}" for i in range(int(example["n"]))]
    return [(example["tenant"], example["target"], field) for field in fields]


def named_by(record: dict[str, str]) -> list[set[str]]:
    """For each thing that feedback names, the keys one of which exists if it is known."""
    tenant, target = record["tenant"], record["target"]
    found = [{f"r:m:{target}", f"r:ep:{len(tenant)}:{tenant}:{target}"}]
    if record["type"] == "preference":
        value = msgspec.json.decode(record["value"])
        found += [{f"r:m:{value[name]}"} for name in ("target", "over")]
    return found


def _texts(row: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in row.items()}
