"""The configuration's fields, each with its unit and its reason. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ratchet.config.kinds import Algorithm, default_algorithm
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
    """A Hugging Face folder or hub id; `smollm2` alone names the built-in small model."""


class LoraConfig(Section):
    rank: int = Field(default=8, ge=1, le=256)
    """Rank r of the adapter's matrices; more learns more and costs more."""
    alpha: float = Field(default=16, gt=0)
    """Scale: the adapter's product is multiplied by alpha / rank."""
    target_modules: str | list[str] = "all-linear"
    """Linear layers that get an adapter."""


class MetricConfig(Section):
    type: Literal["float", "boolean", "comment", "demonstration", "preference"]
    """What its values are; a value of another type is 400."""
    min: float | None = None
    """Smallest value accepted; None: any finite one."""
    max: float | None = None
    """Largest value accepted; None: any finite one."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.type != "float" and (self.min is not None or self.max is not None):
            raise ValueError("only a float metric has min and max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


class PythonRewardConfig(Section):
    """A function `f(prompt: list[dict], answer: str) -> float` that scores one answer."""

    type: Literal["python"] = "python"
    """The kind of reward."""
    path: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:function`, importable by the learner."""
    weight: float = 1.0
    """Factor of this function's score in the sum of all."""


class ShadowConfig(Section):
    """Shadow groups: live prompts resampled when the engine has room, scored by `rewards`."""

    enabled: bool = True
    """Whether prompts are resampled at all."""
    group_size: int = Field(default=8, ge=2, le=64)
    """Answers a prompt."""
    max_tokens: int = Field(default=64, ge=1)
    """Tokens an answer; the recorded request's own limit where that is lower."""
    busy_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the engine's slots in use above which nothing is resampled."""


class ScheduleConfig(Section):
    min_groups: int = Field(default=4, ge=1)
    """Groups with a spread of rewards that make a step."""
    max_staleness: int = Field(default=4, ge=0)
    """Versions an answer may lag behind the live one and still be learned from."""
    automatic: bool = True
    """Whether steps start by themselves; else only `ratchet train`."""


class GateConfig(Section):
    heldout: str | None = None
    """JSONL of frozen prompts (`{"messages": [...]}` a line) scored by `rewards`; None: no held-out evaluation."""
    samples: int = Field(default=1, ge=1)
    """Answers a prompt."""
    max_tokens: int = Field(default=64, ge=1)
    """Tokens an answer."""
    margin: float = Field(default=0.05, ge=0)
    """How much lower than the live version's the mean reward may be."""
    max_kl: float | None = Field(default=None, gt=0)
    """Mean KL to the base, nats a token, above which a candidate is refused."""
    max_grad_norm: float = Field(default=1000.0, gt=0)
    """Gradient norm before clipping above which a step is refused."""
    probes: int = Field(default=4, ge=1)
    """Prompts of the activation proof."""


class PolicyConfig(Section):
    base: Name
    """A key of `models`."""
    lora: LoraConfig = LoraConfig()
    """The adapter's shape."""
    algorithm: Algorithm = Field(default_factory=default_algorithm)
    """How it learns."""
    metrics: dict[Name, MetricConfig] = {"reward": MetricConfig(type="float")}
    """What feedback may report, by name."""
    rewards: list[PythonRewardConfig] = []
    """Functions that score answers; their weighted sum is the reward."""
    shadow: ShadowConfig = ShadowConfig()
    """Groups made from live prompts."""
    schedule: ScheduleConfig = ScheduleConfig()
    """When a step starts, and from what."""
    gate: GateConfig = GateConfig()
    """What a candidate must pass before it goes live."""
    canary: Annotated[None, BeforeValidator(_no_canary)] = None
    """Not built yet: every verified candidate that passes its gate goes live at once."""
    seed: int = 0
    """Seed of everything random in its training: the same records and seed give the same adapter."""


class LearnerConfig(Section):
    threads: int = Field(default=1, ge=1)
    """CPU threads of the update; few, so that serving stays smooth. The same count repeats the same bytes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the update runs; `auto`: a GPU if there is one."""


class ArtifactsConfig(Section):
    url: Annotated[str, AfterValidator(_folder)] | None = None
    """A folder that several machines share (a path or file://), where adapters and checkpoints are put besides the data directory
    and fetched from where that lacks them. It must exist. None: the data directory alone."""

    @property
    def folder(self) -> Path | None:
        """`url` as a path."""
        return Path(self.url) if self.url is not None else None


class Config(Section):
    store: StoreConfig = StoreConfig()
    """Where everything is recorded."""
    gateway: GatewayConfig = GatewayConfig()
    """What clients and operators connect to."""
    engines: list[EngineConfig] = []
    """What generates."""
    models: dict[Name, ModelConfig] = {}
    """The base models, by the name clients use."""
    policies: dict[Name, PolicyConfig] = {}
    """What learns, by the name clients use."""
    learner: LearnerConfig = LearnerConfig()
    """How training uses the machine."""
    artifacts: ArtifactsConfig = ArtifactsConfig()
    """Where adapters and checkpoints are kept."""

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
            self._room_for_adapters(engine)
        return self

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
