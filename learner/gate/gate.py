"""The gate. Its checks in order: sanity, load, activation proof, held-out evaluation, alarms. A candidate that fails one never serves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engines import EngineControl
from learner.gate import heldout, proof
from learner.gate.heldout import Heldout
from learner.gate.proof import Comparison, Prover
from learner.publication import publish
from learner.publication.replicas import Replicas
from ratchet import adapters, clock, failpoints
from ratchet.adapters import ArtifactStore
from ratchet.buffer import Store
from ratchet.config.model import PolicyConfig
from ratchet.errors import AdapterError, EngineBroken, EngineRefused, EngineUnavailable, GateRefused
from ratchet.types import PolicyVersionRecord


@dataclass
class Verdict:
    """The findings of the gate. `report` returns the version record's `verdict`."""

    grad_norm: float | None
    update_seconds: float
    began: float = field(default_factory=clock.monotonic)
    proofs: list[Comparison] = field(default_factory=list)
    heldout: dict[str, Any] | None = None
    load_started: float | None = None
    load_seconds: dict[str, float] = field(default_factory=dict)
    refusal: GateRefused | None = None

    @property
    def kl(self) -> float | None:
        """KL(candidate || base), nats a token, the mean over the replicas' proofs."""
        tokens = sum(p.tokens for p in self.proofs)
        return sum(p.kl * p.tokens for p in self.proofs) / tokens if tokens else None

    def report(self, flipped: float | None = None) -> dict[str, Any]:
        """The verdict as JSON; `flipped`: wall time of the flip."""
        refused = self.refusal
        return {
            "passed": refused is None,
            "gate": None if refused is None else refused.gate,
            "why": "" if refused is None else refused.why,
            "proof": [p.entry() for p in self.proofs],
            "heldout": self.heldout,
            "kl": self.kl,
            "grad_norm": self.grad_norm,
            "seconds": self.update_seconds + clock.monotonic() - self.began,
            "swap": {"load_started": self.load_started, "flipped": flipped, "load_seconds": self.load_seconds},
        }


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
        alarm(verdict.kl, self._config.gate.max_kl)
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


def alarm(kl: float | None, limit: float | None) -> None:
    """Raise GateRefused("kl") if the mean KL to the base (nats per token) is above `limit`, or is NaN."""
    if limit is not None and (kl is None or math.isnan(kl) or kl > limit):
        raise GateRefused("kl", f"KL to the base is {kl} nats a token, above {limit:g}")


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
