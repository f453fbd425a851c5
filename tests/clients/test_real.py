"""`ratchet up` as anybody starts it, on the real engine, and each client once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.clients.environments import interpreter, run, suite, surroundings
from tests.support.ratchet_up import INTERRUPTS, Up, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real, pytest.mark.timeout(1200)]
STRANGER = Path(__file__).parents[1] / "e2e" / "stranger.py"
MODEL = "assistant"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with running(tmp_path_factory.mktemp("up")) as machine:
        yield machine


def env(up: Up, **more: str) -> dict[str, str]:
    return surroundings(up.ready["gateway"], up.ready["keys"]["client"], MODEL=MODEL, **more)


@pytest.mark.parametrize("client", ["openai", "anthropic", "langchain", "llamaindex"])
async def test_a_client_is_served_by_the_real_engine(up: Up, client: str, tmp_path: Path) -> None:
    found = await suite(client, f"{client}_real", tmp_path, env(up))
    assert found.passed


async def test_a_strangers_script_finds_all_it_needs_in_the_ready_file(up: Up, tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text(json.dumps(up.ready))
    argv = [str(interpreter("openai")), "-I", str(STRANGER), str(tmp_path / "ready.json"), MODEL]
    status, said = await run(argv, tmp_path, env(up))
    assert status == 0, said
    seen: dict[str, Any] = json.loads(said)
    assert (seen["leaked"], seen["listed"]) == ([], seen["ids"])


async def test_the_llm_command_talks_to_it(up: Up, tmp_path: Path) -> None:
    model = {"model_id": MODEL, "model_name": MODEL, "api_base": up.ready["gateway"] + "/v1", "api_key_name": "ratchet"}
    (tmp_path / "keys.json").write_text(json.dumps({"ratchet": up.ready["keys"]["client"]}))
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))
    command = str(interpreter("llm").with_name("llm"))
    status, said = await run(
        [command, "-m", MODEL, "-o", "max_tokens", "8", "Name one fruit."], tmp_path, env(up, LLM_USER_PATH=str(tmp_path))
    )
    assert status == 0, said
    assert said.strip()


async def test_every_reward_is_accounted_for_and_it_stops_cleanly(up: Up) -> None:
    headers = {"authorization": f"Bearer {up.ready['keys']['operator']}"}
    ledger = httpx.get(up.ready["admin"] + "/admin/ledger", headers=headers).json()
    assert ledger["received"] == ledger["used"] + ledger["pending"] + sum(ledger["rejected"].values()) + ledger["expired"] > 0
    assert await up.end(INTERRUPTS[0]) == 0
