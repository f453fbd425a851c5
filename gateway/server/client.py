"""A client's connection, as who answers a request on it sees it. It writes as few times as it can: each write is a system call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl


class Client:
    """`scope["connection"]`, and what uvicorn's answers write to.

    `complete`: every request that began came whole. `on_disconnect` is called when the client closes its connection; who answers sets it
    for as long as it does. A task that waits for `http.disconnect` says the same and costs each request its making and its end.
    """

    __slots__ = ("_chunked", "_flow", "_fresh", "_head", "_loop", "_transport", "complete", "on_disconnect", "over")

    def __init__(self, transport: asyncio.Transport, flow: FlowControl, loop: asyncio.AbstractEventLoop) -> None:
        self.on_disconnect: Callable[[], None] | None = None
        self.over = self.complete = False
        self._transport = transport
        self._flow = flow
        self._loop = loop
        self._fresh = self._chunked = True
        self._head = b""

    def answering(self, *, chunked: bool = True) -> Client:
        """An answer begins: its first write, the head, waits for the next one, though no longer than this turn of the loop.

        `chunked`: the client knows answers in chunks, as of HTTP/1.1.
        """
        self._fresh, self._chunked = True, chunked
        return self

    def piece(self, data: bytes) -> bool:
        """Sends a piece of an answer in chunks (RFC 9112, 7.1) whose head was sent. False: the client is behind; ASGI's `send` waits."""
        self.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        return not self._flow.write_paused

    def left(self) -> None:
        """The client closed its connection."""
        self.over = True
        if self.on_disconnect is not None:
            self.on_disconnect()

    # What uvicorn's answers use of a transport.

    def write(self, data: bytes) -> None:
        if self.over:
            return
        if self._fresh:
            self._fresh = False
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
        """Sends a head that still waits."""
        if self._head and not self.over:
            head, self._head = self._head, b""
            self._transport.write(head)
