"""Every route x every credential x every way to send one: only the table's cells pass."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from gateway.table import ADMIN, DATA, Route
from tests.gateways import KEYS, Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROUTES = [*DATA, *ADMIN]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
CONTRACT = {
    "infer": """/v1/chat/completions /v1/completions /v1/responses /v1/embeddings /v1/rerank /v1/score /tokenize /detokenize /v1/messages
        /v1/models /v1/models/x /v1/chat/completions/x /v1/chat/completions/x/messages /v1/responses/x""",
    "feedback": "/v1/feedback",
    "operator": """/v1/files /v1/files/x /v1/fine_tuning/jobs /v1/fine_tuning/jobs/x /v1/fine_tuning/jobs/x/events
        /v1/fine_tuning/jobs/x/checkpoints /v1/fine_tuning/jobs/x/cancel /v1/fine_tuning/jobs/x/pause /v1/fine_tuning/jobs/x/resume
        /v1/fine_tuning/alpha/graders/validate /v1/fine_tuning/alpha/graders/run /v1/evals /v1/evals/x
        /admin/ledger /admin/policies /admin/policies/x /admin/policies/x/versions/1 /admin/policies/x/promote /admin/policies/x/rollback
        /admin/engines /admin/keys /admin/interactions /admin/erase /metrics""",
    "metrics": "/metrics",
}
"""The contract's routes by scope, written again: the table must agree with them."""

NOWHERE = [
    "/v1",
    "/v1/",
    "/v1/chat",
    "/v1/models/",
    "/v1/chat/completions/",
    "//v1/models",
    "/v1//models",
    "/V1/models",
    "/v1/models/x/y",
    "/v1/models/%2e%2e/x",
    "/docs",
    "/openapi.json",
    "/redoc",
    "/v1/chat/completions/x/y",
    "/v1/load_lora_adapter",
    "/v1/models/..%2f..%2fadmin",
    "/admin/ledger",
    "/metrics",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A gateway with no engine: nothing here needs an answer of one."""
    async with bench(tmp_path_factory.mktemp("door"), engines=0) as made:
        yield made


def url(made: Bench, path: str) -> str:
    known = {route.path for route in ADMIN}
    admin = path.startswith("/admin") or path in known
    return (made.admin if admin else made.url) + path


def concrete(route: Route) -> str:
    return re.sub(r"\{\w+\}", "x", route.path)


def code(answer: httpx.Response) -> str | None:
    return answer.json()["error"]["code"] if answer.status_code >= 400 else None


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_each_credential_passes_exactly_where_its_scope_is_named(door: Bench, route: Route) -> None:
    for method in sorted(route.built | route.planned):
        for name, (_, scopes) in KEYS.items():
            answer = await door.http.request(method, url(door, concrete(route)), headers={"authorization": f"Bearer rk-{name}"})
            if route.scopes and not route.scopes & set(scopes):
                assert (answer.status_code, code(answer)) == (403, "insufficient_permissions"), (method, name)
            elif method in route.planned:
                assert (answer.status_code, code(answer)) == (501, "not_implemented"), (method, name)
            else:
                assert answer.status_code not in (401, 403, 405, 500, 501), (method, name)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.scopes], ids=lambda route: route.path)
async def test_no_other_way_to_send_a_key_passes(door: Bench, route: Route) -> None:
    target = url(door, concrete(route))
    good = next(name for name, (_, scopes) in KEYS.items() if route.scopes & set(scopes))
    key = f"rk-{good}"
    ways: list[dict[str, dict[str, str]]] = [
        {},
        {"headers": {"authorization": ""}},
        {"headers": {"authorization": "Bearer"}},
        {"headers": {"authorization": key}},
        {"headers": {"authorization": f"Basic {key}"}},
        {"headers": {"authorization": f"Bearer {key}x"}},
        {"headers": {"authorization": f"Bearer {key} {key}"}},
        {"headers": {"authorization": f"Bearer {'k' * 10_000}"}},
        {"headers": {"api-key": key}},
        {"headers": {"x-operator-key": key}},
        {"cookies": {"authorization": f"Bearer {key}"}},
        {"params": {"api_key": key, "key": key, "access_token": key}},
    ]
    if route.path != "/v1/messages":
        ways.append({"headers": {"x-api-key": key}})
    method = sorted(route.built | route.planned)[0]
    for way in ways:
        request = door.http.build_request(method, target, headers=way.get("headers"), params=way.get("params"))
        if "cookies" in way:
            request.headers["cookie"] = "; ".join(f"{name}={value}" for name, value in way["cookies"].items())
        answer = await door.http.send(request)
        assert (answer.status_code, code(answer)) == (401, "invalid_api_key"), way


async def test_messages_also_takes_anthropics_header(door: Bench) -> None:
    answer = await door.http.post(door.url + "/v1/messages", headers={"x-api-key": "rk-infer"})
    assert answer.status_code == 501


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_a_method_the_table_does_not_name_is_405_after_the_scope(door: Bench, route: Route) -> None:
    good = next(name for name, (_, scopes) in KEYS.items() if not route.scopes or route.scopes & set(scopes))
    for method in set(METHODS) - route.built - route.planned:
        answer = await door.http.request(method, url(door, concrete(route)), headers={"authorization": f"Bearer rk-{good}"})
        assert answer.status_code == 405, method
        assert set(answer.headers["allow"].split(", ")) == route.built | route.planned
        if route.scopes:
            assert (await door.http.request(method, url(door, concrete(route)))).status_code == 401


@pytest.mark.parametrize(("scope", "path"), [(scope, path) for scope, paths in CONTRACT.items() for path in paths.split()])
async def test_the_contracts_routes_exist_under_their_scope(door: Bench, scope: str, path: str) -> None:
    key = {"infer": "infer", "feedback": "feedback", "operator": "operator", "metrics": "metrics"}[scope]
    answer = await door.http.put(url(door, path), headers={"authorization": f"Bearer rk-{key}"})
    assert answer.status_code == 405


@pytest.mark.parametrize("path", NOWHERE)
async def test_any_other_path_is_404_for_everybody(door: Bench, path: str) -> None:
    for key in (None, "client", "operator"):
        headers = {"authorization": f"Bearer rk-{key}"} if key is not None else {}
        answer = await door.http.get(httpx.URL(door.url).copy_with(raw_path=path.encode()), headers=headers)
        assert (answer.status_code, code(answer)) == (404, "unknown_url")


async def test_health_needs_no_key(door: Bench) -> None:
    assert (await door.call("GET", "/healthz", key=None)).status_code == 200
    assert (await door.call("GET", "/readyz", key=None)).status_code == 503


async def test_keys_and_prompts_stay_out_of_the_log(door: Bench) -> None:
    await door.chat("a secret of mine", foo="bar")
    await door.call("GET", "/v1/models", key="guessed-by-somebody")
    said = door.log()
    assert "rk-" not in said
    assert "a secret of mine" not in said
    assert "guessed" not in said
