"""The configuration of the store, the gateway and the engines."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ratchet.config.kinds import EngineKindName, Launch
from ratchet.config.limits import LimitsConfig
from ratchet.config.outbox import OutboxConfig
from ratchet.config.quota import QuotaConfig
from ratchet.config.routing import RoutingConfig
from ratchet.config.section import Name, Section
from ratchet.config.telemetry import TelemetryConfig


class StoreConfig(Section):
    url: str = "embedded"
    """`embedded` starts a Valkey under the data directory; else redis://, rediss://, valkey://, unix://."""
    durability: Literal["process", "power"] = "process"
    """`process`: written before each answer, fsynced each second: kill -9 loses nothing; `power`: fsynced before each answer.
    Embedded store only."""
    retention_hours: float = Field(default=72, gt=0)
    """Hours an interaction stays in the store; what bounds its memory."""
    feedback_ttl_hours: float = Field(default=168, gt=0)
    """Hours a reward stays pending or parked before it expires."""
    max_memory_mb: int = Field(default=1024, ge=16)
    """MiB the embedded store may use; past it writes are refused (nothing is evicted)."""
    max_parked: int = Field(default=1000, ge=1)
    """Parked rewards a caller may have at a time; past it 429."""


class GatewayConfig(Section):
    host: str = "127.0.0.1"
    """Address the data plane listens on; loopback unless others are to reach it."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Data plane. 0 takes a free port."""
    admin_host: str = "127.0.0.1"
    """Address the control plane listens on; operators' business, so loopback."""
    admin_port: int = Field(default=8081, ge=0, le=65535)
    """Control plane. 0 takes a free port."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that share the data port; the control plane is the first one's. `limits` are each worker's own."""
    worker_silence_seconds: float = Field(default=15, ge=2)
    """Seconds in which a worker's event loop may stand still; then the first kills it and starts it again."""
    drain_seconds: float = Field(default=20, ge=0, le=40)
    """Seconds running requests get to finish at SIGTERM."""
    template_kwargs: list[str] = []
    """Names that `chat_template_kwargs` may set; a template's arguments can change the prompt beyond what is recorded."""
    connect_seconds: float = Field(default=5, gt=0)
    """Seconds to connect to an engine."""
    first_byte_seconds: float = Field(default=300, gt=0)
    """Seconds an engine may take to its first byte (CPU prefill through an adapter is slow)."""
    idle_seconds: float = Field(default=120, gt=0)
    """Seconds an engine may be silent between two chunks."""
    total_seconds: float = Field(default=3600, gt=0)
    """Seconds a request may take in all, from its arrival to the answer's last byte."""
    record_seconds: float = Field(default=5, gt=0)
    """Seconds a finished answer waits for the store or the spool before it ends in an error."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """Traces and log lines."""
    quota: QuotaConfig = QuotaConfig()
    """How the quotas of keys are held."""
    limits: LimitsConfig = LimitsConfig()
    """What a request, a connection, and all of them together may take."""
    routing: RoutingConfig = RoutingConfig()
    """Which replica takes a request, and what follows where one fails."""
    outbox: OutboxConfig = OutboxConfig()
    """What happens to answers while the store is away."""


class EngineConfig(Section):
    name: Name
    """Its name in headers, logs and lists."""
    kind: EngineKindName
    """Which server it is: `vllm`; `fake` generates nothing real and is for tests and benchmarks. Installed packages may bring others."""
    model: Name
    """A key of `models`."""
    launch: Launch | None = None
    """How Ratchet starts it; then `url` must be absent."""
    url: str | None = None
    """An engine that already runs; then `launch` must be absent."""
    served_name: str | None = None
    """The name the engine gives its base; None asks it."""
    api_key: str | None = None
    """The bearer key it wants; None: none."""
    adapters_at: str | None = None
    """Where the engine sees the data directory's `adapters/` folder; None: at the same path."""
    weight: float = Field(default=1, gt=0, le=1000)
    """Its share of the requests, relative to the other replicas of its model."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.launch is None) == (self.url is None):
            raise ValueError("give either `launch` (Ratchet starts it) or `url` (it already runs)")
        return self
