"""AdamW (1711.05101) over named parameters. Its state is plain tensors, so that it can be checkpointed exactly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

STATE = ("exp_avg", "exp_avg_sq", "step")


class AdamW:
    """torch's AdamW, gradient clipping by the global norm, and a state that saves and restores bit for bit.

    `parameters` name -> parameter; the order of the names never matters.
    """

    def __init__(
        self, parameters: Mapping[str, Parameter], *, learning_rate: float, weight_decay: float = 0.0, max_grad_norm: float = 1.0
    ) -> None:
        self.parameters = dict(sorted(parameters.items()))
        self.learning_rate = learning_rate
        self.max_grad_norm = max_grad_norm
        self._inner = torch.optim.AdamW(list(self.parameters.values()), lr=learning_rate, weight_decay=weight_decay)

    def zero(self) -> None:
        """Drop the gradients."""
        self._inner.zero_grad(set_to_none=True)

    def clip(self) -> float:
        """Scale the gradients to a global norm of at most `max_grad_norm`. Return the norm before, which may be inf or nan."""
        return float(torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.max_grad_norm))

    def step(self) -> None:
        """Update the parameters, then drop the gradients."""
        self._inner.step()
        self.zero()

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the moments and step counts (`exp_avg/NAME` and so on); empty before the first step."""
        found = {name: self._inner.state[parameter] for name, parameter in self.parameters.items() if parameter in self._inner.state}
        return {f"{kind}/{name}": values[kind].detach().cpu().clone() for name, values in found.items() for kind in STATE}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of `state()`. Raises ValueError on an unknown name or another shape."""
        names = {f"{kind}/{name}" for name in self.parameters for kind in STATE}
        if state and state.keys() != names:
            raise ValueError("the optimiser's state is of other parameters")
        self._inner.state.clear()
        for name, parameter in self.parameters.items() if state else ():
            self._inner.state[parameter] = {kind: _placed(kind, state[f"{kind}/{name}"], parameter) for kind in STATE}


def _placed(kind: str, value: Tensor, parameter: Parameter) -> Tensor:
    if kind == "step":
        return value.clone()
    if value.shape != parameter.shape:
        raise ValueError(f"the optimiser's {kind} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}")
    return value.to(parameter.device, copy=True)
