"""API keys: how a key is created, what the store keeps of it, and which limits it can have."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ratchet import names
from ratchet.clock import wall
from ratchet.types import KeyRecord

Scope = Literal["infer", "feedback", "operator", "metrics"]
LARGEST_QUOTA = 10**9
"""The largest quota. It is far above what a gateway can serve, and the store's arithmetic is exact up to it."""
LONGEST_NOTE = 200
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
Quota = Annotated[int, Meta(ge=1, le=LARGEST_QUOTA)]


class KeySpec(msgspec.Struct, forbid_unknown_fields=True):
    """A key to create: its tenant, its scopes and its limits."""

    tenant: str
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=4)]
    note: Annotated[str, Meta(max_length=LONGEST_NOTE)] = ""
    models: Annotated[list[str], Meta(min_length=1, max_length=64)] | None = None
    rpm: Quota | None = None
    tpm: Quota | None = None
    concurrency: Annotated[int, Meta(ge=1, le=100_000)] | None = None

    def fault(self) -> tuple[str, str] | None:
        """Check what the types do not. Return the invalid field and what it must be, or None if all fields are valid."""
        if not names.is_name(self.tenant):
            return "tenant", "1-63 of a-z 0-9 . _ - and starts with a letter or digit"
        if any(not names.is_name(name) and names.parse_version(name) is None for name in self.models or ()):
            return "models", "names of bases, policies or versions, as `support` or `support@7`"
        if CONTROL.search(self.note):
            return "note", "a text of one line"
        return None

    def issue(self) -> tuple[str, str, KeyRecord]:
        """Create a key. Return the key, its SHA-256, and the record that is stored under that SHA-256."""
        key = mint()
        stored = digest(key)
        record = KeyRecord(
            id=public_id(stored),
            tenant=self.tenant,
            scopes=list(dict.fromkeys(self.scopes)),
            created=wall(),
            note=self.note,
            models=None if self.models is None else list(dict.fromkeys(self.models)),
            rpm=self.rpm,
            tpm=self.tpm,
            concurrency=self.concurrency,
        )
        return key, stored, record


def mint() -> str:
    """Return a new key: 256 random bits."""
    return "rk-" + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """Return the SHA-256 (hex) of a key as it came in a header (latin-1). The store finds a key by it."""
    return hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()


def public_id(stored: str) -> str:
    """Return the id of the key whose SHA-256 is `stored`."""
    return f"key_{stored[:16]}"
