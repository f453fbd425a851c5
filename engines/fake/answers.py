"""What is asked of the fake, and the tokens it answers with, whatever the route."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec

from engines.fake import model, play

Pace = Callable[[int], Awaitable[None]]
"""Awaited with the number of tokens so far before each token, for all choices together."""

LONGEST = 2**14
"""Tokens of an answer; a model's length bounds them too."""


class Ask(msgspec.Struct, dict=True):
    """The fields of a request that the fake heeds."""

    model: str = ""
    messages: list[dict[str, Any]] = []
    prompt: str | list[str | int | list[int]] = ""
    echo: bool = False
    n: int = 1
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    return_token_ids: bool = False
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None

    @cached_property
    def call(self) -> play.Call | None:
        """The tool call that the answer is."""
        return play.called(self.tools or [], self.tool_choice, self.messages)

    @property
    def playable(self) -> bool:
        """Whether the schemas in it, which are anybody's, can be read as such."""
        try:
            return self.text is None or bool(self.text)
        except (AttributeError, LookupError, TypeError):
            return False

    @cached_property
    def text(self) -> bytes | None:
        """What the answer has to say; None: anything."""
        said = self.call.text if self.call is not None else play.formed(self.response_format, self.messages)
        return None if said is None else said.encode()

    @property
    def limit(self) -> int:
        return min(self.max_completion_tokens or self.max_tokens or 1024, LONGEST)

    def prompts(self) -> list[list[int]]:
        """The ids of each prompt; a chat is one."""
        if self.messages:
            return [model.prompt_ids(self.messages)]
        if isinstance(self.prompt, str):
            return [list(self.prompt.encode())]
        ids = [item for item in self.prompt if isinstance(item, int)]
        return (
            [ids] if ids else [list(item.encode()) if isinstance(item, str) else item for item in self.prompt if not isinstance(item, int)]
        )


class Token(msgspec.Struct):
    """One step of one choice, its `at`-th token: `text` is what it adds, after any stop string was cut off."""

    choice: int
    id: int
    logprob: float
    text: str
    at: int = 0
    finish: str | None = None
    stop: str | None = None


async def tokens(ask: Ask, prompts: Sequence[Sequence[int]], pace: Pace) -> AsyncIterator[Token]:
    """All choices' tokens, a step of each in turn, as continuous batching gives them: `n` choices of the first prompt, then the next's."""
    running = {p * ask.n + i: _Running(ask, prompt, p * ask.n + i, i) for p, prompt in enumerate(prompts) for i in range(ask.n)}
    count = 0
    while running:
        for index in list(running):
            await pace(count)
            count += 1
            token = running[index].step()
            yield token
            if token.finish is not None:
                del running[index]


class _Running:
    def __init__(self, ask: Ask, prompt: Sequence[int], index: int, draw: int) -> None:
        greedy = ask.temperature == 0
        seed = 0 if greedy else ask.seed or 0
        drawn = model.answer(ask.model, prompt, 0 if greedy else draw, seed, tokens=ask.limit, endless=ask.ignore_eos, text=ask.text)
        self._ids = list(drawn)
        self._ask, self._prompt, self._index = ask, prompt, index
        self._decoder, self._text, self._at, self._told = model.Decoder(), "", 0, 0
        self._stops = [ask.stop] if isinstance(ask.stop, str) else ask.stop or []
        # As vLLM: the last characters wait, since they may turn out to begin a stop string.
        self._hold = max((len(s) for s in self._stops), default=1) - 1

    def step(self) -> Token:
        drawn = self._ids[self._at]
        token = Token(self._index, drawn, model.logprob(self._ask.model, self._prompt, self._at, drawn), "", self._at)
        self._at += 1
        self._text += self._decoder.feed(drawn)
        stop = next((s for s in self._stops if s in self._text), None)
        if drawn == model.END or stop is not None:
            token.finish, token.stop = "stop" if self._ask.call is None else "tool_calls", stop
        elif self._at == len(self._ids):
            token.finish = "length"
        token.text = self._tell(stop, token.finish is not None)
        return token

    def _tell(self, stop: str | None, finished: bool) -> str:
        end = self._text.index(stop) if stop is not None else len(self._text) - (0 if finished else self._hold)
        told, self._told = self._told, max(self._told, end)
        return self._text[told:end]


def chat_logprobs(drawn: Sequence[Token], top: int) -> dict[str, Any]:
    """`top`: how many of the likeliest are told beside each token; the fake's own is the likeliest."""

    def told(token: int, logprob: float) -> dict[str, Any]:
        return {"token": model.token_text(token), "logprob": logprob, "bytes": model.token_bytes(token)}

    def likeliest(own: Token) -> list[dict[str, Any]]:
        return [told((own.id + i) % (model.END + 1), own.logprob - i) for i in range(top)]

    return {"content": [{**told(t.id, t.logprob), "top_logprobs": likeliest(t)} for t in drawn]}


def usage(prompts: Sequence[Sequence[int]], completion: int) -> dict[str, int]:
    """`n` answers to a prompt have it once."""
    read = sum(len(prompt) for prompt in prompts)
    return {"prompt_tokens": read, "total_tokens": read + completion, "completion_tokens": completion}
