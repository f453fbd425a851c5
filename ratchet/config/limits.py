"""`gateway.limits`: limits on one request, one connection, and all of them together."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ratchet.config.section import Section


class LimitsConfig(Section):
    max_connections: int = Field(default=4096, ge=1)
    """Open connections to the data plane. Above this, the connection that has been idle longest is closed to make room; if none is
    idle, the new one gets 503. Lower if the system allows fewer open files."""
    max_admin_connections: int = Field(default=256, ge=1)
    """Open connections to the control plane, counted separately, so that clients cannot lock operators out. Above this, as for
    `max_connections`."""
    max_header_bytes: int = Field(default=32 * 2**10, ge=1024)
    """Bytes of the request line and all headers together. Above this: 431."""
    max_header_line: int = Field(default=16 * 2**10, ge=512)
    """Bytes of the request line, or of one header. Above this: 431."""
    max_headers: int = Field(default=100, ge=8)
    """Number of headers of a request. Above this: 431."""
    header_seconds: float = Field(default=8, gt=0)
    """Seconds from the opening of a connection, or from the first byte of a later request, to the end of the header. After this: 408.
    Also the time to receive the rest of a body that the gateway answered without reading it."""
    keep_alive_seconds: float = Field(default=75, gt=0)
    """Seconds a connection may be idle between two requests."""
    body_seconds: float = Field(default=25, gt=0)
    """Seconds a body may take to arrive. After this: 408."""
    max_body_bytes: int = Field(default=8 * 2**20, ge=1024)
    """Bytes of a request body. Above this: 413."""
    max_feedback_bytes: int = Field(default=2**20, ge=1024)
    """Bytes of a feedback body. Above this: 413. The longest valid comment takes 768 KiB if every character is escaped."""
    max_bodies_bytes: int = Field(default=256 * 2**20, ge=1024)
    """Bytes of the bodies of all requests together; each counts until its request is over. Above this: 503."""
    max_depth: int = Field(default=64, ge=4)
    """Nesting depth of a JSON body. Above this: 400."""
    max_n: int = Field(default=64, ge=1, le=128)
    """Largest `n` of a request. OpenAI allows 128."""
    max_inflight: int = Field(default=1024, ge=1)
    """Inference requests in flight. Above this: 429."""

    @model_validator(mode="after")
    def _one_fits(self) -> Self:
        if self.max_bodies_bytes < max(self.max_body_bytes, self.max_feedback_bytes):
            raise ValueError("max_bodies_bytes must be at least max_body_bytes and max_feedback_bytes, or the largest body would never fit")
        return self
