"""`ratchet up` as a child process: configured, started, waited for, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ratchet.clock import monotonic
from ratchet.demo import task
from ratchet.errors import RatchetError
from ratchet.process import kill_tree, spawn
from ratchet.up import ready_file
from ratchet.up.ready_file import Running

POLICY = "assistant"
MODEL = "smollm2"
READY_SECONDS = 240.0
STOP_SECONDS = 45.0
POLL_SECONDS = 0.2
LOG_LINES = 15


def configuration(heldout: Path, seed: int) -> dict[str, Any]:
    """Return the demo's configuration: the built-in parts on free ports, and a policy with a reward function, shadow groups and a gate.

    With these hyperparameters a model of 135M learns the style in about nine steps; see docs/benchmarks.md.
    """
    return {
        "gateway": {"port": 0, "admin_port": 0},
        "engines": [
            {
                "name": "local",
                "kind": "vllm",
                "model": MODEL,
                # The CPU build's blocks of 128 tokens would never be full, so no prefix would be shared.
                "launch": {"max_model_len": 512, "max_num_seqs": 32, "kv_cache_gib": 1, "extra": ["--block-size", "32"]},
            }
        ],
        "models": {MODEL: {"path": MODEL}},
        "policies": {
            POLICY: {
                "base": MODEL,
                "lora": {"rank": 8, "alpha": 16},
                "algorithm": {"type": "grpo", "beta": 0.1, "learning_rate": 1e-3},
                "metrics": {"reward": {"type": "float", "min": 0, "max": 1}},
                "rewards": [{"type": "python", "path": "ratchet.demo.task:enthusiastic"}],
                "shadow": {"group_size": 8, "max_tokens": task.MAX_TOKENS, "busy_share": 0.75},
                "schedule": {"min_groups": 4, "max_staleness": 2},
                "gate": {"heldout": str(heldout), "samples": 1, "max_tokens": task.MAX_TOKENS, "margin": 0.15, "probes": 4},
                "seed": seed,
            }
        },
        "learner": {"threads": 1},
    }


def write_configuration(folder: Path, seed: int) -> Path:
    """Write `ratchet.yaml` and the gate's prompts to `folder`; return the YAML's path."""
    folder.mkdir(parents=True, exist_ok=True)
    heldout = folder.resolve() / "gate.jsonl"
    lines = [msgspec.json.encode({"messages": task.messages(topic)}) for topic in task.GATE]
    heldout.write_bytes(b"\n".join(lines) + b"\n")
    path = folder.resolve() / "ratchet.yaml"
    path.write_text(yaml.safe_dump(configuration(heldout, seed), sort_keys=False), encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def running(config: Path, data: Path, log: Path, *, seconds: float = READY_SECONDS) -> AsyncIterator[Running]:
    """Run `ratchet up` while the block runs. Everything it started has ended when the block ends, also by Ctrl-C.

    RatchetError if it stops or is not ready in time; the message ends with the last lines of its log.
    """
    file = data / "ready.json"
    process = await start(config, data, file, log)
    try:
        yield await ready(process, file, log, seconds)
    finally:
        await stop(process)


async def start(config: Path, data: Path, file: Path, log: Path) -> Process:
    """Start `ratchet up` with the ready file `file`. Its output, which has its keys, goes to `log`, mode 0600."""
    up = ["up", "--config", str(config), "--data", str(data), "--ready-file", str(file)]
    return await spawn([sys.executable, "-m", "ratchet", *up], log=log, name="ratchet up")


async def ready(process: Process, file: Path, log: Path, seconds: float) -> Running:
    """Wait for the ready file and return its content. RatchetError if the process ends first or `seconds` pass."""
    deadline = monotonic() + seconds
    while (found := _read(file)) is None:
        if process.returncode is not None:
            raise RatchetError(f"ratchet up stopped with status {process.returncode}:\n{tail(log)}")
        if monotonic() > deadline:
            raise RatchetError(f"ratchet up was not ready after {seconds:.0f} s:\n{tail(log)}")
        await asyncio.sleep(POLL_SECONDS)
    return found


def _read(file: Path) -> Running | None:
    return ready_file.read(file) if file.exists() else None


async def stop(process: Process) -> None:
    """End the child and everything it started. Nothing happens if it has ended already."""
    if process.returncode is None:
        await kill_tree(process.pid, STOP_SECONDS)
        await process.wait()


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """Return the last lines of a log; empty if there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
