"""How the gateway chooses among replicas, and what it does where one fails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ratchet.config.section import Name, Section

Step = Literal["previous", "base"] | Annotated[int, Field(ge=1)]


class RetryConfig(Section):
    """A request that failed before its first byte may be sent to another replica."""

    tries: int = Field(default=2, ge=1, le=8)
    """Replicas a request is sent to at most, the first included; one that lacks the adapter or the route does not count."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Retries and hedges, as a share of the requests that wait or came lately (about 10 s); past it a failure is the client's.
    Half, since of two replicas one that dies takes half of what waits with it."""
    minimum: int = Field(default=20, ge=0)
    """Retries allowed in about 10 s however few requests there were."""
    max_pause_seconds: float = Field(default=60, gt=0)
    """Longest `Retry-After` of an engine that is heeded, in seconds."""


class BreakerConfig(Section):
    """Failures in a row take a replica out, for a while and then until one trial succeeds."""

    failures: int = Field(default=5, ge=1)
    """Requests in a row that fail before it opens."""
    open_seconds: float = Field(default=2, gt=0)
    """Seconds until one request is let through as a trial; doubled each time that fails."""
    max_open_seconds: float = Field(default=60, gt=0)
    """Longest it stays open, in seconds."""


class EjectionConfig(Section):
    """A replica that fails clearly more often than the others of its base is left out for a while."""

    every_seconds: float = Field(default=5, gt=0)
    """Seconds between two looks at what failed; each look halves the weight of what came before."""
    share: float = Field(default=0.3, gt=0, le=1)
    """How much higher its share of failed requests is than the others'."""
    requests: int = Field(default=10, ge=1)
    """Requests it must have had for that to mean anything."""
    seconds: float = Field(default=10, gt=0)
    """Seconds it is left out, times how often that happened lately."""
    max_seconds: float = Field(default=300, gt=0)
    """Longest it is left out, in seconds."""


class RoutingConfig(Section):
    strategy: Literal["power_of_two", "round_robin", "session", "prefix", "adapter"] = "power_of_two"
    """How a replica is chosen: the less loaded of two at random; each in turn; by the session, the prompt's beginning or the
    adapter, so that the same ones meet the same replica's cache."""
    load_factor: float = Field(default=1.25, gt=1)
    """Bound of the affine strategies: past so many times its share of the tokens in hand, a replica's requests go to the next one."""
    spill_tokens: int = Field(default=4096, ge=0)
    """Tokens a replica of weight 1 may have in hand before that bound applies; keeps a quiet fleet affine."""
    prefix_bytes: int = Field(default=4096, ge=64)
    """Bytes of the prompt's beginning that the `prefix` strategy hashes, to the end of the first user message at most."""
    answer_tokens: int = Field(default=256, ge=1)
    """Tokens reserved for an answer whose request names no limit."""
    max_answer_tokens: int = Field(default=4096, ge=1)
    """Most tokens reserved for one answer, whatever limit its request names."""
    healthy_floor: float = Field(default=0.5, ge=0, le=1)
    """Share of the replicas that answer which breakers and ejection must leave in; below it they are overruled."""
    hedge_seconds: float | None = Field(default=None, gt=0)
    """Seconds after which an unfinished request without `stream` and with one choice is sent to a second replica too, the first
    whole answer wins; None: never."""
    fallback: dict[Name, list[Step]] = {}
    """For each policy named: what answers, in order, where no replica can serve its live version: `previous` (the version that
    was live before), a version, `base`. Pinned requests never fall back."""
    retry: RetryConfig = RetryConfig()
    """Second chances before the first byte."""
    breaker: BreakerConfig = BreakerConfig()
    """Each replica's circuit breaker."""
    ejection: EjectionConfig = EjectionConfig()
    """The outliers."""
