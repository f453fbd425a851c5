"""`ratchet policies`, `promote`, `rollback`: list the versions and change which one is live."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ratchet.cli.admin import connect
from ratchet.cli.options import AdminUrl, Data, OperatorKey, Policy

COLUMNS = ("version", "state", "parent", "step", "reward", "held-out", "KL", "proof", "verdict")


def register(app: typer.Typer) -> None:
    """Add the three commands to `app`."""
    app.command("policies")(policies)
    app.command("promote")(promote)
    app.command("rollback")(rollback)


def policies(
    name: Annotated[str | None, typer.Argument(metavar="[POLICY]", help="Only this one.")] = None,
    admin: AdminUrl = None,
    key: OperatorKey = None,
    data: Data = None,
) -> None:
    """List the policies' versions: state, gate's verdict, reward, parent."""
    with connect(admin, key, data) as api:
        found = [api.policy(name)] if name is not None else api.policies()
    console = Console()
    for policy in found:
        console.print(table(policy))
    if not found:
        typer.echo("no policy is configured")


def promote(
    name: Policy,
    version: Annotated[int, typer.Argument(metavar="V", min=0, help="The version to make live.")],
    admin: AdminUrl = None,
    key: OperatorKey = None,
    data: Data = None,
) -> None:
    """Make a version live."""
    with connect(admin, key, data) as api:
        typer.echo(f"{name}@{api.promote(name, version)['live']} is live")


def rollback(
    name: Policy,
    to: Annotated[int | None, typer.Option("--to", metavar="V", min=0, help="Default: the version that was live before.")] = None,
    admin: AdminUrl = None,
    key: OperatorKey = None,
    data: Data = None,
) -> None:
    """Go back to an earlier version."""
    with connect(admin, key, data) as api:
        typer.echo(f"{name}@{api.rollback(name, to)['live']} is live")


def table(policy: dict[str, Any]) -> Table:
    """Return a table of one policy's versions, the newest last."""
    shown = Table(*COLUMNS, title=f"{policy['name']} on {policy['base']}, live: {policy['name']}@{policy['live']}", title_justify="left")
    for version in policy["versions"]:
        shown.add_row(*row(version))
    return shown


def row(version: dict[str, Any]) -> list[str]:
    """Return one version's cells, in the order of COLUMNS."""
    verdict = version.get("verdict") or {}
    heldout = verdict.get("heldout") or {}
    differences = [proof.get("max_abs_logprob_diff") for proof in verdict.get("proof") or []]
    parent = version.get("parent")
    return [
        str(version["version"]),
        version["state"],
        "" if parent is None else str(parent),
        str(version.get("step", 0)),
        number(version.get("reward")),
        f"{number(heldout.get('live'))} -> {number(heldout.get('candidate'))}" if heldout else "",
        number(version.get("kl")),
        number(max((d for d in differences if d is not None), default=None), 4),
        _verdict(verdict),
    ]


def number(value: float | None, digits: int = 3) -> str:
    """Format `value` with a fixed number of digits; None is empty."""
    return "" if value is None else f"{value:.{digits}f}"


def _verdict(verdict: dict[str, Any]) -> str:
    if not verdict or verdict.get("passed"):
        return "passed" if verdict else ""
    return f"{verdict.get('gate')}: {verdict.get('why')}"
