"""What every learning algorithm's configuration has in common."""

from __future__ import annotations

from pydantic import Field

from ratchet.config.section import Section


class AlgorithmConfig(Section):
    """How a policy learns. Each algorithm derives from it and sets `type` to its name."""

    type: str
    """The algorithm."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's step size; LoRA takes ten times what full weights do."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decay a step, times the learning rate."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient's 2-norm is clipped to this."""
    metric: str = "reward"
    """The metric it learns from."""
