"""`ratchet doctor`: what it finds fit and what not, on real parts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.buffer.spool import FOLDER, Spool, set_aside
from ratchet.cli.app import run
from ratchet.config import EngineConfig, StoreConfig, load
from ratchet.doctor import Finding, checks, engine, examine, store
from ratchet.errors import EngineBroken, EngineUnavailable, StoreUnavailable
from ratchet.process import free_port, kill_tree, spawn
from tests.support.ratchet_up import until

QUIET: dict[str, Any] = {"models": {"smollm2": {"path": "smollm2"}}}


def written(folder: Path, **tree: Any) -> Path:
    path = folder / "ratchet.yaml"
    path.write_text(yaml.safe_dump({**QUIET, **tree}))
    return path


async def findings(file: Path | None, data: Path) -> dict[str, Finding]:
    return {finding.subject: finding async for finding in examine(file, data)}


@pytest.fixture
async def fake_engine(tmp_path: Path) -> AsyncIterator[str]:
    """A running engine's address."""
    port = free_port()
    log = tmp_path / "engine.log"
    child = await spawn([sys.executable, "-m", "engines.fake", "--port", str(port), "--model", "smollm2"], log=log, name="engine")
    await until(lambda: "http://" in log.read_text() or child.returncode is not None, 30)
    yield f"http://127.0.0.1:{port}"
    await kill_tree(child.pid, 5)
    await child.wait()


async def test_the_built_in_configuration_is_fit_here(tmp_path: Path) -> None:
    found = await findings(None, tmp_path / "not" / "made" / "yet")
    assert not [f for f in found.values() if f.state == "unfit"]
    assert {"cores", "memory", "disk", "GPU", "configuration", "packages", "model smollm2", "store"} <= set(found)
    assert "not needed" in found["quantised base + LoRA"].detail
    assert not (tmp_path / "not").exists()


async def test_an_acknowledged_write_survives_kill_9_of_the_embedded_store() -> None:
    assert f"{store.WRITES} of {store.WRITES}" in await store.durable(StoreConfig())
    assert f"{store.WRITES} of {store.WRITES}" in await store.durable(StoreConfig(durability="power"))


async def test_a_store_that_does_not_answer_is_unfit(tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with pytest.raises(StoreUnavailable):
        await store.durable(StoreConfig(url=url))
    assert (await findings(written(tmp_path, store={"url": url}), tmp_path))["store"].state == "unfit"


async def test_a_shared_folder_that_cannot_be_written_is_unfit(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    file = written(tmp_path, artifacts={"url": str(shared)})
    found = checks.artifacts(load(file), tmp_path)
    assert (found.state, str(shared) in found.detail) == ("unfit", True)
    shared.mkdir()
    assert checks.artifacts(load(file), tmp_path) == Finding("artifacts", "fit", str(shared))


async def test_a_running_engine_is_tried_with_a_real_request(fake_engine: str) -> None:
    config = EngineConfig(name="e", kind="vllm", model="smollm2", url=fake_engine)
    assert "smollm2 generated a token" in await engine.generates(config)
    with pytest.raises(EngineUnavailable, match="cannot generate"):
        await engine.generates(config.model_copy(update={"served_name": "no-such-model"}))


async def test_an_engine_that_is_not_there_is_unfit(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineUnavailable, match=url):
        await engine.generates(EngineConfig(name="e", kind="vllm", model="m", url=url))
    file = written(tmp_path, engines=[{"name": "far", "kind": "vllm", "model": "smollm2", "url": url}])
    assert (await findings(file, tmp_path))["engine far"].state == "unfit"


async def test_what_answers_but_is_no_engine_is_unfit() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(page, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(EngineBroken, match="of another form"):
            await engine.generates(EngineConfig(name="e", kind="vllm", model="m", url=url))


async def test_what_waits_in_the_spool_is_reported(tmp_path: Path) -> None:
    assert checks.spool(tmp_path) == Finding("spool", "fit", "nothing waits for the store")
    held = Spool.create(tmp_path / FOLDER, 2**16, 2**20)
    held.append([bytes(2**14)] * 3)
    set_aside(tmp_path / FOLDER, b"poison")
    found = checks.spool(tmp_path)
    assert found.state == "note"
    assert found.detail == f"3 answers (0.0 MiB) wait for the store; 1 it refused are in {tmp_path / FOLDER / 'refused'}"
    held.close()


async def test_models_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    models = {"hub": {"path": "owner/name"}, "absent": {"path": "/no/such/folder"}, "empty": {"path": "empty"}}
    found = await findings(written(tmp_path, models=models), tmp_path)
    assert {name: found[f"model {name}"].state for name in models} == {"hub": "note", "absent": "unfit", "empty": "unfit"}


async def test_reward_functions_beside_the_file_are_imported(tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text("def good(prompt, answer):\n    return 1.0\n")
    rewards = [{"type": "python", "path": path} for path in ("my_rewards:good", "my_rewards:missing", "nowhere:f")]
    found = await findings(written(tmp_path, policies={"p": {"base": "smollm2", "rewards": rewards}}), tmp_path)
    states = {path: found[f"reward {path}"].state for path in ("my_rewards:good", "my_rewards:missing", "nowhere:f")}
    assert states == {"my_rewards:good": "fit", "my_rewards:missing": "unfit", "nowhere:f": "unfit"}
    assert "nowhere" in found["reward nowhere:f"].detail


async def test_a_quantised_base_is_not_vouched_for_without_its_self_test(tmp_path: Path) -> None:
    engines = [{"name": "q", "kind": "vllm", "model": "smollm2", "launch": {"quantization": "awq"}}]
    assert (await findings(written(tmp_path, engines=engines), tmp_path))["quantised base + LoRA"].state == "unfit"


async def test_each_fault_of_the_configuration_is_found_and_nothing_more_is_tried(tmp_path: Path) -> None:
    found = [f async for f in examine(written(tmp_path, gatewya={}, storre={}), tmp_path)]
    assert [f.state for f in found if f.subject == "configuration"] == ["unfit", "unfit"]
    assert found[-1].subject == "configuration"


def test_the_command_fails_if_anything_is_unfit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["doctor", "-c", str(written(tmp_path)), "--data", str(tmp_path)]) == 0
    assert run(["doctor", "-c", str(written(tmp_path, store={"url": "redis://127.0.0.1:1/0"})), "--data", str(tmp_path)]) == 1
    assert "unfit" in capsys.readouterr().out
