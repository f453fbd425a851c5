"""Clients cut off at random points, pipelined or not, engines that die meanwhile: afterwards nothing is held for any of them."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import psutil
import pytest

from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import POLICY, Bench, bench, until
from tests.support.raw_http import Wire, head

REQUESTS = 2000 if FULL else 200
ROUNDS = 20 if FULL else 4
SPARE = 20
"""Connections kept to the engines for a while, and the test's own."""


def request(number: int) -> bytes:
    fields = {"model": POLICY, "messages": [{"role": "user", "content": "say:" + "x" * 40}]}
    body = json.dumps({**fields, "stream": number % 2 == 0, "store": number % 3 != 0, "n": 1 + number % 5 // 4}).encode()
    return head("POST", "/v1/chat/completions", authorization="Bearer rk-client", content_length=str(len(body))) + body


async def cut(made: Bench, number: int, chance: random.Random) -> None:
    """One to three requests in one packet, or a part of one; leaves after some bytes of the answer, or none."""
    data = request(number) * chance.choice((1, 1, 3))
    wire = await Wire.open(made.url)
    await wire.send(data[: chance.choice((len(data), len(data), len(data) // 2))])
    try:
        async with asyncio.timeout(chance.random() / 4):
            left = chance.choice((1, 400, 4000, 2**20))
            while left > 0 and (found := await wire.reader.read(min(left, 512))):
                left -= len(found)
    except (TimeoutError, ConnectionError):
        pass
    wire.writer.transport.abort() if number % 2 else wire.close()


async def held(made: Bench) -> dict[str, float]:
    """What the gateway still holds of requests."""
    names = [("ratchet_inflight", ""), *((f"ratchet_engine_{what}", name) for what in ("tokens", "inflight") for name in made.fakes)]
    found = {name + engine: await made.metric(name, **({"engine": engine} if engine else {})) for name, engine in names}
    return {name: value for name, value in found.items() if value}


@pytest.mark.slow
async def test_whenever_clients_leave_and_engines_die_nothing_is_held_afterwards(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with bench(tmp_path, engines=2, routing={"hedge_seconds": 0.02}) as made:
        await made.healthy("fake-0", "fake-1")
        assert made.process is not None
        gateway = psutil.Process(made.process.pid)
        before = len(gateway.net_connections("tcp"))
        for round_ in range(ROUNDS):
            fault = ({"die_after": 7}, {"die_after": 0}, {"hang_after": 3}, {"die_after": 5, "exit": True})[round_ % 4]
            await made.fakes["fake-0"].faults(token_ms=2, times=20, **fault)
            await made.fakes["fake-1"].faults(token_ms=2)
            await asyncio.gather(*(cut(made, round_ + number, chance) for number in range(REQUESTS // ROUNDS)))
            if made.fakes["fake-0"].process.returncode is not None or fault.get("exit"):
                await made.fakes["fake-0"].again()
            await made.healthy("fake-0", "fake-1")

        async def free() -> bool:
            return not await held(made)

        try:
            await until(free, "nothing is held")
        except AssertionError:
            raise AssertionError(await held(made)) from None

        async def closed() -> bool:
            return len(gateway.net_connections("tcp")) <= before + SPARE

        await until(closed, "the connections are closed")
        assert (await made.chat()).status_code == 200
        assert not [word for word in ("Traceback", "never retrieved", "without completing") if word in made.log()]
        measured("%d requests cut in %d rounds", REQUESTS, ROUNDS)
