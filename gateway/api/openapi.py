"""The OpenAPI 3.1 document of every built endpoint, made of their declarations: `GET /openapi.json`, docs/openapi.json."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.api.endpoint import JSON, Endpoint, Form
from ratchet import __version__

REFERENCE = "#/components/schemas/{name}"
Forms = Mapping[type[Form], Mapping[str, Any]]


class Fault(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | int | None


class Error(msgspec.Struct):
    """Every refusal."""

    error: Fault


def document(planes: Mapping[str, Sequence[Endpoint]]) -> dict[str, Any]:
    """The document of these endpoints, by plane. It holds JSON types only."""
    endpoints = [endpoint for plane in planes.values() for endpoint in plane]
    forms, schemas = _forms(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for plane, found in planes.items():
        for endpoint in sorted(found, key=lambda one: one.method):
            item = paths.setdefault(endpoint.path, _path(endpoint.path))
            item[endpoint.method.lower()] = _operation(plane, endpoint, forms)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ratchet gateway",
            "version": __version__,
            "description": "Paths tagged `control` are on the admin port. Routes that are not built yet answer 501 and are left out.",
        },
        "tags": [{"name": "data", "description": "Clients' port."}, {"name": "control", "description": "Operators' port."}],
        "paths": {path: paths[path] for path in dict.fromkeys(endpoint.path for endpoint in endpoints)},
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _forms(endpoints: Iterable[Endpoint]) -> tuple[Forms, dict[str, Any]]:
    """References to the schemas of the bodies, and all schemas by name."""
    bodies = dict.fromkeys(endpoint.body for endpoint in endpoints if endpoint.body is not None)
    structs: list[type[Form]] = [Error, *(body for body in bodies if issubclass(body, msgspec.Struct))]
    references, schemas = msgspec.json.schema_components(structs, ref_template=REFERENCE)
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [(b, "validation") for b in bodies if issubclass(b, BaseModel)]
    theirs, defined = models_json_schema(models, ref_template=REFERENCE.format(name="{model}"))
    found: Forms = {**dict(zip(structs, references, strict=True)), **{model: theirs[model, mode] for model, mode in models}}
    return found, {**schemas, **defined["$defs"]}


def _path(path: str) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", path)
    inside = [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names]
    return {"parameters": inside} if inside else {}


def _operation(plane: str, endpoint: Endpoint, forms: Forms) -> dict[str, Any]:
    success = {str(endpoint.status): {"description": "Success.", "content": {kind: {} for kind in endpoint.media_types}}}
    operation: dict[str, Any] = {"summary": endpoint.summary, "tags": [plane]}
    if endpoint.query:
        operation["parameters"] = [_parameter(name, schema) for name, schema in endpoint.query.items()]
    if endpoint.body is not None:
        operation["requestBody"] = {"required": endpoint.body_required, "content": {JSON: {"schema": forms[endpoint.body]}}}
    # Any refusal may come from any route: key, scope, body, limits.
    operation["responses"] = {**success, "default": {"description": "Refused.", "content": {JSON: {"schema": forms[Error]}}}}
    operation["security"] = [{"key": [scope]} for scope in sorted(endpoint.scopes)]
    return operation


def _parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    deep = {"style": "deepObject", "explode": True} if schema.get("type") == "object" else {}
    return {"name": name, "in": "query", "required": False, "schema": schema, **deep}
