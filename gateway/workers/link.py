"""What the first worker and another say to each other, over a socket pair that the other finds as its standard input.

The first sends one Order, then Questions; the other a beat every second from then on, LISTENS once it does, and an Answer to each
question. Each message is its length in four bytes, then msgpack. Nobody else can reach it, and it ends with either process.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Literal

import msgspec

HEAD = 4
LONGEST = 64 * 2**20
"""Bytes of a message: an exposition with all its series is well below."""

BEAT_SECONDS = 1.0
LISTENS, BEAT = 0, -1
"""Numbers of the answers to no question."""

Kind = Literal["metrics", "load", "forget", "ready", "open"]


class Order(msgspec.Struct):
    """How the other worker is to serve: the whole configuration, so that a file edited since changes nothing."""

    config: dict[str, Any]
    first_keys: bool
    open: bool
    """Whether each worker has found an engine once."""


class Question(msgspec.Struct, array_like=True):
    number: int
    kind: Kind
    text: str = ""


class Answer(msgspec.Struct, array_like=True):
    number: int
    data: bytes = b""


class Link:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Link:
        """Takes `end` over."""
        end.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def send(self, message: msgspec.Struct) -> None:
        """OSError: the other process is gone."""
        data = msgspec.msgpack.encode(message)
        self._writer.write(len(data).to_bytes(HEAD, "big") + data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """The next message. OSError, EOFError: the other process is gone."""
        size = int.from_bytes(await self._reader.readexactly(HEAD), "big")
        if size > LONGEST:
            raise EOFError(f"a message of {size} bytes")
        return await self._reader.readexactly(size)

    def close(self) -> None:
        self._writer.close()
