"""Keys made by an operator over real HTTP, and what each may then do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from ratchet.cli.app import run
from ratchet.clock import monotonic
from tests.support.gateway_process import BASE, POLICY, Bench, bench, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENT = {"wait_ms": 5000}
"""The machine of the tests may be busy; who does not wait for the store lets requests through."""
MAKE = {"tenant": "acme", "scopes": ["infer", "feedback"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("gateway"), quota=PATIENT) as made:
        yield made


async def make(shared: Bench, **fields: Any) -> dict[str, Any]:
    answer = await shared.call("POST", "/admin/keys", {**MAKE, **fields}, key="operator")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def ask(shared: Bench, made: dict[str, Any], text: str = "say:hi", **fields: Any) -> httpx.Response:
    return await shared.chat(text, headers={"authorization": f"Bearer {made['key']}"}, **fields)


def rates(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}


async def test_a_key_is_told_once_listed_without_itself_and_ends_when_revoked(shared: Bench) -> None:
    made = await make(shared, note="for the shop", rpm=1000, models=[POLICY])
    assert {key: made[key] for key in ("object", "tenant", "scopes", "note", "rpm", "tpm", "concurrency", "models")} == {
        "object": "key",
        "tenant": "acme",
        "scopes": ["infer", "feedback"],
        "note": "for the shop",
        "rpm": 1000,
        "tpm": None,
        "concurrency": None,
        "models": [POLICY],
    }
    listed = await shared.call("GET", "/admin/keys", key="operator")
    rows = {row["id"]: row for row in listed.json()["data"]}
    assert rows[made["id"]] == {key: value for key, value in made.items() if key != "key"}
    assert made["key"] not in listed.text
    assert (await ask(shared, made)).status_code == 200
    gone = await shared.call("DELETE", f"/admin/keys/{made['id']}", key="operator")
    assert gone.json() == {"id": made["id"], "object": "key", "deleted": True}
    assert (await ask(shared, made)).status_code == 401
    again = await shared.call("DELETE", f"/admin/keys/{made['id']}", key="operator")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "key_not_found")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": ["infer"]}, "tenant"),
        ({"tenant": "acme"}, "scopes"),
        ({**MAKE, "tenant": "_ratchet"}, "tenant"),
        ({**MAKE, "tenant": "../x"}, "tenant"),
        ({**MAKE, "tenant": 5}, "tenant"),
        ({**MAKE, "scopes": []}, "scopes"),
        ({**MAKE, "scopes": ["root"]}, "scopes[0]"),
        ({**MAKE, "scopes": ["infer"] * 5}, "scopes"),
        ({**MAKE, "scopes": "infer"}, "scopes"),
        ({**MAKE, "rpm": 0}, "rpm"),
        ({**MAKE, "rpm": -1}, "rpm"),
        ({**MAKE, "rpm": 1.5}, "rpm"),
        ({**MAKE, "rpm": True}, "rpm"),
        ({**MAKE, "tpm": 2**62}, "tpm"),
        ({**MAKE, "concurrency": "many"}, "concurrency"),
        ({**MAKE, "models": []}, "models"),
        ({**MAKE, "models": ["a/../b"]}, "models"),
        ({**MAKE, "models": ["a"] * 65}, "models"),
        ({**MAKE, "note": "x" * 201}, "note"),
        ({**MAKE, "note": "\u0000"}, "note"),
        ({**MAKE, "key": "rk-mine"}, "key"),
        ({**MAKE, "id": "key_mine"}, "id"),
        ("[]", None),
        ("{", None),
        ("\ufeff{}", None),
        ('{"tenant": "a", "tenant": "b", "scopes": ["infer"]}', None),
        ('{"tenant": "a", "scopes": ["infer"], "rpm": NaN}', None),
        ('{"tenant": "a", "scopes": ["infer"], "rpm": 1e999}', None),
        ('{"tenant": "a", "scopes": ["infer"], "rpm": ' + "9" * 100_000 + "}", None),
        ('{"tenant": "\\ud800", "scopes": ["infer"]}', None),
        ("[" * 10_000, None),
        ("x" * 70_000, None),
    ],
)
async def test_a_hostile_body_is_4xx_and_makes_no_key(shared: Bench, body: Any, param: str | None) -> None:
    before = await shared.store.keys.all()
    answer = await shared.call("POST", "/admin/keys", body, key="operator")
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    if param is not None:
        assert answer.json()["error"]["param"] == param
    assert await shared.store.keys.all() == before


@pytest.mark.parametrize("item", ["x", "..", "%2e%2e", "key_%00", "*", "k" * 5000])
async def test_an_id_that_is_no_keys_is_404(shared: Bench, item: str) -> None:
    assert (await shared.call("DELETE", f"/admin/keys/{item}", key="operator")).status_code in (404, 405)


async def test_a_model_that_the_key_may_not_use_does_not_exist_for_it(shared: Bench) -> None:
    only_policy, only_base, only_zero = [await make(shared, models=[name]) for name in (POLICY, BASE, f"{POLICY}@0")]
    names = [BASE, POLICY, f"{POLICY}@0"]
    for made, allowed in ((only_policy, [POLICY, f"{POLICY}@0"]), (only_base, [BASE]), (only_zero, [f"{POLICY}@0"])):
        headers = {"authorization": f"Bearer {made['key']}"}
        listed = await shared.call("GET", "/v1/models", headers=headers)
        assert [card["id"] for card in listed.json()["data"]] == allowed
        for name in names:
            one = await shared.call("GET", f"/v1/models/{name}", headers=headers)
            chat = await ask(shared, made, model=name)
            if name in allowed:
                assert (one.status_code, chat.status_code) == (200, 200)
                continue
            unknown = await ask(shared, made, model="nothing")
            assert (chat.status_code, chat.json()["error"]["code"]) == (404, "model_not_found")
            assert chat.json()["error"]["message"].replace(name, "nothing") == unknown.json()["error"]["message"]
            assert one.json()["error"] == chat.json()["error"]


async def test_requests_past_the_quota_are_429_as_openai_says_it(shared: Bench) -> None:
    made = await make(shared, rpm=3)
    answers = await asyncio.gather(*(ask(shared, made, stream=i % 2 == 0) for i in range(12)))
    passed, refused = [[a for a in answers if a.status_code == status] for status in (200, 429)]
    assert (len(passed), len(refused)) == (3, 9)
    assert {answer.headers["x-ratelimit-remaining-requests"] for answer in passed} == {"0", "1", "2"}
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"3"}
    assert all(answer.headers["x-ratelimit-reset-requests"].startswith(("59.", "1m0s")) for answer in refused)
    assert all(1 <= int(answer.headers["retry-after"]) <= 20 for answer in refused)
    assert {(answer.json()["error"]["type"], answer.json()["error"]["code"]) for answer in refused} == {("requests", "rate_limit_exceeded")}
    with pytest.raises(openai.RateLimitError) as caught:
        sdk = openai.AsyncOpenAI(base_url=shared.url + "/v1", api_key=made["key"], max_retries=0, http_client=shared.http)
        await sdk.chat.completions.create(model=POLICY, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "rate_limit_exceeded"


async def test_feedback_counts_as_a_request_and_is_refused_past_the_quota(shared: Bench) -> None:
    made = await make(shared, rpm=2, concurrency=1)
    headers = {"authorization": f"Bearer {made['key']}"}
    target = (await ask(shared, made)).json()["id"]
    taken = await shared.call("POST", "/v1/feedback", {"target": target, "value": 1}, headers=headers)
    assert (taken.status_code, taken.headers["x-ratelimit-remaining-requests"]) == (202, "0")
    before = (await shared.store.feedback.ledger()).received
    refused = await shared.call("POST", "/v1/feedback", {"target": target, "value": 0}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await shared.store.feedback.ledger()).received == before
    assert (await ask(shared, made)).status_code == 429


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"store": False}, {"stream": True, "store": False}, {"n": 2}])
async def test_tokens_are_counted_as_the_engine_counted_them(shared: Bench, fields: dict[str, Any]) -> None:
    used = (await shared.chat("say:hi", **{**fields, "stream": False})).json()["usage"]["total_tokens"]
    made = await make(shared, tpm=60)
    begun = monotonic()
    answer = await ask(shared, made, max_tokens=5000, **fields)
    assert (answer.status_code, answer.headers["x-ratelimit-remaining-tokens"]) == (200, "0")
    assert "token_ids" not in answer.text
    left = float(await shared.store.quotas._link.do("HGET", f"r:q:{made['id']}", "tokens"))
    assert 60 - used <= left <= 60 - used + monotonic() - begun


async def test_tokens_past_the_quota_are_429_of_type_tokens_and_every_answer_says_what_is_left(shared: Bench) -> None:
    made = await make(shared, tpm=60)
    assert rates(await ask(shared, made, max_tokens=30)).keys() == {
        f"x-ratelimit-{what}-tokens" for what in ("limit", "remaining", "reset")
    }
    refused = await ask(shared, made, max_tokens=60)
    assert (refused.status_code, refused.json()["error"]["type"]) == (429, "tokens")
    assert refused.headers["x-ratelimit-limit-tokens"] == "60"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert rates(await shared.chat()) == {}


async def test_an_error_after_the_admission_has_the_headers_too_and_costs_no_tokens(shared: Bench) -> None:
    made = await make(shared, rpm=10, tpm=5000)
    fake = shared.fakes["fake-0"]
    await fake.faults(refuse=400, times=1)
    refused = await ask(shared, made, max_tokens=4000)
    assert refused.status_code == 400
    assert refused.headers["x-ratelimit-remaining-requests"] == "9"
    assert (await ask(shared, made, max_tokens=4000)).status_code == 200
    assert rates(await ask(shared, made, unheard_of=1)) == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_one_request_at_a_time_means_one_and_the_next_may_follow_at_once(shared: Bench, stream: bool) -> None:
    made = await make(shared, concurrency=1)
    for _ in range(20):
        assert (await ask(shared, made, stream=stream)).status_code == 200
    fake = shared.fakes["fake-0"]
    await fake.faults(token_ms=20)
    try:
        answers = await asyncio.gather(*(ask(shared, made, "say:" + "x" * 20, stream=stream) for _ in range(5)))
    finally:
        await fake.faults()
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429, 429]
    assert {answer.headers.get("retry-after") for answer in answers} == {None, "1"}
    assert (await ask(shared, made)).status_code == 200


async def test_a_client_that_leaves_frees_its_place(shared: Bench) -> None:
    made = await make(shared, concurrency=1)
    headers = {"authorization": f"Bearer {made['key']}"}
    body = {"model": POLICY, "messages": [{"role": "user", "content": "say:" + "x" * 50}], "stream": True}
    await shared.fakes["fake-0"].faults(token_ms=50)
    try:
        async with shared.http.stream("POST", shared.url + "/v1/chat/completions", json=body, headers=headers) as answer:
            await anext(answer.aiter_bytes())
            assert (await ask(shared, made)).status_code == 429
    finally:
        await shared.fakes["fake-0"].faults()

    async def free() -> bool:
        return (await ask(shared, made)).status_code == 200

    await until(free, "the place is free")


async def test_the_command_line_makes_lists_and_revokes_through_the_admin_api(
    shared: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_ADMIN_URL", shared.admin)
    monkeypatch.setenv("RATCHET_OPERATOR_KEY", "rk-operator")
    monkeypatch.setenv("COLUMNS", "200")

    async def command(*argv: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(run, ["keys", *argv])
        out, err = capsys.readouterr()
        return status, out, err

    status, key, said = await command("create", "--tenant", "acme", "--scope", "infer", "--model", POLICY, "--concurrency", "3")
    assert status == 0
    made = {"key": key.strip(), "id": said.split()[0]}
    assert (await ask(shared, made)).status_code == 200
    assert (await ask(shared, made, model=BASE)).status_code == 404
    _, listed, _ = await command("list")
    assert f"{made['id']} " in listed
    assert made["key"] not in listed
    assert (await command("revoke", made["id"]))[0] == 0
    assert (await command("revoke", made["id"]))[0] == 1
