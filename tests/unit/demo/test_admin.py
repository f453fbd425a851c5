from __future__ import annotations

import msgspec
import pytest

from ratchet.demo.admin import Policy, held, heldout
from ratchet.demo.gaps import Window
from tests.support import demo_runs

METRICS = """# HELP ratchet_held_total Requests delayed
# TYPE ratchet_held_total counter
ratchet_held_total{during_swap="true"} 2.0
ratchet_held_total{during_swap="false"} 1.0
ratchet_held_created{during_swap="true"} 1700000000.0
# TYPE ratchet_inflight gauge
ratchet_inflight 7.0
"""


def test_a_policy_is_read_from_the_admin_apis_json() -> None:
    policy = msgspec.json.decode(msgspec.json.encode(demo_runs.policy()), type=Policy)
    assert policy == demo_runs.policy()


def test_swaps_are_those_that_went_live_from_load_to_flip() -> None:
    assert demo_runs.policy().windows == [Window(100, 102), Window(120, 122)]


def test_lineage_follows_the_parents_back_to_the_base_past_a_refused_version() -> None:
    assert [record.version for record in demo_runs.policy().lineage] == [3, 1, 0]


def test_a_policy_that_learned_nothing_has_no_swap_and_only_the_base_in_its_lineage() -> None:
    fresh = Policy("assistant", "smollm2", 0, demo_runs.policy().versions[:1])
    assert (fresh.windows, fresh.learned, fresh.gate_reward) == ([], [], None)
    assert [record.version for record in fresh.lineage] == [0]


def test_the_gates_figure_is_the_live_versions_own() -> None:
    assert demo_runs.policy().gate_reward == 0.95
    assert demo_runs.policy(live=1).gate_reward == 0.3
    assert heldout(None) == {"candidate": None, "live": None}


@pytest.mark.parametrize(("metrics", "count"), [(METRICS, {"during_swap": 2, "outside": 1}), ("", {"during_swap": 0, "outside": 0})])
def test_held_requests_are_counted_by_whether_a_swap_was_under_way(metrics: str, count: dict[str, int]) -> None:
    assert held(metrics) == count
