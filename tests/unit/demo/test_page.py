from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from ratchet.demo.report import page, plot, summary
from ratchet.demo.report.outcome import figures
from tests.support import demo_runs


class Links(HTMLParser):
    """The tags of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value and not value.startswith("#")]


@pytest.fixture(scope="module")
def html() -> str:
    outcome = demo_runs.outcome()
    return page.render(outcome, ["something & failed"], plot.svg(plot.draw(outcome)))


def test_the_page_fetches_nothing_and_runs_nothing(html: str) -> None:
    links = Links()
    links.feed(html)
    assert links.fetched == []
    assert "script" not in links.tags
    assert "svg" in links.tags
    assert not re.search(r"@import|url\((?!#)", html)


def test_what_the_model_said_is_shown_as_text(html: str) -> None:
    assert "&lt;script&gt;[/b]" in html
    assert "something &amp; failed" in html
    assert "held-out fell &lt;b&gt;" in html


def test_the_page_has_the_table_the_lineage_and_the_ledger(html: str) -> None:
    assert all(part in html for part in ("a flat tyre", "Wow!", f"{3:064x}", "1: g3", "ledger.received", "activation[2].version"))


def test_a_long_id_is_broken_rather_than_wider_than_the_page(html: str) -> None:
    assert "td{overflow-wrap:anywhere}" in html


def test_the_plot_is_the_same_text_each_time() -> None:
    outcome = demo_runs.outcome()
    assert plot.svg(plot.draw(outcome)) == plot.svg(plot.draw(outcome))
    assert plot.svg(plot.draw(outcome)).startswith("<svg")


def test_a_run_that_learned_nothing_can_still_be_drawn() -> None:
    policy = demo_runs.policy(live=0)
    policy.versions = policy.versions[:1]
    outcome = demo_runs.outcome(policy=policy)
    assert "<svg" in page.render(outcome, [], plot.svg(plot.draw(outcome)))


def test_the_files_are_written_where_asked_and_the_json_twice(tmp_path: Path) -> None:
    chosen = tmp_path / "elsewhere" / "figures.json"
    files = summary.write(demo_runs.outcome(), [], chosen, tmp_path)
    assert [path.name for path in files] == ["demo.html", "demo.png", "demo.json", "figures.json"]
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (
        json.loads(chosen.read_bytes())
        == json.loads((tmp_path / "demo.json").read_bytes())
        == json.loads(json.dumps(figures(demo_runs.outcome())))
    )


def test_the_end_prints_answers_as_text_the_lineage_the_files_and_the_verdict(tmp_path: Path) -> None:
    out = io.StringIO()
    summary.show(demo_runs.outcome(), [], [tmp_path / "demo.html"], Console(file=out, width=160))
    text = out.getvalue()
    assert all(part in text for part in ("<script>[/b]", "demo.html", "0.750", "held-out reward rose from 0.00 to 0.75"))


def test_the_end_names_every_fault() -> None:
    out = io.StringIO()
    summary.show(demo_runs.outcome(), ["one", "two"], [], Console(file=out, width=160))
    assert "FAILED: one" in out.getvalue() and "FAILED: two" in out.getvalue()
    assert "rose" not in out.getvalue()
