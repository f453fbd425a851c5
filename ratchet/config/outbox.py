"""The configuration of the outbox: what the gateway does with answers while the store is away."""

from __future__ import annotations

from pydantic import Field

from ratchet.config.section import Section


class OutboxConfig(Section):
    max_spool_mb: int = Field(default=1024, ge=1)
    """MiB of disk that the spool may take, all gateways of the data directory together; past it answers are served unrecorded."""
    wait_ms: float = Field(default=50, ge=10)
    """Milliseconds a finished answer waits for the store before it is written to the spool instead."""
    adopt_seconds: float = Field(default=5, gt=0)
    """Seconds between two looks for spools that dead gateways left."""
