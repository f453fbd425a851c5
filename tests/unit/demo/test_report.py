from __future__ import annotations

import pytest

from ratchet.demo.exchange import Exchange
from ratchet.demo.gaps import Stamp
from ratchet.demo.heldout import Scored
from ratchet.demo.report.outcome import faults, figures, samples
from ratchet.types import Ledger
from tests.support import demo_runs


def test_the_json_has_the_contracts_keys_and_held() -> None:
    found = figures(demo_runs.outcome())
    assert list(found) == [
        *(
            "model",
            "engine",
            "updates",
            "swaps",
            "heldout",
            "kl",
            "requests",
            "swap_seconds",
            "max_gap_ms",
            "activation",
            "ledger",
            "seconds",
        ),
        "held",
    ]
    assert found["heldout"] == {"n": 4, "before": 0.0, "after": 0.75}
    assert (found["updates"], found["swaps"], found["swap_seconds"]) == (3, 2, [2.0, 2.0])
    assert found["max_gap_ms"] == {"steady": pytest.approx(100, abs=0.2), "during_swap": pytest.approx(700, abs=0.2)}
    assert found["requests"] == {"total": 4, "failed": 0, "streamed": 2}
    assert found["ledger"] == {"received": 2, "used": 1, "pending": 1, "rejected": {}, "expired": 0}


def test_kl_is_the_live_versions_own_and_not_that_of_the_groups_it_learned_from() -> None:
    assert figures(demo_runs.outcome())["kl"] == pytest.approx(0.6)
    assert figures(demo_runs.outcome(policy=demo_runs.policy(live=0)))["kl"] is None


def test_activation_lists_each_version_on_each_replica_refused_ones_too() -> None:
    activation = figures(demo_runs.outcome())["activation"]
    assert [entry["version"] for entry in activation] == [1, 2, 3]
    assert activation[0] == {"version": 1, "replica": "local", "max_abs_logprob_diff": 0.01, "max_abs_diff_from_base": 1.5}


def test_a_run_that_rose_without_failures_has_no_fault() -> None:
    assert faults(demo_runs.outcome()) == []


def test_held_out_reward_that_did_not_rise_is_a_fault() -> None:
    same = Scored("assistant@3", {"a flat tyre": ["Well."]})
    assert "did not rise" in faults(demo_runs.outcome(after=same))[0]


def test_a_failed_request_is_a_fault_that_names_it() -> None:
    log = demo_runs.log()
    log.exchanges.append(Exchange("refunds", "assistant", True, Stamp(1, 1), error="no [DONE]"))
    assert faults(demo_runs.outcome(log=log)) == ["1 requests failed, the first: assistant: no [DONE]"]


def test_a_ledger_that_does_not_balance_is_a_fault() -> None:
    assert "does not balance" in faults(demo_runs.outcome(ledger=Ledger(received=2, used=1)))[0]


def test_a_ledger_that_lost_an_acknowledged_reward_is_a_fault() -> None:
    found = faults(demo_runs.outcome(ledger=Ledger(received=1, used=1)))
    assert found == ["the ledger received 1 rewards; 2 were acknowledged"]


def test_samples_pair_the_first_answers_of_topics_that_both_sides_answered() -> None:
    after = Scored("assistant@3", {"a flat tyre": ["Wow!"]})
    assert samples(demo_runs.outcome(after=after)) == [("a flat tyre", "Certainly.", "Wow!")]
