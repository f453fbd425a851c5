"""The activation proof: shows that a replica applies the candidate's adapter and does not serve the base instead.

Engines are known to silently serve the base under an adapter's name. So the replica answers fixed prompts as the candidate, and its
log-probs of the tokens it sampled are compared with the learner's, with the adapter and without.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engines import EngineControl, Sample
from learner import seeds
from learner.policy.trainer import Trainer
from learner.publication.replicas import live_name
from learner.shadow.shadow import LOW_PRIORITY
from ratchet.errors import GateRefused
from ratchet.types import PolicyVersionRecord

GATE = "proof"
PROBE_TOKENS = 16
FLOOR = 1e-3
"""Lowest tolerance, in nats: adapters use other kernels than the base, which round differently."""
MARGIN = 10.0
"""The tolerance is this many times the largest difference measured on the base."""
BASE_LIMIT = 0.2
"""Largest difference allowed on the base, in nats. Above it, engine and learner do not run the same model."""
PROBES = (
    "Tell me about the moon.",
    "How do I reset my password?",
    "Write one sentence about rain.",
    "What is 17 plus 25?",
    "Name three colours.",
    "My parcel has not arrived. What now?",
    "Say something kind.",
    "Why is the sky blue?",
)
"""The fixed prompts if no held-out set is configured."""


@dataclass(frozen=True)
class Comparison:
    """Largest |log-prob difference| (nats) of a replica's tokens from the learner's, adapter on and off, over `tokens`
    tokens; `kl`: the k3 estimate of KL(candidate || base), nats a token, on the candidate's own samples (2402.03300)."""

    replica: str
    max_abs_logprob_diff: float
    max_abs_diff_from_base: float
    tokens: int
    kl: float
    tolerance: float = 0.0

    def entry(self) -> dict[str, Any]:
        """Its entry in the verdict."""
        return {
            "replica": self.replica,
            "max_abs_logprob_diff": self.max_abs_logprob_diff,
            "max_abs_diff_from_base": self.max_abs_diff_from_base,
            "tolerance": self.tolerance,
        }


class Prover:
    """Proves candidates of one policy. Caches the tolerance of each replica."""

    def __init__(self, name: str, trainer: Trainer, prompts: Sequence[list[dict[str, Any]]]) -> None:
        """`prompts`: fixed chats, each a list of messages."""
        self._name = name
        self._trainer = trainer
        self._prompts = list(prompts)
        self._ids: list[list[int]] = []
        self._tolerances: dict[tuple[str, str], float] = {}

    async def prove(self, engine: EngineControl, candidate: PolicyVersionRecord) -> Comparison:
        """Compare a replica with the learner, whose weights must be the candidate's. `judge` interprets the result.

        Raises GateRefused("proof") if there is nothing to compare or the base differs, EngineError if there is no answer.
        """
        tolerance = await self.tolerance(engine)
        found = await self._compare(engine, live_name(engine, self._name, candidate.version))
        return replace(found, tolerance=tolerance)

    async def tolerance(self, engine: EngineControl) -> float:
        """The tolerance for a replica, in nats, measured once on the base. Raises GateRefused if its base is another model."""
        key = (engine.record.name, engine.record.url)
        if key not in self._tolerances:
            found = await self._compare(engine, engine.record.served_name)
            if not found.max_abs_diff_from_base <= BASE_LIMIT:
                raise GateRefused(
                    GATE, f"{engine.record.name}: its base differs from the learner's by {found.max_abs_diff_from_base:.3g} nats"
                )
            self._tolerances[key] = max(FLOOR, MARGIN * found.max_abs_diff_from_base)
        return self._tolerances[key]

    async def _compare(self, engine: EngineControl, model: str) -> Comparison:
        if not self._ids:
            self._ids = [await self._trainer.encode(messages) for messages in self._prompts]
        samples = await asyncio.gather(*(self._sample(engine, model, i, ids) for i, ids in enumerate(self._ids)))
        triples: list[tuple[float, float, float]] = []
        for ids, sample in ((ids, sample) for ids, sample in zip(self._ids, samples, strict=True) if sample.token_ids):
            with_adapter, base = [(await self._trainer.log_probs(ids, [sample.token_ids], adapter=on))[0] for on in (True, False)]
            triples += zip(sample.logprobs, with_adapter, base, strict=True)
        return compare(engine.record.name, triples)

    async def _sample(self, engine: EngineControl, model: str, index: int, ids: list[int]) -> Sample:
        seed = seeds.seed_of(self._name, GATE, index)
        (sample,) = await engine.generate(model, ids, max_tokens=PROBE_TOKENS, temperature=1.0, seed=seed, priority=LOW_PRIORITY)
        return sample


def compare(replica: str, triples: Sequence[tuple[float, float, float]]) -> Comparison:
    """`triples`: a token's log-prob by the engine, by the learner with the adapter, and without. GateRefused if there are none."""
    if not triples:
        raise GateRefused(GATE, f"{replica} drew no token on any probe")
    return Comparison(
        replica,
        max_abs_logprob_diff=_largest([engine - adapter for engine, adapter, _ in triples]),
        max_abs_diff_from_base=_largest([engine - base for engine, _, base in triples]),
        tokens=len(triples),
        kl=math.fsum(math.expm1(base - adapter) - (base - adapter) for _, adapter, base in triples) / len(triples),
    )


def judge(found: Comparison) -> None:
    """Raise GateRefused if the replica does not match the candidate, or cannot be distinguished from the base."""
    # Written so that a NaN fails either test.
    if not found.max_abs_logprob_diff <= found.tolerance:
        raise GateRefused(
            GATE,
            f"{found.replica} differs from the learner by {found.max_abs_logprob_diff:.3g} nats (tolerance {found.tolerance:.3g}); "
            f"from the base by {found.max_abs_diff_from_base:.3g}",
        )
    if not found.max_abs_diff_from_base > found.tolerance:
        raise GateRefused(
            GATE,
            f"{found.replica} serves the base, or what cannot be distinguished from it: {found.max_abs_diff_from_base:.3g} nats "
            f"from the base, tolerance {found.tolerance:.3g}",
        )


def _largest(differences: Sequence[float]) -> float:
    """Their largest size; NaN if one is."""
    return math.nan if any(map(math.isnan, differences)) else max(map(abs, differences))
