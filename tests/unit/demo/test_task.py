from __future__ import annotations

import subprocess
import sys

import pytest

from ratchet.demo.task import GATE, HELDOUT, TRAIN, enthusiastic, messages, shuffled


def test_no_topic_is_in_two_of_the_three_sets() -> None:
    topics = [*TRAIN, *GATE, *HELDOUT]
    assert len(set(topics)) == len(topics)


def test_there_are_at_least_thirty_two_held_out_topics() -> None:
    assert len(HELDOUT) >= 32


@pytest.mark.parametrize(
    ("answer", "reward"), [("We will fix it!", 1.0), ("We will fix it.", 0.0), ("", 0.0), ("¡hola! ", 1.0), ("!important", 1.0)]
)
def test_the_house_style_is_an_exclamation_anywhere(answer: str, reward: float) -> None:
    assert enthusiastic(messages("refunds"), answer) == reward


def test_users_ask_in_orders_of_their_own_that_a_seed_repeats() -> None:
    assert shuffled(TRAIN, 0, 1) == shuffled(TRAIN, 0, 1)
    assert shuffled(TRAIN, 0, 1) != shuffled(TRAIN, 0, 2)
    assert shuffled(TRAIN, 0, 1) != shuffled(TRAIN, 1, 1)
    assert sorted(shuffled(TRAIN, 2, 3)) == sorted(TRAIN)


def test_the_reward_function_brings_neither_sdk_nor_plot_into_the_learner() -> None:
    code = "import sys, ratchet.demo.task; print(sorted({'openai', 'matplotlib', 'rich', 'httpx', 'httpx2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
