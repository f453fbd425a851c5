"""JSON from strangers: what RFC 8259 leaves open is refused, so that nobody downstream can read it differently.

msgspec's parser refuses what is no JSON (NaN, 1e999, lone surrogates, bad UTF-8, trailing bytes); here come size in values, duplicate
keys, depth, and integers that neither the engines nor the store can hold.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import ApiError, invalid

MAX_PARTS = 200_000
"""Bytes `[`, `{` and `,` of a body, in texts too: each value costs time and memory far beyond its bytes, and the loop waits."""
LOWEST, HIGHEST = -(2**63), 2**63 - 1


def parse(body: bytes, max_depth: int) -> dict[str, Any]:
    """The JSON object in `body`. ApiError 400 for anything else."""
    if sum(map(body.count, (b"[", b"{", b","))) > MAX_PARTS:
        raise _refused(f"The body has more than {MAX_PARTS} of '[', '{{' and ','.")
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refused(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    if not isinstance(tree, dict):
        raise _refused("The body must be a JSON object.")
    # Each pair has one colon outside of strings; a duplicate key leaves fewer pairs than colons.
    if _colons(body) != _pairs(tree, max_depth):
        raise _refused("The body has an object with a duplicate key.")
    return tree


def _colons(body: bytes) -> int:
    """Colons outside of strings: between every other quote, once the escaped ones are gone."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2]).count(b":")


def _pairs(tree: Any, max_depth: int) -> int:
    """Key-value pairs in the whole tree; refuses depth and integers past their bounds on the way."""
    count = 0
    level = [tree]
    for _ in range(max_depth):
        below: list[Any] = []
        for node in level:
            children = node
            if isinstance(node, dict):
                count += len(node)
                children = node.values()
            for child in children:
                if isinstance(child, (dict, list)):
                    below.append(child)
                elif isinstance(child, int) and not LOWEST <= child <= HIGHEST:
                    raise _refused("The body has an integer that does not fit in 64 bits.")
        if not below:
            return count
        level = below
    raise _too_deep(max_depth)


def _too_deep(max_depth: int) -> ApiError:
    return _refused(f"The body is nested deeper than {max_depth}.")


def _refused(message: str) -> ApiError:
    return invalid(message, code="invalid_json")
