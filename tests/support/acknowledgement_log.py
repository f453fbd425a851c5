"""Clients that never stop asking and rating, and what they were told. Import from here; it needs no conftest."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from ratchet.buffer import schema
from tests.support.gateway_process import Bench, until

PAUSE_SECONDS = 0.02


@dataclass
class Load:
    """What the clients saw. `recorded`: answers that came whole and were not said to be unrecorded."""

    made: Bench
    noise: int = 0
    """Bytes of each prompt that no compression makes smaller."""
    recorded: set[str] = field(default_factory=set)
    unrecorded: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    rated: set[str] = field(default_factory=set)
    feedback: Counter[int] = field(default_factory=Counter)
    impatient: int = 0
    """503s on feedback without `Retry-After`."""
    longest: float = 0.0
    """Seconds of the slowest whole answer."""
    leave: bool = False

    @property
    def answers(self) -> int:
        return len(self.recorded) + len(self.unrecorded)

    async def asker(self, turn: int) -> None:
        """Streams and asks whole in turn."""
        clock = asyncio.get_running_loop().time
        while not self.leave:
            turn, begun = turn + 1, clock()
            try:
                said = {"role": "user", "content": f"say:answer number {turn}"}
                noise = {"role": "system", "content": base64.b64encode(os.urandom(self.noise * 3 // 4)).decode()}
                answer = await self.made.chat(messages=[noise, said], stream=turn % 2 == 0)
            except httpx.TransportError as error:
                self.errors.append(type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self.longest = max(self.longest, clock() - begun)
            self._told(answer)

    async def rater(self) -> None:
        """Rates answers that came, again and again."""
        turn = 0
        while not self.leave:
            await asyncio.sleep(PAUSE_SECONDS)
            target = next(iter(self.recorded), "an-episode")
            turn += 1
            body = {"target": target, "value": turn % 2, "idempotency_key": f"{id(self)}:{turn}"}
            try:
                answer = await self.made.call("POST", "/v1/feedback", body)
            except httpx.TransportError:
                continue
            self.feedback[answer.status_code] += 1
            if answer.status_code == 202:
                self.rated.add(answer.json()["id"])
            self.impatient += answer.status_code == 503 and "retry-after" not in answer.headers

    async def came(self, count: int) -> None:
        """Waits for `count` answers more."""
        wanted = self.answers + count

        async def there() -> bool:
            return self.answers >= wanted

        await until(there, f"{count} more answers")

    async def missing(self) -> set[str]:
        """Answers and rewards that were acknowledged and are not in the store."""
        keys = {schema.blob(item): item for item in self.recorded} | {schema.feedback(fb): fb for fb in self.rated}
        found = await self.made.store.interactions._link.together(*(("EXISTS", key) for key in keys)) if keys else []
        return {name for name, there in zip(keys.values(), found, strict=True) if not there}

    async def kept(self) -> None:
        """Waits until nothing that was acknowledged is missing."""

        async def all_there() -> bool:
            return not await self.missing()

        await until(all_there, "everything acknowledged is in the store")

    def _told(self, answer: httpx.Response) -> None:
        whole = answer.status_code == 200
        if whole and answer.headers["content-type"].startswith("text/event-stream"):
            whole = answer.text.endswith("data: [DONE]\n\n")
            first = answer.text.partition("\n\n")[0].removeprefix("data: ")
        else:
            first = answer.text
        if not whole:
            self.errors.append(f"{answer.status_code}: {answer.text[-200:]}")
            return
        kept = self.recorded if answer.headers.get("x-ratchet-recorded") != "false" else self.unrecorded
        kept.add(json.loads(first)["id"])


@asynccontextmanager
async def loading(made: Bench, clients: int, noise: int = 0) -> AsyncIterator[Load]:
    """Load for as long as the context lasts; then every client finishes its turn."""
    load = Load(made, noise)
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(load.asker(number * 1000))
        group.create_task(load.rater())
        try:
            await load.came(1)
            yield load
        finally:
            load.leave = True
