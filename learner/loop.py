"""The loop of one policy: lease -> update -> checkpoint -> adapter -> commit -> gate -> publish. docs/learner.md walks through it.

Every cycle begins by reading the state from the store. So after a crash, a store outage or the death of an engine the loop resumes
in the same way: there is no other state to restore.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from learner.gate.gate import Gate, Verdict
from learner.leasing import Leasing, Lesson
from learner.policy.trainer import Abandoned, Trainer
from learner.publication import lineage, publish
from learner.publication.publish import Retirement
from learner.publication.replicas import Replicas
from learner.shadow.shadow import BUSY_SECONDS, Shadow
from learner.status import Status
from learner.update import StepReport
from ratchet import adapters, clock, failpoints
from ratchet.adapters import ArtifactStore
from ratchet.backoff import Backoff
from ratchet.buffer import Store
from ratchet.config.model import PolicyConfig
from ratchet.errors import Conflict, EngineError, GateRefused, RatchetError, StoreUnavailable
from ratchet.tasks import end
from ratchet.types import Example, PolicyRecord, PolicyVersionRecord

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
"""Seconds between two checks whether enough examples are ready."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two cycles that fail."""
KEPT = frozenset({"live", "retired", "rolled_back", "candidate"})
"""States of versions whose checkpoints are kept: an operator may return to any that was live."""


@dataclass
class Parts:
    """The parts that a policy's loop uses."""

    store: Store
    replicas: Replicas
    trainer: Trainer
    leasing: Leasing
    gate: Gate
    shadow: Shadow
    retirement: Retirement
    status: Status


class PolicyLoop:
    """Trains and publishes one policy, for ever."""

    def __init__(self, name: str, config: PolicyConfig, artifacts: ArtifactStore, parts: Parts) -> None:
        self.name = name
        self.config = config
        self._artifacts = artifacts
        self._parts = parts
        self._store = parts.store
        self._trainer = parts.trainer
        self._leasing = parts.leasing
        self._status = parts.status
        self._notes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run cycles until cancelled. Ratchet's own errors (store or engine unavailable, no model, a lost compare-and-set) are shown
        in the status and the cycle is tried again, so that they do not affect other policies."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        await self._parts.retirement.begin()
        while True:
            try:
                worked = await self.cycle()
                backoff.reset()
                if not worked:
                    await asyncio.sleep(POLL_SECONDS)
            except Abandoned:
                raise
            except RatchetError as error:
                log.warning("%s: %s", self.name, error)
                await self._status.phase(self._status.fields["phase"], why=str(error))
                await asyncio.sleep(backoff.pause())

    async def stop(self) -> None:
        """End the background tasks."""
        await self._parts.retirement.stop()
        await end(self._notes)

    async def run_shadow(self) -> None:
        """Create shadow groups until cancelled, if the policy uses them."""
        while self._parts.shadow.enabled:
            added = 0
            try:
                added = await self._parts.shadow.once()
            except (StoreUnavailable, EngineError) as error:
                log.info("%s: no shadow groups now: %s", self.name, error)
            if added == 0:
                await asyncio.sleep(BUSY_SECONDS)

    async def cycle(self) -> bool:
        """Gate the candidate that waits; else train a step if enough examples are ready. Return whether there was anything to do."""
        record = await self._store.registry.ensure(self.name, self.config.base)
        candidate = await self._undecided(record)
        if candidate is None:
            await self._sweep()
            lesson = await self._leasing.next(record)
            if lesson is None:
                await self._waiting(record)
                return False
            candidate = await self._step(record, lesson)
            if candidate is None:
                return True
        await self._decide(candidate)
        return True

    # Waiting and leasing

    async def _undecided(self, record: PolicyRecord) -> PolicyVersionRecord | None:
        """Return the candidate that was committed but neither published nor refused, or None."""
        last = await self._store.registry.version(self.name, record.next_version - 1)
        return last if last is not None and last.state == "candidate" else None

    async def _waiting(self, record: PolicyRecord) -> None:
        phase = "sampling" if self._parts.shadow.active else "waiting"
        if self._status.fields.get("live") != record.live or self._status.fields["phase"] not in (phase, "waiting", "sampling"):
            await self._status.registered(record)
            await self._status.phase("waiting", why="")
        await self._status.progress(phase=phase, groups=await self._leasing.ready())

    async def _sweep(self) -> None:
        keep = {v.checkpoint for v in await self._store.registry.versions(self.name) if v.state in KEPT and v.checkpoint}
        deleted = await self._trainer.sweep(keep)
        if deleted:
            log.info("%s: deleted %d checkpoints that no committed version needs", self.name, len(deleted))

    # One step

    async def _step(self, record: PolicyRecord, lesson: Lesson) -> PolicyVersionRecord | None:
        """Learn from the lease and commit. None if the live pointer moved meanwhile; the lease is kept and learned from again."""
        failpoints.hit("learner.after_lease")
        live = await self._store.registry.version(self.name, record.live)
        if live is None:
            raise Conflict(f"{self.name}@{record.live} is live and not in the registry")
        await self._status.registered(record)
        await self._status.phase("updating", groups=len(lesson.examples), why="", done=0, total=0)
        await self._trainer.at(live)
        candidate = await self._learn(record, lesson)
        now = await self._store.registry.policy(self.name)
        if now is None or now.live != record.live:
            log.info("%s: the live version changed during the update; learning again from it", self.name)
            return None
        failpoints.hit("learner.before_commit")
        await self._store.registry.commit_step(self.name, lesson.step, candidate, rejected=lesson.aside)
        self._leasing.set_aside(lesson.aside)
        failpoints.hit("learner.after_commit")
        return candidate

    async def _learn(self, record: PolicyRecord, lesson: Lesson) -> PolicyVersionRecord:
        """Train the live version on the lease. Return the candidate, with its checkpoint and adapter on disk."""
        candidate = PolicyVersionRecord(
            self.name, record.next_version, "candidate", clock.wall(), parent=record.live, step=lesson.step, verdict={"failed": None}
        )
        try:
            report = await self._trainer.update(lesson.examples, self._progress())
        except GateRefused as error:
            # Committed without an adapter, so that the gate refuses it and its rewards are rejected instead of retried for ever.
            candidate.consumed = [example.id for example in lesson.examples]
            candidate.verdict = {"failed": error.why}
            return candidate
        failpoints.hit("learner.after_update")
        await self._status.progress(reward=lesson.reward, **_numbers(report))
        candidate.consumed = report.learned
        candidate.reward, candidate.kl = lesson.reward, report.kl
        candidate.verdict = {"failed": None, "grad_norm": report.grad_norm, "seconds": report.seconds}
        candidate.checkpoint = await self._trainer.save(lesson.step, candidate.version)
        failpoints.hit("learner.after_checkpoint")
        candidate.path, candidate.digest = await self._write(lesson.examples, candidate)
        failpoints.hit("learner.after_adapter")
        return candidate

    async def _write(self, learned: list[Example], candidate: PolicyVersionRecord) -> tuple[str, str]:
        fields = lineage.manifest_fields(
            self.name,
            self.config,
            learned,
            version=candidate.version,
            parent=candidate.parent or 0,
            step=candidate.step,
            base_digest=await self._trainer.base_digest(),
            consumed=candidate.consumed,
        )
        files = await self._trainer.adapter_files()
        folder, digest = await asyncio.to_thread(adapters.write, self._artifacts, fields, files)
        return folder.relative_to(self._artifacts.data).as_posix(), digest

    def _progress(self) -> Any:
        """Report progress. Called in the worker thread; the status is updated in the event loop."""
        loop = asyncio.get_running_loop()

        def note(done: int, total: int) -> None:
            failpoints.hit("learner.during_update")
            loop.call_soon_threadsafe(self._note, done, total)

        return note

    def _note(self, done: int, total: int) -> None:
        task = asyncio.get_running_loop().create_task(self._status.progress(done=done, total=total))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    # The decision

    async def _decide(self, candidate: PolicyVersionRecord) -> None:
        """Publish the candidate or refuse it."""
        verdict = Verdict(candidate.verdict.get("grad_norm"), candidate.verdict.get("seconds") or 0.0)
        await self._status.phase("gating", version=candidate.version, why="")
        try:
            await self._still_parent(candidate)
            if candidate.checkpoint:
                await self._at_candidate(candidate)
            await self._parts.gate.examine(candidate, verdict)
            await self._publish(candidate, verdict)
        except GateRefused as error:
            verdict.refusal = error
            await self._refuse(candidate, verdict, error)

    async def _still_parent(self, candidate: PolicyVersionRecord) -> None:
        record = await self._store.registry.policy(self.name)
        if record is None or record.live != candidate.parent:
            raise GateRefused("pointer", f"the live version is no longer @{candidate.parent}, which the candidate learned from")

    async def _at_candidate(self, candidate: PolicyVersionRecord) -> None:
        try:
            await self._trainer.at(candidate)
        except RatchetError as error:
            if isinstance(error, StoreUnavailable):
                raise
            raise GateRefused("sanity", str(error)) from error

    async def _publish(self, candidate: PolicyVersionRecord, verdict: Verdict) -> None:
        await self._status.phase("publishing")
        failpoints.hit("learner.before_publish")
        try:
            record = await self._store.registry.publish(
                self.name, candidate.version, expect_live=candidate.parent or 0, verdict=verdict.report(clock.wall())
            )
        except Conflict as error:
            raise GateRefused("pointer", str(error)) from error
        failpoints.hit("learner.after_publish")
        log.info("%s@%d is live", self.name, candidate.version)
        await self._parts.retirement.begin()
        await self._settled(record, "")

    async def _refuse(self, candidate: PolicyVersionRecord, verdict: Verdict, error: GateRefused) -> None:
        log.warning("%s@%d is refused: %s", self.name, candidate.version, error)
        await publish.unload(await self._parts.replicas.ready(self.config.base), self.name, candidate.version)
        failpoints.hit("learner.before_refuse")
        await self._store.registry.refuse(self.name, candidate.version, gate=error.gate, verdict=verdict.report())
        failpoints.hit("learner.after_refuse")
        record = await self._store.registry.ensure(self.name, self.config.base)
        live = await self._store.registry.version(self.name, record.live)
        if live is not None:
            await self._trainer.at(live)
        await self._settled(record, str(error))

    async def _settled(self, record: PolicyRecord, why: str) -> None:
        await self._status.registered(record)
        await self._status.phase("waiting", why=why)


def _numbers(report: StepReport) -> dict[str, Any]:
    """A step's figures as the status shows them."""
    return {
        "kl": report.kl,
        "loss": report.loss,
        "grad_norm": report.grad_norm,
        "tokens_per_s": report.tokens / report.seconds if report.seconds > 0 else 0.0,
    }
