from __future__ import annotations

import pytest

from bench.awkward import QUESTIONS, body
from bench.fidelity import Report, check_shape, check_text
from ratchet.types import Choice, Interaction, Sampling


def interaction(text: str = "hé", ids: list[int] | None = None, logprobs: list[float] | None = None, finish: str = "stop") -> Interaction:
    """One answer of the base, as recorded."""
    choice = Choice(0, ids if ids is not None else [5, 6], logprobs if logprobs is not None else [-0.1, -2.0], {"content": text}, finish)
    return Interaction("i", "t", "assistant", 0, "smollm2", "local", "chat", 1.0, "complete", {}, [1, 2], [choice], Sampling())


def shape(item: Interaction, seen: list[str]) -> Report:
    report = Report()
    check_shape(item, seen, report)
    return report


def test_an_answer_with_a_log_prob_for_each_id_is_counted_and_clean() -> None:
    report = shape(interaction(), ["hé"])
    assert (report.interactions, report.answers, report.tokens) == (1, 1, 2)
    assert not (report.padded or report.texts_differ)


@pytest.mark.parametrize(
    ("ids", "logprobs"), [([5, 6], [-0.1]), ([], []), ([5], [0.5]), ([5], [-0.1, -0.1])], ids=["short", "none", "above zero", "long"]
)
def test_ids_without_their_log_probs_count_as_padded(ids: list[int], logprobs: list[float]) -> None:
    assert len(shape(interaction(ids=ids, logprobs=logprobs), ["hé"]).padded) == 1


def test_another_text_than_the_client_saw_is_named() -> None:
    assert len(shape(interaction(), ["he"]).texts_differ) == 1


@pytest.mark.parametrize(
    ("pieces", "finish", "differ", "cut"),
    [
        (["h", "é"], "stop", 0, 0),
        (["h", "e"], "stop", 1, 0),
        (["hé", "\ufffd"], "length", 0, 1),
        (["hé", " \ufffd"], "length", 0, 1),
        (["hé", "\ufffd"], "stop", 1, 0),
        (["hé", " "], "length", 1, 0),
        (["he", "\ufffd"], "length", 1, 0),
    ],
)
def test_decoded_ids_must_equal_the_text_but_for_a_character_cut_at_the_limit(
    pieces: list[str], finish: str, differ: int, cut: int
) -> None:
    report, item = Report(), interaction(ids=[0, 1], finish=finish)
    check_text(item, item.choices[0], lambda ids: "".join(pieces[i] for i in ids), report)
    assert (len(report.texts_differ), report.cut) == (differ, cut)


def test_a_report_is_good_only_if_something_was_compared_within_the_tolerance() -> None:
    assert not Report().good
    assert Report(largest={0: 1e-4}).good
    assert not Report(largest={0: 1e-4, 3: 0.5}, calibration=1e-4).good
    assert not Report(largest={0: 1e-4}, unrecorded=["x"]).good


def test_two_hundred_questions_have_every_kind_of_answer() -> None:
    bodies = [body(number, "assistant@0") for number in range(200)]
    assert len({request["messages"][0]["content"] for request in bodies}) == len(QUESTIONS)
    assert sum("logit_bias" in request for request in bodies) == 20
    assert sum(request["n"] == 2 for request in bodies) == 40
