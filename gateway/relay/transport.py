"""An HTTP/1.1 client for the engines, with a pool of connections.

It is our own because every chunk of every response passes through it: bytes go from the socket through httptools, which uvicorn
installs, to their reader, with no layer between. It sends POST requests only, follows no redirect, and uses no proxy from the environment.
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
"""Seconds an idle connection is kept: less than the 5 s of uvicorn (under vLLM), which could close it just as it is used."""
HIGH_WATER = 2**18
"""Bytes of a response that may wait for a slow client before the engine's socket is no longer read."""
LONGEST_HEAD = 2**16
BODILESS = frozenset({204, 304})
"""Statuses of responses that have no body."""


class TransportError(Exception):
    """The connection failed."""


class NotConnected(TransportError):
    """No connection could be opened, so nothing was sent."""


class Closed(TransportError):
    """The engine closed the connection. `reused`: it served an earlier request, and nothing of this response had arrived."""

    def __init__(self, message: str, *, reused: bool = False) -> None:
        super().__init__(message)
        self.reused = reused


class Pool:
    """The connections to one origin. `url` has its scheme, host and port, and optionally a path that all requests are below."""

    def __init__(self, url: str, connect_seconds: float) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._root = parts.path.rstrip("/")
        self._host_line = f"host: {parts.netloc.rpartition('@')[2]}\r\ncontent-type: application/json\r\n"
        self._connect_seconds = connect_seconds
        self._idle: deque[_Connection] = deque()
        """Connections without a request, the one used last at the end."""
        self._closed = False

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> Response:
        """Send a request and return its response, of which nothing has arrived yet. NotConnected."""
        connection = self._take_idle()
        reused = connection is not None
        if connection is None:
            connection = await self._connect()
        lines = "".join([f"{key}: {value}\r\n" for key, value in headers.items()])
        head = f"POST {self._root}{path} HTTP/1.1\r\n{self._host_line}{lines}content-length: {len(body)}\r\n\r\n"
        return connection.send(head.encode("latin-1") + body, reused)

    def close(self) -> None:
        """Close the idle connections now, and the others when their responses end."""
        self._closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Close the idle connections, so that the next request opens one."""
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> _Connection | None:
        """The connection that was used last and is still good. Those that have been idle too long are closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and monotonic() - connection.idle_since < KEEPALIVE_SECONDS:
                return connection
            connection.close()
        return None

    def put_back(self, connection: _Connection) -> None:
        """Take back a connection whose response has arrived to its end."""
        if self._closed:
            connection.close()
            return
        connection.idle_since = monotonic()
        self._idle.append(connection)
        while monotonic() - self._idle[0].idle_since >= KEEPALIVE_SECONDS:
            self._idle.popleft().close()

    def discard(self, connection: _Connection) -> None:
        """Do not use a connection again."""
        if connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, protocol = await loop.create_connection(lambda: _Connection(self), self._host, self._port, ssl=self._ssl)
        except (OSError, TimeoutError) as error:
            raise NotConnected(str(error) or "no connection in time") from error
        return protocol


class Response:
    """A response of an engine. Await `head`, then `read` it until b"", and `close` it in any case."""

    def __init__(self, connection: _Connection, reused: bool) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection: _Connection | None = connection
        self._reused = reused
        self._parts: list[bytes] = []
        self._unread = 0
        """Bytes in `_parts`, about."""
        self._error: TransportError | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._full = False
        """Whether the sink returned False."""

    async def head(self) -> int:
        """Wait for the head and return the status. Closed."""
        while not self.status:
            await self._wait()
        return self.status

    async def read(self) -> bytes:
        """Wait for bytes of the body and return all that arrived; b"" at the end. Closed if it breaks off."""
        while not self._parts:
            if self._ended:
                return b""
            await self._wait()
        return self._take()

    async def feed(self, sink: Callable[[bytes], bool]) -> None:
        """Call `sink` with the bytes of the body as they arrive, until it returns False or the body ends. Closed if it breaks off.

        It is called from within the read of the socket, without waiting for a task's turn. Bytes that arrive after a False are kept for the
        next call.
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
        self._unread = 0
        if self._connection is not None:
            self._connection.resume()
        return found

    def fail(self, error: TransportError) -> None:
        """End it: whoever reads it gets `error`."""
        self._error = self._error or error
        self._wake()
        self.close()

    def close(self) -> None:
        """Close the connection, unless the response has ended. An engine that is still generating stops."""
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

    # Called by the connection.

    def head_received(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self._wake()

    def body_received(self, data: bytes) -> None:
        self._parts.append(data)

    def data_parsed(self, size: int) -> int:
        """A read of `size` bytes was parsed. Returns how many bytes are now unread, about."""
        if self._parts:
            self._unread += size
            if self._sink is None:
                self._wake()
            elif not self._sink(self._take()):
                self._sink, self._full = None, True
                self._wake()
        return self._unread

    def completed(self) -> None:
        self._ended, self._connection = True, None
        self._wake()

    def connection_lost(self, message: str) -> None:
        self._connection = None
        self._error = self._error or Closed(message, reused=self._reused and not self.status)
        self._wake()


class _Connection(asyncio.Protocol):
    """A socket and the parser of its responses."""

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

    def send(self, data: bytes, reused: bool) -> Response:
        response = self._response = Response(self, reused)
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

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None:  # bytes without a request
            self._abort()
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("it does not speak HTTP")
            return
        finally:
            if response.data_parsed(len(data)) > HIGH_WATER and self._response is response and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        # Checked after the read was parsed: it may have brought a head and much of a body.
        if self._response is not None and not self._response.status and self._head_bytes > LONGEST_HEAD:
            self._fail("its head has no end")

    def connection_lost(self, error: Exception | None) -> None:
        response, self._response = self._response, None
        self._transport = None
        self._pool.discard(self)
        if response is not None:
            if response.status and not self._framed and error is None:
                response.completed()  # a body that lasts until the connection ends
            else:
                response.connection_lost(str(error or "closed"))

    # Called by httptools.

    def on_message_begin(self) -> None:
        if self._response is None:  # a second response to one request: it would be taken for the next request's
            self._abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is None or self._response.status:  # a trailer
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._response is not None:
            self._framed = "content-length" in self._headers or "transfer-encoding" in self._headers or status in BODILESS
            self._response.head_received(status, self._headers)
        else:
            self._headers = {}

    def on_body(self, data: bytes) -> None:
        if self._response is not None:
            self._response.body_received(data)

    def on_message_complete(self) -> None:
        response = self._response
        if response is None or not response.status:  # 1xx: the final response is still to come
            return
        self._response = None
        reusable = self._framed and self._parser.should_keep_alive()
        response.completed()
        self.resume()
        if reusable and self.usable:
            self._pool.put_back(self)
        else:
            self._abort()

    def _fail(self, message: str) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.connection_lost(message)
        self._abort()

    def _abort(self) -> None:
        self._pool.discard(self)
        if self._transport is not None:
            self._transport.abort()
