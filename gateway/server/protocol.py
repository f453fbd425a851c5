"""uvicorn's HTTP protocol, with bounds on what comes before the application: connections, headers, idleness.

One timer a connection looks at its state; nothing is done for each chunk of an answer. What a request costs: a few assignments,
and one pass over its headers if it came in more bytes than one header line may have.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.errors import ApiError, unavailable
from gateway.server.client import Client
from gateway.server.connection_limit import TURNED_AWAY, Door
from gateway.server.http import JSON, LINGER_SECONDS
from gateway.server.unframed import unframed
from ratchet import names

BETWEEN, HEAD, BODY, DEAF, REFUSED = range(5)
"""Where in its requests a connection is. DEAF: what still comes is thrown away. REFUSED: answered here; it lingers."""
PIPELINED = 8
"""Requests that may wait for an answer under way on their connection."""
LINE_ENDS = 4
"""Bytes of `: ` and CRLF."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `door` is set by `bounded`."""

    door: ClassVar[Door]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._phase = BETWEEN
        self._size = 0
        """Bytes fed since the header began, or since the last piece of a body; those before it in the same chunk too."""
        self._behind = False
        """Whether the header began behind something else in its chunk, so that `_size` does not tell its own."""
        self._since = self.loop.time()
        """When what it now waits for began."""
        self._unsent = math.inf
        self._fault: ApiError | None = None
        """What is still to be said once the answers that are due are out."""
        self._counted = len(self.connections) <= self.door.connections or self.door.makes_room()
        self._client = Client(transport, self.flow, self.loop)
        self._under_way: RequestResponseCycle | None = None
        """The request that the application has."""
        self._timer = self.loop.call_later(self.door.header_seconds, self._look)
        if not self._counted:
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self.door.works(self)
        self.door.turned_away -= not self._counted
        super().connection_lost(exc)
        if self._under_way is not None:  # uvicorn tells only the last one, which may wait behind it
            self._under_way.disconnected = True
            self._under_way.message_event.set()
        self._client.left()

    def data_received(self, data: bytes) -> None:
        if self._phase >= DEAF:
            return
        self._size += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._phase = DEAF
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            known = error.__context__
            self._refuse(known if isinstance(known, ApiError) else ApiError(400, "The request is not valid HTTP.", code="invalid_http"))
        else:
            if self._phase == BETWEEN:
                self._size = 0
            elif self._size > self.door.header_bytes or len(self.headers) > self.door.headers:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["connection"] = self._client
        self._client.complete = False
        self._phase = HEAD
        self._behind = not self._size
        if not self._answering:
            self._since = self.loop.time()
            self.door.works(self)

    def on_headers_complete(self) -> None:
        if self._behind or self._size > self.door.header_line or len(self.headers) > self.door.headers:
            self._measure()
        if len(self.pipeline) >= PIPELINED:
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
        self._client.complete = True
        self._phase = BETWEEN
        self._size = 0
        super().on_message_complete()
        if not self._answering and not self.transport.is_closing():
            self.door.rests(self)  # the rest of a body that nobody read

    def on_response_complete(self) -> None:
        """uvicorn's, without a timer for each request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._fault is not None:
            self._refuse(self._fault)
        elif self._phase == BETWEEN:
            self.door.rests(self)

    def give_way(self) -> bool:
        """See `door.Resting`."""
        if self.transport.get_write_buffer_size():
            return False
        self.connections.discard(self)
        self.transport.abort()
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._under_way = cycle
        chunked = cycle.scope["http_version"] == "1.1"
        cycle.transport = self._client.answering(chunked=chunked)  # type: ignore[assignment]
        if not chunked:
            app = unframed(cycle, app)
        super()._start_asgi_task(cycle, app)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _measure(self) -> None:
        """ApiError 431 if the header that is complete is too large."""
        sizes = [len(self.url) + LINE_ENDS, *(len(name) + len(value) + LINE_ENDS for name, value in self.headers)]
        if len(self.headers) > self.door.headers or max(sizes) > self.door.header_line or sum(sizes) > self.door.header_bytes:
            raise _too_large()

    def _look(self) -> None:
        """The timer: ends what took too long, and comes again before anything else can have."""
        door = self.door
        if self._phase == REFUSED or self.transport.is_closing():
            self._let_go()
        elif self._answering:
            if self._client.on_disconnect is None and self.flow.write_paused:
                self._let_go()  # nobody else watches whether its client reads
            else:
                self._unsent = math.inf
                self._later(door.header_seconds)
        else:
            idle = self._phase == BETWEEN and self.cycle is not None
            left = self._since + (door.keep_alive_seconds if idle else door.header_seconds) - self.loop.time()
            if left > 0:
                self._later(min(left, door.header_seconds))
            elif self._phase == HEAD:
                self._refuse(ApiError(408, "The header did not arrive in time.", code="request_timeout"))
            else:
                self.transport.close()
                self._later(LINGER_SECONDS)

    def _let_go(self) -> None:
        """Breaks a connection that is to close or waits for its client, unless that is still reading what it was sent."""
        unsent = self.transport.get_write_buffer_size()
        if not 0 < unsent < self._unsent:
            self.transport.abort()
            return
        self._unsent = unsent
        self._later(self.door.header_seconds)

    def _later(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._look)

    def _turn_away(self) -> None:
        """Past the bound: says so, and is not counted, so that it takes nobody's place."""
        self.connections.discard(self)
        self.door.turned_away += 1
        self._refuse(unavailable("Too many connections are open; try again.", "too_many_connections"))
        if self.door.turned_away > TURNED_AWAY:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Answers in the application's place, after the answers that are due, and closes.

        What still comes is read for a moment: a reset under a client that is writing could overtake the answer.
        """
        if self._answering and (self.cycle.response_started or not self.cycle.more_body or self.pipeline):
            self._phase, self._fault = DEAF, error
            return
        if self._answering:
            self.cycle.disconnected = True  # what the application says now goes nowhere
            self.cycle.message_event.set()
        self._phase = REFUSED
        self.door.refused(error)
        headers = [*self.server_state.default_headers, JSON, *error.headers, (b"x-request-id", names.mint("req_").encode())]
        headers += [(b"content-length", b"%d" % len(error.body)), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self._client.flush()  # the answer before this one may have been a head alone
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[error.status], lines, error.body))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._later(LINGER_SECONDS)


def bounded(door: Door) -> type[asyncio.Protocol]:
    """The protocol of the port whose door it is, as `uvicorn.Config(http=...)` wants it."""
    members: dict[str, Any] = {"door": door}
    return type("Bounded", (BoundedProtocol,), members)


def _too_large() -> ApiError:
    return ApiError(431, "The request's header is too large.", code="header_too_large")
