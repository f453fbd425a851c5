"""`ratchet up` and its processes: stopped, killed, or with a part killed. The engine is the fake one; everything else is real."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.support.ratchet_up import FAKE, INTERRUPTS, Up, alive, command_line, ratchet, running, until, written

ASK = {"model": "smollm2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
RESTART_SECONDS = 60.0
PARTS = {"gateway": ("gateway", "-m"), "engine local": ("engines", "-m"), "store": ("valkey-server",)}
"""What each part's command line holds."""
CONNECTIONS = 12
"""So many that each of two workers gets some."""


async def ask(up: Up) -> httpx.Response:
    headers = {"authorization": f"Bearer {up.ready['keys']['client']}"}
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"{up.ready['gateway']}/v1/chat/completions", json=ASK, headers=headers)


async def answers(up: Up) -> httpx.Response:
    """The first complete answer. Failures before it are those of a part that is still being restarted."""
    while True:
        try:
            if (answer := await ask(up)).status_code == httpx.codes.OK:
                return answer
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("number", INTERRUPTS)
async def test_a_stopped_machine_leaves_no_process_and_no_ready_file(tmp_path: Path, number: signal.Signals) -> None:
    async with running(tmp_path, FAKE) as up:
        assert (await ask(up)).status_code == 200
        assert await up.end(number) == 0
    assert not (tmp_path / "ready.json").exists()
    assert not (up.data / "run.json").exists()


async def test_keys_and_interactions_outlive_kill_9_which_leaves_no_process(tmp_path: Path) -> None:
    async with running(tmp_path, FAKE) as up:
        the_ready_file_is_the_contracts_and_private(up, tmp_path / "ready.json")
        first = (await ask(up)).json()["id"]
        keys = up.ready["keys"]
        assert len(up.tree()) >= 4
        assert await up.end(signal.SIGKILL) == -signal.SIGKILL
    async with running(tmp_path, FAKE) as up:
        assert up.ready["keys"] == keys
        headers = {"authorization": f"Bearer {keys['client']}"}
        assert httpx.get(f"{up.ready['gateway']}/v1/chat/completions/{first}", headers=headers).json()["id"] == first


def the_ready_file_is_the_contracts_and_private(up: Up, file: Path) -> None:
    assert set(up.ready) == {"gateway", "admin", "keys", "pid"}
    assert up.ready["pid"] == up.process.pid
    assert up.ready["keys"] == json.loads((up.data / "keys.json").read_text())
    for secret in (file, up.data / "keys.json", up.data / "run.json", up.data / "ratchet.yaml"):
        assert secret.stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"{up.ready['gateway']}/readyz").status_code == 200
    said = up.log.read_text()
    assert all(word in said for word in (up.ready["gateway"], up.ready["admin"], *up.ready["keys"].values()))


async def test_each_part_that_is_killed_is_restarted_and_serves_again(tmp_path: Path) -> None:
    async with running(tmp_path, FAKE) as up:
        before = (await ask(up)).json()["id"]
        for name, words in PARTS.items():
            victim = up.part(*words)
            below = victim.children(recursive=True)
            victim.send_signal(signal.SIGKILL)
            await until(lambda killed=[victim, *below]: not alive(killed), RESTART_SECONDS)
            await asyncio.wait_for(answers(up), RESTART_SECONDS)
            headers = {"authorization": f"Bearer {up.ready['keys']['client']}"}
            kept = httpx.get(f"{up.ready['gateway']}/v1/chat/completions/{before}", headers=headers)
            assert kept.json()["id"] == before
            assert f"{name} was ended by signal 9 (Killed); restart 1, log " in up.log.read_text()
        assert await up.end(signal.SIGTERM) == 0


async def test_a_data_directory_in_use_and_a_port_in_use_are_one_line(tmp_path: Path) -> None:
    async with running(tmp_path, FAKE) as up:
        status, _, said = await ratchet("up", "-c", str(tmp_path / "ratchet.yaml"), "--data", str(up.data))
        assert (status, said.count("\n")) == (1, 1)
        assert "another `ratchet up` runs on" in said
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = written(tmp_path / "other", {**FAKE, "gateway": {"port": port, "admin_port": 0}})
        status, _, said = await ratchet("up", "-c", str(other), "--data", str(tmp_path / "other" / "data"))
    assert (status, said.count("\n")) == (1, 1)
    assert f"127.0.0.1:{port}" in said


async def test_a_part_that_finds_its_configuration_wrong_ends_the_machine_with_one_line(tmp_path: Path) -> None:
    tree = {**FAKE, "policies": {"support": {"base": "smollm2", "rewards": [{"type": "python", "path": "no_such_module:score"}]}}}
    status, _, said = await ratchet("up", "-c", str(written(tmp_path, tree)), "--data", str(tmp_path / "data"), cwd=tmp_path)
    assert (status, said.count("\n")) == (2, 1)
    assert "learner" in said
    assert "no_such_module" in said


async def test_operators_commands_work_from_another_directory(tmp_path: Path) -> None:
    tree = {**FAKE, "policies": {"support": {"base": "smollm2"}}}
    async with running(tmp_path / "machine", tree) as up:
        status, out, _ = await ratchet("policies", "--data", str(up.data), cwd=tmp_path)
        assert status == 0
        assert "support@0" in out
        direct = {"RATCHET_ADMIN_URL": up.ready["admin"], "RATCHET_OPERATOR_KEY": up.ready["keys"]["operator"]}
        assert await ratchet("policies", "support", env=direct) == (status, out, "")
        for command in (["policies", "nobody"], ["promote", "support", "7"], ["rollback", "support", "--to", "7"]):
            status, _, said = await ratchet(*command, "--data", str(up.data))
            assert (status, said.count("\n"), said.startswith("ratchet: ")) == (1, 1, True)
        status, _, said = await ratchet("policies", env={**direct, "RATCHET_OPERATOR_KEY": up.ready["keys"]["client"]})
        assert (status, said.count("\n")) == (1, 1)
        assert "operator" in said
        status, out, _ = await ratchet("train", "support", "--data", str(up.data))
        assert (status, bool(out.strip())) == (0, True)
        assert await up.end(signal.SIGTERM) == 0


async def test_when_the_first_of_several_workers_is_killed_new_ones_replace_all_of_them(tmp_path: Path) -> None:
    async with running(tmp_path, {**FAKE, "gateway": {**FAKE["gateway"], "workers": 2}}) as up:
        for _ in range(CONNECTIONS):
            assert (await ask(up)).status_code == 200, "the ready file appears only once every worker is ready"
        old = up.part("gateway")
        (worker,) = old.children()
        assert "--worker" in worker.cmdline()
        old.kill()

        def fresh() -> bool:
            parts = {p: command_line(p) for p in up.root.children() if p.pid != old.pid}
            firsts = [p for p, words in parts.items() if "gateway" in words and "--worker" not in words]
            return bool(firsts) and len(firsts[0].children()) == 1 and not alive([worker])

        await until(fresh, RESTART_SECONDS)
        await asyncio.wait_for(answers(up), RESTART_SECONDS)
        assert await up.end(signal.SIGTERM) == 0
