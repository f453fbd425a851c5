"""How a replica is chosen. A strategy sees the replicas' name, weight and tokens in hand, and the request's context: no more.

- `power_of_two`: the less loaded of two drawn by weight (Mitzenmacher 2001); also what the affine ones do without a key.
- `round_robin`: smooth weighted round-robin (nginx's).
- `session`, `prefix`, `adapter`: weighted rendezvous hashing (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005)
  with bounded load (Mirrokni, Thorup, Zadimoghaddam 2018). It keeps no table: gateways agree without talking, and a replica
  that comes or goes moves only its own share of the keys.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from ratchet.config import RoutingConfig

REMEMBERED = 1024
"""Names whose turn `round_robin` remembers; past it, it starts anew."""


class Seat(Protocol):
    """A replica as a strategy sees it."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def tokens(self) -> int:
        """Tokens reserved by requests in hand."""


S = TypeVar("S", bound=Seat)


class Context(NamedTuple):
    """A request as a strategy sees it: the tokens it reserves, and what it has in common with others (b"": nothing)."""

    tokens: int = 1
    key: bytes = b""


class Choice(NamedTuple):
    """A seat's index, and how it was chosen: `balanced`, `turn`, `home` (its key's own) or `spilled` (that one was full)."""

    seat: int
    how: str


Strategy = Callable[[Sequence[Seat], Context], Choice]


def make(config: RoutingConfig, rng: random.Random | None = None) -> Strategy:
    """The configured strategy. It is given at least one seat."""
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
    """Of two different seats drawn by weight, the one with fewer tokens a weight; equal: the first drawn."""
    if len(seats) == 1:
        return 0
    weights = [seat.weight for seat in seats]
    first = _drawn(weights, rng)
    weights[first] = 0.0
    second = _drawn(weights, rng)
    return second if _load(seats[second]) < _load(seats[first]) else first


def rotate(seats: Sequence[Seat], turns: dict[str, float]) -> int:
    """The seat whose turn it is, each as often as its weight says and as evenly spread; `turns` is kept between calls."""
    if len(turns) > REMEMBERED:
        turns.clear()
    for seat in seats:
        turns[seat.name] = turns.get(seat.name, 0.0) + seat.weight
    best = max(range(len(seats)), key=lambda i: turns[seats[i].name])
    turns[seats[best].name] -= sum(seat.weight for seat in seats)
    return best


def ranked(seats: Sequence[Seat], key: bytes) -> list[int]:
    """All seats, the key's own first: each is first for a share of the keys that is its weight's."""
    return sorted(range(len(seats)), key=lambda i: _distance(seats[i], key))


def bounded(seats: Sequence[Seat], order: Sequence[int], tokens: int, factor: float, slack: int) -> int:
    """The first seat in `order` whose tokens in hand are below `factor` times its share of all, or below `slack` a weight.

    There is one: not all can be above `factor` > 1 times their share. So none gets above that and one request.
    """
    total = sum(seat.tokens for seat in seats) + tokens
    share = factor * total / sum(seat.weight for seat in seats)
    return next((i for i in order if seats[i].tokens < max(share, slack) * seats[i].weight), order[0])


def _load(seat: Seat) -> float:
    return seat.tokens / seat.weight


def _drawn(weights: Sequence[float], rng: random.Random) -> int:
    """An index with probability by weight; weights of 0 never."""
    point = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        point -= weight
        if point < 0 and weight:
            return index
    return max(range(len(weights)), key=weights.__getitem__)  # rounding left a crumb


def _distance(seat: Seat, key: bytes) -> float:
    """Exponentially distributed with the weight as its rate, so that the least of several is this seat's by weight."""
    drawn = hashlib.blake2b(seat.name.encode() + b"\0" + key, digest_size=8).digest()
    return -math.log((int.from_bytes(drawn, "big") + 1) / 2.0**64) / seat.weight
