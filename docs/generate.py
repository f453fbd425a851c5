"""Write the pages that are generated from the code: docs/configuration.md, docs/cli.md, docs/openapi.json. `--check` only compares.

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
from gateway.api.routes import PLANES
from ratchet.cli.app import app
from ratchet.config import BUILT_IN, schema

HERE = Path(__file__).parent
SEE_BELOW = "see below"
"""Default of a section, whose keys have their own."""
MADE = "<!-- Made by docs/generate.py (`make docs`) from the code; do not edit. -->"


def configuration() -> str:
    """Return the page with every key of the YAML, its type, default and meaning."""
    described = schema()
    parts = [
        MADE,
        "# Configuration",
        "Ratchet reads one YAML file, given with `-c`. This page lists every key with its type, default and meaning.",
        "| command | does |\n|---|---|\n| `ratchet config check` | report every error |\n"
        "| `ratchet config show` | print the configuration in force |\n| `ratchet config schema` | print the JSON Schema |",
        "An unknown key is an error that names its path and the nearest valid key. So is a key for something that is not built yet.",
        "**Environment variables override the file.** `RATCHET_GATEWAY__PORT=9000` sets `gateway.port`, and `RATCHET_ENGINES__0__URL` sets "
        "the first engine's `url`. Values are read as YAML.",
        "**Relative paths** (`models.*.path`, `gate.heldout`, `artifacts.url`) are relative to the file's folder. Reward functions "
        "(`module:function`) are also imported from there.",
        "Without `-c`, this configuration is used:",
        "```yaml\n" + yaml.safe_dump(BUILT_IN, sort_keys=False) + "```",
        *_sections(described),
    ]
    return "\n\n".join(parts) + "\n"


def _sections(described: dict[str, Any]) -> Iterator[str]:
    places = {"Config": "Top level"}
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
    """Return what tells this section from the others that the field may hold."""
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
        return "required" if required else SEE_BELOW
    value = field["default"]
    return (
        SEE_BELOW
        if isinstance(value, dict) and "$ref" in field
        else f"`{yaml.safe_dump(value, default_flow_style=True, width=999).split(chr(10))[0]}`"
    )


def _text(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def cli() -> str:
    """Return the page with every command and its help."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="ratchet")
    head = (
        "This page is the output of `--help` for every command.\n\n"
        "| exit status | meaning |\n|---|---|\n| 0 | success |\n| 1 | failure |\n| 2 | wrong command line or configuration |\n\n"
        "An error is one line on stderr.\n\n"
        "**Data directory.** The first of these that is set: `--data`, `$RATCHET_DATA`, `$XDG_STATE_HOME/ratchet`, "
        "`~/.local/state/ratchet`.\n\n"
        "**Admin API.** `train`, `policies`, `promote`, `rollback` and `keys` call a gateway's admin API. They take its URL and an "
        "operator key from `--admin` and `--key`, or else from `$RATCHET_ADMIN_URL` and `$RATCHET_OPERATOR_KEY`, or else from the data "
        "directory while `ratchet up` runs on it."
    )
    return "\n\n".join([MADE, "# Commands", head, *_commands(command, context)]) + "\n"


def _commands(command: Any, context: Any) -> Iterator[str]:
    for name, below in getattr(command, "commands", {}).items():
        inner = typer.Context(below, info_name=name, parent=context)
        inner.terminal_width = inner.max_content_width = 100
        yield f"## {inner.command_path}\n\n```text\n{below.get_help(inner).strip()}\n```"
        yield from _commands(below, inner)


def main(argv: list[str]) -> int:
    openapi = json.dumps(document(PLANES), indent=1) + "\n"
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
