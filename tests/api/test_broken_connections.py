"""Connections to engines that break under a request, before its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.gateway_process import Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENT = {"retry": {"tries": 8}, "strategy": "round_robin"}


async def asked(made: Bench, text: str) -> list[str]:
    """The engines that were asked that, once for each time."""
    seen = {name: (await fake.state())["requests"] for name, fake in made.fakes.items()}
    return [name for name, requests in seen.items() for request in requests if request.get("messages", [{}])[-1].get("content") == text]


async def keeps(made: Bench, connections: int) -> None:
    """So many kept connections to each engine."""
    for fake in made.fakes.values():
        await fake.faults(token_ms=10)
    answers = await asyncio.gather(*(made.chat("say:" + "x" * 20) for _ in range(connections * len(made.fakes))))
    assert {answer.status_code for answer in answers} <= {200}
    for fake in made.fakes.values():
        await fake.faults()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """Three engines, each as likely as the others whatever they do."""
    routing = {**PATIENT, "breaker": {"failures": 1000}}
    async with bench(tmp_path_factory.mktemp("three"), engines=3, routing=routing) as made:
        await made.healthy(*made.fakes)
        yield made


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_engines_die_of_reaches_two_of_them_and_no_more(three: Bench, kept: int, stream: bool) -> None:
    await keeps(three, kept)
    for fake in three.fakes.values():
        await fake.faults(die_after=0)
    text = f"poison {kept} {stream}"
    answer = await three.chat(text, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
    assert len(set(await asked(three, text))) == len(await asked(three, text)) == 2


async def test_an_engine_that_refuses_is_not_taken_for_one_that_died(three: Bench) -> None:
    for fake in three.fakes.values():
        await fake.faults(refuse=500)
    assert (await three.chat("refused")).status_code == 503
    assert len(await asked(three, "refused")) == 3


async def test_of_a_hedged_request_that_engines_die_of_no_third_is_asked(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=3, routing={**PATIENT, "hedge_seconds": 0.001}) as made:
        await made.healthy(*made.fakes)
        for fake in made.fakes.values():
            await fake.faults(die_after=1, token_ms=300)
        assert (await made.chat("poison")).status_code == 503
        assert len(await asked(made, "poison")) == 2


async def test_a_kept_connection_that_was_closed_costs_one_try_however_many_are_kept(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await keeps(made, 8)
        await made.fakes["fake-0"].faults(die_after=0, times=1)
        assert (await made.chat("once")).status_code == 200
        assert len(await asked(made, "once")) == 2


async def test_kept_connections_that_break_do_not_hide_a_broken_engine_from_its_breaker(tmp_path: Path) -> None:
    async with bench(tmp_path, routing={"breaker": {"failures": 3, "open_seconds": 60}}) as made:
        await keeps(made, 8)
        await made.fakes["fake-0"].faults(die_after=0)
        answers = [await made.chat("broken") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {503}
        assert len(await asked(made, "broken")) == 4, "the first is tried again, on a fresh connection"
        assert (await made.engine("fake-0"))["breaker"] == "open"
