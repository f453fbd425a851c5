"""The client's connection under a real uvicorn."""

from __future__ import annotations

import asyncio

import httpx
from starlette.types import Receive, Scope, Send

from gateway.server.http import body_message, respond
from tests.integration.gateway.test_protocol import SHORT, port
from tests.support.raw_http import Wire, head


async def test_a_client_that_reads_slowly_is_reported_and_can_be_waited_for() -> None:
    """Chunks until the client reads too slowly; then ASGI's `send` waits until it has read them, and all of them arrive."""
    sent = bytearray()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while scope["state"]["connection"].send_chunk(b"x" * 2**16):
            sent.extend(b"x" * 2**16)
        await send(body_message(b""))
        await send(body_message(b"end", more=False))

    async with port() as made:
        made.app = app
        async with httpx.AsyncClient() as http:
            assert (await http.get(made.url)).content == bytes(sent) + b"x" * 2**16 + b"end"


async def test_a_connection_says_whether_its_requests_came_whole() -> None:
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["state"]["connection"].request_complete)
        while (await receive())["more_body"]:
            pass
        seen.append(scope["state"]["connection"].request_complete)
        await respond(send, 200, b"")

    async with port(header_seconds=20 * SHORT) as made:
        made.app = app
        wire = await Wire.open(made.url)
        await wire.send(head("POST", "/", content_length="3") + b"abc")
        await wire.answer()
        assert seen == [True, True]
        await wire.send(head("POST", "/", content_length="3"))
        while len(seen) < 3:
            await asyncio.sleep(0)
        await wire.send(b"abc")
        await wire.answer()
        assert seen[2:] == [False, True]
        wire.close()
