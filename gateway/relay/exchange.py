"""One request and what became of it, up to the interaction that is recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import Send

from engines.vllm.capture import Captured
from gateway.access.quota import UNBOUND, Admission
from gateway.catalog import Target
from gateway.dialects.base import Ask, Dialect
from gateway.record.recorder import NOT_KEPT, Room
from gateway.server.client import Client
from gateway.server.http import Header
from gateway.telemetry.observe import Observation
from ratchet.clock import monotonic, wall
from ratchet.types import Interaction, KeyRecord, Status, Timings

if TYPE_CHECKING:
    from gateway.relay.upstream import Answer

NOTHING = Captured([], [], {}, exact=False)


class Exchange(msgspec.Struct, eq=False):
    """An inference request on its way. Times are monotonic seconds."""

    id: str
    caller: KeyRecord
    target: Target
    dialect: Dialect
    ask: Ask
    trace: dict[str, str]
    """The client's trace headers, for the engine."""
    episode: str | None
    seen: Observation
    reply: list[Header]
    """Headers that its answer is to carry, whatever that is."""
    client: Client
    send: Send
    """The server's own, for what follows the answer's start."""
    reserve: int
    """Tokens it may use, as far as one can tell before."""
    started: float
    parsed: float
    size: int = 0
    """Bytes of its body."""
    session: str = ""
    """What the client calls its session, for routing."""
    during_swap: bool = False
    cpu: float = 0.0
    """Seconds of CPU the event loop had used when the request was parsed."""
    created: float = msgspec.field(default_factory=wall)
    room: Room = NOT_KEPT
    """What was promised of its record."""
    dispatched: float | None = None
    first_token: float | None = None
    engine: str = ""
    launched: bool = False
    """Whether Ratchet launched the engine, and so knows how it was."""
    captured: Captured = NOTHING
    stop: Status | None = None
    """Why it was ended from outside: `cancelled` by the client, `truncated` by the gateway's own end."""
    task: asyncio.Task[Any] | None = None
    admission: Admission = UNBOUND
    answer: Answer | None = None
    """The engine's, once it has begun."""
    over: bool = False
    recorded: bool = False
    stalled: bool = False
    """Whether it waits for the client to read."""
    heard: float = 0.0
    """When the engine, or the client that was waited for, last moved."""
    told: float = 0.0
    """When a streaming client was last sent something; 0: nothing yet, or no stream."""

    @property
    def path(self) -> str:
        """Its route, the engine's too."""
        return self.dialect.path

    @property
    def kept(self) -> bool:
        """Whether it is recorded at all."""
        return self.ask.store and self.dialect.recorded and self.room.promised

    @property
    def used(self) -> int | None:
        """Tokens it took of the engine; None: the engine did not say."""
        found = self.captured
        if isinstance(total := found.usage.get("total_tokens"), int):
            return total
        if self.first_token is None and self.stop is None:
            return 0  # no engine began
        return len(found.prompt_ids) + sum(len(choice.token_ids) for choice in found.choices) or None

    def end(self, status: Status) -> None:
        """Ends it from outside; whatever it waits for is cancelled."""
        if (self.stalled or not self.over) and self.stop is None and self.task is not None:
            self.stop = status
            self.task.cancel()

    def left(self) -> None:
        """Its client went away, or takes nothing more."""
        self.end("cancelled")

    def interaction(self, status: Status, metric: str) -> Interaction:
        """What is recorded of it."""
        found = self.captured
        first = None if self.first_token is None else self.first_token - self.started
        return Interaction(
            id=self.id,
            tenant=self.caller.tenant,
            policy=self.target.owner,
            version=self.target.version,
            base=self.target.base,
            engine=self.engine,
            route=self.dialect.path,
            created=self.created,
            status=status,
            request=self.ask.tree,
            prompt_ids=found.prompt_ids,
            choices=found.choices,
            sampling=self.ask.sampling,
            untrainable=self._unfit(status),
            metric=metric,
            model=self.target.model,
            usage=found.usage,
            metadata=self.ask.metadata,
            episode_id=self.episode,
            key_id=self.caller.id,
            timings=Timings(first, monotonic() - self.started),
            response=found.response,
        )

    def _unfit(self, status: Status) -> str:
        """Why a policy gradient may not learn from it; "" if it may.

        An engine that Ratchet did not launch may give log-probs for T = 1, whatever T was (vLLM's default, `raw_logprobs`).
        """
        if status != "complete":
            return status
        if self.ask.unfit:
            return self.ask.unfit
        if not self.launched and self.ask.sampling.temperature != 1:
            return "logprobs_mode"
        return "" if self.captured.exact else "no_ids"
