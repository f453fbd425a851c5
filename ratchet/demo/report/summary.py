"""What the demo prints and writes at its end."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ratchet.demo.admin import kl
from ratchet.demo.report import page, plot
from ratchet.demo.report.outcome import Outcome, figures, samples


def write(outcome: Outcome, faults: list[str], json: Path | None, out: Path) -> list[Path]:
    """Write the plot, the page and the figures to `out`, and the figures to `json` too; return the files' paths."""
    figure = plot.draw(outcome)
    plot.png(figure, out / "demo.png")
    (out / "demo.html").write_text(page.render(outcome, faults, plot.svg(figure)), encoding="utf-8")
    encoded = msgspec.json.format(msgspec.json.encode(figures(outcome)), indent=2) + b"\n"
    targets = [out / "demo.json", *([json] if json is not None else [])]
    for path in targets:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    return [out / "demo.html", out / "demo.png", *targets]


def show(outcome: Outcome, faults: list[str], files: list[Path], console: Console) -> None:
    """Print the held-out table, the lineage, the figures and the verdict."""
    console.print(_answers(outcome))
    console.print(_lineage(outcome))
    counts, gaps = outcome.log.counts, figures(outcome)["max_gap_ms"]
    console.print(
        f"{len(outcome.policy.learned)} updates, {len(outcome.policy.windows)} swaps under live streams; {counts['total']} requests, "
        f"{counts['streamed']} streamed, {counts['failed']} failed, {outcome.held['during_swap']} held during swaps; "
        f"longest chunk gap in a swap {gaps['during_swap']} ms, 99.9th percentile outside {gaps['steady']} ms",
        highlight=False,
    )
    console.print(f"ledger {figures(outcome)['ledger']}", highlight=False, markup=False)
    for path in files:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    for fault in faults:
        console.print(Text(f"FAILED: {fault}", style="bold red"))
    if not faults:
        console.print(Text(f"held-out reward rose from {outcome.before.mean:.2f} to {outcome.after.mean:.2f}", style="bold green"))


def _answers(outcome: Outcome) -> Table:
    table = Table(title=f"Held-out answers, {outcome.after.n} a side, to prompts nothing was trained on")
    for head in ("prompt", outcome.before.model, outcome.after.model):
        table.add_column(head)
    for row in samples(outcome):
        table.add_row(*map(Text, row))  # Text: an answer may look like Rich's markup
    table.add_section()
    table.add_row("mean reward", f"{outcome.before.mean:.3f}", f"{outcome.after.mean:.3f}", style="bold")
    return table


def _lineage(outcome: Outcome) -> Table:
    table = Table(title="Lineage of the live adapter")
    for head in ("version", "parent", "step", "groups", "reward", "KL", "manifest sha256"):
        table.add_column(head)
    for record in outcome.policy.lineage:
        cells = (record.version, record.parent, record.step, len(record.consumed), record.reward, kl(record))
        table.add_row(*["" if c is None else f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells], record.digest[:16])
    return table
