"""The applications of both planes: their routes against what is declared, and what they answer when a route fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.openapi.utils import get_openapi

from gateway import app as application
from gateway.app import admin_plane, data_plane
from gateway.services import Services
from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet.types import KeyRecord
from tests.support.stores import TENANT, embedded_store, interaction
from tests.unit.gateway.test_openapi import DOCUMENT, operations

DIGEST = "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"
"""sha256 of `admin`."""


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [(RuntimeError("a secret"), 500, "internal_error", None), (StoreError("a secret"), 503, "store_unavailable", "1")],
)
async def test_a_route_that_fails_answers_in_openais_shape_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, status: int, code: str, retry_after: str | None
) -> None:
    async with embedded_store(tmp_path) as store:
        await store.keys.put(DIGEST, KeyRecord("one", "ops", ["operator"], 1.0))
        services = Services(Config(), tmp_path, store)

        async def fail() -> None:
            raise error

        store.feedback.ledger = fail  # type: ignore[method-assign,assignment]
        transport = httpx.ASGITransport(admin_plane(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            answer = await http.get("/admin/ledger", headers={"authorization": "Bearer admin"})
        await services.stop()
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers.get("retry-after")) == (status, code, retry_after)
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


async def test_an_empty_page_that_gave_up_tells_where_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratchet.buffer.interactions.LOOKED_AT", 1)
    async with embedded_store(tmp_path) as store:
        await store.keys.put(DIGEST, KeyRecord("one", TENANT, ["infer"], 1.0))
        items = [interaction() for _ in range(3)]
        await store.interactions.put(items)
        services = Services(Config(), tmp_path, store)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(data_plane(services)), base_url="http://gateway") as http:
            answer = await http.get("/v1/chat/completions?model=nobody", headers={"authorization": "Bearer admin"})
        await services.stop()
    assert answer.json() == {"object": "list", "data": [], "first_id": None, "last_id": items[-1].id, "has_more": True}


@pytest.mark.parametrize("missing", ["dialect", "route"])
async def test_an_inference_route_without_a_dialect_or_the_reverse_keeps_the_gateway_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    async with embedded_store(tmp_path) as store:
        services = Services(Config(), tmp_path, store)
        data_plane(services)
        if missing == "dialect":
            del services.dialects["/tokenize"]
        else:
            kept = tuple(one for one in application.INFERENCE if one.path != "/tokenize")
            monkeypatch.setattr(application, "INFERENCE", kept)
        with pytest.raises(RuntimeError, match="/tokenize"):
            data_plane(services)
        await services.stop()


async def test_query_parameters_and_routes_are_those_of_the_application(tmp_path: Path) -> None:
    async with embedded_store(tmp_path) as store:
        services = Services(Config(), tmp_path, store)
        apps = [plane(services)._app for plane in (data_plane, admin_plane)]
        direct = {("POST", path) for _, path in data_plane(services)._direct}
        await services.stop()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for app in apps:
        found |= operations(get_openapi(title="x", version="x", routes=app.routes)["paths"])  # type: ignore[attr-defined]
    documented = operations(DOCUMENT["paths"])
    assert set(found) | direct == set(documented)
    for place, operation in found.items():
        theirs = {p["name"]: p["schema"] for p in operation.get("parameters", []) if p["in"] == "query"}
        ours = {p["name"]: p["schema"] for p in documented[place].get("parameters", []) if p["in"] == "query"}
        assert set(theirs) == set(ours) - {"metadata"}, place  # metadata[key] is read by hand
        for name, schema in theirs.items():
            plain = next((option for option in schema.get("anyOf", ()) if option.get("type") != "null"), schema)
            kept = {key: plain[key] for key in plain if key not in ("title", "anyOf")}
            assert kept == ours[name], (place, name)
