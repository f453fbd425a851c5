"""What is particular to the other engine behind a gateway: a prompt's ids by a second call, and what its kind cannot do."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import pytest_asyncio

from engines.routes import CHAT, EMBEDDINGS
from ratchet.errors import EngineUnsupported
from tests.contracts.other import INSTALLED
from tests.contracts.other.site import OtherSite, other_engine
from tests.support.gateway_process import BASE, Bench, bench, events, recorded, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO: dict[str, Any] = {"model": BASE, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


class Front(NamedTuple):
    """A gateway, and the engine behind it."""

    made: Bench
    site: OtherSite


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    data = tmp_path_factory.mktemp("front")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(INSTALLED), os.environ.get("PYTHONPATH", "")]))
        async with other_engine() as site, bench(data, engines=0, start=False) as made:
            await made.store.fleet.put(msgspec.structs.replace(site.engine.record, launched=True))
            await made.start()
            await made.healthy("other")
            yield Front(made, site)


async def test_a_prompts_ids_are_asked_for_only_where_the_answer_is_recorded(front: Front) -> None:
    before = front.site.server.encoded
    answer = await front.made.call("POST", CHAT, {**HELLO, "store": False, "stream": True})
    assert answer.status_code == 200 and front.site.server.encoded == before
    assert front.site.server.seen[-1]["trace"] is False
    answer = await front.made.call("POST", CHAT, {**HELLO, "stream": True})
    kept = await recorded(front.made, json.loads(events(answer.text)[0])["id"])
    assert front.site.server.encoded == before + 1
    assert kept.prompt_ids == [*b"user\nHi", 256, *b"assistant\n"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_without_the_prompts_ids_an_answer_is_recorded_and_not_learned_from(front: Front, streamed: bool) -> None:
    front.site.server.encodes = False
    answer = await front.made.call("POST", CHAT, {**HELLO, "stream": streamed})
    front.site.server.encodes = True
    assert answer.status_code == 200
    assert not streamed or events(answer.text)[-1] == "[DONE]"
    kept = await recorded(front.made, json.loads(events(answer.text)[0] if streamed else answer.text)["id"])
    assert (kept.untrainable, kept.prompt_ids) == ("no_ids", [])
    assert kept.choices[0].token_ids
    assert "did not give the ids of a prompt" in front.made.log()


async def test_what_its_kind_cannot_show_is_501_and_other_requests_go_on(front: Front) -> None:
    refused = await front.made.call("POST", CHAT, {**HELLO, "return_token_ids": True})
    assert (refused.status_code, refused.json()["error"]["code"]) == (501, "not_implemented")
    assert "gives no token ids in its chunks" in refused.json()["error"]["message"]
    assert (await front.made.call("POST", CHAT, HELLO)).status_code == 200


async def test_its_own_words_for_an_error_have_their_meaning(front: Front) -> None:
    missing = await front.made.call("POST", EMBEDDINGS, {"model": BASE, "input": "Hi"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "unsupported_route")
    wrong = await front.made.call("POST", CHAT, {**HELLO, "seed": 13})
    assert (wrong.status_code, wrong.json()["error"]["message"], wrong.json()["error"]["param"]) == (400, "an unlucky number", "luck")
    front.site.server.busy = True
    busy = await front.made.call("POST", CHAT, HELLO)
    front.site.server.busy = False
    assert (busy.status_code, busy.json()["error"]["code"]) == (503, "engine_overloaded")  # no client knows its 529
    assert busy.headers["retry-after"] == "1"

    async def rested() -> bool:
        return (await front.made.call("POST", CHAT, HELLO)).status_code == 200

    await until(rested, "it is asked again")


async def test_an_engine_given_by_url_is_refused_for_a_base_that_has_policies(front: Front) -> None:
    spare = {"name": "spare", "kind": "other", "model": BASE, "url": front.site.engine.record.url + "/"}
    answer = await front.made.call("POST", "/admin/engines", spare, key="operator")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "kind")
    assert "takes adapters only when it is started" in answer.json()["error"]["message"]


async def test_a_version_that_it_was_not_started_with_cannot_be_promoted(front: Front) -> None:
    await front.made.candidate(1)  # no fake to load it on
    await front.made.store.registry.publish("support", 1, expect_live=0, verdict={"passed": True})
    await front.made.store.registry.move("support", 0, expect_live=1, reason="rollback")

    answer = await front.made.call("POST", "/admin/policies/support/promote", {"version": 1}, key="operator")
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "not_implemented")
    with pytest.raises(EngineUnsupported):
        await front.site.engine.load("support@1", Path("x"))
