"""Choose the replica for a request: of those that can answer and are not ejected, the one that the strategy picks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from gateway.catalog import Target
from gateway.routing import context, ejection, strategies
from gateway.routing.fleet import Fleet
from gateway.routing.replica import Replica
from gateway.routing.strategies import Context
from gateway.telemetry.metrics import Metrics
from ratchet.clock import monotonic
from ratchet.config import RoutingConfig

log = logging.getLogger(__name__)


class Router:
    """Chooses among the fleet's replicas."""

    def __init__(self, fleet: Fleet, config: RoutingConfig, metrics: Metrics, rng: random.Random | None = None) -> None:
        self._fleet = fleet
        self._config = config
        self._metrics = metrics
        self._strategy = strategies.make(config, rng)

    def context(self, tree: Mapping[str, Any], size: int, session: str, episode: str | None, target: Target) -> Context:
        """Return what the strategy needs of a request whose body has `size` bytes."""
        return Context(context.tokens(tree, size, self._config), context.key(tree, session, episode, target.adapter, self._config))

    def pick(self, target: Target, path: str, context: Context, tried: Collection[str] = ()) -> Replica | None:
        """Return a replica that can answer and was not tried yet, or None."""
        now = monotonic()
        able = [
            r
            for r in self._fleet.all()
            if r.serves(target.base, target.adapter) and r.paused_until <= now and r.serves_route(path, now) and r.name not in tried
        ]
        if not able:
            return None
        fit = [r for r in able if r.fit(now)]
        if len(fit) < ejection.floor(self._config.healthy_floor, len(able)):
            fit = able  # a doubtful replica is better than overloading the others
        if not fit:
            return None
        index, how = self._strategy(fit, context) if len(fit) > 1 else (0, "only")
        self._metrics.routed.labels(fit[index].name, how).inc()
        return fit[index]

    def pause(self, target: Target, path: str) -> tuple[int, float] | None:
        """If every replica that could answer is paused, return the status to answer and the seconds until the first pause ends."""
        now = monotonic()
        able = [r for r in self._fleet.all() if r.serves(target.base, target.adapter) and r.serves_route(path, now)]
        if not able or any(r.paused_until <= now for r in able):
            return None
        first = min(able, key=lambda replica: replica.paused_until)
        return first.pause_status, first.paused_until - now

    def lacks(self, target: Target, path: str) -> bool:
        """Whether the target has replicas, none of them has the route, and no unavailable replica of the base may have it."""
        now = monotonic()
        able = [r for r in self._fleet.all() if r.serves(target.base, target.adapter)]
        away = [r for r in self._fleet.all() if r.record.model == target.base and not r.healthy]
        return bool(able) and not any(r.serves_route(path, now) for r in able + away)

    async def watch(self) -> None:
        """Look for outliers, for ever."""
        while True:
            await asyncio.sleep(self._config.ejection.every_seconds)
            self.sweep(monotonic())

    def sweep(self, now: float) -> None:
        """Eject replicas that fail clearly more often than the others of their base, as far as `healthy_floor` allows."""
        bases: dict[str, list[Replica]] = {}
        for replica in self._fleet.all():
            if replica.healthy:
                bases.setdefault(replica.record.model, []).append(replica)
        for replicas in bases.values():
            self._eject(replicas, now)
        for replica in self._fleet.all():
            replica.tally.fade()

    def _eject(self, replicas: Iterable[Replica], now: float) -> None:
        config = self._config.ejection
        known = {r.name: r for r in replicas}
        within = {name: r.tally for name, r in known.items() if r.fit(now)}
        room = len(within) - ejection.floor(self._config.healthy_floor, len(known))
        chosen = ejection.outliers(within, config, room)
        for name in chosen:
            replica = known[name]
            replica.ejections += 1
            seconds = min(config.seconds * replica.ejections, config.max_seconds)
            replica.out_until, replica.tally = now + seconds, ejection.Tally()
            self._metrics.ejections.labels(name).inc()
            log.warning("engine %s fails more often than its peers: left out for %.0f s", name, seconds)
        for name in within.keys() - set(chosen):
            known[name].ejections = max(0, known[name].ejections - 1)
