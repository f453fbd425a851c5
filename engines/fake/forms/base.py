"""How a route writes an answer: whole, or as a stream's bytes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from engines.fake import model
from engines.fake.answers import Token
from engines.fake.asks import Ask

FINGERPRINT = "vllm-0.32.0-fake"


class Form(ABC):
    """One answer to `ask`, in exactly the form of vLLM 0.32."""

    def __init__(self, ask: Ask, public_id: str) -> None:
        self.ask = ask
        self.id = public_id
        self.created = int(time.time())
        self.count = 0
        """Tokens written so far."""

    @property
    def prompt(self) -> list[int]:
        return self.ask.prompts[0]

    @abstractmethod
    def whole(self, drawn: Sequence[Token]) -> dict[str, Any]:
        """The answer that these tokens make."""

    @abstractmethod
    def first(self) -> bytes:
        """What a stream begins with, before any token."""

    @abstractmethod
    def token(self, token: Token) -> bytes:
        """What a token brings it; b"" for nothing."""

    @abstractmethod
    def last(self) -> bytes:
        """What it ends with."""

    def usage(self, completion: int) -> dict[str, int]:
        prompt = sum(len(ids) for ids in self.ask.prompts)
        return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}


def entry(token: int, logprob: float) -> dict[str, Any]:
    """A token of a chat's log-probs."""
    return {"token": model.token_text(token), "logprob": logprob, "bytes": model.token_bytes(token)}


def likeliest(own: Token, top: int) -> list[tuple[int, float]]:
    """The `top` likeliest tokens where `own` was drawn, with their log-probs; the fake's own is the likeliest."""
    return [((own.id + i) % (model.END + 1), own.logprob - i) for i in range(top)]
