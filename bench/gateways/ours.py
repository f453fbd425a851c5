"""Run Ratchet's gateway as a process of its own on its embedded store, recording, in front of the mock engine."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import msgspec
import yaml

from bench.gateways.mock import CHAT, MODEL
from bench.gateways.target import Target, child, ready
from ratchet.buffer import EmbeddedServer, open_store
from ratchet.clock import monotonic
from ratchet.config import StoreConfig
from ratchet.process import free_port
from ratchet.types import KeyRecord

NAME = "Ratchet"
PROGRAM = ("-m", "gateway")
SETTLE_SECONDS = 30.0
POLL_SECONDS = 0.1
MEMORY_MB = 8192
"""The store's memory: a hundred thousand answers must fit."""
KEYS = {"client": ["infer", "feedback"], "operator": ["operator"], "metrics": ["metrics"]}


def configuration(mock: str, ports: tuple[int, int], workers: int | None = None) -> dict[str, Any]:
    """The YAML: one engine, the mock, and every limit at its default; `workers` None leaves the field out."""
    gateway: dict[str, Any] = {"port": ports[0], "admin_port": ports[1]}
    if workers is not None:
        gateway["workers"] = workers
    return tree({"mock": mock}, gateway)


def tree(engines: Mapping[str, str], gateway: dict[str, Any]) -> dict[str, Any]:
    """The YAML of a gateway in front of engines that run already, given as URLs by name."""
    return {
        "gateway": gateway,
        "store": {"max_memory_mb": MEMORY_MB},
        "models": {MODEL: {"path": MODEL}},
        "engines": [{"name": name, "kind": "vllm", "model": MODEL, "url": url, "served_name": MODEL} for name, url in engines.items()],
    }


def written(folder: Path, settings: dict[str, Any]) -> Path:
    """Write `ratchet.yaml` into `folder`."""
    path = folder / "ratchet.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@asynccontextmanager
async def ours(
    mock: str, folder: Path, *, workers: int | None = None, core: Sequence[str] = (), program: Sequence[str] = PROGRAM
) -> AsyncIterator[Target]:
    """Run the gateway in front of the mock."""
    async with served(configuration(mock, (free_port(), free_port()), workers), folder, core=core, program=program) as target:
        yield target


@asynccontextmanager
async def served(
    described: dict[str, Any], folder: Path, *, core: Sequence[str] = (), program: Sequence[str] = PROGRAM
) -> AsyncIterator[Target]:
    """Run the gateway of this YAML, which sets its ports, with a store and keys of its own.

    `core` goes before the command line (`taskset`); `program` is what Python runs as the gateway.
    """
    settings = StoreConfig(max_memory_mb=MEMORY_MB)
    server = await EmbeddedServer.start(folder, settings)
    try:
        store = await open_store("embedded", settings, data=folder)
        for name, scopes in KEYS.items():
            await store.keys.put(sha256(f"rk-{name}".encode()).hexdigest(), KeyRecord(name, "bench", scopes, 1.0))
        await store.close()
        config = written(folder, described)
        argv = [*core, sys.executable, *program, "--config", str(config), "--data", str(folder)]
        async with child(argv, folder / "gateway.log", NAME) as process:
            keys = {name: f"rk-{name}" for name in KEYS}
            target = Target(
                NAME,
                f"http://127.0.0.1:{described['gateway']['port']}",
                process.pid,
                server.process.pid,
                [f"authorization: Bearer {keys['client']}"],
                f"http://127.0.0.1:{described['gateway']['admin_port']}",
                keys,
            )
            yield await ready(target, process, folder / "gateway.log")
    finally:
        await server.stop()


async def healthy(target: Target, names: Sequence[str]) -> None:
    """Wait until all these engines answer the gateway. RuntimeError: not within SETTLE_SECONDS."""
    deadline = monotonic() + SETTLE_SECONDS
    while monotonic() < deadline:
        listed = msgspec.json.decode(await _get(target, "/admin/engines", "operator"))["data"]
        if {row["name"] for row in listed if row["healthy"]} >= set(names):
            return
        await asyncio.sleep(POLL_SECONDS)
    raise RuntimeError(f"{target.name}: not all of {names} are healthy")


async def recorded(target: Target, expected: int = 0) -> int:
    """The number of interactions in its store, by the admin API.

    The spool may have to drain first: wait up to SETTLE_SECONDS until there are `expected`.
    """
    deadline = monotonic() + SETTLE_SECONDS
    while True:
        count = int(msgspec.json.decode(await _get(target, "/admin/interactions", "operator"))["count"])
        if count >= expected or monotonic() > deadline:
            return count
        await asyncio.sleep(POLL_SECONDS)


async def spooled(target: Target) -> int:
    """The number of answers that the store did not take in time, so that they were spooled to disk first."""
    found = re.search(rb"^ratchet_spooled_total (\S+)$", await _get(target, "/metrics", "metrics"), re.MULTILINE)
    return int(float(found[1])) if found is not None else 0


async def read_back(target: Target, item: str) -> str:
    """The text of a stored completion, by the public API."""
    answer = msgspec.json.decode(await _get(target, f"{CHAT}/{item}", "client"))
    return str(answer["choices"][0]["message"]["content"])


async def _get(target: Target, path: str, key: str) -> bytes:
    base = target.url if key == "client" else target.admin
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {target.keys[key]}"}, timeout=SETTLE_SECONDS, verify=False) as http:
        answer = await http.get(base + path)
    answer.raise_for_status()
    return answer.content
