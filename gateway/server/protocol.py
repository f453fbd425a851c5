"""uvicorn's HTTP protocol, with limits on what happens before the application is called: connections, headers, idle time.

Each connection has one timer, which looks at the connection's state; nothing is done for each chunk of a response. A request costs a few
assignments, and one pass over its headers if it came in more bytes than one header line may have.

It builds on uvicorn's internals: see tests/integration/gateway/test_uvicorn.py, and the version in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.errors import ApiError, unavailable
from gateway.server.client import ClientConnection
from gateway.server.connection_limit import MAX_REFUSED, ConnectionLimit
from gateway.server.http import JSON, LINGER_SECONDS
from gateway.server.unframed import unframed
from ratchet import names

IDLE, HEADER, BODY, DISCARDING, REFUSED = range(5)
"""What a connection is reading: nothing yet, a header, a body; what is thrown away; what is thrown away after an error sent from here."""
MAX_PIPELINED = 8
"""Requests that may wait on a connection for the response to an earlier one."""
LINE_OVERHEAD = 4
"""Bytes of a header line beside its name and value: `: ` and CRLF."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `limited_by` makes the subclass that has the `limit` of its port."""

    limit: ClassVar[ConnectionLimit]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._phase = IDLE
        self._size = 0
        """Bytes that arrived since the header began, or since the last part of a body, with those before it in the same read."""
        self._header_after_more = False
        """Whether the header began in the middle of a read, so that `_size` is not its own size."""
        self._waiting_since = self.loop.time()
        """When it began to wait for what it is now waiting for."""
        self._unsent = math.inf
        """Bytes that the client had not taken when the timer last looked."""
        self._pending_error: ApiError | None = None
        """An error to send after the responses that are due."""
        self._counted = len(self.connections) <= self.limit.max_connections or self.limit.close_one_idle()
        self._client = ClientConnection(transport, self.flow, self.loop)
        self._current: RequestResponseCycle | None = None
        """The request that the application is serving."""
        self._timer = self.loop.call_later(self.limit.header_seconds, self._check_time)
        if not self._counted:
            self._refuse_connection()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.limit.mark_busy(self)
        self.limit.refused_open -= not self._counted
        super().connection_lost(exc)
        if self._current is not None:  # uvicorn notifies only the last request, which may still wait behind this one
            self._current.disconnected = True
            self._current.message_event.set()
        self._client.connection_lost()

    def data_received(self, data: bytes) -> None:
        if self._phase >= DISCARDING:
            return
        self._size += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._phase = DISCARDING
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            known = error.__context__
            self._refuse(known if isinstance(known, ApiError) else ApiError(400, "The request is not valid HTTP.", code="invalid_http"))
        else:
            if self._phase == IDLE:
                self._size = 0
            elif self._size > self.limit.header_bytes or len(self.headers) > self.limit.headers:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["state"]["connection"] = self._client
        self._client.request_complete = False
        self._phase = HEADER
        self._header_after_more = not self._size
        if not self._responding:
            self._waiting_since = self.loop.time()
            self.limit.mark_busy(self)

    def on_headers_complete(self) -> None:
        if self._header_after_more or self._size > self.limit.header_line or len(self.headers) > self.limit.headers:
            self._check_header_size()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ApiError(400, "Too many requests wait on this connection.", code="invalid_http")
        if self.parser.should_upgrade() and any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
            # The parser would take the body for what follows the upgrade.
            raise ApiError(400, "No upgrade is offered; send the request without one.", code="invalid_http")
        super().on_headers_complete()
        self.headers = []  # a trailer is no header
        self._phase = BODY
        self._size = 0

    def on_body(self, body: bytes) -> None:
        self._size = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._client.request_complete = True
        self._phase = IDLE
        self._size = 0
        super().on_message_complete()
        if not self._responding and not self.transport.is_closing():
            self.limit.mark_idle(self)  # the rest of a body that nobody read

    def on_response_complete(self) -> None:
        """What uvicorn's method does, without a timer for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._waiting_since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._pending_error is not None:
            self._refuse(self._pending_error)
        elif self._phase == IDLE:
            self.limit.mark_idle(self)

    def close_if_sent(self) -> bool:
        """See `IdleConnection`."""
        if self.transport.get_write_buffer_size():
            return False
        self.connections.discard(self)
        self.transport.abort()
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._current = cycle
        chunked = cycle.scope["http_version"] == "1.1"
        cycle.transport = self._client.begin_response(chunked=chunked)  # type: ignore[assignment]
        if not chunked:
            app = unframed(cycle, app)
        super()._start_asgi_task(cycle, app)

    @property
    def _responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _check_header_size(self) -> None:
        """ApiError 431 if the header, which is complete, is too large."""
        sizes = [len(self.url) + LINE_OVERHEAD, *(len(name) + len(value) + LINE_OVERHEAD for name, value in self.headers)]
        if len(self.headers) > self.limit.headers or max(sizes) > self.limit.header_line or sum(sizes) > self.limit.header_bytes:
            raise _too_large()

    def _check_time(self) -> None:
        """Called by the timer: end what took too long, and set the timer for the earliest moment at which something else can have."""
        limit = self.limit
        if self._phase == REFUSED or self.transport.is_closing():
            self._abort_unless_read()
        elif self._responding:
            if self._client.on_disconnect is None and self.flow.write_paused:
                self._abort_unless_read()  # nobody else watches whether its client reads
            else:
                self._unsent = math.inf
                self._set_timer(limit.header_seconds)
        else:
            idle = self._phase == IDLE and self.cycle is not None
            remaining = self._waiting_since + (limit.keep_alive_seconds if idle else limit.header_seconds) - self.loop.time()
            if remaining > 0:
                self._set_timer(min(remaining, limit.header_seconds))
            elif self._phase == HEADER:
                self._refuse(ApiError(408, "The header did not arrive in time.", code="request_timeout"))
            else:
                self.transport.close()
                self._set_timer(LINGER_SECONDS)

    def _abort_unless_read(self) -> None:
        """Abort a connection that is closing or waits for its client, unless the client has read something since the last look."""
        unsent = self.transport.get_write_buffer_size()
        if not 0 < unsent < self._unsent:
            self.transport.abort()
            return
        self._unsent = unsent
        self._set_timer(self.limit.header_seconds)

    def _set_timer(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._check_time)

    def _refuse_connection(self) -> None:
        """Say that too many connections are open. This one is not counted, so that it takes nobody's place."""
        self.connections.discard(self)
        self.limit.refused_open += 1
        self._refuse(unavailable("Too many connections are open; try again.", "too_many_connections"))
        if self.limit.refused_open > MAX_REFUSED:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Send an error without calling the application, after the responses that are due, and close the connection.

        What still arrives is read for a moment: a reset, under a client that is writing, could overtake the response.
        """
        if self._responding and (self.cycle.response_started or not self.cycle.more_body or self.pipeline):
            self._phase, self._pending_error = DISCARDING, error
            return
        if self._responding:
            self.cycle.disconnected = True  # what the application sends now is dropped
            self.cycle.message_event.set()
        self._phase = REFUSED
        self.limit.on_refused(error)
        headers = [*self.server_state.default_headers, JSON, *error.headers, (b"x-request-id", names.mint("req_").encode())]
        headers += [(b"content-length", b"%d" % len(error.body)), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self._client.flush()  # the response before may be a head that still waits
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[error.status], lines, error.body))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_timer(LINGER_SECONDS)


def limited_by(limit: ConnectionLimit) -> type[asyncio.Protocol]:
    """The protocol of a port with these limits, for `uvicorn.Config(http=...)`."""
    members: dict[str, Any] = {"limit": limit}
    return type("PortProtocol", (LimitedProtocol,), members)


def _too_large() -> ApiError:
    return ApiError(431, "The request's header is too large.", code="header_too_large")
