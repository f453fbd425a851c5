"""The few ASGI moves that the gateway makes itself: read a bounded body, send an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Receive, Scope, Send

from gateway.errors import ApiError

JSON = (b"content-type", b"application/json")
BODY_SECONDS = 30.0
"""Seconds a request's body may take to arrive."""
LINGER_SECONDS = 2.0
UNREAD = frozenset({408, 413, 415})
"""Statuses that answer before the body was read."""
Header = tuple[bytes, bytes]


class ClientGone(Exception):
    """The client closed the connection before its request was whole; there is nobody to answer."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body, at most `limit` bytes: 413 before any more is kept, 408 after BODY_SECONDS, 415 if it is compressed."""
    if (header(scope, b"content-encoding") or "identity").lower() != "identity":
        raise ApiError(415, "A compressed body is not accepted.", code="unsupported_content_encoding")
    told = header(scope, b"content-length")
    if told is not None and told.isdigit() and int(told) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _collect(receive, limit)
    except TimeoutError:
        raise ApiError(408, "The body did not arrive in time.", code="request_timeout") from None


async def _collect(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit} bytes.", code="request_too_large")


async def respond(send: Send, status: int, body: bytes, headers: Iterable[Header] = (JSON,)) -> None:
    """A whole answer."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def refuse(receive: Receive, send: Send, error: ApiError, headers: Iterable[Header] = ()) -> None:
    """The error as an answer."""
    if error.status in UNREAD:
        await _refuse_unread(receive, send, error)
    else:
        await respond(send, error.status, error.body, [JSON, *error.headers, *headers])


async def _refuse_unread(receive: Receive, send: Send, error: ApiError) -> None:
    """The error as the answer to a body that was not read to its end; the connection closes.

    What still comes is thrown away for a moment: a close under a client that is writing would reset its connection, and
    it would never see the answer.
    """
    headers = [JSON, (b"connection", b"close"), (b"content-length", b"%d" % len(error.body)), *error.headers]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send(part(error.body))
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (message := await receive())["type"] != "http.disconnect" and message.get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send(part(b"", more=False))


def part(body: bytes, *, more: bool = True) -> Message:
    """A piece of a streamed answer."""
    return {"type": "http.response.body", "body": body, "more_body": more}
