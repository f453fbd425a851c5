"""What every engine under contract does: exact records, the client's bytes, its control plane."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engines import Captured, Wants, connect, sse
from engines.routes import CHAT
from ratchet import names
from ratchet.errors import EngineRefused, EngineUnavailable
from ratchet.process import free_port
from ratchet.types import EngineRecord
from tests.contracts.sites import BASE, JSON, Site, post
from tests.contracts.sites import ask as asked
from tests.support.vllm_server import write_adapter

TEXTS = {
    "plain": "The moon is bright.",
    "unicode": "naïve Straße — œuvre, Ελλάδα, 日本語",
    "emoji": "🙂👩‍👩‍👧 ok 🏳️‍🌈",
    "code": 'def f(x):\n\treturn {"a": x["logprobs"]}  # ,"token_ids":[1]\n',
    "quotes": '\\"logprobs\\":{"content":[]} \\u0041 "',
}
HELLO = [{"role": "user", "content": "Hi"}]
BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


async def ask(session: aiohttp.ClientSession, site: Site, fields: dict[str, Any], wants: Wants | None = None) -> tuple[bytes, Captured]:
    """A chat as the gateway relays it: what the client sees, and the record."""
    fields = {"model": BASE, "max_tokens": 80, **fields}
    _, seen, captured = await asked(session, site, CHAT, fields, wants or Wants(), names.CHAT_PREFIX, fields["model"])
    assert captured.finished
    return seen, captured


def seen_text(seen: bytes, streamed: bool) -> str:
    if not streamed:
        return str(json.loads(seen)["choices"][0]["message"]["content"])
    events = [json.loads(e) for e in sse.split(seen)[0][:-1]]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events)


@BOTH
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
async def test_ids_and_log_probs_are_exact_and_the_ids_decode_to_the_text(
    site: Site, session: aiohttp.ClientSession, text: str, streamed: bool
) -> None:
    seen, captured = await ask(session, site, {**site.asked_to_say(text), "stream": streamed, "max_tokens": 160})
    choice = captured.choices[0]
    assert captured.exact
    assert choice.message["content"] == text == seen_text(seen, streamed) == site.decoded(choice.token_ids)
    assert len(choice.logprobs) == captured.usage["completion_tokens"]
    assert all(value <= 0 for value in choice.logprobs)
    assert len(captured.prompt_ids) == captured.usage["prompt_tokens"]


@BOTH
async def test_an_empty_answer_is_exact(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    seen, captured = await ask(session, site, {**site.asked_to_say(""), "stream": streamed})
    assert captured.exact
    assert captured.choices[0].message["content"] == "" == seen_text(seen, streamed)
    assert len(captured.choices[0].token_ids) == 1  # the end token


@BOTH
async def test_every_choice_is_exact_and_the_id_is_the_public_one(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    fields = {"messages": [{"role": "user", "content": "Say hi"}], "n": 3, "max_tokens": 6, "temperature": 1.0, "stream": streamed}
    seen, captured = await ask(session, site, fields)
    assert captured.exact
    assert [c.index for c in captured.choices] == [0, 1, 2]
    first = json.loads(sse.split(seen)[0][0] if streamed else seen)
    assert names.RESPONSE_ID.fullmatch(first["id"])


async def test_the_engine_takes_the_public_id_over_so_that_nothing_is_rewritten(site: Site, session: aiohttp.ClientSession) -> None:
    public_id = names.mint(names.CHAT_PREFIX)
    status, body = await post(session, site, site.request(CHAT, {"model": BASE, "messages": HELLO, "max_tokens": 1}, public_id))
    assert (status, json.loads(body)["id"]) == (200, public_id)


async def test_nothing_asked_for_the_recorder_is_seen_by_the_client(site: Site, session: aiohttp.ClientSession) -> None:
    for streamed in (False, True):
        seen, _ = await ask(session, site, {"messages": HELLO, "max_tokens": 4, "stream": streamed})
        assert b"token_ids" not in seen
        assert b'"logprob"' not in seen
        if streamed:
            assert b'"usage"' not in seen


async def test_a_client_that_asks_gets_its_log_probs_and_its_usage(site: Site, session: aiohttp.ClientSession) -> None:
    fields = {"messages": HELLO, "max_tokens": 4, "stream": True, "temperature": 0.5, "logprobs": True}
    fields["stream_options"] = {"include_usage": True}
    seen, captured = await ask(session, site, fields, Wants(logprobs=True, usage=True))
    events = [json.loads(event) for event in sse.split(seen)[0][:-1]]
    entries = [entry for event in events for part in event["choices"] for entry in (part["logprobs"] or {"content": []})["content"]]
    assert [entry["logprob"] for entry in entries] == captured.choices[0].logprobs
    assert events[-1]["usage"]["completion_tokens"] == captured.usage["completion_tokens"]


async def test_an_unrecorded_request_asks_for_nothing_that_the_client_did_not(site: Site, session: aiohttp.ClientSession) -> None:
    fields = {"model": BASE, "messages": HELLO, "max_tokens": 4, "stream": True}
    sent = site.wire.request(CHAT, fields, model=BASE, public_id=names.mint(names.CHAT_PREFIX), record=False)
    _, bare = await post(session, site, sent)
    _, full = await post(session, site, site.request(CHAT, fields, names.mint(names.CHAT_PREFIX)))
    assert len(bare) < len(full)


@BOTH
async def test_a_stop_string_leaves_ids_and_log_probs_in_step(site: Site, session: aiohttp.ClientSession, streamed: bool) -> None:
    _, captured = await ask(session, site, {**site.asked_to_say("one two three"), "stop": ["two"], "stream": streamed})
    assert captured.exact
    assert captured.choices[0].message["content"] == "one "
    assert captured.choices[0].finish_reason == "stop"


async def test_it_is_healthy_and_lists_its_base_first(site: Site, tmp_path: Path) -> None:
    assert await site.engine.health()
    assert await site.hold({"a@1": write_adapter(tmp_path / "a", 1)}) == [BASE, "a@1"]
    assert await site.engine.health()
    assert await site.hold({}) == [BASE]


async def test_it_comes_to_hold_the_adapters_that_are_wanted_and_each_answers_for_itself(site: Site, tmp_path: Path) -> None:
    paths = {f"b@{i}": write_adapter(tmp_path / str(i), i) for i in (1, 2)}
    assert set(await site.hold(paths)) == {BASE, *paths}
    found = [await site.engine.generate(name, [1, 10, 20], max_tokens=4, temperature=0) for name in (BASE, *paths)]
    assert len({tuple(samples[0].logprobs) for samples in found}) == 3
    assert set(await site.hold({"b@2": paths["b@2"]})) == {BASE, "b@2"}
    assert await site.hold({}) == [BASE]


async def test_an_adapter_answers_a_chat_under_the_name_that_the_client_asked_for(
    site: Site, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await site.hold({"c@1": write_adapter(tmp_path / "c", 1)})
    fields = {"model": "c@1", "messages": HELLO, "max_tokens": 4, "stream": True}
    _, seen, captured = await asked(session, site, CHAT, fields, Wants(), names.CHAT_PREFIX, "support@3")
    assert captured.exact
    assert {json.loads(event)["model"] for event in sse.split(seen)[0][:-1]} == {"support@3"}
    await site.hold({})


async def test_samples_have_exact_ids_and_log_probs(site: Site) -> None:
    samples = await site.engine.generate(BASE, [1, 10, 20], n=3, max_tokens=5, temperature=1.0, seed=7, priority=5)
    assert len(samples) == 3
    for sample in samples:
        assert 0 < len(sample.token_ids) == len(sample.logprobs) <= 5
        assert sample.finish_reason in ("stop", "length")
        assert site.decoded(sample.token_ids) == sample.text


async def test_sampling_an_unknown_model_is_refused(site: Site) -> None:
    with pytest.raises(EngineRefused) as caught:
        await site.engine.generate("nobody@3", [1], max_tokens=1)
    assert caught.value.status == 404


async def test_metrics_tell_slots_and_rise_while_it_answers(site: Site, session: aiohttp.ClientSession) -> None:
    assert (await site.engine.metrics()).running == 0
    fields = {"model": BASE, "messages": HELLO, "stream": True, "max_tokens": 400, "ignore_eos": True}
    request = site.request(CHAT, fields, names.mint(names.CHAT_PREFIX))
    url = site.engine.record.url + request.path
    async with session.post(url, data=request.body, headers={**JSON, **request.headers}) as answer:
        await answer.content.readuntil(b"\n\n")
        load = await site.engine.metrics()
    assert load.slots == site.engine.record.slots > 0
    assert load.waiting == 0
    if site.real:  # the others are through in a moment
        assert load.running == 1


async def test_nobody_there_is_unavailable_whatever_is_asked(site: Site) -> None:
    engine = connect(EngineRecord("gone", site.engine.record.kind, BASE, f"http://127.0.0.1:{free_port()}", BASE))
    for call in (engine.models(), engine.health(), engine.metrics(), engine.generate(BASE, [1], max_tokens=1)):
        with pytest.raises(EngineUnavailable):
            await call
    await engine.close()
