"""Start, drain and stop of the gateway process."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import yaml

from tests.support.gateway_process import BASE, DEADLINE, POLICY, Bench, bench, until

LONG = "say:" + "x" * 60


async def run(made: Bench, *flags: str) -> tuple[int, str]:
    """A gateway that is not expected to serve: its exit status and what it said."""
    config = made.data / "ratchet.yaml"
    config.write_text(yaml.safe_dump(made.config))
    argv = [sys.executable, "-m", "gateway", "--config", str(config), "--data", str(made.data), *flags]
    process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=PIPE)
    _, said = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def busy(made: Bench) -> bool:
    return bool((await made.fakes["fake-0"].state())["running"])


async def test_sigterm_refuses_new_requests_finishes_running_ones_and_exits(tmp_path: Path) -> None:
    async with bench(tmp_path, drain_seconds=20) as made:
        assert made.process is not None
        assert json.loads((tmp_path / "run" / "gateway.json").read_text()) == {"gateway": made.url, "admin": made.admin}
        await made.fakes["fake-0"].faults(token_ms=20)
        running = asyncio.create_task(made.chat(LONG, stream=True))
        await until(lambda: busy(made), "the engine works")
        made.process.terminate()

        async def draining() -> bool:
            return (await made.call("GET", "/readyz", key=None)).status_code == 503

        await until(draining, "the gateway drains")
        late = await made.chat()
        assert (late.status_code, late.json()["error"]["code"]) == (503, "draining")
        answer = await running
        assert answer.text.endswith("data: [DONE]\n\n")
        assert await asyncio.wait_for(made.process.wait(), DEADLINE) == 0
        assert await made.store.interactions.count() == 1


async def test_what_outlives_the_drain_ends_in_an_error_and_is_recorded_as_truncated(tmp_path: Path) -> None:
    async with bench(tmp_path, drain_seconds=0.5) as made:
        assert made.process is not None
        await made.fakes["fake-0"].faults(hang_after=3)
        stream = asyncio.create_task(made.chat(LONG, stream=True))
        whole = asyncio.create_task(made.chat(LONG))

        async def both() -> bool:
            return bool((await made.fakes["fake-0"].state())["running"] == 2)

        await until(both, "both are under way")
        made.process.terminate()
        events = [line[6:] for line in (await stream).text.split("\n\n") if line]
        assert json.loads(events[-1])["error"]["code"] == "draining"
        assert (await whole).status_code == 503
        assert await asyncio.wait_for(made.process.wait(), DEADLINE) == 0
        kept = await made.store.interactions.get(json.loads(events[0])["id"], "acme")
        assert kept is not None
        assert (kept.status, kept.untrainable) == ("truncated", "truncated")


async def test_an_idle_gateway_stops_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        assert made.process is not None
        made.process.terminate()
        assert await asyncio.wait_for(made.process.wait(), 5) == 0
        assert "Traceback" not in made.log()


async def test_without_any_key_the_gateway_does_not_start_unless_it_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=0, start=False) as made:
        for key in await made.store.keys.all():
            await made.store.keys.revoke(key.id)
        status, said = await run(made)
        assert status != 0
        assert "no key is in the store" in said
        assert "Traceback" not in said
        await made.launch("--allow-first-keys")
        assert (await made.call("GET", "/v1/models")).status_code == 401


async def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=0, start=False) as made:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            made.config["gateway"]["port"] = taken.getsockname()[1]
            status, said = await run(made)
        assert status == 1
        assert "cannot listen on 127.0.0.1" in said.splitlines()[-1]
        assert "Traceback" not in said


async def test_without_its_store_the_gateway_does_not_start(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=0, start=False) as made:
        await made.server.stop()
        status, said = await run(made)
        assert status == 1
        assert "Traceback" not in said


async def test_a_key_made_while_it_runs_works_and_a_revoked_one_soon_does_not(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        assert (await made.call("GET", "/v1/models")).status_code == 200
        await made.store.keys.revoke("client")

        async def refused() -> bool:
            return (await made.call("GET", "/v1/models")).status_code == 401

        await until(refused, "the revoked key is refused")


async def test_an_engine_added_to_the_fleet_serves_and_one_that_is_removed_does_not(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        await made.store.fleet.remove("fake-1")
        await made.healthy("fake-0")
        assert {(await made.chat()).headers["x-ratchet-engine"] for _ in range(5)} == {"fake-0"}
        rows = (await made.call("GET", "/admin/engines", key="operator")).json()["data"]
        assert [(row["name"], row["model"], row["healthy"], row["inflight"]) for row in rows] == [("fake-0", BASE, True, 0)]


async def test_the_served_name_of_an_engine_is_asked_and_shared(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        records = await made.store.fleet.engines()
        assert [(record.served_name, record.launched) for record in records] == [(BASE, False)]
        assert (await made.store.registry.policy(POLICY)) is not None
