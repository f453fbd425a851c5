"""Check that an engine that already runs generates."""

from __future__ import annotations

from ratchet.clock import monotonic
from ratchet.config import ENGINES, EngineConfig
from ratchet.types import EngineRecord


async def generates(config: EngineConfig) -> str:
    """List the engine's models, check its health as its kind does, and return a line about it. EngineError if either fails."""
    record = EngineRecord(config.name, config.kind, config.model, config.url or "", config.served_name or "", api_key=config.api_key)
    control = ENGINES.model(config.kind).kind().control(record)
    try:
        listed = await control.models()
        record.served_name = record.served_name or (listed[0] if listed else "")
        began = monotonic()
        generated = await control.health()
    finally:
        await control.close()
    what = "generated a token" if generated else "gave an embedding or a score"
    return f"{record.served_name} {what} in {monotonic() - began:.2f} s"
