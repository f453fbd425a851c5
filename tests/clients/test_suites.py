"""Each client's suite, in its own environment, against a gateway over the fake engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clients.environments import beside, suite
from tests.support.gateway_process import Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A gateway that has published a first version, so that what a policy's clients see is an adapter's."""
    async with bench(tmp_path_factory.mktemp("gateway")) as gateway:
        await gateway.publish(1)
        yield gateway


async def test_the_openai_package_finds_all_it_knows(made: Bench, tmp_path: Path) -> None:
    found = await suite("openai", "openai_sdk", tmp_path, beside(made))
    assert found.skipped == set()
    assert found.passed > 30


async def test_langchains_standard_suite_passes(made: Bench, tmp_path: Path) -> None:
    found = await suite("langchain", "langchain_standard", tmp_path, beside(made))
    inputs = {"pdf_inputs", "audio_inputs", "image_inputs", "image_tool_message", "pdf_tool_message", "anthropic_inputs"}
    # The last is a timing of recorded traffic.
    assert found.skipped == {f"test_{what}" for what in (*inputs, "stream_time")}


async def test_llamaindex_finds_all_it_knows(made: Bench, tmp_path: Path) -> None:
    found = await suite("llamaindex", "llamaindex", tmp_path, beside(made))
    assert found.skipped == set()


async def test_the_anthropic_package_finds_all_it_knows(made: Bench, tmp_path: Path) -> None:
    found = await suite("anthropic", "anthropic_sdk", tmp_path, beside(made))
    assert found.skipped == set()
