"""Ratchet's gateway as a process of its own on its embedded store, recording, with the mock as its engine."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import yaml

from bench.gateways.mock import CHAT, MODEL
from bench.gateways.target import Target, child, ready
from ratchet.buffer import EmbeddedServer, open_store
from ratchet.config import StoreConfig
from ratchet.process import free_port
from ratchet.types import KeyRecord

NAME = "Ratchet"
MEMORY_MB = 8192
"""Of the store: a hundred thousand answers must fit."""
KEYS = {"client": ["infer", "feedback"], "operator": ["operator"], "metrics": ["metrics"]}


def configuration(mock: str, ports: tuple[int, int], workers: int | None = None) -> dict[str, Any]:
    """The YAML: one engine that is the mock, every limit as built in; `workers` None leaves the field out."""
    gateway: dict[str, Any] = {"port": ports[0], "admin_port": ports[1]}
    if workers is not None:
        gateway["workers"] = workers
    return {
        "gateway": gateway,
        "store": {"max_memory_mb": MEMORY_MB},
        "models": {MODEL: {"path": MODEL}},
        "engines": [{"name": "mock", "kind": "vllm", "model": MODEL, "url": mock, "served_name": MODEL}],
    }


def written(folder: Path, tree: dict[str, Any]) -> Path:
    """`ratchet.yaml` in `folder`."""
    path = folder / "ratchet.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


@asynccontextmanager
async def ours(mock: str, folder: Path, *, workers: int | None = None, core: Sequence[str] = ()) -> AsyncIterator[Target]:
    """The gateway with its store; `core` goes before its command line."""
    settings = StoreConfig(max_memory_mb=MEMORY_MB)
    server = await EmbeddedServer.start(folder, settings)
    try:
        store = await open_store("embedded", settings, data=folder)
        for name, scopes in KEYS.items():
            await store.keys.put(sha256(f"rk-{name}".encode()).hexdigest(), KeyRecord(name, "bench", scopes, 1.0))
        await store.close()
        ports = free_port(), free_port()
        config = written(folder, configuration(mock, ports, workers))
        argv = [*core, sys.executable, "-m", "gateway", "--config", str(config), "--data", str(folder)]
        async with child(argv, folder / "gateway.log", NAME) as process:
            keys = {name: f"rk-{name}" for name in KEYS}
            target = Target(
                NAME,
                f"http://127.0.0.1:{ports[0]}",
                process.pid,
                server.process.pid,
                [f"authorization: Bearer {keys['client']}"],
                f"http://127.0.0.1:{ports[1]}",
                keys,
            )
            yield await ready(target, process, folder / "gateway.log")
    finally:
        await server.stop()


async def recorded(target: Target) -> int:
    """Interactions in its store, by the admin API."""
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {target.keys['operator']}"}) as http:
        answer = await http.get(target.admin + "/admin/interactions")
    answer.raise_for_status()
    return int(answer.json()["count"])


async def read_back(target: Target, item: str) -> str:
    """The text of a stored completion, by the public API."""
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {target.keys['client']}"}) as http:
        answer = await http.get(f"{target.url}{CHAT}/{item}")
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])
