"""Hide from the client what only the recorder asked for, by cutting bytes.

A pattern such as `"logprobs":` with its quotes cannot occur inside a JSON string, where quotes are escaped. So a key and the
span that the parser gave for its value are found where they are. Everything else keeps the engine's own bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engines.types import Wants
from engines.vllm.body import ABSENT, NULL, Body

Cut = tuple[bytes, bytes, bytes]
"""A key with its quotes and colon, its value, and what replaces both."""


def hidden(data: bytes, body: Body, wants: Wants) -> bool:
    """Whether vLLM would not have sent this chunk at all for the client's own request.

    That holds for the closing usage chunk, and for the empty chunks that only carry ids while a tool call is being parsed.
    """
    if not body.choices:
        return body.usage is not None and not wants.usage
    part = body.choices[0]
    if part.text is not None:
        return False
    if len(body.choices) > 1 or part.finish_reason is not None or part.delta is None or part.delta.content is not None:
        return False
    return wants.nothing and body.usage is None and b'"delta":{}' in data


def visible(data: bytes, body: Body, wants: Wants, public_id: str, model: str) -> bytes:
    """`data` as the client may see it: its own id and model name, and no span that it did not ask for."""
    cuts = _cuts(body, wants, public_id, model)
    if not cuts:
        return data
    return _splice(data, cuts) or _rewrite(data, wants, public_id, model)


def _cuts(body: Body, wants: Wants, public_id: str, model: str) -> list[Cut]:
    """In the order vLLM writes them (a whole text completion's is another: it is rewritten)."""
    cuts: list[Cut] = []
    if body.id != public_id:
        cuts.append((b'"id":', msgspec.json.encode(body.id), b'"id":' + msgspec.json.encode(public_id)))
    if body.model != model:
        cuts.append((b'"model":', msgspec.json.encode(body.model), b'"model":' + msgspec.json.encode(model)))
    for part in body.choices:
        if not wants.logprobs and part.logprobs is not ABSENT and (raw := bytes(part.logprobs)) != NULL:
            cuts.append((b'"logprobs":', raw, b'"logprobs":null'))
        if not wants.token_ids:
            if part.prompt_token_ids is not ABSENT:
                cuts.append((b',"prompt_token_ids":', bytes(part.prompt_token_ids), b""))
            if part.token_ids is not ABSENT:
                cuts.append((b',"token_ids":', bytes(part.token_ids), b""))
    if not wants.token_ids and body.prompt_token_ids is not ABSENT:
        cuts.append((b',"prompt_token_ids":', bytes(body.prompt_token_ids), b""))
    return cuts


def _splice(data: bytes, cuts: list[Cut]) -> bytes | None:
    """One pass over `data`; None if a span is not literally there (other white space, another order)."""
    pieces: list[bytes] = []
    at = 0
    for key, value, new in cuts:
        found = data.find(key, at)
        after = found + len(key)
        if found < 0 or not data.startswith(value, after):
            return None
        pieces.append(data[at:found])
        if new:
            pieces.append(new)
        at = after + len(value)
    pieces.append(data[at:])
    return b"".join(pieces)


def _rewrite(data: bytes, wants: Wants, public_id: str, model: str) -> bytes:
    tree: dict[str, Any] = msgspec.json.decode(data)
    tree |= {"id": public_id, "model": model}
    for choice in tree.get("choices", []):
        if not wants.logprobs and "logprobs" in choice:
            choice["logprobs"] = None
        if not wants.token_ids:
            choice.pop("token_ids", None)
            choice.pop("prompt_token_ids", None)
    if not wants.token_ids:
        tree.pop("prompt_token_ids", None)
    return msgspec.json.encode(tree)
