"""Versions come and go under live streams."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

from engines.fake.kind import GENERATING
from tests.support.gateway_process import BASE, POLICY, Bench, bench, end, start_fake, until


async def live(made: Bench) -> int:
    return int((await made.call("GET", f"/admin/policies/{POLICY}", key="operator")).json()["live"])


async def move(made: Bench, what: str, **body: int | None) -> int:
    return (await made.call("POST", f"/admin/policies/{POLICY}/{what}", body, key="operator")).status_code


async def listed(made: Bench) -> list[list[str]]:
    rows = (await made.call("GET", "/admin/engines", key="operator")).json()["data"]
    return [row["adapters"] for row in rows]


async def test_flips_under_eight_streams_fail_and_hold_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        for fake in made.fakes.values():
            await fake.faults(token_ms=2)
        stop, versions = asyncio.Event(), []

        async def user() -> int:
            count = 0
            while not stop.is_set():
                answer = await made.chat("say:" + "x" * 30, stream=True)
                assert answer.status_code == 200, answer.text
                events = [line[6:] for line in answer.text.split("\n\n") if line]
                assert events.pop() == "[DONE]"
                models = {json.loads(event)["model"] for event in events}
                assert models == {answer.headers["x-ratchet-policy"]}
                versions.append(models.pop())
                count += 1
            return count

        users = [asyncio.create_task(user()) for _ in range(8)]
        for version in (1, 2, 3):
            name = await made.publish(version)

            async def seen(name: str = name) -> bool:
                return versions.count(name) >= 8

            await until(seen, f"{name} answered eight times")
        stop.set()
        counts = await asyncio.gather(*users)
        assert all(counts)
        assert {f"{POLICY}@{v}" for v in range(4)} == set(versions)
        assert await made.metric("ratchet_flips_total", policy=POLICY) == 3
        # No request waits for a swap; on a busy machine the kernel may keep the gateway itself off the CPU for 50 ms.
        assert await made.metric("ratchet_held_total", during_swap="true") <= len(versions) / 10
        seen_by = [body["model"] for fake in made.fakes.values() for body in (await fake.state())["requests"]]
        assert seen_by.count(f"{POLICY}@2") >= versions.count(f"{POLICY}@2")
        beats = await made.store.fleet.heartbeats()
        assert [beat.epochs[POLICY] for beat in beats] == [3]


async def test_retained_versions_are_listed_and_pinned_and_others_are_404(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.publish(1)
        await made.candidate(2)
        pinned = await made.chat(model=f"{POLICY}@1")
        assert pinned.headers["x-ratchet-policy"] == pinned.json()["model"] == f"{POLICY}@1"
        assert (await made.chat(model=f"{POLICY}@2")).status_code == 404
        names = [model.id async for model in made.sdk().models.list()]
        assert names == ["smollm2", POLICY, f"{POLICY}@0", f"{POLICY}@1"]
        kept = await made.store.interactions.get(pinned.json()["id"], "acme")
        assert kept is not None
        assert (kept.policy, kept.version, kept.model) == (POLICY, 1, f"{POLICY}@1")


async def test_a_rollback_loads_the_target_on_every_replica_before_the_pointer_moves(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        await made.publish(1)
        await made.publish(2)
        for fake in made.fakes.values():
            await fake.call("POST", "/fake/forget")
        assert await move(made, "rollback", to=None) == 200
        assert await live(made) == 1
        assert all(f"{POLICY}@1" in adapters for adapters in await listed(made))
        await made.serves(f"{POLICY}@1")
        states = (await made.call("GET", f"/admin/policies/{POLICY}", key="operator")).json()["versions"]
        assert {row["version"]: row["state"] for row in states} == {0: "retired", 1: "live", 2: "rolled_back"}
        assert await move(made, "rollback", to=None) == 200
        await made.serves(f"{POLICY}@0")
        assert await move(made, "rollback", to=None) == 409
        assert await move(made, "promote", version=2) == 200
        await made.serves(f"{POLICY}@2")


async def test_an_embedder_beside_an_engine_that_generates_takes_no_adapter_and_stops_no_move(tmp_path: Path) -> None:
    embedder = await start_fake(*(f"--lacks={route}" for route in GENERATING))
    try:
        async with bench(tmp_path, start=False) as made:
            made.config["engines"].append({"name": "embedder", "kind": "fake", "model": BASE, "url": embedder.url})
            await made.start()
            await made.healthy("fake-0", "embedder")
            assert [(engine.name, engine.pools) for engine in await made.store.fleet.engines()] == [("embedder", True), ("fake-0", False)]
            await made.publish(1)
            await made.publish(2)
            await made.fakes["fake-0"].call("POST", "/fake/forget")
            assert await move(made, "rollback", to=None) == 200
            await made.serves(f"{POLICY}@1")
            assert await listed(made) == [[], [f"{POLICY}@1"]]
    finally:
        await end(embedder.process)


async def test_a_rollback_goes_to_the_base_where_that_was_live_before(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.publish(1)
        await made.publish(2)
        assert await move(made, "rollback", to=0) == 200
        await made.candidate(3)
        await made.store.registry.publish(POLICY, 3, expect_live=0, verdict={})
        await made.serves(f"{POLICY}@3")
        assert await move(made, "rollback", to=None) == 200
        assert await live(made) == 0


async def test_a_move_that_makes_no_sense_is_refused_and_nothing_moves(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.publish(1)
        await made.candidate(2)
        assert await move(made, "promote", version=9) == 404
        assert await move(made, "rollback", to=9) == 404
        assert await move(made, "promote", version=2) == 409  # still a candidate
        assert await move(made, "promote", version=1) == 409  # live already
        for what, body in (("promote", {}), ("promote", {"version": -1}), ("promote", {"version": "1"}), ("rollback", {"too": 0})):
            answer = await made.call("POST", f"/admin/policies/{POLICY}/{what}", body, key="operator")
            assert answer.status_code == 400
        assert (await made.call("POST", "/admin/policies/nobody/promote", {"version": 1}, key="operator")).status_code == 404
        assert await live(made) == 1


async def test_a_rollback_to_an_adapter_that_changed_on_disk_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.publish(1)
        await made.publish(2)
        record = await made.store.registry.version(POLICY, 1)
        assert record is not None
        weights = tmp_path / record.path / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
        assert await move(made, "rollback", to=1) == 409
        shutil.rmtree(tmp_path / record.path)
        assert await move(made, "rollback", to=1) == 409
        assert await live(made) == 2


async def test_an_engine_that_forgot_its_adapters_gets_them_back_and_serves_no_other_version(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        await made.publish(1)
        await made.fakes["fake-0"].call("POST", "/fake/forget")
        answers = await asyncio.gather(*(made.chat() for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["model"] for answer in answers} == {f"{POLICY}@1"}

        async def restored() -> bool:
            return await listed(made) == [[f"{POLICY}@1"]] * 2

        await until(restored, "both list it again")


async def test_a_corrupt_adapter_is_not_given_back_and_nothing_else_answers_in_its_place(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.publish(1)
        record = await made.store.registry.version(POLICY, 1)
        assert record is not None
        weights = tmp_path / record.path / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
        await made.fakes["fake-0"].call("POST", "/fake/forget")
        answer = await made.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        await until(lambda: asyncio.sleep(0, "is not loaded on fake-0" in made.log()), "the log says why")
        assert (await made.chat()).status_code == 503
        assert (await made.chat(model=f"{POLICY}@0")).status_code == 200


async def test_an_engine_that_holds_another_adapter_under_our_name_is_given_ours_before_it_serves(tmp_path: Path) -> None:
    async with bench(tmp_path, start=False) as made:
        await made.store.registry.ensure(POLICY, BASE)
        await made.candidate(1)
        await made.store.registry.publish(POLICY, 1, expect_live=0, verdict={})
        record = await made.store.registry.version(POLICY, 1)
        assert record is not None
        ours, other = tmp_path.resolve() / record.path, tmp_path.resolve() / "other"
        shutil.copytree(ours, other)
        fake = made.fakes["fake-0"]
        await fake.call("POST", "/fake/forget")
        await fake.load(f"{POLICY}@1", other)
        await made.start()
        assert (await made.chat()).headers["x-ratchet-policy"] == f"{POLICY}@1"
        cards = (await fake.call("GET", "/v1/models"))["data"]
        assert [card["root"] for card in cards if card["id"] == f"{POLICY}@1"] == [str(ours)]


async def test_an_engine_that_holds_our_name_while_ours_is_corrupt_does_not_serve_it(tmp_path: Path) -> None:
    async with bench(tmp_path, start=False) as made:
        await made.store.registry.ensure(POLICY, BASE)
        await made.candidate(1)
        await made.store.registry.publish(POLICY, 1, expect_live=0, verdict={})
        record = await made.store.registry.version(POLICY, 1)
        assert record is not None
        (tmp_path / record.path / "adapter_model.safetensors").write_bytes(b"other")
        await made.start()
        assert (await made.chat()).status_code == 503
        assert (await made.chat(model=f"{POLICY}@0")).status_code == 200


async def test_a_gateway_that_starts_later_serves_the_live_version_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.publish(1)
        assert made.process is not None
        made.process.terminate()
        assert await asyncio.wait_for(made.process.wait(), 20) == 0
        await made.start()
        assert (await made.chat()).headers["x-ratchet-policy"] == f"{POLICY}@1"
