"""Quotas of API keys, counted over all gateways. A key's state expires once its buckets are full again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ratchet.buffer.link import Call, Link
from ratchet.types import KeyRecord

Bound = Literal["requests", "tokens", "concurrency"]


class Ended(NamedTuple):
    """A request that ended: the tokens that were reserved for it, and those it used."""

    id: str
    reserved: int
    used: int


class QuotaState(NamedTuple):
    """What a key may still use.

    `refused` is the bound that stopped the request ("": none) and `wait` the seconds until it would pass (0: unknown). `requests`
    and `tokens` remain in the buckets, and `reset_*` are the seconds until a bucket is full again; 0 where there is no quota.
    """

    refused: Bound | Literal[""]
    wait: float
    requests: int
    reset_requests: float
    tokens: int
    reset_tokens: float


class Quotas:
    """Token buckets, and leases of running requests."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def ask(self, key: KeyRecord, request: str, *, tokens: int, leased: bool, lease_seconds: float) -> QuotaState:
        """Charge the key for `request` (an id that the caller chose) and `tokens`, if it may start.

        If `leased`, the request counts as running until `end`, but for `lease_seconds` at most unless it is kept. Raises
        StoreUnavailable: the key may or may not have been charged.
        """
        call = _call(key, lease_seconds, id=request, tokens=min(tokens, key.tpm or tokens), leased=leased)
        refused, wait, requests, reset_requests, remaining, reset_tokens = await self._link.run(call.script, **call.args)
        return QuotaState(refused.decode(), wait / 1000, requests, reset_requests / 1000, remaining, reset_tokens / 1000)

    async def end(self, key: KeyRecord, ended: Sequence[Ended], *, lease_seconds: float) -> None:
        """End leases and settle their tokens. A lease that has ended already changes nothing. Raises StoreUnavailable."""
        call = _call(key, lease_seconds, done=[tuple(item) for item in ended])
        await self._link.run(call.script, **call.args)

    async def keep(self, running: Sequence[tuple[KeyRecord, Sequence[str]]], *, lease_seconds: float) -> None:
        """Renew the leases of running requests, by key, in one round trip. Raises StoreUnavailable."""
        await self._link.run_all([_call(key, lease_seconds, keep=list(ids)) for key, ids in running])


def _call(key: KeyRecord, lease_seconds: float, **args: object) -> Call:
    bounds = {"key": key.id, "rpm": key.rpm, "tpm": key.tpm, "concurrency": key.concurrency}
    return Call("quota", {**bounds, "lease": round(lease_seconds * 1000), **args})
