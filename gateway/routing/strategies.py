"""Strategies that choose a replica by its name, weight and reserved tokens, and by the context of the request.

- `power_of_two`: the less loaded of two drawn by weight (Mitzenmacher 2001); also used by the affine ones for a request without a key.
- `round_robin`: smooth weighted round-robin (nginx's).
- `session`, `prefix`, `adapter`: weighted rendezvous hashing (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005)
  with bounded load (Mirrokni, Thorup, Zadimoghaddam 2018). It needs no table: gateways agree without communicating, and
  adding or removing a replica moves only its share of the keys.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from ratchet.config import RoutingConfig

REMEMBERED = 1024
"""Most names that `round_robin` remembers; beyond that it starts over."""


class Seat(Protocol):
    """A replica as a strategy sees it."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def tokens(self) -> int:
        """Tokens reserved by its requests in flight."""


S = TypeVar("S", bound=Seat)


class Context(NamedTuple):
    """A request as a strategy sees it: the tokens it reserves, and the key it shares with related requests (b"": none)."""

    tokens: int = 1
    key: bytes = b""


class Choice(NamedTuple):
    """The index of the chosen seat, and how it was chosen: `balanced`, `turn`, `home` (the key's own) or `spilled` (that one was full)."""

    seat: int
    how: str


Strategy = Callable[[Sequence[Seat], Context], Choice]


def make(config: RoutingConfig, rng: random.Random | None = None) -> Strategy:
    """Return the configured strategy. It must be called with at least one seat."""
    drawn, turns = rng or random.Random(), dict[str, float]()

    def balanced(seats: Sequence[Seat], _: Context) -> Choice:
        return Choice(two_choices(seats, drawn), "balanced")

    def turn(seats: Sequence[Seat], _: Context) -> Choice:
        return Choice(rotate(seats, turns), "turn")

    def affine(seats: Sequence[Seat], context: Context) -> Choice:
        if not context.key:
            return balanced(seats, context)
        order = ranked(seats, context.key)
        index = bounded(seats, order, context.tokens, config.load_factor, config.spill_tokens)
        return Choice(index, "home" if index == order[0] else "spilled")

    return {"power_of_two": balanced, "round_robin": turn}.get(config.strategy, affine)


def two_choices(seats: Sequence[Seat], rng: random.Random) -> int:
    """Draw two different seats by weight and return the one with fewer tokens per weight; if equal, the first drawn."""
    if len(seats) == 1:
        return 0
    weights = [seat.weight for seat in seats]
    first = _drawn(weights, rng)
    weights[first] = 0.0
    second = _drawn(weights, rng)
    return second if _load(seats[second]) < _load(seats[first]) else first


def rotate(seats: Sequence[Seat], turns: dict[str, float]) -> int:
    """Return the seat whose turn it is. Turns are proportional to weight and spread evenly; pass the same `turns` to every call."""
    if len(turns) > REMEMBERED:
        turns.clear()
    for seat in seats:
        turns[seat.name] = turns.get(seat.name, 0.0) + seat.weight
    best = max(range(len(seats)), key=lambda i: turns[seats[i].name])
    turns[seats[best].name] -= sum(seat.weight for seat in seats)
    return best


def ranked(seats: Sequence[Seat], key: bytes) -> list[int]:
    """Rank all seats for a key. Each seat comes first for a share of the keys that is proportional to its weight."""
    return sorted(range(len(seats)), key=lambda i: _distance(seats[i], key))


def bounded(seats: Sequence[Seat], order: Sequence[int], tokens: int, factor: float, slack: int) -> int:
    """Return the first seat in `order` whose reserved tokens are below `factor` times its share of all, or below `slack` per weight.

    There is always one: not all can exceed `factor` > 1 times their share. So no seat exceeds that by more than one request.
    """
    total = sum(seat.tokens for seat in seats) + tokens
    share = factor * total / sum(seat.weight for seat in seats)
    return next((i for i in order if seats[i].tokens < max(share, slack) * seats[i].weight), order[0])


def _load(seat: Seat) -> float:
    return seat.tokens / seat.weight


def _drawn(weights: Sequence[float], rng: random.Random) -> int:
    """Draw an index with probability proportional to its weight; never one of weight 0."""
    point = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0 and weight:
            return index
    return max(range(len(weights)), key=weights.__getitem__)  # only reached through rounding


def _distance(seat: Seat, key: bytes) -> float:
    """An exponentially distributed value with the weight as its rate, so that each seat has the least in proportion to its weight."""
    drawn = hashlib.blake2b(seat.name.encode() + b"\0" + key, digest_size=8).digest()
    return -math.log((int.from_bytes(drawn, "big") + 1) / 2.0**64) / seat.weight
