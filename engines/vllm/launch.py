"""The command line and environment of vLLM, as measured in docs/engines.md."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from engines.base import Command, Start
from engines.vllm.config import VllmLaunch

RESERVED = frozenset({"--load-format", "--trust-remote-code", "--host", "--port", "--model", "--served-model-name"})
"""Flags that are Ratchet's own, or that would run foreign code."""


def command(start: Start) -> Command:
    """The OpenAI server of vLLM; `start.launch` is a VllmLaunch."""
    launch: VllmLaunch = start.launch
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]  # the `vllm` script fails under the CPU build
    argv += ["--model", start.model, "--served-model-name", start.served, "--host", start.host, "--port", str(start.port)]
    argv += _sizes(launch) + _adapters(launch) + _behaviour(launch) + _parallel(launch)
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if launch.runner == "generate":
        env |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    if Path(start.model).is_dir():
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if start.machine.gpu:
        return Command(argv + _optional("--dtype", launch.dtype), env)
    argv += ["--dtype", launch.dtype or "float32", "--enforce-eager"]
    ranks = launch.tensor_parallel * launch.pipeline_parallel
    bind = _bind(launch.threads, ranks, start.machine.cpus)
    return Command(argv, env | {"VLLM_CPU_KVCACHE_SPACE": str(launch.kv_cache_gib), "VLLM_CPU_OMP_THREADS_BIND": bind})


def _sizes(launch: VllmLaunch) -> list[str]:
    return ["--max-model-len", str(launch.max_model_len), "--max-num-seqs", str(launch.max_num_seqs)]


def _adapters(launch: VllmLaunch) -> list[str]:
    if launch.runner == "pooling":
        return ["--runner", "pooling"]
    return ["--enable-lora", "--max-loras", str(launch.max_loras), "--max-lora-rank", str(launch.max_lora_rank)]


def _behaviour(launch: VllmLaunch) -> list[str]:
    # No line a request. (`--disable-log-stats` would take /metrics away.)
    argv = ["--disable-uvicorn-access-log", "--no-enable-log-requests", *_optional("--quantization", launch.quantization)]
    if launch.runner == "pooling":
        return argv
    # Log-probs of the distribution that was sampled from; the engine's neutral defaults, not the model folder's; shadow
    # sampling after live traffic.
    argv += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", "--scheduling-policy", "priority"]
    argv += ["--enable-prompt-tokens-details"]
    if launch.tools:
        argv += ["--enable-auto-tool-choice", "--tool-call-parser", launch.tool_parser]
    return argv


def _parallel(launch: VllmLaunch) -> list[str]:
    argv = []
    if launch.tensor_parallel > 1:
        argv += ["--tensor-parallel-size", str(launch.tensor_parallel)]
    if launch.pipeline_parallel > 1:
        argv += ["--pipeline-parallel-size", str(launch.pipeline_parallel)]
    if launch.expert_parallel:
        argv += ["--enable-expert-parallel"]
    return argv


def _optional(flag: str, value: str | None) -> list[str]:
    return [] if value is None else [flag, value]


def _bind(threads: int | None, ranks: int, cpus: Sequence[int]) -> str:
    """vLLM's CPU list, `|` between ranks. `auto` leaves one core a rank to its scheduler and to everybody else."""
    if threads is None:
        return "auto"
    each = min(threads, max(1, len(cpus) // ranks))
    last = list(cpus)[-each * ranks :]
    return "|".join(",".join(map(str, last[r * each : (r + 1) * each] or last)) for r in range(ranks))
