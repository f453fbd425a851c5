"""Clients that ask and rate without pause, and a log of what the gateway acknowledged to them."""

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
class AcknowledgementLog:
    """Ids of what was acknowledged. `recorded`: complete answers without `x-ratchet-recorded: false`; `unrecorded`: those with it."""

    gateway: Bench
    noise: int = 0
    """Random bytes in each prompt, which do not compress."""
    recorded: set[str] = field(default_factory=set)
    unrecorded: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    rated: set[str] = field(default_factory=set)
    feedback: Counter[int] = field(default_factory=Counter)
    impatient: int = 0
    """How many 503s on feedback had no `Retry-After`."""
    longest: float = 0.0
    """Seconds that the slowest complete answer took."""
    leave: bool = False

    @property
    def answers(self) -> int:
        return len(self.recorded) + len(self.unrecorded)

    async def ask_until_stopped(self, turn: int) -> None:
        """Ask again and again, alternately for a stream and for a whole answer."""
        clock = asyncio.get_running_loop().time
        while not self.leave:
            turn, begun = turn + 1, clock()
            try:
                said = {"role": "user", "content": f"say:answer number {turn}"}
                noise = {"role": "system", "content": base64.b64encode(os.urandom(self.noise * 3 // 4)).decode()}
                answer = await self.gateway.chat(messages=[noise, said], stream=turn % 2 == 0)
            except httpx.TransportError as error:
                self.errors.append(type(error).__name__)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self.longest = max(self.longest, clock() - begun)
            self._log(answer)

    async def rate_until_stopped(self) -> None:
        """Rate recorded answers again and again."""
        turn = 0
        while not self.leave:
            await asyncio.sleep(PAUSE_SECONDS)
            target = next(iter(self.recorded), "an-episode")
            turn += 1
            body = {"target": target, "value": turn % 2, "idempotency_key": f"{id(self)}:{turn}"}
            try:
                answer = await self.gateway.call("POST", "/v1/feedback", body)
            except httpx.TransportError:
                continue
            self.feedback[answer.status_code] += 1
            if answer.status_code == 202:
                self.rated.add(answer.json()["id"])
            self.impatient += answer.status_code == 503 and "retry-after" not in answer.headers

    async def came(self, count: int) -> None:
        """Wait for `count` more answers."""
        wanted = self.answers + count

        async def there() -> bool:
            return self.answers >= wanted

        await until(there, f"{count} more answers")

    async def missing(self) -> set[str]:
        """Ids of the answers and feedback that were acknowledged and are not in the store."""
        keys = {schema.blob(item): item for item in self.recorded} | {schema.feedback(fb): fb for fb in self.rated}
        found = await self.gateway.store.interactions._link.together(*(("EXISTS", key) for key in keys)) if keys else []
        return {name for name, there in zip(keys.values(), found, strict=True) if not there}

    async def kept(self) -> None:
        """Wait until the store holds everything that was acknowledged."""

        async def all_there() -> bool:
            return not await self.missing()

        await until(all_there, "everything acknowledged is in the store")

    def _log(self, answer: httpx.Response) -> None:
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
async def loading(gateway: Bench, clients: int, noise: int = 0) -> AsyncIterator[AcknowledgementLog]:
    """Run `clients` clients for as long as the context lasts; then each finishes the request that it is at."""
    log = AcknowledgementLog(gateway, noise)
    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(log.ask_until_stopped(number * 1000))
        group.create_task(log.rate_until_stopped())
        try:
            await log.came(1)
            yield log
        finally:
            log.leave = True
