"""`ratchet gateway`, `ratchet learner`, `ratchet engine`: one part each, for scale-out, in the same process (by exec)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.options import ConfigFile, Data, data_directory
from ratchet.config import load
from ratchet.errors import ConfigError
from ratchet.up.parts import command


def register(app: typer.Typer) -> None:
    """Add the three commands to `app`."""
    app.command("gateway")(gateway)
    app.command("learner")(learner)
    app.command("engine")(engine)


def gateway(file: ConfigFile = None, data: Data = None) -> None:
    """Run a gateway."""
    _become("gateway", file, data)


def learner(file: ConfigFile = None, data: Data = None) -> None:
    """Run the learner."""
    _become("learner", file, data)


def engine(
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Which of `engines`; may be left out if there is one.")] = None,
    file: ConfigFile = None,
    data: Data = None,
) -> None:
    """Launch one engine of the configuration and supervise it."""
    names = [engine.name for engine in load(file).engines if engine.launch is not None]
    chosen = name or (names[0] if len(names) == 1 else None)
    if chosen not in names:
        raise ConfigError(f"--name is one of the engines with `launch`: {', '.join(names) or 'there is none'}")
    _become("engines", file, data, "--name", str(chosen))


def _become(module: str, file: Path | None, data: Path | None, *more: str) -> None:
    load(file)
    folder = data_directory(data)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    rewards = (file.absolute().parent if file else Path.cwd()) if module == "learner" else None
    argv = command(module, file.absolute() if file else None, folder, *more, rewards=rewards)
    sys.stdout.flush()
    os.execv(argv[0], argv)
