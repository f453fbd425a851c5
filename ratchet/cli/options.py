"""Options that several commands share, and the data directory they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None,
    typer.Option("-c", "--config", metavar="FILE", help="The YAML; none: a small model, one policy, one engine.", show_default=False),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="RATCHET_DATA",
        metavar="DIR",
        help="Data directory; default: in the user's state directory.",
        show_default=False,
    ),
]
AdminUrl = Annotated[
    str | None,
    typer.Option("--admin", envvar="RATCHET_ADMIN_URL", metavar="URL", help="The admin API; default: of the `up` on --data."),
]
OperatorKey = Annotated[
    str | None,
    typer.Option("--key", envvar="RATCHET_OPERATOR_KEY", metavar="KEY", help="An operator key; default: of the `up` on --data."),
]
Policy = Annotated[str, typer.Argument(metavar="POLICY", help="A policy's name.")]


def data_directory(given: Path | None) -> Path:
    """Return `given`, or `$XDG_STATE_HOME/ratchet`, or `~/.local/state/ratchet`, as an absolute path."""
    if given is not None:
        return given.expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state") / "ratchet"
