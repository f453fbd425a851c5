"""The records that the processes share: interactions, feedback, examples, versions, engines, keys.

They are msgspec structs, encoded as msgpack in the store and as JSON on the admin API. A new field comes at the end, with a default,
and none is renamed, so that stored records stay readable.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Status = Literal["complete", "truncated", "cancelled", "error"]
Desired = Literal["serve", "drain", "remove"]
MetricType = Literal["float", "boolean", "comment", "demonstration", "preference"]
ExampleKind = Literal["group", "lone", "pair", "demonstration", "episode", "comment"]
VersionState = Literal["candidate", "live", "retired", "refused", "rolled_back"]


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """The sampling parameters of an answer. Those that the request did not set have the engine's neutral defaults."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    seed: int | None = None


class Choice(msgspec.Struct):
    """One answer of an interaction.

    `token_ids` [T] are the ids exactly as the engine sampled them, and `logprobs` [T] the engine's log-probs (nats) under the
    distribution that it sampled from. Both are empty if the engine gave none; they are never padded. `message` is the assistant
    message that the client got.
    """

    index: int
    token_ids: list[int]
    logprobs: list[float]
    message: dict[str, Any]
    finish_reason: str | None = None


class Timings(msgspec.Struct, omit_defaults=True):
    """Durations in seconds since the request arrived, by the monotonic clock."""

    first_token: float | None = None
    total: float = 0.0


class Interaction(msgspec.Struct):
    """One answered request.

    `policy` is the name of a policy, or of a base if the request named one; `version` 0 is the base itself. `untrainable` is the
    reason why no policy gradient may learn from it (`top_p`, `no_ids`, ...), or "". `request` is the client's JSON body, parsed.
    `metric` is the metric that the policy learns from.
    """

    id: str
    tenant: str
    policy: str
    version: int
    base: str
    engine: str
    route: str
    created: float
    status: Status
    request: dict[str, Any]
    prompt_ids: list[int]
    choices: list[Choice]
    sampling: Sampling
    untrainable: str = ""
    metric: str = "reward"
    model: str = ""
    usage: dict[str, Any] = {}
    metadata: dict[str, str] = {}
    episode_id: str | None = None
    key_id: str = ""
    timings: Timings = msgspec.field(default_factory=Timings)
    response: dict[str, Any] | None = None
    """The answer that the client got, for a route whose answer is not a list of choices (`/v1/responses`)."""
    turn: int | None = None
    """Its index among the turns of its episode, which the store counts from 0; None without an episode."""

    @property
    def n(self) -> int:
        return len(self.choices)


class FeedbackPost(msgspec.Struct):
    """Feedback as the gateway accepted it, which has checked its form, metric and value. `type` is the metric's type."""

    tenant: str
    target: str
    metric: str
    value: Any
    choice: int = 0
    idempotency_key: str | None = None
    metadata: dict[str, Any] = {}
    key_id: str = ""
    type: MetricType = "float"


class Ledger(msgspec.Struct):
    """Counts of rewards. At every moment, received = used + pending + sum(rejected) + expired."""

    received: int = 0
    used: int = 0
    pending: int = 0
    rejected: dict[str, int] = {}
    expired: int = 0

    @property
    def balances(self) -> bool:
        return self.received == self.used + self.pending + sum(self.rejected.values()) + self.expired


class Signal(msgspec.Struct):
    """One feedback slot of an example: the value that was leased and the principal who gave it.

    A reward function's score has no `feedback` id, tenant or key. `value` is as posted: a number, a boolean, a text, or an
    object that names a preferred and a rejected answer.
    """

    target: str
    choice: int
    metric: str
    value: Any
    feedback: str = ""
    tenant: str = ""
    key_id: str = ""


class Example(msgspec.Struct):
    """The unit that a policy learns from: some interactions and the feedback on them.

    - `group`: one interaction of n > 1 choices and n signals, in the order of the choices. `shadow`: resampled, and scored by
      reward functions.
    - `lone`: one interaction and one number or boolean on one of its choices.
    - `pair`: the chosen interaction, the rejected one, and the preference.
    - `demonstration`, `comment`: one interaction and one text.
    - `episode`: the turns of a dialogue in order and one signal.
    """

    id: str
    kind: ExampleKind
    interactions: list[Interaction]
    signals: list[Signal]
    shadow: bool = False

    @property
    def rewards(self) -> list[float]:
        """The numeric values of the signals, in order; booleans are 1.0 and 0.0."""
        return [float(signal.value) for signal in self.signals if isinstance(signal.value, (bool, int, float))]


class Lease(msgspec.Struct):
    """Examples leased to one step of one policy, sorted by id. After a crash the same step gets the same lease."""

    policy: str
    step: int
    examples: list[Example]
    job: str = ""
    """The job (`registry.request_training`) that the lease took, or ""."""


class PolicyVersionRecord(msgspec.Struct):
    """One version of a policy in the registry.

    `path` is the adapter's folder relative to the data directory, `digest` the SHA-256 of its manifest; both are empty for
    version 0. `consumed` are the ids of the examples it learned from. `verdict` is the gate's report.
    """

    policy: str
    version: int
    state: VersionState
    created: float
    parent: int | None = None
    path: str = ""
    digest: str = ""
    step: int = 0
    checkpoint: str = ""
    consumed: list[str] = []
    reward: float | None = None
    kl: float | None = None
    verdict: dict[str, Any] = {}


class PolicyRecord(msgspec.Struct):
    """A policy and its live version. `epoch` increases by one at each move, so that readers can order events."""

    name: str
    base: str
    live: int = 0
    epoch: int = 0
    next_version: int = 1
    step: int = 0


class PolicyEvent(msgspec.Struct):
    """A candidate begins to load (`loading`), the pointer moved (`flip`), or a candidate was refused (`refused`).

    `live` is the live version after the event.
    """

    policy: str
    live: int
    epoch: int
    kind: Literal["loading", "flip", "refused"] = "flip"


class Heartbeat(msgspec.Struct):
    """What a gateway reports every second: its running requests by engine-side model name, and the epochs that it follows."""

    gateway: str
    inflight: dict[str, int] = {}
    epochs: dict[str, int] = {}
    engines: dict[str, int] = {}
    """Running requests by engine."""


class EngineRecord(msgspec.Struct):
    """An engine that may serve: where it is, and the state that its supervisor last reported.

    `slots` is the number of sequences that it decodes at a time (0: unknown, since Ratchet did not launch it). `weight` is its
    share of the requests, relative to other engines. `added`: an operator added it at run time. `desired` is what the operator
    wants: `drain` takes no new requests, `remove` also removes it when none is running. `pools`: it gives embeddings or scores and
    generates nothing, so it takes no adapter. `refused`: candidates that it could not be started with, if its kind takes
    adapters only at its start.
    """

    name: str
    kind: str
    model: str
    url: str
    served_name: str
    adapters_at: str | None = None
    api_key: str | None = None
    launched: bool = False
    restarts: int = 0
    state: Literal["starting", "ready", "down", "stopped"] = "ready"
    slots: int = 0
    weight: float = 1.0
    added: bool = False
    desired: Desired = "serve"
    pools: bool = False
    refused: list[str] = []


class KeyRecord(msgspec.Struct):
    """An API key. The key itself is not stored, only its SHA-256. `id` is public and safe to log.

    `models` are the names that it may request, as a client writes them; a policy's name includes its versions, and None means all.
    `rpm` and `tpm` are requests and tokens per minute and `concurrency` requests at a time, over all gateways; None means no limit.
    """

    id: str
    tenant: str
    scopes: list[str]
    created: float
    note: str = ""
    models: list[str] | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
