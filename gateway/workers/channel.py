"""The channel between the first worker and another: a socket pair, whose other end the worker finds as its standard input.

The first worker sends one Assignment, then Requests. The other sends a heartbeat every second, LISTENING once it listens, and a
Reply to each request. A message is its length in four bytes, then msgpack. Nobody else can reach the channel; it ends with
either process.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Literal

import msgspec

LENGTH_BYTES = 4
MAX_MESSAGE_BYTES = 64 * 2**20
"""An exposition of all metrics is well below."""
HEARTBEAT_SECONDS = 1.0
LISTENING, HEARTBEAT = 0, -1
"""Numbers of the replies that answer no request."""

Kind = Literal["metrics", "load", "forget_key", "has_engine", "engines_found"]


class Assignment(msgspec.Struct):
    """How the other worker is to serve: the whole configuration, so that a file edited since then changes nothing."""

    config: dict[str, Any]
    first_keys: bool
    engines_found: bool
    """Whether every worker has found an engine once."""


class Request(msgspec.Struct, array_like=True):
    number: int
    kind: Kind
    text: str = ""


class Reply(msgspec.Struct, array_like=True):
    number: int
    data: bytes = b""


class Channel:
    """One end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """Return a channel over the socket `end`, which it owns from then on."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def send(self, message: msgspec.Struct) -> None:
        """Send a message. OSError if the other process has ended."""
        data = msgspec.msgpack.encode(message)
        self._writer.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """Return the next message, encoded. OSError or EOFError if the other process has ended or the message is too long."""
        size = int.from_bytes(await self._reader.readexactly(LENGTH_BYTES), "big")
        if size > MAX_MESSAGE_BYTES:
            raise EOFError(f"a message of {size} bytes")
        return await self._reader.readexactly(size)

    def close(self) -> None:
        self._writer.close()
