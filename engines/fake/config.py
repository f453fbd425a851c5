"""How Ratchet starts the fake engine."""

from __future__ import annotations

from engines.vllm.config import VllmLaunch


class FakeLaunch(VllmLaunch):
    """How Ratchet starts the fake engine (`kind: fake`): with vLLM's settings, most of which mean nothing to it."""
