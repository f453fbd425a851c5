"""How a replica is chosen: shares by weight, the bound on load, and how little moves when the fleet changes."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.strategies import Context, bounded, make, ranked, rotate, two_choices
from ratchet.config import RoutingConfig

DRAWS = 4000
KEYS = [f"session-{i}".encode() for i in range(DRAWS)]


@dataclass
class Seat:
    name: str
    weight: float = 1.0
    tokens: int = 0


def seats(*weights: float) -> list[Seat]:
    return [Seat(f"e{i}", weight) for i, weight in enumerate(weights)]


weights = st.lists(st.floats(min_value=0.1, max_value=50), min_size=1, max_size=12)
loads = st.lists(st.tuples(st.floats(min_value=0.1, max_value=50), st.integers(0, 100_000)), min_size=1, max_size=12)


def near(counts: Counter[str], made: list[Seat], draws: int) -> None:
    """Within five standard deviations of what the weights say."""
    total = sum(seat.weight for seat in made)
    for seat in made:
        p = seat.weight / total
        assert abs(counts[seat.name] - draws * p) < 5 * (draws * p * (1 - p)) ** 0.5 + 1, (seat, counts)


def test_of_two_drawn_the_less_loaded_takes_the_request_and_a_full_one_next_to_nothing() -> None:
    made, rng = [Seat("full", tokens=9000), Seat("free"), Seat("half", tokens=100)], random.Random(1)
    counts = Counter(made[two_choices(made, rng)].name for _ in range(DRAWS))
    assert counts["full"] == 0
    assert counts["free"] > counts["half"] > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 2, 5), (0.5, 0.5, 4)])
def test_idle_replicas_are_drawn_by_weight(shape: tuple[float, ...]) -> None:
    made, rng = seats(*shape), random.Random(2)
    near(Counter(made[two_choices(made, rng)].name for _ in range(DRAWS)), made, DRAWS)


def test_under_load_the_two_choices_keep_the_tokens_in_hand_near_the_weights() -> None:
    made, rng = seats(1, 2, 3, 4), random.Random(3)
    for _ in range(DRAWS):
        made[two_choices(made, rng)].tokens += rng.randint(1, 200)
    filled = [seat.tokens / seat.weight for seat in made]
    assert max(filled) < 1.05 * min(filled)


@settings(deadline=None, max_examples=50)
@given(loads, st.randoms(use_true_random=False))
def test_two_choices_never_take_the_most_loaded_of_several(load: list[tuple[float, int]], rng: random.Random) -> None:
    made = [Seat(f"e{i}", weight, tokens) for i, (weight, tokens) in enumerate(load)]
    chosen = made[two_choices(made, rng)]
    worst = max(made, key=lambda seat: seat.tokens / seat.weight)
    ties = [seat for seat in made if seat.tokens / seat.weight == worst.tokens / worst.weight]
    assert chosen is not worst or len(ties) > 1 or len(made) == 1


@settings(deadline=None, max_examples=50)
@given(weights)
def test_each_has_its_turn_as_often_as_its_weight_says_at_every_moment(shape: list[float]) -> None:
    made, turns, counts = seats(*shape), dict[str, float](), Counter[str]()
    total = sum(shape)
    for n in range(1, 60):
        counts[made[rotate(made, turns)].name] += 1
        for seat in made:
            assert abs(counts[seat.name] - n * seat.weight / total) < len(made)


def test_equal_replicas_take_strict_turns_and_one_that_leaves_disturbs_none() -> None:
    made, turns = seats(1, 1, 1), dict[str, float]()
    first = [rotate(made, turns) for _ in range(6)]
    assert sorted(first[:3]) == [0, 1, 2]
    assert first[:3] == first[3:]
    assert {rotate(made[:2], turns) for _ in range(2)} == {0, 1}


def test_the_memory_of_turns_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.routing.strategies.REMEMBERED", 10)
    turns: dict[str, float] = {}
    for i in range(100):
        rotate([Seat(f"e{i}")], turns)
    assert len(turns) <= 11


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3), (2, 1, 5)])
def test_keys_are_at_home_by_weight(shape: tuple[float, ...]) -> None:
    made = seats(*shape)
    near(Counter(made[ranked(made, key)[0]].name for key in KEYS), made, DRAWS)


@settings(deadline=None, max_examples=50)
@given(weights.filter(lambda found: len(found) > 1), st.binary(max_size=40), st.data())
def test_a_replica_that_leaves_moves_only_its_own_keys_and_one_that_comes_takes_only_its_own(
    shape: list[float], key: bytes, data: st.DataObject
) -> None:
    made = seats(*shape)
    removed = made[data.draw(st.integers(0, len(made) - 1))]
    rest = [seat for seat in made if seat is not removed]
    before = [made[i].name for i in ranked(made, key)]
    after = [rest[i].name for i in ranked(rest, key)]
    assert after == [name for name in before if name != removed.name]


def test_one_of_ten_that_leaves_moves_a_tenth() -> None:
    made = seats(*[1.0] * 10)
    moved = sum(made[ranked(made, key)[0]].name != made[:9][ranked(made[:9], key)[0]].name for key in KEYS)
    assert 0.08 * DRAWS < moved < 0.12 * DRAWS


@settings(deadline=None, max_examples=50)
@given(weights, st.lists(st.tuples(st.sampled_from(KEYS[:5]), st.integers(1, 500)), max_size=120))
def test_no_replica_ever_has_more_than_its_bound_and_one_request(shape: list[float], asked: list[tuple[bytes, int]]) -> None:
    made, factor, slack = seats(*shape), 1.25, 100
    for key, tokens in asked:
        chosen = made[bounded(made, ranked(made, key), tokens, factor, slack)]
        total = sum(seat.tokens for seat in made) + tokens
        allowed = max(factor * total / sum(shape), slack) * chosen.weight
        assert chosen.tokens < allowed
        chosen.tokens += tokens
        assert chosen.tokens <= allowed + tokens


def test_a_key_stays_at_home_until_that_is_full_and_spills_to_the_next_in_its_order() -> None:
    made = seats(1, 1, 1)
    strategy = make(RoutingConfig(strategy="session", spill_tokens=1000))
    home, second, _ = ranked(made, b"me")
    seen = []
    for _ in range(12):
        chosen = strategy(made, Context(100, b"me"))
        made[chosen.seat].tokens += 100
        seen.append(chosen)
    assert seen[:10] == [(home, "home")] * 10
    assert seen[10] == (second, "spilled")


def test_without_a_key_the_affine_strategies_balance() -> None:
    for name in ("session", "prefix", "adapter", "power_of_two"):
        strategy = make(RoutingConfig.model_validate({"strategy": name}), random.Random(4))
        chosen = [strategy([Seat("full", tokens=5000), Seat("free")], Context(10)) for _ in range(20)]
        assert set(chosen) == {(1, "balanced")}
    assert make(RoutingConfig(strategy="round_robin"))(seats(1, 1), Context(10, b"key")).how == "turn"
