"""`ratchet up` as a child: configured, started, waited for, stopped."""

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

POLICY = "assistant"
MODEL = "smollm2"
READY_SECONDS = 240.0
STOP_SECONDS = 45.0
POLL_SECONDS = 0.2
LOG_LINES = 15


class Ready(msgspec.Struct):
    """The ready file of `ratchet up`."""

    gateway: str
    admin: str
    keys: dict[str, str]
    pid: int


def configuration(heldout: Path, seed: int) -> dict[str, Any]:
    """The demo's YAML: the built-in parts on free ports, and a policy with a reward function, shadow groups and a gate.

    Update and rates are those of docs/benchmarks.md: a 135M model learns the style in about nine steps.
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
    """`ratchet.yaml` and the gate's frozen prompts in `folder`; returns the YAML's path."""
    folder.mkdir(parents=True, exist_ok=True)
    heldout = folder.resolve() / "gate.jsonl"
    lines = [msgspec.json.encode({"messages": task.messages(topic)}) for topic in task.GATE]
    heldout.write_bytes(b"\n".join(lines) + b"\n")
    path = folder.resolve() / "ratchet.yaml"
    path.write_text(yaml.safe_dump(configuration(heldout, seed), sort_keys=False), encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def running(config: Path, data: Path, log: Path, *, seconds: float = READY_SECONDS) -> AsyncIterator[Ready]:
    """`ratchet up` for the context's duration; at its end, Ctrl-C included, everything it started is gone.

    RatchetError: it stopped or was not ready in time; the message ends with the last lines of its log.
    """
    ready_file = data / "ready.json"
    process = await start(config, data, ready_file, log)
    try:
        yield await ready(process, ready_file, log, seconds)
    finally:
        await stop(process)


async def start(config: Path, data: Path, ready_file: Path, log: Path) -> Process:
    """Starts `ratchet up`; what it prints (its keys among it) goes to `log`, mode 0600."""
    up = ["up", "--config", str(config), "--data", str(data), "--ready-file", str(ready_file)]
    return await spawn([sys.executable, "-m", "ratchet", *up], log=log, name="ratchet up")


async def ready(process: Process, ready_file: Path, log: Path, seconds: float) -> Ready:
    """Waits for the ready file. RatchetError: the process ended first, or `seconds` passed."""
    deadline = monotonic() + seconds
    while (found := _read(ready_file)) is None:
        if process.returncode is not None:
            raise RatchetError(f"ratchet up stopped with status {process.returncode}:\n{tail(log)}")
        if monotonic() > deadline:
            raise RatchetError(f"ratchet up was not ready after {seconds:.0f} s:\n{tail(log)}")
        await asyncio.sleep(POLL_SECONDS)
    return found


def _read(ready_file: Path) -> Ready | None:
    # It appears whole, by rename.
    return msgspec.json.decode(ready_file.read_bytes(), type=Ready) if ready_file.exists() else None


async def stop(process: Process) -> None:
    """Ends the child and whatever it started; safe to repeat."""
    if process.returncode is None:
        await kill_tree(process.pid, STOP_SECONDS)
        await process.wait()


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """The last lines of `log`; empty if there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
