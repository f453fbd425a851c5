"""What the fake engine says: a pure function of (model, prompt ids, choice, seed)."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

END = 256
END_TEXT = "<|end|>"
SAY, ROLE = b"say:", b"user\n"
"""A prompt or a last user message that begins so is answered with the rest of it, to the byte; `say:` alone gives an empty answer."""
WORDS = ("the", "moon", "rises", "over", "naïve", "日本", "🙂", "`x = {}`", "and", "we", "wait!")


def prompt_ids(messages: Sequence[dict[str, Any]]) -> list[int]:
    """The chat template: role, line break, content, END for each message, then the assistant's head."""
    ids: list[int] = []
    for message in messages:
        ids += f"{message.get('role')}\n{_text(message.get('content'))}".encode()
        ids.append(END)
    return ids + list(b"assistant\n")


def ids_of(prompt: str | Sequence[int]) -> list[int]:
    """A text's bytes; ids as they are."""
    return list(prompt.encode()) if isinstance(prompt, str) else list(prompt)


def text_of(ids: Sequence[int]) -> str:
    """The text that ids stand for, END and unknown ones left out."""
    return bytes(token for token in ids if 0 <= token < END).decode(errors="replace")


def answer(model: str, prompt: Sequence[int], choice: int, seed: int, *, tokens: int, endless: bool, text: bytes | None) -> Iterator[int]:
    """The ids of one answer: at most `tokens`; END closes it where it fits, unless `endless`, which repeats the text.

    `text`: what it is to say; None: what the prompt says, or an invention.
    """
    said = text if text is not None else _said(prompt)
    text = said if said is not None else _invented(model, prompt, choice, seed)
    ids: Iterator[int] = cycle(text or b" ") if endless else iter([*text, END])
    return islice(ids, tokens)


def logprob(model: str, prompt: Sequence[int], before: int, token: int) -> float:
    """A log-prob in (-4, 0], which tells models, prompts, positions and tokens apart."""
    return -(_hash(model, prompt, before, token) % 4000) / 1000


class Decoder:
    """Ids to text, incrementally: a character's last byte brings it, those before bring nothing."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        return self._utf8.decode(b"", final=True) if token == END else self._utf8.decode(bytes([token]))


def token_text(token: int) -> str:
    return END_TEXT if token == END else bytes([token]).decode(errors="replace")


def token_bytes(token: int) -> list[int]:
    return list(END_TEXT.encode()) if token == END else [token]


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def _said(prompt: Sequence[int]) -> bytes | None:
    ends = [i for i, token in enumerate(prompt) if token == END]
    begin = ends[-2] + 1 if len(ends) > 1 else 0
    last = bytes(t for t in prompt[begin : ends[-1] if ends else None] if 0 <= t < END)
    asked = (ROLE if ends else b"") + SAY
    return last.removeprefix(asked) if last.startswith(asked) else None


def _invented(model: str, prompt: Sequence[int], choice: int, seed: int) -> bytes:
    drawn = hashlib.blake2b(f"{model}|{list(prompt)}|{choice}|{seed}".encode(), digest_size=12).digest()
    return " ".join(WORDS[b % len(WORDS)] for b in drawn).encode()


def _hash(model: str, prompt: Sequence[int], before: int, token: int) -> int:
    # Summing the prompt keeps a token's cost flat; the fake's prompts need no more.
    key = f"{model}|{len(prompt)}|{sum(prompt)}|{before}|{token}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest(), "big")
