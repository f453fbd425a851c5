"""The gateway's view of one engine: its health, its adapters, its requests in flight, and its recent failures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import msgspec

from engines import EngineControl, EngineWire, kind
from engines.http import authorization
from gateway.routing.breaker import Breaker
from gateway.routing.ejection import Tally
from ratchet.clock import monotonic
from ratchet.config import BreakerConfig
from ratchet.types import EngineRecord

IDENTITY = ("kind", "model", "url", "served_name", "adapters_at", "api_key", "restarts")
ROUTE_SECONDS = 60.0
"""Seconds after which a route that an engine lacked is tried on it again."""


class Replica:
    """The state of one engine. `fleet` probes it, `router` chooses it, `upstream` sends to it."""

    def __init__(self, record: EngineRecord, inflight: Counter[str] | None = None, breaker: BreakerConfig | None = None) -> None:
        self.record = record
        implemented = kind(record.kind)
        self.engine: EngineControl = implemented.control(record)
        self.wire: EngineWire = implemented.wire
        self.authorization = authorization(record.api_key)
        """The header with its API key."""
        self.names: frozenset[str] = frozenset()
        """The names that it listed last: its base and its adapters."""
        self.healthy = False
        self.failures = 0
        self.inflight: Counter[str] = Counter() if inflight is None else inflight
        """Requests in flight by engine-side model name, of all replicas together."""
        self.total = 0
        """Requests in flight at this replica."""
        self.tokens = 0
        """Tokens that its requests in flight reserved."""
        self.generated = 0.0
        """When it last generated, on the monotonic clock."""
        self.restore_after = 0.0
        """When adapters that it refused are offered again, on the monotonic clock."""
        self.compared = record.launched
        """Whether its adapters were compared with ours by path, not only by name. The supervisor does so for a launched engine."""
        self.barred: frozenset[str] = frozenset()
        """Names whose adapter failed verification here. What the engine holds under them is unknown, so they are not used."""
        self.breaker = Breaker(breaker or BreakerConfig())
        self.tally = Tally()
        self.out_until = 0.0
        """End of its ejection, on the monotonic clock."""
        self.ejections = 0
        """How often it was ejected recently; each ejection lasts longer."""
        self.paused_until = 0.0
        """End of the pause that it asked for with `pause_status` (429 or 503), on the monotonic clock."""
        self.pause_status = 503
        self._lacks: dict[str, float] = {}
        """Routes that it answered it lacks, and until when they are not tried; -inf marks a route that it has answered."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def weight(self) -> float:
        return self.record.weight

    @property
    def served(self) -> str:
        """Its own name for the base."""
        return self.record.served_name

    @property
    def adapters(self) -> list[str]:
        return sorted(self.names - {self.served})

    def serves(self, base: str, adapter: str | None) -> bool:
        """Whether it is healthy, serves `base` and `adapter`, and takes new requests."""
        return self.healthy and self.record.model == base and (adapter is None or adapter in self.names) and self.record.desired == "serve"

    def serves_route(self, path: str, now: float) -> bool:
        """Whether it is believed to have the route."""
        return not self._lacks or self._lacks.get(path, -math.inf) <= now

    def lacks_route(self, path: str) -> None:
        """Note that it answered that it lacks a route. Ignored if it has answered that route before: then only this request failed."""
        if self._lacks.get(path) != -math.inf:
            self._lacks[path] = monotonic() + ROUTE_SECONDS

    def fit(self, now: float) -> bool:
        """Whether neither its breaker nor an ejection keeps requests from it."""
        return self.out_until <= now and self.breaker.admits(now)

    def pause(self, seconds: float, status: int) -> None:
        """Send it no requests for `seconds`, as it asked for with `status` and `retry-after`."""
        self.paused_until, self.pause_status = monotonic() + seconds, status

    def enter(self, model: str, tokens: int = 1) -> Hold:
        """Count a request that reserves `tokens` as in flight, until `leave` of what is returned."""
        return Hold(self, model, tokens)

    def proved(self) -> None:
        """Note that it generated."""
        self.generated = monotonic()
        self.failures = 0

    def began(self, path: str) -> None:
        """Note the first byte of an answer."""
        self.breaker.began()
        self._lacks[path] = -math.inf

    def answered(self) -> None:
        """Note a successful request, which proves as much as a probe."""
        self.proved()
        self.breaker.succeeded()
        self.tally.good += 1

    def failed(self) -> None:
        """Note a request without an answer, or with an error of the engine."""
        self.breaker.failed(monotonic())
        self.tally.bad += 1

    def broke(self) -> None:
        """Note an answer that broke off. A probe has to show again that the engine generates."""
        self.failed()
        self.failures += 1
        self.generated = -math.inf

    def lost(self) -> None:
        """Take it out of use until a probe has seen it generate."""
        self.healthy = False
        self.names = frozenset()
        self.restore_after = 0.0
        self.compared = self.record.launched
        self.barred = frozenset()
        self._lacks.clear()

    def lists(self, names: Iterable[str]) -> None:
        """Note the names that it lists. Until they were compared with ours, only its base counts."""
        self.names = frozenset(names) - self.barred if self.compared else frozenset({self.served})

    def forget(self, adapter: str) -> None:
        """Note that it does not hold the adapter (it restarted since the last probe)."""
        self.names -= {adapter}

    def update(self, record: EngineRecord) -> bool:
        """Take over a newer record. False if it describes another process (moved or restarted), which needs a new Replica."""
        record = msgspec.structs.replace(record, served_name=record.served_name or self.record.served_name)
        same = all(getattr(record, field) == getattr(self.record, field) for field in IDENTITY)
        if same:
            self.record = record
        return same


class Hold:
    """A request in flight at a replica."""

    __slots__ = ("_model", "_released", "_tokens", "_trial", "replica")

    def __init__(self, replica: Replica, model: str, tokens: int) -> None:
        self.replica = replica
        self._model = model
        self._tokens = tokens
        self._released = False
        self._trial = replica.breaker.enter(monotonic())
        replica.inflight[model] += 1
        replica.total += 1
        replica.tokens += tokens

    def leave(self) -> None:
        """Count the request as no longer in flight. A second call changes nothing."""
        if self._released:
            return
        self._released = True
        replica = self.replica
        replica.tokens -= self._tokens
        replica.total -= 1
        replica.inflight[self._model] -= 1
        if not replica.inflight[self._model]:
            del replica.inflight[self._model]
        if self._trial:
            replica.breaker.release()
