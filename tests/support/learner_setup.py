"""What the learner's tests share: a store, a small real engine, a policy to train, and the learner itself as a process."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import yaml

from engines import EngineControl, Sample, connect
from learner.loop import PolicyLoop
from learner.policy.trainer import Worker
from learner.process import build
from learner.publication.replicas import Replicas
from ratchet import names, process
from ratchet.buffer import Store
from ratchet.config import Config
from ratchet.types import Choice, EngineRecord, Interaction, Sampling
from tests.support import tiny_model
from tests.support.stores import POLICY, rate

ROOT = Path(__file__).resolve().parents[2]
SCORER = "tests.support.reward_functions:early_letters"
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
    """A running `tests.support.tiny_engine`; its URL."""
    port = process.free_port()
    child = _forked("tests.support.tiny_engine", log, "--model", str(model), "--port", str(port), *flags)
    await asyncio.to_thread(child.start)
    url = f"http://127.0.0.1:{port}"
    try:
        await until(lambda: _answers(url, child), seconds=90)
        yield url
    finally:
        child.kill()
        await asyncio.to_thread(child.join)


async def _answers(url: str, child: ForkServerProcess) -> bool:
    assert child.is_alive(), "the tiny engine ended"
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

    async def engine(self) -> EngineControl:
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


async def answered(engine: EngineControl, prompt: str, n: int, *, seed: int = 1, **fields: Any) -> Interaction:
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


async def connected(url: str) -> EngineControl:
    return connect(record(url))


# Programs as processes of their own, forked from one that imported torch already.

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["learner.process", "learner.__main__", "tests.support.tiny_engine"])


def _forked(module: str, log: Path, *arguments: str, failpoint: str = "") -> ForkServerProcess:
    """`python -m MODULE ARGUMENTS`, not started yet; MODULE has a `main`. What it says goes to `log`."""
    log.parent.mkdir(exist_ok=True)
    return _FORKS.Process(target=_run, args=(module, log, arguments, failpoint), daemon=True)


def _run(module: str, log: Path, arguments: tuple[str, ...], failpoint: str) -> None:
    # Its parent is the fork server; it must not outlive the tests, however they end.
    Thread(target=_end_with_the_tests, daemon=True).start()
    os.environ["RATCHET_FAILPOINT"] = failpoint
    sys.argv = [module, *arguments]
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(ROOT)
    sys.exit(importlib.import_module(module).main())


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
        log = data / "logs" / "learner.log"
        self._process = _forked("learner.__main__", log, "--config", str(path), "--data", str(data), failpoint=failpoint)

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
