"""What a client asked of an inference route, once it was checked. Nothing in it changes."""

from __future__ import annotations

import msgspec
from starlette.types import Send

from gateway.catalog import Target
from gateway.dialects.base import Ask, Dialect
from gateway.server.client import ClientConnection
from gateway.server.http import Header
from gateway.telemetry.observe import Observation
from ratchet.clock import wall
from ratchet.types import KeyRecord


class InferenceRequest(msgspec.Struct, frozen=True, eq=False):
    """A checked request and the client's side of its connection. Times are monotonic seconds unless they say otherwise."""

    id: str
    """The id of its answer, and of the interaction that is recorded."""
    caller: KeyRecord
    target: Target
    """What the client asked for. A fallback may answer instead: `Exchange.target`."""
    dialect: Dialect
    ask: Ask
    trace: dict[str, str]
    """The client's trace headers, for the engine."""
    episode: str | None
    observation: Observation
    response_headers: list[Header]
    """Headers of the response, whatever that will be. More may be added until it starts."""
    client: ClientConnection
    send: Send
    """The server's own `send`, without the layer that adds headers to the answer's start."""
    reserved_tokens: int
    """Tokens set aside in the caller's quota: an estimate."""
    started: float
    parsed: float
    size: int
    """Bytes of its body."""
    session: str
    """What the client calls its session, for routing; "": nothing."""
    during_swap: bool
    """Whether the policy's next version was being loaded when it arrived."""
    cpu_seconds: float
    """CPU time of the event loop's thread when it was parsed."""
    created: float = msgspec.field(default_factory=wall)
    """Unix time."""

    @property
    def path(self) -> str:
        """Its route, which is the engine's too."""
        return self.dialect.path

    @property
    def to_record(self) -> bool:
        """Whether both the client and the route want the answer recorded."""
        return self.ask.store and self.dialect.recorded
