from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.durability import Report, fake_configuration, text
from bench.processes import ROLES, is_role
from ratchet.config import load
from ratchet.up.parts import command


def test_each_part_is_found_by_the_command_line_up_gives_it(tmp_path: Path) -> None:
    for role in ("gateway", "learner"):
        found = [name for name in ROLES if is_role(name, command(role, tmp_path / "ratchet.yaml", tmp_path))]
        assert found == [role]
    assert is_role("store", ["/somewhere/valkey-server", "--port", "0"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["tail", "-f", "gateway"],
        [sys.executable, "-I", "-S", "_exec.py", "1", sys.executable, "-m", "gateway"],
        [sys.executable, "-m", "ratchet", "up"],
        [sys.executable, "-P", "-m", "engines", "--name", "local"],
    ],
)
def test_nothing_else_is_taken_for_a_part(words: list[str]) -> None:
    assert not any(is_role(role, words) for role in ROLES)


def test_the_fake_engines_yaml_is_valid(tmp_path: Path) -> None:
    assert load(fake_configuration(tmp_path), environ={}).engines[0].kind == "fake"


@pytest.mark.parametrize("lost", [{"missing_answers": ["a"]}, {"missing_rewards": ["f"]}, {"unbalanced": ["after"]}])
def test_anything_missing_or_out_of_balance_is_not_good(lost: dict[str, list[str]]) -> None:
    assert Report().good
    assert not Report(**lost).good  # type: ignore[arg-type]


def test_the_report_gives_the_recovery_of_each_part_and_the_counts() -> None:
    report = Report(kills={"gateway": 3}, recovery={"gateway": [0.3, 0.1, 0.2]}, answers=7, rewards=9, ledger={"received": 9})
    page = text(report)
    assert "| gateway | 3 | 0.20 | 0.30 |" in page
    assert "7 acknowledged answers, 0 missing" in page
    assert json.dumps({"received": 9}) in page
