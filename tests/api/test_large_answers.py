"""Answers larger than what a socket gives at once, and than what the gateway holds for a slow client."""

from __future__ import annotations

import pytest

from tests.support.gateway_process import POLICY, Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")
TEXTS = 2048


async def test_a_large_answer_whose_head_and_body_come_in_one_piece_is_passed_on(shared: Bench) -> None:
    body = {"model": POLICY, "query": "x", "documents": ["x"] * TEXTS}
    for _ in range(10):
        answer = await shared.call("POST", "/v1/rerank", body)
        assert answer.status_code == 200, answer.text
        assert len(answer.content) > 2**17
        assert len(answer.json()["results"]) == TEXTS


async def test_an_answer_of_megabytes_is_passed_on_whole(shared: Bench) -> None:
    answer = await shared.call("POST", "/v1/embeddings", {"model": POLICY, "input": ["x"] * TEXTS, "dimensions": 64})
    assert len(answer.content) > 2**20
    assert len(answer.json()["data"]) == TEXTS
