"""A gateway without one of its optimisations serves and records as the whole one does."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from bench.gateways import mock
from bench.gateways.mock import CHAT, MODEL, Mock
from bench.gateways.ours import configuration, ours, read_back, recorded, served
from bench.gateways.target import Target
from bench.without import OPTIMISATIONS
from bench.without.run import CONTROL
from ratchet.process import free_port
from tests.support.gateway_process import plain_http, until

pytestmark = pytest.mark.slow

COUNT = 24
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}


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
    async with client(target) as http, http.stream("POST", CHAT, json={**BODY, "stream": True}) as answer:
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
    async with ours(engine.url, tmp_path, program=without(name)) as target:
        await serves(target, engine, tmp_path)
        await leaves_mid_stream(target, engine)


def without(name: str) -> tuple[str, ...]:
    """What Python runs as the gateway."""
    return ("-m", "bench.without.run", name, "--")


@asynccontextmanager
async def limited(engine: Mock, folder: Path, name: str, **limits: float) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway without `name` that has these time limits."""
    settings = configuration(engine.url, (free_port(), free_port()))
    settings["gateway"] |= limits
    async with served(settings, folder, program=without(name)) as target, client(target) as http:
        yield http


@pytest.mark.parametrize("name", [CONTROL, "upstream_client"])
async def test_an_engine_that_breaks_off_or_is_away_is_an_error(name: str, engine: Mock, tmp_path: Path) -> None:
    async with limited(engine, tmp_path, name) as http:
        engine.step(-1)
        async with http.stream("POST", CHAT, json={**BODY, "stream": True}) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            engine.stop()
            rest = [line async for line in lines]
        assert '"engine_broken"' in rest[-2] and "[DONE]" not in "".join(rest)
        whole = await http.post(CHAT, json=BODY)
        assert (whole.status_code, whole.json()["error"]["code"]) == (503, "engine_unavailable")


@pytest.mark.parametrize("name", [CONTROL, "exchange_clocks", "upstream_client"])
@pytest.mark.parametrize("limit", ["idle_seconds", "total_seconds"])
async def test_a_stream_that_takes_too_long_ends_in_an_error(name: str, limit: str, engine: Mock, tmp_path: Path) -> None:
    async with limited(engine, tmp_path, name, **{limit: 1.0}) as http:
        engine.step(-1)
        answer = await http.post(CHAT, json={**BODY, "stream": True})
    assert '"engine_broken"' in answer.text and "[DONE]" not in answer.text


@pytest.mark.parametrize("name", [CONTROL, "first_byte_clock", "upstream_client"])
async def test_an_engine_that_gives_no_first_byte_is_given_up(name: str, engine: Mock, tmp_path: Path) -> None:
    async with limited(engine, tmp_path, name, first_byte_seconds=1.0) as http:
        engine.process.send_signal(signal.SIGSTOP)
        answer = await http.post(CHAT, json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")


async def test_an_optimisation_that_does_not_exist_is_refused() -> None:
    argv = [sys.executable, "-m", "bench.without.run", "nothing", "--"]
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    assert process.returncode == 2 and b"'nothing'" in error
