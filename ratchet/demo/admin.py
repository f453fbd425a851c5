"""The demo's client of the admin API."""

from __future__ import annotations

from typing import Any, Self

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from ratchet.demo.gaps import Window
from ratchet.types import Ledger, PolicyVersionRecord


class Policy(msgspec.Struct):
    """A policy as `GET /admin/policies/{name}` returns it."""

    name: str
    base: str
    live: int
    versions: list[PolicyVersionRecord]
    step: int = 0
    status: dict[str, Any] = {}

    @property
    def learned(self) -> list[PolicyVersionRecord]:
        """All versions but the base."""
        return [v for v in self.versions if v.version > 0]

    @property
    def current(self) -> PolicyVersionRecord | None:
        """The live version's record."""
        return next((v for v in self.versions if v.version == self.live), None)

    @property
    def windows(self) -> list[Window]:
        """The swaps in order, each from the start of the load to the flip of the live pointer; refused versions have none."""
        swaps = [v.verdict.get("swap") or {} for v in self.learned if v.state != "refused"]
        return [Window(s["load_started"], s["flipped"]) for s in swaps if s.get("load_started") and s.get("flipped")]

    @property
    def lineage(self) -> list[PolicyVersionRecord]:
        """The live version and its ancestors, newest first, down to the base."""
        by_number = {v.version: v for v in self.versions}
        chain: list[PolicyVersionRecord] = []
        record = by_number.get(self.live)
        while record is not None:
            chain.append(record)
            record = by_number.get(record.parent) if record.parent is not None else None
        return chain

    @property
    def gate_reward(self) -> float | None:
        """The live version's mean reward on the gate's prompts; None if the gate has not measured it."""
        return heldout(self.current)["candidate"]


def heldout(record: PolicyVersionRecord | None) -> dict[str, float | None]:
    """Return a version's mean rewards on the gate's prompts: its own (`candidate`) and those of the version it was to replace (`live`)."""
    found = (record.verdict.get("heldout") if record else None) or {}
    return {"candidate": found.get("candidate"), "live": found.get("live")}


def kl(record: PolicyVersionRecord | None) -> float | None:
    """Return a version's KL to the base in nats a token: the k3 estimate over its answers in the activation proof.

    The record's own `kl` is another figure: the mean over the groups of its update, which earlier versions sampled.
    """
    return record.verdict.get("kl") if record else None


class Admin:
    """A client with an operator's key. Every method raises httpx.HTTPError unless the admin API answers 200."""

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
        """Return the kind of the engines, such as `vllm`, with `+` between several."""
        engines = msgspec.json.decode(await self._get("/admin/engines"))["data"]
        return "+".join(sorted({str(e["kind"]) for e in engines}))

    async def held(self) -> dict[str, int]:
        """Return how many requests the gateway delayed during swaps (`during_swap`) and at other times (`outside`)."""
        return held((await self._get("/metrics")).decode())

    async def _get(self, path: str) -> bytes:
        response = await self._http.get(path)
        response.raise_for_status()
        return response.content


def held(metrics: str) -> dict[str, int]:
    """Return the values of `ratchet_held_total` in a Prometheus exposition, by whether a swap was under way."""
    counts = {"during_swap": 0, "outside": 0}
    for sample in (s for family in text_string_to_metric_families(metrics) for s in family.samples):
        if sample.name == "ratchet_held_total":
            counts["during_swap" if sample.labels.get("during_swap") == "true" else "outside"] += int(sample.value)
    return counts
