"""What each key may still do, counted over all gateways. A key's state ends by itself once its buckets are full again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ratchet.buffer.link import Call, Link
from ratchet.types import KeyRecord

Bound = Literal["requests", "tokens", "concurrency"]


class Ended(NamedTuple):
    """A lease that is over: the tokens set aside for its request, and those it used."""

    id: str
    reserved: int
    used: int


class QuotaState(NamedTuple):
    """How a key stands. `refused`: the bound that stopped the request, "" if none; `wait` seconds until it would pass (0: not known).

    `requests` and `tokens` are what is left, `reset_*` the seconds until that bucket is full again; 0 where there is no quota.
    """

    refused: Bound | Literal[""]
    wait: float
    requests: int
    reset_requests: float
    tokens: int
    reset_tokens: float


class Quotas:
    """Token buckets and leases, one script."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(self, key: KeyRecord, request: str, *, tokens: int, leased: bool, lease_seconds: float) -> QuotaState:
        """Whether `request` (an id of the caller's making) may start and use `tokens`; then it is charged.

        `leased`: it counts as running until `end`, and `lease_seconds` at most unless kept. StoreUnavailable: it may have been charged.
        """
        call = _call(key, lease_seconds, id=request, tokens=min(tokens, key.tpm or tokens), leased=leased)
        refused, wait, requests, reset_requests, remaining, reset_tokens = await self._link.run(call.script, **call.args)
        return QuotaState(refused.decode(), wait / 1000, requests, reset_requests / 1000, remaining, reset_tokens / 1000)

    async def end(self, key: KeyRecord, ended: Sequence[Ended], *, lease_seconds: float) -> None:
        """Ends leases and settles their tokens; one that is over already changes nothing. StoreUnavailable."""
        call = _call(key, lease_seconds, done=[tuple(item) for item in ended])
        await self._link.run(call.script, **call.args)

    async def keep(self, running: Sequence[tuple[KeyRecord, Sequence[str]]], *, lease_seconds: float) -> None:
        """Renews the leases of running requests, by key, in one round trip. StoreUnavailable."""
        await self._link.run_all([_call(key, lease_seconds, keep=list(ids)) for key, ids in running])


def _call(key: KeyRecord, lease_seconds: float, **args: object) -> Call:
    bounds = {"key": key.id, "rpm": key.rpm, "tpm": key.tpm, "concurrency": key.concurrency}
    return Call("quota", {**bounds, "lease": round(lease_seconds * 1000), **args})
