"""The learner's live status of a policy, read by the admin API and `ratchet train --follow`."""

from __future__ import annotations

import logging
from typing import Any, Literal

from learner.loop.ownership import Ownership
from ratchet import clock
from ratchet.buffer import Store
from ratchet.errors import StoreError
from ratchet.types import PolicyRecord, PolicyVersionRecord

log = logging.getLogger(__name__)

Phase = Literal["waiting", "sampling", "updating", "gating", "publishing"]
HISTORY = 200
"""Number of versions in the history, the newest ones."""
EVERY_SECONDS = 0.5
"""Seconds between two writes of a phase's progress."""


class Status:
    """The status of one policy, written as a whole by the learner that holds it. If the store is unavailable a write is lost, never
    the step."""

    def __init__(self, policy: str, store: Store, ownership: Ownership) -> None:
        self._policy = policy
        self._store = store
        self._ownership = ownership
        self._written = 0.0
        self.fields: dict[str, Any] = {"phase": "waiting", "skipped": {}, "why": "", "learner": ownership.owner}

    async def phase(self, phase: Phase, **fields: Any) -> None:
        """Enter a phase."""
        self.fields |= {"phase": phase, **fields}
        await self.write()

    async def progress(self, **fields: Any) -> None:
        """Update numbers within a phase. Written at intervals."""
        self.fields |= fields
        if clock.monotonic() - self._written >= EVERY_SECONDS:
            await self.write()

    def skip(self, reason: str) -> None:
        """Count an example that was set aside, or a shadow group that could not be created, by reason."""
        skipped = self.fields["skipped"]
        skipped[reason] = skipped.get(reason, 0) + 1

    async def registered(self, record: PolicyRecord) -> None:
        """Update the status from the registry: pointer, history, refusals. Raises StoreUnavailable."""
        versions = [v for v in await self._store.registry.versions(record.name) if v.version > 0]
        self.fields |= {
            "step": record.step,
            "version": record.next_version - 1,
            "live": record.live,
            "refused": sum(v.state == "refused" for v in versions),
            "history": [line(v) for v in versions[-HISTORY:]],
        }

    async def write(self) -> None:
        """Write the status, unless another learner holds the policy."""
        if not self._ownership.held:
            return
        self._written = clock.monotonic()
        self.fields["updated"] = clock.wall()
        try:
            await self._store.registry.set_status(self._policy, self.fields)
        except StoreError as error:
            log.warning("%s: its status was not written: %s", self._policy, error)


def line(version: PolicyVersionRecord) -> dict[str, Any]:
    """Return the entry of a version in the history."""
    verdict = version.verdict
    return {
        "version": version.version,
        "reward": version.reward,
        "kl": verdict.get("kl", version.kl),
        "heldout": (verdict.get("heldout") or {}).get("candidate"),
        "state": version.state,
        "seconds": verdict.get("seconds"),
    }
