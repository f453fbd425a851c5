"""Find out who sends a request, by its API key."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import NamedTuple

from starlette.types import Scope

from gateway.errors import ApiError, store_unavailable
from ratchet import keys, names
from ratchet.buffer.directory import Keys
from ratchet.clock import monotonic
from ratchet.errors import StoreError, StoreUnavailable
from ratchet.tasks import end
from ratchet.types import KeyRecord

FRESH_SECONDS = 5.0
"""Seconds that a cached key is used without a look-up, and so how long a revoked one may still pass."""
UNKNOWN_SECONDS = 1.0
"""The same for a key that does not exist."""
STALE_SECONDS = 600.0
"""Seconds that a cached key passes while the store cannot be asked."""
LOOKUP_SECONDS = 0.1
"""Seconds that a request with a cached key waits for the look-up, which then goes on in the background."""
PAUSE_SECONDS = 1.0
"""Seconds without look-ups of cached keys after the store did not answer one."""
MAX_CACHED = 4096
LONGEST_KEY = 512

log = logging.getLogger(__name__)


class _Cached(NamedTuple):
    record: KeyRecord | None
    at: float


class _Lookup(NamedTuple):
    task: asyncio.Task[KeyRecord | None]
    until: float
    """When requests stop waiting for it."""


class KeyRing:
    """Looks keys up in the store, and caches them by their hashes."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._lookups: dict[str, _Lookup] = {}
        self._paused_until = 0.0

    async def caller(self, scope: Scope, *, x_api_key: bool = False) -> KeyRecord:
        """Return the key that a request carries. ApiError 401 if it has none, or one that does not exist; 503 if the store cannot say."""
        key = _bearer(scope) or (_only(scope, b"x-api-key") if x_api_key else None)
        if not key:
            raise _unauthorized("No API key given. Send it as `Authorization: Bearer KEY`.")
        record = await self._find(key) if len(key) <= LONGEST_KEY else None
        if record is None:
            raise _unauthorized("The API key is not valid.")
        return record

    async def _find(self, key: str) -> KeyRecord | None:
        digest = keys.digest(key)
        cached, now = self._cache.get(digest), monotonic()
        if cached is not None and now - cached.at < (FRESH_SECONDS if cached.record is not None else UNKNOWN_SECONDS):
            return cached.record
        if cached is not None and cached.record is not None and now - cached.at < STALE_SECONDS:
            return await self._refreshed(digest, cached.record, now)
        try:
            return await self._look_up(digest)
        except StoreUnavailable:
            raise store_unavailable() from None

    async def _refreshed(self, digest: str, cached: KeyRecord, now: float) -> KeyRecord | None:
        """The record as the store has it now, so that a revoked key ends; the cached one if the store takes too long."""
        lookup = self._lookups.get(digest)
        if lookup is None:
            if now < self._paused_until:
                return cached
            lookup = self._lookups[digest] = _Lookup(asyncio.create_task(self._refresh(digest, cached)), now + LOOKUP_SECONDS)
        remaining = lookup.until - now
        if remaining > 0:
            await asyncio.wait({lookup.task}, timeout=remaining)
        return lookup.task.result() if lookup.task.done() else cached

    async def _refresh(self, digest: str, cached: KeyRecord) -> KeyRecord | None:
        try:
            return await self._look_up(digest)
        except StoreError as error:
            if not isinstance(error, StoreUnavailable):
                log.error("a key could not be looked up: %s", error)
            self._paused_until = monotonic() + PAUSE_SECONDS
            return cached
        finally:
            del self._lookups[digest]

    async def _look_up(self, digest: str) -> KeyRecord | None:
        record = await self._keys.find(digest)
        self._cache[digest] = _Cached(record, monotonic())
        self._cache.move_to_end(digest)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return record

    def forget(self, key_id: str) -> None:
        """Drop a key from the cache: it was revoked here, so that this gateway need not wait for FRESH_SECONDS as others do."""
        for digest in [digest for digest, cached in self._cache.items() if cached.record is not None and cached.record.id == key_id]:
            del self._cache[digest]

    async def close(self) -> None:
        """End the look-ups under way."""
        await end([lookup.task for lookup in self._lookups.values()])


def require(caller: KeyRecord, scopes: frozenset[str]) -> None:
    """ApiError 403 unless the caller has one of `scopes`."""
    if not scopes.intersection(caller.scopes):
        wanted = " or ".join(sorted(scopes))
        raise ApiError(403, f"This key lacks the scope {wanted}.", code="insufficient_permissions")


def may_use(caller: KeyRecord, model: str) -> bool:
    """Whether the key may be used for `model`, as a client writes it."""
    if caller.models is None or model in caller.models:
        return True
    pinned = names.parse_version(model)
    return pinned is not None and pinned.policy in caller.models


def _bearer(scope: Scope) -> str | None:
    scheme, _, key = (_only(scope, b"authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _only(scope: Scope, name: bytes) -> str | None:
    """The header of that name. ApiError 401 if it was sent twice, since a proxy in front may have checked the other one."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        raise _unauthorized(f"The header {name.decode()} was sent more than once.")
    return str(found[0].decode("latin-1")) if found else None


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key")
