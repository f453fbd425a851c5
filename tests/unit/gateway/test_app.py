"""What the application answers when one of its routes fails."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from gateway.app import admin_plane, data_plane
from gateway.services import Services
from ratchet.config import Config
from ratchet.errors import StoreError
from ratchet.types import KeyRecord
from tests.support.stores import TENANT, embedded_store, interaction

DIGEST = "8c6976e5b5410415bde908bd4dee15dfb167a9c873fc4bb8a81f6f2ab448a918"
"""sha256 of `admin`."""


@pytest.mark.parametrize(
    ("error", "status", "code", "told"),
    [(RuntimeError("a secret"), 500, "internal_error", None), (StoreError("a secret"), 503, "store_unavailable", "1")],
)
async def test_a_route_that_fails_answers_in_openais_shape_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, status: int, code: str, told: str | None
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
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers.get("retry-after")) == (status, code, told)
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
