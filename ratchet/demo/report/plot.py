"""The plot: reward and KL by version, and the held-out reward before and after."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ratchet.demo.admin import heldout, kl
from ratchet.demo.report.outcome import Outcome
from ratchet.types import PolicyVersionRecord

# Text stays text in the SVG, and its ids are the same in each run.
mpl.rcParams["svg.fonttype"] = "none"
mpl.rcParams["svg.hashsalt"] = "ratchet"

BEFORE, AFTER, REFUSED = "#9aa5b1", "#1f7a4d", "#b4413c"


def draw(outcome: Outcome) -> Figure:
    """Draw the three panels from the registry's records and the held-out table."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    rewards, drift, table = figure.subplots(1, 3, width_ratios=[3, 3, 1.6])
    learned = outcome.policy.learned
    _rewards(rewards, learned)
    _drift(drift, learned)
    _table(table, outcome)
    for axes in (rewards, drift):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def png(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=150)


def svg(figure: Figure) -> str:
    """Return the plot as one `<svg>` element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _rewards(axes: Axes, learned: list[PolicyVersionRecord]) -> None:
    trained = [(v.version, v.reward) for v in learned if v.reward is not None]
    gate = [(v.version, score) for v in learned if (score := heldout(v)["candidate"]) is not None]
    refused = [(v.version, heldout(v)["candidate"] or 0.0) for v in learned if v.state == "refused"]
    axes.plot([x for x, _ in trained], [y for _, y in trained], "o--", color=BEFORE, label="groups it learned from")
    axes.plot([x for x, _ in gate], [y for _, y in gate], "o-", color=AFTER, label="gate's held-out prompts")
    if refused:
        axes.plot([x for x, _ in refused], [y for _, y in refused], "x", color=REFUSED, markersize=10, label="refused")
    axes.set(title="Mean reward by version", xlabel="version", ylim=(-0.03, 1.03))
    axes.legend(fontsize="small", loc="lower right")


def _drift(axes: Axes, learned: list[PolicyVersionRecord]) -> None:
    known = [(v.version, own) for v in learned if (own := kl(v)) is not None]
    axes.plot([x for x, _ in known], [y for _, y in known], "o-", color=AFTER)
    axes.set(title="KL to the base, nats a token", xlabel="version")
    axes.set_ylim(bottom=0)


def _table(axes: Axes, outcome: Outcome) -> None:
    bars = axes.bar(["before", "after"], [outcome.before.mean, outcome.after.mean], color=[BEFORE, AFTER])
    axes.bar_label(bars, fmt="%.2f")
    axes.set(title="Held-out reward", ylim=(0, 1.1))
