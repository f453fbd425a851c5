"""Which replica takes a request: the less busy of two picked at random (Mitzenmacher 2001)."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable

from gateway.catalog import Target
from gateway.routing.replica import Replica


def pick(replicas: Iterable[Replica], target: Target, tried: Collection[str] = ()) -> Replica | None:
    """A healthy replica that holds the target and was not tried yet; None if there is none."""
    able = [r for r in replicas if r.name not in tried and r.serves(target.base, target.adapter)]
    if len(able) < 2:
        return able[0] if able else None
    return min(random.sample(able, 2), key=lambda replica: replica.total)
