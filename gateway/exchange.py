"""One request and what became of it, up to the interaction that is recorded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from engines.capture import Captured, Wants
from gateway import chat
from gateway.catalog import Target
from gateway.http import Header
from gateway.observe import Observation
from gateway.quota import UNBOUND, Admission
from gateway.recorder import NOT_KEPT, Room
from gateway.schema import ChatRequest
from gateway.table import CHAT
from ratchet.clock import monotonic, wall
from ratchet.types import Interaction, KeyRecord, Status, Timings

NOTHING = Captured([], [], {}, exact=False)


@dataclass(slots=True)
class Exchange:
    """A chat request on its way. Times are monotonic seconds."""

    id: str
    caller: KeyRecord
    target: Target
    request: ChatRequest
    tree: dict[str, Any]
    trace: dict[str, str]
    """The client's trace headers, for the engine."""
    episode: str | None
    seen: Observation
    reply: list[Header]
    """Headers that its answer is to carry, whatever that is."""
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
    created: float = field(default_factory=wall)
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
    over: bool = False
    recorded: bool = False
    stalled: bool = False
    """Whether it waits for the client to read."""

    @property
    def path(self) -> str:
        """Its route, the engine's too."""
        return CHAT

    @property
    def wants(self) -> Wants:
        return chat.wants(self.request)

    @property
    def kept(self) -> bool:
        """Whether it is recorded at all."""
        return self.request.store is not False and self.room.promised

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
        if not self.over and self.stop is None and self.task is not None:
            self.stop = status
            self.task.cancel()

    def interaction(self, status: Status, metric: str) -> Interaction:
        """What is recorded of it."""
        found = self.captured
        unfit = status if status != "complete" else chat.unfit(self.request, launched=self.launched) or ("" if found.exact else "no_ids")
        first = None if self.first_token is None else self.first_token - self.started
        return Interaction(
            id=self.id,
            tenant=self.caller.tenant,
            policy=self.target.owner,
            version=self.target.version,
            base=self.target.base,
            engine=self.engine,
            route=CHAT,
            created=self.created,
            status=status,
            request=self.tree,
            prompt_ids=found.prompt_ids,
            choices=found.choices,
            sampling=chat.sampling(self.request),
            untrainable=unfit,
            metric=metric,
            model=self.target.model,
            usage=found.usage,
            metadata=dict(self.request.metadata or {}),
            episode_id=self.episode,
            key_id=self.caller.id,
            timings=Timings(first, monotonic() - self.started),
        )
