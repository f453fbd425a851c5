"""gateway.transport on a socket that sends just what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.transport import LONGEST_HEAD, Closed, Pool


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Pool]:
    """A pool to a server that answers each request with `answer`, in one write."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        served.set()

    served = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = Pool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 5)
    async with server:
        yield pool
        pool.close()
        await served.wait()


async def test_a_head_that_comes_with_a_long_body_in_one_read_is_no_long_head() -> None:
    body = bytes(3 * LONGEST_HEAD)
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body) as pool:
        response = await pool.post("/", b"", {})
        assert await response.head() == 200
        found = b""
        while part := await response.more():
            found += part
        assert found == body


async def test_a_head_without_end_is_given_up() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 3 * LONGEST_HEAD) as pool:
        response = await pool.post("/", b"", {})
        with pytest.raises(Closed, match="no end"):
            await response.head()
