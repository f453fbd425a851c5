"""The command line and environment of an engine that Ratchet starts itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engines.vllm.config import VllmLaunch
from ratchet.config import EngineConfig, LaunchConfig
from ratchet.errors import ConfigError

HOST = "127.0.0.1"
NEVER = ("--load-format", "--trust-remote-code", "--host", "--port", "--model", "--served-model-name")
"""Flags that `extra` may not set: they are Ratchet's own, or would run foreign code."""
GENERATING = ("chat/completions", "completions", "responses", "messages", "load_lora_adapter", "unload_lora_adapter")
"""Routes, below `/v1/`, that a pooling engine lacks."""
_OURS = "RATCHET_"


class Launch(msgspec.Struct, frozen=True):
    """What to run, under which whole environment, and where it will answer."""

    argv: list[str]
    env: dict[str, str]
    url: str


class Machine(msgspec.Struct, frozen=True):
    """What of the machine decides the flags: a CUDA device, and the CPUs this process may use."""

    gpu: bool
    cpus: tuple[int, ...]


def this_machine() -> Machine:
    """The machine at hand. An NVIDIA device file says GPU; torch is not asked, since it is not imported here."""
    gpu = any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    return Machine(gpu, tuple(sorted(os.sched_getaffinity(0))))


def build(engine: EngineConfig, model: str, port: int, *, machine: Machine, environ: Mapping[str, str]) -> Launch:
    """The launch of `engine` serving `model` (a folder or hub id) on loopback `port`. ConfigError: a kind not built, a forbidden flag."""
    if engine.launch is None:
        raise ConfigError(f"engines.{engine.name} is given by url: nothing to launch")
    _check(engine.name, engine.launch)
    argv, env = _BUILDERS[engine.kind](engine, engine.launch, model, port, machine)
    # The engine needs none of Ratchet's own settings, which may hold the store's password.
    inherited = {key: value for key, value in environ.items() if not key.startswith(_OURS)}
    return Launch([sys.executable, "-m", *argv, *engine.launch.extra], inherited | env, f"http://{HOST}:{port}")


def _check(name: str, launch: LaunchConfig) -> None:
    for flag in launch.extra:
        if flag.split("=")[0] in NEVER:
            raise ConfigError(f"engines.{name}.launch.extra: {flag} may not be set there")


def _vllm(engine: EngineConfig, launch: VllmLaunch, model: str, port: int, machine: Machine) -> tuple[list[str], dict[str, str]]:
    argv = [
        "vllm.entrypoints.openai.api_server",
        "--model",
        model,
        "--served-model-name",
        engine.model,
        "--host",
        HOST,
        "--port",
        str(port),
    ]
    argv += _sizes(launch) + _adapters(launch) + _behaviour(launch) + _parallel(launch)
    env = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if launch.runner == "generate":
        env |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
    if Path(model).is_dir():
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if machine.gpu:
        return argv + _optional("--dtype", launch.dtype), env
    argv += ["--dtype", launch.dtype or "float32", "--enforce-eager"]
    ranks = launch.tensor_parallel * launch.pipeline_parallel
    env |= {"VLLM_CPU_KVCACHE_SPACE": str(launch.kv_cache_gib), "VLLM_CPU_OMP_THREADS_BIND": _bind(launch.threads, ranks, machine.cpus)}
    return argv, env


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
    # sampling behind live traffic.
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


def _fake(engine: EngineConfig, launch: VllmLaunch, model: str, port: int, machine: Machine) -> tuple[list[str], dict[str, str]]:
    argv = ["engines.fake", "--host", HOST, "--port", str(port), "--model", engine.model, "--slots", str(launch.max_num_seqs)]
    return [*argv, *(f"--lacks=/v1/{route}" for route in GENERATING if launch.runner == "pooling")], {}


_Builder = Callable[[EngineConfig, Any, str, int, Machine], tuple[list[str], dict[str, str]]]
_BUILDERS: dict[str, _Builder] = {"vllm": _vllm, "fake": _fake}
