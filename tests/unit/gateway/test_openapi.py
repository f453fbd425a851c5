"""The OpenAPI document against the table, the structs, and the routes as FastAPI knows them: each way."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.openapi.utils import get_openapi

from gateway.api.described import OPERATIONS
from gateway.api.openapi import document
from gateway.api.table import ADMIN, DATA
from gateway.app import admin_plane, data_plane
from gateway.services import Services
from ratchet.config import Config
from tests.support.stores import embedded_store

DOCUMENT = document()
METHODS = {"get", "post", "put", "patch", "delete"}


def operations(paths: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By method and path, names in the path left out."""
    return {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path)): told
        for path, item in paths.items()
        for method, told in item.items()
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
    assert len(OPERATIONS) == len(built)


def test_each_operation_asks_for_the_scopes_of_the_table() -> None:
    for route in (*DATA, *ADMIN):
        for method in route.built:
            told = DOCUMENT["paths"][route.path][method.lower()]
            assert {scope for way in told["security"] for scope in way["key"]} == route.scopes


@pytest.mark.parametrize(("place", "operation"), [(p, o) for p, o in OPERATIONS.items() if o.body is not None], ids=lambda p: p[1])
def test_each_body_has_the_fields_of_its_struct(place: tuple[str, str], operation: Any) -> None:
    method, path = place
    content = DOCUMENT["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]["schema"]
    schema = DOCUMENT["components"]["schemas"][content["$ref"].rsplit("/", 1)[-1]]
    fields = required(operation.body)
    assert set(schema["properties"]) == set(fields)
    assert set(schema.get("required", [])) == {name for name, needed in fields.items() if needed}
    assert schema["additionalProperties"] is False


def test_no_reference_leads_nowhere() -> None:
    named = set(re.findall(r"#/components/schemas/([\w.]+)", msgspec.json.encode(DOCUMENT).decode()))
    assert named <= set(DOCUMENT["components"]["schemas"])


async def test_query_parameters_and_routes_are_those_of_the_application(tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as store:
        services = Services(Config(), tmp_path, store)
        apps = [plane(services)._app for plane in (data_plane, admin_plane)]
        hot = {("POST", path) for _, path in data_plane(services)._hot}
        await services.stop()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for app in apps:
        found |= operations(get_openapi(title="x", version="x", routes=app.routes)["paths"])  # type: ignore[attr-defined]
    told = operations(DOCUMENT["paths"])
    assert set(found) | hot == set(told)
    for place, operation in found.items():
        theirs = {p["name"]: p["schema"] for p in operation.get("parameters", []) if p["in"] == "query"}
        ours = {p["name"]: p["schema"] for p in told[place].get("parameters", []) if p["in"] == "query"}
        assert set(theirs) == set(ours) - {"metadata"}, place  # metadata[key] is read by hand
        for name, schema in theirs.items():
            plain = next((option for option in schema.get("anyOf", ()) if option.get("type") != "null"), schema)
            kept = {key: plain[key] for key in plain if key not in ("title", "anyOf")}
            assert kept == ours[name], (place, name)
