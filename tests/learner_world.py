"""What the learner's tests share: a store, a small real engine, a policy to train, and the learner itself as a process."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import yaml

from engines import Engine, Sample, connect
from learner.loop import PolicyLoop
from learner.process import build
from learner.replicas import Replicas
from learner.trainer import Worker
from ratchet import names, process
from ratchet.buffer import Store
from ratchet.config import Config
from ratchet.types import Choice, EngineRecord, Interaction, Sampling
from tests import tiny_model
from tests.stores import POLICY, rate

ROOT = Path(__file__).resolve().parent.parent
SCORER = "tests.scorers:early_letters"
ANSWER_TOKENS = 6


def configuration(model: Path, url: str, **policy: Any) -> Config:
    """One policy on one engine that already runs; small numbers everywhere."""
    base: dict[str, Any] = {
        "base": tiny_model.NAME,
        "lora": {"rank": 4, "alpha": 8},
        "algorithm": {"type": "grpo", "learning_rate": 0.01},
        "schedule": {"min_groups": 1, "max_staleness": 4},
        "shadow": {"enabled": False, "group_size": 4, "max_tokens": ANSWER_TOKENS},
        "gate": {"probes": 2},
    }
    merged = base | {key: base.get(key, {}) | value if isinstance(value, dict) else value for key, value in policy.items()}
    return Config.model_validate(
        {
            "models": {tiny_model.NAME: {"path": str(model)}},
            "engines": [{"name": "tiny", "kind": "vllm", "model": tiny_model.NAME, "url": url}],
            "policies": {POLICY: merged},
            "learner": {"threads": 1, "device": "cpu"},
        }
    )


def record(url: str, name: str = "tiny", **fields: Any) -> EngineRecord:
    return EngineRecord(name, "vllm", tiny_model.NAME, url, tiny_model.NAME, slots=32, **fields)


@asynccontextmanager
async def tiny_engine(model: Path, log: Path, *flags: str) -> AsyncIterator[str]:
    """A running `tests.tiny_engine`; its URL."""
    port = process.free_port()
    argv = [sys.executable, "-m", "tests.tiny_engine", "--model", str(model), "--port", str(port), *flags]
    child = await process.spawn(argv, env={**os.environ, "OMP_NUM_THREADS": "1"}, log=log, name="tiny", cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        await until(lambda: _answers(url, child), seconds=90)
        yield url
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def _answers(url: str, child: asyncio.subprocess.Process) -> bool:
    assert child.returncode is None, "the tiny engine ended"
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 60) -> None:
    """Returns once `condition` holds; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


@dataclass
class World:
    """A store and a data directory, the engine in the fleet, and one policy's loop on them, in this process."""

    store: Store
    data: Path
    config: Config
    loop: PolicyLoop
    replicas: Replicas
    worker: Worker

    async def engine(self) -> Engine:
        return (await self.replicas.some(self.loop.config.base))[0]

    async def ask(self, prompt: str, n: int = 4, **fields: Any) -> Interaction:
        """A recorded interaction, really answered by the engine's base."""
        item = await answered(await self.engine(), prompt, n, **fields)
        await self.store.interactions.put([item])
        return item

    async def learnable(self, prompt: str) -> Interaction:
        """A rated group with a spread."""
        item = await self.ask(prompt)
        await rate(self.store, item, [float(i) for i in range(item.n)])
        return item

    async def live(self) -> int:
        found = await self.store.registry.policy(POLICY)
        assert found is not None
        return found.live

    async def state(self, version: int) -> str:
        found = await self.store.registry.version(POLICY, version)
        assert found is not None
        return found.state


@asynccontextmanager
async def world(store: Store, data: Path, config: Config, fleet: list[EngineRecord] | None = None) -> AsyncIterator[World]:
    """The loop on `store`, its engines (or `fleet`) entered in the fleet; everything closed afterwards."""
    for found in fleet or [record(str(engine.url), engine.name) for engine in config.engines]:
        await store.fleet.put(found)
    replicas, worker = Replicas(store, data), Worker()
    loop = build(POLICY, config, data, store=store, replicas=replicas, worker=worker)
    await store.registry.ensure(POLICY, config.policies[POLICY].base)
    try:
        yield World(store, data, config, loop, replicas, worker)
    finally:
        await loop.stop()
        worker.stop()
        await replicas.close()


async def answered(engine: Engine, prompt: str, n: int, *, seed: int = 1, **fields: Any) -> Interaction:
    """`n` answers of the engine's base to `prompt`, as the gateway records them. The id is the arguments', since seeds come from it."""
    ids = [97, *prompt.encode()[:20]]
    ident = hashlib.sha256(f"{prompt} {n} {seed}".encode()).hexdigest()[:32]
    samples = await engine.generate(engine.record.served_name, ids, n=n, max_tokens=ANSWER_TOKENS, temperature=1.0, seed=seed)
    base: dict[str, Any] = {
        "id": names.CHAT_PREFIX + ident, "tenant": "acme", "policy": POLICY, "version": 0, "base": engine.record.model,
        "engine": engine.record.name, "route": "/v1/chat/completions", "created": 1_700_000_000.25, "status": "complete",
        "request": {"model": POLICY, "messages": [{"role": "user", "content": prompt}], "n": n}, "prompt_ids": ids,
        "choices": [_choice(i, s) for i, s in enumerate(samples)], "sampling": Sampling(max_tokens=ANSWER_TOKENS), "model": POLICY,
    }  # fmt: skip
    return Interaction(**(base | fields))


def _choice(index: int, sample: Sample) -> Choice:
    return Choice(index, sample.token_ids, sample.logprobs, {"role": "assistant", "content": sample.text}, sample.finish_reason)


async def connected(url: str) -> Engine:
    return connect(record(url))


# The learner as a process of its own, forked from one that imported torch already.

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["learner.process", "learner.__main__"])


def _learn(config: Path, data: Path, failpoint: str) -> None:
    # Its parent is the fork server; it must not outlive the tests, however they end.
    Thread(target=_end_with_the_tests, daemon=True).start()
    os.environ["RATCHET_FAILPOINT"] = failpoint
    sys.argv = ["learner", "--config", str(config), "--data", str(data)]
    log = os.open(data / "logs" / "learner.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(ROOT)
    from learner.__main__ import main

    sys.exit(main())


def _end_with_the_tests() -> None:
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os._exit(1)


class Learner:
    """`python -m learner` on a data directory."""

    def __init__(self, config: Config, data: Path, failpoint: str = "") -> None:
        path = data / "ratchet.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        (data / "logs").mkdir(exist_ok=True)
        self._process = _FORKS.Process(target=_learn, args=(path, data, failpoint), daemon=True)

    async def __aenter__(self) -> Learner:
        await asyncio.to_thread(self._process.start)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process.is_alive():
            self._process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Its exit code, once it has ended; -9 if it was killed."""
        await asyncio.to_thread(self._process.join, 120)
        assert self._process.exitcode is not None, "the learner still runs"
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()
