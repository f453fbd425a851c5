"""The pieces of `ratchet up`: keys, ports, command lines, restarts, orphans, progress."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from ratchet.buffer import EmbeddedServer, open_store
from ratchet.config import Config, GatewayConfig, StoreConfig, load
from ratchet.errors import ConfigError, RatchetError
from ratchet.process import supervision
from ratchet.tasks import end
from ratchet.types import EngineRecord
from ratchet.up import keys, orphans, ready_file, resolve, run
from ratchet.up.machine import Machine
from ratchet.up.parts import Part, command, environment, last_line
from ratchet.up.progress import Progress
from tests.support.ratchet_up import alive
from tests.support.stores import embedded_store

DEADLINE = 30.0
ORPHANS = """
import asyncio, os, psutil, signal, subprocess, sys
from ratchet.up import orphans
async def main():
    orphans.adopt()
    middle = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); time.sleep(600)"
    known = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    parent = subprocess.Popen([sys.executable, "-c", middle])
    while not (below := psutil.Process(parent.pid).children()):
        await asyncio.sleep(0.01)
    parent.kill()
    parent.wait()
    await orphans.end({known.pid})
    print(psutil.pid_exists(below[0].pid), known.poll() is None)
    known.kill()
    known.wait()
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Children of this process that other tests share. A machine that stops here takes them for orphans; they are spared."""
    theirs = {child.pid for child in psutil.Process().children()}
    end = orphans.end
    monkeypatch.setattr(orphans, "end", lambda known: end({*known, *theirs}))
    return theirs


def part(tmp_path: Path, program: str, deaths: list[int] | None = None) -> Part:
    async def died(_: Part, status: int) -> None:
        if deaths is not None:
            deaths.append(status)

    argv = [sys.executable, "-c", program]
    return Part("part", argv, tmp_path / "part.log", dict(os.environ), asyncio.Lock(), died)


def test_keys_are_made_once_private_and_reused(tmp_path: Path) -> None:
    pair = keys.load_or_create(tmp_path)
    assert pair.client != pair.operator
    assert min(len(pair.client), len(pair.operator)) > 40
    (tmp_path / "keys.json").chmod(0o644)
    assert keys.load_or_create(tmp_path) == pair
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"client": 1, "operator": 2}'])
def test_a_spoilt_key_file_is_an_error_and_is_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(RatchetError, match="does not hold a client and an operator key"):
        keys.load_or_create(tmp_path)
    assert (tmp_path / "keys.json").read_bytes() == content


async def test_the_store_holds_hashes_with_scopes_and_never_a_key(tmp_path: Path) -> None:
    server = await EmbeddedServer.start(tmp_path, StoreConfig())
    store = await open_store("embedded", StoreConfig(), data=tmp_path)
    pair = keys.load_or_create(tmp_path)
    await keys.register(store, pair)
    await keys.register(store, pair)
    found = {name: await store.keys.find(hashlib.sha256(getattr(pair, name).encode()).hexdigest()) for name in ("client", "operator")}
    assert {name: record.scopes for name, record in found.items() if record} == {"client": ["infer", "feedback"], "operator": ["operator"]}
    assert {record.tenant for record in found.values() if record} == {"default"}
    assert len(await store.keys.all()) == 2
    await store.close()
    await server.stop()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert pair.client.encode() not in kept
    assert pair.operator.encode() not in kept


def test_a_private_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    ready_file.write_private(tmp_path / "f", b"1")
    ready_file.write_private(tmp_path / "f", b"2")
    assert (tmp_path / "f").read_bytes() == b"2"
    with pytest.raises(RatchetError, match="cannot be written"):
        ready_file.write_private(tmp_path / "missing" / "f", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_port_0_becomes_a_free_one_and_a_given_one_stays(tmp_path: Path) -> None:
    config = Config(gateway=GatewayConfig(port=0, admin_port=0))
    found = resolve.resolve(config).gateway
    assert found.port
    assert found.admin_port
    assert found.port != found.admin_port
    kept = Config(gateway=found)
    assert resolve.resolve(kept) == kept
    assert load(resolve.write(kept, tmp_path), {}) == kept


@pytest.mark.parametrize("key", ["port", "admin_port"])
def test_a_port_in_use_is_named_with_its_key(key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RatchetError, match=rf"cannot listen on 127.0.0.1:{port} .*; set gateway.{key} "):
            resolve.resolve(Config(gateway=GatewayConfig(**{"port": 0, "admin_port": 0, key: port})))


def test_the_same_port_twice_is_refused() -> None:
    with pytest.raises(RatchetError, match="are both 4242"):
        resolve.resolve(Config(gateway=GatewayConfig(port=4242, admin_port=4242)))


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1")]
)
def test_an_address_can_be_reached_from_here(host: str, url: str) -> None:
    assert resolve.address(host, 1) == url


def test_children_inherit_no_override_twice() -> None:
    given = {"RATCHET_GATEWAY__PORT": "0", "RATCHET_STORE__URL": "x", "RATCHET_DATA": "d", "HOME": "/h"}
    assert environment(given) == {"RATCHET_DATA": "d", "HOME": "/h", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


@pytest.mark.slow
def test_a_folder_named_like_a_package_is_not_taken_for_it(tmp_path: Path) -> None:
    for name in ("gateway", "learner", "engines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    for module, rewards in (("gateway", None), ("engines", None), ("learner", tmp_path)):
        argv = command(module, None, tmp_path, rewards=rewards)
        done = subprocess.run([*argv, "--help"], cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False)
        assert (done.returncode, "the wrong one" in done.stderr) == (0, False), done.stderr


async def test_a_part_that_dies_at_once_each_time_gives_up_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.01)
    deaths: list[int] = []
    with pytest.raises(RatchetError, match=r"part ends with status 1 each time .* no such luck"):
        await asyncio.wait_for(part(tmp_path, "raise SystemExit('no such luck')", deaths).keep(), DEADLINE)
    assert deaths == [1] * (supervision.EARLY_DEATHS - 1)


async def test_a_part_that_was_ready_is_restarted_however_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    one = part(tmp_path, "print('lived')")
    one.was_ready = True
    keeping = asyncio.create_task(one.keep())

    async def lived_often() -> None:
        while one.restarts <= supervision.EARLY_DEATHS:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(lived_often(), DEADLINE)
    await end([keeping])
    await one.stop(1)
    assert one.pid is None


async def test_a_part_that_cannot_be_started_for_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_PAUSE", 0.001)
    one = part(tmp_path, "print('lived')")
    one.was_ready = True
    one.log.mkdir()
    keeping = asyncio.create_task(one.keep())

    async def tried_often() -> None:
        while one.restarts <= supervision.EARLY_DEATHS:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(tried_often(), DEADLINE)
    assert one.pid is None
    one.log.rmdir()
    async with asyncio.timeout(DEADLINE):
        while not one.log.is_file() or "lived" not in one.log.read_text():
            await asyncio.sleep(0.01)
    await end([keeping])
    await one.stop(1)


async def test_engines_no_longer_configured_leave_the_fleet_at_the_start(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"models": {"m": {"path": "m"}}, "engines": [{"name": "there", "kind": "vllm", "model": "m", "url": "http://127.0.0.1:1"}]}
    )
    async with embedded_store(tmp_path) as store:
        for name in ("there", "removed"):
            await store.fleet.put(EngineRecord(name, "vllm", "m", "http://127.0.0.1:1", "m"))
        await run._prepare(store, keys.load_or_create(tmp_path), config)
        assert [record.name for record in await store.fleet.engines()] == ["there"]


async def test_a_part_that_finds_its_configuration_wrong_is_not_restarted(tmp_path: Path) -> None:
    one = part(tmp_path, "import sys; print('policies.x: wrong'); sys.exit(2)")
    one.was_ready = True
    with pytest.raises(ConfigError, match=r"part: policies\.x: wrong"):
        await asyncio.wait_for(one.keep(), DEADLINE)
    assert one.restarts == 0


@pytest.mark.parametrize(
    ("status", "why"),
    [(1, "ended with status 1 (two)"), (-9, "was ended by signal 9 (Killed)"), (supervision.CANNOT_START, "cannot be started now")],
)
async def test_a_restart_after_it_was_ready_is_one_line_with_part_reason_and_count(tmp_path: Path, status: int, why: str) -> None:
    said: list[str] = []
    machine = Machine(Config(), tmp_path / "ratchet.yaml", tmp_path, tmp_path, said.append)
    machine.gateway.log.parent.mkdir()
    machine.gateway.log.write_text("one\ntwo\n")
    machine.gateway.restarts = 4
    await machine._died(machine.gateway, status)
    assert said == []
    machine.mark_ready()
    await machine._died(machine.gateway, status)
    assert said == [f"gateway {why}; restart 4, log {machine.gateway.log}"]


def test_the_last_words_of_a_log_are_its_last_line_that_says_something(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\ntwo \n\n  \n")
    assert last_line(tmp_path / "log") == "two"
    assert last_line(tmp_path / "none") == "(nothing)"


async def test_orphans_are_adopted_and_ended_and_known_children_left_alone() -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", ORPHANS, stdout=PIPE)
    out, _ = await asyncio.wait_for(child.communicate(), DEADLINE)
    assert out.split() == [b"False", b"True"]


async def test_a_machine_waits_for_its_condition_or_for_a_part_that_gives_up(tmp_path: Path) -> None:
    machine = Machine(Config(), tmp_path / "ratchet.yaml", tmp_path, tmp_path, print)
    assert [one.name for one in machine.parts] == ["gateway"]
    await machine.until(asyncio.sleep(0))
    machine.start_parts()
    with pytest.raises(ConfigError, match=r"gateway: .*ratchet\.yaml: cannot be read"):
        await asyncio.wait_for(machine.until(asyncio.Event().wait()), DEADLINE)
    await machine.stop()


async def test_a_store_whose_socket_had_to_move_is_named(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 30)
    said: list[str] = []
    machine = Machine(Config(), tmp_path / "ratchet.yaml", data, tmp_path, said.append)
    await machine.start_store()
    await machine.stop()
    assert len(said) == 1 and "too long a path for a unix socket" in said[0]


async def test_a_machine_whose_parts_are_killed_stops_at_once(tmp_path: Path, others: set[int]) -> None:
    machine = Machine(load(None, {}), resolve.write(load(None, {}), tmp_path), tmp_path, tmp_path, print)
    assert [one.name for one in machine.parts] == ["engine local", "gateway", "learner"]
    await machine.start_store()
    machine.start_parts()

    async def all_started() -> None:
        while any(one.pid is None for one in machine.parts):
            await asyncio.sleep(0.01)

    await asyncio.wait_for(all_started(), DEADLINE)
    below = [p for child in psutil.Process().children() if child.pid not in others for p in (child, *child.children(recursive=True))]
    stopping = asyncio.create_task(machine.stop())
    await asyncio.sleep(0)
    machine.kill_parts()
    await asyncio.wait_for(stopping, DEADLINE)
    assert not alive(below)


async def test_a_machine_stops_though_a_task_keeps_a_cancellation_to_itself(tmp_path: Path) -> None:
    machine = Machine(Config(), tmp_path / "ratchet.yaml", tmp_path, tmp_path, print)

    async def deaf() -> None:
        with contextlib.suppress(asyncio.CancelledError):  # as redis-py may, when its answer comes at the same moment
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    machine._tasks.append(asyncio.create_task(deaf()))
    await asyncio.sleep(0)
    await asyncio.wait_for(machine.stop(), 10)
    assert machine._tasks[0].cancelled()


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=20))
    with progress.step("store"):
        progress.say("[bold] is kept, and long lines are not broken")
    assert out.getvalue().splitlines() == ["store ...", "[bold] is kept, and long lines are not broken", "store: 0.0 s"]


def test_progress_on_a_terminal_says_how_long_each_step_took() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, force_terminal=True, width=80)).step("store"):
        pass
    assert re.search(r"store: \d+\.\d s", out.getvalue())
