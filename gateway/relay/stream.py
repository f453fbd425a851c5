"""A streamed answer on its way: heard by its capture and sent on in the moment it comes, with no task's turn between."""

from __future__ import annotations

from engines.sse import split
from gateway.dialects import Capture
from gateway.relay.exchange import Exchange
from ratchet.errors import EngineBroken

LONGEST_EVENT = 2**24


class Flow:
    """`take` it what the engine sends. `last` is the last event as the client is to see it: it waits for the record.

    `behind`: the client does not read as fast; it wants to be waited for before more is taken.
    """

    def __init__(self, exchange: Exchange, capture: Capture) -> None:
        self.last = b""
        self.behind = False
        self._received = exchange.received
        self._capture = capture
        self._frame = exchange.request.dialect.frame
        self._piece = exchange.request.client.piece
        self._rest = b""
        self._fault: EngineBroken | None = None

    def take(self, data: bytes) -> bool:
        """Bytes of the stream. Whether it takes more now; no longer after the last event, or once it is broken."""
        events, self._rest = split(self._rest + data if self._rest else data)
        seen = self._hear(events)
        self._received(visible=bool(seen))
        if seen:
            self.behind = not self._piece(self._frame(*seen))
        if len(self._rest) > LONGEST_EVENT:
            self._fault = EngineBroken("an event without end")
        return not (self.behind or self._capture.done or self._fault)

    @property
    def over(self) -> bool:
        """Whether its last event came. EngineBroken if it is broken."""
        if self._fault is not None:
            raise self._fault
        return self._capture.done

    def _hear(self, events: list[bytes]) -> list[bytes]:
        """What the client may see of these, also where one of them turns out broken."""
        seen: list[bytes] = []
        capture = self._capture
        try:
            for event in events:
                visible = capture.event(event)
                if capture.done:
                    self.last = self._frame(visible) if visible is not None else b""
                    break
                if visible is not None:
                    seen.append(visible)
        except EngineBroken as error:
            self._fault = error
        return seen
