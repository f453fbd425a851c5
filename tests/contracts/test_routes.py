"""Every inference route of an engine, as the gateway's dialects ask and read it: over every engine under contract."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, cast

import aiohttp
import pytest

from engines import Captured, sse
from engines.routes import MESSAGES, POOLING, RESPONSES, TEXT, TOKENS
from engines.types import NoAdapter, NoRoute
from gateway.dialects import every
from ratchet import names
from ratchet.buffer.interactions import Interactions
from ratchet.config import GatewayConfig
from tests.contracts.sites import BASE, Site, ask, post

CONFIG = GatewayConfig()
DIALECTS = every(cast(Interactions, None), CONFIG)  # no request here goes on from an earlier one
TOKENIZE, DETOKENIZE = TOKENS
SEEN_AS = "support@3"
SAID = "naïve Straße — 日本語 🙂"
BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


class Answer(NamedTuple):
    """What the client saw: the bytes, and the payloads in them without `[DONE]`; and what was kept of it."""

    id: str
    seen: bytes
    payloads: list[Any]
    kept: Captured

    @property
    def parts(self) -> list[Any]:
        return [part for payload in self.payloads for part in payload["choices"]]

    def text(self, index: int) -> str:
        """What a text completion said."""
        return "".join(part["text"] for part in self.parts if part["index"] == index)


async def relayed(session: aiohttp.ClientSession, site: Site, path: str, **fields: Any) -> Answer:
    """A request as the relay sends it, its answer as the relay passes it on."""
    dialect = DIALECTS[path]
    checked = dialect.check({"model": BASE, **fields}, CONFIG)
    public_id, seen, kept = await ask(session, site, path, checked.sent, checked.wants, dialect.prefix, SEEN_AS)
    payloads = [payload for payload in sse.split(seen)[0] if payload != sse.DONE] if checked.stream else [seen]
    return Answer(public_id, seen, [json.loads(payload) for payload in payloads], kept)


async def ids_of(session: aiohttp.ClientSession, site: Site, text: str) -> list[int]:
    found = (await relayed(session, site, TOKENIZE, prompt=text)).payloads[0]
    assert found["count"] == len(found["tokens"])
    return list(found["tokens"])


@BOTH
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("as_ids", [False, True], ids=["text", "ids"])
async def test_text_completions_are_exact(site: Site, session: aiohttp.ClientSession, as_ids: bool, n: int, streamed: bool) -> None:
    ids = await ids_of(session, site, "The moon is")
    prompt: Any = ids if as_ids else "The moon is"
    answer = await relayed(session, site, TEXT, prompt=prompt, n=n, max_tokens=5, temperature=0.3, stream=streamed)
    assert answer.kept.exact and answer.kept.finished
    assert answer.kept.prompt_ids == ids
    assert [choice.index for choice in answer.kept.choices] == list(range(n))
    for choice in answer.kept.choices:
        assert 0 < len(choice.token_ids) == len(choice.logprobs) <= 5
        assert choice.message["content"] == answer.text(choice.index) == site.decoded(choice.token_ids)
    assert {(payload["id"], payload["model"]) for payload in answer.payloads} == {(answer.id, SEEN_AS)}
    assert b"token_ids" not in answer.seen and b"token_logprobs" not in answer.seen
    assert (b'"usage"' in answer.seen) is not streamed


@BOTH
async def test_a_text_that_is_to_repeat_its_prompt_does(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    answer = await relayed(session, site, TEXT, prompt="The moon is", echo=True, max_tokens=2, stream=streamed)
    assert answer.text(0).startswith("The moon is")
    assert answer.kept.finished and not answer.kept.exact


@BOTH
async def test_a_list_of_prompts_is_answered_one_by_one(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    answer = await relayed(session, site, TEXT, prompt=["The moon", "A sun is"], n=2, max_tokens=2, temperature=0.3, stream=streamed)
    assert [choice.index for choice in answer.kept.choices] == [0, 1, 2, 3]
    assert answer.kept.finished
    assert all(choice.message["content"] == answer.text(choice.index) for choice in answer.kept.choices)
    assert all(len(choice.token_ids) == len(choice.logprobs) for choice in answer.kept.choices)


@BOTH
async def test_a_response_ends_properly_under_the_gateways_id(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    answer = await relayed(session, site, RESPONSES, input="Say hi", max_output_tokens=4, temperature=0, stream=streamed)
    response = answer.payloads[-1]["response"] if streamed else answer.payloads[0]
    text = response["output"][0]["content"][0]["text"]
    assert text and answer.kept.finished
    assert answer.kept.choices[0].message == {"role": "assistant", "content": text}
    assert answer.kept.response == response
    assert (response["id"], response["model"], response["store"]) == (answer.id, SEEN_AS, True)
    assert answer.kept.usage["completion_tokens"] == 4
    assert answer.seen.count(b"resp_") == answer.seen.count(answer.id.encode()) == (3 if streamed else 1)
    if streamed:
        deltas = [event["delta"] for event in answer.payloads if event["type"] == "response.output_text.delta"]
        assert "".join(deltas) == text
        assert [event["sequence_number"] for event in answer.payloads] == list(range(len(answer.payloads)))
        assert answer.payloads[-1]["type"] == "response.completed"


@BOTH
async def test_a_message_ends_properly_under_the_gateways_id(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    asked = {"messages": [{"role": "user", "content": "Say hi"}], "system": "Be brief.", "temperature": 0.0}
    answer = await relayed(session, site, MESSAGES, **asked, max_tokens=4, stream=streamed)
    message = answer.payloads[0]["message"] if streamed else answer.payloads[0]
    assert (message["id"], message["model"], message["role"]) == (answer.id, SEEN_AS, "assistant")
    deltas = [event["delta"] for event in answer.payloads if event["type"] == "content_block_delta"] if streamed else message["content"]
    assert answer.kept.choices[0].message["content"] == "".join(delta["text"] for delta in deltas) != ""
    assert answer.kept.finished and answer.kept.choices[0].finish_reason == "length"
    assert answer.kept.usage["completion_tokens"] == 4
    assert names.CHAT_PREFIX.encode() not in answer.seen
    if streamed:
        assert answer.payloads[-1] == {"type": "message_stop"}


async def test_tokens_make_the_round_trip(site: Site, session: aiohttp.ClientSession) -> None:
    ids = await ids_of(session, site, SAID)
    back = await relayed(session, site, DETOKENIZE, tokens=ids)
    assert back.payloads == [{"prompt": SAID}]
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}], "return_token_strs": True}
    told = (await relayed(session, site, TOKENIZE, **asked)).payloads[0]
    assert len(told["token_strs"]) == told["count"] > 0


@pytest.mark.parametrize("path", POOLING)
async def test_a_route_that_it_lacks_is_told_from_a_wrong_request(site: Site, session: aiohttp.ClientSession, path: str) -> None:
    status, body = await post(session, site, site.request(path, {"model": BASE, "input": "Hi"}, "x"))
    assert site.wire.meaning(status, {}, body, BASE) == NoRoute()


@pytest.mark.parametrize("path", [TEXT, RESPONSES, MESSAGES, TOKENIZE])
async def test_a_model_that_it_does_not_hold_is_told_apart_too(site: Site, session: aiohttp.ClientSession, path: str) -> None:
    body = {"model": "gone@1", "prompt": "Hi", "input": "Hi", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    wanted = {TEXT: ("prompt",), RESPONSES: ("input",), MESSAGES: ("messages", "max_tokens"), TOKENIZE: ("prompt",)}[path]
    status, answer = await post(session, site, site.request(path, {key: body[key] for key in ("model", *wanted)}, "resp_x"))
    assert site.wire.meaning(status, {}, answer, "gone@1") == NoAdapter()
