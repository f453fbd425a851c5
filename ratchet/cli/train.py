"""`ratchet train`: ask for a training step and follow it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ratchet.cli.admin import Admin, connect
from ratchet.cli.options import AdminUrl, Data, OperatorKey, Policy
from ratchet.cli.policies import number

PHASES = ("waiting", "sampling", "updating", "gating", "publishing")
POLL_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("train")(train)


def train(
    name: Policy,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for the step, showing reward, KL, tokens/s and time left.")] = False,
    admin: AdminUrl = None,
    key: OperatorKey = None,
    data: Data = None,
) -> None:
    """Start a training step of a policy from what was recorded.

    With --follow: exits 0 if the new version went live, 1 if its gate refused it.
    """
    with connect(admin, key, data) as api:
        before = versions(api.policy(name))
        typer.echo(api.train(name))
        if follow:
            raise typer.Exit(0 if _follow(api, name, before) else 1)


def _follow(api: Admin, name: str, before: set[int]) -> bool:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("waiting", total=len(PHASES), figures="")
        while (version := decided(policy := api.policy(name), before)) is None:
            status = policy.get("status") or {}
            phase = status.get("phase", "waiting")
            elapsed = bar.tasks[0].elapsed or 0.0
            bar.update(shown, description=phase, completed=PHASES.index(phase) if phase in PHASES else 0, figures=figures(status, elapsed))
            time.sleep(POLL_SECONDS)
    measured = f"reward {number(version.get('reward'))}, KL {number(version.get('kl'))}"
    typer.echo(f"{name}@{version['version']} {version['state']}: {measured}{_why(version)}")
    return bool(version["state"] != "refused")


def versions(policy: dict[str, Any]) -> set[int]:
    """Return the versions that exist and were published or refused."""
    return {v["version"] for v in policy["versions"] if v["state"] != "candidate"}


def decided(policy: dict[str, Any], before: set[int]) -> dict[str, Any] | None:
    """Return the first version published or refused that is not in `before`, or None."""
    fresh = [v for v in policy["versions"] if v["state"] != "candidate" and v["version"] not in before]
    return min(fresh, key=lambda v: int(v["version"])) if fresh else None


def figures(status: dict[str, Any], elapsed: float) -> str:
    """Format reward, KL, tokens/s and the remaining time, as far as they are known."""
    parts = [f"{label} {number(status.get(key))}" for key, label in (("reward", "reward"), ("kl", "KL")) if status.get(key) is not None]
    if status.get("tokens_per_s") is not None:
        parts.append(f"{status['tokens_per_s']:.0f} tokens/s")
    seconds = [entry["seconds"] for entry in status.get("history") or [] if entry.get("seconds") is not None]
    if seconds:
        parts.append(f"ETA {max(0.0, sum(seconds) / len(seconds) - elapsed):.0f} s")
    if status.get("why"):
        parts.append(str(status["why"]))
    return ", ".join(parts)


def _why(version: dict[str, Any]) -> str:
    why = (version.get("verdict") or {}).get("why")
    return f" ({why})" if why else ""
