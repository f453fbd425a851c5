"""The sections `store`, `gateway` and `engines`."""

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
    """`embedded` starts a Valkey server in the data directory. Otherwise the URL of a server: redis://, rediss://, valkey://, valkeys://,
    unix://."""
    durability: Literal["process", "power"] = "process"
    """Of the embedded store. `process`: every write reaches the file before it is acknowledged, and the file is fsynced every second;
    `kill -9` loses nothing, a power cut about a second. `power`: fsynced before it is acknowledged."""
    retention_hours: float = Field(default=72, gt=0)
    """Hours that an interaction stays in the store. This limits the memory that the store needs."""
    feedback_ttl_hours: float = Field(default=168, gt=0)
    """Hours that a reward stays pending or parked before it expires."""
    max_memory_mb: int = Field(default=1024, ge=16)
    """MiB of memory for the embedded store. Above this, it refuses writes; it never evicts data."""
    max_parked: int = Field(default=1000, ge=1)
    """Parked rewards per tenant: rewards for a response that the store does not have yet. Above this: 429."""


class GatewayConfig(Section):
    host: str = "127.0.0.1"
    """Address of the data plane. Loopback by default; change it if other machines must reach the gateway."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port of the data plane. 0 chooses a free port."""
    admin_host: str = "127.0.0.1"
    """Address of the control plane. Loopback by default, because it is for operators only."""
    admin_port: int = Field(default=8081, ge=0, le=65535)
    """Port of the control plane. 0 chooses a free port."""
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that share the data port. The first one also serves the control plane. Each worker has its own `limits`."""
    worker_silence_seconds: float = Field(default=15, ge=2)
    """Seconds that a worker's event loop may be blocked before the first worker kills it and starts it again."""
    drain_seconds: float = Field(default=20, ge=0, le=40)
    """Seconds that requests in flight get to finish after SIGTERM."""
    template_kwargs: list[str] = []
    """Names that a request may set in `chat_template_kwargs`. None by default, because a template's arguments can change the prompt
    in ways that are not recorded."""
    connect_seconds: float = Field(default=5, gt=0)
    """Seconds to connect to an engine."""
    first_byte_seconds: float = Field(default=300, gt=0)
    """Seconds an engine may take to send its first byte. High, because prefill with an adapter is slow on a CPU."""
    idle_seconds: float = Field(default=120, gt=0)
    """Seconds an engine may take between two chunks, and a client between two reads."""
    total_seconds: float = Field(default=3600, gt=0)
    """Seconds for a whole request, from its arrival to the last byte of the response."""
    record_seconds: float = Field(default=5, gt=0)
    """Seconds that a finished response waits for the store and the spool. After this, it is marked as not recorded, or, if it is a
    stream, ends in an error."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """Traces and log lines."""
    quota: QuotaConfig = QuotaConfig()
    """How the quotas of keys are enforced."""
    limits: LimitsConfig = LimitsConfig()
    """Limits on one request, one connection, and all of them together."""
    routing: RoutingConfig = RoutingConfig()
    """How a replica is chosen, and what happens when one fails."""
    outbox: OutboxConfig = OutboxConfig()
    """The spool on disk, where interactions wait while the store is away."""


class EngineConfig(Section):
    name: Name
    """The engine's name in headers, logs and lists."""
    kind: EngineKindName
    """The kind of server: `vllm`, or `fake` for tests and benchmarks, which generates nothing real. Installed packages can add kinds."""
    model: Name
    """The base model that the engine serves: a key of `models`."""
    launch: Launch | None = None
    """How Ratchet starts the engine. Give either `launch` or `url`."""
    url: str | None = None
    """URL of an engine that already runs. Give either `launch` or `url`."""
    served_name: str | None = None
    """The engine's own name for the base model. Null: ask the engine."""
    api_key: str | None = None
    """Bearer key that the engine requires. Null: none."""
    adapters_at: str | None = None
    """Path at which the engine finds the data directory's `adapters/` folder. Null: the same path."""
    weight: float = Field(default=1, gt=0, le=1000)
    """The engine's share of requests, relative to the other engines of its model."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.launch is None) == (self.url is None):
            raise ValueError("give either `launch` (Ratchet starts it) or `url` (it already runs)")
        return self
