from __future__ import annotations

from pathlib import Path

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


def test_what_people_wrote_around_a_section_stays(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Mine\n\nbefore\n\n<!-- demo -->\nx\n<!-- /demo -->\n\nafter\n")
    replace("demo", "The demo", "figures", page)
    text = page.read_text()
    assert text.startswith("# Mine\n\nbefore\n") and text.endswith("\n\nafter\n")


def test_a_table_has_a_head_a_rule_and_its_rows() -> None:
    assert table(("a", "b"), [[1, 2.5]]) == "| a | b |\n| --- | --- |\n| 1 | 2.5 |"
