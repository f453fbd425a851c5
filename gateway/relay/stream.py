"""Forward a stream from the engine to the client, each read at once, without waiting for a task's turn."""

from __future__ import annotations

from engines import StreamCapture
from gateway.relay.exchange import Exchange


class Forwarder:
    """Takes what the engine sends, and sends the client what it may see of it.

    `paused`: the client reads too slowly, and must be waited for before more is taken.
    """

    def __init__(self, exchange: Exchange, capture: StreamCapture) -> None:
        self.paused = False
        self._received = exchange.received
        self._capture = capture
        self._send_chunk = exchange.request.client.send_chunk

    def forward(self, data: bytes) -> bool:
        """Forward bytes of the stream. False: take no more for now, since the client is slow or the stream has ended or broken off."""
        visible = self._capture.take(data)
        self._received(visible=bool(visible))
        if visible:
            self.paused = not self._send_chunk(visible)
        return not (self.paused or self._capture.done or self._capture.fault)

    @property
    def finished(self) -> bool:
        """Whether the last event has arrived. EngineBroken if the stream is broken."""
        if self._capture.fault is not None:
            raise self._capture.fault
        return self._capture.done
