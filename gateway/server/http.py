"""The few ASGI moves that the gateway makes itself: read a bounded body, send an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from starlette.types import Message, Receive, Scope, Send

from gateway.errors import ApiError, Unread
from gateway.server.bodies import Share

JSON = (b"content-type", b"application/json")
LINGER_SECONDS = 2.0
"""Seconds an answer to a request that was not read to its end waits for its client to see it."""
LONGEST_LENGTH = 19
"""Digits of a content length that are worth reading."""
PIECE = 2**14
"""Bytes of a body that are kept by themselves; fewer are added to those before."""
Header = tuple[bytes, bytes]


class ClientGone(Exception):
    """The client closed the connection before its request was whole; there is nobody to answer."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that (lower-case) name."""
    named: dict[bytes, bytes] | None = scope.get("named")
    if named is None:
        named = scope["named"] = dict(reversed(scope["headers"]))
    value = named.get(name)
    return None if value is None else value.decode("latin-1")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request's body, at most `limit` bytes: 413 before any more is kept, 408 if it takes too long, 415 if it is compressed.

    503 past what the port may hold of bodies in all. The plane put the request's share of that in `scope["state"]["share"]`.
    """
    if (header(scope, b"content-encoding") or "identity").lower() != "identity":
        raise Unread(415, "A compressed body is not accepted.", code="unsupported_content_encoding")
    share: Share = scope["state"]["share"]
    told = header(scope, b"content-length")
    if told is not None and told.isdigit():
        if len(told) > LONGEST_LENGTH or int(told) > limit:
            raise _too_large(limit)
        share.fits(int(told))
    pieces: list[bytes] = []
    try:
        if scope["connection"].complete:  # nothing to wait for
            await _collect(receive, limit, share, pieces)
        else:
            async with asyncio.timeout(share.seconds):
                await _collect(receive, limit, share, pieces)
        return b"".join(pieces)
    except TimeoutError:
        share.give_back()
        raise Unread(408, "The body did not arrive in time.", code="request_timeout") from None
    except ApiError:
        share.give_back()
        raise
    finally:
        pieces.clear()  # an error's traceback would keep them while it is being told


async def _collect(receive: Receive, limit: int, share: Share, pieces: list[bytes]) -> None:
    """Fills `pieces`. They are joined only once, as a buffer that grows is copied again and again; but one byte by itself takes forty."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        share.take(len(piece))
        if pieces and len(pieces[-1]) < PIECE:
            pieces[-1] += piece
        else:
            pieces.append(piece)
        more = message.get("more_body", False)


def _too_large(limit: int) -> ApiError:
    return Unread(413, f"The body is larger than {limit} bytes.", code="request_too_large")


async def respond(send: Send, status: int, body: bytes, headers: Iterable[Header] = (JSON,)) -> None:
    """A whole answer."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def refuse(receive: Receive, send: Send, error: ApiError, headers: Iterable[Header] = ()) -> None:
    """The error as an answer."""
    if isinstance(error, Unread):
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
