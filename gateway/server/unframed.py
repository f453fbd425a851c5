"""Respond to clients of HTTP/1.0, which know no chunked bodies (RFC 9112, 6.1): a body of unknown length ends with the connection."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def unframed(cycle: RequestResponseCycle, app: ASGIApp) -> ASGIApp:
    """`app`, with its response sent by `cycle` without chunks and followed by the end of the connection."""
    cycle.keep_alive = cycle.waiting_for_100_continue = False

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        length_known = False

        async def send_unframed(message: Message) -> None:
            nonlocal length_known
            if message["type"] == "http.response.start":
                length_known = any(name.lower() == b"content-length" for name, _ in message["headers"])
                cycle.chunked_encoding = None if length_known else False
            elif not length_known:
                # Wait for the client here, so that `send` does not: another message sent meanwhile would change the length set below.
                while cycle.flow.write_paused and not cycle.disconnected:
                    await cycle.flow.drain()
                cycle.expected_content_length = len(message.get("body", b""))  # so that uvicorn finds no mismatch
            await send(message)

        await app(scope, receive, send_unframed)

    return serve
