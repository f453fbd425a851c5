"""The report as one self-contained HTML file: no script, no outside asset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ratchet.demo.admin import heldout, kl
from ratchet.demo.report.outcome import Outcome, figures, samples
from ratchet.demo.task import STYLE
from ratchet.types import PolicyVersionRecord

CSS = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c2733}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1.5rem}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid #dde3e9;vertical-align:top}
td{overflow-wrap:anywhere}
th{color:#5a6875;font-weight:600}svg{max-width:100%;height:auto}.big{font-size:1.5rem}.bad{color:#b4413c}
"""


def render(outcome: Outcome, faults: Sequence[str], svg: str) -> str:
    """Return the page: verdict, plot, held-out answers, versions, lineage, and all figures."""
    before, after = outcome.before, outcome.after
    parts = [
        f"<h1>Ratchet demo, seed {outcome.seed}</h1>",
        f'<p class="big">Held-out reward {before.mean:.2f} → {after.mean:.2f}: {after.n} answers to prompts nothing was trained on.</p>',
        "".join(f'<p class="bad">{escape(fault)}</p>' for fault in faults),
        f"<p>{escape(outcome.engine)} serves {escape(outcome.model)}; house style: “{escape(STYLE)}”. {escape(outcome.stopped)}</p>",
        svg,
        "<h2>Answers to held-out prompts</h2>",
        _table(("prompt", before.model, after.model), samples(outcome, count=12)),
        "<h2>Versions</h2>",
        _table(("version", "state", "parent", "reward", "gate", "KL", "load to live, s", "why"), map(_version, outcome.policy.versions)),
        "<h2>Lineage of the live adapter</h2>",
        _table(("version", "parent", "step", "manifest sha256", "groups it learned from"), map(_ancestor, outcome.policy.lineage)),
        "<h2>Figures</h2>",
        _table(("figure", "value"), _flat(figures(outcome))),
    ]
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Ratchet demo</title><style>{CSS}</style>{"".join(parts)}</html>\n'


def _version(record: PolicyVersionRecord) -> tuple[str, ...]:
    swap = record.verdict.get("swap") or {}
    took = swap["flipped"] - swap["load_started"] if swap.get("flipped") and swap.get("load_started") else None
    return (
        str(record.version),
        record.state,
        _text(record.parent),
        _text(record.reward),
        _text(heldout(record)["candidate"]),
        _text(kl(record)),
        _text(took),
        str(record.verdict.get("why") or ""),
    )


def _ancestor(record: PolicyVersionRecord) -> tuple[str, ...]:
    consumed = f"{len(record.consumed)}: {' '.join(record.consumed)}" if record.consumed else "none"
    return (str(record.version), _text(record.parent), str(record.step), record.digest or "the base itself", consumed)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for position, item in enumerate(value):
                yield from _flat(item, f"{prefix}{key}[{position}].")
        else:
            yield f"{prefix}{key}", str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"
