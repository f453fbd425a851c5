"""Engines added, drained and removed while clients go on asking."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.api.admin.engine_url import forbidden
from ratchet.types import EngineRecord, Heartbeat
from tests.support.gateway_process import BASE, Bench, Fake, bench, end, start_fake, until
from tests.support.load_generator import asks, under_load


def described(fake: Fake, name: str = "late", **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": "fake", "model": BASE, "url": fake.url, **fields}


async def operate(made: Bench, method: str, path: str = "", body: Any = None) -> tuple[int, Any]:
    answer = await made.call(method, f"/admin/engines{path}", body, key="operator")
    return answer.status_code, answer.json()


async def gone(made: Bench, name: str) -> None:
    async def look() -> bool:
        return (await operate(made, "GET", f"/{name}"))[0] == 404

    await until(look, f"{name} is gone")


async def still(made: Bench, name: str) -> None:
    """Waits until an engine has nothing in hand."""

    async def look() -> bool:
        return bool((await made.engine(name))["inflight"] == 0)

    await until(look, f"{name} is idle")


async def test_engines_come_and_go_under_load_without_a_failed_request(tmp_path: Path) -> None:
    late = await start_fake()
    try:
        async with bench(tmp_path) as made, under_load(asks(made, "say:" + "x" * 40, stream=True)) as load:
            for fake in (late, made.fakes["fake-0"]):
                await fake.faults(token_ms=1)
            status, row = await operate(made, "POST", body=described(late, weight=2))
            assert (status, row["name"], row["weight"], row["added"], row["desired"]) == (201, "late", 2, True, "serve")
            await load.more(20, "late")
            status, row = await operate(made, "POST", "/fake-0/drain")
            assert (status, row["desired"]) == (200, "drain")
            await still(made, "fake-0")
            served = load.engines["fake-0"]
            await end(made.fakes["fake-0"].process)  # what drained may go
            await load.more(20)
            assert load.engines["fake-0"] == served
            await made.fakes["fake-0"].again()
            assert (await operate(made, "POST", "/fake-0/drain", {"drain": False}))[1]["desired"] == "serve"
            await load.more(10, "fake-0")
            status, row = await operate(made, "DELETE", "/late")
            assert (status, row["desired"]) == (202, "remove")
            await gone(made, "late")
            await load.more(10)
            load.stop.set()
        assert set(load.statuses) == {200}
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in load.answers)
    finally:
        await end(late.process)


async def test_what_an_operator_did_outlives_the_gateway(tmp_path: Path) -> None:
    late = await start_fake()
    try:
        async with bench(tmp_path, engines=2) as made:
            await operate(made, "POST", body=described(late))
            await operate(made, "POST", "/fake-0/drain")
            await operate(made, "DELETE", "/fake-1")
            await gone(made, "fake-1")
            await made.healthy("fake-0", "late")
            assert made.process is not None
            made.process.terminate()
            assert await asyncio.wait_for(made.process.wait(), 20) == 0
            await made.start()
            await made.healthy("fake-0", "late")
            assert {(await made.chat()).headers["x-ratchet-engine"] for _ in range(6)} == {"late"}
            assert "an operator removed it" in made.log()
            assert (await operate(made, "POST", body=described(made.fakes["fake-1"], "fake-1")))[0] == 201
            await made.healthy("fake-0", "fake-1", "late")
    finally:
        await end(late.process)


async def test_an_engine_stays_listed_until_no_gateway_has_a_request_at_it_and_takes_none_meanwhile(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        await made.store.fleet.heartbeat(Heartbeat("gw_other", engines={"fake-1": 1}))
        assert (await operate(made, "DELETE", "/fake-1"))[0] == 202
        assert {(await made.chat()).headers["x-ratchet-engine"] for _ in range(5)} == {"fake-0"}
        assert (await made.engine("fake-1"))["desired"] == "remove"
        assert (await operate(made, "POST", "/fake-1/drain", {"drain": False}))[0] == 409
        await made.store.fleet.heartbeat(Heartbeat("gw_other"))
        await gone(made, "fake-1")


async def test_a_stream_that_runs_at_an_engine_that_is_removed_comes_whole(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        for fake in made.fakes.values():
            await fake.faults(token_ms=10)
        streams = [asyncio.create_task(made.chat("say:" + "x" * 60, stream=True)) for _ in range(8)]

        async def busy() -> bool:
            return all([(await fake.state())["running"] for fake in made.fakes.values()])

        await until(busy, "both work")
        assert (await operate(made, "DELETE", "/fake-1"))[0] == 202
        answers = await asyncio.gather(*streams)
        assert {answer.headers["x-ratchet-engine"] for answer in answers} == {"fake-0", "fake-1"}
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
        await gone(made, "fake-1")


async def test_an_engine_that_ratchet_launched_is_drained_but_not_removed(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.store.fleet.put(EngineRecord("ours", "fake", BASE, made.fakes["fake-0"].url, BASE, launched=True))
        await made.healthy("fake-0", "ours")
        status, body = await operate(made, "DELETE", "/ours")
        assert (status, body["error"]["code"]) == (409, "conflict")
        assert (await operate(made, "POST", "/ours/drain"))[1]["desired"] == "drain"
        # Its supervisor goes on saying how it is, and knows nothing of the drain.
        await made.store.fleet.put(EngineRecord("ours", "fake", BASE, made.fakes["fake-0"].url, BASE, launched=True))
        assert {(await made.chat()).headers["x-ratchet-engine"] for _ in range(5)} == {"fake-0"}


BAD: list[tuple[dict[str, Any], str | None]] = [
    ({}, "name"),
    ({"name": "../x"}, "name"),
    ({"kind": "magic"}, "kind"),
    ({"kind": "sglang"}, None),
    ({"model": "nobody"}, "model"),
    ({"weight": 0}, "weight"),
    ({"weight": -1}, "weight"),
    ({"launch": {}}, "launch"),
    ({"unknown": 1}, "unknown"),
    ({"api_key": "a\r\nx: y"}, "api_key"),
    ({"api_key": ""}, "api_key"),
    ({"served_name": "x" * 1000}, "served_name"),
    ({"url": None}, None),
    ({"url": "ftp://127.0.0.1/x"}, "url"),
    ({"url": "file:///etc/passwd"}, "url"),
    ({"url": "http://"}, "url"),
    ({"url": "http://user:pass@127.0.0.1:1"}, "url"),
    ({"url": "http://127.0.0.1:1/?a=b"}, "url"),
    ({"url": "http://127.0.0.1:99999"}, "url"),
    ({"url": "http://no-such-host.invalid:1"}, "url"),
    ({"url": "http://169.254.169.254/latest"}, "url"),
    ({"url": "http://[fe80::1]:80"}, "url"),
    ({"url": "http://[::ffff:169.254.169.254]:80"}, "url"),
    ({"url": "http://0.0.0.0:80"}, "url"),
    ({"url": "http://224.0.0.1:80"}, "url"),
    ({"url": "http://2852039166:80"}, "url"),
    ({"url": "http://127.0.0.1:1/a b"}, "url"),
]


@pytest.mark.asyncio(loop_scope="session")
class TestBodies:
    """On one gateway: none of these changes anything."""

    @pytest.mark.parametrize(("fields", "param"), BAD)
    async def test_what_is_not_a_sound_engine_is_400_and_names_the_field(
        self, shared: Bench, fields: dict[str, Any], param: str | None
    ) -> None:
        body = {"name": "late", "kind": "fake", "model": BASE, "url": "http://127.0.0.1:9", **fields} if fields else {}
        status, answer = await operate(shared, "POST", body=body)
        assert status == 400
        if param is not None:
            assert answer["error"]["param"] == param
        assert (await operate(shared, "GET", "/late"))[0] == 404

    async def test_a_name_or_url_that_is_taken_is_409(self, shared: Bench) -> None:
        fake = shared.fakes["fake-0"]
        assert (await operate(shared, "POST", body=described(fake, "other")))[0] == 409
        assert (await operate(shared, "POST", body={**described(fake, "fake-0"), "url": "http://127.0.0.1:9"}))[0] == 409

    async def test_an_unknown_engine_is_404_and_a_bad_drain_400(self, shared: Bench) -> None:
        for method, path in (("GET", "/nobody"), ("DELETE", "/nobody"), ("POST", "/nobody/drain"), ("GET", "/%2e%2e")):
            assert (await operate(shared, method, path))[0] == 404
        assert (await operate(shared, "POST", "/fake-0/drain", {"drain": "yes"}))[0] == 400
        assert (await operate(shared, "POST", "/fake-0/drain", {"drian": True}))[0] == 400

    async def test_the_list_shows_the_state_and_never_the_key(self, shared: Bench) -> None:
        rows = (await operate(shared, "GET"))[1]["data"]
        assert [(row["name"], row["breaker"], row["desired"], row["weight"]) for row in rows] == [("fake-0", "closed", "serve", 1)]
        assert "api_key" not in rows[0]


@pytest.mark.parametrize(
    ("address", "refused"),
    [(address, False) for address in ("127.0.0.1", "10.0.0.5", "192.168.1.1", "8.8.8.8", "::1", "fd12::1")]
    + [(address, True) for address in ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "::", "ff02::1", "fe80::1%lo")],
)
def test_engines_are_at_any_address_but_those_of_metadata_services_and_of_many_hosts(address: str, refused: bool) -> None:
    assert forbidden(address) is refused
