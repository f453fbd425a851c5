"""What passes between an engine and the rest of Ratchet, in no engine's own form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from ratchet.errors import EngineBroken
from ratchet.types import Choice

ENDS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
"""OpenAI's finish reasons. Any other means that the engine gave up (vLLM writes "abort" when it is stopped)."""


class Sample(msgspec.Struct, frozen=True):
    """One sampled continuation.

    `token_ids` [T] are the ids as sampled, the end token included; `logprobs` [T] (nats) are those of the distribution they
    were sampled from. `finish_reason` is `stop` or `length`.
    """

    token_ids: list[int]
    logprobs: list[float]
    text: str
    finish_reason: str | None


class Load(msgspec.Struct, frozen=True):
    """Sequences being decoded, sequences waiting, and how many the engine decodes at a time (0: unknown)."""

    running: int
    waiting: int
    slots: int


class Wants(msgspec.Struct, frozen=True):
    """What the client itself asked to see in an answer."""

    logprobs: bool = False
    token_ids: bool = False
    usage: bool = False
    overlay: dict[str, Any] | None = None
    """Fields of the answer that repeat what the request said, and that the gateway kept from the engine."""

    @property
    def nothing(self) -> bool:
        return not (self.logprobs or self.token_ids)


class Captured(msgspec.Struct, frozen=True):
    """One answer as it is recorded.

    `prompt_ids` [P]; `choices` in the order of their index; `usage` as the engine counted it ({}: it did not). `exact` means
    that every choice's ids and log-probs pair up and that their numbers are those the engine counted. What is missing is left
    out, never padded.
    """

    prompt_ids: list[int]
    choices: list[Choice]
    usage: dict[str, Any]
    exact: bool
    response: dict[str, Any] | None = None
    """The answer as the client saw it, for routes that do not answer in choices."""
    lacks_prompt: bool = False
    """The answer is exact but for `prompt_ids`, which this engine gives only through `EngineControl.prompt_ids`."""

    @property
    def finished(self) -> bool:
        """Whether every choice came to an end of its own."""
        return bool(self.choices) and all(choice.finish_reason in ENDS for choice in self.choices)

    def with_prompt(self, ids: list[int]) -> Captured:
        """The same answer with the prompt's ids; `exact` if they are as many as the engine counted."""
        counted = 0 < len(ids) == self.usage.get("prompt_tokens")
        return msgspec.structs.replace(self, prompt_ids=ids, exact=self.lacks_prompt and counted, lacks_prompt=False)


def paired(choices: list[Choice], usage: dict[str, Any]) -> bool:
    """Whether ids and log-probs pair up in each choice, and their number is what the engine counted."""
    counted = sum(len(choice.token_ids) for choice in choices) == usage.get("completion_tokens")
    return bool(choices) and counted and all(len(choice.token_ids) == len(choice.logprobs) for choice in choices)


class Request(msgspec.Struct, frozen=True):
    """What is sent to an engine: `POST path` with `body` and `headers` (besides its key and the trace)."""

    path: str
    body: bytes
    headers: dict[str, str]


class StreamCapture(ABC):
    """Reads one streamed answer: the engine's bytes in, the client's bytes and the record out."""

    done = False
    """Whether the last event has come."""
    last = b""
    """The last event as the client may see it. It is sent once the answer is recorded."""
    fault: EngineBroken | None = None
    """What is wrong with the stream. Nothing that follows is read."""

    @abstractmethod
    def take(self, data: bytes) -> bytes:
        """Read bytes of the stream, cut anywhere, and return what the client may see now (never `last`)."""

    @abstractmethod
    def captured(self) -> Captured:
        """The answer as far as it was read. EngineBroken: its ids or log-probs are malformed."""


class ClientFault(msgspec.Struct, frozen=True):
    """The request itself is wrong; `message` and `param` are the client's to see."""

    message: str
    param: str | None = None


class NoAdapter(msgspec.Struct, frozen=True):
    """The engine does not hold the adapter."""


class NoRoute(msgspec.Struct, frozen=True):
    """The engine does not have the route."""


class Overloaded(msgspec.Struct, frozen=True):
    """The engine asks for no requests for `seconds`."""

    seconds: float


class EngineFault(msgspec.Struct, frozen=True):
    """Anything else: the engine failed."""


Meaning = ClientFault | NoAdapter | NoRoute | Overloaded | EngineFault
"""Whose fault an error answer is."""
