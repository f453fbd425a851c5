"""The OpenAPI document as it is served, and whether the gateway knows the fields that it names and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from gateway.api.openapi import document
from gateway.api.routes import PLANES
from tests.support.gateway_process import KEYS, Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
DOCUMENT = document(PLANES)
BODIES = sorted(
    (endpoint.method, endpoint.path)
    for endpoints in PLANES.values()
    for endpoint in endpoints
    if endpoint.body is not None and issubclass(endpoint.body, msgspec.Struct)
)
"""Those of pydantic's tell another fault first."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A gateway with no engine: no body here is good."""
    async with bench(tmp_path_factory.mktemp("gateway"), engines=0) as made:
        yield made


def fields(place: tuple[str, str]) -> set[str]:
    method, path = place
    reference = DOCUMENT["paths"][path][method.lower()]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return set(DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[-1]]["properties"])


def key(place: tuple[str, str]) -> str:
    method, path = place
    scopes = {scope for way in DOCUMENT["paths"][path][method.lower()]["security"] for scope in way["key"]}
    return next(name for name, (_, own) in KEYS.items() if scopes & set(own))


async def test_the_document_is_served_to_everybody(gateway: Bench) -> None:
    answer = await gateway.call("GET", "/openapi.json", key=None)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == DOCUMENT


@pytest.mark.parametrize("place", BODIES, ids=lambda place: place[1])
async def test_a_field_is_known_exactly_if_the_document_names_it(gateway: Bench, place: tuple[str, str]) -> None:
    method, path = place
    known = fields(place)
    foreign = {name for other in BODIES for name in fields(other)} - known
    for name in sorted(known) + sorted(foreign)[:10] + ["nobody_knows_it"]:
        # A value that fits no field but one that takes anything, so that the answer is about this key or what else is missing.
        answer = await gateway.call(method, path.replace("{id}", "x").replace("{name}", "x"), {name: {"?": [{}]}}, key=key(place))
        told: dict[str, Any] = answer.json()["error"]
        assert answer.status_code == 400, (name, told)
        assert (told["code"] == "unknown_parameter" and told["param"] == name) == (name not in known), (name, told)
