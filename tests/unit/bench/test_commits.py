"""Two commits side by side: the checkout of the other one, and what the page says of both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import commits
from bench.commits import text, verdict
from bench.gateways.checkout import HOST, checkout, git, name_of
from bench.gateways.figures import Estimate, Samples
from bench.gateways.mock import ROOT

OTHER, THIS = "a752148", "1234567 (this checkout)"


def test_a_checkout_is_another_commits_tree_and_is_removed_afterwards() -> None:
    head = git("rev-parse", "HEAD")
    with checkout(head) as tree:
        assert (tree / "gateway" / "__main__.py").is_file()
        assert git("rev-parse", "HEAD", cwd=tree) == head
        assert name_of(tree) == git("rev-parse", "--short", "HEAD")
        (tree / "README.md").write_text("changed")
        assert name_of(tree).endswith("+"), "a checkout that differs from its commit says so"
    assert not tree.exists()
    assert str(tree) not in git("worktree", "list")


def test_a_commit_that_does_not_exist_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"git worktree.*no-such-commit"), checkout("no-such-commit"):
        pass


def test_the_host_takes_everything_from_the_checkout_on_its_path() -> None:
    with checkout(git("rev-parse", "HEAD")) as tree:
        program = f"import runpy; print(runpy.run_path({str(HOST)!r})['ours'].__wrapped__.__code__.co_filename)"
        done = subprocess.run(
            [sys.executable, "-P", "-c", program], env={"PYTHONPATH": str(tree)}, cwd=tree, capture_output=True, text=True, check=True
        )
    assert Path(done.stdout.strip()) == tree / "bench" / "gateways" / "ours.py"
    assert not done.stdout.startswith(str(ROOT))


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (Estimate(1.02, 0.98, 1.05), "no difference shown"),
        (Estimate(1.1, 1.05, 1.2), "10% more"),
        (Estimate(0.8, 0.7, 0.9), "20% less"),
        (Estimate(1.5, float("-inf"), float("inf")), "no difference shown"),
    ],
)
def test_a_difference_is_claimed_only_if_the_whole_interval_shows_it(ratio: Estimate, said: str) -> None:
    assert verdict(ratio) == said


def test_the_page_gives_both_costs_their_difference_and_their_ratio_by_round() -> None:
    samples = Samples()
    for turn in range(8):
        slow = 1 + turn  # the machine gets busier round by round, for both alike
        samples.add(OTHER, "whole c8", 100.0 * slow)
        samples.add(THIS, "whole c8", 90.0 * slow)
    page = text(samples, [OTHER, THIS], 8, 2.0)
    row = next(line for line in page.splitlines() if line.startswith("| a whole answer, c8 "))
    assert row.endswith("| -45.0 (-80.0 to -10.0) | 0.90x (0.90x to 0.90x) | 10% less |")
    assert f"`{OTHER}`" in page and "8 interleaved rounds of 2 s" in page
    assert "| a chunk | - | - | - | - | not measured |" in page


def test_each_case_has_a_title_and_the_chunk_is_derived_from_two_of_them() -> None:
    assert {case.figure for case in commits.CASES} - {"long"} | {"chunk"} == commits.TITLES.keys()
