"""`POST /v1/feedback` over real HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ratchet import names
from ratchet.types import ExampleKind
from tests.support.gateway_process import BASE, Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")
UNSEEN = "chatcmpl-" + "0" * 32


async def send(shared: Bench, *, key: str = "client", **fields: Any) -> Any:
    return await shared.call("POST", "/v1/feedback", fields, key=key)


async def test_a_reward_for_an_answer_is_durable_and_counted_once(shared: Bench) -> None:
    target = (await shared.chat()).json()["id"]
    before = (await shared.call("GET", "/admin/ledger", key="operator")).json()
    answers = await asyncio.gather(*(send(shared, target=target, value=0.5, idempotency_key="once") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert answers[0].json()["object"] == "feedback"
    after = (await shared.call("GET", "/admin/ledger", key="operator")).json()
    assert after["received"] == before["received"] + 1
    record = await shared.store.feedback.record(answers[0].json()["id"])
    assert record is not None
    assert (record["target"], record["value"], record["state"]) == (target, 0.5, "pending")


async def test_each_choice_of_an_answer_takes_its_own_reward_and_the_group_is_ready(shared: Bench) -> None:
    target = (await shared.chat("tell me", n=2)).json()["id"]
    ready = await shared.store.experience.ready("support", ["group"])
    for choice, value in enumerate((0.0, 1.0)):
        assert (await send(shared, target=target, choice=choice, value=value)).status_code == 202
    assert await shared.store.experience.ready("support", ["group"]) == ready + 1


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("reward", 0),
        ("reward", 1.0),
        ("liked", True),
        ("note", "well said"),
        ("better", "It should have been this."),
        ("choice", {"target": "chatcmpl-" + "1" * 32, "over": "chatcmpl-" + "2" * 32}),
    ],
)
async def test_each_metric_takes_a_value_of_its_type(shared: Bench, metric: str, value: Any) -> None:
    target = (await shared.chat()).json()["id"]
    assert (await send(shared, target=target, metric=metric, value=value)).status_code == 202


@pytest.mark.parametrize(
    ("metric", "value", "kind"),
    [
        ("reward", 1, "lone"),
        ("liked", False, "lone"),
        ("note", "well said", "comment"),
        ("better", "It should have been this.", "demonstration"),
        ("choice", {"choice": 1, "over_choice": 0}, "pair"),
    ],
)
async def test_feedback_becomes_an_example_of_its_metrics_kind(shared: Bench, metric: str, value: Any, kind: ExampleKind) -> None:
    target = (await shared.chat(n=2 if kind == "pair" else 1)).json()["id"]
    if isinstance(value, dict):
        value = {"target": target, "over": target, **value}
    before = await shared.store.experience.ready("support", [kind])
    assert (await send(shared, target=target, metric=metric, value=value)).status_code == 202
    assert await shared.store.experience.ready("support", [kind]) == before + 1


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("reward", 1.01),
        ("reward", -0.01),
        ("reward", True),
        ("reward", "1"),
        ("reward", None),
        ("reward", [1]),
        ("liked", 1),
        ("liked", "true"),
        ("note", ""),
        ("note", 5),
        ("note", "x" * 70_000),
        ("better", None),
        ("choice", "chatcmpl-" + "1" * 32),
        ("choice", {"target": "chatcmpl-" + "1" * 32}),
        ("choice", {"target": "chatcmpl-" + "1" * 32, "over": "chatcmpl-" + "1" * 32}),
        ("choice", {"target": "a", "over": "b"}),
        ("choice", {"target": "chatcmpl-" + "1" * 32, "over": "chatcmpl-" + "2" * 32, "over_choice": 128}),
        ("unheard", 1),
        ("", 1),
    ],
)
@pytest.mark.parametrize("seen", [True, False])
async def test_a_value_that_is_none_of_its_metrics_is_400(shared: Bench, metric: str, value: Any, seen: bool) -> None:
    target = (await shared.chat()).json()["id"] if seen else UNSEEN
    answer = await send(shared, target=target, metric=metric, value=value)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in ("value", "metric")


async def test_the_longest_comment_is_taken_however_it_is_written_and_a_larger_body_is_413(shared: Bench) -> None:
    target = (await shared.chat()).json()["id"]
    fields = {
        "target": target,
        "metric": "note",
        "value": "\U0001f642" * 2**16,
        "metadata": {f"k{i:062}": "\u00e9" * 512 for i in range(16)},
    }
    assert (await shared.call("POST", "/v1/feedback", json.dumps(fields))).status_code == 202
    answer = await shared.call("POST", "/v1/feedback", json.dumps(fields) + " " * 2**20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert str(2**20) in answer.json()["error"]["message"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_a_number_that_is_not_finite_is_400(shared: Bench, value: str) -> None:
    answer = await shared.call("POST", "/v1/feedback", f'{{"target": "{UNSEEN}", "value": {value}}}')
    assert answer.status_code == 400


@pytest.mark.parametrize("target", ["", "../x", "a b", "e" * 129, "<script>", "chatcmpl-\n", 5, None])
async def test_a_malformed_target_is_400(shared: Bench, target: Any) -> None:
    answer = await send(shared, target=target, value=0.5)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "target"


@pytest.mark.parametrize(
    "fields",
    [{"choice": -1}, {"choice": 128}, {"choice": "0"}, {"idempotency_key": ""}, {"metadata": {"a": 1}}, {"policy": "support"}],
)
async def test_a_wrong_field_is_400_and_named(shared: Bench, fields: dict[str, Any]) -> None:
    answer = await send(shared, target=UNSEEN, value=0.5, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == next(iter(fields))


async def test_a_choice_the_answer_does_not_have_is_400_and_counts_nothing(shared: Bench) -> None:
    target = (await shared.chat(n=2)).json()["id"]
    before = (await shared.store.feedback.ledger()).received
    answer = await send(shared, target=target, value=0.5, choice=2)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "choice")
    assert (await shared.store.feedback.ledger()).received == before
    assert (await send(shared, target=target, value=0.5, choice=1)).status_code == 202


async def test_a_missing_value_is_400(shared: Bench) -> None:
    answer = await send(shared, target=UNSEEN)
    assert answer.json()["error"]["code"] == "missing_required_parameter"


async def test_another_tenants_answer_is_404(shared: Bench) -> None:
    target = (await shared.chat()).json()["id"]
    answer = await send(shared, key="other", target=target, value=0.5)
    assert answer.status_code == 404


async def test_a_bases_answer_takes_the_reward_any_base_has(shared: Bench) -> None:
    target = (await shared.chat(model=BASE)).json()["id"]
    assert (await send(shared, target=target, value=-7.5)).status_code == 202
    assert (await send(shared, target=target, metric="liked", value=True)).status_code == 400


async def test_feedback_before_its_answer_is_parked_and_joins_an_episode(shared: Bench) -> None:
    given = await send(shared, target="ep-early", value=0.25)
    assert given.status_code == 202
    record = await shared.store.feedback.record(given.json()["id"])
    assert record is not None
    assert record["parked"]


async def test_a_key_for_feedback_may_rate_what_another_key_of_its_tenant_asked(shared: Bench) -> None:
    target = (await shared.chat(key="infer")).json()["id"]
    assert (await send(shared, key="feedback", target=target, value=1)).status_code == 202
    assert names.is_target(target)
