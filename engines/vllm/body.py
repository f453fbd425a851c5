"""The parts of an answer in choices that Ratchet reads, as vLLM 0.32 writes them. What may be hidden from the client stays raw bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec

from engines.openai.message import Delta
from ratchet.errors import EngineBroken

NULL = b"null"
ABSENT = msgspec.Raw(NULL)
FLOOR = -9999.0
"""vLLM writes this in place of a log-prob it lacks or that is -inf (`ChatCompletionLogProb` in its protocol)."""


class Entry(msgspec.Struct):
    logprob: float | None = None


class Logprobs(msgspec.Struct):
    """`content` is a chat's form, `token_logprobs` a text completion's."""

    content: list[Entry] | None = None
    token_logprobs: list[float | None] | None = None


class Part(msgspec.Struct):
    """One choice: `delta` in a stream, `message` in a whole answer, `text` in a text completion's."""

    index: int = 0
    text: str | None = None
    delta: Delta | None = None
    message: dict[str, Any] | None = None
    logprobs: msgspec.Raw = ABSENT
    token_ids: msgspec.Raw = ABSENT
    prompt_token_ids: msgspec.Raw = ABSENT
    finish_reason: str | None = None


class Body(msgspec.Struct):
    id: str = ""
    model: str = ""
    choices: list[Part] = []
    usage: dict[str, Any] | None = None
    prompt_token_ids: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_BODY = msgspec.json.Decoder(Body)
_IDS = msgspec.json.Decoder(list[list[int] | None])
_LOGPROBS = msgspec.json.Decoder(list[Logprobs | None])


def parse(data: bytes) -> Body:
    """An answer or a chunk of one. EngineBroken if it is neither, or if it is an error."""
    try:
        body = _BODY.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBroken(f"the engine's answer is not OpenAI's form: {error}") from None
    if body.error is not ABSENT and bytes(body.error) != NULL:
        raise EngineBroken("the engine reports an error; its own log has it")  # its words may be the prompt's
    return body


def ids(raw: msgspec.Raw) -> list[int]:
    """The token ids of a raw span; none if it is null. EngineBroken if it is no list of integers."""
    return [] if raw is ABSENT else many_ids((raw,))


def logprobs(raw: msgspec.Raw) -> list[float | None]:
    """The chosen tokens' log-probs (nats) of a raw span, None for each one that the engine did not know."""
    return [] if raw is ABSENT else many_logprobs((raw,))


def many_ids(raws: Sequence[msgspec.Raw]) -> list[int]:
    """The token ids of many spans, in their order. EngineBroken if one is no list of integers."""
    try:
        found = _IDS.decode(b"[%b]" % b",".join(raws))
    except msgspec.DecodeError as error:
        raise EngineBroken(f"token ids: {error}") from None
    return list(chain.from_iterable(filter(None, found)))


def many_logprobs(raws: Sequence[msgspec.Raw]) -> list[float | None]:
    """The log-probs of many spans, as `logprobs` gives those of one."""
    try:
        found = _LOGPROBS.decode(b"[%b]" % b",".join(raws))
    except msgspec.DecodeError as error:
        raise EngineBroken(f"log-probs: {error}") from None
    values: list[float | None] = []
    for one in filter(None, found):
        values += one.token_logprobs or () if one.content is None else [entry.logprob for entry in one.content]
    return [known(value) for value in values]


def known(value: float | None) -> float | None:
    """A finite log-prob as it is; None for what stands for none (absent, at the floor; JSON has no infinity)."""
    return value if value is not None and value > FLOOR else None
