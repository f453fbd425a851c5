"""The `llm` command, told of the gateway by its extra-openai-models.yaml."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from tests.clients.environments import interpreter, run, surroundings
from tests.support.gateway_process import POLICY, Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Llm:
    """The command with its own folder of settings."""

    def __init__(self, made: Bench, folder: Path) -> None:
        self.folder = folder
        self._env = surroundings(made.url, "unused", LLM_USER_PATH=str(folder))
        model = {"model_id": POLICY, "model_name": POLICY, "api_base": made.url + "/v1", "api_key_name": "ratchet"}
        able = {"supports_tools": True, "supports_schema": True}
        (folder / "extra-openai-models.yaml").write_text(yaml.safe_dump([{**model, **able}]))
        (folder / "keys.json").write_text(json.dumps({"ratchet": "rk-client"}))

    async def __call__(self, *arguments: str) -> str:
        status, said = await run([str(interpreter("llm").with_name("llm")), *arguments], self.folder, self._env)
        assert status == 0, said
        return said.strip()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llm(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Llm]:
    async with bench(tmp_path_factory.mktemp("gateway")) as made:
        yield Llm(made, tmp_path_factory.mktemp("llm"))


@pytest.mark.parametrize("flags", [[], ["--no-stream"]])
async def test_it_prints_the_answer_streamed_and_whole(llm: Llm, flags: list[str]) -> None:
    assert await llm("-m", POLICY, *flags, "-s", "Be kind.", "-o", "temperature", "0.5", "say:naïve 🙂") == "naïve 🙂"


async def test_it_goes_on_with_a_conversation(llm: Llm) -> None:
    await llm("-m", POLICY, "say:first")
    assert await llm("-c", "say:second") == "second"
    first, second = json.loads(await llm("logs", "list", "--json", "-c"))
    assert (first["response"], second["response"]) == ("first", "second")
    assert second["input_tokens"] > first["input_tokens"] > 0  # it carried the first's turns, and usage was told


async def test_it_gets_an_answer_of_a_schema(llm: Llm) -> None:
    assert json.loads(await llm("-m", POLICY, "--schema", "name, age int", "A dog called 'Rex' of 3 years")) == {"name": "Rex", "age": 3}


async def test_it_runs_a_tool_and_sends_its_result(llm: Llm) -> None:
    source = "def get_weather(place: str) -> str:\n    'The weather'\n    return 'sunny in ' + place\n"
    said = await llm("-m", POLICY, "--functions", source, "--td", "What is the weather in 'Oslo'?")
    assert "sunny in Oslo" in said


async def test_it_says_what_the_gateway_refuses(llm: Llm) -> None:
    with pytest.raises(AssertionError, match="Invalid value for 'logit_bias"):
        await llm("-m", POLICY, "-o", "logit_bias", '{"1": 100, "99999999999": 1}', "say:x")
