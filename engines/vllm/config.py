"""How Ratchet starts vLLM."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ratchet.config.launch import LaunchConfig


class VllmLaunch(LaunchConfig):
    """How Ratchet starts vLLM (`kind: vllm`)."""

    packages: ClassVar[frozenset[str]] = frozenset({"vllm"})
    implementation: ClassVar[str] = "engines.vllm.kind:KIND"

    runner: Literal["generate", "pooling"] = "generate"
    """`pooling`: it gives embeddings, scores and ranks, and takes no adapters, tools or log-probs; `max_model_len` must suit the model."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs (on a CPU: processes) that share each layer."""
    pipeline_parallel: int = Field(default=1, ge=1)
    """Groups of GPUs that share the layers out."""
    expert_parallel: bool = False
    """Whether a mixture's experts are spread over the GPUs instead of cut up."""
    dtype: str | None = None
    """None: float32 on a CPU (bf16 is slow without AMX and inexact), the model's own on a GPU."""
    kv_cache_gib: int = Field(default=2, ge=1)
    """GiB of key-value cache; CPU builds only."""
    tools: bool = True
    """Whether tool calls are parsed (`tool_parser`)."""
    tool_parser: str = "hermes"
    """The engine's name for how the model writes tool calls."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the engine; None leaves one core to the rest."""

    @property
    def takes_adapters(self) -> bool:
        return self.runner == "generate"
