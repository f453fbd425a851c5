"""The ablation's samples, and the page that is written from them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import ablation
from bench.gateways import ablated
from bench.gateways.ablated import COLUMNS, DATA, Run, add, stored, text, without_saving
from bench.gateways.figures import Samples
from bench.gateways.measure import CHUNK
from bench.quoted import PAGE, section
from bench.without import OPTIMISATIONS
from bench.without.optimisation import Optimisation


def run(*savings: float, figure: str = CHUNK) -> Run:
    """A run whose gateway costs 100 us, and `savings` more of one figure without the optimisation; nothing of the others."""
    whole = {name: [100.0] * len(savings) for name in COLUMNS}
    return Run("2026-01-01", len(savings), 1.5, whole, {**whole, figure: [100.0 + saving for saving in savings]})


def named(*names: str) -> dict[str, Optimisation]:
    return {name: Optimisation(name, f"does {name}", f"no {name}", lambda: None) for name in names}


def test_a_run_keeps_the_rounds_of_both_sides() -> None:
    samples = Samples()
    for name, cost in (("whole", 10.0), ("wire", 12.0), ("wire", 13.0), ("whole", 10.0)):
        samples.add(name, CHUNK, cost)
    found = Run.of(samples, "whole", "wire", 2, 1.5)
    assert found.savings(CHUNK) == [2.0, 3.0]
    assert (found.rounds, found.seconds) == (2, 1.5)


def test_runs_are_added_to_the_file_and_replace_those_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ablation.json"
    assert stored(path) == {}
    add(path, {"a": run(1.0), "b": run(2.0)})
    assert add(path, {"b": run(3.0)}) == stored(path) == {"a": run(1.0), "b": run(3.0)}


def test_a_saving_is_shown_only_where_the_whole_interval_lies_above_zero() -> None:
    runs = {"clear": run(*[3.0] * 8), "noise": run(*[3.0] * 7, -1.0), "few": run(3.0, 3.0), "dear": run(*[-3.0] * 8)}
    assert without_saving(list(runs), runs) == ["noise", "few", "dear"]
    page = text(runs, named(*runs))
    assert "| `clear`: does clear | no clear | 0.00 (0.00 to 0.00) | 0.00 (0.00 to 0.00) | 3.00 (3.00 to 3.00) |" in page
    assert "| chunk |" in page and "No saving shown: `noise`, `few`, `dear`." in page


def test_the_control_rows_of_all_parts_become_one() -> None:
    runs = {"a": run(*[1.0] * 8), "control of a": run(*[0.5] * 4), "control of b": run(*[-0.5] * 4)}
    page = text(runs, named("a"))
    assert "| `control`: noise | nothing is changed | 0.00 (0.00 to 0.00) | 0.00 (0.00 to 0.00) | 0.00 (-0.50 to 0.50) |" in page
    assert page.endswith("Each of them shows a saving.")


def test_a_run_of_what_is_no_longer_an_optimisation_is_left_out() -> None:
    assert "gone" not in text({"a": run(1.0), "gone": run(1.0)}, named("a"))


def test_the_page_is_what_the_stored_samples_say() -> None:
    runs = stored(DATA)
    page = PAGE.read_text()
    if runs or "<!-- ablation -->" in page:
        assert text(runs, OPTIMISATIONS) in section(page, "ablation")


def test_the_parts_have_every_optimisation_once() -> None:
    parts = ablation.parts()
    assert [name for part in parts for name in part] == list(OPTIMISATIONS)
    assert all(0 < len(part) <= ablation.AT_A_TIME for part in parts)


@pytest.mark.parametrize("words", [["nothing"], ["--part", "99"], ["--part", "1", "store_wire"]])
def test_an_unknown_optimisation_or_part_is_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation.py", *words])
    with pytest.raises(SystemExit):
        ablation._arguments()


def test_each_case_of_the_ablation_has_a_column() -> None:
    assert {case.figure for case in ablated.CASES} - {"long"} <= COLUMNS.keys()
