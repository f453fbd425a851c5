"""Who calls: a bearer key, looked up by its sha256, with a small memory of the last answers."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import NamedTuple

from starlette.types import Scope

from gateway.errors import ApiError, store_away
from gateway.http import header
from ratchet.buffer.directory import Keys
from ratchet.clock import monotonic
from ratchet.errors import StoreUnavailable
from ratchet.types import KeyRecord

KNOWN_SECONDS = 5.0
"""Seconds a key is believed without asking again: how long a revoked one may still pass."""
UNKNOWN_SECONDS = 1.0
STALE_SECONDS = 600.0
"""Seconds a known key passes while the store cannot be asked."""
REMEMBERED = 4096
LONGEST_KEY = 512


class _Seen(NamedTuple):
    record: KeyRecord | None
    at: float


class KeyRing:
    """Finds the caller of a request."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    async def caller(self, scope: Scope, *, x_api_key: bool = False) -> KeyRecord:
        """Whose key the request carries. ApiError 401 if none or an unknown one, 503 if the store cannot tell."""
        key = _bearer(scope) or (header(scope, b"x-api-key") if x_api_key else None)
        if not key:
            raise _unauthorized("No API key given. Send it as `Authorization: Bearer KEY`.")
        record = await self._find(key) if len(key) <= LONGEST_KEY else None
        if record is None:
            raise _unauthorized("The API key is not valid.")
        return record

    async def _find(self, key: str) -> KeyRecord | None:
        digest = hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()
        seen, now = self._seen.get(digest), monotonic()
        if seen is not None and now - seen.at < (KNOWN_SECONDS if seen.record is not None else UNKNOWN_SECONDS):
            return seen.record
        try:
            record = await self._keys.find(digest)
        except StoreUnavailable:
            if seen is None or seen.record is None or now - seen.at > STALE_SECONDS:
                raise store_away() from None
            return seen.record
        self._seen[digest] = _Seen(record, monotonic())
        self._seen.move_to_end(digest)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return record


def require(caller: KeyRecord, scopes: frozenset[str]) -> None:
    """ApiError 403 unless the caller has one of `scopes`."""
    if not scopes.intersection(caller.scopes):
        wanted = " or ".join(sorted(scopes))
        raise ApiError(403, f"This key lacks the scope {wanted}.", code="insufficient_permissions")


def _bearer(scope: Scope) -> str | None:
    scheme, _, key = (header(scope, b"authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key")
