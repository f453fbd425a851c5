"""What the demo shows while it runs: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ratchet.demo.admin import Policy, heldout, kl
from ratchet.demo.exchange import Log

BARS = "▁▂▃▄▅▆▇█"
PLAIN_EVERY_SECONDS = 10.0


@dataclass
class View:
    """The state of the demo at one moment. Numbers that are not known yet are None."""

    seconds: float
    stage: str
    phase: str = ""
    why: str = ""
    live: int = 0
    reward: float | None = None
    kl: float | None = None
    gate: float | None = None
    learner_tokens_per_s: float | None = None
    client_tokens_per_s: float = 0.0
    swaps: int = 0
    refused: int = 0
    requests: int = 0
    failed: int = 0
    rewards: list[float] = field(default_factory=list)
    """Mean reward of the groups each version learned from, oldest version first."""


def view(seconds: float, stage: str, log: Log, policy: Policy | None) -> View:
    """Return the state after `seconds`, from the users' log and the admin API's answer."""
    counts = log.counts
    shown = View(seconds, stage, requests=counts["total"], failed=counts["failed"])
    shown.client_tokens_per_s = log.tokens / seconds if seconds > 0 else 0.0
    if policy is None:
        return shown
    status = policy.status
    shown.phase, shown.why = str(status.get("phase") or ""), str(status.get("why") or "")
    shown.reward, shown.kl = status.get("reward"), kl(policy.current)
    shown.learner_tokens_per_s = status.get("tokens_per_s")
    shown.live, shown.gate = policy.live, heldout(policy.current)["candidate"]
    shown.swaps = len(policy.windows)
    shown.refused = sum(v.state == "refused" for v in policy.learned)
    shown.rewards = [v.reward for v in policy.learned if v.reward is not None]
    return shown


def line(shown: View) -> str:
    """Format the state as one line."""
    return (
        f"[{shown.seconds:5.0f} s] {shown.stage}  assistant@{shown.live} {shown.phase or '-'}"
        f"  reward {number(shown.reward)}  gate {number(shown.gate)}  kl {number(shown.kl)}"
        f"  swaps {shown.swaps} refused {shown.refused}  requests {shown.requests} failed {shown.failed}"
        f"  tok/s users {shown.client_tokens_per_s:.0f} learner {number(shown.learner_tokens_per_s)}"
    )


def panel(shown: View) -> Panel:
    """Format the state as a panel."""
    table = Table.grid(padding=(0, 3))
    for _ in range(4):
        table.add_column()
    table.add_row("live version", f"[bold]assistant@{shown.live}", "learner", shown.phase or "-")
    table.add_row("reward, last groups", number(shown.reward), "held-out (gate)", number(shown.gate))
    table.add_row("KL to base", number(shown.kl), "swaps / refused", f"{shown.swaps} / {shown.refused}")
    table.add_row("users' tokens/s", f"{shown.client_tokens_per_s:.1f}", "learner's tokens/s", number(shown.learner_tokens_per_s))
    failed = f"[red]{shown.failed}" if shown.failed else "[green]0"
    table.add_row("requests", str(shown.requests), "failed", failed)
    spark = Text("reward by version  " + sparkline(shown.rewards))
    title = f"ratchet demo · {shown.stage} · {shown.seconds:.0f} s"
    return Panel(Group(table, spark, Text(shown.why, style="dim")), title=title, title_align="left")


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def sparkline(values: list[float]) -> str:
    """Draw each reward in 0..1 as a bar of one character."""
    return "".join(BARS[round(min(max(v, 0.0), 1.0) * (len(BARS) - 1))] for v in values)


class Display(Protocol):
    """Shows states, from its entry to its exit."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def show(self, shown: View) -> None: ...


class Panels:
    """Redraws a panel in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, shown: View) -> None:
        self._live.update(panel(shown), refresh=True)


class Lines:
    """Prints a line at each change of stage or version and at each failure, and every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: View | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def show(self, shown: View) -> None:
        last = self._last
        changed = last is None or (last.stage, last.live, last.failed) != (shown.stage, shown.live, shown.failed)
        if last is None or changed or shown.seconds - last.seconds >= PLAIN_EVERY_SECONDS:
            self._console.print(line(shown), highlight=False, markup=False, soft_wrap=True)
            self._last = shown


def display(console: Console) -> Display:
    """Return the display that suits the console."""
    return Panels(console) if console.is_terminal else Lines(console)
