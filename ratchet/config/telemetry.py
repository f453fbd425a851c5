"""`gateway.telemetry`: traces and logs. Metrics are always on."""

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
    """Base URL of an OpenTelemetry collector (OTLP over HTTP). Spans are sent to `/v1/traces` below it. Needs the extra `otlp`.
    Null: no traces."""
    sample_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of requests that are traced. A client's `traceparent` can turn tracing off for its request, but cannot turn it on."""
    otlp_seconds: float = Field(default=5, gt=0, le=60)
    """Seconds that the collector may take for one batch, retries included. Spans that do not fit into the queue meanwhile are
    dropped."""
    log_format: Literal["text", "json"] = "text"
    """Format of log lines. `json`: one object per line."""
    access_log: bool = False
    """Whether to log one line per request: its id, route, status, policy, engine and durations, but never its content."""
