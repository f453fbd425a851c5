"""A fast connection to the server: scripts in a pipeline, directly on the event loop.

redis-py's pipeline takes about as much CPU per answer as sending the answer to the client. This module uses only redis-py's parser
(hiredis) and its URLs. Everything else goes through `link`.
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
    ("ERR max number of clients", exceptions.ConnectionError),  # sent instead of a reply, before the server closes
)


def reply_error(text: str) -> exceptions.RedisError:
    """Return an error reply as redis-py's exception."""
    return next((kind(text) for word, kind in ERRORS if text.startswith(word)), exceptions.ResponseError(text))


_packed: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""Encode a command for the server. (The library's own annotation allows one-element tuples only.)"""


class Wire:
    """One connection, opened on first use and again after it broke."""

    def __init__(self, url: str, connect_seconds: float, answer_seconds: float) -> None:
        self._url = url
        self._connect_seconds = connect_seconds
        self._answer_seconds = answer_seconds
        self._line: _Line | None = None
        self._opening = asyncio.Lock()

    async def send(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the replies; an error reply is an exception in the list.

        Raises redis' ConnectionError and TimeoutError: the server may have executed some of the commands.
        """
        data = b"".join([_packed(command) for command in commands])
        line = self._line
        if line is None or line.closed:
            line = await self._open()
        return await line.ask(data, len(commands), self._answer_seconds)

    def close(self) -> None:
        if self._line is not None:
            self._line.close()

    async def _open(self) -> _Line:
        async with self._opening:
            if self._line is not None and not self._line.closed:
                return self._line
            options: dict[str, Any] = dict(parse_url(self._url))
            try:
                async with asyncio.timeout(self._connect_seconds):
                    line = await _connected(options)
                    await self._greet(line, options)
            except (OSError, TimeoutError) as error:
                raise exceptions.ConnectionError(str(error) or "no connection in time") from error
            self._line = line
            return line

    async def _greet(self, line: _Line, options: dict[str, Any]) -> None:
        try:
            for greeting in _greetings(options):
                for answer in await line.ask(_packed(greeting), 1, self._answer_seconds):
                    if isinstance(answer, Exception):
                        raise answer
        except BaseException:
            line.close()
            raise


async def _connected(options: dict[str, Any]) -> _Line:
    loop = asyncio.get_running_loop()
    if "path" in options:
        _, line = await loop.create_unix_connection(_Line, options["path"])
        return line
    _, line = await loop.create_connection(_Line, options.get("host", "localhost"), options.get("port", 6379), ssl=secured(options))
    return line


def secured(options: dict[str, Any]) -> ssl.SSLContext | None:
    """Return the TLS context that redis-py makes of the URL's `ssl_` options; None without TLS."""
    if not issubclass(options.get("connection_class", object), SSLConnection):
        return None
    own: dict[str, Any] = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return SSLConnection(**own).ssl_context.get()


def _greetings(options: dict[str, Any]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    if options.get("password"):
        found.append(("AUTH", options.get("username") or "default", options["password"]))
    if options.get("db"):
        found.append(("SELECT", str(options["db"])))
    return found


class _Line(asyncio.Protocol):
    """The socket, and the callers that wait for replies, each with how many."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: Any = None
        self._reader = hiredis.Reader(replyError=reply_error)
        self._waiting: deque[tuple[int, list[Any], asyncio.Future[list[Any]]]] = deque()

    async def ask(self, data: bytes, count: int, seconds: float) -> list[Any]:
        if self.closed:
            raise exceptions.ConnectionError("the connection is closed")
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[list[Any]] = loop.create_future()
        self._waiting.append((count, [], reply))
        self._transport.write(data)
        timer = loop.call_later(seconds, self._late, reply)
        try:
            return await reply
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
            _, _, reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(exceptions.ConnectionError(str(error or "the connection was closed")))

    def _take(self, answer: Any) -> None:
        count, found, reply = self._waiting[0]
        found.append(answer)
        if len(found) == count:
            self._waiting.popleft()
            if not reply.done():
                reply.set_result(found)

    def _late(self, reply: asyncio.Future[list[Any]]) -> None:
        """Close the connection too: a late reply would be taken for that of a later command."""
        if not reply.done():
            reply.set_exception(exceptions.TimeoutError("no answer in time"))
        self.close()
