"""Write one benchmark's section into docs/benchmarks.md, between marks of its own. All other sections stay as they are."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench import quoted
from bench.quoted import PAGE

TITLE = "# Benchmarks\n\nThe scripts in `bench/` measured these figures and wrote this page; no figure is typed by hand.\n"


def replace(name: str, title: str, text: str, page: Path = PAGE) -> None:
    """Write `text` under `title` in place of the section `name`, or at the end of the page; README then quotes the new figures."""
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
    if page == PAGE:
        try:
            quoted.write()
        except ValueError as error:
            print(f"bench: README.md still quotes older figures: {error}")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine() -> str:
    """Where and when a section was measured: cores, architecture, Python, date."""
    return (
        f"*{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {time.strftime('%Y-%m-%d', time.gmtime())}.*"
    )
