"""Writes one script's figures into docs/benchmarks.md, between marks of its own, and leaves the rest."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
TITLE = "# Benchmarks\n\nFigures that the scripts in `bench/` measured and wrote here; none is typed in by hand.\n"


def replace(name: str, title: str, text: str, page: Path = PAGE) -> None:
    """Puts `text` under `title` where the section `name` is, or at the end."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    section = f"{begin}\n## {title}\n\n{text.strip()}\n\n{machine()}\n{end}"
    page.parent.mkdir(parents=True, exist_ok=True)
    old = page.read_text(encoding="utf-8") if page.exists() else TITLE
    if begin in old and end in old:
        head, tail = old[: old.index(begin)], old[old.index(end) + len(end) :]
        new = head + section + tail
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    page.write_text(new, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine() -> str:
    """Where and when: cores, architecture, Python, date."""
    return (
        f"*{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {time.strftime('%Y-%m-%d', time.gmtime())}.*"
    )
