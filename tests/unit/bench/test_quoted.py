"""README quotes docs/benchmarks.md, and nothing older."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import quoted
from bench.quoted import MARKS, listed, main, replaced, rows, said, section, seen

PAGE = """# Benchmarks

<!-- demo -->
## The demo

| seed | held-out before | after | swaps | failed | seconds |
| --- | --- | --- | --- | --- | --- |
| 0 | 0.1 | 0.9 | 4 | 0 | 310 |
| 7 | 0.2 | 0.8 | 5 | 1 | 293 |
<!-- /demo -->

<!-- durability -->
| killed | times | median |
| --- | --- | --- |
| gateway | 20 | 3 |
| store | 5 | 1 |

6,820 acknowledged answers, 2 missing; 13389 acknowledged rewards, 3 missing; ledger
<!-- /durability -->

<!-- fidelity -->
| version | log-probs recomputed | largest difference, nats |
| --- | --- | --- |
| 0 | 4439 | 5.8e-05 |
<!-- /fidelity -->

<!-- gateway -->
| gateway | CPU us a request, c8 |
| --- | --- |
| Ratchet | 525 |

| ours divided by | request, c8 | request, c32 |
| --- | --- | --- |
| SMG 1 | 2.10x | 1.56x |
| FastAPI | 0.66x | 0.69x |

| gateway | 500/s x 8 p50 | 500/s x 8 p99 |
| --- | --- | --- |
| direct (total) | 0.14 | 0.40 |
| Ratchet | 0.68 | 3.20 |

|  | CPU us |
| --- | --- |
| Ratchet, 1 worker | 423 |

2 workers cost 0.99x one's.
<!-- /gateway -->
"""


def test_readme_quotes_the_page_as_it_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(["--check"]), capsys.readouterr().err) == (0, "")


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A page and a README of their own for `bench.quoted`."""
    page, readme = tmp_path / "benchmarks.md", tmp_path / "README.md"
    page.write_text(PAGE)
    readme.write_text(f"# Mine\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nafter\n")
    monkeypatch.setattr(quoted, "PAGE", page)
    monkeypatch.setattr(quoted, "README", readme)
    return page, readme


def test_a_readme_older_than_the_page_fails_the_check_and_is_brought_up_to_date(
    copies: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    page, readme = copies
    assert main(["--check"]) == 1 and "make docs" in capsys.readouterr().err
    assert main([]) == 0 and main(["--check"]) == 0
    page.write_text(PAGE.replace("| Ratchet | 0.68 |", "| Ratchet | 0.71 |"))
    assert main(["--check"]) == 1
    main([])
    text = readme.read_text()
    assert "0.71 ms (p50)" in text and "0.68" not in text and "old" not in text
    assert text.startswith("# Mine\n") and text.endswith("\nafter\n")


def test_every_figure_of_the_block_is_one_of_the_page() -> None:
    block = seen(PAGE)
    assert "seeds 0 and 7: the held-out reward rose from 0.1 and 0.2 to 0.9 and 0.8, in 4 and 5 gated swaps" in block
    assert "Failed requests: 0 and 1." in block
    assert "gateway (20 times) and store (5 times) under load, 2 of 6,820 acknowledged answers and 3 of 13389 acknowledged rewards" in block
    assert "4439 (version 0) compared, at most 5.8e-05 nats apart" in block
    assert "adds 0.68 ms (p50) and 3.20 ms (p99)" in block
    assert "2.10x and 1.56x that of SMG 1 and 0.66x and 0.69x that of FastAPI" in block
    assert "2 workers cost 0.99x" in block


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("<!-- demo -->", "no section 'demo'"),
        ("| Ratchet | 0.68 | 3.20 |", "time to the first byte is missing"),
        ("500/s x 8 p99", "no table has the columns"),
        ("acknowledged answers", "nothing in the section matches"),
    ],
)
def test_a_figure_that_the_page_lacks_is_named(missing: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        seen(PAGE.replace(missing, "gone"))


def test_a_table_is_found_by_its_columns_and_read_into_rows() -> None:
    text = section(PAGE, "gateway")
    assert rows(text, "ours divided by")[1] == {"ours divided by": "FastAPI", "request, c8": "0.66x", "request, c32": "0.69x"}
    assert [row["gateway"] for row in rows(text, "gateway", "500/s x 8 p50")] == ["direct (total)", "Ratchet"]
    assert rows(text, "CPU us") == [{"CPU us": "423"}]


def test_sentences_are_searched_by_a_pattern_and_lists_read_as_english() -> None:
    assert said("5 of 7 lost", r"(\d) of (\d)") == ("5", "7")
    assert (listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])) == ("a", "a and b", "a, b and c")


def test_a_readme_without_the_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="README"):
        replaced("# Nothing", "block")
