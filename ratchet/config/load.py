"""Read the YAML, apply overrides from the environment, and report every error in one line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ratchet.config.algorithm import AlgorithmConfig
from ratchet.config.launch import LaunchConfig
from ratchet.config.model import Config
from ratchet.config.registry import ALGORITHMS, ENGINES, Registry
from ratchet.errors import ConfigError

PREFIX = "RATCHET_"
_CHOSEN: dict[type[BaseModel], Registry[Any]] = {LaunchConfig: ENGINES, AlgorithmConfig: ALGORITHMS}
"""Base models whose fields accept any model of a registry."""
BUILT_IN: dict[str, Any] = {
    "models": {"smollm2": {"path": "smollm2"}},
    "engines": [{"name": "local", "kind": "vllm", "model": "smollm2", "launch": {}}],
    "policies": {"assistant": {"base": "smollm2"}},
}
"""The configuration without `-c`: one small model, one policy, one local engine, the embedded store."""


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Return the configuration in `path`, or the built-in one if it is None, with overrides from the environment.

    `RATCHET_GATEWAY__PORT=9000` sets `gateway.port`. Values are read as YAML. Raises ConfigError with one line per error.
    """
    tree = _read(path) if path is not None else _copy(BUILT_IN)
    if path is not None:
        _anchor(tree, path.absolute().parent)
    _override(tree, os.environ if environ is None else environ)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, str(path or "built-in configuration")))) from None


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the YAML. Each model of a registry becomes a definition of its own."""
    described = Config.model_json_schema()
    titles = {model.__name__ for registry in _CHOSEN.values() for model in map(registry.model, registry.names())}
    definitions: dict[str, Any] = described["$defs"]
    for name in list(definitions):
        definitions[name] = _hoisted(definitions[name], titles, definitions)
    return described


def _hoisted(schema: Any, titles: set[str], definitions: dict[str, Any]) -> Any:
    """Return `schema` with each section whose title is in `titles` replaced by a reference; the section is added to `definitions`."""
    if isinstance(schema, list):
        return [_hoisted(item, titles, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("title") in titles and "properties" in schema:
        definitions[schema["title"]] = schema
        return {"$ref": f"#/$defs/{schema['title']}"}
    return {key: _hoisted(value, titles, definitions) for key, value in schema.items()}


def _copy(tree: Any) -> Any:
    return yaml.safe_load(yaml.safe_dump(tree))


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be a mapping")
    return tree


def _anchor(tree: dict[str, Any], folder: Path) -> None:
    """Make the relative paths in `tree` absolute: they are relative to the file's `folder`. A hub id that is no folder there stays."""
    for model in _mappings(tree.get("models")):
        if isinstance(path := model.get("path"), str) and path != "smollm2" and (folder / path).is_dir():
            model["path"] = str(folder / path)
    for policy in _mappings(tree.get("policies")):
        gate = policy.get("gate")
        if isinstance(gate, dict) and isinstance(heldout := gate.get("heldout"), str):
            gate["heldout"] = str(folder / heldout)
    artifacts = tree.get("artifacts")
    if isinstance(artifacts, dict) and isinstance(url := artifacts.get("url"), str) and url and "://" not in url:
        artifacts["url"] = str(folder / Path(url).expanduser())


def _mappings(section: Any) -> list[dict[str, Any]]:
    return [value for value in section.values() if isinstance(value, dict)] if isinstance(section, dict) else []


def _override(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    sections = set(Config.model_fields)
    for key in sorted(environ):
        steps = key.removeprefix(PREFIX).lower().split("__")
        if not key.startswith(PREFIX) or len(steps) < 2 or steps[0] not in sections:
            continue
        node: Any = tree
        for step in steps[:-1]:
            node = _step(node, step, key)
        if not isinstance(node, dict):
            raise ConfigError(f"{key}: does not name a field")
        node[steps[-1]] = yaml.safe_load(environ[key])


def _step(node: Any, step: str, key: str) -> Any:
    if isinstance(node, list):
        if not step.isdigit() or int(step) >= len(node):
            raise ConfigError(f"{key}: {step!r} is no position in the list")
        return node[int(step)]
    if not isinstance(node, dict):
        raise ConfigError(f"{key}: {step!r} is below a plain value")
    if node.get(step) is None:
        node[step] = {}
    return node[step]


def _explain(error: ValidationError, where: str) -> list[str]:
    lines = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"]) or "top level"
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(fault["loc"][-1]), _keys_at(fault["loc"][:-1]), n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            lines.append(f"{where}: {place}: unknown key{hint}")
        else:
            lines.append(f"{where}: {place}: {fault['msg'].removeprefix('Value error, ')}")
    return lines


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are valid at `loc`, by following the model classes in the annotations."""
    models: list[type[BaseModel]] = [Config]
    for part in loc:
        found = [m.model_fields[str(part)].annotation for m in models if str(part) in m.model_fields]
        if found:
            models = [m for annotation in found for m in _models_in(annotation)]
    return [key for model in models for key in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    for base, registry in _CHOSEN.items():
        if annotation is base:
            return [registry.model(name) for name in registry.names()]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models_in(part)]
