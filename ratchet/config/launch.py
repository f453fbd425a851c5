"""The settings, common to all kinds of engines, with which Ratchet starts an engine."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any, ClassVar, Literal

from pydantic import Field

from ratchet.config.section import Section

Brings = Literal["load", "restart", "weights"]
"""How a version of a policy gets onto an engine: its adapter is loaded while the engine runs, the engine is restarted with
it, or the engine is given merged weights."""


class LaunchConfig(Section):
    """How Ratchet starts the engine itself."""

    brings: ClassVar[Brings] = "load"
    """How a version gets onto an engine of this kind, launched or not."""
    packages: ClassVar[frozenset[str]] = frozenset()
    """Python packages that must be installed to launch it."""
    implementation: ClassVar[str]
    """`module:name` of the implementation, an `engines.base.EngineKind`."""

    quantization: str | None = None
    """The engine's name for how the base is quantised; None: what the model's folder says."""
    max_loras: int = Field(default=8, ge=1)
    """Adapters held at a time; at least `max_staleness` + 2 of each policy on the engine."""
    max_lora_rank: int = Field(default=16, ge=1)
    """Largest adapter rank; the engine reserves memory for it."""
    max_model_len: int = Field(default=2048, ge=64)
    """Tokens of prompt and answer together."""
    max_num_seqs: int = Field(default=32, ge=1)
    """Sequences decoded at a time."""
    dtype: str | None = None
    """Number format of the weights; None: what suits the machine and the model."""
    extra: list[str] = []
    """Further flags of the engine, as on its command line."""

    @property
    def takes_adapters(self) -> bool:
        """Whether the engine, started so, can serve adapters."""
        return True

    @classmethod
    def kind(cls) -> Any:
        """Import and return the implementation of this kind (an `engines.base.EngineKind`)."""
        return resolve_name(cls.implementation)
