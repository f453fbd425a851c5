"""Sort sampled stacks by layer: which part of the gateway each microsecond belongs to. Pure functions over py-spy's raw output."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

LAYERS: Sequence[tuple[str, str]] = (
    ("store client (redis, hiredis)", r"redis/|ratchet/buffer/(link|lua|wire)\.py"),
    ("recorder: pack (msgpack, zstd)", r"ratchet/buffer/schema\.py"),
    ("recorder", r"gateway/record/|ratchet/buffer/"),
    ("capture and cut", r"engines/(?:vllm/(?:capture|cut|body)|openai/\w+|stream|sse)\.py"),
    ("parse and check", r"gateway/server/strict\.py|gateway/dialects/"),
    ("metrics, traces, logs", r"prometheus_client/|gateway/telemetry/|logging/"),
    (
        "upstream",
        r"aiohttp/|yarl/|multidict/|gateway/relay/(?:upstream|answer|dispatch|refusal|transport)|gateway/routing/|engines/(?:vllm/(?:control|wire)|http)\.py",
    ),
    ("uvicorn (HTTP in, answer out)", r"uvicorn/|httptools/|gateway/server/(protocol|connection_limit|client|unframed)\.py"),
    ("plane, keys, quota", r"gateway/(?:server/(?:plane|http|bodies)|access/\w+|api/(?:table|endpoint|binding)|errors)\.py"),
    ("relay, exchange", r"gateway/(?!__main__|server/serve)[\w/]+\.py"),
)
"""(layer, pattern of a frame's file). The innermost frame that has a layer decides, so that asyncio's timeouts count for their caller."""
LOOP = "event loop (uvloop, sockets' reads, tasks)"
WAITING = frozenset({"_worker (concurrent/futures/thread.py)", "Condition.wait (threading.py)", "wait (threading.py)"})
"""Where an idle thread waits; py-spy may take it for a busy one."""
_FRAME = re.compile(r"^(?P<function>.+) \((?P<file>[^()]+?)(?::(?P<line>\d+))?\)$")
_RULES = [(name, re.compile(r"(?:^|/)(?:" + pattern + ")")) for name, pattern in LAYERS]


def parse(raw: str) -> list[tuple[list[str], int]]:
    """Stacks, outermost frame first, with their number of samples; stacks of idle threads are left out."""
    lines = (line.rpartition(" ") for line in raw.splitlines() if line.strip())
    found = [(stack.split(";"), int(count)) for stack, _, count in lines]
    return [(stack, count) for stack, count in found if _without_line(stack[-1]) not in WAITING]


def layer(stack: Sequence[str]) -> str:
    """The layer of one stack."""
    return next((found for frame in reversed(stack) if (found := _layer_of(frame)) is not None), LOOP)


def by_layer(samples: Iterable[tuple[list[str], int]]) -> Counter[str]:
    """Number of samples of each layer."""
    counts: Counter[str] = Counter()
    for stack, count in samples:
        counts[layer(stack)] += count
    return counts


def by_function(samples: Iterable[tuple[list[str], int]]) -> Counter[str]:
    """Number of samples of each innermost Python function, with what it calls in C."""
    counts: Counter[str] = Counter()
    for stack, count in samples:
        counts[_without_line(stack[-1])] += count
    return counts


def inclusive(samples: Iterable[tuple[list[str], int]]) -> Counter[str]:
    """Number of samples with a function anywhere on the stack."""
    counts: Counter[str] = Counter()
    for stack, count in samples:
        for name in {_without_line(frame) for frame in stack}:
            counts[name] += count
    return counts


def _layer_of(frame: str) -> str | None:
    found = _FRAME.match(frame)
    if found is None:
        return None
    return next((name for name, rule in _RULES if rule.search(found["file"])), None)


def _without_line(frame: str) -> str:
    """`function (file)` without its line."""
    found = _FRAME.match(frame)
    return f"{found['function']} ({found['file']})" if found is not None else frame
