"""The fake as a kind of engine. It speaks vLLM's routes, so its control plane and its wire are vLLM's."""

from __future__ import annotations

import sys

from engines.base import Command, EngineKind, Start
from engines.fake.config import FakeLaunch
from engines.routes import CHAT, MESSAGES, RESPONSES, TEXT
from engines.vllm.control import LOAD, UNLOAD, VllmControl
from engines.vllm.wire import VllmWire

GENERATING = (CHAT, TEXT, RESPONSES, MESSAGES, LOAD, UNLOAD)
"""Routes that a pooling engine lacks."""


def command(start: Start) -> Command:
    """The fake engine; `start.launch` is a FakeLaunch."""
    launch: FakeLaunch = start.launch
    argv = [sys.executable, "-m", "engines.fake", "--host", start.host, "--port", str(start.port), "--model", start.served]
    argv += ["--slots", str(launch.max_num_seqs)]
    return Command([*argv, *(f"--lacks={route}" for route in GENERATING if launch.runner == "pooling")], {})


KIND = EngineKind(VllmWire(), VllmControl, command, frozenset({"--host", "--port", "--model"}))
