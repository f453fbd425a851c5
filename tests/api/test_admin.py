"""The control plane over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.gateway_process import BASE, POLICY, Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def show(shared: Bench, path: str) -> Any:
    answer = await shared.call("GET", path, key="operator")
    assert answer.status_code == 200
    return answer.json()


async def test_the_ledger_balances(shared: Bench) -> None:
    target = (await shared.chat()).json()["id"]
    await shared.call("POST", "/v1/feedback", {"target": target, "value": 1})
    await shared.call("POST", "/v1/feedback", {"target": target, "value": 0.5})
    ledger = await show(shared, "/admin/ledger")
    assert ledger.keys() == {"received", "used", "pending", "rejected", "expired"}
    assert ledger["received"] == ledger["used"] + ledger["pending"] + sum(ledger["rejected"].values()) + ledger["expired"]
    assert ledger["rejected"]["superseded"] >= 1


async def test_a_policy_is_shown_with_its_versions_and_the_learners_status(shared: Bench) -> None:
    await shared.store.registry.set_status(POLICY, {"phase": "waiting"})
    policy = await show(shared, f"/admin/policies/{POLICY}")
    assert {key: policy[key] for key in ("name", "base", "live", "epoch", "step")} == {
        "name": POLICY,
        "base": BASE,
        "live": 0,
        "epoch": 0,
        "step": 0,
    }
    assert policy["status"] == {"phase": "waiting"}
    assert [version["state"] for version in policy["versions"]] == ["live"]
    assert (await show(shared, "/admin/policies"))["data"] == [policy]
    version = await show(shared, f"/admin/policies/{POLICY}/versions/0")
    assert (version["version"], version["manifest"]) == (0, None)


@pytest.mark.parametrize(
    "path",
    [
        "/admin/policies/nobody",
        "/admin/policies/..",
        "/admin/policies/%2e%2e%2fetc",
        f"/admin/policies/{POLICY}/versions/9",
        f"/admin/policies/{POLICY}/versions/x",
        f"/admin/policies/{POLICY}/versions/-1",
        f"/admin/policies/{POLICY}/versions/99999999999999999999",
        "/admin/nothing",
    ],
)
async def test_what_is_not_there_is_404(shared: Bench, path: str) -> None:
    assert (await shared.call("GET", path, key="operator")).status_code == 404


async def test_training_is_asked_for_once_until_it_begins(shared: Bench) -> None:
    jobs = {(await shared.call("POST", f"/admin/policies/{POLICY}/train", key="operator")).json()["job"] for _ in range(3)}
    assert len(jobs) == 1
    assert await shared.store.registry.requested_training(POLICY) in jobs
    assert (await shared.call("POST", "/admin/policies/nobody/train", key="operator")).status_code == 404


async def test_metrics_are_prometheus_text_with_the_documented_names(shared: Bench) -> None:
    await shared.chat()
    answer = await shared.call("GET", "/metrics", key="metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in (
        'ratchet_requests_total{route="/v1/chat/completions",status="200"}',
        'ratchet_held_total{during_swap="true"}',
        'ratchet_held_total{during_swap="false"}',
        "ratchet_dispatch_seconds_count",
        "ratchet_recorder_write_seconds_count",
        'ratchet_recorded_total{status="complete"}',
        "ratchet_inflight",
    ):
        assert f"\n{name} " in answer.text, name
    assert await shared.metric("ratchet_dispatch_seconds_count") >= 1


async def test_an_unknown_path_cannot_make_labels(shared: Bench) -> None:
    await shared.call("GET", "/v1/made-up-1", key=None)
    assert "made-up" not in (await shared.call("GET", "/metrics", key="metrics")).text
    assert await shared.metric("ratchet_requests_total", route="other", status="404") >= 1


async def test_the_page_needs_no_key_fetches_nothing_and_holds_no_data(shared: Bench) -> None:
    answer = await shared.call("GET", "/", key=None)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for outside in ("http://", "https://", "<link", "src=", "@import", "innerHTML"):
        assert outside not in answer.text
    assert POLICY not in answer.text


async def test_the_planes_do_not_serve_each_others_routes(shared: Bench) -> None:
    headers = {"authorization": "Bearer rk-operator"}
    for path in ("/admin/ledger", "/metrics", "/"):
        assert (await shared.http.get(shared.url + path, headers=headers)).status_code == 404
    for path in ("/v1/models", "/healthz", "/v1/feedback"):
        assert (await shared.http.get(shared.admin + path, headers=headers)).status_code == 404
