"""Which replica answers, and what happens where one does not: over real gateways and fake engines."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway_process import BASE, POLICY, Bench, bench, end, events, recorded, until


def ready(made: Bench) -> Any:
    return made.healthy(*made.fakes)


async def asked(made: Bench, name: str) -> int:
    """Requests an engine was sent so far, its health requests included."""
    return len((await made.fakes[name].state())["requests"])


async def test_an_engine_that_says_when_to_come_back_is_left_alone_until_then_and_so_told_where_all_do(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await ready(made)
        await made.fakes["fake-0"].faults(refuse=429, retry_after=40)
        before = await asked(made, "fake-0")
        answers = [await made.chat() for _ in range(12)]
        assert {answer.status_code for answer in answers} == {200}
        assert await asked(made, "fake-0") - before == 1
        assert (await made.engine("fake-0"))["paused"]
        await made.fakes["fake-1"].faults(refuse=503, retry_after=10**7)  # heeded up to max_pause_seconds
        before = await asked(made, "fake-1")
        refused = [await made.chat(stream=stream) for stream in (False, True, False)]
        assert {(answer.status_code, answer.json()["error"]["code"]) for answer in refused} == {(429, "engine_overloaded")}
        assert all(20 < int(answer.headers["retry-after"]) <= 40 for answer in refused)
        assert await asked(made, "fake-1") - before == 1


async def test_a_pause_ends_and_the_engine_serves_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.fakes["fake-0"].faults(refuse=503, retry_after=1, times=1)
        refused = await made.chat()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")

        async def serves() -> bool:
            return (await made.chat()).status_code == 200

        await until(serves, "it serves again")
        assert not (await made.engine("fake-0"))["paused"]


async def test_a_breaker_opens_after_failures_in_a_row_lets_one_trial_through_and_closes(tmp_path: Path) -> None:
    routing = {"breaker": {"failures": 3, "open_seconds": 1}, "strategy": "round_robin"}
    async with bench(tmp_path, engines=2, routing=routing) as made:
        await ready(made)
        await made.fakes["fake-0"].faults(refuse=500)
        statuses = Counter[int]()
        for _ in range(6):
            statuses[(await made.chat()).status_code] += 1
        assert (await made.engine("fake-0"))["breaker"] == "open"
        assert await made.metric("ratchet_engine_breaker", engine="fake-0") == 2
        failed = await asked(made, "fake-0")
        for _ in range(6):
            statuses[(await made.chat()).status_code] += 1
        assert await asked(made, "fake-0") == failed
        await made.fakes["fake-0"].faults()

        async def closed() -> bool:
            statuses[(await made.chat()).status_code] += 1
            return bool((await made.engine("fake-0"))["breaker"] == "closed")

        await until(closed, "the breaker closes")
        assert set(statuses) == {200}
        assert await made.metric("ratchet_retries_total", reason="failed") == 3


async def test_a_retry_storm_stays_within_the_budget(tmp_path: Path) -> None:
    routing = {"retry": {"share": 0.1, "minimum": 2}, "breaker": {"failures": 1000}}
    async with bench(tmp_path, engines=2, routing=routing) as made:
        await ready(made)
        for fake in made.fakes.values():
            await fake.faults(refuse=500)
        before = await asked(made, "fake-0") + await asked(made, "fake-1")
        answers = await asyncio.gather(*(made.chat() for _ in range(100)))
        sent = await asked(made, "fake-0") + await asked(made, "fake-1") - before
        assert {answer.status_code for answer in answers} == {503}
        assert 100 <= sent <= 100 + 0.1 * 100 + 2
        assert await made.metric("ratchet_retries_total", reason="refused") == 200 - sent


async def test_of_a_hedged_request_the_first_whole_answer_wins_is_recorded_once_and_the_other_is_cancelled(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, routing={"hedge_seconds": 0.1, "strategy": "round_robin"}) as made:
        await ready(made)
        await made.fakes["fake-0"].faults(hang_after=0)
        answers = [await made.chat() for _ in range(6)]
        assert {(answer.status_code, answer.headers["x-ratchet-engine"]) for answer in answers} == {(200, "fake-1")}
        seen = await made.fakes["fake-0"].state()
        assert (seen["aborted"], seen["running"]) == (3, 0)
        assert await made.store.interactions.count() == 6
        kept = [await made.store.interactions.get(answer.json()["id"], "acme") for answer in answers]
        assert {(item.engine, item.status) for item in kept if item is not None} == {("fake-1", "complete")}
        assert await made.metric("ratchet_hedges_total", won="second") == 3
        assert {row["inflight"] for row in (await made.call("GET", "/admin/engines", key="operator")).json()["data"]} == {0}


async def test_a_hedged_request_whose_client_leaves_stops_both_engines(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, routing={"hedge_seconds": 0.05}) as made:
        await ready(made)
        for fake in made.fakes.values():
            await fake.faults(hang_after=0)
        asking = asyncio.create_task(made.chat())

        async def running(count: int) -> bool:
            return bool(sum([(await fake.state())["running"] for fake in made.fakes.values()]) == count)

        await until(lambda: running(2), "both are asked")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: running(0), "both stop")
        assert await made.store.interactions.count() == 0
        assert await made.metric("ratchet_inflight") == 0


async def test_without_a_replica_of_the_live_version_the_fallbacks_answer_under_their_own_name(tmp_path: Path) -> None:
    async with bench(tmp_path, routing={"fallback": {POLICY: ["previous", "base"]}}) as made:
        await made.publish(1)
        await made.publish(2)
        for version, expected in ((2, 1), (1, 0)):
            record = await made.store.registry.version(POLICY, version)
            assert record is not None
            shutil.rmtree(tmp_path / record.path)
            await made.fakes["fake-0"].call("POST", "/fake/forget")
            await made.serves(f"{POLICY}@{expected}")
            answer = await made.chat()
            assert answer.json()["model"] == answer.headers["x-ratchet-policy"] == f"{POLICY}@{expected}"
            kept = await made.store.interactions.get(answer.json()["id"], "acme")
            assert kept is not None
            assert (kept.policy, kept.version) == (POLICY, expected)
            assert (await made.chat(model=f"{POLICY}@2")).status_code == 503  # pinned
        assert await made.metric("ratchet_fallbacks_total", policy=POLICY) >= 2


async def test_without_fallbacks_the_live_version_or_nothing_answers(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.publish(1)
        record = await made.store.registry.version(POLICY, 1)
        assert record is not None
        shutil.rmtree(tmp_path / record.path)
        await made.fakes["fake-0"].call("POST", "/fake/forget")
        assert (await made.chat()).status_code == 503


async def test_a_route_that_one_engine_lacks_is_asked_of_another(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, routing={"strategy": "round_robin"}) as made:
        await ready(made)
        await made.fakes["fake-0"].faults(refuse=501)
        before = await asked(made, "fake-0")
        answers = [await made.chat(stream=i % 2 == 0) for i in range(8)]
        assert {(answer.status_code, answer.headers["x-ratchet-engine"]) for answer in answers} == {(200, "fake-1")}
        assert await asked(made, "fake-0") - before == 1
        assert (await made.engine("fake-0"))["breaker"] == "closed"


async def test_embeddings_go_to_the_only_engine_that_has_them_and_chats_to_all(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=3, routing={"strategy": "round_robin"}) as made:
        await made.healthy("fake-0", "fake-1", "fake-2")
        for name in ("fake-0", "fake-1"):
            await made.fakes[name].faults(lacks=["/v1/embeddings"])
        answers = [await made.call("POST", "/v1/embeddings", {"model": BASE, "input": "hello"}) for _ in range(6)]
        assert {(answer.status_code, answer.headers["x-ratchet-engine"]) for answer in answers} == {(200, "fake-2")}
        assert await made.metric("ratchet_retries_total", reason="moved") <= 2  # once for each that lacks it
        assert {(await made.chat()).headers["x-ratchet-engine"] for _ in range(6)} == {"fake-0", "fake-1", "fake-2"}
        assert (await made.call("POST", "/admin/engines/fake-2/drain", key="operator")).status_code == 200
        refused = await made.call("POST", "/v1/embeddings", {"model": BASE, "input": "hello"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_route")


async def test_an_engine_that_only_embeds_is_healthy_and_where_the_other_is_away_a_chat_is_503(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, start=False) as made:
        await made.fakes["fake-1"].faults(lacks=["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
        await made.start()
        await made.healthy("fake-0", "fake-1")
        assert {(await made.chat(model=BASE)).headers["x-ratchet-engine"] for _ in range(6)} == {"fake-0"}
        await end(made.fakes["fake-0"].process)
        assert {(await made.chat(model=BASE)).status_code for _ in range(3)} == {503}
        await made.healthy("fake-1")
        assert (await made.chat(model=BASE)).status_code == 503
        embedded = await made.call("POST", "/v1/embeddings", {"model": BASE, "input": "hello"})
        assert (embedded.status_code, embedded.headers["x-ratchet-engine"]) == (200, "fake-1")


async def test_a_route_that_no_engine_has_is_a_clear_400(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.fakes["fake-0"].faults(refuse=405)
        for _ in range(2):
            answer = await made.chat()
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_route")


async def test_sessions_stay_with_their_replica_and_spread_over_all(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=3, routing={"strategy": "session"}) as made:
        await ready(made)
        homes = {}
        for i in range(12):
            header = {"x-session-id": f"user-{i}"}
            seen = {(await made.chat(headers=header)).headers["x-ratchet-engine"] for _ in range(3)}
            assert len(seen) == 1
            homes[i] = seen.pop()
        assert len(set(homes.values())) > 1
        gone = homes[0]
        answer = await made.call("POST", f"/admin/engines/{gone}/drain", key="operator")
        assert answer.status_code == 200
        for i, home in homes.items():
            now = (await made.chat(headers={"x-session-id": f"user-{i}"})).headers["x-ratchet-engine"]
            assert now != gone
            assert home in (gone, now)


async def test_turns_of_a_dialogue_meet_the_same_replica(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=3, routing={"strategy": "prefix"}) as made:
        await ready(made)
        homes = set()
        for dialogue in range(8):
            messages = [{"role": "user", "content": f"Dialogue {dialogue}"}]
            seen = set()
            for turn in range(3):
                answer = await made.chat(messages=messages)
                seen.add(answer.headers["x-ratchet-engine"])
                messages += [answer.json()["choices"][0]["message"], {"role": "user", "content": f"turn {turn}"}]
            assert len(seen) == 1
            homes |= seen
        assert len(homes) > 1


async def test_weights_share_the_requests_out(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2, start=False, routing={"strategy": "round_robin"}) as made:
        made.config["engines"][1]["weight"] = 3
        await made.start()
        await ready(made)
        engines = Counter([(await made.chat()).headers["x-ratchet-engine"] for _ in range(20)])
        assert engines == {"fake-0": 5, "fake-1": 15}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_past_its_total_time_is_504_before_its_first_byte(tmp_path: Path, stream: bool) -> None:
    async with bench(tmp_path, total_seconds=0.5) as made:
        await made.fakes["fake-0"].faults(hang_after=0)
        answer = await made.chat(stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        assert (await made.engine("fake-0"))["inflight"] == 0


async def test_a_stream_past_its_total_time_ends_in_an_error_that_is_not_the_engines_fault(tmp_path: Path) -> None:
    async with bench(tmp_path, total_seconds=1, routing={"breaker": {"failures": 1}}) as made:
        await made.fakes["fake-0"].faults(token_ms=10)
        answer = await made.chat("say:" + "x" * 1000, stream=True)
        *chunks, last = events(answer.text)
        assert "error" in json.loads(last)
        assert len(chunks) > 10
        kept = await recorded(made, json.loads(chunks[0])["id"])
        assert (kept.status, kept.untrainable) == ("truncated", "truncated")
        told = await made.engine("fake-0")
        assert (told["breaker"], told["inflight"], told["tokens"]) == ("closed", 0, 0)
        assert (await made.chat()).status_code == 200
