from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from engines import EngineControl, connect
from ratchet.errors import EngineUnavailable
from ratchet.types import EngineRecord
from tests.support.fake_engine import fake_engine

CHAT, TEXT, EMBEDDINGS, SCORE = "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/score"
VECTOR = '{"data":[{"index":0,"object":"embedding","embedding":[-0.03,0.04]}]}'
NUMBER = '{"data":[{"index":0,"object":"score","score":0.66}]}'
TOKEN = '{"choices":[{"index":0,"text":"a"}]}'
NO_TEMPLATE = '{"error":{"message":"no default chat template","type":"BadRequestError","code":400}}'
Answers = Mapping[str, tuple[int, str]]


@asynccontextmanager
async def answering(answers: Callable[[], Answers]) -> AsyncIterator[tuple[EngineControl, list[str]]]:
    """An engine that answers so, by its routes, and has no others; and the routes that it was asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        status, text = answers().get(request.path, (404, '{"detail":"Not Found"}'))  # FastAPI's, and so vLLM's
        return web.Response(status=status, text=text, content_type="application/json")

    app = web.Application()
    app.router.add_post("/{route:.*}", answer)
    async with TestServer(app) as server:
        engine = connect(EngineRecord("odd", "vllm", "m", str(server.make_url("")), "m"))
        yield engine, asked
        await engine.close()


async def test_an_engine_that_chats_is_asked_for_one_token_and_nothing_else() -> None:
    async with fake_engine() as (fake, record):
        engine = connect(record)
        assert await engine.health()
        await engine.close()
        assert [body["max_tokens"] for body in fake.requests] == [1]


@pytest.mark.parametrize(
    ("path", "answer", "before"),
    [(TEXT, TOKEN, [CHAT]), (EMBEDDINGS, VECTOR, [CHAT, TEXT]), (SCORE, NUMBER, [CHAT, TEXT, EMBEDDINGS])],
)
async def test_an_engine_without_chat_shows_what_it_can_do_and_is_asked_that_again(path: str, answer: str, before: list[str]) -> None:
    async with answering(lambda: {path: (200, answer)}) as (engine, asked):
        assert [await engine.health() for _ in range(2)] == [path == TEXT] * 2
        assert asked == [*before, path, path]


async def test_a_base_without_a_chat_template_shows_a_text() -> None:
    async with answering(lambda: {CHAT: (400, NO_TEMPLATE), TEXT: (200, TOKEN)}) as (engine, asked):
        await engine.health()
        assert asked == [CHAT, TEXT]


async def test_another_engine_in_its_place_is_found_out() -> None:
    answers = {EMBEDDINGS: (200, VECTOR)}
    async with answering(lambda: answers) as (engine, asked):
        await engine.health()
        answers = {CHAT: (200, TOKEN)}
        await engine.health()
        assert asked[-2:] == [EMBEDDINGS, CHAT]


@pytest.mark.parametrize(
    "answers",
    [
        {},
        {CHAT: (500, "{}"), EMBEDDINGS: (200, VECTOR)},
        {CHAT: (200, '{"choices":[]}'), EMBEDDINGS: (200, VECTOR)},
        {CHAT: (200, "moon")},
        {EMBEDDINGS: (200, '{"data":[{"embedding":[]}]}')},
        {EMBEDDINGS: (200, '{"data":[{"embedding":[NaN]}]}')},
        {EMBEDDINGS: (200, '{"data":[]}')},
        {SCORE: (200, '{"data":[{"score":null}]}')},
    ],
)
async def test_one_that_does_none_of_it_is_not_healthy(answers: Answers) -> None:
    async with answering(lambda: answers) as (engine, _):
        with pytest.raises(EngineUnavailable, match="cannot generate"):
            await engine.health()
