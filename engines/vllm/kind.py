"""vLLM as a kind of engine."""

from __future__ import annotations

from engines.base import EngineKind
from engines.vllm.control import VllmControl
from engines.vllm.launch import RESERVED, command
from engines.vllm.wire import VllmWire

KIND = EngineKind(VllmWire(), VllmControl, command, RESERVED)
