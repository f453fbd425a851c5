"""What the operator's side says: the admin API over HTTP."""

from __future__ import annotations

from typing import Any, Self

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from ratchet.demo.gaps import Window
from ratchet.types import Ledger, PolicyVersionRecord


class Policy(msgspec.Struct):
    """A policy as `GET /admin/policies/{name}` gives it."""

    name: str
    base: str
    live: int
    versions: list[PolicyVersionRecord]
    step: int = 0
    status: dict[str, Any] = {}

    @property
    def learned(self) -> list[PolicyVersionRecord]:
        """The versions that an update made: all but the base."""
        return [v for v in self.versions if v.version > 0]

    @property
    def current(self) -> PolicyVersionRecord | None:
        """The live version's record."""
        return next((v for v in self.versions if v.version == self.live), None)

    @property
    def windows(self) -> list[Window]:
        """The swaps that went live, from the start of the load to the flip, in order."""
        swaps = [v.verdict.get("swap") or {} for v in self.learned if v.state != "refused"]
        return [Window(s["load_started"], s["flipped"]) for s in swaps if s.get("load_started") and s.get("flipped")]

    @property
    def lineage(self) -> list[PolicyVersionRecord]:
        """The live version and its parents, back to the base, newest first."""
        by_number = {v.version: v for v in self.versions}
        chain: list[PolicyVersionRecord] = []
        record = by_number.get(self.live)
        while record is not None:
            chain.append(record)
            record = by_number.get(record.parent) if record.parent is not None else None
        return chain

    @property
    def gate_reward(self) -> float | None:
        """The live version's mean reward on the gate's own prompts."""
        return heldout(self.current)["candidate"]


def heldout(record: PolicyVersionRecord | None) -> dict[str, float | None]:
    """The gate's held-out figures of a version: `candidate` its own, `live` those of the version it was to replace."""
    found = (record.verdict.get("heldout") if record else None) or {}
    return {"candidate": found.get("candidate"), "live": found.get("live")}


def kl(record: PolicyVersionRecord | None) -> float | None:
    """A version's own KL to the base, nats a token: the k3 estimate on what it answered in its activation proof.

    Not the record's `kl`, which is the mean over the groups of its update, sampled by the versions before it.
    """
    return record.verdict.get("kl") if record else None


class Admin:
    """An operator's client. A method raises httpx.HTTPError if the admin API does not answer with 200."""

    def __init__(self, url: str, key: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def policy(self, name: str) -> Policy:
        return msgspec.json.decode(await self._get(f"/admin/policies/{name}"), type=Policy)

    async def ledger(self) -> Ledger:
        return msgspec.json.decode(await self._get("/admin/ledger"), type=Ledger)

    async def engine_kind(self) -> str:
        """The kind of the engines (`vllm`), `+` between several."""
        engines = msgspec.json.decode(await self._get("/admin/engines"))["data"]
        return "+".join(sorted({str(e["kind"]) for e in engines}))

    async def held(self) -> dict[str, int]:
        """Requests the gateway held back, `during_swap` and `outside`."""
        return held((await self._get("/metrics")).decode())

    async def _get(self, path: str) -> bytes:
        response = await self._http.get(path)
        response.raise_for_status()
        return response.content


def held(metrics: str) -> dict[str, int]:
    """`ratchet_held_total` in a Prometheus exposition, by whether a swap was under way."""
    counts = {"during_swap": 0, "outside": 0}
    for sample in (s for family in text_string_to_metric_families(metrics) for s in family.samples):
        if sample.name == "ratchet_held_total":
            counts["during_swap" if sample.labels.get("during_swap") == "true" else "outside"] += int(sample.value)
    return counts
