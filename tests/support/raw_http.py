"""HTTP/1.1 written byte by byte, for tests of slow, broken and hostile clients."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

DEADLINE = 30.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return dict(json.loads(self.body)["error"])


class Wire:
    """One connection to the server at `url`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.opened = asyncio.get_running_loop().time()

    @classmethod
    async def open(cls, url: str) -> Wire:
        host, port = url.removeprefix("http://").rsplit(":", 1)
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> None:
        """Send `data`. No error if the server has closed the connection."""
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> Answer:
        """Read the next response. Raises ConnectionError or EOFError if there is none."""
        async with asyncio.timeout(DEADLINE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    async def closed(self) -> float:
        """Wait until the server has closed the connection; return the seconds since it was opened."""
        async with asyncio.timeout(DEADLINE):
            with suppress(ConnectionError):
                while await self.reader.read(2**16):
                    pass
        return asyncio.get_running_loop().time() - self.opened

    async def drip(self, data: bytes, seconds: float) -> None:
        """Send one byte every `seconds`, until the server has closed the connection."""
        over = asyncio.ensure_future(self.closed())
        for i in range(len(data)):
            await self.send(data[i : i + 1])
            if (await asyncio.wait([over], timeout=seconds))[0]:
                break
        await over

    def close(self) -> None:
        self.writer.close()


def head(method: str, path: str, **headers: str) -> bytes:
    """Return a request's head as bytes; `_` in a header's name becomes `-`."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
