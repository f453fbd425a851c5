"""The other gateways: how to start each in front of the mock, with its own defaults."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import yaml

from bench.gateways.environments import Missing, environment, version
from bench.gateways.mock import MODEL, ROOT
from bench.gateways.target import Target, child, ready
from ratchet.process import free_port


class Place(NamedTuple):
    """Where a peer runs: the mock's URL, its own port, the path of its files without the suffix, and the checkout of
    production-stack, if there is one."""

    mock: str
    port: int
    files: Path
    checkout: Path | None


class Start(NamedTuple):
    """How to start a peer: its command line, additions to the environment, and the header lines that it requires."""

    argv: Sequence[str]
    env: Mapping[str, str] = {}
    headers: Sequence[str] = ()


def smg(place: Place) -> Start:
    """SMG, formerly sglang-router (Rust)."""
    program = str(environment("smg") / "smg")
    return Start([program, "launch", "--worker-urls", place.mock, *_listen(place), *_metrics()])


def vllm_router(place: Place) -> Start:
    """vLLM's router (Rust)."""
    program = str(environment("vllm-router") / "vllm-router")
    return Start([program, "--worker-urls", place.mock, *_listen(place), *_metrics()])


def production_stack(place: Place) -> Start:
    """The router of vLLM's production-stack, which no registry has, from a checkout of its repository."""
    if place.checkout is None:
        raise Missing("no registry has it; give a checkout of it with --production-stack")
    python = str(environment("production-stack") / "python")
    engines = ["--service-discovery", "static", "--static-backends", place.mock, "--static-models", MODEL, "--routing-logic", "roundrobin"]
    return Start([python, "-m", "vllm_router.app", *_listen(place), *engines], {"PYTHONPATH": str(place.checkout.resolve() / "src")})


def fastapi(place: Place) -> Start:
    """The proxy of `bench/peers`, in this environment."""
    return Start([sys.executable, str(ROOT / "bench" / "peers" / "fastapi_proxy.py"), str(place.port), place.mock])


def litellm(place: Place) -> Start:
    """LiteLLM's proxy with its defaults, but for the key that it requires and its price list, which it must not fetch."""
    program, key = environment("litellm") / "litellm", f"sk-{secrets.token_hex(32)}"
    config = place.files.with_suffix(".yaml")
    entry = {"model_name": MODEL, "litellm_params": {"model": f"hosted_vllm/{MODEL}", "api_base": f"{place.mock}/v1", "api_key": "none"}}
    config.write_text(yaml.safe_dump({"model_list": [entry]}), encoding="utf-8")
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key}
    return Start([str(program), "--config", str(config), *_listen(place)], env, [f"authorization: Bearer {key}"])


PEERS: Mapping[str, Callable[[Place], Start]] = {
    f"SMG {version('smg', 'smg')}": smg,
    f"vllm-router {version('vllm-router', 'vllm-router')}": vllm_router,
    "production-stack": production_stack,
    "FastAPI + aiohttp": fastapi,
    f"LiteLLM {version('litellm', 'litellm')}": litellm,
}
"""By name and version, the fastest first."""


@asynccontextmanager
async def peer(name: str, place: Place, core: Sequence[str]) -> AsyncIterator[Target]:
    """Run the peer for as long as the context lasts; `core` goes before its command line. Missing, RuntimeError: it cannot run here."""
    start, log = PEERS[name](place), place.files.with_suffix(".log")
    async with child([*core, *start.argv], log, name, start.env) as process:
        yield await ready(Target(name, f"http://127.0.0.1:{place.port}", process.pid, headers=start.headers), process, log)


def pinned(cores: int | str | None) -> list[str]:
    """The words before a command line that run it on one core, or on a list of cores such as `0-3`; none where there is no `taskset`."""
    return ["taskset", "-c", str(cores)] if cores is not None and shutil.which("taskset") else []


def _listen(place: Place) -> list[str]:
    return ["--host", "127.0.0.1", "--port", str(place.port)]


def _metrics() -> list[str]:
    """A free Prometheus port, since their default is a fixed one."""
    return ["--prometheus-port", str(free_port())]
