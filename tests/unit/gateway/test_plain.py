"""The routes that generate nothing, on what vLLM answered to them."""

from __future__ import annotations

import json

import pytest

from gateway.dialects.base import Ask
from gateway.dialects.plain import Plain
from ratchet.errors import EngineBroken
from tests.unit.engines.samples import whole

ASK = Ask({}, {}, "small")


@pytest.mark.parametrize(("path", "name", "tokens"), [("/v1/score", "score.json", 9), ("/v1/rerank", "rerank.json", 9)])
def test_an_answer_keeps_the_engines_bytes_but_for_the_models_name_and_its_tokens_count(path: str, name: str, tokens: int) -> None:
    told = whole(name)
    seen, captured = Plain(path).whole(told, ASK, "", "smollm2")
    assert seen == told
    renamed, _ = Plain(path).whole(told, ASK, "", "small")
    assert renamed == told.replace(b'"model":"smollm2"', b'"model":"small"')
    assert captured.usage["total_tokens"] == tokens


def test_an_answer_without_a_name_is_passed_on_as_it_is() -> None:
    told = whole("tokenize.json")
    seen, captured = Plain("/tokenize").whole(told, ASK, "", "small")
    assert seen == told
    assert captured.usage == {}


def test_a_name_that_stands_twice_is_changed_where_it_is_the_answers() -> None:
    told = b'{"model":"smollm2","results":[{"model":"smollm2"}]}'
    assert json.loads(Plain("/v1/rerank").whole(told, ASK, "", "small")[0]) == {"model": "small", "results": [{"model": "smollm2"}]}


@pytest.mark.parametrize("told", [b"moon", b'{"error":{"message":"dead"}}', b'{"usage":1}'])
def test_what_is_no_answer_is_broken(told: bytes) -> None:
    with pytest.raises(EngineBroken):
        Plain("/v1/score").whole(told, ASK, "", "small")
