"""A streamed answer on its way: read by its capture and sent on at once, without waiting for a task's turn."""

from __future__ import annotations

from engines import StreamCapture
from gateway.relay.exchange import Exchange


class Flow:
    """Takes what the engine sends. `behind`: the client reads more slowly, and has to be waited for before more is taken."""

    def __init__(self, exchange: Exchange, capture: StreamCapture) -> None:
        self.behind = False
        self._received = exchange.received
        self._capture = capture
        self._piece = exchange.request.client.send_chunk

    def take(self, data: bytes) -> bool:
        """Pass bytes of the stream on. False: take no more now, since the client is behind, or the stream is over or broken."""
        visible = self._capture.take(data)
        self._received(visible=bool(visible))
        if visible:
            self.behind = not self._piece(visible)
        return not (self.behind or self._capture.done or self._capture.fault)

    @property
    def over(self) -> bool:
        """Whether the last event came. EngineBroken: the stream is broken."""
        if self._capture.fault is not None:
            raise self._capture.fault
        return self._capture.done
