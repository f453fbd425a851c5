"""`ratchet demo`: the whole loop on real parts, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("demo")(demo)


def demo(
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there.")] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of traffic, sampling and training.")] = 0,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of plot, page, data and logs.")] = Path("demo-out"),
) -> None:
    """Serve, rate, learn and swap for real, then compare held-out answers before and after.

    Exits 0 only if the held-out reward rose and no request failed.
    """
    from ratchet.demo import run

    raise typer.Exit(run(json=json_file, seed=seed, out=out))
