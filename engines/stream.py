"""Captures of server-sent events: split the bytes, hand each event on, frame what the client may see."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

from engines import sse
from engines.types import StreamCapture
from ratchet.errors import EngineBroken

LONGEST_EVENT = 2**24
"""Bytes of one event; a longer one breaks the stream."""
Event = TypeVar("Event")


class EventCapture(StreamCapture, Generic[Event]):
    """A capture of a stream of events.

    `split` cuts a buffer into its complete events and the rest: `sse.split` gives their payloads, `sse.split_named` their names
    too. A subclass reads each in `event`, which also sets `done`.
    """

    frame = staticmethod(sse.frame)
    """The client's events with these payloads."""

    def __init__(self) -> None:
        self._rest = b""

    @staticmethod
    @abstractmethod
    def split(buffer: bytes) -> tuple[list[Event], bytes]:
        """The events that end in `buffer`, in order, and the bytes after them."""

    @abstractmethod
    def event(self, event: Event) -> bytes | None:
        """Read one event and return the payload that the client may see of it; None: none.

        EngineBroken: it reports an error, or is malformed.
        """

    def take(self, data: bytes) -> bytes:
        events, self._rest = self.split(self._rest + data if self._rest else data)
        seen: list[bytes] = []
        try:
            for event in events:
                visible = self.event(event)
                if self.done:
                    self.last = self.frame(visible) if visible is not None else b""
                    break
                if visible is not None:
                    seen.append(visible)
        except EngineBroken as error:
            self.fault = error  # what came before it still goes to the client
        if len(self._rest) > LONGEST_EVENT:
            self.fault = EngineBroken("an event without end")
        return self.frame(*seen) if seen else b""
