"""Every route x every credential x every way to send one: only the table's cells pass."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, NamedTuple

import aiohttp
import httpx
import pytest
import pytest_asyncio
from multidict import CIMultiDict

from gateway.api.routes import ADMIN, DATA
from gateway.api.table import Route
from ratchet import keys, names
from ratchet.types import KeyRecord
from tests.support.gateway_process import KEYS, Bench, bench
from tests.support.stores import interaction

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
    "/redoc",
    "/v1/chat/completions/x/y",
    "/v1/load_lora_adapter",
    "/v1/models/..%2f..%2fadmin",
    "/admin/ledger",
    "/metrics",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A gateway with no engine (nothing here needs an answer of one), which knew the key `revoked` once."""
    async with bench(tmp_path_factory.mktemp("gateway"), engines=0) as made:
        everything = sorted(scope for _, scopes in KEYS.values() for scope in scopes)
        await made.store.keys.put(keys.digest("rk-revoked"), KeyRecord("revoked", "acme", everything, 1.0))
        assert (await made.call("GET", "/v1/models", key="revoked")).status_code == 200
        assert (await made.call("DELETE", "/admin/keys/revoked", key="operator")).status_code == 200
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """Many connections, no cookies of its own."""
    connector = aiohttp.TCPConnector(limit=16)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def url(made: Bench, path: str) -> str:
    known = {route.path for route in ADMIN}
    admin = path.startswith("/admin") or path in known
    return (made.admin if admin else made.url) + path


def concrete(route: Route) -> str:
    return re.sub(r"\{\w+\}", "x", route.path)


def code(answer: httpx.Response) -> str | None:
    return answer.json()["error"]["code"] if answer.status_code >= 400 else None


class Way(NamedTuple):
    """One way to send a key. `honoured`: by every route, by `/v1/messages` alone, or by none."""

    name: str
    send: Callable[[str], dict[str, Any]]
    honoured: Literal["everywhere", "messages", "nowhere"] = "nowhere"


def headers(*rows: tuple[str, str]) -> dict[str, Any]:
    return {"headers": CIMultiDict(rows)}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


WAYS = [
    Way("Bearer", lambda key: headers(("authorization", f"Bearer {key}")), "everywhere"),
    Way("bearer", lambda key: headers(("authorization", f"bearer {key}")), "everywhere"),
    Way("BEARER", lambda key: headers(("AUTHORIZATION", f"BEARER {key}")), "everywhere"),
    Way("beside another header's", lambda key: headers(("authorization", f"Bearer {key}"), ("x-api-key", "rk-bad")), "everywhere"),
    Way("x-api-key", lambda key: headers(("x-api-key", key)), "messages"),
    Way("x-api-key beside Basic", lambda key: headers(("x-api-key", key), ("authorization", basic("", key))), "messages"),
    Way("x-api-key beside a bad Bearer", lambda key: headers(("x-api-key", key), ("authorization", "Bearer rk-bad"))),
    Way("x-api-key twice", lambda key: headers(("x-api-key", key), ("x-api-key", "rk-bad"))),
    Way("Basic, as the password", lambda key: headers(("authorization", basic("", key)))),
    Way("Basic, as the user", lambda key: headers(("authorization", basic(key, "")))),
    Way("Basic, bare", lambda key: headers(("authorization", f"Basic {key}"))),
    Way("no scheme", lambda key: headers(("authorization", key))),
    Way("two keys in one", lambda key: headers(("authorization", f"Bearer {key} {key}"))),
    Way("more than the key", lambda key: headers(("authorization", f"Bearer {key}x"))),
    Way("far more", lambda key: headers(("authorization", f"Bearer {key}{'k' * 4000}"))),
    Way("twice, the good one first", lambda key: headers(("authorization", f"Bearer {key}"), ("authorization", "Bearer rk-bad"))),
    Way("twice, the good one last", lambda key: headers(("authorization", "Bearer rk-bad"), ("authorization", f"Bearer {key}"))),
    Way("twice the same", lambda key: headers(("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}"))),
    Way("other headers", lambda key: headers(*((name, key) for name in ("api-key", "x-operator-key", "proxy-authorization", "x-key")))),
    Way("cookie", lambda key: headers(("cookie", f"authorization=Bearer {key}; api_key={key}"))),
    Way("query", lambda key: {"params": {"api_key": key, "key": key, "access_token": key, "authorization": f"Bearer {key}"}}),
]
NOBODY = ("none", "bad", "revoked")
"""Credentials that are nobody's, besides KEYS."""


def expected(route: Route, method: str, name: str, way: Way) -> tuple[int, str] | None:
    """The cell's status and code; None: it passes."""
    heard = way.honoured == "everywhere" or (way.honoured == "messages" and route.path == "/v1/messages")
    if route.scopes and (not heard or name in NOBODY):
        return 401, "invalid_api_key"
    if route.scopes and not route.scopes & set(KEYS[name][1]):
        return 403, "insufficient_permissions"
    return (501, "not_implemented") if method in route.planned else None


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_only_the_tables_cells_pass(gateway: Bench, client: aiohttp.ClientSession, route: Route) -> None:
    async def cell(method: str, name: str, way: Way) -> tuple[Any, ...] | None:
        sent = way.send("" if name == "none" else f"rk-{name}")
        async with client.request(method, url(gateway, concrete(route)), **sent) as answer:
            wanted, status = expected(route, method, name, way), answer.status
            if wanted is None:
                right = status not in (401, 403, 405, 500, 501, 502, 504)
            else:
                right = (status, (await answer.json())["error"]["code"]) == wanted
            return None if right else (method, name, way.name, status, wanted)

    cells = itertools.product(sorted(route.built | route.planned), [*NOBODY, *KEYS], WAYS)
    wrong = [found for found in await asyncio.gather(*(cell(*at) for at in cells)) if found is not None]
    assert not wrong


OWNED = [route for route in DATA if "{id}" in route.path and "infer" in route.scopes and not route.path.startswith("/v1/models")]
"""Routes of what belongs to a tenant."""
CHANGE = {"metadata": {"a": "b"}}
"""A body that is in order for whoever may."""


@pytest.mark.parametrize("route", OWNED, ids=lambda route: route.path)
async def test_anothers_id_is_404_as_one_that_never_was(gateway: Bench, route: Route) -> None:
    prefix = "resp_" if route.path.startswith("/v1/responses") else names.CHAT_PREFIX
    theirs = interaction(id=names.mint(prefix), tenant=KEYS["client"][0])
    await gateway.store.interactions.put([theirs])
    for method in sorted(route.built):
        told = []
        for item in (theirs.id, names.mint(prefix)):
            answer = await gateway.call(method, route.path.replace("{id}", item), CHANGE if method == "POST" else None, key="other")
            assert answer.status_code == 404, method
            told.append(answer.text.replace(item, "ID"))
        assert told[0] == told[1]
    assert await gateway.store.interactions.get(theirs.id, KEYS["client"][0]) == theirs


async def test_anothers_answer_takes_no_feedback(gateway: Bench) -> None:
    theirs = interaction(tenant=KEYS["client"][0])
    await gateway.store.interactions.put([theirs])
    for tenant, status in (("other", 404), ("feedback", 202)):
        answer = await gateway.call("POST", "/v1/feedback", {"target": theirs.id, "value": 1}, key=tenant)
        assert answer.status_code == status


async def test_messages_also_takes_anthropics_header(gateway: Bench) -> None:
    answer = await gateway.http.post(gateway.url + "/v1/messages", headers={"x-api-key": "rk-infer"})
    assert answer.status_code == 400  # let in, and asked for a body


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_a_method_the_table_does_not_name_is_405_after_the_scope(gateway: Bench, route: Route) -> None:
    good = next(name for name, (_, scopes) in KEYS.items() if not route.scopes or route.scopes & set(scopes))
    for method in set(METHODS) - route.built - route.planned:
        answer = await gateway.http.request(method, url(gateway, concrete(route)), headers={"authorization": f"Bearer rk-{good}"})
        assert answer.status_code == 405, method
        assert set(answer.headers["allow"].split(", ")) == route.built | route.planned
        if route.scopes:
            assert (await gateway.http.request(method, url(gateway, concrete(route)))).status_code == 401


@pytest.mark.parametrize(("scope", "path"), [(scope, path) for scope, paths in CONTRACT.items() for path in paths.split()])
async def test_the_contracts_routes_exist_under_their_scope(gateway: Bench, scope: str, path: str) -> None:
    key = {"infer": "infer", "feedback": "feedback", "operator": "operator", "metrics": "metrics"}[scope]
    answer = await gateway.http.put(url(gateway, path), headers={"authorization": f"Bearer rk-{key}"})
    assert answer.status_code == 405


@pytest.mark.parametrize("path", NOWHERE)
async def test_any_other_path_is_404_for_everybody(gateway: Bench, path: str) -> None:
    for key in (None, "client", "operator"):
        headers = {"authorization": f"Bearer rk-{key}"} if key is not None else {}
        answer = await gateway.http.get(httpx.URL(gateway.url).copy_with(raw_path=path.encode()), headers=headers)
        assert (answer.status_code, code(answer)) == (404, "unknown_url")


async def test_health_needs_no_key(gateway: Bench) -> None:
    assert (await gateway.call("GET", "/healthz", key=None)).status_code == 200
    assert (await gateway.call("GET", "/readyz", key=None)).status_code == 503


async def test_keys_and_prompts_stay_out_of_the_log(gateway: Bench) -> None:
    await gateway.chat("a secret of mine", foo="bar")
    await gateway.call("GET", "/v1/models", key="guessed-by-somebody")
    said = gateway.log()
    assert "rk-" not in said
    assert "a secret of mine" not in said
    assert "guessed" not in said
