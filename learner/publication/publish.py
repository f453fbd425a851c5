"""Load a version on the replicas, and unload old ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engines import EngineControl
from learner.publication.replicas import Replicas, live_name
from ratchet import clock, failpoints, names
from ratchet.buffer import Store
from ratchet.errors import EngineError, EngineRefused, EngineUnavailable, GateRefused, RatchetError
from ratchet.tasks import end
from ratchet.types import PolicyRecord, PolicyVersionRecord

log = logging.getLogger(__name__)

PASSING = frozenset({408, 425, 429, 502, 503, 504})
"""Statuses of a temporary failure of the engine, which say nothing about the candidate."""
DRAIN_SECONDS = 60.0
"""Seconds old versions may take to drain. The rest are unloaded after the next publication."""
POLL_SECONDS = 0.25
RESTART_SECONDS = 900.0
"""Seconds within which a replica that takes adapters only at its start must be back with the candidate."""


class Brought(NamedTuple):
    """A replica that holds the candidate (over a new connection if it was restarted), and the seconds that loading took."""

    engine: EngineControl
    seconds: float


async def bring(engines: Sequence[EngineControl], replicas: Replicas, candidate: PolicyVersionRecord) -> list[Brought]:
    """Load the candidate on each replica under its own name, in the way of the replica's kind.

    GateRefused("load"): one refuses it. EngineUnavailable: one does not answer, so nothing can be said of the candidate.
    EngineUnsupported: one is of a kind that takes no adapters.
    """
    return list(await asyncio.gather(*(_bring(engine, replicas, candidate) for engine in engines)))


async def unload(engines: Iterable[EngineControl], policy: str, version: int) -> None:
    """Unload a refused candidate from the replicas that can. One that does not answer keeps it until its next start."""
    for engine in engines:
        if engine.brings != "load":
            continue
        try:
            await engine.unload(live_name(engine, policy, version))
        except EngineError as error:
            log.warning("%s@%d was not unloaded from %s: %s", policy, version, engine.record.name, error)


class Retirement:
    """Unloads versions that are no longer retained, in the background, once no gateway uses them."""

    def __init__(self, policy: str, base: str, keep: int, *, store: Store, replicas: Replicas) -> None:
        """`keep`: number of versions retained besides the live one (`max_staleness`)."""
        self._policy = policy
        self._base = base
        self._keep = keep
        self._store = store
        self._replicas = replicas
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start a new run. It also unloads what the previous run did not."""
        await self.stop()
        self._task = asyncio.create_task(self._run(), name=f"retire {self._policy}")

    async def stop(self) -> None:
        """Cancel the run in progress."""
        if self._task is not None:
            await end([self._task])

    async def wait(self) -> None:
        """Wait until the run in progress ends."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        deadline = clock.monotonic() + DRAIN_SECONDS
        while clock.monotonic() < deadline:
            try:
                if not await self.once():
                    return
            except RatchetError as error:
                log.warning("%s: old versions were not unloaded: %s", self._policy, error)
            await asyncio.sleep(POLL_SECONDS)
        log.warning("%s: old versions are still in use after %.0f s", self._policy, DRAIN_SECONDS)

    async def once(self) -> bool:
        """Unload the versions that are unused now. Return whether any remain. Raises StoreUnavailable, EngineError."""
        remaining = False
        for engine in await self._replicas.ready(self._base):
            if engine.brings != "load":
                continue  # at its next start it loads only retained versions
            for name in await self._surplus(engine):
                if await self._idle(name):
                    failpoints.hit("learner.before_unload")
                    await engine.unload(name)
                else:
                    remaining = True
        return remaining

    async def _surplus(self, engine: EngineControl) -> list[str]:
        """The names of this policy that the replica lists but need not."""
        listed = [name for name in await engine.models() if (v := names.parse_version(name)) is not None and v.policy == self._policy]
        kept = {record.version for record in await self._store.registry.retained(self._policy, self._keep)}
        kept |= {record.version for record in await self._store.registry.versions(self._policy) if record.state == "candidate"}
        return [name for name in listed if name not in {live_name(engine, self._policy, version) for version in kept}]

    async def _idle(self, name: str) -> bool:
        """Whether every gateway follows the pointer and has no request in flight under `name`."""
        record = await self._store.registry.policy(self._policy)
        heartbeats = await self._store.fleet.heartbeats()
        epoch = 0 if record is None else record.epoch
        return all(heartbeat.epochs.get(self._policy, 0) >= epoch and heartbeat.inflight.get(name, 0) == 0 for heartbeat in heartbeats)


def oldest_learnable(record: PolicyRecord, retained: Sequence[PolicyVersionRecord], max_staleness: int) -> int:
    """Return the oldest version whose answers may be learned from: `max_staleness` live versions back, not counting refused ones.

    `retained` are the live version and at most `max_staleness` before it, without version 0.
    """
    before = sum(version.version != record.live for version in retained)
    if record.live == 0 or before < max_staleness or not retained:
        return 0
    return min(version.version for version in retained)


async def _bring(engine: EngineControl, replicas: Replicas, candidate: PolicyVersionRecord) -> Brought:
    began = clock.monotonic()
    if engine.brings == "restart":
        engine = await _restarted(engine, replicas, candidate)
    else:
        await _load(engine, replicas, candidate)
    failpoints.hit("learner.after_load")
    return Brought(engine, clock.monotonic() - began)


async def _restarted(engine: EngineControl, replicas: Replicas, candidate: PolicyVersionRecord) -> EngineControl:
    """The replica, once its supervisor has restarted it with the candidate."""
    replica, name = engine.record.name, live_name(engine, candidate.policy, candidate.version)
    deadline = clock.monotonic() + RESTART_SECONDS
    while clock.monotonic() < deadline:
        ready = {found.record.name: found for found in await replicas.ready(engine.record.model)}
        if (now := ready.get(replica)) is not None:
            if name in now.record.refused:
                raise GateRefused("load", f"{replica} could not be started with the adapter")
            with contextlib.suppress(EngineUnavailable):  # it is being restarted
                if name in await now.models():
                    return now
        await asyncio.sleep(POLL_SECONDS)
    raise EngineUnavailable(f"{replica} was not restarted with {name} in {RESTART_SECONDS:.0f} s")


async def _load(engine: EngineControl, replicas: Replicas, candidate: PolicyVersionRecord) -> None:
    try:
        await engine.load(live_name(engine, candidate.policy, candidate.version), replicas.folder(candidate))
    except EngineRefused as error:
        if error.status in PASSING:
            raise EngineUnavailable(f"{engine.record.name} cannot load now: {error}") from error
        raise GateRefused("load", f"{engine.record.name} refused the adapter: {error}") from error
