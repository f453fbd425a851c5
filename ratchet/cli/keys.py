"""`ratchet keys`: through a gateway's admin API or, for the first key, in the store itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ratchet.cli.admin import Admin, connect
from ratchet.cli.options import AdminUrl, Data, OperatorKey, data_directory
from ratchet.cli.store import StoreKeys
from ratchet.config import load
from ratchet.errors import ConfigError
from ratchet.keys import KeySpec

COLUMNS = ("id", "tenant", "scopes", "models", "rpm", "tpm", "concurrency", "note")
OPTIONS = {"scopes": "--scope", "models": "--model"}
"""Options whose name is not that of their field."""
StoreOf = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        metavar="FILE",
        help="Go to the store of this YAML (an embedded one: under --data), not through a gateway; for the first key.",
        show_default=False,
    ),
]

app = typer.Typer(help="Create, list and revoke keys.", no_args_is_help=True)


@app.command("create")
def create(
    tenant: Annotated[str, typer.Option("--tenant", metavar="T", help="Whose it is: a tenant's keys share its answers and feedback.")],
    scope: Annotated[list[str], typer.Option("--scope", metavar="S", help="infer, feedback, operator or metrics; may be repeated.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="M", help="A name it may use; may be repeated. Default: all.")
    ] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", metavar="N", min=1, help="Requests a minute. Default: no bound.")] = None,
    tpm: Annotated[int | None, typer.Option("--tpm", metavar="N", min=1, help="Tokens a minute. Default: no bound.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", metavar="N", min=1, help="Requests at a time.")] = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for.", show_default=False)] = "",
    config: StoreOf = None,
    admin: AdminUrl = None,
    key: OperatorKey = None,
    data: Data = None,
) -> None:
    """Make a key and print it, once: only its sha256 is stored."""
    fields = {"tenant": tenant, "scopes": scope, "models": model or None, "rpm": rpm, "tpm": tpm, "concurrency": concurrency, "note": note}
    spec = checked(fields)
    with _open(config, admin, key, data) as keys:
        created = keys.create_key(spec)
    typer.echo(created["key"])
    typer.echo(f"{created['id']} of {created['tenant']}, for {', '.join(created['scopes'])}; the key is not shown again", err=True)


@app.command("list")
def listed(config: StoreOf = None, admin: AdminUrl = None, key: OperatorKey = None, data: Data = None) -> None:
    """List the keys: whose they are and what they may do."""
    with _open(config, admin, key, data) as keys:
        found = keys.keys()
    Console().print(table(found))


@app.command("revoke")
def revoke(
    item: Annotated[str, typer.Argument(metavar="ID", help="As `ratchet keys list` shows it.")],
    config: StoreOf = None,
    admin: AdminUrl = None,
    key: OperatorKey = None,
    data: Data = None,
) -> None:
    """End a key: within seconds no gateway takes it."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", item) is None:
        raise ConfigError(f"{item!r} cannot be a key's id (give the id, not the key)")
    with _open(config, admin, key, data) as keys:
        keys.revoke_key(item)
    typer.echo(f"{item} is revoked")


def _open(config: Path | None, admin: str | None, key: str | None, data: Path | None) -> Admin | StoreKeys:
    if config is None:
        return connect(admin, key, data)
    return StoreKeys(load(config).store, data_directory(data))


def checked(fields: dict[str, Any]) -> KeySpec:
    """Return the specification of a key. ConfigError names the option that is wrong."""
    try:
        spec = msgspec.convert(fields, KeySpec)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        field = path.split("[")[0].rstrip("`")
        raise ConfigError(f"{_option(field)}: {what}") from None
    if (fault := spec.fault()) is not None:
        raise ConfigError(f"{_option(fault[0])}: {fault[1]}")
    return spec


def _option(field: str) -> str:
    return OPTIONS.get(field, f"--{field}")


def table(keys: list[dict[str, Any]]) -> Table:
    """Return a table of keys."""
    shown = Table(*COLUMNS)
    for key in keys:
        shown.add_row(*(Text(cell(key.get(column))) for column in COLUMNS))
    return shown


def cell(value: Any) -> str:
    """Format one field; None, which is no bound, is empty."""
    if value is None:
        return ""
    return ", ".join(value) if isinstance(value, list) else str(value)
