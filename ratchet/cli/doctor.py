"""`ratchet doctor`: a table of what was examined."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from ratchet.cli.options import ConfigFile, Data, data_directory

STYLES = {"fit": "green", "note": "yellow", "unfit": "red"}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("doctor")(doctor)


def doctor(file: ConfigFile = None, data: Data = None) -> None:
    """Examine the machine, the configuration, the store's durability and the engines that already run.

    Exits 1 if anything is unfit.
    """
    raise typer.Exit(asyncio.run(_examine(file, data_directory(data))))


async def _examine(file: Path | None, data: Path) -> int:
    from ratchet.doctor import examine

    table = Table("subject", "state", "detail")
    console = Console()
    unfit = 0
    with console.status("examining"):
        async for finding in examine(file, data):
            unfit += finding.state == "unfit"
            style = STYLES[finding.state]
            table.add_row(finding.subject, f"[{style}]{finding.state}[/{style}]", finding.detail)
    console.print(table)
    return 1 if unfit else 0
