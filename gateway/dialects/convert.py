"""Convert a JSON tree to one of the gateway's request types; what does not fit is refused in OpenAI's words."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from gateway.errors import ApiError, invalid

T = TypeVar("T")
PLACE = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<path>.*)`)?$", re.DOTALL)
FIELD = re.compile(r"^Object (?P<how>contains unknown|missing required) field `(?P<name>.*)`$", re.DOTALL)


def convert(tree: Any, kind: type[T]) -> T:
    """`tree` as a `kind`. ApiError 400 that names the field."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise explain(str(error)) from None


def explain(text: str) -> ApiError:
    """msgspec's message as OpenAI's error."""
    place = PLACE.match(text)
    what, path = (place["what"], (place["path"] or "").replace("[...]", "") or None) if place is not None else (text, None)
    field = FIELD.match(what)
    if field is None:
        return invalid(f"Invalid value for {path or 'body'!r}: {what}.", path)
    param = f"{path}.{field['name']}" if path else field["name"]
    if field["how"].startswith("missing"):
        return invalid(f"Missing required parameter: {param!r}.", param, "missing_required_parameter")
    return invalid(f"Unknown parameter: {param!r}.", param, "unknown_parameter")


def without_nulls(tree: dict[str, Any], unsupported: frozenset[str]) -> dict[str, Any]:
    """`tree` without its `unsupported` fields, which some clients send as null. ApiError 400 if one is not null."""
    for name in unsupported.intersection(tree):
        if tree[name] is not None:
            raise invalid(f"Unsupported parameter: {name!r} is not offered here.", name, "unsupported_parameter")
        tree = {key: value for key, value in tree.items() if key != name}
    return tree
