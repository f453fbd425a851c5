"""How quotas of keys are held."""

from __future__ import annotations

from pydantic import Field

from ratchet.config.section import Section


class QuotaConfig(Section):
    wait_ms: float = Field(default=50, gt=0, le=5000)
    """Milliseconds a request waits for the store's word on its key's quota; past that it is let through and counted."""
    lease_seconds: float = Field(default=30, ge=1, le=3600)
    """Seconds a running request goes on counting towards its key's `concurrency` after its gateway was killed."""
    bytes_per_token: float = Field(default=4, gt=0)
    """Bytes of a request's body taken for one token of its prompt, until the engine has counted."""
    answer_tokens: int = Field(default=512, ge=1)
    """Tokens set aside for each choice of a request that names no maximum, until the engine has counted."""
