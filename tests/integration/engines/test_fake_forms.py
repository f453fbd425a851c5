"""engines.fake: each route's answer, byte for byte as vLLM 0.32's own code writes it, and the faults that concern routes."""

from __future__ import annotations

import base64
import re
import struct
from typing import Any

import aiohttp
import pytest

from engines.fake import pooling
from engines.fake.__main__ import arguments
from engines.fake.faults import Faults
from tests.support.fake_engine import BASE, fake_engine
from tests.support.vllm_samples import IDENT, REQUESTS, forms

OURS = re.compile(r'"(created|created_at)":\d+|"(?:msg|fc)_[0-9a-f]{16}"')
"""What differs from answer to answer: the time, and the items' own ids."""
FORMS = forms()


def still(text: str) -> str:
    return OURS.sub(lambda found: f'"{found[1]}":1' if found[1] else "x", text.replace(f'"{IDENT}"', f'"cmpl-{IDENT}"'))


async def asked(url: str, path: str, tree: dict[str, Any]) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session:
        body = {"model": BASE, **tree}
        async with session.post(url + path, json=body, headers={"x-request-id": IDENT}) as answer:
            return answer.status, await answer.text()


@pytest.mark.parametrize("name", REQUESTS)
async def test_an_answer_has_vllms_own_bytes(name: str) -> None:
    path, tree = REQUESTS[name]
    async with fake_engine() as (_, record):
        status, body = await asked(record.url, path, tree)
    assert status == 200, body
    body = body.replace(f"chatcmpl-{IDENT}", IDENT) if path == "/v1/messages" else body
    assert still(body) == still(FORMS[name])


async def test_a_route_that_is_taken_away_answers_as_fastapi_does() -> None:
    async with fake_engine(Faults(lacks=["/v1/embeddings"])) as (engine, record):
        assert await asked(record.url, "/v1/embeddings", {"input": "x"}) == (404, '{"detail":"Not Found"}')
        assert (await asked(record.url, "/v1/completions", {"prompt": "x"}))[0] == 200
        assert len(engine.requests) == 1


def test_routes_are_taken_away_by_a_flag_too() -> None:
    assert arguments(["--lacks", "/v1/rerank", "--lacks", "/tokenize"]).lacks == ["/v1/rerank", "/tokenize"]


async def test_a_refusal_is_in_its_routes_form() -> None:
    async with fake_engine(Faults(refuse=500)) as (_, record):
        answers = {path: (await asked(record.url, path, {}))[1] for path in ("/v1/responses", "/v1/messages", "/tokenize")}
    assert answers.pop("/v1/messages") == '{"type":"error","error":{"type":"InternalServerError","message":"refused, as asked"}}'
    assert all(body.startswith('{"error":{"message":"refused, as asked"') for body in answers.values())


@pytest.mark.parametrize(
    ("path", "tree"),
    [
        ("/v1/embeddings", {}),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a"]}),
        ("/v1/responses", {"input": [5]}),
        ("/v1/messages", {"messages": "x"}),
    ],
)
async def test_a_body_of_another_form_is_400(path: str, tree: dict[str, Any]) -> None:
    async with fake_engine() as (_, record):
        assert (await asked(record.url, path, tree))[0] == 400


@pytest.mark.parametrize("path", pooling.ROUTES)
async def test_the_routes_that_generate_nothing_die_too(path: str) -> None:
    async with fake_engine(Faults(die_after=0)) as (_, record):
        with pytest.raises(aiohttp.ClientError):
            await asked(record.url, path, REQUESTS["embeddings"][1])


async def test_base64_holds_the_same_numbers() -> None:
    tree: dict[str, Any] = {"input": "abc", "dimensions": 4}
    plain = pooling.embeddings(tree, IDENT, BASE)["data"][0]["embedding"]
    packed = pooling.embeddings({**tree, "encoding_format": "base64"}, IDENT, BASE)["data"][0]["embedding"]
    assert struct.unpack("<4f", base64.b64decode(packed)) == pytest.approx(plain)


async def test_a_texts_tokens_are_detokenised_again() -> None:
    ids = pooling.tokenize({"prompt": "naïve"}, IDENT, BASE)["tokens"]
    assert pooling.detokenize({"tokens": [*ids, 256]}, IDENT, BASE) == {"prompt": "naïve"}
