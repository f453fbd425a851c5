"""Clients of HTTP/1.0."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from starlette.types import Receive, Scope, Send

from gateway.server.http import body_message, respond
from tests.integration.gateway.test_protocol import GET, port
from tests.support.gateway_process import POLICY, bench
from tests.support.raw_http import Answer, Wire, head

PIECES = [b"one", b"", b"0\r\n\r\n", b"two"]
OLD = b"HTTP/1.0"


def old(method: str, path: str, version: bytes = OLD, **headers: str) -> bytes:
    return head(method, path, **headers).replace(b"HTTP/1.1", version, 1)


async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
    """An answer that does not tell its length."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for piece in PIECES:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def answer(url: str, data: bytes) -> tuple[Answer, bytes]:
    """The answer, and everything after its header or its declared length."""
    wire = await Wire.open(url)
    await wire.send(data)
    found = await wire.answer()
    rest = await wire.reader.read()
    wire.close()
    return found, rest


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0"])
@pytest.mark.parametrize("fields", [{}, {"connection": "keep-alive"}])
async def test_an_answer_without_a_length_comes_as_it_is_and_ends_with_the_connection(version: bytes, fields: dict[str, str]) -> None:
    async with port() as made:
        made.app = pieces
        found, rest = await answer(made.url, old("GET", "/", version, **fields))
        assert (found.status, rest) == (200, b"".join(PIECES))
        assert found.headers["connection"] == "close"
        assert "transfer-encoding" not in found.headers
        found, rest = await answer(made.url, head("GET", "/", connection="close"))
        assert found.headers["transfer-encoding"] == "chunked"


async def test_one_with_a_length_tells_it_and_the_connection_ends_too() -> None:
    async with port() as made:
        found, rest = await answer(made.url, old("POST", "/", content_length="3", expect="100-continue") + b"abc" + GET)
        assert (found.status, found.headers["content-length"], found.body, rest) == (200, "1", b"3", b"")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
async def test_one_without_a_body_has_none(method: str, status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"" if status == 204 else b"x", "more_body": False})

    async with port() as made:
        made.app = app
        found, rest = await answer(made.url, old(method, "/"))
        assert (found.status, rest) == (status, b"")


async def test_what_two_tasks_send_while_the_client_is_behind_comes_whole() -> None:
    waiting, sent = asyncio.Event(), bytearray()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            sent.extend(b"x" * 2**16)
            more = scope["state"]["connection"].send_chunk(b"x" * 2**16)
        sending = [asyncio.create_task(send(body_message(data, more=data != b"end"))) for data in (b": comment", b"end")]
        await asyncio.sleep(0)
        waiting.set()
        await asyncio.gather(*sending)

    async with port() as made:
        made.app = app
        wire = await Wire.open(made.url)
        await wire.send(old("GET", "/"))
        await waiting.wait()
        await wire.answer()
        assert await wire.reader.read() == bytes(sent) + b": commentend"
        wire.close()


async def test_an_application_that_fails_before_its_answer_is_500_with_its_length() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/late":
            await respond(send, 200, b"x")
        raise ValueError

    async with port() as made:
        made.app = app
        assert [(await answer(made.url, old("GET", path)))[0].status for path in ("/", "/late")] == [500, 200]


async def test_a_stream_of_the_gateway_reaches_a_client_of_http_1_0_unframed(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        body = msgspec.json.encode({"model": POLICY, "messages": [{"role": "user", "content": "say:hello"}], "stream": True})
        request = old("POST", "/v1/chat/completions", authorization="Bearer rk-client", content_length=str(len(body)))
        found, rest = await answer(made.url, request + body)
        assert found.status == 200
        assert "transfer-encoding" not in found.headers
        assert rest.startswith(b"data: {")
        assert rest.endswith(b"data: [DONE]\n\n")
