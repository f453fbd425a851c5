"""The names that a client may put in `model`, and the version that each means at present."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gateway.errors import no_model
from ratchet import names
from ratchet.adapters import engine_name
from ratchet.clock import wall
from ratchet.config import Config, MetricConfig
from ratchet.types import PolicyRecord, PolicyVersionRecord

BASE_METRICS = {"reward": MetricConfig(type="float")}


class Target(NamedTuple):
    """What answers a request: a base model (`policy` is "" and `version` 0), or one version of a policy."""

    base: str
    policy: str = ""
    version: int = 0

    @property
    def adapter(self) -> str | None:
        """The engine-side name of its adapter; None if the base itself answers."""
        return engine_name(self.policy, self.version) if self.version else None

    @property
    def label(self) -> str:
        """The value of `x-ratchet-policy`: `support@7`, or `base`."""
        return str(names.PolicyVersion(self.policy, self.version)) if self.policy else "base"

    @property
    def model(self) -> str:
        """The `model` in the answer."""
        return self.label if self.policy else self.base

    @property
    def owner(self) -> str:
        """The name that an interaction is recorded under: the policy's, or the base's."""
        return self.policy or self.base


class Model(NamedTuple):
    """One entry of `GET /v1/models`."""

    id: str
    base: str
    created: float


class Catalog:
    """The configured names, and the live pointers as last received. Every lookup is local."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._started = wall()
        self._pointers: dict[str, PolicyRecord] = {name: PolicyRecord(name, p.base) for name, p in config.policies.items()}
        self._retained: dict[str, dict[int, PolicyVersionRecord]] = {name: {} for name in config.policies}
        self.swapping: set[str] = set()
        """Policies whose next version is being loaded."""

    @property
    def epochs(self) -> dict[str, int]:
        return {name: pointer.epoch for name, pointer in self._pointers.items()}

    def pointer(self, policy: str) -> PolicyRecord | None:
        return self._pointers.get(policy)

    def keep(self, policy: str) -> int:
        """Return the number of versions kept on the engines besides the live one."""
        return self._config.policies[policy].schedule.max_staleness

    def retained(self, policy: str) -> dict[int, PolicyVersionRecord]:
        """Return the versions that have an adapter and may be pinned."""
        return self._retained.get(policy, {})

    def move(self, policy: str, live: int, epoch: int) -> bool:
        """Move the pointer. False if `epoch` is not newer than the known one."""
        known = self._pointers[policy]
        if epoch <= known.epoch:
            return False
        self._pointers[policy] = PolicyRecord(policy, known.base, live, epoch)
        return True

    def retain(self, policy: str, versions: Iterable[PolicyVersionRecord]) -> None:
        self._retained[policy] = {record.version: record for record in versions}

    def previous(self, policy: str) -> int | None:
        """Return the retained version that was live before the present one and was not rolled back, or None."""
        live = self._pointers[policy].live
        return next((v for v, record in self._retained[policy].items() if v != live and record.state == "retired"), None)

    def is_live(self, target: Target) -> bool:
        """Whether `target` is the live version of its policy."""
        pointer = self._pointers.get(target.policy)
        return pointer is not None and pointer.live == target.version

    def good(self, target: Target) -> bool:
        """Whether `target` is the base, or a retained version that was not rolled back."""
        record = self.retained(target.policy).get(target.version)
        return target.version == 0 or (record is not None and record.state in ("live", "retired"))

    def resolve(self, name: str) -> Target:
        """Return the target that `name` means now. Raises ApiError 404 if the name is unknown."""
        if name in self._config.models:
            return Target(name)
        pointer = self._pointers.get(name)
        if pointer is not None:
            return Target(pointer.base, name, pointer.live)
        pinned = names.parse_version(name)
        if pinned is None or pinned.policy not in self._pointers or not self._may_pin(*pinned):
            raise no_model(name)
        return Target(self._pointers[pinned.policy].base, *pinned)

    def models(self) -> list[Model]:
        """Return the bases, the policies, and the versions of each policy that may be pinned."""
        found = [Model(name, name, self._started) for name in self._config.models]
        for policy, pointer in self._pointers.items():
            found += [Model(policy, pointer.base, self._started), Model(engine_name(policy, 0), pointer.base, self._started)]
            versions = sorted(self._retained[policy].items())
            found += [Model(engine_name(policy, version), pointer.base, record.created) for version, record in versions]
        return found

    def metric(self, owner: str) -> str:
        """Return the name of the metric that the learner of `owner` learns from."""
        policy = self._config.policies.get(owner)
        return policy.algorithm.metric if policy is not None else "reward"

    def metrics(self, owner: str) -> dict[str, MetricConfig]:
        """Return the metrics declared for a policy or a base."""
        policy = self._config.policies.get(owner)
        return policy.metrics if policy is not None else BASE_METRICS

    def declarations(self, metric: str) -> list[MetricConfig]:
        """Every declaration of a metric: the policies' own, else the bases'."""
        own = [p.metrics[metric] for p in self._config.policies.values() if metric in p.metrics]
        return own or [m for name, m in BASE_METRICS.items() if name == metric]

    def _may_pin(self, policy: str, version: int) -> bool:
        return version == 0 or version in self._retained[policy] or version == self._pointers[policy].live
