"""What a client writes, and its key, are in no log line and no metric (row 23 of the reliability table: logs)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.gateway_process import KEYS, Bench, bench, until

SECRET = "zanzibar-7731"
WRONG = {"authorization": f"Bearer rk-{SECRET}"}
HEADERS = dict.fromkeys(("cookie", "user-agent", "x-api-key", "x-ratchet-episode-id", "tracestate", "referer"), SECRET)
CHAT = "/v1/chat/completions"


async def everything(made: Bench) -> list[int]:
    """The secret in every place a client can put it; the statuses."""
    fake = made.fakes["fake-0"]
    said = [
        await made.chat(f"say:{SECRET}", headers={**HEADERS, "traceparent": SECRET}, stream=True),
        await made.chat(f"say:{SECRET}", metadata={SECRET: SECRET}, user=SECRET),
        await made.chat(model=SECRET),
        await made.chat(**{SECRET: 1}),
        await made.chat(headers={"x-ratchet-episode-id": f"{SECRET}/"}),
        await made.call("POST", CHAT, f'{{"{SECRET}": '),
        await made.call("POST", CHAT, f'{{"{SECRET}": 1, "{SECRET}": 2}}'),
        await made.call("POST", CHAT, {}, key=None, headers=WRONG),
        await made.call("GET", f"/v1/models/{SECRET}%0a{SECRET}"),
        await made.call("GET", f"/{SECRET}", headers=HEADERS),
        await made.call("GET", f"{CHAT}?metadata[{SECRET}]={SECRET}"),
        await made.call("POST", "/v1/feedback", {"target": SECRET, "value": SECRET}),
        await made.call("GET", "/admin/ledger", key=None, headers=WRONG),
    ]
    for faults in ({"refuse": 400}, {"refuse": 500}, {"die_after": 0}, {"die_after": 2}):
        await fake.faults(**faults, times=1)
        said.append(await made.chat(f"say:{SECRET}", stream=True))
        await fake.faults()
        await made.healthy("fake-0")
    return [answer.status_code for answer in said]


@pytest.mark.parametrize("form", ["text", "json"])
async def test_no_prompt_no_key_and_no_header_is_in_a_log_line_or_a_metric(tmp_path: Path, form: str) -> None:
    async with bench(tmp_path, telemetry={"log_format": form, "access_log": True}) as made:
        statuses = await everything(made)
        assert {200, 400, 401, 404} <= set(statuses)
        await made.server.stop()  # an answer that cannot be recorded
        await made.chat(f"say:{SECRET}", headers=HEADERS)
        metrics = (await made.call("GET", "/metrics", key="metrics")).text

        async def told() -> bool:
            return made.log().count("gateway.access") > len(statuses)

        await until(told, "each request has left its line")
        log = made.log()
        assert SECRET not in log
        assert SECRET not in metrics
        assert not [name for name in KEYS if f"rk-{name}" in log]
        if form == "json":
            lines = [json.loads(line) for line in log.splitlines()]
            seen = [line for line in lines if line["logger"] == "gateway.access" and line["route"] == CHAT]
            assert {"request_id", "method", "route", "status", "duration_ms"} <= set.intersection(*(set(line) for line in seen))
            whole = next(line for line in seen if line["status"] == 200)
            assert {"policy", "model", "engine", "retries", "first_byte_ms"} <= whole.keys()


async def test_without_the_access_log_a_request_leaves_no_line(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        before = made.log()
        for _ in range(5):
            assert (await made.chat()).status_code == 200
        assert made.log() == before
