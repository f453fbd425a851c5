"""The shared records: request -> interaction -> reward -> example -> batch -> version.

They are msgspec structs, encoded as msgpack in the store and as JSON on the admin API. New fields are added at the
end, with a default; fields are never renamed.
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
    """The sampling parameters that were in force (the engine's neutral defaults where the request is silent)."""

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

    `token_ids` [T] are the sampled ids exactly as the engine drew them; `logprobs` [T] the engine's own log-prob
    (nats) of each under the distribution it sampled from. Both are empty when the engine gave none: never padded.
    `message` is the assistant message as the client saw it.
    """

    index: int
    token_ids: list[int]
    logprobs: list[float]
    message: dict[str, Any]
    finish_reason: str | None = None


class Timings(msgspec.Struct, omit_defaults=True):
    """Durations in seconds on the monotonic clock, from the request's arrival."""

    first_token: float | None = None
    total: float = 0.0


class Interaction(msgspec.Struct):
    """One answered request.

    `policy` is a policy's name, or the base's for a request to a base; `version` 0 is the base itself.
    `untrainable` is "" when a policy gradient may learn from it, else the reason (`top_p`, `no_ids`, ...).
    `request` is the client's JSON body, parsed. `metric` is the metric the policy learns from.
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
    """The answer as the client saw it, of a route whose answer is no list of choices (`/v1/responses`)."""
    turn: int | None = None
    """Its place among the turns of its episode, counted from 0 by the store; None where it has no episode."""

    @property
    def n(self) -> int:
        return len(self.choices)


class FeedbackPost(msgspec.Struct):
    """Feedback as accepted by the gateway, which has checked its form, metric and value. `type` is the type of the metric."""

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
    """Counts of rewards, each counted once: received = used + pending + sum(rejected) + expired, at every instant."""

    received: int = 0
    used: int = 0
    pending: int = 0
    rejected: dict[str, int] = {}
    expired: int = 0

    @property
    def balances(self) -> bool:
        return self.received == self.used + self.pending + sum(self.rejected.values()) + self.expired


class Signal(msgspec.Struct):
    """One feedback slot of an example: the leased value, and who gave it.

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
    """Examples taken for one step of one policy, sorted by id. Kept across a crash: the same step gets the same lease."""

    policy: str
    step: int
    examples: list[Example]
    job: str = ""
    """The id of the request for a step (`registry.request_training`) that the lease answers; "" if none."""


class PolicyVersionRecord(msgspec.Struct):
    """One version of a policy in the registry.

    `path` is the adapter's folder relative to the data directory, `digest` the sha256 of its manifest; both empty for
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
    """A policy's live pointer. `epoch` rises by one at each move, so that readers can order events."""

    name: str
    base: str
    live: int = 0
    epoch: int = 0
    next_version: int = 1
    step: int = 0


class PolicyEvent(msgspec.Struct):
    """Published on a policy's channel: a candidate begins loading (`loading`), the pointer moved (`flip`), or a
    candidate was refused (`refused`). `live` is the pointer after the event."""

    policy: str
    live: int
    epoch: int
    kind: Literal["loading", "flip", "refused"] = "flip"


class Heartbeat(msgspec.Struct):
    """A gateway's report, sent each second: requests in flight by engine-side model name, and the pointer epochs it follows."""

    gateway: str
    inflight: dict[str, int] = {}
    epochs: dict[str, int] = {}
    engines: dict[str, int] = {}
    """Requests in flight by engine."""


class EngineRecord(msgspec.Struct):
    """A replica that may serve: its address, and the state that its supervisor last reported.

    `slots` is the number of sequences it decodes at a time (0: unknown, because Ratchet did not launch it). `weight` is its
    share of the requests relative to other replicas. `added`: an operator added it at run time. `desired` is what the operator
    wants: with `drain` it takes no new requests, with `remove` it is also removed once none is in flight. `pools`: it gives
    embeddings or scores and does not generate, so it takes no adapter. `refused`: candidates that it could not be started with,
    if its kind takes adapters only at its start.
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
    """The record of an API key, of which only the sha256 is stored. `id` is public and safe to log.

    `models` are the names it may use, as a client writes them (a policy's name allows its versions too; None: all).
    `rpm` and `tpm` are requests and tokens a minute, `concurrency` requests at a time, over all gateways (None: no bound).
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
