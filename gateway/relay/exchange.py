"""One request and its answer as a state machine, from admission to the last byte.

    RECEIVED -> DISPATCHING -> READING -> RECORDING -> SETTLING -> FINISHING -> ENDED
                                 ^  |         an answer that is not recorded goes from READING to SETTLING
                                 |  v
                                SENDING       a stream, while its client is slow

Every state may go to ENDED. `interrupt` stops an exchange from outside: the task that serves it is cancelled where it stands, and
may still go to FINISHING to say so. `clocks.py` has the time limits of each state.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Any

import msgspec

from engines import Captured
from gateway.access.quota import UNLIMITED, Admission
from gateway.catalog import Target
from gateway.dialects.base import Ask
from gateway.record.recorder import Reservation
from gateway.relay.answer import Answer
from gateway.relay.request import InferenceRequest
from ratchet.clock import monotonic
from ratchet.types import Interaction, Status, Timings


class State(Enum):
    """What an exchange is waiting for."""

    RECEIVED = auto()
    """The caller's quota, and what the request needs from the store."""
    DISPATCHING = auto()
    """The first byte of an engine's answer."""
    READING = auto()
    """More of the engine's answer."""
    SENDING = auto()
    """The client, which has to take what it was sent before more is read."""
    RECORDING = auto()
    """The recorder, which makes the answer durable."""
    SETTLING = auto()
    """The quota, which takes back what the request did not use. It is short, and not interrupted."""
    FINISHING = auto()
    """The client, which is sent the last bytes."""
    ENDED = auto()
    """Nothing."""


RECEIVED, DISPATCHING, READING, SENDING, RECORDING, SETTLING, FINISHING, ENDED = State  # an enum's attribute costs more than a global
NOTHING = Captured([], [], {}, exact=False)


class IllegalTransition(RuntimeError):
    """An exchange was asked for a step that its state does not allow: a bug of the gateway."""


class Exchange(msgspec.Struct, eq=False):
    """An inference request under way. Its fields are for everybody to read; only its methods write them.

    Each method that changes the state raises IllegalTransition where the state does not allow it. Times are monotonic seconds.
    """

    request: InferenceRequest
    ask: Ask
    """The request as it is sent, with what the dialect took from the store."""
    target: Target
    """What answers: `request.target`, or a fallback."""
    reservation: Reservation
    task: asyncio.Task[Any]
    """The task that serves it."""
    state: State = RECEIVED
    interrupted: Status | None = None
    """Why it was stopped from outside: `cancelled` for the client, `truncated` for the gateway's own end."""
    admission: Admission = UNLIMITED
    dispatched_at: float | None = None
    """When it was first sent to an engine."""
    answer: Answer | None = None
    engine: str = ""
    first_byte_at: float | None = None
    progress_at: float = 0.0
    """When the side that is waited for, the engine or the client, last made progress."""
    streamed_at: float = 0.0
    """When the client of a stream was last sent a part of it; 0: not yet."""
    captured: Captured = NOTHING

    # What is known of it.

    @property
    def to_record(self) -> bool:
        """Whether its answer is recorded: it is wanted, and the recorder promised it."""
        return self.request.to_record and self.reservation.promised

    @property
    def engine_progress_at(self) -> float:
        """When the engine last sent a part of its answer."""
        return self.progress_at if self.answer is None else max(self.progress_at, self.answer.received_at)

    @property
    def used_tokens(self) -> int | None:
        """Tokens that the engine read and wrote for it; None: the engine did not say."""
        found = self.captured
        if isinstance(total := found.usage.get("total_tokens"), int):
            return total
        if self.first_byte_at is None and self.interrupted is None:
            return 0  # no engine began
        return len(found.prompt_ids) + sum(len(choice.token_ids) for choice in found.choices) or None

    # Its way, in the order of the states.

    def watch_client(self) -> None:
        """Listen for the client's disconnect."""
        if self.state is not RECEIVED:
            raise self._illegal()
        self.request.client.on_disconnect = self.disconnected

    def admitted(self, admission: Admission) -> None:
        """The caller's quota allows it."""
        if self.state is not RECEIVED:
            raise self._illegal()
        self.admission = admission
        self.request.response_headers.extend(admission.headers)

    def begin_dispatching(self, ask: Ask) -> None:
        """It is ready to be sent to an engine, as `ask` says."""
        if self.state is not RECEIVED:
            raise self._illegal()
        self.state, self.ask = DISPATCHING, ask

    def redirect(self, target: Target) -> None:
        """From here on `target` is asked for the answer."""
        if self.state is not DISPATCHING:
            raise self._illegal()
        self.target = target

    def dispatched(self) -> None:
        """A replica was sent the request. Only the first time counts: what follows is due to that engine's failure."""
        if self.state is not DISPATCHING:
            raise self._illegal()
        if self.dispatched_at is None:
            self.dispatched_at = monotonic()

    def begin_reading(self, answer: Answer) -> None:
        """An engine's answer has begun."""
        if self.state is not DISPATCHING:
            raise self._illegal()
        self.state, self.answer = READING, answer
        self.engine = answer.replica.name
        self.progress_at = self.first_byte_at = monotonic()

    def received(self, *, visible: bool) -> None:
        """Another part of a stream arrived; `visible`: the client is sent something of it."""
        if self.state is not READING:
            raise self._illegal()
        self.progress_at = now = monotonic()
        if visible:
            self.streamed_at = now

    def kept_alive(self) -> None:
        """The client of a stream was sent a comment."""
        if self.state is not READING:
            raise self._illegal()
        self.streamed_at = monotonic()

    def begin_sending(self) -> None:
        """Wait for the client to take what it was sent."""
        if self.state is not READING:
            raise self._illegal()
        self.state, self.progress_at = SENDING, monotonic()

    def resume_reading(self) -> None:
        """The client took it."""
        if self.state is not SENDING:
            raise self._illegal()
        self.state = READING

    def capture(self, captured: Captured) -> None:
        """Keep what the answer said, as far as it was read."""
        if self.state is not READING and self.state is not SENDING:
            raise self._illegal()
        self.captured = captured

    def begin_recording(self) -> None:
        """The answer, or what came of it, is handed to the recorder."""
        if self.state is not READING and self.state is not SENDING:
            raise self._illegal()
        self.state = RECORDING

    def begin_settling(self) -> None:
        """The answer is recorded, or is not to be; only the last bytes are missing."""
        if self.state is not RECORDING and self.state is not READING:
            raise self._illegal()
        self.state = SETTLING

    def begin_finishing(self) -> None:
        """The client is sent the last bytes."""
        if self.state is not SETTLING and (self.interrupted is None or self.state is ENDED):
            raise self._illegal()
        self.state, self.progress_at = FINISHING, monotonic()

    def end(self) -> None:
        """It is over, in whatever way."""
        self.state = ENDED
        self.request.client.on_disconnect = None

    # Stopped from outside.

    def interrupt(self, status: Status) -> None:
        """Cancel the task that serves it, unless it was interrupted before, or only needs a moment."""
        if self.interrupted is None and self.state is not SETTLING and self.state is not ENDED:
            self.interrupted = status
            self.task.cancel()

    def disconnected(self) -> None:
        """The client closed its connection."""
        self.interrupt("cancelled")

    def _illegal(self) -> IllegalTransition:
        return IllegalTransition(f"this step is not allowed while an exchange is {self.state.name}")

    # What is recorded of it.

    def interaction(self, status: Status, metric: str) -> Interaction:
        """The record of the exchange as far as it came."""
        request, found = self.request, self.captured
        first = None if self.first_byte_at is None else self.first_byte_at - request.started
        return Interaction(
            id=request.id,
            tenant=request.caller.tenant,
            policy=self.target.owner,
            version=self.target.version,
            base=self.target.base,
            engine=self.engine,
            route=request.path,
            created=request.created,
            status=status,
            request=self.ask.tree,
            prompt_ids=found.prompt_ids,
            choices=found.choices,
            sampling=self.ask.sampling,
            untrainable=self._untrainable(status),
            metric=metric,
            model=self.target.model,
            usage=found.usage,
            metadata=self.ask.metadata,
            episode_id=request.episode,
            key_id=request.caller.id,
            timings=Timings(first, monotonic() - request.started),
            response=found.response,
        )

    def _untrainable(self, status: Status) -> str:
        """Why a policy gradient may not learn from it; "" if it may."""
        if status != "complete":
            return status
        if self.answer is None or self.request.path not in self.answer.replica.wire.exact_routes:
            return "no_ids"
        replica, ask = self.answer.replica, self.ask
        if reason := ask.unfit or replica.wire.samples_truly(ask.sampling, launched=replica.record.launched):
            return reason
        return "" if self.captured.exact else "no_ids"
