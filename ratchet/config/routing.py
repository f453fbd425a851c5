"""`gateway.routing`: how the gateway chooses a replica, and what it does when one fails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ratchet.config.section import Name, Section

Step = Literal["previous", "base"] | Annotated[int, Field(ge=1)]


class RetryConfig(Section):
    """A request that fails before its first byte can be sent to another replica."""

    tries: int = Field(default=2, ge=1, le=8)
    """Most replicas that a request is sent to, the first included. A replica that lacks the adapter or the route does not count."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Retry budget: retries and hedges as a share of the requests that are waiting or arrived in about the last 10 s. When it is
    spent, the client gets the error. The default is half because with two replicas, one that dies fails half of the requests."""
    minimum: int = Field(default=20, ge=0)
    """Retries that are allowed in about 10 s in any case, however few requests there were."""
    max_pause_seconds: float = Field(default=60, gt=0)
    """Longest `Retry-After` of an engine that the gateway follows, in seconds."""


class BreakerConfig(Section):
    """Circuit breaker: after several failures in a row, a replica gets no requests for a while, and then one trial request."""

    failures: int = Field(default=5, ge=1)
    """Failed requests in a row that open the breaker."""
    open_seconds: float = Field(default=2, gt=0)
    """Seconds until a trial request is sent. Doubled each time the trial fails."""
    max_open_seconds: float = Field(default=60, gt=0)
    """Longest time that the breaker stays open, in seconds."""


class EjectionConfig(Section):
    """Outlier ejection: a replica that fails clearly more often than the other replicas of its base gets no requests for a while."""

    every_seconds: float = Field(default=5, gt=0)
    """Seconds between two comparisons of failure rates. Each comparison halves the weight of earlier requests."""
    share: float = Field(default=0.3, gt=0, le=1)
    """By how much a replica's share of failed requests must exceed that of the others."""
    requests: int = Field(default=10, ge=1)
    """Requests that a replica must have had before it can be ejected."""
    seconds: float = Field(default=10, gt=0)
    """Seconds of an ejection, multiplied by how often the replica was ejected recently."""
    max_seconds: float = Field(default=300, gt=0)
    """Longest ejection, in seconds."""


class RoutingConfig(Section):
    strategy: Literal["power_of_two", "round_robin", "session", "prefix", "adapter"] = "power_of_two"
    """How a replica is chosen. `power_of_two`: the less loaded of two random ones. `round_robin`: each in turn. `session`, `prefix`,
    `adapter`: the same replica for the same session, start of the prompt or adapter, so that its cache is reused."""
    load_factor: float = Field(default=1.25, gt=1)
    """For `session`, `prefix` and `adapter`: a replica with more than this multiple of its share of the reserved tokens is full, and
    further requests go to the next one."""
    spill_tokens: int = Field(default=4096, ge=0)
    """Reserved tokens below which a replica of weight 1 is never full, so that requests keep their replica while load is low."""
    prefix_bytes: int = Field(default=4096, ge=64)
    """Bytes of the start of the prompt that `prefix` hashes, but no further than the end of the first user message."""
    answer_tokens: int = Field(default=256, ge=1)
    """Tokens reserved for each choice of a request without a token limit."""
    max_answer_tokens: int = Field(default=4096, ge=1)
    """Most tokens reserved for one choice, even if the request has a higher limit."""
    healthy_floor: float = Field(default=0.5, ge=0, le=1)
    """Share of the eligible replicas that circuit breakers and ejection must leave. If fewer remain, both are ignored."""
    hedge_seconds: float | None = Field(default=None, gt=0)
    """Seconds after which a request without `stream` and with one choice is also sent to a second replica; the first complete
    response wins. Null: never."""
    fallback: dict[Name, list[Step]] = {}
    """By policy: what answers, in order, if no replica can serve its live version: `previous` (the version that was live before),
    a version number, or `base`. Pinned requests never fall back."""
    retry: RetryConfig = RetryConfig()
    """Retries before the first byte."""
    breaker: BreakerConfig = BreakerConfig()
    """Each replica's circuit breaker."""
    ejection: EjectionConfig = EjectionConfig()
    """Ejection of outliers."""
