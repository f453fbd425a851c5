"""The loop of one policy: lease -> update -> checkpoint -> adapter -> commit -> gate -> publish. docs/learner.md walks through it.

Every cycle begins by reading the state from the store. So after a crash, a store outage or the death of an engine the loop resumes
in the same way: there is no other state to restore.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from learner.loop.candidate import Candidates
from learner.loop.decision import Decision
from learner.loop.ownership import NotHeld
from learner.loop.parts import Parts
from learner.policy.trainer import Abandoned
from learner.shadow.shadow import BUSY_SECONDS
from ratchet.backoff import Backoff
from ratchet.errors import Conflict, EngineError, RatchetError, StoreUnavailable
from ratchet.types import PolicyRecord, PolicyVersionRecord

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""Seconds between two checks whether enough examples are ready."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two cycles that fail."""
KEPT = frozenset({"live", "retired", "rolled_back", "candidate"})
"""States of versions whose checkpoints are kept: an operator may return to any that was live."""


class PolicyLoop:
    """Trains one policy until it is cancelled."""

    def __init__(self, parts: Parts) -> None:
        self.name = parts.name
        self.parts = parts
        self.candidates = Candidates(parts)
        self.decision = Decision(parts)
        self._registry = parts.store.registry
        self._ownership = parts.ownership
        self._status = parts.status

    async def run(self) -> None:
        """Run cycle after cycle.

        Ratchet's own errors (store or engine unavailable, no model, a lost compare-and-set) are shown in the status and the cycle is
        tried again, so that they do not affect other policies.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                worked = await self.cycle()
                backoff.reset()
                if not worked:
                    await asyncio.sleep(POLL_SECONDS)
            except Abandoned:
                raise
            except RatchetError as error:
                await self._failed(error)
                await asyncio.sleep(backoff.pause())

    async def run_shadow(self) -> None:
        """Sample shadow groups until cancelled, if the policy takes any."""
        while self.parts.shadow.enabled:
            stored = 0
            try:
                stored = await self.parts.shadow.once() if self._ownership.held else 0
            except (StoreUnavailable, EngineError) as error:
                log.info("%s: no shadow groups now: %s", self.name, error)
            if stored == 0:
                await asyncio.sleep(BUSY_SECONDS)

    async def stop(self) -> None:
        """End what runs besides the cycles, and let another learner have the policy."""
        await self.parts.retirement.stop()
        await self.candidates.stop()
        await self._ownership.release()

    async def cycle(self) -> bool:
        """Decide on the candidate that waits, else make a step if there is enough to learn; whether there was anything to do."""
        if not await self._owned():
            return False
        record = await self._registry.ensure(self.name, self.parts.config.base)
        candidate = await self._undecided(record)
        if candidate is None:
            await self._sweep()
            lesson = await self.parts.leasing.next(record)
            if lesson is None:
                await self._waiting(record)
                return False
            candidate = await self.candidates.make(record, lesson)
        if candidate is not None:
            await self.decision.make(candidate)
        return True

    async def _owned(self) -> bool:
        """Whether this process is the policy's learner; when it becomes that, the unloading of old versions begins."""
        if self._ownership.held:
            return True
        owned = await self._ownership.acquire()
        if owned:
            await self.parts.retirement.begin()
        return owned

    async def _failed(self, error: RatchetError) -> None:
        log.warning("%s: %s", self.name, error)
        if isinstance(error, Conflict):
            with contextlib.suppress(NotHeld, StoreUnavailable):
                await self._ownership.confirm()
        if not self._ownership.held:
            await self.parts.retirement.stop()
        await self._status.phase(self._status.fields["phase"], why=str(error))

    async def _undecided(self, record: PolicyRecord) -> PolicyVersionRecord | None:
        """The candidate that was committed and neither published nor refused."""
        last = await self._registry.version(self.name, record.next_version - 1)
        return last if last is not None and last.state == "candidate" else None

    async def _waiting(self, record: PolicyRecord) -> None:
        phase = "sampling" if self.parts.shadow.active else "waiting"
        if self._status.fields.get("live") != record.live or self._status.fields["phase"] not in (phase, "waiting", "sampling"):
            await self._status.registered(record)
            await self._status.phase("waiting", why="")
        await self._status.progress(phase=phase, groups=await self.parts.leasing.ready())

    async def _sweep(self) -> None:
        keep = {v.checkpoint for v in await self._registry.versions(self.name) if v.state in KEPT and v.checkpoint}
        deleted = await self.parts.trainer.sweep(keep)
        if deleted:
            log.info("%s: deleted %d checkpoints that no committed version needs", self.name, len(deleted))
