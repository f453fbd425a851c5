"""The recorder and its way to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import zstandard
from redis.asyncio import BlockingConnectionPool, Redis

from bench.without.optimisation import optimisation, override, replace
from gateway.record import recorder
from ratchet.buffer import schema
from ratchet.buffer.wire import Wire
from ratchet.types import Interaction


class PipelineWire:
    """The interface of `wire.Wire` on redis-py's pipeline (with hiredis as its parser)."""

    def __init__(self, url: str, connect_seconds: float, answer_seconds: float) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=1,
            timeout=answer_seconds,
            socket_timeout=answer_seconds,
            socket_connect_timeout=connect_seconds,
            protocol=2,
        )
        self._client = Redis(connection_pool=pool)
        self._closing: asyncio.Future[None] | None = None

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute(raise_on_error=False))

    def close(self) -> None:
        self._closing = asyncio.ensure_future(self._client.connection_pool.disconnect())


@optimisation("scripts go to the store over a connection of our own, parsed by hiredis", instead="redis-py's pipeline")
def store_wire() -> None:
    replace(Wire, PipelineWire)


@optimisation("up to 64 answers are written to the store together", instead="one answer after the other")
def grouped_writes() -> None:
    override(recorder, "GROUP", 1)


@optimisation("a write is awaited by a callback and a timer", instead="`asyncio.wait`")
def bare_wait() -> None:
    async def within(task: asyncio.Task[None], seconds: float) -> None:
        await asyncio.wait({task}, timeout=seconds)

    override(recorder, "_within", within)


@optimisation("records are compressed at zstd's level -1", instead="level 3, its default")
def fast_compression() -> None:
    override(schema, "_LEVEL", 3)


@optimisation("a thread keeps its compressor", instead="one compressor for each record")
def kept_compressor() -> None:
    def pack(item: Interaction) -> bytes:
        try:
            return bytes(zstandard.ZstdCompressor(level=schema._LEVEL).compress(schema._encoder.encode(item)))
        except (OverflowError, RecursionError, TypeError) as error:
            raise ValueError(f"{item.id} cannot be packed: {error}") from None

    override(schema, "pack", pack)
