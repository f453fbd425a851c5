"""Which replicas are in question, and what they remember."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gateway.catalog import Target
from gateway.routing.fleet import Fleet
from gateway.routing.replica import Replica
from gateway.routing.router import Router
from gateway.routing.strategies import Context
from gateway.telemetry.metrics import Metrics
from ratchet.clock import monotonic
from ratchet.config import BreakerConfig, RoutingConfig
from ratchet.types import EngineRecord

CHAT, RERANK = "/v1/chat/completions", "/v1/rerank"
SUPPORT = Target("small", "support", 1)
BASE = Target("small")
ASKED = Context(10)


class Listed(Fleet):
    """A fleet of replicas that the test made."""

    def __init__(self, replicas: Iterable[Replica]) -> None:
        self.replicas = {replica.name: replica for replica in replicas}


def replica(name: str, *, holds: tuple[str, ...] = (), tokens: int = 0, **fields: object) -> Replica:
    made = Replica(EngineRecord(name, "fake", "small", "http://127.0.0.1:9", "small"), breaker=BreakerConfig(failures=1, open_seconds=1000))
    made.healthy, made.names, made.tokens = True, frozenset({"small", *holds}), tokens
    for field, value in fields.items():
        setattr(made.record if hasattr(made.record, field) else made, field, value)
    return made


def router(*replicas: Replica, **config: object) -> Router:
    return Router(Listed(replicas), RoutingConfig.model_validate(config), Metrics())


def picked(made: Router, target: Target = BASE, path: str = CHAT, tried: tuple[str, ...] = ()) -> set[str]:
    return {found.name for _ in range(60) if (found := made.pick(target, path, ASKED, tried)) is not None}


async def test_a_request_goes_to_the_less_loaded_replica_that_holds_the_version() -> None:
    made = router(
        replica("busy", holds=("support@1",), tokens=500),
        replica("free", holds=("support@1",)),
        replica("empty"),
        replica("down", holds=("support@1",), healthy=False),
        replica("drained", holds=("support@1",), desired="drain"),
        replica("leaving", holds=("support@1",), desired="remove"),
    )
    assert picked(made, SUPPORT) == {"free"}
    assert picked(made, SUPPORT, tried=("free",)) == {"busy"}
    assert picked(made, SUPPORT, tried=("free", "busy")) == set()
    assert picked(made, Target("large")) == set()
    assert picked(made) == {"free", "empty"}


async def test_one_whose_breaker_is_open_or_that_is_ejected_is_left_out_while_enough_others_are_in() -> None:
    open_, ejected, good, other = replica("open"), replica("ejected"), replica("good"), replica("other")
    open_.failed()
    ejected.out_until = monotonic() + 100
    assert picked(router(open_, ejected, good, other)) == {"good", "other"}
    assert picked(router(open_, ejected, good)) == {"open", "ejected", "good"}  # below the floor of a half
    assert picked(router(open_)) == {"open"}
    assert picked(router(open_, healthy_floor=0)) == set()


async def test_one_that_asked_to_be_left_alone_is_and_where_all_did_the_first_back_is_told() -> None:
    made = [replica("a"), replica("b")]
    made[0].pause(30, 429)
    asked = router(*made)
    assert picked(asked) == {"b"}
    assert asked.pause(BASE, CHAT) is None
    made[1].pause(20, 503)
    assert picked(asked) == set()
    pause = asked.pause(BASE, CHAT)
    assert pause is not None
    status, seconds = pause
    assert status == 503
    assert 19 < seconds <= 20


async def test_a_route_that_a_replica_lacks_is_asked_of_another_until_it_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    without, has = replica("without"), replica("has")
    made = router(without, has)
    without.lacks_route(RERANK)
    assert picked(made, path=RERANK) == {"has"}
    assert picked(made, path=CHAT) == {"without", "has"}
    has.lacks_route(RERANK)
    assert made.lacks(BASE, RERANK)
    assert not made.lacks(BASE, CHAT)
    without.lost()
    without.healthy = True
    assert picked(made, path=RERANK) == {"without"}
    monkeypatch.setattr("gateway.routing.replica.ROUTE_SECONDS", 0.0)
    without.lacks_route(RERANK)
    assert picked(made, path=RERANK) == {"without"}


async def test_a_route_is_not_lacked_while_an_engine_that_may_have_it_is_away() -> None:
    without, away = replica("without"), replica("away", healthy=False)
    without.lacks_route(RERANK)
    assert not router(without, away).lacks(BASE, RERANK)
    assert router(without).lacks(BASE, RERANK)
    assert not router(away).lacks(BASE, RERANK)


async def test_a_route_that_was_answered_before_cannot_be_talked_away() -> None:
    made = replica("a")
    made.began(RERANK)
    made.lacks_route(RERANK)
    assert made.serves_route(RERANK, monotonic())


async def test_an_outlier_is_ejected_for_longer_each_time_and_never_below_the_floor() -> None:
    bad, *good = (replica(name) for name in "abcd")
    made = router(bad, *good, ejection={"seconds": 10, "max_seconds": 15, "requests": 10, "share": 0.3})
    spans = []
    now = monotonic()
    for _ in range(3):
        bad.tally.bad = 20
        for one in good:
            one.tally.good = 20
        bad.breaker.succeeded()
        made.sweep(now)
        spans.append(bad.out_until - now)
        now = bad.out_until
    assert spans == pytest.approx([10, 15, 15])
    alone = router(bad, good[0], healthy_floor=1)
    bad.tally.bad, good[0].tally.good, bad.out_until = 20, 20, 0.0
    alone.sweep(now)
    assert bad.out_until == 0.0


async def test_a_sweep_lets_what_came_before_fade() -> None:
    one = replica("a")
    one.tally.good = 8
    made = router(one)
    for expected in (4, 2, 1):
        made.sweep(monotonic())
        assert one.tally.good == expected


def test_a_replica_counts_what_it_has_in_hand_and_gives_back_each_once() -> None:
    made = replica("a")
    first, second, third = made.enter("support@1", 100), made.enter("support@1", 20), made.enter("small", 3)
    assert (made.total, made.tokens, dict(made.inflight)) == (3, 123, {"support@1": 2, "small": 1})
    for hold in (first, first, second):
        hold.leave()
    assert (made.total, made.tokens, dict(made.inflight)) == (1, 3, {"small": 1})
    third.leave()
    assert (made.total, made.tokens, dict(made.inflight)) == (0, 0, {})


def test_a_trial_that_its_client_left_is_given_back() -> None:
    made = replica("a")
    made.breaker = made.breaker.__class__(BreakerConfig(failures=1, open_seconds=1e-9))
    made.failed()
    trial = made.enter("small")
    assert not made.fit(monotonic())
    trial.leave()
    assert made.fit(monotonic())


def test_a_restarted_engine_is_another_replica_and_a_new_weight_is_not() -> None:
    made = Replica(EngineRecord("a", "fake", "small", "http://127.0.0.1:9", ""))
    made.record.served_name = "small"
    assert made.update(EngineRecord("a", "fake", "small", "http://127.0.0.1:9", "", state="down", weight=3.0, desired="drain"))
    assert (made.served, made.record.state, made.weight, made.record.desired) == ("small", "down", 3.0, "drain")
    assert not made.update(EngineRecord("a", "fake", "small", "http://127.0.0.1:9", "", restarts=1))
