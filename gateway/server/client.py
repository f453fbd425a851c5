"""A client's connection, for whoever responds on it. It makes as few writes as it can: each is a system call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


class ClientConnection:
    """The connection of a client, and the transport that uvicorn writes responses to.

    `request_complete`: every request that began has arrived to its end. `on_disconnect` is called when the client closes the
    connection; who responds sets it for as long as that takes. A task that waits for `http.disconnect` would do the same at a higher
    cost for each request.
    """

    __slots__ = ("_chunked", "_flow", "_head", "_head_is_next", "_loop", "_transport", "disconnected", "on_disconnect", "request_complete")

    def __init__(self, transport: asyncio.Transport, flow: FlowControl, loop: asyncio.AbstractEventLoop) -> None:
        self.on_disconnect: Callable[[], None] | None = None
        self.disconnected = self.request_complete = False
        self._transport = transport
        self._flow = flow
        self._loop = loop
        self._head_is_next = self._chunked = True
        self._head = b""

    def begin_response(self, *, chunked: bool = True) -> ClientConnection:
        """Expect a response. Its head, which is written first, waits for what follows, but no longer than this turn of the event loop.

        `chunked`: the client understands the chunked transfer coding, as of HTTP/1.1.
        """
        self._head_is_next, self._chunked = True, chunked
        return self

    def send_chunk(self, data: bytes) -> bool:
        """Send a part of a body of unknown length (RFC 9112, 7.1). False: the client reads too slowly; wait with ASGI's `send`."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        return not self._flow.write_paused

    def connection_lost(self) -> None:
        """The connection is closed."""
        self.disconnected = True
        if self.on_disconnect is not None:
            self.on_disconnect()

    # The part of asyncio.Transport that uvicorn's responses use.

    def write(self, data: bytes) -> None:
        if self.disconnected:
            return
        if self._head_is_next:
            self._head_is_next = False
            self._head = data
            self._loop.call_soon(self.flush)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        else:
            self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def flush(self) -> None:
        """Write a head that is still waiting."""
        if self._head and not self.disconnected:
            head, self._head = self._head, b""
            self._transport.write(head)
