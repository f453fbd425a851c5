"""A real gateway process on a real store, with fake engines over real HTTP, for tests. Import from here; it needs no conftest."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml

from ratchet import names
from ratchet.buffer import EmbeddedServer, Store, open_store
from ratchet.config import StoreConfig
from ratchet.types import Interaction, KeyRecord
from tests.support.small_adapters import ALPHA, RANK, written

DEADLINE = 30.0
BASE, POLICY = "smollm2", "support"
KEYS = {
    "client": ("acme", ["infer", "feedback"]),
    "infer": ("acme", ["infer"]),
    "feedback": ("acme", ["feedback"]),
    "other": ("umbrella", ["infer", "feedback"]),
    "operator": ("ops", ["operator"]),
    "metrics": ("ops", ["metrics"]),
}
"""Credentials by name: tenant and scopes. The key itself is `rk-NAME`."""


def plain_http(**options: Any) -> httpx.AsyncClient:
    """A client that reads no certificates, which takes 30 ms of CPU and is for nothing where no TLS is spoken."""
    return httpx.AsyncClient(verify=False, **options)


async def until(true: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Asks until the answer is true; its value. Fails after DEADLINE."""

    async def ask() -> Any:
        while not (answer := await true()):
            await asyncio.sleep(0.02)
        return answer

    try:
        return await asyncio.wait_for(ask(), DEADLINE)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


async def first_line(process: Process) -> str:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), DEADLINE)
    assert line, "the process ended before it served"
    return line.decode().strip()


async def end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.communicate()


@dataclass
class Fake:
    """A fake engine: its process, its URL."""

    process: Process
    url: str

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        async with plain_http() as http:
            answer = await http.request(method, self.url + path, json=body)
        answer.raise_for_status()
        return answer.json()

    async def faults(self, **faults: Any) -> None:
        await self.call("POST", "/fake/faults", faults)

    async def state(self) -> dict[str, Any]:
        """`requests` (the bodies), `traces` (their `traceparent`), `running`, `aborted`."""
        return dict(await self.call("GET", "/fake/state"))

    async def again(self) -> None:
        """Another process at the same address, with none of this one's adapters."""
        await end(self.process)
        port = self.url.rpartition(":")[2]
        self.process = (await start_fake("--port", port)).process

    async def load(self, name: str, path: Path) -> None:
        async with plain_http() as http:
            (await http.post(self.url + "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)})).raise_for_status()


async def start_fake(*flags: str) -> Fake:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "engines.fake", "--model", BASE, *flags, stdout=PIPE)
    return Fake(process, await first_line(process))


@dataclass
class Bench:
    """A gateway under test and what is around it."""

    data: Path
    server: EmbeddedServer
    store: Store
    fakes: dict[str, Fake]
    config: dict[str, Any]
    module: str = "gateway"
    """The module that runs as the gateway; `tests.support.audited_gateway` logs the files that it opens."""
    process: Process | None = None
    url: str = ""
    admin: str = ""
    http: httpx.AsyncClient = field(default_factory=lambda: plain_http(timeout=DEADLINE))

    def sdk(self, key: str = "client") -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url + "/v1", api_key=f"rk-{key}", max_retries=0, http_client=self.http)

    async def call(self, method: str, path: str, body: Any = None, *, key: str | None = "client", **options: Any) -> httpx.Response:
        """A request to the data plane; to the admin plane if `path` is one of it."""
        admin = path == "/" or path.startswith(("/admin", "/metrics"))
        headers = {"authorization": f"Bearer rk-{key}"} if key is not None else {}
        headers |= options.pop("headers", {})
        payload = {"content": body} if isinstance(body, (bytes, str)) else {"json": body} if body is not None else {}
        return await self.http.request(method, (self.admin if admin else self.url) + path, headers=headers, **payload, **options)

    async def chat(
        self, text: str = "say:hello", *, key: str = "client", headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        body = {"model": POLICY, "messages": [{"role": "user", "content": text}], **fields}
        return await self.call("POST", "/v1/chat/completions", body, key=key, headers=headers or {})

    async def metric(self, name: str, **labels: str) -> float:
        """The value of one sample on /metrics; 0 if it is not there yet."""
        text = (await self.call("GET", "/metrics", key="metrics")).text
        inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        wanted = f"{name}{{{inside}}} " if inside else f"{name} "
        return next((float(line.removeprefix(wanted)) for line in text.splitlines() if line.startswith(wanted)), 0.0)

    async def start(self, *flags: str) -> None:
        """Starts the gateway and waits until it can answer."""
        await self.launch(*flags)
        if self.fakes:
            await until(self.ready, "the gateway is ready")

    async def launch(self, *flags: str) -> None:
        """Starts the gateway and waits until it listens."""
        config = self.data / "ratchet.yaml"
        config.write_text(yaml.safe_dump(self.config))
        argv = [sys.executable, "-m", self.module, "--config", str(config), "--data", str(self.data), *flags]
        with (self.data / "gateway.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*argv, stdout=PIPE, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        addresses = json.loads(await first_line(self.process))
        self.url, self.admin = addresses["gateway"], addresses["admin"]

    async def ready(self) -> bool:
        return (await self.call("GET", "/readyz", key=None)).status_code == 200

    async def healthy(self, *names_: str) -> None:
        """Waits until exactly these engines are healthy."""

        async def same() -> bool:
            listed = (await self.call("GET", "/admin/engines", key="operator")).json()["data"]
            return {row["name"] for row in listed if row["healthy"]} == set(names_)

        await until(same, f"exactly {names_} are healthy")

    async def candidate(self, version: int) -> str:
        """Commits a version with a real adapter and loads it on every fake; its engine-side name."""
        folder, record = written(self.data.resolve(), policy=POLICY, version=version, parent=version - 1, step=version)
        record.step, record.parent, record.checkpoint = version, version - 1, f"{version:064x}"
        await self.store.registry.commit_step(POLICY, version, record)
        await self.store.registry.announce_loading(POLICY)
        for fake in self.fakes.values():
            await fake.load(f"{POLICY}@{version}", folder)
        return f"{POLICY}@{version}"

    async def publish(self, version: int) -> str:
        """A new version live on every fake, as the learner does it; returns once the gateway serves it."""
        name = await self.candidate(version)
        await self.store.registry.publish(POLICY, version, expect_live=version - 1, verdict={"passed": True})
        await self.serves(name)
        return name

    async def serves(self, label: str) -> None:
        async def same() -> bool:
            return (await self.chat(store=False)).headers.get("x-ratchet-policy") == label

        await until(same, f"{label} serves")

    async def engine(self, name: str) -> dict[str, Any]:
        """What the gateway says of an engine."""
        answer = await self.call("GET", f"/admin/engines/{name}", key="operator")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def log(self) -> str:
        return (self.data / "gateway.log").read_text()


def configuration(fakes: dict[str, Fake], **gateway: Any) -> dict[str, Any]:
    return {
        "gateway": {"port": 0, "admin_port": 0, **gateway},
        "models": {BASE: {"path": "smollm2"}},
        "engines": [{"name": name, "kind": "fake", "model": BASE, "url": fake.url} for name, fake in fakes.items()],
        "policies": {
            POLICY: {
                "base": BASE,
                "lora": {"rank": RANK, "alpha": ALPHA},
                "metrics": {
                    "reward": {"type": "float", "min": 0, "max": 1},
                    "liked": {"type": "boolean"},
                    "note": {"type": "comment"},
                    "better": {"type": "demonstration"},
                    "choice": {"type": "preference"},
                },
            }
        },
    }


async def put_keys(store: Store) -> None:
    for name, (tenant, scopes) in KEYS.items():
        await store.keys.put(hashlib.sha256(f"rk-{name}".encode()).hexdigest(), KeyRecord(name, tenant, scopes, 1.0))


@asynccontextmanager
async def bench(
    data: Path, *, engines: int = 1, start: bool = True, flags: tuple[str, ...] = (), store: StoreConfig | None = None, **gateway: Any
) -> AsyncIterator[Bench]:
    """A gateway with `engines` fake replicas, its keys in the store; `gateway` are fields of its configuration."""
    settings = store or StoreConfig()
    server = await EmbeddedServer.start(data, settings)
    fakes: dict[str, Fake] = {}
    made: Bench | None = None
    try:
        opened = await open_store("embedded", settings, data=data)
        started = await asyncio.gather(*(start_fake(*flags) for _ in range(engines)))
        fakes |= {f"fake-{i}": fake for i, fake in enumerate(started)}
        await put_keys(opened)
        made = Bench(data, server, opened, fakes, configuration(fakes, **gateway))
        if start:
            await made.start()
        yield made
    finally:
        if made is not None:
            await made.http.aclose()
            if made.process is not None:
                await end(made.process)
            await made.store.close()
            server = made.server
        for fake in fakes.values():
            await end(fake.process)
        await server.stop()


def events(text: str) -> list[str]:
    """The payloads of a stream's events."""
    return [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]


async def recorded(made: Bench, public_id: str) -> Interaction:
    """What is recorded of an answer, once it is."""

    async def look() -> Interaction | None:
        return await made.store.interactions.get(public_id, None)

    found = await until(look, f"{public_id} is recorded")
    assert isinstance(found, Interaction)
    return found


def is_public_id(text: str) -> bool:
    return text.startswith(names.CHAT_PREFIX) and names.RESPONSE_ID.fullmatch(text) is not None
