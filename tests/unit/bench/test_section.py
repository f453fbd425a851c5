from __future__ import annotations

from pathlib import Path

import pytest

from bench import quoted, section
from bench.section import replace, table


def test_a_section_is_added_at_the_end_and_later_replaced_in_place(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "benchmarks.md"
    replace("demo", "The demo", "old figures", page)
    replace("other", "Other", "kept", page)
    replace("demo", "The demo", "new figures", page)
    text = page.read_text()
    assert "old figures" not in text
    assert text.index("new figures") < text.index("kept")
    assert text.count("## The demo") == 1
    assert text.startswith("# Benchmarks")


def test_text_around_a_section_stays(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Mine\n\nbefore\n\n<!-- demo -->\nx\n<!-- /demo -->\n\nafter\n")
    replace("demo", "The demo", "figures", page)
    text = page.read_text()
    assert text.startswith("# Mine\n\nbefore\n") and text.endswith("\n\nafter\n")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page and a README in the place of the real ones."""
    path, readme = tmp_path / "benchmarks.md", tmp_path / "README.md"
    path.write_text(quoted.PAGE.read_text())
    readme.write_text(quoted.README.read_text())
    for module in (quoted, section):
        monkeypatch.setattr(module, "PAGE", path)
    monkeypatch.setattr(quoted, "README", readme)
    return path


def test_new_figures_are_in_readme_as_soon_as_they_are_on_the_page(page: Path) -> None:
    figures = "| version | log-probs recomputed | largest difference, nats |\n| --- | --- | --- |\n| 0 | 4711 | 1e-06 |"
    replace("fidelity", "Token fidelity", figures, page)
    assert "4711 (version 0) compared, at most 1e-06 nats apart" in page.with_name("README.md").read_text()


def test_a_section_without_the_quoted_figures_is_written_and_readme_stays(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = page.with_name("README.md").read_text()
    replace("fidelity", "Token fidelity", "only a part was run", page)
    assert "only a part was run" in page.read_text()
    assert page.with_name("README.md").read_text() == before
    assert "still quotes older figures" in capsys.readouterr().out


def test_a_table_has_a_head_a_rule_and_its_rows() -> None:
    assert table(("a", "b"), [[1, 2.5]]) == "| a | b |\n| --- | --- |\n| 1 | 2.5 |"
