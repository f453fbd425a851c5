"""Inference engines behind one seam: what the gateway and the learner ask of vLLM, SGLang, LMDeploy, or the fake."""

from engines.base import Engine, Load, Sample, connect
from engines.vllm.capture import Captured, StreamCapture, Wants, capture_whole

__all__ = ["Captured", "Engine", "Load", "Sample", "StreamCapture", "Wants", "capture_whole", "connect"]
