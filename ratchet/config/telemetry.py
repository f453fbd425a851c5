"""The configuration of what the gateway tells of its work: spans, log lines. Metrics are always on."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ratchet.config.section import Section


def _collector(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an http:// or https:// URL, such as http://127.0.0.1:4318")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("no credentials, query or fragment here; the collector's key goes into $OTEL_EXPORTER_OTLP_HEADERS")
    return text.rstrip("/")


class TelemetryConfig(Section):
    otlp_endpoint: Annotated[str, AfterValidator(_collector)] | None = None
    """Base URL of an OpenTelemetry collector (OTLP over HTTP, the extra `otlp`); spans go to `/v1/traces` below it. None: no traces."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the traces that are exported; a client's `traceparent` may say no for its own request, never yes past this share."""
    otlp_seconds: float = Field(default=5, gt=0, le=60)
    """Seconds the collector may take for one batch, tries included; what does not fit into the bounded queue meanwhile is dropped."""
    log_format: Literal["text", "json"] = "text"
    """How log lines look; `json`: one object a line."""
    access_log: bool = False
    """Whether each request leaves a line: its id, route, status, policy, engine and durations; never its content."""
