"""Fields whose model is chosen by name from a registry: an engine's `launch` by its `kind`, a policy's `algorithm` by its `type`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler, SerializeAsAny, ValidationInfo

from ratchet.config.algorithm import AlgorithmConfig
from ratchet.config.launch import LaunchConfig
from ratchet.config.registry import ALGORITHMS, ENGINES, Registry

DEFAULT_ALGORITHM = "grpo"


@dataclass(frozen=True)
class _AnyOf:
    """The JSON Schema of a field that takes any model of a registry."""

    registry: Registry[Any]

    def __get_pydantic_json_schema__(self, _: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return self.registry.json_schema(handler)


def _engine_kind(name: str) -> str:
    ENGINES.model(name)
    return name


def _launch_of_kind(value: Any, info: ValidationInfo) -> Any:
    kind = info.data.get("kind")
    if kind is None:
        return LaunchConfig()  # the error in `kind` is reported separately
    return ENGINES.model(kind).model_validate(value)


def _algorithm_of_type(value: Any) -> Any:
    if isinstance(value, AlgorithmConfig):
        return value
    if not isinstance(value, dict):
        raise ValueError("is a mapping with a `type`")
    return ALGORITHMS.model(str(value.get("type", DEFAULT_ALGORITHM))).model_validate(value)


def default_algorithm() -> AlgorithmConfig:
    """The algorithm of a policy that names none, with its defaults."""
    return ALGORITHMS.model(DEFAULT_ALGORITHM).model_validate({})


EngineKindName = Annotated[str, BeforeValidator(_engine_kind)]
Launch = Annotated[SerializeAsAny[LaunchConfig], BeforeValidator(_launch_of_kind), _AnyOf(ENGINES)]
Algorithm = Annotated[SerializeAsAny[AlgorithmConfig], BeforeValidator(_algorithm_of_type), _AnyOf(ALGORITHMS)]
