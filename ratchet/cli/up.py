"""`ratchet up`: everything on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.options import ConfigFile, Data, data_directory
from ratchet.config import load


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("up")(up)


def up(
    file: ConfigFile = None,
    data: Data = None,
    ready_file: Annotated[
        Path | None, typer.Option("--ready-file", metavar="FILE", help="Written (JSON: URLs, keys, pid) once requests can be answered.")
    ] = None,
) -> None:
    """Run the store, the engines, the gateway and the learner, until Ctrl-C or SIGTERM.

    Keys are made once and kept in the data directory. Reward functions are found beside the YAML (without one, in the working directory).
    """
    # Imported here: other commands should not wait for it.
    from ratchet.up.run import up as run

    rewards = file.absolute().parent if file is not None else None
    raise typer.Exit(run(load(file), data_directory(data), ready_file=ready_file, rewards=rewards))
