"""The seam itself: what a kind cannot do is refused by type, and kinds are found through the registry alone."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import engines
from engines import Captured, EngineControl, connect, kind, wire
from engines.base import EngineKind, Machine, Start
from engines.fake.kind import KIND as FAKE
from engines.vllm.control import VllmControl
from engines.vllm.kind import KIND as VLLM
from ratchet.config import ENGINES, LaunchConfig
from ratchet.errors import ConfigError, EngineError, EngineUnsupported
from ratchet.types import Choice, EngineRecord

FOLDER = Path(engines.__file__).parent
RECORD = EngineRecord("e", "vllm", "m", "http://127.0.0.1:9", "m")


class Least(EngineControl):
    """As little as a kind must do."""

    async def models(self) -> list[str]:
        return []

    async def health(self) -> bool:
        return True

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda control: control.load("a@1", Path("a")),
        lambda control: control.unload("a@1"),
        lambda control: control.generate("m", [1], max_tokens=1),
        lambda control: control.metrics(),
        lambda control: control.prompt_ids("/v1/completions", {}, "m"),
    ],
)
async def test_what_a_kind_does_not_do_is_refused_by_type(call: Callable[[EngineControl], Awaitable[Any]]) -> None:
    with pytest.raises(EngineUnsupported, match="engine e: vllm cannot") as caught:
        await call(Least(RECORD))
    assert isinstance(caught.value, EngineError)


def test_a_kind_that_ratchet_cannot_start_says_so() -> None:
    unlaunched = EngineKind(VLLM.wire, Least)
    with pytest.raises(EngineUnsupported, match="give its `url`"):
        unlaunched.command(Start(LaunchConfig(), "m", "m", "127.0.0.1", 1, Machine(False, (0,)), {}))


async def test_a_kind_is_found_by_its_name() -> None:
    assert (kind("vllm"), kind("fake")) == (VLLM, FAKE)
    assert wire("vllm") is VLLM.wire
    control = connect(RECORD)
    assert isinstance(control, VllmControl)
    assert (control.record, control.brings) == (RECORD, "load")


@pytest.mark.parametrize("name", ["sglang", "nothing"])
def test_an_unknown_kind_is_a_fault_of_the_configuration(name: str) -> None:
    with pytest.raises(ConfigError, match=f"engine kind '{name}' is"):
        kind(name)


def test_a_kind_that_was_registered_by_hand_is_found() -> None:
    class Mine(LaunchConfig):
        implementation = "tests.unit.engines.test_base:MINE"

    ENGINES.register("mine", Mine)
    try:
        assert kind("mine") is MINE
    finally:
        ENGINES.unregister("mine")


def test_nothing_outside_a_kinds_folder_names_it() -> None:
    kinds = set(ENGINES.names())
    found = []
    for path in FOLDER.rglob("*.py"):
        if path.relative_to(FOLDER).parts[0] in kinds:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[1:2] in [[name] for name in kinds]:
                found.append((path.name, node.module))
            if isinstance(node, ast.Constant) and node.value in kinds:
                found.append((path.name, node.value))
    assert not found


def test_a_prompt_that_came_by_itself_completes_a_record_only_if_it_is_as_long_as_was_counted() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 1}
    apart = Captured([], [Choice(0, [7], [-0.5], {}, "stop")], usage, exact=False, lacks_prompt=True)
    assert apart.with_prompt([1, 2]) == Captured([1, 2], apart.choices, usage, exact=True)
    assert not apart.with_prompt([1]).exact
    assert not Captured([], apart.choices, usage, exact=False).with_prompt([1, 2]).exact


MINE = EngineKind(VLLM.wire, Least)
