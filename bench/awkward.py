"""Questions whose answers are hard to record exactly: many scripts, emoji, code, white space, empty answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from openai import AsyncOpenAI

CONCURRENT = 4
END_OF_TURN = 2
"""`<|im_end|>` in SmolLM2's vocabulary: forced as the first token, it makes an empty answer."""
QUESTIONS = (
    "Repeat exactly: 🎉👩‍👩‍👧‍👦🏳️‍🌈 party 🧑🏽‍🚀",
    "Answer only in emoji: how are you?",
    "Translate to Japanese: good morning, my friend.",
    "用中文写一句关于春天的话。",
    "Напиши слово «привет» три раза.",
    "اكتب كلمة مرحبا",
    "Écris « déjà-vu, naïveté, cœur » encore une fois.",
    "Write a Python function with tabs and 'quotes' that prints \"\\n\".",
    'Give me JSON: {"a": [1, 2, {"b": null}]}',
    "Write <div class='x'>&amp;</div> in HTML.",
    "Write e\u0301 and \u00e9, they differ.",
    "List three names, each on its own line, with two blank lines between.",
)


async def ask(gateway: str, key: str, models: Sequence[str], count: int) -> dict[str, list[str]]:
    """Ask `count` questions, streamed and whole, with one choice and with two, some with empty answers; the client's texts by id."""
    seen: dict[str, list[str]] = {}
    room = asyncio.Semaphore(CONCURRENT)
    async with AsyncOpenAI(base_url=f"{gateway}/v1", api_key=key, max_retries=0, timeout=300) as client:

        async def one(number: int) -> None:
            async with room:
                ident, texts = await (_streamed if number % 2 else _whole)(client, body(number, models[number % len(models)]))
                seen[ident] = texts

        await asyncio.gather(*[one(number) for number in range(count)])
    return seen


def body(number: int, model: str) -> dict[str, Any]:
    """The `number`th request: every tenth has an empty answer, every fifth two choices."""
    question = {"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}
    request: dict[str, Any] = {
        "model": model,
        "messages": [question],
        "max_tokens": 24,
        "temperature": 1.0,
        "n": 2 if number % 5 == 0 else 1,
    }
    return {**request, "logit_bias": {str(END_OF_TURN): 100}} if number % 10 == 9 else request


async def _whole(client: AsyncOpenAI, request: dict[str, Any]) -> tuple[str, list[str]]:
    answer = await client.chat.completions.create(**request)
    return answer.id, [choice.message.content or "" for choice in sorted(answer.choices, key=lambda c: c.index)]


async def _streamed(client: AsyncOpenAI, request: dict[str, Any]) -> tuple[str, list[str]]:
    texts, ident = [""] * request["n"], ""
    async for chunk in await client.chat.completions.create(**request, stream=True):
        ident = chunk.id
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    return ident, texts
