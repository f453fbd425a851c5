"""The page about clients says what their locks say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.project.source_tree import ROOT

PAGE = (ROOT / "docs" / "clients.md").read_text()
LOCKS = sorted((ROOT / "requirements" / "clients").glob("*.lock"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_the_versions_on_the_page_are_those_of_the_lock(lock: Path) -> None:
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE))
    wanted = [line.strip() for line in lock.with_suffix(".in").read_text().splitlines()]
    named = [name for name in wanted if f"`{name}`" in PAGE]
    assert named, "the page names none of its packages"
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    assert not [name for name in named if not any(f"`{name}`" in row and pinned[name] in row for row in rows)]


def test_each_environment_that_make_builds_has_a_lock() -> None:
    makefile = (ROOT / "Makefile").read_text()
    names = re.search(r"^CLIENTS := (.*)$", makefile, re.MULTILINE)
    assert names is not None
    assert sorted(names[1].split()) == [lock.stem for lock in LOCKS]
