"""The pages that lead a reader through the code name files that are there."""

from __future__ import annotations

import re

import pytest

from tests.unit.project.source_tree import PACKAGES, ROOT, files

NAMED = re.compile(rf"`((?:{'|'.join(PACKAGES)}|tests|bench|deploy|docs)/[\w./-]*)`")
SCRIPTS = re.compile(r"`scripts/(\w+\.lua)`")
STOPS = 10


@pytest.mark.parametrize("page", [path for path in files(".md") if path.parts[0] == "docs" or len(path.parts) == 1], ids=str)
def test_each_file_that_a_page_names_exists(page: object) -> None:
    text = (ROOT / str(page)).read_text()
    named = [name for name in NAMED.findall(text) if "NAME" not in name and "POLICY" not in name]
    assert not [name for name in named if not (ROOT / name).exists()]
    assert not [name for name in SCRIPTS.findall(text) if not (ROOT / "ratchet" / "buffer" / "scripts" / name).exists()]


@pytest.mark.parametrize("walk", ["One request", "One reward"])
def test_each_walk_through_the_rooms_has_at_most_ten_stops(walk: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = re.search(rf"^## {walk}.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    stops = re.findall(r"^\| \d+ \|", section[0], re.MULTILINE)
    assert 5 <= len(stops) <= STOPS
