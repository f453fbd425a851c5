"""The properties of a request that routing needs: its expected tokens, and the key it shares with related requests.

Reads at most `prefix_bytes` of the prompt, however long it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.config import RoutingConfig

BYTES_A_TOKEN = 4
LONGEST_KEY = 512
"""Characters of a session's name that are used."""
PROMPTS = ("system", "instructions", "messages", "prompt", "input", "query")
"""Fields that hold the prompt on the various routes, in the order in which an engine renders them."""
LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def tokens(tree: Mapping[str, Any], size: int, config: RoutingConfig) -> int:
    """Return the tokens to reserve for a body of `size` bytes: an estimate of the prompt plus the limit of the answers."""
    limit = next((tree[name] for name in LIMITS if isinstance(tree.get(name), int)), config.answer_tokens)
    choices = tree.get("n")
    answer = max(0, min(limit, config.max_answer_tokens))
    return size // BYTES_A_TOKEN + answer * (choices if isinstance(choices, int) and choices > 0 else 1) + 1


def key(tree: Mapping[str, Any], session: str, episode: str | None, adapter: str | None, config: RoutingConfig) -> bytes:
    """Return the key by which the strategy keeps requests together; b"" if the request has none.

    `session` is the client's header; without it the body's `user`, then its `prompt_cache_key`, then the episode.
    """
    if config.strategy == "prefix":
        return prefix(tree, config.prefix_bytes)
    if config.strategy == "adapter":
        return (adapter or "").encode()
    if config.strategy == "session":
        words = (session, tree.get("user"), tree.get("prompt_cache_key"), episode)
        return next((word for word in words if isinstance(word, str) and word), "")[:LONGEST_KEY].encode(errors="replace")
    return b""


def prefix(tree: Mapping[str, Any], limit: int) -> bytes:
    """Return a hash of the prompt's first `limit` bytes, up to the end of the first user message: the same for every turn of a dialogue."""
    digest, remaining, found = hashlib.blake2b(digest_size=16), limit, False
    for text in _texts(tree):
        piece = text[:remaining].encode(errors="replace")[:remaining]
        digest.update(piece)
        digest.update(b"\0")
        remaining -= len(piece) + 1
        found = found or bool(piece)
        if remaining <= 0:
            break
    return digest.digest() if found else b""


def _texts(tree: Mapping[str, Any]) -> Iterator[str]:
    for field in PROMPTS:
        value = tree.get(field)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            yield from _messages(value)
            return
        elif isinstance(value, list):
            yield from _items(value)


def _messages(messages: list[Any]) -> Iterator[str]:
    for message in messages:
        if not isinstance(message, dict):
            return
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            yield text if isinstance(text, str) else ""
        if message.get("role") == "user":
            return


def _items(items: list[Any]) -> Iterator[str]:
    """Texts, token ids, or lists of ids."""
    for item in items:
        if isinstance(item, list):
            yield from (str(inner) for inner in item)
        else:
            yield str(item)
