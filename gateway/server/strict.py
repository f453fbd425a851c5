"""Parse JSON from clients, and refuse what RFC 8259 leaves open, so that no two programs can read it differently.

msgspec's parser refuses what is not JSON (NaN, 1e999, lone surrogates, bad UTF-8, trailing bytes). This module refuses too many values,
duplicate keys, deep nesting, and integers that neither the engines nor the store can hold.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import ApiError, invalid

MAX_PARTS = 200_000
"""Characters `[`, `{` and `,` in a body, in strings too. Each value costs far more time and memory than its bytes."""
LOWEST, HIGHEST = -(2**63), 2**63 - 1


def parse(body: bytes, max_depth: int) -> dict[str, Any]:
    """Return the JSON object in `body`. ApiError 400 for anything else."""
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
    """Count the colons outside of strings. Without escaped quotes, every other part between quotes is a string."""
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(body.split(b'"')[::2]).count(b":")


def _pairs(tree: Any, max_depth: int) -> int:
    """Count the key-value pairs in the whole tree. ApiError 400 if it is too deep or has an integer out of range."""
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
