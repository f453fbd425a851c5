"""A gateway without one of its optimisations serves and records as the whole one does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bench.gateways import mock
from bench.gateways.mock import CHAT, MODEL, Mock
from bench.gateways.ours import PROGRAM, ours, read_back, recorded
from bench.gateways.target import Target
from bench.without import OPTIMISATIONS
from bench.without.run import CONTROL
from tests.support.gateways import plain_http, until

pytestmark = pytest.mark.slow

COUNT = 24
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def engine() -> AsyncIterator[Mock]:
    async with mock.mocked() as running:
        yield running


def client(target: Target) -> httpx.AsyncClient:
    key, _, value = target.headers[0].partition(": ")
    return plain_http(base_url=target.url, headers={key: value}, timeout=30)


async def stopped(engine: Mock) -> bool:
    return engine.running() == 0


async def leaves_mid_stream(target: Target, engine: Mock) -> None:
    """A client that closes its connection after the first chunk: the engine stops, and the answer is recorded as far as it came."""
    engine.step(-1)
    before = await recorded(target)
    body = {"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": 8}
    async with client(target) as http, http.stream("POST", CHAT, json=body) as answer:
        await anext(answer.aiter_lines())
        assert engine.running() == 1
    await until(lambda: stopped(engine), "the engine stops")
    assert await recorded(target, before + 1) == before + 1
    engine.step(0)


async def serves(target: Target, engine: Mock, folder: Path) -> None:
    answered = 0
    for stream, step in ((False, 0), (True, 0), (True, 1000)):
        engine.step(step)
        result = await mock.load(target.url, mock.request_body(folder, tokens=80, stream=stream), target.headers, c=8, n=COUNT, w=30)
        answered += result.ok
        assert (result.ok, result.leaks, sum(result.errors.values())) == (COUNT, 0, 0)
        assert await read_back(target, result.last_id) == "".join(f" w{n % 100:02}" for n in range(80))
    assert await recorded(target, answered + 1) == answered + 1  # and the one that `ready` asked for


@pytest.mark.parametrize("name", [CONTROL, *OPTIMISATIONS])
async def test_a_gateway_without_it_serves_and_records_everything(name: str, engine: Mock, tmp_path: Path) -> None:
    async with ours(engine.url, tmp_path, program=("-m", "bench.without.run", name, "--")) as target:
        await serves(target, engine, tmp_path)
        await leaves_mid_stream(target, engine)


@pytest.mark.parametrize("name", [None, "upstream_client"])
async def test_an_engine_that_is_away_or_breaks_off_is_an_error_on_either_client(name: str | None, tmp_path: Path) -> None:
    program = PROGRAM if name is None else ("-m", "bench.without.run", name, "--")
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 8}
    async with mock.mocked() as engine, ours(engine.url, tmp_path, program=program) as target, client(target) as http:
        engine.step(-1)
        async with http.stream("POST", CHAT, json={**body, "stream": True}) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            engine.stop()
            rest = [line async for line in lines]
        assert '"engine_broken"' in rest[-2] and "[DONE]" not in "".join(rest)
        whole = await http.post(CHAT, json=body)
        assert (whole.status_code, whole.json()["error"]["code"]) == (503, "engine_unavailable")


async def test_an_optimisation_that_does_not_exist_is_refused() -> None:
    argv = [sys.executable, "-m", "bench.without.run", "nothing", "--"]
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    assert process.returncode == 2 and b"'nothing'" in error
