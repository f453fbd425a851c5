"""All commands of `ratchet`, and how their errors are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, Exit, TyperException

import ratchet
from ratchet.cli import config, demo, doctor, keys, parts, planned, policies, train, up
from ratchet.errors import ConfigError, RatchetError

FAILURE = 1
USAGE = 2

app = typer.Typer(
    name="ratchet",
    help="An OpenAI-compatible gateway whose model gets better while it serves, and never worse.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (up, parts, demo, doctor, train, policies, planned):
    command.register(app)
app.add_typer(config.app, name="config")
app.add_typer(planned.data, name="data")
app.add_typer(keys.app, name="keys")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ratchet {ratchet.__version__}")
        raise typer.Exit


@app.callback()
def top(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    """What all commands share."""


def run(argv: Sequence[str]) -> int:
    """Run one command line and return its exit status. An error of ours, or a wrong command line, is one line on stderr."""
    try:
        status = app(list(argv), standalone_mode=False, prog_name="ratchet")
    except Exit as done:
        return done.exit_code
    except (Abort, KeyboardInterrupt):
        return _fail("interrupted", FAILURE)
    except TyperException as error:
        return _fail(error.format_message(), USAGE)
    except ConfigError as error:
        return _fail(str(error), USAGE)
    except RatchetError as error:
        return _fail(str(error), FAILURE)
    except OSError as error:
        return _fail(f"{error.filename or 'the machine'}: {error.strerror or error}", FAILURE)
    return status if isinstance(status, int) else 0


def _fail(message: str, status: int) -> int:
    first, *more = [line for line in message.strip().splitlines() if line] or ["failed"]
    rest = f" (and {len(more)} more: see `ratchet config check`)" if more else ""
    typer.echo(f"ratchet: {first}{rest}", err=True)
    return status
