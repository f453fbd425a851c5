"""A step: learn from a lesson, write what came of it to disk, and commit it as a candidate version."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from learner.loop.leasing import Lesson
from learner.loop.parts import Parts
from learner.publication import lineage
from learner.update import Progress, StepReport
from ratchet import adapters, clock, failpoints
from ratchet.errors import Conflict, GateRefused
from ratchet.tasks import end
from ratchet.types import Example, PolicyRecord, PolicyVersionRecord

log = logging.getLogger(__name__)


class Candidates:
    """Makes the candidates of one policy."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._name = parts.name
        self._registry = parts.store.registry
        self._trainer = parts.trainer
        self._notes: set[asyncio.Task[None]] = set()

    async def make(self, record: PolicyRecord, lesson: Lesson) -> PolicyVersionRecord | None:
        """Learn from the lesson and commit the candidate.

        None if the live version changed meanwhile: the lease stays, to be learned from again. NotHeld: another learner took over.
        """
        failpoints.hit("learner.after_lease")
        live = await self._registry.version(self._name, record.live)
        if live is None:
            raise Conflict(f"{self._name}@{record.live} is live and not in the registry")
        await self._parts.status.registered(record)
        await self._parts.status.phase("updating", groups=len(lesson.examples), why="", done=0, total=0)
        await self._trainer.at(live)
        candidate = await self._learn(record, lesson)
        now = await self._registry.policy(self._name)
        if now is None or now.live != record.live:
            log.info("%s: the live version changed during the update; learning again from it", self._name)
            return None
        await self._commit(candidate, lesson)
        return candidate

    async def stop(self) -> None:
        """End the status writes that are under way."""
        await end(self._notes)

    async def _learn(self, record: PolicyRecord, lesson: Lesson) -> PolicyVersionRecord:
        """The candidate that the lesson makes of the live version; all it needs is on disk."""
        candidate = PolicyVersionRecord(
            self._name, record.next_version, "candidate", clock.wall(), parent=record.live, step=lesson.step, verdict={"failed": None}
        )
        try:
            report = await self._trainer.update(lesson.examples, self._progress())
        except GateRefused as error:
            # Committed all the same, with no adapter: the gate refuses it, and its rewards are rejected, not tried for ever.
            candidate.consumed = [example.id for example in lesson.examples]
            candidate.verdict = {"failed": error.why}
            return candidate
        failpoints.hit("learner.after_update")
        await self._parts.status.progress(reward=lesson.reward, **_figures(report))
        candidate.consumed = report.learned
        candidate.reward, candidate.kl = lesson.reward, report.kl
        candidate.verdict = {"failed": None, "grad_norm": report.grad_norm, "seconds": report.seconds}
        candidate.checkpoint = await self._trainer.save(lesson.step, candidate.version)
        failpoints.hit("learner.after_checkpoint")
        candidate.path, candidate.digest = await self._write(lesson.examples, candidate)
        failpoints.hit("learner.after_adapter")
        return candidate

    async def _write(self, learned: list[Example], candidate: PolicyVersionRecord) -> tuple[str, str]:
        """Write the adapter; its folder relative to the data directory, and the digest of its manifest."""
        fields = lineage.manifest_fields(
            self._name,
            self._parts.config,
            learned,
            version=candidate.version,
            parent=candidate.parent or 0,
            step=candidate.step,
            base_digest=await self._trainer.base_digest(),
            consumed=candidate.consumed,
        )
        artifacts, files = self._parts.artifacts, await self._trainer.adapter_files()
        folder, digest = await asyncio.to_thread(adapters.write, artifacts, fields, files)
        return folder.relative_to(artifacts.data).as_posix(), digest

    async def _commit(self, candidate: PolicyVersionRecord, lesson: Lesson) -> None:
        failpoints.hit("learner.before_commit")
        token = self._parts.ownership.token
        await self._registry.commit_step(self._name, lesson.step, candidate, rejected=lesson.aside, token=token)
        failpoints.hit("learner.after_commit")
        self._parts.leasing.set_aside(lesson.aside)

    def _progress(self) -> Progress:
        """Called in the worker's thread after each micro-batch; the status is written in the loop's."""
        loop, ownership = asyncio.get_running_loop(), self._parts.ownership

        def progress(done: int, total: int) -> None:
            failpoints.hit("learner.during_update")
            ownership.check()  # what a replaced learner computes would not be committed
            loop.call_soon_threadsafe(self._note, done, total)

        return progress

    def _note(self, done: int, total: int) -> None:
        task = asyncio.get_running_loop().create_task(self._parts.status.progress(done=done, total=total))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)


def _figures(report: StepReport) -> dict[str, Any]:
    """A step's figures as the status shows them."""
    return {
        "kl": report.kl,
        "loss": report.loss,
        "grad_norm": report.grad_norm,
        "tokens_per_s": report.tokens / report.seconds if report.seconds > 0 else 0.0,
    }
