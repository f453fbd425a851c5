"""Embeddings, rerank, score, tokenize and detokenize over real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.gateway_process import BASE, POLICY, Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="session")
BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["one", "two"]},
    "/v1/rerank": {"query": "red moon", "documents": ["blue sea", "a red moon"]},
    "/v1/score": {"text_1": "red moon", "text_2": ["blue sea", "a red moon"]},
    "/tokenize": {"prompt": "hello"},
    "/detokenize": {"tokens": [104, 105]},
}


async def test_the_sdk_gets_vectors_in_order_in_either_encoding(shared: Bench) -> None:
    sdk = shared.sdk()
    packed = await sdk.embeddings.create(model=POLICY, input=["one", "two", "one"], dimensions=8)
    plain = await sdk.embeddings.create(model=POLICY, input=["one", "two", "one"], dimensions=8, encoding_format="float")
    assert packed.model == plain.model == f"{POLICY}@0"
    assert [row.index for row in packed.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert packed.data[0].embedding == packed.data[2].embedding != packed.data[1].embedding
    assert (packed.usage.prompt_tokens, packed.usage.total_tokens) == (9, 9)
    sent = [body for body in (await shared.fakes["fake-0"].state())["requests"] if "input" in body and "dimensions" in body]
    assert [body["encoding_format"] for body in sent[-2:]] == ["base64", "float"]


async def test_documents_are_ranked_and_scored(shared: Bench) -> None:
    ranked = (await shared.call("POST", "/v1/rerank", {"model": BASE, **BODIES["/v1/rerank"], "top_n": 1})).json()
    assert [(row["index"], row["document"]["text"], row["relevance_score"]) for row in ranked["results"]] == [(1, "a red moon", 1.0)]
    for names in (("text_1", "text_2"), ("queries", "documents")):
        body = dict(zip(names, BODIES["/v1/score"].values(), strict=True))
        scored = (await shared.call("POST", "/v1/score", {"model": BASE, **body})).json()
        assert ([row["score"] for row in scored["data"]], scored["model"]) == ([0.0, 1.0], BASE)


async def test_a_texts_tokens_lead_back_to_it(shared: Bench) -> None:
    told = (await shared.call("POST", "/tokenize", {"model": POLICY, "prompt": "naïve 🙂", "return_token_strs": True})).json()
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert (await shared.call("POST", "/detokenize", {"model": POLICY, "tokens": told["tokens"]})).json() == {"prompt": "naïve 🙂"}
    chat = (await shared.call("POST", "/tokenize", {"model": POLICY, "messages": [{"role": "user", "content": "hi"}]})).json()
    answered = await shared.chat("hi", return_token_ids=True)
    assert chat["tokens"] == answered.json()["prompt_token_ids"]


@pytest.mark.parametrize("path", BODIES)
async def test_nothing_of_them_is_recorded_but_they_are_counted_and_told_apart(shared: Bench, path: str) -> None:
    count, before = await shared.store.interactions.count(), await shared.metric("ratchet_requests_total", route=path, status="200")
    answer = await shared.call("POST", path, {"model": POLICY, **BODIES[path]})
    assert (answer.status_code, answer.headers["x-ratchet-policy"], answer.headers["x-ratchet-engine"]) == (200, f"{POLICY}@0", "fake-0")
    assert "x-ratchet-recorded" not in answer.headers
    assert await shared.store.interactions.count() == count
    assert await shared.metric("ratchet_requests_total", route=path, status="200") == before + 1
    sent = (await shared.fakes["fake-0"].state())["requests"][-1]
    assert sent == {"model": BASE, **BODIES[path]}


@pytest.mark.parametrize("path", BODIES)
async def test_a_refusal_has_openais_shape_and_no_engine_is_asked(shared: Bench, path: str) -> None:
    before = len((await shared.fakes["fake-0"].state())["requests"])
    for fields, status, code in (({"model": "nobody"}, 404, "model_not_found"), ({"unheard": 1}, 400, "unknown_parameter")):
        answer = await shared.call("POST", path, {"model": POLICY, **BODIES[path], **fields})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (await shared.call("POST", path, {"model": POLICY, **BODIES[path]}, key="feedback")).status_code == 403
    assert len((await shared.fakes["fake-0"].state())["requests"]) == before


async def test_an_engine_that_dies_costs_no_client_an_error(tmp_path: Path) -> None:
    async with bench(tmp_path, engines=2) as made:
        await made.healthy("fake-0", "fake-1")
        await made.fakes["fake-0"].faults(die_after=0)
        for path, body in BODIES.items():
            answer = await made.call("POST", path, {"model": POLICY, **body})
            assert (answer.status_code, answer.headers["x-ratchet-engine"]) == (200, "fake-1")


async def test_the_tokens_an_engine_counted_are_what_a_quota_pays(shared: Bench) -> None:
    made = await shared.call("POST", "/admin/keys", {"tenant": "acme", "scopes": ["infer"], "tpm": 20_000}, key="operator")
    headers = {"authorization": f"Bearer {made.json()['key']}"}
    body = {"model": POLICY, "input": "x" * 4000}
    left = []
    for _ in range(2):
        answer = await shared.call("POST", "/v1/embeddings", body, key=None, headers=headers)
        assert answer.status_code == 200
        left.append(int(answer.headers["x-ratelimit-remaining-tokens"]))
    assert answer.json()["usage"]["total_tokens"] == 4000
    assert 3000 < left[0] - left[1] <= 4000  # more than was foreseen; the bucket refills by 333 a second


async def test_the_models_that_may_be_asked_are_listed_one_by_one(shared: Bench) -> None:
    sdk = shared.sdk()
    for name in (BASE, POLICY, f"{POLICY}@0"):
        card = await sdk.models.retrieve(name)
        assert (card.id, card.object, card.owned_by) == (name, "model", "ratchet")
    for name in ("nobody", f"{POLICY}@99", f"{POLICY}@x"):
        with pytest.raises(openai.NotFoundError) as error:
            await sdk.models.retrieve(name)
        assert error.value.code == "model_not_found"
