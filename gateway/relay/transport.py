"""HTTP/1.1 to the engines: one connection a request, kept for the next. The hot path's other half, beside uvicorn.

Ours because it is on every chunk's way: bytes go from the socket through httptools (which uvicorn brings) to whoever waits for
them, with no layer between. It sends one kind of request, follows no redirect, and reads no proxy from the environment.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httptools

from ratchet.clock import monotonic

KEEPALIVE_SECONDS = 3.0
"""Less than uvicorn's 5 s (under vLLM), so that a kept connection is not closed just as it is used."""
HIGH_WATER = 2**18
"""Bytes that may wait for a slow client before the engine's socket is no longer read."""
LONGEST_HEAD = 2**16
BODILESS = frozenset({204, 304})


class TransportError(Exception):
    """The connection failed."""


class NotConnected(TransportError):
    """No connection came about: nothing was sent."""


class Closed(TransportError):
    """The engine closed the connection. `kept`: it was one kept from an earlier request, and nothing was answered on it."""

    def __init__(self, message: str, *, kept: bool = False) -> None:
        super().__init__(message)
        self.kept = kept


class Pool:
    """The connections to one origin. `url`: scheme, host, port and an optional path that all targets are below."""

    def __init__(self, url: str, connect_seconds: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._root = parts.path.rstrip("/")
        self._host_line = f"host: {parts.netloc.rpartition('@')[2]}\r\ncontent-type: application/json\r\n"
        self._connect_seconds = connect_seconds
        self._kept: deque[_Connection] = deque()
        self._closed = False

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> Response:
        """Sends a request; the response's head has not come yet. NotConnected."""
        connection = self._take()
        kept = connection is not None
        if connection is None:
            connection = await self._connect()
        lines = "".join([f"{key}: {value}\r\n" for key, value in headers.items()])
        head = f"POST {self._root}{path} HTTP/1.1\r\n{self._host_line}{lines}content-length: {len(body)}\r\n\r\n"
        return connection.send(head.encode("latin-1") + body, kept)

    def close(self) -> None:
        """Closes the connections that are kept; those in use close with their requests."""
        self._closed = True
        self.empty()

    def empty(self) -> None:
        """Closes the connections that are kept: the next request has a fresh one."""
        while self._kept:
            self._kept.pop().close()

    def _take(self) -> _Connection | None:
        """The connection that was used last, if it is still good; those that are too old are closed."""
        while self._kept:
            connection = self._kept.pop()
            if connection.usable and monotonic() - connection.idle_since < KEEPALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def keep(self, connection: _Connection) -> None:
        """Takes back a connection whose response was read whole."""
        if self._closed:
            connection.close()
            return
        connection.idle_since = monotonic()
        self._kept.append(connection)
        while monotonic() - self._kept[0].idle_since >= KEEPALIVE_SECONDS:
            self._kept.popleft().close()

    def forget(self, connection: _Connection) -> None:
        if connection in self._kept:
            self._kept.remove(connection)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, protocol = await loop.create_connection(lambda: _Connection(self), self._host, self._port, ssl=self._ssl)
        except (OSError, TimeoutError) as error:
            raise NotConnected(str(error) or "no connection in time") from error
        return protocol


class Response:
    """What an engine answers. Read it with `head` and then `more` until b""; `close` it in any case."""

    def __init__(self, connection: _Connection, kept: bool) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection: _Connection | None = connection
        self._kept = kept
        self._parts: list[bytes] = []
        self._held = 0
        self._error: TransportError | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._full = False
        """Whether the sink said that it takes no more."""

    async def head(self) -> int:
        """The status, once the head is there. Closed."""
        while not self.status:
            await self._wait()
        return self.status

    async def more(self) -> bytes:
        """The bytes that came since; waits for some. b"" at the end. Closed if it breaks off."""
        while not self._parts:
            if self._ended:
                return b""
            await self._wait()
        return self._take()

    async def feed(self, sink: Callable[[bytes], bool]) -> None:
        """Gives `sink` what is there and then what each read brings, at once and on no task's turn, until it says False or the end comes.

        Closed if it breaks off. Bytes that come after a False are kept for the next one who asks.
        """
        while not self._parts or sink(self._take()):
            if self._ended:
                return
            self._sink = sink
            try:
                await self._wait()
            finally:
                self._sink = None
            if self._full:
                self._full = False
                return

    def _take(self) -> bytes:
        found = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if self._connection is not None:
            self._connection.resume()
        return found

    def fail(self, error: TransportError) -> None:
        """Ends it from outside: whoever reads it gets `error`."""
        self._error = self._error or error
        self._wake()
        self.close()

    def close(self) -> None:
        """Lets go of the connection; an engine still busy with this answer stops."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _wait(self) -> None:
        self._check()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if not (self._parts or self._full):
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the connection tells.

    def begun(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self._wake()

    def took(self, data: bytes) -> None:
        self._parts.append(data)

    def came(self, size: int) -> int:
        """A read of `size` bytes was parsed; how many now wait to be taken, about."""
        if self._parts:
            self._held += size
            if self._sink is None:
                self._wake()
            elif not self._sink(self._take()):
                self._sink, self._full = None, True
                self._wake()
        return self._held

    def ended(self) -> None:
        self._ended, self._connection = True, None
        self._wake()

    def lost(self, message: str) -> None:
        self._connection = None
        self._error = self._error or Closed(message, kept=self._kept and not self.status)
        self._wake()


class _Connection(asyncio.Protocol):
    """One socket and the parser of its answers."""

    def __init__(self, pool: Pool) -> None:
        self.idle_since = 0.0
        self._pool = pool
        self._transport: Any = None
        self._response: Response | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._framed = self._paused = False

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, data: bytes, kept: bool) -> Response:
        response = self._response = Response(self, kept)
        self._headers, self._head_bytes, self._framed = {}, 0, False
        if self.usable:
            self._transport.write(data)
        else:
            self.connection_lost(None)
        return response

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        self._response = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio's part

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # bytes that nobody asked for
            self._drop()
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("it does not speak HTTP")
            return
        finally:
            if response.came(len(data)) > HIGH_WATER and self._response is response and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        # Only now: one read may bring a head and much of its body.
        if self._response is not None and not self._response.status and self._head_bytes > LONGEST_HEAD:
            self._fail("its head has no end")

    def connection_lost(self, error: Exception | None) -> None:
        response, self._response = self._response, None
        self._transport = None
        self._pool.forget(self)
        if response is not None:
            if response.status and not self._framed and error is None:
                response.ended()  # a body that the end of the connection ends
            else:
                response.lost(str(error or "closed"))

    # httptools' part

    def on_message_begin(self) -> None:
        if self._response is None:  # another answer behind the one that was asked for: it would be taken for the next one's
            self._drop()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is None or self._response.status:  # a trailer
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._response is not None:
            self._framed = "content-length" in self._headers or "transfer-encoding" in self._headers or status in BODILESS
            self._response.begun(status, self._headers)
        else:
            self._headers = {}

    def on_body(self, data: bytes) -> None:
        if self._response is not None:
            self._response.took(data)

    def on_message_complete(self) -> None:
        response = self._response
        if response is None or not response.status:  # 1xx: the real head is still to come
            return
        self._response = None
        reusable = self._framed and self._parser.should_keep_alive()
        response.ended()
        self.resume()
        if reusable and self.usable:
            self._pool.keep(self)
        else:
            self._drop()

    def _fail(self, message: str) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.lost(message)
        self._drop()

    def _drop(self) -> None:
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()
