"""Every engine under contract, behind a real gateway over real HTTP: what the client sees, and what the store keeps of it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec
import pytest
import pytest_asyncio

from engines import sse
from engines.routes import CHAT, TEXT
from ratchet.types import EngineRecord
from tests.contracts.conftest import site_of
from tests.contracts.other import INSTALLED
from tests.contracts.sites import Site
from tests.support.gateway_process import BASE, POLICY, Bench, bench, events, recorded
from tests.support.registered_adapters import publish

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOT_THE_CLIENTS = (b"token_ids", b'"logprob"', b"trace", b'"usage"')
BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


class Front(NamedTuple):
    """A gateway, and the engine behind it."""

    made: Bench
    site: Site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front(started: EngineRecord | str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Front]:
    """A gateway that knows the engine's kind from an installed package, and an engine that holds one version of the policy."""
    data = tmp_path_factory.mktemp("front")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(INSTALLED), os.environ.get("PYTHONPATH", "")]))
        async with site_of(started) as site, bench(data, engines=0, start=False) as made:
            record = await publish(made.store, data, POLICY, 1)
            await site.hold({f"{POLICY}@1": data / record.path})
            await made.store.fleet.put(msgspec.structs.replace(site.engine.record, launched=True))
            await made.start()
            await made.healthy(site.engine.record.name)
            yield Front(made, site)
            await site.hold({})


@BOTH
@pytest.mark.parametrize("model", [BASE, POLICY])
async def test_a_chat_is_recorded_exactly_and_shows_the_client_nothing_of_it(front: Front, model: str, streamed: bool) -> None:
    body = {"model": model, **front.site.asked_to_say("naïve 🙂"), "stream": streamed, "max_tokens": 60}
    answer = await front.made.call("POST", CHAT, body)
    assert answer.status_code == 200, answer.text
    first = json.loads(events(answer.text)[0] if streamed else answer.text)
    kept = await recorded(front.made, first["id"])
    choice = kept.choices[0]
    assert not [word for word in NOT_THE_CLIENTS[: 4 if streamed else 3] if word in answer.content]
    untrainable = "grammar" if front.site.real else ""  # how a real engine is made to say it
    assert (kept.untrainable, kept.policy, kept.version) == (untrainable, model, 1 if model == POLICY else 0)
    assert choice.message["content"] == "naïve 🙂" == front.site.decoded(choice.token_ids)
    assert len(choice.token_ids) == len(choice.logprobs) == kept.usage["completion_tokens"]
    assert 0 < len(kept.prompt_ids) == kept.usage["prompt_tokens"]
    assert first["model"] == ("support@1" if model == POLICY else BASE) == kept.model
    assert answer.headers["x-ratchet-engine"] == front.site.engine.record.name


@BOTH
async def test_every_choice_of_a_text_is_recorded_exactly(front: Front, streamed: bool) -> None:
    answer = await front.made.call("POST", TEXT, {"model": POLICY, "prompt": "The moon", "n": 2, "max_tokens": 5, "stream": streamed})
    payloads = [json.loads(event) for event in events(answer.text)[:-1]] if streamed else [answer.json()]
    kept = await recorded(front.made, payloads[0]["id"])
    assert kept.untrainable == ""
    for choice in kept.choices:
        said = "".join(part["text"] for payload in payloads for part in payload["choices"] if part["index"] == choice.index)
        assert choice.message["content"] == said == front.site.decoded(choice.token_ids)
        assert 0 < len(choice.token_ids) == len(choice.logprobs) <= 5


async def test_a_client_that_asks_sees_its_log_probs_and_its_usage(front: Front) -> None:
    body = {"model": POLICY, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "logprobs": True, "stream": True}
    answer = await front.made.call("POST", CHAT, body | {"stream_options": {"include_usage": True}})
    payloads = [json.loads(event) for event in sse.split(answer.content)[0][:-1]]
    kept = await recorded(front.made, payloads[0]["id"])
    entries = [entry for p in payloads for part in p["choices"] for entry in (part["logprobs"] or {"content": []})["content"]]
    assert [entry["logprob"] for entry in entries] == kept.choices[0].logprobs
    assert payloads[-1]["usage"]["completion_tokens"] == kept.usage["completion_tokens"]


async def test_sampling_that_a_policy_gradient_cannot_use_is_recorded_as_such(front: Front) -> None:
    body = {"model": POLICY, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "top_p": 0.5}
    kept = await recorded(front.made, (await front.made.call("POST", CHAT, body)).json()["id"])
    assert kept.untrainable == "top_p"
    assert kept.choices[0].token_ids
