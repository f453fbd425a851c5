"""Answers to clients of HTTP/1.0, who know no chunks (RFC 9112, 6.1): a body whose length is not told ends with the connection."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def unframed(cycle: RequestResponseCycle, app: ASGIApp) -> ASGIApp:
    """`app`, whose answer `cycle` sends as it is and then closes the connection."""
    cycle.keep_alive = cycle.waiting_for_100_continue = False

    async def answers(scope: Scope, receive: Receive, send: Send) -> None:
        length_told = False

        async def plain(message: Message) -> None:
            nonlocal length_told
            if message["type"] == "http.response.start":
                length_told = any(name.lower() == b"content-length" for name, _ in message["headers"])
                cycle.chunked_encoding = None if length_told else False
            elif not length_told:
                while cycle.flow.write_paused and not cycle.disconnected:
                    await cycle.flow.drain()  # here, so that `send` does not: a comment that waits too would take this one's length
                cycle.expected_content_length = len(message.get("body", b""))  # what uvicorn is to find right
            await send(message)

        await app(scope, receive, plain)

    return answers
