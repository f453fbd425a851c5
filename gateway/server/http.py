"""Read a request's body within limits, and send a response, with plain ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Receive, Scope, Send

from gateway.errors import ApiError, Unread
from gateway.server.bodies import BodyReservation
from gateway.server.state import RequestState

JSON = (b"content-type", b"application/json")
LINGER_SECONDS = 2.0
"""Seconds that a connection stays open after a response to a request that was not read to its end, so that the client sees it."""
MAX_LENGTH_DIGITS = 19
"""Digits of a content length that are worth reading."""
MIN_PART = 2**14
"""Bytes from which a part of a body is kept by itself. Smaller ones are joined with the part before."""
Header = tuple[bytes, bytes]


class ClientDisconnected(Exception):
    """The client closed the connection, so that nobody is there to respond to."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name, which is given in lower case."""
    state: RequestState = scope["state"]
    by_name = state.get("headers_by_name")
    if by_name is None:
        by_name = state["headers_by_name"] = dict(reversed(scope["headers"]))
    value = by_name.get(name)
    return None if value is None else value.decode("latin-1")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read the request's body, at most `limit` bytes of it.

    ApiError: 413 before more than that is kept, 408 if it takes too long, 415 if it is compressed, 503 if the port holds too many bytes of
    bodies already. ClientDisconnected.
    """
    if (header(scope, b"content-encoding") or "identity").lower() != "identity":
        raise Unread(415, "A compressed body is not accepted.", code="unsupported_content_encoding")
    state: RequestState = scope["state"]
    reservation = state["body_reservation"]
    length = header(scope, b"content-length")
    if length is not None and length.isdigit():
        if len(length) > MAX_LENGTH_DIGITS or int(length) > limit:
            raise _too_large(limit)
        reservation.check(int(length))
    parts: list[bytes] = []
    try:
        if state["connection"].request_complete:  # nothing to wait for
            await _collect(receive, limit, reservation, parts)
        else:
            async with asyncio.timeout(reservation.seconds):
                await _collect(receive, limit, reservation, parts)
        return b"".join(parts)
    except TimeoutError:
        reservation.release()
        raise Unread(408, "The body did not arrive in time.", code="request_timeout") from None
    except ApiError:
        reservation.release()
        raise
    finally:
        parts.clear()  # an error's traceback would keep them until the response is out


async def _collect(receive: Receive, limit: int, reservation: BodyReservation, parts: list[bytes]) -> None:
    """Receive the body into `parts`.

    They are joined only at the end, since a growing buffer is copied again and again. But a bytes object of one byte takes forty.
    """
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        reservation.add(len(part))
        if parts and len(parts[-1]) < MIN_PART:
            parts[-1] += part
        else:
            parts.append(part)
        more = message.get("more_body", False)


def _too_large(limit: int) -> ApiError:
    return Unread(413, f"The body is larger than {limit} bytes.", code="request_too_large")


async def respond(send: Send, status: int, body: bytes, headers: Iterable[Header] = (JSON,)) -> None:
    """Send a response whose body is known."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def refuse(receive: Receive, send: Send, error: ApiError, headers: Iterable[Header] = ()) -> None:
    """Send an error as the response."""
    if isinstance(error, Unread):
        await _refuse_unread(receive, send, error)
    else:
        await respond(send, error.status, error.body, [JSON, *error.headers, *headers])


async def _refuse_unread(receive: Receive, send: Send, error: ApiError) -> None:
    """Send an error as the response to a request whose body was not read to its end, and close the connection.

    What still arrives is thrown away for a moment. Closed at once, under a client that is writing, the connection would be reset, and the
    client would never see the response.
    """
    headers = [JSON, (b"connection", b"close"), (b"content-length", b"%d" % len(error.body)), *error.headers]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send(body_message(error.body))
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (message := await receive())["type"] != "http.disconnect" and message.get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send(body_message(b"", more=False))


def body_message(body: bytes, *, more: bool = True) -> Message:
    """ASGI's message for a part of a response's body."""
    return {"type": "http.response.body", "body": body, "more_body": more}
