"""Row 12 of reliability.md: clients that drip, and those that are too many; the others are served."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

import msgspec
import pytest

from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import POLICY, Bench, bench
from tests.support.raw_http import Wire, head

HEADERS, BODIES, MEASURED = (500, 200, 1000) if FULL else (50, 20, 100)
TIMES = {} if FULL else {"header_seconds": 1.0, "body_seconds": 2.0}
"""Seconds of the gateway; the full run has the configuration's own."""
HEADER_SECONDS, BODY_SECONDS = (10, 30) if FULL else (3, 6)
DRIP_SECONDS = 0.25
BODY = msgspec.json.encode({"model": POLICY, "messages": [{"role": "user", "content": "say:hello"}]})


async def p99(made: Bench) -> float:
    """Of the seconds that a plain request takes, four at a time."""
    taken: list[float] = []
    clock = asyncio.get_running_loop().time

    async def client() -> None:
        for _ in range(MEASURED // 4):
            begun = clock()
            assert (await made.chat()).status_code == 200
            taken.append(clock() - begun)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client())
    return statistics.quantiles(taken, n=100)[-1]


async def dripped(made: Bench, start: bytes, rest: bytes) -> tuple[bytes, float]:
    """The answer's first line, and the seconds until the connection was closed."""
    wire = await Wire.open(made.url)
    await wire.send(start)
    over = asyncio.ensure_future(wire.reader.read())
    for i in range(len(rest)):
        if (await asyncio.wait([over], timeout=DRIP_SECONDS))[0]:
            break
        await wire.send(rest[i : i + 1])
    said = await over
    seconds = asyncio.get_running_loop().time() - wire.opened
    wire.close()
    return said.split(b"\r\n")[0], seconds


@pytest.mark.slow
async def test_dripped_headers_and_bodies_are_closed_in_time_and_others_are_served(tmp_path: Path) -> None:
    async with bench(tmp_path, limits=TIMES) as made:
        await p99(made)
        quiet = await p99(made)
        header = head("POST", "/v1/chat/completions", authorization="Bearer rk-client", content_length=str(2**20))
        attacks = [dripped(made, b"", header[:-4] + b"a" * 1000) for _ in range(HEADERS)]
        attacks += [dripped(made, header, BODY + b" " * 1000) for _ in range(BODIES)]
        under = asyncio.gather(*attacks)
        busy = await p99(made)
        ends = await under
        firsts, seconds = [first for first, _ in ends], [taken for _, taken in ends]
        slowest = max(seconds[:HEADERS]), max(seconds[HEADERS:])
        measured(f"{HEADERS} headers closed <= {slowest[0]:.1f} s, {BODIES} bodies <= {slowest[1]:.1f} s")
        measured(f"p99 {quiet * 1000:.1f} ms, under attack {busy * 1000:.1f} ms ({busy / quiet:.2f}x)")
        assert set(firsts) == {b"HTTP/1.1 408 Request Timeout"}
        assert slowest[0] <= HEADER_SECONDS
        assert slowest[1] <= BODY_SECONDS


async def test_the_operator_gets_in_when_the_data_plane_is_full(tmp_path: Path) -> None:
    async with bench(tmp_path, limits={"max_connections": 10}) as made:
        held = [await Wire.open(made.url) for _ in range(10)]
        for wire in held:
            await wire.send(head("GET", "/healthz"))
        served = [wire for wire in held if (await wire.answer()).status == 200]
        assert len(served) >= 8  # the test's own client may hold a place
        for wire in served:
            await wire.send(b"G")  # one that rests would make room
        late = await Wire.open(made.url)
        answer = await late.answer()
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "too_many_connections", "1")
        assert await late.closed() < 1
        assert (await made.call("GET", "/admin/ledger", key="operator")).status_code == 200
        assert await made.metric("ratchet_turned_away_total", code="too_many_connections") >= 1
        for wire in [*held, late]:
            wire.close()
