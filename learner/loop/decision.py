"""The decision on a candidate: through the gate, then published or refused."""

from __future__ import annotations

import logging

from learner.gate.verdict import Verdict
from learner.loop.parts import Parts
from learner.publication import publish
from ratchet import clock, failpoints
from ratchet.errors import Conflict, GateRefused, RatchetError, StoreUnavailable
from ratchet.types import PolicyRecord, PolicyVersionRecord

log = logging.getLogger(__name__)


class Decision:
    """Decides on the candidates of one policy."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._name = parts.name
        self._registry = parts.store.registry
        self._ownership = parts.ownership
        self._status = parts.status

    async def make(self, candidate: PolicyVersionRecord) -> None:
        """Publish the candidate or refuse it.

        EngineUnavailable, StoreUnavailable: nothing can be decided now. NotHeld: another learner decides.
        """
        verdict = Verdict(candidate.verdict.get("grad_norm"), candidate.verdict.get("seconds") or 0.0)
        await self._status.phase("gating", version=candidate.version, why="")
        try:
            await self._still_parent(candidate)
            if candidate.checkpoint:
                await self._restore(candidate)
            await self._parts.gate.examine(candidate, verdict)
            await self._publish(candidate, verdict)
        except GateRefused as error:
            verdict.refusal = error
            await self._refuse(candidate, verdict, error)

    async def _still_parent(self, candidate: PolicyVersionRecord) -> None:
        record = await self._registry.policy(self._name)
        if record is None or record.live != candidate.parent:
            raise GateRefused("pointer", f"the live version is no longer @{candidate.parent}, which the candidate learned from")

    async def _restore(self, candidate: PolicyVersionRecord) -> None:
        """Set the trainer's weights to the candidate's."""
        try:
            await self._parts.trainer.at(candidate)
        except StoreUnavailable:
            raise
        except RatchetError as error:
            raise GateRefused("sanity", str(error)) from error

    async def _publish(self, candidate: PolicyVersionRecord, verdict: Verdict) -> None:
        await self._ownership.confirm()
        await self._status.phase("publishing")
        failpoints.hit("learner.before_publish")
        report, token = verdict.report(clock.wall()), self._ownership.token
        try:
            record = await self._registry.publish(
                self._name, candidate.version, expect_live=candidate.parent or 0, verdict=report, token=token
            )
        except Conflict as error:
            await self._ownership.confirm()
            raise GateRefused("pointer", str(error)) from error
        failpoints.hit("learner.after_publish")
        log.info("%s@%d is live", self._name, candidate.version)
        await self._parts.retirement.begin()
        await self._settled(record, "")

    async def _refuse(self, candidate: PolicyVersionRecord, verdict: Verdict, error: GateRefused) -> None:
        # First, so that a learner that was replaced does not unload what its successor examines.
        await self._ownership.confirm()
        log.warning("%s@%d is refused: %s", self._name, candidate.version, error)
        await publish.unload(await self._parts.replicas.ready(self._parts.config.base), self._name, candidate.version)
        failpoints.hit("learner.before_refuse")
        token = self._ownership.token
        await self._registry.refuse(self._name, candidate.version, gate=error.gate, verdict=verdict.report(), token=token)
        failpoints.hit("learner.after_refuse")
        record = await self._registry.ensure(self._name, self._parts.config.base)
        live = await self._registry.version(self._name, record.live)
        if live is not None:
            await self._parts.trainer.at(live)
        await self._settled(record, str(error))

    async def _settled(self, record: PolicyRecord, why: str) -> None:
        await self._status.registered(record)
        await self._status.phase("waiting", why=why)
