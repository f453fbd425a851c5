"""What the gateway lets one request, one connection, and all of them together take."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ratchet.config.section import Section


class LimitsConfig(Section):
    max_connections: int = Field(default=4096, ge=1)
    """Connections open to the data plane; past it an idle one is closed for the new one, else 503. Fewer if the system grants
    fewer open files."""
    max_admin_connections: int = Field(default=256, ge=1)
    """Connections open to the control plane, which the data plane's cannot use up; past it the same."""
    max_header_bytes: int = Field(default=32 * 2**10, ge=1024)
    """Bytes of a request line and its headers together; past it 431."""
    max_header_line: int = Field(default=16 * 2**10, ge=512)
    """Bytes of the request line, or of one header; past it 431."""
    max_headers: int = Field(default=100, ge=8)
    """Headers of a request; past it 431."""
    header_seconds: float = Field(default=8, gt=0)
    """Seconds from a connection's opening, or a later request's first byte, to the end of its header; past it 408.
    What is left of a body that nobody read has as long."""
    keep_alive_seconds: float = Field(default=75, gt=0)
    """Seconds a connection may be idle after an answer."""
    body_seconds: float = Field(default=25, gt=0)
    """Seconds a body may take to arrive; past it 408."""
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024)
    """Bytes of a request body; past it 413."""
    max_feedback_bytes: int = Field(default=2**20, ge=1024)
    """Bytes of a feedback body; past it 413. The longest legal comment, each character escaped, takes 768 KiB."""
    max_bodies_bytes: int = Field(default=256 * 2**20, ge=1024)
    """Bytes of bodies held at a time, over all requests until their end; past it 503."""
    max_depth: int = Field(default=64, ge=4)
    """Nesting of a JSON body; past it 400."""
    max_n: int = Field(default=64, ge=1, le=128)
    """Largest `n` of a request (OpenAI allows 128)."""
    max_inflight: int = Field(default=1024, ge=1)
    """Requests in flight; past it 429."""

    @model_validator(mode="after")
    def _one_fits(self) -> Self:
        if self.max_bodies_bytes < max(self.max_body_bytes, self.max_feedback_bytes):
            raise ValueError("max_bodies_bytes must be at least max_body_bytes and max_feedback_bytes: else no such body fits")
        return self
