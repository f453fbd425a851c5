"""The command line and environment of an engine that Ratchet starts itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from engines.base import Machine, Start
from engines.connect import kind
from ratchet.config import EngineConfig
from ratchet.errors import ConfigError

HOST = "127.0.0.1"
_OURS = "RATCHET_"


class Launch(msgspec.Struct, frozen=True):
    """What to run, under which whole environment, and the URL it will answer at."""

    argv: list[str]
    env: dict[str, str]
    url: str


def this_machine() -> Machine:
    """The machine at hand. An NVIDIA device file means a GPU; torch is not asked, since it is not imported here."""
    gpu = any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    return Machine(gpu, tuple(sorted(os.sched_getaffinity(0))))


def build(
    engine: EngineConfig,
    model: str,
    port: int,
    *,
    machine: Machine,
    environ: Mapping[str, str],
    adapters: Mapping[str, Path] | None = None,
) -> Launch:
    """The launch of `engine`, which serves `model` (a folder or hub id) on loopback `port`.

    `adapters`: folders by name, for kinds that take adapters only at their start. ConfigError: a flag in `launch.extra` is
    Ratchet's own. EngineUnsupported: Ratchet cannot start this kind.
    """
    if engine.launch is None:
        raise ConfigError(f"engines.{engine.name} is given by url: nothing to launch")
    found = kind(engine.kind)
    for flag in engine.launch.extra:
        if flag.split("=")[0] in found.reserved:
            raise ConfigError(f"engines.{engine.name}.launch.extra: {flag} may not be set there")
    argv, env = found.command(Start(engine.launch, engine.model, model, HOST, port, machine, adapters or {}))
    # The engine needs none of Ratchet's own settings, which may hold the store's password.
    inherited = {key: value for key, value in environ.items() if not key.startswith(_OURS)}
    return Launch([*argv, *engine.launch.extra], inherited | env, f"http://{HOST}:{port}")
