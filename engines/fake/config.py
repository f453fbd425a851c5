"""How Ratchet starts the fake engine."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from ratchet.config.launch import LaunchConfig


class FakeLaunch(LaunchConfig):
    """How Ratchet starts the fake engine (`kind: fake`). It has no weights, so `dtype` and `quantization` are refused."""

    implementation: ClassVar[str] = "engines.fake.kind:KIND"

    runner: Literal["generate", "pooling"] = "generate"
    """`pooling`: it has none of the routes that generate, and takes no adapters."""

    @model_validator(mode="after")
    def _no_weights(self) -> Self:
        if self.dtype is not None or self.quantization is not None:
            raise ValueError("the fake engine has no weights: leave out `dtype` and `quantization`")
        return self

    @property
    def takes_adapters(self) -> bool:
        return self.runner == "generate"
