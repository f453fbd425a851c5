"""The learner process: runs the loop of every policy, and stops on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from learner.loop.loop import PolicyLoop
from learner.loop.ownership import new_identity
from learner.loop.parts import build
from learner.policy.trainer import Worker
from learner.publication.replicas import Replicas
from ratchet.adapters import ArtifactStore
from ratchet.buffer import Store
from ratchet.config.model import Config
from ratchet.errors import ConfigError, StoreUnavailable
from ratchet.process import startup
from ratchet.process.locks import locked
from ratchet.tasks import end

NICENESS = 10
"""Niceness of the learner. Serving runs at 0, so the kernel prefers it."""
EXPIRE_SECONDS = 10.0
"""Seconds between two sweeps for expired rewards."""


async def serve(config: Config, data: Path) -> None:
    """Run until SIGTERM or SIGINT. An unfinished update is abandoned; its lease is kept for the next start.

    Raises ConfigError if a reward function, the held-out file or the shared folder is not usable, StoreUnavailable if the store
    does not answer in time.
    """
    os.nice(NICENESS)
    stop = startup.stop_event()
    ArtifactStore.of(config, data).check()
    with only_one(data):
        store = await startup.wait_for_store(config, data)
        worker, replicas = Worker(), Replicas(store, data)
        try:
            identity = new_identity(data)
            found = [
                build(name, config, data, store=store, replicas=replicas, worker=worker, identity=identity) for name in config.policies
            ]
            loops = [PolicyLoop(parts) for parts in found]
            await _until(stop, worker, loops, store)
        finally:
            worker.stop()
            await replicas.close()
            await store.close()


async def _until(stop: asyncio.Event, worker: Worker, loops: list[PolicyLoop], store: Store) -> None:
    """Run the loops until `stop` is set. An error that ends one of them is raised."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(loop.run(), name=loop.name) for loop in loops]
    tasks += [asyncio.create_task(loop.run_shadow(), name=f"{loop.name} shadow") for loop in loops]
    tasks += [asyncio.create_task(_expire(store), name="expire"), asyncio.create_task(stop.wait(), name="stop")]
    pending = set(tasks)
    try:
        while pending and not stop.is_set():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        worker.stopping = True
        await end(tasks)
        await asyncio.gather(*(loop.stop() for loop in loops))


async def _expire(store: Store) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable):
            await store.feedback.expire()
        await asyncio.sleep(EXPIRE_SECONDS)


@contextmanager
def only_one(data: Path) -> Iterator[None]:
    """Hold the learner lock of the data directory, which the kernel releases if the process dies. Raises ConfigError if it is held."""
    folder = data / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock", busy=ConfigError(f"another learner works on {data}; stop it first")):
        yield
