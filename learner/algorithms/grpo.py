"""GRPO: group-relative advantages and a clipped ratio (2402.03300)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ratchet.config.algorithm import AlgorithmConfig


class GrpoConfig(AlgorithmConfig):
    """2402.03300 with token-level truncated importance sampling against the engine's log-probs."""

    type: Literal["grpo"] = "grpo"
    """The algorithm."""
    beta: float = Field(default=0.1, ge=0)
    """Weight of the KL to the base; 0 computes no reference."""
    eps_low: float = Field(default=0.2, gt=0)
    """The importance ratio is clipped below 1 - eps_low."""
    eps_high: float = Field(default=0.2, gt=0)
    """The importance ratio is clipped above 1 + eps_high."""
    is_cap: float = Field(default=2.0, gt=0)
    """Cap C of the importance weight min(pi_learner / pi_engine, C)."""
    scale: Literal["std", "none"] = "std"
    """Whether a group's advantages are divided by its standard deviation."""

    @property
    def estimator_params(self) -> dict[str, Any]:
        """Parameters of the advantage estimator."""
        return {"scale": self.scale}
