from __future__ import annotations

import io

import pytest
from rich.console import Console

from ratchet.demo.live import Lines, Panels, View, display, line, sparkline, view
from tests.support import demo_runs


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=120), out


def test_a_view_has_the_learners_status_the_swaps_and_the_users_counts() -> None:
    shown = view(10.0, "learning", demo_runs.log(), demo_runs.policy())
    assert (shown.live, shown.phase, shown.reward, shown.kl, shown.gate) == (3, "sampling", 0.4, pytest.approx(0.6), 0.95)
    assert (shown.swaps, shown.refused, shown.requests, shown.failed) == (2, 1, 4, 0)
    assert (shown.client_tokens_per_s, shown.learner_tokens_per_s) == (2.4, 31.0)
    assert shown.rewards == [0.3, 0.1, 0.95]


def test_before_the_admin_api_answered_only_the_users_counts_are_shown() -> None:
    assert "reward -" in line(view(0.0, "starting", demo_runs.log(), None))


def test_rewards_become_bars_from_low_to_high() -> None:
    assert sparkline([0.0, 0.5, 1.0, 7.0]) == "▁▅██"
    assert sparkline([]) == ""


def test_a_terminal_gets_a_panel_with_the_figures() -> None:
    screen, out = console(terminal=True)
    with display(screen) as shown:
        assert isinstance(shown, Panels)
        shown.show(view(10.0, "learning", demo_runs.log(), demo_runs.policy()))
    assert all(part in out.getvalue() for part in ("assistant@3", "0.95", "sampling", "waiting for groups"))


def test_a_pipe_gets_a_line_at_each_change_and_not_at_each_refresh() -> None:
    screen, out = console(terminal=False)
    with display(screen) as shown:
        assert isinstance(shown, Lines)
        for seconds, live in ((0.0, 0), (1.0, 0), (2.0, 1), (3.0, 1), (13.0, 1)):
            shown.show(View(seconds, "learning", live=live))
    lines = out.getvalue().splitlines()
    assert [text[:9] for text in lines] == ["[    0 s]", "[    2 s]", "[   13 s]"]
    assert "assistant@1" in lines[1]
