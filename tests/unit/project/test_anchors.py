"""Links to a heading of a page lead to a heading that exists."""

from __future__ import annotations

import re

import pytest

from tests.unit.project.source_tree import ROOT, files

FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)(?P<page>[^)#]*)#(?P<anchor>[^)]+)\)")
PAGES = {str(path): (ROOT / path).read_text(encoding="utf-8") for path in files(".md")}


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading: lower case, without punctuation, with dashes for spaces."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: str) -> set[str]:
    return {anchor(heading) for heading in HEADING.findall(FENCED.sub("", page))}


@pytest.mark.parametrize(
    ("heading", "expected"),
    [("Several workers", "several-workers"), ("`model`", "model"), ("engines[].launch (vllm)", "engineslaunch-vllm")],
)
def test_an_anchor_is_made_as_github_makes_it(heading: str, expected: str) -> None:
    assert anchor(heading) == expected


@pytest.mark.parametrize("page", PAGES)
def test_each_link_to_a_heading_finds_it(page: str) -> None:
    links = [(ROOT / page if not to else (ROOT / page).parent / to, name) for to, name in LINK.findall(PAGES[page])]
    targets = [(str(path.resolve().relative_to(ROOT)), name) for path, name in links]
    assert not [(path, name) for path, name in targets if name not in anchors(PAGES[path])]
