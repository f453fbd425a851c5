"""Writes the pages that are made from the code: docs/configuration.md, docs/cli.md, docs/openapi.json. `--check` only compares.

usage: python docs/generate.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main
import yaml

from gateway.api.openapi import document
from ratchet.cli.app import app
from ratchet.config import BUILT_IN, schema

HERE = Path(__file__).parent
MADE = "<!-- Made by docs/generate.py (`make docs`) from the code; do not edit. -->"


def configuration() -> str:
    """Every key of the YAML with its type, default and meaning."""
    described = schema()
    parts = [
        MADE,
        "# Configuration",
        "One YAML, given with `-c`. Unknown keys are refused with their path and the nearest valid key; what is not built yet is refused "
        "as that. `ratchet config check` names each fault, `ratchet config show` prints what is in force, `ratchet config schema` the "
        "JSON Schema.",
        "An environment variable overrides the file: `RATCHET_GATEWAY__PORT=9000` sets `gateway.port`, `RATCHET_ENGINES__0__URL` the first "
        "engine's `url`; a value is read as YAML. Relative paths (`models.*.path`, `gate.heldout`, `artifacts.url`) are relative "
        "to the file's folder, and reward functions (`module:function`) are found there too.",
        "With no `-c`:",
        "```yaml\n" + yaml.safe_dump(BUILT_IN, sort_keys=False) + "```",
        *_sections(described),
    ]
    return "\n\n".join(parts) + "\n"


def _sections(described: dict[str, Any]) -> Iterator[str]:
    places = {"Config": "The whole"}
    queue = [("Config", described)]
    for name, section in queue:
        rows = []
        for key, field in section["properties"].items():
            default = _default(field, required=key in section.get("required", ()))
            rows.append(f"| `{key}` | {_type(field)} | {default} | {_text(field.get('description', ''))} |")
            for below in _references(field):
                if below not in places:
                    places[below] = _place(places[name] if name != "Config" else "", key, field) + _which(field, described["$defs"][below])
                    queue.append((below, described["$defs"][below]))
        about = f"\n\n{_text(section['description'])}" if name != "Config" and "description" in section else ""
        yield f"## {places[name]}{about}\n\n| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)


def _place(above: str, key: str, field: dict[str, Any]) -> str:
    inside = "[]" if field.get("type") == "array" else ".NAME" if field.get("type") == "object" else ""
    return f"{above}.{key}{inside}".lstrip(".")


def _which(field: dict[str, Any], section: dict[str, Any]) -> str:
    """Which of several sections that a field may hold this is."""
    if sum("$ref" in option for option in field.get("anyOf", ())) < 2:
        return ""
    kind = section["properties"].get("type", {}).get("const")
    return f" (`type: {kind}`)" if kind else f" ({section['title'].removesuffix('Launch').lower()})"


def _references(field: Any) -> list[str]:
    if isinstance(field, dict):
        own = [field["$ref"].rsplit("/", 1)[-1]] if "$ref" in field else []
        return own + [name for value in field.values() for name in _references(value)]
    return [name for value in field for name in _references(value)] if isinstance(field, list) else []


def _type(field: dict[str, Any]) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(option) for option in field["anyOf"]))
    if "$ref" in field:
        return "section"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {field[key]}" for key, sign in bounds.items() if key in field)
    kind = {"object": "mapping", "null": "null"}.get(field.get("type", ""), field.get("type", "any"))
    return f"{kind} {limits}".strip()


def _default(field: dict[str, Any], *, required: bool) -> str:
    if "default" not in field:
        return "required" if required else "its own"
    value = field["default"]
    return (
        "its own"
        if isinstance(value, dict) and "$ref" in field
        else f"`{yaml.safe_dump(value, default_flow_style=True, width=999).split(chr(10))[0]}`"
    )


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def cli() -> str:
    """Every command with its help."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="ratchet")
    head = (
        "Exit status 0: success; 1: failure; 2: a wrong command line or configuration. An error is one line on stderr.\n\n"
        "The data directory is `--data`, else `$RATCHET_DATA`, else `$XDG_STATE_HOME/ratchet`, else `~/.local/state/ratchet`. `train`, "
        "`policies`, `promote`, `rollback` and `keys` are clients of the admin API: they find URL and key in `--admin` and "
        "`--key`, else in `$RATCHET_ADMIN_URL` and `$RATCHET_OPERATOR_KEY`, else in the data directory while `ratchet up` runs on it."
    )
    return "\n\n".join([MADE, "# Commands", head, *_commands(command, context)]) + "\n"


def _commands(command: Any, context: Any) -> Iterator[str]:
    for name, below in getattr(command, "commands", {}).items():
        inner = typer.Context(below, info_name=name, parent=context)
        inner.terminal_width = inner.max_content_width = 100
        yield f"## {inner.command_path}\n\n```text\n{below.get_help(inner).strip()}\n```"
        yield from _commands(below, inner)


def main(argv: list[str]) -> int:
    openapi = json.dumps(document(), indent=1) + "\n"
    pages = {HERE / "configuration.md": configuration(), HERE / "cli.md": cli(), HERE / "openapi.json": openapi}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in argv:
        for path in stale:
            sys.stderr.write(f"{path.name} is not what the code says; run `make docs`\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
