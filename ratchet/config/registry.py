"""Configuration models that other packages bring, by name: one for each kind of engine, one for each algorithm.

An installed package declares its models as entry points, so that this package imports neither engines nor algorithms:

    [project.entry-points."ratchet.algorithms"]
    mine = "my_package.mine:MineConfig"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from ratchet.config.algorithm import AlgorithmConfig
from ratchet.config.launch import LaunchConfig
from ratchet.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class Registry(Generic[Model]):
    """The models of one entry-point group. Each is imported on first use."""

    def __init__(self, group: str, base: type[Model], planned: tuple[str, ...] = ()) -> None:
        """`base`: what every model derives from. `planned`: names to refuse as not built yet."""
        self._group = group
        self._base = base
        self._planned = planned
        self._models: dict[str, type[Model]] = {}
        self._declared: dict[str, EntryPoint] | None = None

    def names(self) -> list[str]:
        """The names that may be used, in alphabetical order."""
        return sorted({*self._models, *self._entry_points()})

    def model(self, name: str) -> type[Model]:
        """The model called `name`. ValueError: there is none. ConfigError: it is declared and cannot be imported."""
        if name not in self._models:
            declared = self._entry_points().get(name)
            if declared is None:
                raise ValueError(self._unknown(name))
            self._models[name] = self._imported(declared)
        return self._models[name]

    def register(self, name: str, model: type[Model]) -> None:
        """Add a model by hand, in place of an entry point of that name."""
        self._models[name] = model

    def unregister(self, name: str) -> None:
        """Undo `register`."""
        self._models.pop(name, None)

    def json_schema(self, handler: Any) -> dict[str, Any]:
        """JSON Schema of a field that takes any of the models. `handler`: pydantic's, of the field's own schema."""
        options = [handler(self.model(name).__pydantic_core_schema__) for name in self.names()]
        return {"anyOf": options} if len(options) > 1 else options[0]

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._declared is None:
            self._declared = {found.name: found for found in entry_points(group=self._group)}
        return self._declared

    def _imported(self, declared: EntryPoint) -> type[Model]:
        try:
            model = declared.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{self._group}: {declared.name!r} ({declared.value}) cannot be imported: {error}") from error
        if not (isinstance(model, type) and issubclass(model, self._base)):
            raise ConfigError(f"{self._group}: {declared.name!r} ({declared.value}) is no {self._base.__name__}")
        return model

    def _unknown(self, name: str) -> str:
        known = ", ".join(map(repr, self.names()))
        return f"{name!r} is not built yet; use one of {known}" if name in self._planned else f"{name!r} is unknown; use one of {known}"


ENGINES = Registry("ratchet.engines", LaunchConfig, planned=("sglang", "lmdeploy", "llamacpp"))
"""Launch configuration by kind of engine."""
ALGORITHMS = Registry(
    "ratchet.algorithms",
    AlgorithmConfig,  # type: ignore[type-abstract]  # never instantiated itself
    planned=("bnpo", "dapo", "gspo", "sapo", "cispo", "rloo", "reinforce_pp", "chord", "dpo", "ipo", "kto"),
)
"""Configuration by algorithm (`type`)."""
