"""gateway.dialects.plain: the routes that generate nothing."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.base import Ask
from gateway.dialects.plain import FORMS, Plain
from gateway.errors import ApiError
from ratchet.config import GatewayConfig
from tests.support.dialect_refusals import refusal

CONFIG = GatewayConfig()
BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": "hello"},
    "/v1/rerank": {"query": "a", "documents": ["a", "b"]},
    "/v1/score": {"text_1": "a", "text_2": ["a", "b"]},
    "/tokenize": {"prompt": "hello"},
    "/detokenize": {"tokens": [1, 2]},
}


def ask(path: str, **fields: Any) -> Ask:
    return Plain(path).check({"model": "support", **BODIES[path], **fields}, CONFIG)


def refused(path: str, **fields: Any) -> ApiError:
    return refusal(Plain(path), {"model": "support", **BODIES[path], **fields})


def test_every_route_has_a_body_here() -> None:
    assert BODIES.keys() == FORMS.keys()


@pytest.mark.parametrize("path", BODIES)
def test_the_body_goes_on_and_no_record_is_kept(path: str) -> None:
    made = ask(path)
    assert made.sent == {"model": "support", **BODIES[path]}
    assert (made.store, made.stream, Plain(path).recorded) == (False, False, False)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("field", ["stream", "store", "metadata", "priority", "mm_processor_kwargs", "chat_template", "n"])
def test_a_field_outside_the_allowlist_is_an_unknown_parameter(path: str, field: str) -> None:
    assert (refused(path, **{field: 1}).param, refused(path, **{field: 1}).code) == (field, "unknown_parameter")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", {"input": None}),
        ("/v1/embeddings", {"input": ["a", [1]]}),
        ("/v1/embeddings", {"input": [{"image_url": "http://x"}]}),
        ("/v1/embeddings", {"dimensions": 0}),
        ("/v1/embeddings", {"encoding_format": "bytes"}),
        ("/v1/embeddings", {"truncate_prompt_tokens": -2}),
        ("/v1/rerank", {"documents": []}),
        ("/v1/rerank", {"documents": "a"}),
        ("/v1/rerank", {"documents": ["a"] * 2049}),
        ("/v1/rerank", {"documents": [{"content": [{"type": "image_url"}]}]}),
        ("/v1/rerank", {"query": None}),
        ("/v1/rerank", {"top_n": -1}),
        ("/v1/score", {"text_2": None}),
        ("/v1/score", {"queries": "a"}),
        ("/v1/score", {"text_1": [{"type": "image_url"}]}),
        ("/tokenize", {"prompt": None}),
        ("/tokenize", {"messages": [{"role": "user", "content": "x"}]}),
        ("/tokenize", {"prompt": None, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        ("/detokenize", {"tokens": []}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": ["a"]}),
    ],
)
def test_what_is_out_of_range_or_no_text_is_refused(path: str, fields: dict[str, Any]) -> None:
    refused(path, **fields)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"input": [1, 2], "dimensions": 8, "encoding_format": "base64", "user": "u"}),
        ("/v1/embeddings", {"input": [[1], [2]], "truncate_prompt_tokens": -1, "add_special_tokens": False}),
        ("/v1/rerank", {"top_n": 0, "max_tokens_per_doc": 5}),
        ("/v1/score", {"text_1": None, "text_2": None, "queries": ["a"], "documents": "b"}),
        ("/tokenize", {"prompt": None, "messages": [{"role": "user", "content": "x"}], "return_token_strs": True}),
    ],
)
def test_every_form_is_taken_and_nulls_are_nothing(path: str, fields: dict[str, Any]) -> None:
    expected = {**BODIES[path], **fields}
    assert ask(path, **fields).sent == {"model": "support", **{key: value for key, value in expected.items() if value is not None}}
