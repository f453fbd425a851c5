"""Commands, scripts and pipelines, with the project's errors.

Each command and script may be sent twice without harm, because callers mint the ids and moves are compare-and-set. So after a
connection broke it is sent again on a new one. After a time-out it is not: the caller decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff

from ratchet import errors
from ratchet.buffer.lua import scripts
from ratchet.buffer.wire import Wire
from ratchet.config import StoreConfig

CONNECT_SECONDS = 2.0
COMMAND_SECONDS = 5.0
CONNECTIONS = 64
AGAIN_SECONDS = (0.02, 0.04, 0.08)
"""Pauses before a script is sent again on a new connection."""
HOUR_MS = 3_600_000
REPLIES: dict[str, type[errors.RatchetError]] = {
    "CONFLICT": errors.Conflict,
    "NOTYOURS": errors.TargetNotYours,
    "PARKED": errors.TooManyParked,
}
HINTS = {
    "command not allowed when used memory": "its memory is full; raise store.max_memory_mb or lower store.retention_hours",
    "MISCONF": "it cannot write its append-only file; free disk space",
    "You can't write against a read only": "it is a read-only replica; point store.url at the primary",
}


class Call(msgspec.Struct):
    """A script, its arguments, and at most one blob (kept apart: Lua's msgpack has no binary type)."""

    script: str
    args: dict[str, Any]
    blob: bytes = b""


class Link:
    """A pool of connections to one server, and the limits that every script gets."""

    def __init__(self, url: str, config: StoreConfig) -> None:
        retry = Retry(ExponentialBackoff(cap=0.2, base=0.02), 3, supported_errors=(exceptions.ConnectionError,))
        self._options: dict[str, Any] = {"socket_connect_timeout": CONNECT_SECONDS, "protocol": 2, "health_check_interval": 0}
        self.url = url
        self._client = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                url, max_connections=CONNECTIONS, timeout=COMMAND_SECONDS, socket_timeout=COMMAND_SECONDS, retry=retry, **self._options
            )
        )
        self._wire = Wire(url, CONNECT_SECONDS, COMMAND_SECONDS)
        self._limits = {
            "retention": max(1, round(config.retention_hours * HOUR_MS)),
            "ttl": max(1, round(config.feedback_ttl_hours * HOUR_MS)),
            "max_parked": config.max_parked,
        }

    def listener(self) -> Redis:
        """Return a new client for a subscription. It does not retry, so that the caller notices a broken connection."""
        return Redis.from_url(self.url, retry=Retry(NoBackoff(), 0), **self._options)

    async def do(self, *command: str | bytes | float) -> Any:
        """Execute one command. Return its reply."""
        with translated():
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def together(self, *commands: Sequence[str | bytes | float], atomic: bool = False) -> list[Any]:
        """Execute commands in one round trip, as one transaction if `atomic`. Return their replies."""
        with translated():
            async with self._client.pipeline(transaction=atomic) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return list(await pipe.execute())

    async def run(self, script: str, blob: bytes = b"", **args: Any) -> Any:
        """Run one script. Return its reply."""
        return (await self.run_all([Call(script, args, blob)]))[0]

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one round trip. Return their replies, or raise the first error once all were tried."""
        with translated():
            answers = await self._send(calls)
            if any(isinstance(answer, exceptions.NoScriptError) for answer in answers):
                await self.load()
                answers = await self._send(calls)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            return answers

    async def load(self) -> None:
        """Load the scripts into the server, which forgets them when it restarts."""
        await self.together(*(("SCRIPT LOAD", script.text) for script in scripts().values()))

    async def close(self) -> None:
        self._wire.close()
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        commands = [("EVALSHA", scripts()[call.script].sha, 0, self._pack(call.args), call.blob) for call in calls]
        for pause in AGAIN_SECONDS:
            try:
                return await self._wire.send(commands)
            except exceptions.AuthenticationError:
                raise
            except exceptions.ConnectionError:
                await asyncio.sleep(pause)
        return await self._wire.send(commands)

    def _pack(self, args: Mapping[str, Any]) -> bytes:
        return msgspec.msgpack.encode({**self._limits, **{key: value for key, value in args.items() if value is not None}})


@contextmanager
def translated() -> Iterator[None]:
    """The client library's errors as the project's.

    StoreUnavailable: no connection, no answer in time, or the server refused the write. Conflict, TargetNotYours,
    TooManyParked: what a script answered. StoreError: a fault of ours.
    """
    try:
        yield
    except exceptions.AuthenticationError as error:
        raise errors.StoreUnavailable(f"the store refuses the password of store.url: {error}") from None
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise errors.StoreUnavailable(f"no answer from the store: {error}") from None
    except exceptions.RedisError as error:
        raise _reply(str(error)) from None


def _reply(text: str) -> errors.RatchetError:
    word, _, rest = text.partition(" ")
    if word in REPLIES:
        return REPLIES[word](rest.split(" script:")[0])
    for sign, hint in HINTS.items():
        if sign in text:
            return errors.StoreUnavailable(f"the store refused: {hint}")
    return errors.StoreError(f"the store answered: {text}")
