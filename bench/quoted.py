"""Write what README quotes from docs/benchmarks.md: `python bench/quoted.py [--check]`.

The page is the source: the benchmarks write it, and every figure in README's block between `<!-- seen -->` marks is read from its
tables and sentences. `section.replace` runs this whenever it writes the page.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
MARKS = ("<!-- seen: written by bench/quoted.py from docs/benchmarks.md -->", "<!-- /seen -->")
Row = dict[str, str]


def section(page: str, name: str) -> str:
    """The text of a section. ValueError if the page has none of that name."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"docs/benchmarks.md has no section {name!r}")
    return found[1]


def rows(text: str, *columns: str) -> list[Row]:
    """The rows of the first table that has all `columns`, as cells by title; a column without one is left out. ValueError: no table has."""
    for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        head, _, *lines = [_cells(line) for line in table.splitlines()]
        if set(columns) <= set(head):
            return [{title: cell for title, cell in zip(head, line, strict=True) if title} for line in lines]
    raise ValueError(f"no table has the columns {', '.join(columns)}")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def said(text: str, pattern: str) -> Sequence[str]:
    """The groups of the first match of `pattern`. ValueError if nothing matches."""
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"nothing in the section matches {pattern!r}")
    return found.groups()


def listed(values: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = values
    return f"{', '.join(first)} and {last}" if first else last


def seen(page: str) -> str:
    """README's block, without its marks. ValueError if the page lacks a figure."""
    return "\n".join([_demo(section(page, "demo")), *_kept(page), *_gateway(section(page, "gateway"))])


def _demo(text: str) -> str:
    runs = rows(text, "seed", "held-out before", "after", "swaps", "failed", "seconds")
    before, after, swaps, failed, seconds = (
        listed(run[column] for run in runs) for column in ("held-out before", "after", "swaps", "failed", "seconds")
    )
    return (
        f"- **Learning.** `make demo` with seeds {listed(run['seed'] for run in runs)}: the held-out reward rose from {before} to "
        f"{after}, in {swaps} gated swaps under live streams and {seconds} s. Failed requests: {failed}."
    )


def _kept(page: str) -> list[str]:
    text = section(page, "durability")
    kills = listed(f"{row['killed']} ({row['times']} times)" for row in rows(text, "killed", "times"))
    answers, lost, rewards, lost_rewards = said(
        text, r"([\d,]+) acknowledged answers, (\d+) missing; ([\d,]+) acknowledged rewards, (\d+) missing"
    )
    versions = rows(section(page, "fidelity"), "log-probs recomputed", "largest difference, nats")
    recomputed = listed(f"{row['log-probs recomputed']} (version {row['version']})" for row in versions)
    differences = listed(row["largest difference, nats"] for row in versions)
    return [
        f"- **Durability.** After `kill -9` of {kills} under load, {lost} of {answers} acknowledged answers and {lost_rewards} of "
        f"{rewards} acknowledged rewards were missing.",
        f"- **Fidelity.** Recorded log-probs and those that the learner computes: {recomputed} compared, at most {differences} nats apart.",
    ]


def _gateway(text: str) -> list[str]:
    p50, p99 = "500/s x 8 p50", "500/s x 8 p99"
    own = next((row for row in rows(text, "gateway", p50, p99) if row["gateway"] == "Ratchet"), None)
    if own is None:
        raise ValueError("the gateway's own time to the first byte is missing")
    peers = rows(text, "ours divided by", "request, c8", "request, c32")
    ratios = listed(f"{row['request, c8']} and {row['request, c32']} that of {row['ours divided by']}" for row in peers)
    workers, cost = said(text, r"(\d+) workers cost ([\d.]+x)")
    return [
        f"- **Overhead**, every answer recorded: the gateway adds {own[p50]} ms (p50) and {own[p99]} ms (p99) to the first byte at 500 "
        f"requests/s of 8 chunks. Its CPU a request, over 8 and 32 connections, is {ratios}. {workers} workers cost {cost} of what one "
        "costs a request.",
    ]


def replaced(readme: str, block: str) -> str:
    """`readme` with `block` between the marks. ValueError if it has no marks."""
    begin, end = MARKS
    if begin not in readme or end not in readme:
        raise ValueError(f"README.md has no {begin}")
    return readme[: readme.index(begin) + len(begin)] + f"\n{block}\n" + readme[readme.index(end) :]


def write() -> bool:
    """Bring README up to date with the page; whether it was not."""
    old = README.read_text(encoding="utf-8")
    new = replaced(old, seen(PAGE.read_text(encoding="utf-8")))
    if new != old:
        README.write_text(new, encoding="utf-8")
    return new != old


def main(argv: Sequence[str]) -> int:
    if "--check" not in argv:
        write()
        return 0
    readme = README.read_text(encoding="utf-8")
    if replaced(readme, seen(PAGE.read_text(encoding="utf-8"))) == readme:
        return 0
    sys.stderr.write("README.md does not quote docs/benchmarks.md; run `make docs`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
