"""The settings that all learning algorithms have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from pydantic import Field

from ratchet.config.section import Section


class AlgorithmConfig(Section, ABC):
    """How a policy learns. Each algorithm subclasses it, sets `type` to its name, and implements `make`."""

    type: str
    """The algorithm."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's step size; LoRA takes ten times what full weights do."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decay a step, times the learning rate."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient's 2-norm is clipped to this."""
    epochs: int = Field(default=1, ge=1)
    """Optimiser steps on each batch. With several the policy moves away from the one that was scored, so that clipping is active."""
    metric: str = "reward"
    """The metric it learns from."""

    @abstractmethod
    def make(self) -> Any:
        """Return the algorithm with this configuration: a `learner.algorithms.base.Algorithm`."""
