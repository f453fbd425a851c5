"""One engine as the gateway sees it: whether it answers, what it holds, how much it has in hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from engines.base import Engine, connect
from ratchet.clock import monotonic
from ratchet.types import EngineRecord

IDENTITY = ("kind", "model", "url", "served_name", "adapters_at", "api_key", "restarts")


class Replica:
    """State only; `fleet` probes, `router` chooses, `upstream` sends."""

    def __init__(self, record: EngineRecord, inflight: Counter[str] | None = None) -> None:
        self.record = record
        self.engine: Engine = connect(record)
        self.names: frozenset[str] = frozenset()
        """What it listed last: its base and its adapters."""
        self.healthy = False
        self.failures = 0
        self.inflight: Counter[str] = Counter() if inflight is None else inflight
        """Requests by engine-side model name, those of all replicas together."""
        self.total = 0
        """Requests it has in hand."""
        self.generated = 0.0
        """When it last really generated, on the monotonic clock."""
        self.restore_after = 0.0
        """Until then it is not offered again the adapters that it refused."""
        self.compared = record.launched
        """Whether its adapters are known to be ours by their paths, not only by name; of a launched engine its supervisor sees to that."""
        self.barred: frozenset[str] = frozenset()
        """Names it may list whose adapter is not sound on our side, so that none can say what it holds under them."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def served(self) -> str:
        """Its own name for its base."""
        return self.record.served_name

    @property
    def adapters(self) -> list[str]:
        return sorted(self.names - {self.served})

    def serves(self, base: str, adapter: str | None) -> bool:
        """Whether it can answer now, as far as is known."""
        return self.healthy and self.record.model == base and (adapter is None or adapter in self.names)

    def enter(self, model: str) -> None:
        self.inflight[model] += 1
        self.total += 1

    def leave(self, model: str) -> None:
        self.total -= 1
        self.inflight[model] -= 1
        if not self.inflight[model]:
            del self.inflight[model]

    def answered(self) -> None:
        """A real request went through: as good as a probe."""
        self.generated = monotonic()
        self.failures = 0

    def lost(self) -> None:
        """It does not connect: no more traffic until a probe has seen it generate."""
        self.healthy = False
        self.names = frozenset()
        self.restore_after = 0.0
        self.compared = self.record.launched
        self.barred = frozenset()

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
