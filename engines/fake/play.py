"""Answers with a form: a JSON instance of a schema, or a call of a tool, filled from the message alone.

As a grammar would have it, and simpler: an integer is the message's first one, a text its first quoted words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import msgspec

NUMBER = re.compile(r"-?\d+")
QUOTED = re.compile(r"'([^']+)'")
CALL_ID = "chatcmpl-tool-0123456789abcdef"
DEEPEST = 16
"""Levels of a schema that are filled in; a recursive one ends here."""


class Call(msgspec.Struct):
    """A tool's call; `arguments` is JSON."""

    name: str
    arguments: str

    @property
    def text(self) -> str:
        """As a model of Hermes' kind writes it."""
        return f"{self._head}{self.arguments}}}\n</tool_call>"

    @property
    def _head(self) -> str:
        return f'<tool_call>\n{{"name": "{self.name}", "arguments": '

    @property
    def message(self) -> dict[str, Any]:
        return {"id": CALL_ID, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}

    def delta(self, at: int, added: str) -> dict[str, Any]:
        """What byte `at` of `text`, which added `added` to it, brings a stream, as vLLM's: the name, then the arguments as they come."""
        begin = len(self._head.encode())
        if at == begin - 1:
            return _calls({"id": CALL_ID, "type": "function", "index": 0, "function": {"name": self.name}})
        if added and begin <= at < begin + len(self.arguments.encode()):
            return _calls({"index": 0, "function": {"arguments": added}})
        return {}


def called(tools: Sequence[Mapping[str, Any]], choice: Any, messages: Sequence[Mapping[str, Any]]) -> Call | None:
    """The call that answers `messages`, None for none.

    `choice` is the request's `tool_choice`. Left to itself (`auto`) the fake calls a tool one of whose name's words, of four letters or
    more, is in the user's message; to a tool's result it answers with text.
    """
    functions = [tool["function"] for tool in tools if "function" in tool]
    text = said(messages)
    if isinstance(choice, Mapping) and "function" in choice:
        functions = [function for function in functions if function["name"] == choice["function"].get("name")]
    elif choice in (None, "auto"):
        functions = [f for f in functions if _last_is_users(messages) and _named(f["name"], text)]
    elif choice != "required":
        return None
    if not functions:
        return None
    return Call(functions[0]["name"], dumped(filled(functions[0].get("parameters") or {}, text)))


def formed(response_format: Mapping[str, Any] | None, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The text that `response_format` asks for; None if any will do."""
    kind = (response_format or {}).get("type")
    text = said(messages)
    if kind == "json_object":
        return dumped(dict.fromkeys(QUOTED.findall(text), "some words"))
    if kind == "json_schema" and response_format is not None:
        return dumped(filled(response_format["json_schema"].get("schema") or {}, text))
    return None


def said(messages: Sequence[Mapping[str, Any]]) -> str:
    """The last message's text."""
    content = messages[-1].get("content") if messages else None
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def filled(schema: Mapping[str, Any], text: str) -> Any:
    """An instance of the JSON Schema's everyday part: objects, arrays, enums, numbers, texts, references."""
    return _filled(schema, schema, text, DEEPEST)


def dumped(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _filled(schema: Mapping[str, Any], root: Mapping[str, Any], text: str, left: int) -> Any:
    schema = _plain(schema, root)
    kind = schema.get("type", "object" if "properties" in schema else "null")
    if "const" in schema or "enum" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    if left == 0 or kind == "null":
        return None
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _filled(below, root, text, left - 1) for name, below in properties.items()}
    if kind == "array":
        return [_filled(schema.get("items", {}), root, text, left - 1)] * max(1, schema.get("minItems", 1))
    number = NUMBER.search(text)
    values: dict[str, Any] = {"integer": int(number[0]) if number else 1, "number": float(number[0]) if number else 0.5, "boolean": True}
    quoted = QUOTED.search(text)
    return values.get(kind, quoted[1] if quoted else "some words")


def _calls(call: dict[str, Any]) -> dict[str, Any]:
    return {"content": None, "tool_calls": [call]}


def _plain(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind references and the first of alternatives."""
    for _ in range(DEEPEST):
        reference = schema.get("$ref")
        options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if isinstance(reference, str) and reference.startswith("#"):
            schema = reduce(lambda node, key: node.get(key, {}), filter(None, reference[1:].split("/")), root)
        elif options:
            schema = options[0]
        elif isinstance(schema.get("type"), list):
            schema = {**schema, "type": schema["type"][0]}
        else:
            break
    return schema


def _last_is_users(messages: Sequence[Mapping[str, Any]]) -> bool:
    return bool(messages) and messages[-1].get("role") == "user"


def _named(name: str, text: str) -> bool:
    return any(len(word) > 3 and word in text.lower() for word in name.lower().split("_"))
