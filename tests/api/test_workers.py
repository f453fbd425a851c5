"""A gateway of two worker processes: who answers, what is counted, what happens when one of them dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway_process import DEADLINE, POLICY, Bench, bench, plain_http, recorded, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONG = "say:" + "x" * 60
CHAT = "/v1/chat/completions"
TRIES = 200
"""Connections opened until one is a certain worker's; each has an even chance."""


def pids(gateway: Bench) -> tuple[int, list[int]]:
    """The first worker, and the others."""
    assert gateway.process is not None
    return gateway.process.pid, [child.pid for child in psutil.Process(gateway.process.pid).children() if child.is_running()]


def _port(answer: httpx.Response) -> int:
    return int(answer.extensions["network_stream"].get_extra_info("client_addr")[1])


@asynccontextmanager
async def at(gateway: Bench, pid: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client with one connection, which that worker has."""
    async with AsyncExitStack() as opened:
        for _ in range(TRIES):
            limits = httpx.Limits(max_connections=1)
            headers = {"authorization": "Bearer rk-client"}
            http = await opened.enter_async_context(plain_http(base_url=gateway.url, headers=headers, limits=limits, timeout=DEADLINE))
            port = _port(await http.get("/healthz"))
            if any(c.raddr and c.raddr.port == port for c in psutil.Process(pid).net_connections("tcp")):
                yield http
                return
    raise AssertionError(f"no connection of {TRIES} went to {pid}")


def body(text: str, **fields: object) -> dict[str, object]:
    return {"model": POLICY, "messages": [{"role": "user", "content": text}], **fields}


async def values(gateway: Bench, name: str) -> dict[str, float]:
    """A metric's samples, by the label `worker` or `engine`."""
    text = (await gateway.call("GET", "/metrics", key="metrics")).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
    assert len({tuple(s.labels.items()) for s in samples}) == len(samples)
    return {s.labels.get("worker", s.labels.get("engine", "")): s.value for s in samples}


async def chats(gateway: Bench) -> float:
    return await gateway.metric("ratchet_requests_total", route=CHAT, status="200")


async def ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("two"), workers=2, port=0) as gateway:
        yield gateway


async def test_both_workers_answer_on_one_port_and_their_counts_add_up(two: Bench) -> None:
    first, (other,) = pids(two)
    before, kept = await chats(two), await two.metric("ratchet_recorded_total", status="complete")
    for pid, count in ((first, 2), (other, 3)):
        async with at(two, pid) as http:
            for _ in range(count):
                assert (await http.post(CHAT, json=body("say:hello"))).status_code == 200
    assert await chats(two) - before == 5
    assert await two.metric("ratchet_recorded_total", status="complete") - kept == 5
    assert set(await values(two, "process_open_fds")) == {"0", "1"}
    assert await values(two, "ratchet_engine_healthy") == {"fake-0": 1}


async def test_each_worker_has_a_heartbeat_of_its_own(two: Bench) -> None:
    async def both() -> bool:
        return len(await two.store.fleet.heartbeats()) == 2

    await until(both, "two heartbeats")


async def test_feedback_for_an_answer_that_runs_at_the_other_worker_is_joined(two: Bench) -> None:
    first, (other,) = pids(two)
    await two.fakes["fake-0"].faults(token_ms=20)
    try:
        async with at(two, first) as away, at(two, other) as http, http.stream("POST", CHAT, json=body(LONG, stream=True)) as answer:
            lines = answer.aiter_lines()
            item = json.loads((await anext(lines)).removeprefix("data: "))["id"]
            assert (await two.engine("fake-0"))["inflight"] == 1, "the first worker says what the other has there"
            assert await two.metric("ratchet_inflight") == 1
            given = await away.post("/v1/feedback", json={"target": item, "metric": "reward", "value": 1.0})
            assert given.status_code == 202, given.text
            assert [line async for line in lines if line][-1] == "data: [DONE]"
    finally:
        await two.fakes["fake-0"].faults()
    await recorded(two, item)

    async def joined() -> bool:
        ledger = (await two.call("GET", "/admin/ledger", key="operator")).json()
        return not ledger.get("parked") and bool(ledger.get("pending"))

    await until(joined, "the reward is the answer's")


async def test_a_revoked_key_ends_at_every_worker_at_once(two: Bench) -> None:
    key = (await two.call("POST", "/admin/keys", {"tenant": "acme", "scopes": ["infer"]}, key="operator")).json()
    _, (other,) = pids(two)
    async with at(two, other) as http:
        headers = {"authorization": f"Bearer {key['key']}"}
        assert (await http.get("/v1/models", headers=headers)).status_code == 200
        assert (await two.call("DELETE", f"/admin/keys/{key['id']}", key="operator")).status_code == 200
        assert (await http.get("/v1/models", headers=headers)).status_code == 401


async def test_a_worker_that_stands_still_is_killed_and_started_again(tmp_path: Path) -> None:
    async with bench(tmp_path, workers=2, port=0, worker_silence_seconds=2) as gateway:
        first, (other,) = pids(gateway)

        async def heartbeats(workers: int) -> None:
            async def counted() -> bool:
                return len(await gateway.store.fleet.heartbeats()) == workers

            await until(counted, f"{workers} heartbeats")

        await heartbeats(2)
        os.kill(first, signal.SIGSTOP)
        await heartbeats(1)
        os.kill(first, signal.SIGCONT)
        await heartbeats(2)
        assert await gateway.metric("ratchet_worker_restarts_total", worker="1") == 0, "it was the first that stood still"
        os.kill(other, signal.SIGSTOP)

        async def back() -> bool:
            return (await values(gateway, "process_open_fds")).keys() == {"0", "1"} and other not in pids(gateway)[1]

        await until(back, "another worker listens")
        assert await gateway.metric("ratchet_worker_restarts_total", worker="1") == 1
        assert "worker 1 stands still" in gateway.log()


async def test_a_killed_worker_comes_back_and_no_client_of_the_other_notices(tmp_path: Path) -> None:
    async with bench(tmp_path, workers=2, port=0) as gateway:
        first, (other,) = pids(gateway)
        async with at(gateway, other) as http:
            assert (await http.post(CHAT, json=body("say:hello"))).status_code == 200
        assert await chats(gateway) == 1
        await gateway.fakes["fake-0"].faults(token_ms=20)
        async with at(gateway, first) as http:
            running = asyncio.create_task(http.post(CHAT, json=body(LONG, stream=True)))
            os.kill(other, signal.SIGKILL)
            assert (await running).text.endswith("data: [DONE]\n\n")
            await gateway.fakes["fake-0"].faults()
            assert (await http.post(CHAT, json=body("say:hello"))).status_code == 200

        async def back() -> bool:
            return (await values(gateway, "process_open_fds")).keys() == {"0", "1"} and other not in pids(gateway)[1]

        await until(back, "another worker listens")
        (new,) = pids(gateway)[1]
        async with at(gateway, new) as http:
            assert (await http.post(CHAT, json=body("say:hello"))).status_code == 200, "it knows the engines before it listens"
        assert await chats(gateway) == 4, "what the killed one had counted is not lost"
        assert await values(gateway, "ratchet_worker_restarts_total") == {"1": 1}


async def test_sigterm_drains_all_workers(tmp_path: Path) -> None:
    async with bench(tmp_path, workers=2, port=0) as gateway:
        first, (other,) = pids(gateway)
        assert gateway.process is not None
        await gateway.fakes["fake-0"].faults(token_ms=20)
        async with at(gateway, first) as one, at(gateway, other) as two_:
            running = [asyncio.create_task(http.post(CHAT, json=body(LONG, stream=True))) for http in (one, two_)]

            async def both() -> bool:
                return bool((await gateway.fakes["fake-0"].state())["running"] == 2)

            await until(both, "both answer")
            gateway.process.terminate()
            for answer in running:
                assert (await answer).text.endswith("data: [DONE]\n\n")
        assert await asyncio.wait_for(gateway.process.wait(), DEADLINE) == 0
        assert await ended(other)
        assert await gateway.store.interactions.count() == 2


async def test_kill_nine_of_the_first_leaves_no_worker_and_its_port_is_free(tmp_path: Path) -> None:
    async with bench(tmp_path, workers=2, port=0) as gateway:
        _, (other,) = pids(gateway)
        assert gateway.process is not None
        gateway.process.kill()
        await gateway.process.wait()
        await until(lambda: ended(other), "the other worker ends")
        gateway.config["gateway"]["port"] = int(gateway.url.rpartition(":")[2])
        await gateway.launch()
        assert (await gateway.call("GET", "/healthz", key=None)).status_code == 200


async def test_workers_do_not_share_a_port_with_somebody_elses(tmp_path: Path) -> None:
    async with bench(tmp_path / "one", workers=2, port=0) as gateway:
        taken = int(gateway.url.rpartition(":")[2])
        async with bench(tmp_path / "two", engines=0, start=False, workers=2, port=taken) as late:
            with pytest.raises(AssertionError, match="before it served"):
                await late.launch()
            assert f"cannot listen on 127.0.0.1:{taken}" in late.log()


async def test_an_engine_that_is_removed_finishes_what_the_other_worker_has_there(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, workers=2, port=0) as gateway:
        await gateway.healthy("fake-0", "fake-1")
        _, (other,) = pids(gateway)
        for fake in gateway.fakes.values():
            await fake.faults(token_ms=40)
        async with at(gateway, other) as http, http.stream("POST", CHAT, json=body(LONG, stream=True)) as answer:
            name = answer.headers["x-ratchet-engine"]
            removal = await gateway.call("DELETE", f"/admin/engines/{name}", key="operator")
            assert (removal.status_code, removal.json()["inflight"]) == (202, 1)
            assert (await answer.aread()).endswith(b"data: [DONE]\n\n")

        async def removed() -> bool:
            return (await gateway.call("GET", f"/admin/engines/{name}", key="operator")).status_code == 404

        await until(removed, "the engine is removed")
