"""The OpenAPI document against the routes, the structs, and what FastAPI says of the handlers: each way."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from gateway.api.endpoint import Endpoint
from gateway.api.openapi import document
from gateway.api.routes import ADMIN, DATA, PLANES

DOCUMENT = document(PLANES)
ENDPOINTS = [endpoint for endpoints in PLANES.values() for endpoint in endpoints]
METHODS = {"get", "post", "put", "patch", "delete"}


def operations(paths: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By method and path, names in the path left out."""
    return {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path)): operation
        for path, item in paths.items()
        for method, operation in item.items()
        if method in METHODS
    }


def required(form: Any) -> dict[str, bool]:
    """Whether each field of a form has to be given."""
    if issubclass(form, msgspec.Struct):
        return {field.encode_name: field.required for field in msgspec.structs.fields(form)}
    return {name: field.is_required() for name, field in form.model_fields.items()}


def test_the_document_has_each_built_route_and_no_other() -> None:
    built = {(method, re.sub(r"\{\w+\}", "{}", route.path)) for route in (*DATA, *ADMIN) for method in route.built}
    assert set(operations(DOCUMENT["paths"])) == built
    assert len(ENDPOINTS) == len(built)


def test_each_operation_asks_for_the_scopes_of_the_table() -> None:
    for route in (*DATA, *ADMIN):
        for method in route.built:
            operation = DOCUMENT["paths"][route.path][method.lower()]
            assert {scope for way in operation["security"] for scope in way["key"]} == route.scopes


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if one.body is not None], ids=lambda one: one.path)
def test_each_body_has_the_fields_of_its_struct_and_may_be_left_out_if_none_is_required(endpoint: Endpoint) -> None:
    body = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]["requestBody"]
    content = body["content"]["application/json"]["schema"]
    schema = DOCUMENT["components"]["schemas"][content["$ref"].rsplit("/", 1)[-1]]
    fields = required(endpoint.body)
    assert set(schema["properties"]) == set(fields)
    assert set(schema.get("required", [])) == {name for name, needed in fields.items() if needed}
    assert schema["additionalProperties"] is False
    assert body["required"] is any(fields.values())


def test_no_reference_leads_nowhere() -> None:
    named = set(re.findall(r"#/components/schemas/([\w.]+)", msgspec.json.encode(DOCUMENT).decode()))
    assert named <= set(DOCUMENT["components"]["schemas"])
