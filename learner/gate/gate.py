"""The gate. Its checks in order: sanity, load, activation proof, held-out evaluation, alarms. A candidate that fails one never serves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engines import EngineControl
from learner.gate import alarms, heldout, proof
from learner.gate.heldout import Heldout
from learner.gate.proof import Prover
from learner.gate.verdict import Verdict
from learner.publication import publish
from learner.publication.replicas import Replicas
from ratchet import adapters, clock, failpoints
from ratchet.adapters import ArtifactStore
from ratchet.buffer import Store
from ratchet.config.model import PolicyConfig
from ratchet.errors import AdapterError, EngineBroken, EngineRefused, EngineUnavailable, GateRefused
from ratchet.types import PolicyVersionRecord


class Gate:
    """The gate of one policy."""

    def __init__(
        self,
        config: PolicyConfig,
        *,
        artifacts: ArtifactStore,
        store: Store,
        replicas: Replicas,
        prover: Prover,
        evaluation: Heldout | None,
    ) -> None:
        self._config = config
        self._artifacts = artifacts
        self._store = store
        self._replicas = replicas
        self._prover = prover
        self._evaluation = evaluation

    async def examine(self, candidate: PolicyVersionRecord, verdict: Verdict) -> None:
        """Load and examine the candidate, and write the findings to `verdict`. The trainer's weights must be the candidate's.

        Raises GateRefused if it did not pass; EngineUnavailable or StoreUnavailable if the check must be repeated later.
        """
        await self._sane(candidate, verdict)
        verdict.load_started = clock.wall()
        await self._store.registry.announce_loading(candidate.policy)
        proven: set[tuple[str, int]] = set()
        engines = await self._activate(candidate, verdict, proven)
        failpoints.hit("learner.after_proof")
        await self._evaluate(engines, candidate, verdict)
        failpoints.hit("learner.after_heldout")
        alarms.kl(verdict.kl, self._config.gate.max_kl)
        # A replica that became ready or restarted meanwhile must have the candidate too before it goes live.
        await self._activate(candidate, verdict, proven)

    async def _sane(self, candidate: PolicyVersionRecord, verdict: Verdict) -> None:
        failed = candidate.verdict.get("failed")
        if failed:
            raise GateRefused("sanity", str(failed))
        norm, limit = verdict.grad_norm, self._config.gate.max_grad_norm
        if norm is None or not norm <= limit:
            raise GateRefused("sanity", f"gradient norm {norm} is above {limit:g}")
        try:
            await asyncio.to_thread(adapters.verify, self._artifacts, candidate, rank=self._config.lora.rank, base=self._config.base)
        except AdapterError as error:
            raise GateRefused("sanity", str(error)) from error

    async def _activate(self, candidate: PolicyVersionRecord, verdict: Verdict, proven: set[tuple[str, int]]) -> list[EngineControl]:
        """Load and prove the candidate on every ready replica that is not in `proven` yet, until none remains."""
        while True:
            ready = await self._replicas.some(self._config.base)
            fresh = [engine for engine in ready if _life(engine) not in proven]
            if not fresh:
                return ready
            brought = await publish.bring(fresh, self._replicas, candidate)
            verdict.load_seconds |= {engine.record.name: seconds for engine, seconds in brought}
            for engine, _ in brought:
                await self._prove(engine, candidate, verdict)
                proven.add(_life(engine))

    async def _prove(self, engine: EngineControl, candidate: PolicyVersionRecord, verdict: Verdict) -> None:
        try:
            found = await self._prover.prove(engine, candidate)
        except (EngineBroken, EngineRefused) as error:
            raise await _blame(proof.GATE, [engine], error) from error
        verdict.proofs = [p for p in verdict.proofs if p.replica != found.replica] + [found]
        proof.judge(found)

    async def _evaluate(self, engines: list[EngineControl], candidate: PolicyVersionRecord, verdict: Verdict) -> None:
        if self._evaluation is None:
            return
        try:
            verdict.heldout = await self._evaluation.compare(engines, candidate.version, candidate.parent or 0)
        except (EngineBroken, EngineRefused) as error:
            raise await _blame(heldout.GATE, engines, error) from error
        heldout.judge(verdict.heldout, self._config.gate.margin)


def _life(engine: EngineControl) -> tuple[str, int]:
    """Identity of a replica's process: a restart unloads everything."""
    return engine.record.name, engine.record.restarts


async def _blame(gate: str, engines: Sequence[EngineControl], error: EngineBroken | EngineRefused) -> Exception:
    """Decide whether a failed answer is the candidate's fault: it is, if every replica still generates from its base.

    Raises EngineUnavailable if one does not.
    """
    if isinstance(error, EngineRefused) and error.status in publish.PASSING:
        return EngineUnavailable(str(error))
    for engine in engines:
        await engine.health()
    return GateRefused(gate, str(error))
