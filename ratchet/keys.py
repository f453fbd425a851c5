"""Keys: how one is made, what is stored of it, and what it may be given."""

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
MOST = 10**9
"""The largest quota: far past what any gateway serves, and exact in the store's arithmetic."""
LONGEST_NOTE = 200
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
Quota = Annotated[int, Meta(ge=1, le=MOST)]


class KeySpec(msgspec.Struct, forbid_unknown_fields=True):
    """A key to be made; the fields are KeyRecord's. What the types do not say, `fault` does."""

    tenant: str
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=4)]
    note: Annotated[str, Meta(max_length=LONGEST_NOTE)] = ""
    models: Annotated[list[str], Meta(min_length=1, max_length=64)] | None = None
    rpm: Quota | None = None
    tpm: Quota | None = None
    concurrency: Annotated[int, Meta(ge=1, le=100_000)] | None = None

    def fault(self) -> tuple[str, str] | None:
        """The field that is wrong and what it must be; None if all is well."""
        if not names.is_name(self.tenant):
            return "tenant", "1-63 of a-z 0-9 . _ - and starts with a letter or digit"
        if any(not names.is_name(name) and names.parse_version(name) is None for name in self.models or ()):
            return "models", "names of bases, policies or versions, as `support` or `support@7`"
        if CONTROL.search(self.note):
            return "note", "a text of one line"
        return None

    def issue(self) -> tuple[str, str, KeyRecord]:
        """A fresh key, its sha256, and what is stored under that."""
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
    """A fresh key: 256 random bits."""
    return "rk-" + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """The sha256 (hex) of a key as it came in a header (latin-1): what the store knows it by."""
    return hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()


def public_id(stored: str) -> str:
    """The id of the key whose sha256 is `stored`."""
    return f"key_{stored[:16]}"
