"""The OpenAPI 3.1 document of every built route: `GET /openapi.json`, docs/openapi.json.

Routes and scopes are the table's, bodies are the forms that check them; only summaries and query parameters are written here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.api.described import JSON, OPERATIONS, Form, Operation
from gateway.api.table import ADMIN, DATA, Route
from ratchet import __version__

PLACE = "#/components/schemas/{name}"
Forms = Mapping[type[Form], Mapping[str, Any]]
PLANES = {"data": DATA, "control": ADMIN}


class Fault(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | int | None


class Error(msgspec.Struct):
    """Every refusal."""

    error: Fault


def document() -> dict[str, Any]:
    """The document, made anew; JSON types only."""
    forms, schemas = _forms()
    paths = {route.path: _path(plane, route, forms) for plane, routes in PLANES.items() for route in routes if route.built}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ratchet gateway",
            "version": __version__,
            "description": "Paths tagged `control` are on the admin port. What is planned and not built is not in here: it answers 501.",
        },
        "tags": [{"name": "data", "description": "Clients' port."}, {"name": "control", "description": "Operators' port."}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _forms() -> tuple[Forms, dict[str, Any]]:
    """Where the schema of each body is, and all the schemas."""
    bodies = dict.fromkeys(operation.body for operation in OPERATIONS.values() if operation.body is not None)
    structs: list[type[Form]] = [Error, *(body for body in bodies if issubclass(body, msgspec.Struct))]
    references, schemas = msgspec.json.schema_components(structs, ref_template=PLACE)
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [(b, "validation") for b in bodies if issubclass(b, BaseModel)]
    theirs, defined = models_json_schema(models, ref_template=PLACE.format(name="{model}"))
    places: Forms = {**dict(zip(structs, references, strict=True)), **{model: theirs[model, mode] for model, mode in models}}
    return places, {**schemas, **defined["$defs"]}


def _path(plane: str, route: Route, forms: Forms) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", route.path)
    inside = [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in names]
    operations = {method.lower(): _operation(plane, route, OPERATIONS[method, route.path], forms) for method in sorted(route.built)}
    return {**({"parameters": inside} if inside else {}), **operations}


def _operation(plane: str, route: Route, operation: Operation, forms: Forms) -> dict[str, Any]:
    answers = {str(operation.status): {"description": "Success.", "content": {kind: {} for kind in operation.answers}}}
    told: dict[str, Any] = {"summary": operation.summary, "tags": [plane]}
    if operation.query:
        told["parameters"] = [_parameter(name, schema) for name, schema in operation.query.items()]
    if operation.body is not None:
        told["requestBody"] = {"required": operation.required, "content": {JSON: {"schema": forms[operation.body]}}}
    # Any refusal may come from any route: key, scope, body, limits.
    told["responses"] = {**answers, "default": {"description": "Refused.", "content": {JSON: {"schema": forms[Error]}}}}
    told["security"] = [{"key": [scope]} for scope in sorted(route.scopes)]
    return told


def _parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    deep = {"style": "deepObject", "explode": True} if schema.get("type") == "object" else {}
    return {"name": name, "in": "query", "required": False, "schema": schema, **deep}
