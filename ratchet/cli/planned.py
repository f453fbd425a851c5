"""Commands of the contract that are not built yet: each says so and fails."""

from __future__ import annotations

from collections.abc import Callable

import typer

from ratchet.errors import RatchetError

ANY = {"allow_extra_args": True, "ignore_unknown_options": True}
data = typer.Typer(help="Import, export and erase data (not built yet).", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add `eval` and `export` to `app`."""
    app.command("eval", context_settings=ANY, help="Evaluate a policy (not built yet).")(_planned("eval"))
    app.command("export", context_settings=ANY, help="Export a policy's weights (not built yet).")(_planned("export"))


def _planned(name: str) -> Callable[[typer.Context], None]:
    def refuse(context: typer.Context) -> None:
        raise RatchetError(f"`ratchet {name}` is not built yet")

    return refuse


for _verb in ("import", "export", "erase"):
    data.command(_verb, context_settings=ANY, help="Not built yet.")(_planned(f"data {_verb}"))
