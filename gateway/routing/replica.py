"""One engine as the gateway sees it: whether it answers, what it holds, how much it has in hand, how it did of late."""

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
"""Seconds after which a route that an engine did not have is asked of it again."""


class Replica:
    """State only; `fleet` probes, `router` chooses, `upstream` sends."""

    def __init__(self, record: EngineRecord, inflight: Counter[str] | None = None, breaker: BreakerConfig | None = None) -> None:
        self.record = record
        implemented = kind(record.kind)
        self.engine: EngineControl = implemented.control(record)
        self.wire: EngineWire = implemented.wire
        self.authorization = authorization(record.api_key)
        """The header that carries its key."""
        self.names: frozenset[str] = frozenset()
        """What it listed last: its base and its adapters."""
        self.healthy = False
        self.failures = 0
        self.inflight: Counter[str] = Counter() if inflight is None else inflight
        """Requests by engine-side model name, those of all replicas together."""
        self.total = 0
        """Requests it has in hand."""
        self.tokens = 0
        """Tokens they reserved."""
        self.generated = 0.0
        """When it last really generated, on the monotonic clock."""
        self.restore_after = 0.0
        """Until then it is not offered again the adapters that it refused."""
        self.compared = record.launched
        """Whether its adapters are known to be ours by their paths, not only by name; of a launched engine its supervisor sees to that."""
        self.barred: frozenset[str] = frozenset()
        """Names it may list whose adapter is not sound on our side, so that none can say what it holds under them."""
        self.breaker = Breaker(breaker or BreakerConfig())
        self.tally = Tally()
        self.out_until = 0.0
        """Until then it is ejected."""
        self.ejections = 0
        """How often, of late."""
        self.paused_until = 0.0
        """Until then it asked to be left alone, by `pause_status` (429 or 503)."""
        self.pause_status = 503
        self._lacks: dict[str, float] = {}
        """Routes it said it has not, and until when that is believed; a route it has answered is not among them: inf below 0."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def weight(self) -> float:
        return self.record.weight

    @property
    def served(self) -> str:
        """Its own name for its base."""
        return self.record.served_name

    @property
    def adapters(self) -> list[str]:
        return sorted(self.names - {self.served})

    def serves(self, base: str, adapter: str | None) -> bool:
        """Whether it can answer now, as far as is known, and may be asked."""
        return self.healthy and self.record.model == base and (adapter is None or adapter in self.names) and self.record.desired == "serve"

    def serves_route(self, path: str, now: float) -> bool:
        """Whether it has the route, as far as is known."""
        return not self._lacks or self._lacks.get(path, -math.inf) <= now

    def lacks_route(self, path: str) -> None:
        """It said that it has no such route. One that it has answered before is believed to be there: only that request failed."""
        if self._lacks.get(path) != -math.inf:
            self._lacks[path] = monotonic() + ROUTE_SECONDS

    def fit(self, now: float) -> bool:
        """Whether nothing speaks against it that its own requests told: neither its breaker nor ejection."""
        return self.out_until <= now and self.breaker.admits(now)

    def pause(self, seconds: float, status: int) -> None:
        """It asked to be left alone."""
        self.paused_until, self.pause_status = monotonic() + seconds, status

    def enter(self, model: str, tokens: int = 1) -> Hold:
        """It takes a request, which reserves `tokens` until it leaves."""
        return Hold(self, model, tokens)

    def proved(self) -> None:
        """It generated."""
        self.generated = monotonic()
        self.failures = 0

    def began(self, path: str) -> None:
        """The first byte of an answer came."""
        self.breaker.began()
        self._lacks[path] = -math.inf

    def answered(self) -> None:
        """A real request went through: as good as a probe."""
        self.proved()
        self.breaker.succeeded()
        self.tally.good += 1

    def failed(self) -> None:
        """A request got no answer, or an error of the engine's own."""
        self.breaker.failed(monotonic())
        self.tally.bad += 1

    def broke(self) -> None:
        """An answer began and did not end: it has to prove again that it generates."""
        self.failed()
        self.failures += 1
        self.generated = -math.inf

    def lost(self) -> None:
        """It does not connect: no more traffic until a probe has seen it generate."""
        self.healthy = False
        self.names = frozenset()
        self.restore_after = 0.0
        self.compared = self.record.launched
        self.barred = frozenset()
        self._lacks.clear()

    def lists(self, names: Iterable[str]) -> None:
        """It answered that it holds these; until they were compared with ours, only its base counts."""
        self.names = frozenset(names) - self.barred if self.compared else frozenset({self.served})

    def forget(self, adapter: str) -> None:
        """It answered that it does not hold the adapter (it restarted since it was last asked)."""
        self.names -= {adapter}

    def update(self, record: EngineRecord) -> bool:
        """Takes the supervisor's word; False if it is another process now (moved or restarted), which needs a Replica of its own."""
        record = msgspec.structs.replace(record, served_name=record.served_name or self.record.served_name)
        same = all(getattr(record, field) == getattr(self.record, field) for field in IDENTITY)
        if same:
            self.record = record
        return same


class Hold:
    """A request in a replica's hands."""

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
        """It is done with, however it ended; a second time changes nothing."""
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
