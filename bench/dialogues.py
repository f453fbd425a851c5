"""A workload of dialogues: many are open, a few ask at a time, and each turn sends the whole dialogue so far."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

TIMEOUT_SECONDS = 300.0
WORDS = (
    "the", "old", "harbour", "town", "keeps", "a", "small", "museum", "where", "visitors", "may", "look", "at", "ships", "lamps",
    "maps", "ropes", "and", "painted", "glass", "every", "morning", "guides", "explain", "how", "sailors", "found", "their", "way",
    "before", "engines", "came", "while", "children", "draw", "boats", "on", "paper", "in", "bright", "room", "near", "stairs", "that",
    "lead", "up", "to", "an", "open", "roof", "with", "wide", "views", "over", "water", "hills", "fields", "roads", "bridges",
    "markets", "full", "of", "bread", "fish",
)  # fmt: skip
"""Each about one token."""


@dataclass(frozen=True)
class Shape:
    """The size of the workload."""

    dialogues: int = 12
    turns: int = 4
    concurrency: int = 4
    system_words: int = 140
    question_words: int = 25
    answer_tokens: int = 12


@dataclass(frozen=True)
class Turn:
    """What a client saw of one turn. The first turn of a dialogue is number 1."""

    dialogue: int
    number: int
    ttft: float
    """Milliseconds from the request to the chunk with the first token."""
    engine: str
    prompt: int
    """Tokens of the prompt."""
    cached: int
    """Prompt tokens that the engine found in its prefix cache, by the answer's usage."""


@dataclass
class Dialogue:
    """One dialogue. Its words depend on `seed`, which all strategies share; it starts with `salt`, so that no earlier run has cached it."""

    number: int
    salt: str
    seed: str
    shape: Shape
    messages: list[ChatCompletionMessageParam] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(f"{self.seed}/{self.number}")
        mark = hashlib.blake2b(f"{self.salt}/{self.number}".encode(), digest_size=6).hexdigest()
        self.messages.append({"role": "system", "content": f"{mark}: {self._words(self.shape.system_words)}"})

    def ask(self) -> None:
        """Add the next question."""
        self.asked += 1
        self.messages.append({"role": "user", "content": self._words(self.shape.question_words)})

    def answered(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def _words(self, count: int) -> str:
        return " ".join(self._rng.choices(WORDS, k=count))


async def run(url: str, key: str, model: str, shape: Shape, *, salt: str, seed: str) -> list[Turn]:
    """Run every turn of every dialogue through `url`; the next to ask is drawn at random. Raises the SDK's errors."""
    waiting = [Dialogue(number, salt, seed, shape) for number in range(shape.dialogues)]
    rng, seen = random.Random(seed), list[Turn]()

    async def user(client: AsyncOpenAI) -> None:
        # If each user kept one dialogue to its end, users twice as many as replicas would keep step with round-robin.
        while waiting:
            dialogue = waiting.pop(rng.randrange(len(waiting)))
            seen.append(await _turn(client, model, dialogue))
            if dialogue.asked < shape.turns:
                waiting.append(dialogue)

    async with (
        AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=TIMEOUT_SECONDS) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(shape.concurrency):
            group.create_task(user(client))
    return seen


async def _turn(client: AsyncOpenAI, model: str, dialogue: Dialogue) -> Turn:
    dialogue.ask()
    began, first, text, prompt, cached = perf_counter(), 0.0, "", 0, 0
    raw = await client.chat.completions.with_raw_response.create(
        model=model,
        messages=dialogue.messages,
        max_tokens=dialogue.shape.answer_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in raw.parse():
        if chunk.choices:
            first = first or perf_counter()
            text += chunk.choices[0].delta.content or ""
        if chunk.usage is not None:
            details = chunk.usage.prompt_tokens_details
            prompt, cached = chunk.usage.prompt_tokens, (details.cached_tokens or 0) if details else 0
    dialogue.answered(text)
    engine = raw.headers.get("x-ratchet-engine", "")
    return Turn(dialogue.number, dialogue.asked, (first - began) * 1000, engine, prompt, cached)


def later(turns: Sequence[Turn]) -> list[Turn]:
    """The turns after the first, whose beginning an engine has already computed."""
    return [turn for turn in turns if turn.number > 1]


def found(turns: Sequence[Turn]) -> float:
    """Share of the prompt tokens that was found in a cache, 0-1; NaN without turns."""
    prompt = sum(turn.prompt for turn in turns)
    return sum(turn.cached for turn in turns) / prompt if prompt else float("nan")


def moved(turns: Sequence[Turn]) -> float:
    """Share of the later turns that went to another replica than the turn before, 0-1; NaN without turns."""
    places = {(turn.dialogue, turn.number): turn.engine for turn in turns}
    changes = [places[turn.dialogue, turn.number - 1] != turn.engine for turn in later(turns)]
    return sum(changes) / len(changes) if changes else float("nan")


def busiest(turns: Sequence[Turn]) -> float:
    """Share of the turns that went to the busiest replica, 0-1; NaN without turns."""
    engines = [turn.engine for turn in turns]
    return max((engines.count(name) for name in set(engines)), default=float("nan")) / max(1, len(engines))
