"""Row 18: the gateway's and the engine's wall clock jump an hour forth and back; clients see the same, and no duration is wrong."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import POLICY, Bench, bench
from tests.support.jumping_clock import sitecustomize as clock

ROUNDS = 50 if FULL else 5
HOUR = 3600.0
TOKENS_MS = 10
LONGEST = 10.0
"""Seconds that nothing here may seem to have taken; each jump is 360 times that."""


async def streamed(made: Bench, text: str, between: Callable[[], None], batch: str) -> tuple[str, str]:
    """The id and the text of a stream in whose midst `between` is called at each chunk."""
    said, public_id = "", ""
    messages: Any = [{"role": "user", "content": f"say:{text}"}]
    async for chunk in await made.sdk().chat.completions.create(model=POLICY, messages=messages, stream=True, metadata={"batch": batch}):
        between()
        public_id, said = chunk.id, said + (chunk.choices[0].delta.content or "")
    return public_id, said


async def story(made: Bench, batch: str, between: Callable[[], None]) -> tuple[list[Any], list[str]]:
    """What a client sees of some answers, their feedback and their list, its ids by their place; and the ids."""
    ids: list[str] = []
    seen: list[Any] = []
    for i in range(ROUNDS):
        public_id, said = await streamed(made, f"answer {i}", between, batch)
        between()
        ids.append(public_id)
        body = {"target": public_id, "value": 0.5, "idempotency_key": public_id}
        answers = [await made.call("POST", "/v1/feedback", body) for _ in range(2)]
        between()
        shown = (await made.call("GET", f"/v1/chat/completions/{public_id}")).json()
        same = answers[0].json()["id"] == answers[1].json()["id"]
        seen.append((said, [answer.status_code for answer in answers], same, shown["choices"], shown["usage"]))
    listed = [item.id async for item in made.sdk().chat.completions.list(limit=2, order="desc", metadata={"batch": batch})]
    seen.append([ids.index(item) for item in listed])
    seen.append((await made.call("GET", "/readyz", key=None)).status_code)
    return seen, ids


async def test_jumps_of_an_hour_change_nothing_of_what_a_client_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "clock"
    clock.jump(file, 0)
    monkeypatch.setenv("JUMPING_CLOCK", str(file))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(clock.__file__).parent), os.environ.get("PYTHONPATH", "")]))
    seeded = random.Random(18)
    async with bench(tmp_path, flags=("--token-ms", str(TOKENS_MS))) as made:
        plain, _ = await story(made, "plain", lambda: None)
        jumped, ids = await story(made, "jumped", lambda: clock.jump(file, seeded.choice((-HOUR, 0.0, HOUR))))
        assert jumped == plain
        assert jumped[-2:] == [list(range(ROUNDS))[::-1], 200]
        kept = await made.store.interactions.many(ids)
        assert [item.status for item in kept] == ["complete"] * ROUNDS
        for item in kept:
            assert 0 < (item.timings.first_token or 0) <= item.timings.total < LONGEST
        stamps = [item.created for item in kept]
        assert max(stamps) - min(stamps) > HOUR / 2, "the clock did not jump"
        ledger = await made.store.feedback.ledger()
        assert (ledger.balances, ledger.received, ledger.pending) == (True, 2 * ROUNDS, 2 * ROUNDS)
        for name in ("ratchet_time_to_first_token_seconds", "ratchet_dispatch_seconds"):
            assert 0 <= await made.metric(f"{name}_sum") < LONGEST
        assert "error" not in json.dumps(jumped)
        measured("%d requests under a clock that jumps by an hour: as under a steady one; ledger of %d in balance", ROUNDS, 2 * ROUNDS)
