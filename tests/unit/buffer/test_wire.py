"""The hot way to the server, against sockets that answer just what the test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from redis import exceptions
from redis.asyncio.connection import parse_url

from ratchet.buffer.wire import Wire, reply_error, secured

DEADLINE = 5.0
SHORT = 0.1
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listening:
    """A server of the test's own; `ended` is how many of its connections the client closed, `news` is told of each."""

    def __init__(self, serve: Serve) -> None:
        self.url = ""
        self.opened = self.ended = 0
        self.news = asyncio.Condition()
        self._serve = serve

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        with suppress(ConnectionError):
            await self._serve(reader, writer)
            while await reader.read(2**16):
                pass
        writer.close()
        async with self.news:
            self.ended += 1
            self.news.notify_all()

    async def all_ended(self) -> None:
        async with asyncio.timeout(DEADLINE), self.news:
            await self.news.wait_for(lambda: self.ended == self.opened)


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[Listening]:
    made = Listening(serve)
    server = await asyncio.start_server(made, "127.0.0.1", 0)
    made.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield made
        await made.all_ended()


async def silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Says nothing, ever."""


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each `ECHO` with what it was given."""
    while await reader.readline() == b"*2\r\n":
        await reader.readline()
        await reader.readline()
        size = await reader.readline()
        writer.write(size + await reader.readline())


async def test_a_connection_whose_greeting_gets_no_answer_is_closed() -> None:
    async with listening(silent) as made:
        wire = Wire(made.url.replace("//", "//:secret@"), SHORT, DEADLINE)
        for _ in range(3):
            with pytest.raises(exceptions.ConnectionError):
                await wire.send([("PING",)])
        assert made.opened == 3
        await made.all_ended()
        wire.close()


async def test_a_caller_that_is_cancelled_as_it_connects_leaves_no_connection() -> None:
    async with listening(silent) as made:
        wire = Wire(made.url + "/3", DEADLINE, DEADLINE)
        asking = asyncio.create_task(wire.send([("PING",)]))
        async with asyncio.timeout(DEADLINE):
            while not made.opened:
                await asyncio.sleep(0)
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        await made.all_ended()
        wire.close()


async def test_without_an_answer_in_time_the_connection_goes_and_with_it_all_who_wait() -> None:
    async with listening(silent) as made:
        wire = Wire(made.url, DEADLINE, SHORT)
        found = await asyncio.gather(wire.send([("PING",)]), wire.send([("PING",)]), return_exceptions=True)
        assert {type(one) for one in found} <= {exceptions.TimeoutError, exceptions.ConnectionError}
        await made.all_ended()
        wire.close()


async def test_a_caller_that_was_cancelled_takes_nobody_elses_answer() -> None:
    async with listening(echoing) as made:
        wire = Wire(made.url, DEADLINE, DEADLINE)
        await wire.send([("ECHO", "0")])
        first = asyncio.create_task(wire.send([("ECHO", "1")]))
        second = asyncio.create_task(wire.send([("ECHO", "2"), ("ECHO", "3")]))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == [b"2", b"3"]
        wire.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOSCRIPT No matching script.", exceptions.NoScriptError),
        ("LOADING Redis is loading the dataset in memory", exceptions.ConnectionError),
        ("WRONGPASS invalid username-password pair", exceptions.AuthenticationError),
        ("ERR max number of clients reached", exceptions.ConnectionError),
        ("OOM command not allowed when used memory > 'maxmemory'.", exceptions.ResponseError),
    ],
)
def test_the_servers_errors_are_told_apart(text: str, kind: type[Exception]) -> None:
    assert isinstance(reply_error(text), kind)


def test_what_the_url_says_of_certificates_counts_here_too() -> None:
    lax = secured(dict(parse_url("rediss://host:1?ssl_cert_reqs=none&ssl_check_hostname=false")))
    strict = secured(dict(parse_url("rediss://host:1")))
    assert lax is not None and strict is not None
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert secured(dict(parse_url("redis://host:1"))) is None
