"""The seam between Ratchet and an inference engine. Everything known of one kind of engine is in one folder behind it.

Besides its launch configuration a kind has three parts: `EngineControl`, its control plane (asynchronous, one for each
replica); `EngineWire`, the form of its requests and answers (synchronous, without I/O, one for the kind); and the command line
that starts it. What a kind cannot do is refused with EngineUnsupported unless the kind overrides it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engines.types import Captured, Load, Meaning, Request, Sample, StreamCapture, Wants
from ratchet.config.launch import Brings
from ratchet.config.registry import ENGINES
from ratchet.errors import EngineUnsupported
from ratchet.types import EngineRecord, Sampling


class EngineControl(ABC):
    """The control plane of one replica.

    Every call may raise EngineUnavailable (no connection, no answer), EngineRefused (an error status), EngineBroken (a
    malformed answer) or EngineUnsupported (this kind cannot do that).
    """

    def __init__(self, record: EngineRecord) -> None:
        self.record = record

    @property
    def brings(self) -> Brings:
        """How a version of a policy gets onto the engine."""
        return ENGINES.model(self.record.kind).brings

    @abstractmethod
    async def models(self) -> list[str]:
        """The names it answers to: its base first, then its adapters."""

    @abstractmethod
    async def health(self) -> bool:
        """True once it has generated a token; False if it only gives embeddings or scores, and gave one.

        EngineUnavailable otherwise.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    async def load(self, name: str, path: Path) -> None:
        """Serve the adapter in the folder `path` (as this machine sees it) as `name`. Loaded already: success."""
        raise self._unsupported("load an adapter while it runs")

    async def unload(self, name: str) -> None:
        """Stop serving `name`; its running requests finish. Unknown: success."""
        raise self._unsupported("unload an adapter while it runs")

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
        """Sample `n` continuations of `prompt_ids` from softmax(logits / temperature), neither filtered nor penalised.

        Requests of a lower `priority` go first, where the engine has priorities. EngineBroken: ids and log-probs do not pair up.
        """
        raise self._unsupported("sample from token ids")

    async def metrics(self) -> Load:
        """How busy it is."""
        raise self._unsupported("say how busy it is")

    async def prompt_ids(self, route: str, fields: Mapping[str, Any], model: str) -> list[int]:
        """The token ids of a request's prompt; asked only if an answer's `Captured.lacks_prompt`."""
        raise self._unsupported("give the token ids of a prompt")

    def _unsupported(self, what: str) -> EngineUnsupported:
        return EngineUnsupported(f"engine {self.record.name}: {self.record.kind} cannot {what}")


class EngineWire(ABC):
    """The form of a kind's requests and answers. `route` is the path that the client asked for."""

    exact_routes: frozenset[str] = frozenset()
    """Routes whose answers carry the sampled ids and their log-probs, if they are asked for."""

    @abstractmethod
    def request(self, route: str, fields: Mapping[str, Any], *, model: str, public_id: str, record: bool) -> Request:
        """The request for the engine: the client's `fields` under the engine's name of the `model`.

        Sampling parameters that the client left out are sent with their neutral values where the engine's own defaults may
        differ. With `record`, ids, log-probs and usage are asked for. `public_id` becomes the answer's id where the engine can
        take it over. EngineUnsupported: this kind does not have the route, or cannot show what the client asks to see.
        """

    @abstractmethod
    def capture(self, route: str, wants: Wants, public_id: str, model: str) -> StreamCapture:
        """A reader of one streamed answer; the client is to see `public_id` and the name `model`."""

    @abstractmethod
    def whole(self, route: str, body: bytes, wants: Wants, public_id: str, model: str) -> tuple[bytes, Captured]:
        """An answer that is no stream: the body the client may see, and the record. EngineBroken: it is no answer."""

    @abstractmethod
    def meaning(self, status: int, headers: Mapping[str, str], body: bytes, model: str) -> Meaning:
        """What an answer with an error status means; `model` is the engine's own name of what was asked. Header names are in lower case."""

    def samples_truly(self, sampling: Sampling, *, launched: bool) -> str:
        """Why the log-probs are not those of softmax(logits / T), though the request filters and penalises nothing; "" if they are.

        `launched`: Ratchet started the engine, and so knows its settings.
        """
        return ""


class Machine(msgspec.Struct, frozen=True):
    """The machine that an engine is started on: whether it has a CUDA device, and the CPUs this process may use."""

    gpu: bool
    cpus: tuple[int, ...]


class Start(msgspec.Struct, frozen=True):
    """An engine to start: `launch` is the kind's own LaunchConfig, `served` the name for its base, `model` a folder or hub id.

    `adapters` are the folders to serve by name, for kinds that take them only at their start.
    """

    launch: Any
    served: str
    model: str
    host: str
    port: int
    machine: Machine
    adapters: Mapping[str, Path]


class Command(NamedTuple):
    """A command line, and what it needs in its environment besides Ratchet's own."""

    argv: list[str]
    env: dict[str, str]


def _no_command(start: Start) -> Command:
    raise EngineUnsupported("Ratchet cannot start engines of this kind; give its `url`")


@dataclass(frozen=True)
class EngineKind:
    """One kind of engine; what its LaunchConfig's `kind()` returns. `reserved`: flags that `launch.extra` may not set."""

    wire: EngineWire
    control: Callable[[EngineRecord], EngineControl]
    command: Callable[[Start], Command] = _no_command
    reserved: frozenset[str] = frozenset()
