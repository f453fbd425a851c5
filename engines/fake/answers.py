"""The tokens of an answer, one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from engines.fake import model
from engines.fake.asks import Ask

Pace = Callable[[int], Awaitable[None]]
"""Awaited with the number of tokens so far before each token, for all choices together."""


class Token(msgspec.Struct):
    """One step of one choice, its `at`-th token: `text` is what it adds, after any stop string was cut off."""

    choice: int
    id: int
    logprob: float
    text: str
    at: int = 0
    finish: str | None = None
    stop: str | None = None


async def tokens(ask: Ask, pace: Pace) -> AsyncIterator[Token]:
    """All choices' tokens, a step of each in turn, as continuous batching gives them; `n` choices of each prompt."""
    running = {i: _Running(ask, ask.prompts[i // ask.n], i) for i in range(ask.n * len(ask.prompts))}
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
    def __init__(self, ask: Ask, prompt: Sequence[int], index: int) -> None:
        greedy = ask.temperature == 0
        seed, drawn = (0, 0) if greedy else (ask.seed or 0, index % ask.n)
        self._ids = list(model.answer(ask.model, prompt, drawn, seed, tokens=ask.limit, endless=ask.ignore_eos, text=ask.text))
        self._ask, self._prompt, self._index = ask, prompt, index
        self._decoder, self._text, self._at, self._sent = model.Decoder(), "", 0, 0
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
        token.text = self._send(stop, token.finish is not None)
        return token

    def _send(self, stop: str | None, finished: bool) -> str:
        end = self._text.index(stop) if stop is not None else len(self._text) - (0 if finished else self._hold)
        start, self._sent = self._sent, max(self._sent, end)
        return self._text[start:end]
