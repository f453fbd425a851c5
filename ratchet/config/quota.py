"""`gateway.quota`: how the quotas of keys are enforced."""

from __future__ import annotations

from pydantic import Field

from ratchet.config.section import Section


class QuotaConfig(Section):
    wait_ms: float = Field(default=50, gt=0, le=5000)
    """Milliseconds that a request waits for the store to check its quota. After this, it is allowed without a check, and a metric
    counts it."""
    lease_seconds: float = Field(default=30, ge=1, le=3600)
    """Seconds that a request still counts towards its key's `concurrency` after its gateway was killed."""
    bytes_per_token: float = Field(default=4, gt=0)
    """Bytes of a request body per prompt token; an estimate that is used until the engine has counted the tokens."""
    answer_tokens: int = Field(default=512, ge=1)
    """Tokens reserved for each choice of a request without a token limit, until the engine has counted the tokens."""
