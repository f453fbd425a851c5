"""The content of items and blocks: text, calls and their results. Media is refused, since an engine would fetch its URL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.errors import invalid

INPUT_PARTS = frozenset({"input_text", "output_text", "refusal", "summary_text", "text"})
REASONING_PARTS = frozenset({"reasoning_text", "summary_text"})
INPUT_ITEMS = frozenset({"message", "function_call", "function_call_output", "reasoning"})
ROLES = frozenset({"user", "assistant", "system", "developer"})
BLOCKS = frozenset({"text", "tool_use", "tool_result", "thinking", "redacted_thinking"})


def check_items(items: list[dict[str, Any]]) -> None:
    """Check the `input` of a response. Raises ApiError 400 for what no engine here accepts."""
    for item in items:
        kind = item.get("type", "message")
        if not isinstance(kind, str) or kind not in INPUT_ITEMS:
            raise invalid(f"Input items of type {str(kind)[:64]!r} are not offered here.", "input", "unsupported_parameter")
        if kind == "message" and not (isinstance(role := item.get("role"), str) and role in ROLES):
            raise invalid("A message's 'role' is one of user, assistant, system, developer.", "input")
        if kind == "reasoning":
            for key in ("content", "summary"):
                if item.get(key) is not None:
                    _parts(item[key], REASONING_PARTS, "input")
        elif not isinstance(content := item.get("content", item.get("output", "")), str):
            _parts(content, INPUT_PARTS, "input")


def check_blocks(content: Any, param: str) -> None:
    """Check the content of an Anthropic message, or its system text. Raises ApiError 400."""
    if content is None or isinstance(content, str):
        return
    for block in _parts(content, BLOCKS, param):
        if block["type"] == "tool_result":
            check_blocks(block.get("content"), param)


def _parts(content: Any, known: frozenset[str], param: str) -> Iterable[dict[str, Any]]:
    if not isinstance(content, list):
        raise invalid("Content is a text or a list of parts.", param)
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in known:
            raise invalid(f"Content of type {str(kind)[:64]!r} is not offered here.", param, "unsupported_parameter")
    return content
