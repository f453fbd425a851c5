"""Feedback: counted once, joined to its interactions, in a ledger that balances at every moment."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ratchet import names
from ratchet.buffer import schema
from ratchet.buffer.link import Link
from ratchet.errors import TargetNotYours
from ratchet.types import FeedbackPost, Ledger


class Feedback:
    """All feedback. docs/store.md draws its states."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def post(self, post: FeedbackPost) -> str:
        """Store feedback durably. Return its id.

        The same idempotency key of a tenant gives the same id and counts nothing. Raises TargetNotYours, TooManyParked and
        StoreUnavailable. After the last it may or may not have been counted: post again with the same idempotency key.
        """
        answer = await self._link.run(
            "post",
            fb=names.mint("fb_"),
            tenant=post.tenant,
            target=post.target,
            choice=str(post.choice),
            metric=post.metric,
            type=post.type,
            value=msgspec.json.encode(post.value).decode(),
            score=_score(post.value),
            idem=post.idempotency_key,
            metadata=msgspec.json.encode(post.metadata).decode(),
            key_id=post.key_id,
        )
        return str(answer.decode())

    async def ledger(self) -> Ledger:
        """Return the counts of all feedback at one moment."""
        found = {name.decode(): int(n) for name, n in (await self._link.do("HGETALL", schema.LEDGER)).items()}
        rejected = {name.removeprefix("rejected:"): n for name, n in found.items() if name.startswith("rejected:") and n}
        return Ledger(
            received=found.get("received", 0),
            used=found.get("used", 0),
            pending=found.get("pending", 0),
            rejected=rejected,
            expired=found.get("expired", 0),
        )

    async def expire(self, limit: int = 1000) -> int:
        """Expire at most `limit` rewards whose time is over. Return how many."""
        return int(await self._link.run("expire", limit=limit))

    async def record(self, fb: str) -> dict[str, Any] | None:
        """Return one feedback, or None. `state` is pending, waiting, leased, used, rejected or expired."""
        found = {name.decode(): value.decode() for name, value in (await self._link.do("HGETALL", schema.feedback(fb))).items()}
        if not found:
            return None
        found["parked"] = found["parked"] == "1"
        found["choice"] = int(found["choice"])
        for field in ("created", "due"):
            found[field] = int(found[field]) / 1000
        for field in ("value", "metadata"):
            found[field] = msgspec.json.decode(found[field])
        return {"id": fb, **found}

    async def answered(self, target: str, tenant: str) -> tuple[str, int | None] | None:
        """Return the policy that answered `target` and the number of choices (None: an episode, which has no choices of its own).

        None if the target is unknown. Raises TargetNotYours.
        """
        row, named = await self._link.together(
            ("HMGET", schema.meta(target), "tenant", "policy", "n"), ("HGET", schema.episode(tenant, target), "policy")
        )
        if row[0] is not None and row[0].decode() != tenant:
            raise TargetNotYours("the target belongs to another tenant")
        if row[1] is not None:
            return row[1].decode(), int(row[2])
        return (named.decode(), None) if named is not None else None


def _score(value: Any) -> str:
    """Return a number's exact text, or "" if the value is not a finite number."""
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return repr(float(value))
    return ""
