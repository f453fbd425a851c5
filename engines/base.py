"""The seam between Ratchet and an inference engine: the few things asked of one, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ratchet.errors import ConfigError
from ratchet.types import EngineRecord


class Sample(msgspec.Struct, frozen=True):
    """One sampled continuation: `token_ids` [T] as drawn (the end token included), `logprobs` [T] in nats under the
    distribution they were drawn from, the decoded `text`, and why it ended (`stop`, `length`)."""

    token_ids: list[int]
    logprobs: list[float]
    text: str
    finish_reason: str | None


class Load(msgspec.Struct, frozen=True):
    """Sequences being decoded, sequences waiting, and how many the engine decodes at a time (0: it does not say)."""

    running: int
    waiting: int
    slots: int


class Engine(Protocol):
    """One replica. Every call raises EngineUnavailable (no connection, no answer), EngineRefused (an error status) or
    EngineBroken (an answer it must not give)."""

    record: EngineRecord

    def extras(self, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The top-level fields to lay over a request to `route` so that its answer carries ids, log-probs and usage.

        Empty where the engine's route cannot give them."""

    def headers(self, public_id: str) -> dict[str, str]:
        """The headers of a relayed request: the key, and the public id where the engine can take it over."""

    async def models(self) -> list[str]:
        """The names it answers to: its base first, then its adapters."""

    async def healthy(self) -> bool:
        """True once it has really generated a token; False if its kind is to give embeddings or scores, and it gave one.

        EngineUnavailable otherwise."""

    async def load_adapter(self, name: str, path: Path) -> None:
        """Serve the adapter at `path` (the engine's own view of the file system) as `name`; loaded already: success."""

    async def unload_adapter(self, name: str) -> None:
        """Stop serving `name`; requests in flight finish under it. Unknown: success."""

    async def generate(
        self,
        model: str,
        prompt_ids: Sequence[int],
        *,
        n: int = 1,
        max_tokens: int,
        temperature: float = 1.0,
        seed: int | None = None,
        priority: int = 0,
    ) -> list[Sample]:
        """`n` continuations of `prompt_ids`, unfiltered but for `temperature`. A higher `priority` waits for lower ones.

        EngineBroken if ids and log-probs do not pair up."""

    async def load(self) -> Load:
        """How busy it is."""

    async def close(self) -> None:
        """Close the connections."""


def connect(record: EngineRecord) -> Engine:
    """The adapter of `record.kind`. No connection is made yet. ConfigError for a kind that is not built."""
    # Imported here because the adapters import this module.
    from engines.vllm.control import VllmEngine

    if record.kind not in ("vllm", "fake"):  # the fake speaks vLLM's routes
        raise ConfigError(f"engine {record.name}: kind {record.kind!r} is not built yet")
    return VllmEngine(record)
