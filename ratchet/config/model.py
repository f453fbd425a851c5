"""`Config`: the whole YAML. Every field's docstring gives its unit and its reason, and makes docs/configuration.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ratchet.config.kinds import Algorithm, default_algorithm
from ratchet.config.registry import ENGINES
from ratchet.config.section import Name, Section
from ratchet.config.serving import EngineConfig, GatewayConfig, StoreConfig


def _folder(text: str) -> str:
    path = text.removeprefix("file://")
    if "://" in path or not path:
        raise ValueError("a folder that several machines share, such as /mnt/ratchet; other kinds of URL are not built yet")
    return str(Path(path).expanduser().absolute())


def _no_canary(value: Any) -> None:
    if value is not None:
        raise ValueError("is not built yet; remove it")


class ModelConfig(Section):
    path: str
    """A Hugging Face folder or hub id. `smollm2` is the built-in small model."""


class LoraConfig(Section):
    rank: int = Field(default=8, ge=1, le=256)
    """Rank r of the adapter's matrices. A higher rank can learn more and costs more."""
    alpha: float = Field(default=16, gt=0)
    """Scale: the product of the adapter's matrices is multiplied by alpha / rank."""
    target_modules: str | list[str] = "all-linear"
    """Linear layers that get an adapter."""


class MetricConfig(Section):
    type: Literal["float", "boolean", "comment", "demonstration", "preference"]
    """Type of the metric's values. Feedback with a value of another type gets 400."""
    min: float | None = None
    """Smallest value accepted. Null: any finite number."""
    max: float | None = None
    """Largest value accepted. Null: any finite number."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.type != "float" and (self.min is not None or self.max is not None):
            raise ValueError("only a float metric has min and max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


class PythonRewardConfig(Section):
    """A function `f(prompt: list[dict], answer: str) -> float` that scores one response."""

    type: Literal["python"] = "python"
    """The kind of reward function."""
    path: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`. The learner imports it."""
    weight: float = 1.0
    """Factor by which the score is multiplied in the sum of all functions."""


class ShadowConfig(Section):
    """Shadow groups: while an engine has capacity, recorded prompts are sampled again several times and scored by `rewards`."""

    enabled: bool = True
    """Whether to make shadow groups."""
    group_size: int = Field(default=8, ge=2, le=64)
    """Responses per prompt."""
    max_tokens: int = Field(default=64, ge=1)
    """Tokens per response. If the recorded request had a lower limit, that one applies."""
    busy_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the engine's slots that may be in use. Above this, no shadow groups are sampled."""


class ScheduleConfig(Section):
    min_groups: int = Field(default=4, ge=1)
    """Groups that a step needs. Groups whose rewards are all equal do not count."""
    max_staleness: int = Field(default=4, ge=0)
    """How many versions older than the live one a response may be and still be learned from."""
    automatic: bool = True
    """Whether steps start automatically. Otherwise only `ratchet train` starts them."""


class GateConfig(Section):
    heldout: str | None = None
    """JSONL file of held-out prompts, one `{"messages": [...]}` per line. Responses are scored by `rewards`. Null: no held-out
    evaluation."""
    samples: int = Field(default=1, ge=1)
    """Responses per held-out prompt."""
    max_tokens: int = Field(default=64, ge=1)
    """Tokens per response to a held-out prompt."""
    margin: float = Field(default=0.05, ge=0)
    """By how much the candidate's mean reward may be below the live version's."""
    max_kl: float | None = Field(default=None, gt=0)
    """Highest mean KL divergence from the base, in nats per token. Above this, a candidate is refused. Null: no limit."""
    max_grad_norm: float = Field(default=1000.0, gt=0)
    """Highest gradient norm before clipping. Above this, a step is refused."""
    probes: int = Field(default=4, ge=1)
    """Number of prompts that prove that an engine really applies the adapter."""


class PolicyConfig(Section):
    base: Name
    """The base model: a key of `models`."""
    lora: LoraConfig = LoraConfig()
    """Shape of the adapter."""
    algorithm: Algorithm = Field(default_factory=default_algorithm)
    """The learning algorithm and its parameters."""
    metrics: dict[Name, MetricConfig] = {"reward": MetricConfig(type="float")}
    """Metrics that feedback may report, by name."""
    rewards: list[PythonRewardConfig] = []
    """Functions that score responses. Their weighted sum is the reward."""
    shadow: ShadowConfig = ShadowConfig()
    """Shadow groups: recorded prompts that are sampled again."""
    schedule: ScheduleConfig = ScheduleConfig()
    """When a training step starts, and what it may learn from."""
    gate: GateConfig = GateConfig()
    """Checks that a candidate must pass before it goes live."""
    canary: Annotated[None, BeforeValidator(_no_canary)] = None
    """Not built yet: every verified candidate that passes its gate goes live at once."""
    seed: int = 0
    """Seed of everything random in training. The same records and the same seed give the same adapter."""


class LearnerConfig(Section):
    threads: int = Field(default=1, ge=1)
    """CPU threads for the update. Few by default, so that serving is not slowed down. A different number can change the adapter's
    last bits."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the update runs. `auto`: on a GPU if there is one."""


class ArtifactsConfig(Section):
    url: Annotated[str, AfterValidator(_folder)] | None = None
    """A folder that several machines share: a path or file://. It must exist. Adapters and checkpoints are written to the data
    directory and to this folder; a machine that lacks one fetches it from here. Null: only the data directory."""

    @property
    def folder(self) -> Path | None:
        """Return `url` as a path."""
        return Path(self.url) if self.url is not None else None


class Config(Section):
    store: StoreConfig = StoreConfig()
    """Where interactions, feedback and versions are stored."""
    gateway: GatewayConfig = GatewayConfig()
    """What clients and operators connect to."""
    engines: list[EngineConfig] = []
    """The inference engines."""
    models: dict[Name, ModelConfig] = {}
    """The base models, by the names that clients use."""
    policies: dict[Name, PolicyConfig] = {}
    """The policies: models that learn, by the names that clients use."""
    learner: LearnerConfig = LearnerConfig()
    """How much of the machine training may use."""
    artifacts: ArtifactsConfig = ArtifactsConfig()
    """Where adapters and checkpoints are stored."""

    @model_validator(mode="after")
    def _names_meet(self) -> Self:
        _unique([e.name for e in self.engines], "engines")
        for engine in self.engines:
            _known(engine.model, self.models, f"engines.{engine.name}.model")
        for name, policy in self.policies.items():
            _known(policy.base, self.models, f"policies.{name}.base")
            if name in self.models:
                raise ValueError(f"policies.{name}: a model has that name too; rename one")
            if policy.algorithm.metric not in policy.metrics:
                raise ValueError(f"policies.{name}.algorithm.metric: {policy.algorithm.metric!r} is not in its metrics")
            if policy.gate.heldout is not None and not policy.rewards:
                raise ValueError(f"policies.{name}.gate.heldout needs `rewards` to score the answers")
        for name in self.gateway.routing.fallback:
            if name not in self.policies:
                raise ValueError(f"gateway.routing.fallback: no policy named {name!r} in `policies`")
        for engine in self.engines:
            self.check_brings(engine)
            self._room_for_adapters(engine)
        return self

    def check_brings(self, engine: EngineConfig) -> None:
        """ValueError: the policies of its model could never get a version onto the engine."""
        policies = [name for name, policy in self.policies.items() if policy.base == engine.model]
        brings = ENGINES.model(engine.kind).brings
        if not policies or brings == "load" or (brings == "restart" and engine.launch is not None):
            return
        if brings == "weights":
            why = "takes a new version only as merged weights, which is not built yet"
        else:
            why = "takes adapters only when it is started, so that Ratchet has to launch it (`launch` in place of `url`)"
        raise ValueError(f"engines.{engine.name}: {engine.kind} {why}; policies.{policies[0]} is served by it")

    def _room_for_adapters(self, engine: EngineConfig) -> None:
        if engine.launch is None or not engine.launch.takes_adapters:
            return
        served = [p for p in self.policies.values() if p.base == engine.model]
        needed = sum(p.schedule.max_staleness + 2 for p in served)
        if engine.launch.max_loras < needed:
            raise ValueError(
                f"engines.{engine.name}.launch.max_loras is {engine.launch.max_loras}; its policies need {needed} "
                "(max_staleness + 2 each), or a request could wait for room"
            )
        for name, policy in self.policies.items():
            if policy.base == engine.model and policy.lora.rank > engine.launch.max_lora_rank:
                raise ValueError(
                    f"policies.{name}.lora.rank is above engines.{engine.name}.launch.max_lora_rank ({engine.launch.max_lora_rank})"
                )


def _unique(values: list[str], where: str) -> None:
    twice = {v for v in values if values.count(v) > 1}
    if twice:
        raise ValueError(f"{where}: the name {sorted(twice)[0]!r} is used twice")


def _known(name: str, among: dict[str, ModelConfig], where: str) -> None:
    if name not in among:
        raise ValueError(f"{where}: no model named {name!r} in `models`")
