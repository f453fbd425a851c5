"""Bounds on what a candidate has become, whatever its reward."""

from __future__ import annotations

import math

from ratchet.errors import GateRefused


def kl(mean: float | None, limit: float | None) -> None:
    """GateRefused("kl") if the mean KL to the base (nats a token) is above `limit`, or is no number."""
    if limit is not None and (mean is None or math.isnan(mean) or mean > limit):
        raise GateRefused("kl", f"KL to the base is {mean} nats a token, above {limit:g}")
