"""Chat and text completions of vLLM: the ids and log-probs of each choice, and the bytes without what the client did not ask for."""

from __future__ import annotations

from typing import Any

import msgspec

from engines import sse
from engines.openai.message import Message
from engines.stream import EventCapture
from engines.types import ENDS, Captured, Wants, paired
from engines.vllm import body as wire
from engines.vllm import cut
from ratchet.errors import EngineBroken
from ratchet.types import Choice

BATCH = 64
"""Tokens whose ids and log-probs are decoded together."""


class ChoicesCapture(EventCapture[bytes]):
    """A streamed answer in choices. `model` is the name that the client is to see."""

    split = staticmethod(sse.split)

    def __init__(self, wants: Wants, public_id: str, model: str) -> None:
        super().__init__()
        self._wants = wants
        self._id = public_id
        self._model = model
        self._choices: dict[int, _Choice] = {}
        self._prompt_ids: list[int] = []
        self._usage: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return bool(self._choices) and all(choice.finish_reason in ENDS for choice in self._choices.values())

    def event(self, event: bytes) -> bytes | None:
        """Read one payload; see `EventCapture`. Also EngineBroken: the engine gave a choice up."""
        if event == sse.DONE:
            self.done = True
            return event
        body = wire.parse(event)
        if body.usage is not None:
            self._usage = body.usage
        if body.prompt_token_ids is not wire.ABSENT:
            self._prompt_ids = wire.ids(body.prompt_token_ids) or self._prompt_ids
        for part in body.choices:  # in line: a call for each choice of each chunk would show
            choice = self._choices.get(part.index)
            if choice is None:
                choice = self._choices[part.index] = _Choice()
            if part.token_ids is not wire.ABSENT:
                choice.raw_ids.append(part.token_ids)
            if part.logprobs is not wire.ABSENT:
                choice.raw_logprobs.append(part.logprobs)
            if len(choice.raw_ids) >= BATCH or len(choice.raw_logprobs) >= BATCH:
                choice.decode()  # a span keeps its whole event in memory
            if part.prompt_token_ids is not wire.ABSENT:
                self._prompt_ids = wire.ids(part.prompt_token_ids) or self._prompt_ids
            if part.finish_reason is not None:
                choice.finish_reason = part.finish_reason
            if part.text is not None:
                choice.say(part.text)
            if part.delta is not None:
                choice.take(part.delta)
        for part in body.choices:
            if part.finish_reason is not None and part.finish_reason not in ENDS:
                raise EngineBroken(f"the engine gave up: {part.finish_reason[:50]}")
        if cut.hidden(event, body, self._wants):
            return None
        return cut.visible(event, body, self._wants, self._id, self._model)

    def captured(self) -> Captured:
        """See `StreamCapture`; `exact` only once the stream has given its usage."""
        choices = [choice.choice(index) for index, choice in sorted(self._choices.items())]
        sound = all(choice.sound for choice in self._choices.values())
        return Captured(self._prompt_ids, choices, self._usage, sound and _exact(self._prompt_ids, choices, self._usage))


def capture_whole(body: bytes, wants: Wants, public_id: str, model: str) -> tuple[bytes, Captured]:
    """A whole answer: the body the client may see, and the record (it may be not `finished`). EngineBroken: it is no answer."""
    parsed = wire.parse(body)
    if not parsed.choices:
        raise EngineBroken("the engine's answer has no choices")
    prompt_ids, usage = wire.ids(parsed.prompt_token_ids), parsed.usage or {}
    choices, sound = [], True
    for part in sorted(parsed.choices, key=lambda p: p.index):
        found = wire.logprobs(part.logprobs)
        values = [v for v in found if v is not None]
        sound = sound and len(values) == len(found)
        prompt_ids = prompt_ids or wire.ids(part.prompt_token_ids)
        message = part.message if part.text is None else {"role": "assistant", "content": part.text}
        choices.append(Choice(part.index, wire.ids(part.token_ids), values, message or {}, part.finish_reason))
    captured = Captured(prompt_ids, choices, usage, sound and _exact(prompt_ids, choices, usage))
    return cut.visible(body, parsed, wants, public_id, model), captured


def _exact(prompt_ids: list[int], choices: list[Choice], usage: dict[str, Any]) -> bool:
    return paired(choices, usage) and 0 < len(prompt_ids) == usage.get("prompt_tokens")


class _Choice(Message):
    """One choice of a stream so far. `sound` turns false once a log-prob was missing."""

    __slots__ = ("_ids", "_logprobs", "raw_ids", "raw_logprobs", "sound")

    def __init__(self) -> None:
        super().__init__()
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self.sound = True
        # Spans that wait to be decoded: many at once cost a fraction of one by one.
        self.raw_ids: list[msgspec.Raw] = []
        self.raw_logprobs: list[msgspec.Raw] = []

    def decode(self) -> None:
        """Decode the spans that wait. EngineBroken: they are malformed."""
        raw_ids, raw_logprobs = self.raw_ids, self.raw_logprobs
        self.raw_ids, self.raw_logprobs = [], []  # what is malformed is reported once
        self._ids += wire.many_ids(raw_ids)
        found = wire.many_logprobs(raw_logprobs)
        values = [value for value in found if value is not None]
        self.sound = self.sound and len(values) == len(found)
        self._logprobs += values

    def choice(self, index: int) -> Choice:
        """The choice as recorded. EngineBroken: its ids or log-probs are malformed."""
        self.decode()
        return Choice(index, list(self._ids), list(self._logprobs), self.message(), self.finish_reason)
