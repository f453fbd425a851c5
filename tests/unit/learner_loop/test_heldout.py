"""The held-out evaluation: frozen prompts, paired, candidate against live."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learner.gate import heldout
from ratchet.buffer import Store
from ratchet.errors import ConfigError, GateRefused
from tests.support.learner_setup import SCORER, configuration, world
from tests.support.stores import POLICY

CHAT = {"messages": [{"role": "user", "content": "Tell me about the moon."}]}


def test_each_line_of_the_file_is_a_chat(tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    path.write_text(json.dumps(CHAT) + "\n\n" + json.dumps(CHAT) + "\n", encoding="utf-8")
    assert heldout.read(path) == [CHAT["messages"]] * 2


@pytest.mark.parametrize(
    "text", ["", "\n", "{}", "[1]", '{"messages": []}', '{"messages": ["hi"]}', "not json", '{"messages": [{"content": "x"}]}']
)
def test_a_file_of_another_form_is_a_wrong_configuration(text: str, tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"heldout\.jsonl"):
        heldout.read(path)


def test_a_file_that_is_not_there_is_a_wrong_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        heldout.read(tmp_path / "absent.jsonl")


def test_only_pairs_that_both_have_a_reward_are_compared() -> None:
    assert heldout.paired([1.0, None, 0.0, 0.5], [0.0, 1.0, 0.5, None]) == {"n": 2, "candidate": 0.5, "live": 0.25}


@pytest.mark.parametrize("candidate", [[None, None, 1.0], [None, None, None]])
def test_too_few_pairs_are_no_evaluation(candidate: list[float | None]) -> None:
    with pytest.raises(GateRefused, match="could be scored"):
        heldout.paired(candidate, [1.0, 1.0, 1.0])


def test_a_candidate_may_be_worse_by_the_margin_and_no_more() -> None:
    heldout.judge({"n": 8, "candidate": 0.45, "live": 0.5}, 0.0625)
    with pytest.raises(GateRefused, match="below the live version's") as caught:
        heldout.judge({"n": 8, "candidate": 0.4, "live": 0.5}, 0.05)
    assert caught.value.gate == "heldout"


def test_a_mean_that_is_no_number_is_refused() -> None:
    with pytest.raises(GateRefused):
        heldout.judge({"n": 1, "candidate": float("nan"), "live": 0.0}, 1.0)


async def test_the_live_versions_answers_are_sampled_once_a_version(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    path.write_text("\n".join([json.dumps(CHAT)] * 3), encoding="utf-8")
    config = configuration(
        model, url, rewards=[{"path": SCORER}], gate={"probes": 1, "heldout": str(path), "samples": 2, "max_tokens": 6, "margin": 10}
    )
    async with world(store, tmp_path, config) as w:
        for step in (1, 2):
            await w.learnable(f"Question {step}")
            assert await w.loop.cycle()
        first, second = [await store.registry.version(POLICY, v) for v in (1, 2)]
        assert first is not None and second is not None and second.state == "live"
        assert first.verdict["heldout"]["n"] == 6
        # What was measured of version 1 as a candidate is what version 2 is compared with.
        assert second.verdict["heldout"]["live"] == first.verdict["heldout"]["candidate"]
        assert (await store.registry.status(POLICY))["history"][-1]["heldout"] == second.verdict["heldout"]["candidate"]


async def test_a_candidate_that_is_worse_on_the_held_out_prompts_is_refused(store: Store, model: Path, url: str, tmp_path: Path) -> None:
    path = tmp_path / "heldout.jsonl"
    path.write_text("\n".join([json.dumps(CHAT)] * 4), encoding="utf-8")
    rewards = [{"path": SCORER, "weight": 100.0}]
    config = configuration(
        model,
        url,
        rewards=rewards,
        algorithm={"type": "grpo", "learning_rate": 0.5},
        gate={"probes": 1, "heldout": str(path), "samples": 4, "max_tokens": 8, "margin": 0.0},
    )
    async with world(store, tmp_path, config) as w:
        item = await w.ask("Where is my parcel?")
        # Rated against the scorer, so that what is learned makes it worse.
        from tests.support.reward_functions import early_letters
        from tests.support.stores import rate

        await rate(store, item, [-early_letters([], c.message["content"]) + 0.001 * c.index for c in item.choices])
        assert await w.loop.cycle()
        version = await store.registry.version(POLICY, 1)
        assert version is not None and version.state == "refused" and version.verdict["gate"] == "heldout"
        assert version.verdict["heldout"]["candidate"] < version.verdict["heldout"]["live"]
