"""The fast path to the server: pipelined scripts over one connection, directly on the event loop.

For each answer, redis-py's pipeline costs the gateway about as much CPU as sending the answer to the client. So this module uses
only hiredis, its parser, and its URL parsing. Everything else goes through `link`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio import SSLConnection
from redis.asyncio.connection import parse_url

ERRORS: tuple[tuple[str, type[exceptions.RedisError]], ...] = (
    ("NOSCRIPT", exceptions.NoScriptError),
    ("LOADING", exceptions.BusyLoadingError),
    ("NOAUTH", exceptions.AuthenticationError),
    ("WRONGPASS", exceptions.AuthenticationError),
    ("ERR max number of clients", exceptions.ConnectionError),  # sent instead of a reply, before the server closes the connection
)


def reply_error(text: str) -> exceptions.RedisError:
    """Return redis-py's exception for an error reply."""
    return next((kind(text) for word, kind in ERRORS if text.startswith(word)), exceptions.ResponseError(text))


_pack_command: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""Encode a command for the server. (The library's own annotation allows one-element tuples only.)"""


class Wire:
    """One connection, opened on first use and reopened after it breaks."""

    def __init__(self, url: str, connect_seconds: float, answer_seconds: float) -> None:
        self._url = url
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands and return their replies; error replies are returned as exceptions.

        Raises redis' ConnectionError or TimeoutError: the server may have run some of the commands.
        """
        data = b"".join([_pack_command(command) for command in commands])
        connection = self._connection
        if connection is None or connection.closed:
            connection = await self._open()
        return await connection.ask(data, len(commands), self._answer_seconds)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _open(self) -> _Connection:
        async with self._opening:
            if self._connection is not None and not self._connection.closed:
                return self._connection
            options: dict[str, Any] = dict(parse_url(self._url))
            try:
                async with asyncio.timeout(self._connect_seconds):
                    connection = await _connect(options)
                    await self._greet(connection, options)
            except (OSError, TimeoutError) as error:
                raise exceptions.ConnectionError(str(error) or "no connection in time") from error
            self._connection = connection
            return connection

    async def _greet(self, connection: _Connection, options: dict[str, Any]) -> None:
        try:
            for greeting in _greetings(options):
                for answer in await connection.ask(_pack_command(greeting), 1, self._answer_seconds):
                    if isinstance(answer, Exception):
                        raise answer
        except BaseException:
            connection.close()
            raise


async def _connect(options: dict[str, Any]) -> _Connection:
    loop = asyncio.get_running_loop()
    if "path" in options:
        _, connection = await loop.create_unix_connection(_Connection, options["path"])
        return connection
    _, connection = await loop.create_connection(
        _Connection, options.get("host", "localhost"), options.get("port", 6379), ssl=secured(options)
    )
    return connection


def secured(options: dict[str, Any]) -> ssl.SSLContext | None:
    """Return the SSL context that redis-py builds from the `ssl_` options of the URL; None without TLS."""
    if not issubclass(options.get("connection_class", object), SSLConnection):
        return None
    tls: dict[str, Any] = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return SSLConnection(**tls).ssl_context.get()


def _greetings(options: dict[str, Any]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    if options.get("password"):
        found.append(("AUTH", options.get("username") or "default", options["password"]))
    if options.get("db"):
        found.append(("SELECT", str(options["db"])))
    return found


class _Connection(asyncio.Protocol):
    """The socket, and a queue of those who wait for replies, with how many each expects."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: Any = None
        self._reader = hiredis.Reader(replyError=reply_error)
        self._waiting: deque[tuple[int, list[Any], asyncio.Future[list[Any]]]] = deque()

    async def ask(self, data: bytes, count: int, seconds: float) -> list[Any]:
        if self.closed:
            raise exceptions.ConnectionError("the connection is closed")
        loop = asyncio.get_running_loop()
        replies: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append((count, [], replies))
        self._transport.write(data)
        timer = loop.call_later(seconds, self._late, replies)
        try:
            return await replies
        finally:
            timer.cancel()

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while self._waiting:
                answer = self._reader.gets()
                if answer is False:
                    return
                self._take(answer)
        except hiredis.HiredisError:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        while self._waiting:
            _, _, replies = self._waiting.popleft()
            if not replies.done():
                replies.set_exception(exceptions.ConnectionError(str(error or "the connection was closed")))

    def _take(self, answer: Any) -> None:
        count, found, replies = self._waiting[0]
        found.append(answer)
        if len(found) == count:
            self._waiting.popleft()
            if not replies.done():
                replies.set_result(found)

    def _late(self, replies: asyncio.Future[list[Any]]) -> None:
        """Fail on a time-out. Late replies could be mistaken for those of later commands, so the connection is closed too."""
        if not replies.done():
            replies.set_exception(exceptions.TimeoutError("no answer in time"))
        self.close()
