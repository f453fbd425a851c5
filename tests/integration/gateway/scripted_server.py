"""Real servers for the tests of gateway.relay.transport, and how those read its answers. Import from here; it needs no conftest."""

from __future__ import annotations

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway.relay.transport import Pool, Response

DEADLINE = 10.0
OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"
Talk = Callable[[StreamReader, StreamWriter], Awaitable[None]]


class Server:
    """The requests it received, connection by connection, as bytes."""

    def __init__(self) -> None:
        self.url = ""
        self.connections: list[list[bytes]] = []
        self.client_closed = asyncio.Event()
        """A client closed its connection."""


async def request(reader: StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return head + await reader.readexactly(length)


@asynccontextmanager
async def serving(*answers: bytes | Talk, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server that gives these answers in turn, over all its connections; after the last it closes them. Bytes stand for themselves."""
    remaining, server, tasks = list(answers), Server(), set[asyncio.Future[None]]()

    async def handle(reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        requests: list[bytes] = []
        server.connections.append(requests)
        try:
            while remaining:
                requests.append(await request(reader))
                answer = remaining.pop(0)
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                else:
                    await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            server.client_closed.set()
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, host, 0, ssl=tls)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        yield server
    finally:
        listening.close()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DEADLINE)
            assert not late, "a client did not close its connection"


@asynccontextmanager
async def pooled(url: str) -> AsyncIterator[Pool]:
    pool = Pool(url, 5.0)
    try:
        async with asyncio.timeout(DEADLINE):
            yield pool
    finally:
        pool.close()


async def body(response: Response) -> bytes:
    return b"".join([piece async for piece in pieces(response)])


async def post(pool: Pool) -> tuple[int, bytes]:
    response = await pool.post("/v1/x", b"{}", {})
    return await response.head(), await body(response)


async def pieces(response: Response) -> AsyncIterator[bytes]:
    while piece := await response.read():
        yield piece


async def stay(reader: StreamReader, _: StreamWriter) -> None:
    """Waits for the client to go."""
    if await reader.read(1) == b"":
        raise ConnectionResetError


async def begin(reader: StreamReader, writer: StreamWriter) -> None:
    """Begins an answer and does not go on with it."""
    writer.write(OK + b"content-length: 500\r\n\r\nhel")
    await stay(reader, writer)
