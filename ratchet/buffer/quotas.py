"""The quota of each key, counted over all gateways. The state of a key expires once its buckets are full again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ratchet.buffer.link import Call, Link
from ratchet.types import KeyRecord

Bound = Literal["requests", "tokens", "concurrency"]


class Ended(NamedTuple):
    """A finished request: the id of its lease, the tokens reserved for it, and the tokens it used."""

    id: str
    reserved: int
    used: int


class QuotaState(NamedTuple):
    """The quota of a key after a request. `refused`: the bound that it exceeded, "" if none; `wait`: seconds until it passes (0: unknown).

    `requests` and `tokens` are what remains, `reset_*` the seconds until that bucket is full again; 0 where there is no quota.
    """

    refused: Bound | Literal[""]
    wait: float
    requests: int
    reset_requests: float
    tokens: int
    reset_tokens: float


class Quotas:
    """Token buckets and leases, kept by one script."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(self, key: KeyRecord, request: str, *, tokens: int, leased: bool, lease_seconds: float) -> QuotaState:
        """Charge `tokens` to the key if `request` (an id that the caller mints) may start. Return the state of the quota.

        `leased`: the request counts as running until `end`, or for `lease_seconds` unless `keep` renews it. Raises StoreUnavailable:
        the request may have been charged.
        """
        call = _call(key, lease_seconds, id=request, tokens=min(tokens, key.tpm or tokens), leased=leased)
        refused, wait, requests, reset_requests, remaining, reset_tokens = await self._link.run(call.script, **call.args)
        return QuotaState(refused.decode(), wait / 1000, requests, reset_requests / 1000, remaining, reset_tokens / 1000)

    async def end(self, key: KeyRecord, ended: Sequence[Ended], *, lease_seconds: float) -> None:
        """End leases and settle their tokens. A lease that has already ended changes nothing. Raises StoreUnavailable."""
        call = _call(key, lease_seconds, done=[tuple(item) for item in ended])
        await self._link.run(call.script, **call.args)

    async def keep(self, running: Sequence[tuple[KeyRecord, Sequence[str]]], *, lease_seconds: float) -> None:
        """Renew the leases of running requests, given by key, in one round trip. Raises StoreUnavailable."""
        await self._link.run_all([_call(key, lease_seconds, keep=list(ids)) for key, ids in running])


def _call(key: KeyRecord, lease_seconds: float, **args: object) -> Call:
    bounds = {"key": key.id, "rpm": key.rpm, "tpm": key.tpm, "concurrency": key.concurrency}
    return Call("quota", {**bounds, "lease": round(lease_seconds * 1000), **args})
