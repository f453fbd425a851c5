"""Users that send requests to a gateway without pause, for tests of what happens under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support.gateway_process import Bench, until


class Load:
    """The responses that the users have received so far."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response] = []
        self.stop = asyncio.Event()

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)

    @property
    def engines(self) -> Counter[str]:
        return Counter(answer.headers.get("x-ratchet-engine", "") for answer in self.answers)

    async def more(self, count: int, engine: str | None = None) -> None:
        """Wait until `count` more answers have come (from `engine`, if given)."""

        def answered() -> int:
            return len(self.answers) if engine is None else self.engines[engine]

        goal = answered() + count
        await until(lambda: asyncio.sleep(0, answered() >= goal), f"{count} further answers of {engine or 'any engine'}")


@asynccontextmanager
async def under_load(ask: Callable[[int], Awaitable[httpx.Response]], users: int = 6) -> AsyncIterator[Load]:
    """Run `users` users that call `ask` with a running number until the block ends; then wait for their last answers."""
    load, numbers = Load(), iter(range(10**9))

    async def user() -> None:
        while not load.stop.is_set():
            load.answers.append(await ask(next(numbers)))

    tasks = [asyncio.create_task(user()) for _ in range(users)]
    try:
        yield load
    finally:
        load.stop.set()
        await asyncio.gather(*tasks)


def asks(made: Bench, text: str = "say:hello", **fields: Any) -> Callable[[int], Awaitable[httpx.Response]]:
    """The same question each time."""

    async def ask(_: int) -> httpx.Response:
        return await made.chat(text, **fields)

    return ask
