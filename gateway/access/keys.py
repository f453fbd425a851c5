"""Authentication: a bearer key, looked up in the store by its sha256, with a small cache."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import NamedTuple

from starlette.types import Scope

from gateway.errors import ApiError, store_away
from ratchet import keys, names
from ratchet.buffer.directory import Keys
from ratchet.clock import monotonic
from ratchet.errors import StoreError, StoreUnavailable
from ratchet.tasks import end
from ratchet.types import KeyRecord

KNOWN_SECONDS = 5.0
"""Seconds a known key is served from the cache: how long a revoked key may still be accepted."""
UNKNOWN_SECONDS = 1.0
"""Seconds an unknown key is refused from the cache: how long a new key may have to wait."""
STALE_SECONDS = 600.0
"""Seconds a known key is accepted while the store is unavailable."""
ASK_SECONDS = 0.1
"""Seconds a request with a known key waits for the store to renew it; after that the renewal goes on in the background."""
PAUSE_SECONDS = 1.0
"""Seconds without renewals of known keys after the store did not answer."""
REMEMBERED = 4096
LONGEST_KEY = 512

log = logging.getLogger(__name__)


class _Lookup(NamedTuple):
    """What the store answered for a key (None: unknown), and when, on the monotonic clock."""

    record: KeyRecord | None
    at: float


class _Renewal(NamedTuple):
    """A lookup in progress of a key that is already known."""

    task: asyncio.Task[KeyRecord | None]
    until: float
    """When requests stop waiting for it, on the monotonic clock."""


class KeyRing:
    """Finds the key record of a request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._known: OrderedDict[str, _Lookup] = OrderedDict()
        self._renewals: dict[str, _Renewal] = {}
        self._paused_until = 0.0

    async def caller(self, scope: Scope, *, x_api_key: bool = False) -> KeyRecord:
        """Return the record of the request's key. Raises ApiError 401 if it has none or an unknown one, 503 if the store is unavailable.

        `x_api_key`: whether the header `x-api-key` is accepted too.
        """
        key = _bearer(scope) or (_only(scope, b"x-api-key") if x_api_key else None)
        if not key:
            raise _unauthorized("No API key given. Send it as `Authorization: Bearer KEY`.")
        record = await self._find(key) if len(key) <= LONGEST_KEY else None
        if record is None:
            raise _unauthorized("The API key is not valid.")
        return record

    async def _find(self, key: str) -> KeyRecord | None:
        digest = keys.digest(key)
        last, now = self._known.get(digest), monotonic()
        if last is not None and now - last.at < (KNOWN_SECONDS if last.record is not None else UNKNOWN_SECONDS):
            return last.record
        if last is not None and last.record is not None and now - last.at < STALE_SECONDS:
            return await self._renewed(digest, last.record, now)
        try:
            return await self._ask(digest)
        except StoreUnavailable:
            raise store_away() from None

    async def _renewed(self, digest: str, known: KeyRecord, now: float) -> KeyRecord | None:
        """Look a known key up again, so that a revoked one is refused. Returns the known record if the store is slow or unavailable."""
        renewal = self._renewals.get(digest)
        if renewal is None:
            if now < self._paused_until:
                return known
            renewal = self._renewals[digest] = _Renewal(asyncio.create_task(self._renew(digest, known)), now + ASK_SECONDS)
        remaining = renewal.until - now
        if remaining > 0:
            await asyncio.wait({renewal.task}, timeout=remaining)
        return renewal.task.result() if renewal.task.done() else known

    async def _renew(self, digest: str, known: KeyRecord) -> KeyRecord | None:
        try:
            return await self._ask(digest)
        except StoreError as error:
            if not isinstance(error, StoreUnavailable):
                log.error("a key could not be looked up: %s", error)
            self._paused_until = monotonic() + PAUSE_SECONDS
            return known
        finally:
            del self._renewals[digest]

    async def _ask(self, digest: str) -> KeyRecord | None:
        record = await self._keys.find(digest)
        self._known[digest] = _Lookup(record, monotonic())
        self._known.move_to_end(digest)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return record

    def forget(self, key_id: str) -> None:
        """Drop a key that was revoked here from the cache. Other gateways notice within KNOWN_SECONDS."""
        for digest in [digest for digest, last in self._known.items() if last.record is not None and last.record.id == key_id]:
            del self._known[digest]

    async def close(self) -> None:
        """Cancel the renewals in progress."""
        await end([renewal.task for renewal in self._renewals.values()])


def require(caller: KeyRecord, scopes: frozenset[str]) -> None:
    """Raise ApiError 403 unless the caller has one of `scopes`."""
    if not scopes.intersection(caller.scopes):
        wanted = " or ".join(sorted(scopes))
        raise ApiError(403, f"This key lacks the scope {wanted}.", code="insufficient_permissions")


def may_use(caller: KeyRecord, model: str) -> bool:
    """Whether the key may use `model`, as a client writes it."""
    if caller.models is None or model in caller.models:
        return True
    pinned = names.parse_version(model)
    return pinned is not None and pinned.policy in caller.models


def _bearer(scope: Scope) -> str | None:
    scheme, _, key = (_only(scope, b"authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _only(scope: Scope, name: bytes) -> str | None:
    """The header of that name. Raises ApiError 401 if it comes twice: a proxy may have checked the other one."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise _unauthorized(f"The header {name.decode()} was sent more than once.")
    return str(found[0].decode("latin-1")) if found else None


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key")
