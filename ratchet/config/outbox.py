"""`gateway.outbox`: the spool on disk, where interactions wait while the store is away."""

from __future__ import annotations

from pydantic import Field

from ratchet.config.section import Section


class OutboxConfig(Section):
    max_spool_mb: int = Field(default=1024, ge=1)
    """MiB of disk for the spools of all gateways on the data directory together. Above this, responses are served without being
    recorded."""
    wait_ms: float = Field(default=50, ge=10)
    """Milliseconds that a finished response waits for the store. After this, its interaction is written to the spool."""
    adopt_seconds: float = Field(default=5, gt=0)
    """Seconds between two searches for spools of gateways that have died."""
