from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from engines import http
from engines.http import Client
from ratchet.errors import EngineBroken, EngineRefused, EngineUnavailable
from ratchet.process import free_port
from ratchet.types import EngineRecord

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(handle: Handler, *, api_key: str | None = None) -> AsyncIterator[Client]:
    """A client of a bare TCP server that does what `handle` does."""

    async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handle(reader, writer)
        finally:
            writer.close()

    tasks: list[asyncio.Task[None] | None] = []
    server = await asyncio.start_server(each, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client(EngineRecord("e", "vllm", "m", f"http://127.0.0.1:{port}/", "m", api_key=api_key))
    try:
        yield client
    finally:
        await client.close()
        server.close()
        await asyncio.gather(*(task for task in tasks if task is not None))


def answering(data: bytes) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return handle


async def test_a_body_comes_back() -> None:
    async with served(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) as client:
        assert await client.get("/x", seconds=5) == b"ok"


async def test_nobody_listening_is_unavailable() -> None:
    client = Client(EngineRecord("e", "vllm", "m", f"http://127.0.0.1:{free_port()}", "m"))
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        await client.get("/x", seconds=5)
    await client.close()


async def test_dying_before_the_first_byte_is_unavailable() -> None:
    async with served(answering(b"")) as client:
        with pytest.raises(EngineUnavailable):
            await client.post("/x", {}, seconds=5)


async def test_dying_within_the_body_is_broken() -> None:
    async with served(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok")) as client:
        with pytest.raises(EngineBroken, match="broke off"):
            await client.get("/x", seconds=5)


async def test_an_error_status_is_refused_and_keeps_status_and_body() -> None:
    async with served(answering(b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nbusy")) as client:
        with pytest.raises(EngineRefused, match="503") as caught:
            await client.get("/x", seconds=5)
    assert (caught.value.status, caught.value.body) == (503, b"busy")


async def test_a_redirect_is_refused_not_followed() -> None:
    async with served(answering(b"HTTP/1.1 302 F\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")) as client:
        with pytest.raises(EngineRefused):
            await client.get("/x", seconds=5)


async def test_silence_is_unavailable_in_time() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client gives up

    async with served(hang) as client:
        with pytest.raises(EngineUnavailable, match="in time"):
            await client.get("/x", seconds=0.05)


async def test_an_answer_past_the_bound_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BYTES", 4)
    async with served(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde")) as client:
        with pytest.raises(EngineBroken, match="more than"):
            await client.get("/x", seconds=5)


async def test_the_key_goes_along() -> None:
    received: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readexactly(2))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with served(handle, api_key="k") as client:
        await client.post("/x", {}, seconds=5)
    assert received == [b"{}"]
    assert http.authorization("k") == {"authorization": "Bearer k"}
    assert http.authorization(None) == {}
