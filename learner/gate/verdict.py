"""The findings of the gate about a candidate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from learner.gate.proof import Comparison
from ratchet import clock
from ratchet.errors import GateRefused


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
