"""Inference engines behind one seam; see `engines.base`. Each kind of engine is one folder, found through the registry."""

from engines.base import EngineControl, EngineKind, EngineWire
from engines.connect import connect, kind, wire
from engines.types import Captured, Load, Sample, StreamCapture, Wants

__all__ = ["Captured", "EngineControl", "EngineKind", "EngineWire", "Load", "Sample", "StreamCapture", "Wants", "connect", "kind", "wire"]
