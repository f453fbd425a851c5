"""engines.openai.plain: answers of the routes that generate nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import Wants
from engines.openai import answers
from engines.routes import EMBEDDINGS, POOLING, TOKENS
from ratchet.errors import EngineBroken, EngineUnsupported
from tests.support.vllm_samples import whole as recorded


def whole(body: bytes, model: str = "support@3") -> tuple[bytes, dict[str, Any]]:
    seen, captured = answers.whole(EMBEDDINGS, body, Wants(), "x", model)
    assert (captured.choices, captured.exact) == ([], False)
    return seen, captured.usage


@pytest.mark.parametrize("name", ["score.json", "rerank.json"])
def test_vllms_own_answers_keep_their_bytes_and_tell_their_tokens(name: str) -> None:
    seen, usage = whole(recorded(name))
    assert seen == recorded(name).replace(b'"model":"smollm2"', b'"model":"support@3"')
    assert usage["total_tokens"] == 9


def test_only_the_models_name_is_changed_and_every_other_byte_kept() -> None:
    body = b'{"id":"e",  "model":"adapter","data":[{"text":"\\"model\\":\\"adapter\\""}],"usage":{"total_tokens":3}}'
    assert whole(body) == (body.replace(b'"model":"adapter"', b'"model":"support@3"', 1), {"total_tokens": 3})
    assert whole(body, "adapter")[0] is body


def test_a_name_that_is_there_twice_or_written_otherwise_is_changed_by_parsing() -> None:
    twice = b'{"data":[{"model":"adapter"}],"model":"adapter"}'
    assert json.loads(whole(twice)[0]) == {"data": [{"model": "adapter"}], "model": "support@3"}
    assert json.loads(whole(b'{"model" : "adapter"}')[0]) == {"model": "support@3"}


def test_an_answer_that_names_no_model_is_passed_on() -> None:
    assert whole(b'{"prompt":"hi"}') == (b'{"prompt":"hi"}', {})


@pytest.mark.parametrize("body", [b"", b"nope", b"[]", b'{"error":{"message":"secret"}}', b'{"model":5}', b'{"usage":[]}', b"\xff"])
def test_what_is_no_answer_is_broken_and_its_words_are_not_repeated(body: bytes) -> None:
    with pytest.raises(EngineBroken) as error:
        whole(body)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("route", [*POOLING, *TOKENS])
def test_these_routes_do_not_stream(route: str) -> None:
    with pytest.raises(EngineUnsupported, match="does not stream"):
        answers.capture(route, Wants(), "x", "support")
