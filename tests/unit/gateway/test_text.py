"""gateway.dialects.text: what a text completion may hold, what goes on to the engine, what may be learned from."""

from __future__ import annotations

from typing import Any

import pytest

from engines import Wants
from gateway.dialects.base import Ask
from gateway.dialects.text import MOST_PROMPTS, Text
from gateway.errors import ApiError
from ratchet.config import GatewayConfig
from tests.support.dialect_refusals import refusal

TEXT, CONFIG = Text(), GatewayConfig()


def ask(**fields: Any) -> Ask:
    return TEXT.check({"model": "support", "prompt": "hello", **fields}, CONFIG)


def refused(**fields: Any) -> ApiError:
    return refusal(TEXT, {"model": "support", "prompt": "hello", **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", []),
        ("prompt", 5),
        ("prompt", {"text": "x"}),
        ("prompt", ["a", 5]),
        ("prompt", ["a", [5]]),
        ("prompt", [[]]),
        ("prompt", [-1]),
        ("prompt", [2**40]),
        ("prompt", [[1.5]]),
        ("prompt", ["x"] * (MOST_PROMPTS + 1)),
        ("prompt", "x" * (2**20 + 1)),
        ("max_tokens", 0),
        ("logprobs", -1),
        ("logprobs", 21),
        ("logprobs", True),
        ("n", 0),
        ("n", 10**6),
        ("temperature", 2.5),
        ("echo", "yes"),
        ("stop", ["a"] * 5),
        ("metadata", {"k": 1}),
        ("stream_options", {"include_usage": True}),
    ],
)
def test_a_field_out_of_its_range_is_400_and_named(field: str, value: Any) -> None:
    assert (refused(**{field: value}).param or "").split("[")[0] == field


@pytest.mark.parametrize("field", ["messages", "prompt_embeds", "use_beam_search", "request_id", "priority", "tools"])
def test_a_field_outside_the_allowlist_is_an_unknown_parameter(field: str) -> None:
    error = refused(**{field: 1})
    assert (error.param, error.code) == (field, "unknown_parameter")


@pytest.mark.parametrize("field", ["suffix", "best_of"])
def test_what_no_engine_does_is_refused_but_its_null_is_nothing(field: str) -> None:
    assert refused(**{field: 2}).code == "unsupported_parameter"
    assert field not in ask(**{field: None}).sent


def test_a_prompts_own_log_probs_are_refused() -> None:
    assert refused(echo=True, logprobs=1).code == "unsupported_parameter"


def test_the_choices_of_all_prompts_together_are_bounded() -> None:
    most = CONFIG.limits.max_n
    assert ask(prompt=["a", "b"], n=most // 2).expected == most // 2 * 2
    assert refused(prompt=["a", "b"], n=most // 2 + 1).code == "integer_above_max_value"


@pytest.mark.parametrize(
    ("prompt", "expected"), [("x", 1), (["x"], 1), (["x", "y"], 2), ([1, 2, 3], 1), ([[1, 2]], 1), ([[1], [2], [3]], 3), ("", 1)]
)
def test_every_form_of_a_prompt_is_counted(prompt: Any, expected: int) -> None:
    assert ask(prompt=prompt, n=2).expected == 2 * expected


def test_the_engine_gets_the_clients_fields_but_not_the_gateways_own() -> None:
    made = ask(top_p=0.5, user=None, metadata={"a": "b"}, store=False, logit_bias={"5": 1})
    assert made.sent == {"model": "support", "prompt": "hello", "top_p": 0.5, "logit_bias": {"5": 1}}
    assert (made.store, made.metadata, made.tree["metadata"]) == (False, {"a": "b"}, {"a": "b"})


@pytest.mark.parametrize(("given", "used"), [({}, 16), ({"max_tokens": 5}, 5)])
def test_the_engines_own_limit_is_in_force_where_none_is_named(given: dict[str, int], used: int) -> None:
    assert ask(**given).sampling.max_tokens == used


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, ""),
        ({"prompt": [1, 2]}, ""),
        ({"prompt": ["one"]}, ""),
        ({"n": 4, "seed": 1, "stop": "x", "logprobs": 2}, ""),
        ({"response_format": {"type": "text"}}, ""),
        ({"prompt": ["a", "b"]}, "batch"),
        ({"echo": True}, "echo"),
        ({"prompt": ["a", "b"], "echo": True, "top_p": 0.5}, "batch"),
        ({"temperature": 0}, "greedy"),
        ({"top_k": 5}, "top_k"),
        ({"bad_words": ["x"]}, "bad_words"),
        ({"response_format": {"type": "json_object"}}, "grammar"),
        ({"structured_outputs": {"choice": ["a"]}}, "grammar"),
    ],
)
def test_only_an_unfiltered_sample_of_one_prompt_is_fit_for_a_policy_gradient(fields: dict[str, Any], reason: str) -> None:
    assert ask(**fields).unfit == reason


def test_the_client_sees_what_it_asked_for() -> None:
    assert ask().wants == Wants(usage=True)
    assert ask(stream=True).wants == Wants()
    assert ask(logprobs=0, return_token_ids=True, stream=True, stream_options={"include_usage": True}).wants == Wants(True, True, True)
