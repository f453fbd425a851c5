from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import Wants
from engines.vllm.capture import capture_whole
from tests.support.vllm_samples import ID, MODEL, chunk, first, last, payloads, stream, whole

OTHER = "chatcmpl-" + "cd" * 16
ALL = Wants(logprobs=True, token_ids=True, usage=True)
RECORDED = ["two_choices.sse", "stop_string.sse", "empty.sse", "tool.sse"]


def without(tree: dict[str, Any]) -> dict[str, Any]:
    """What a client may see of an answer, by parsing: what the cut bytes are compared with."""
    tree.pop("prompt_token_ids", None)
    for choice in tree["choices"]:
        choice.pop("token_ids", None)
        choice["logprobs"] = None
    return tree


@pytest.mark.parametrize("name", RECORDED)
def test_a_client_that_asked_for_everything_gets_the_engines_own_bytes(name: str) -> None:
    assert stream(payloads(name), ALL)[0] == payloads(name)


@pytest.mark.parametrize("name", RECORDED)
def test_a_client_that_asked_for_nothing_sees_nothing_that_was_asked_for_the_recorder(name: str) -> None:
    seen, _ = stream(payloads(name))
    joined = b"".join(seen)
    for span in (b"token_ids", b'"logprob"', b"usage"):
        assert span not in joined
    assert seen[-1] == b"[DONE]"


@pytest.mark.parametrize("name", RECORDED)
def test_cutting_gives_what_parsing_would(name: str) -> None:
    events = [json.loads(e) for e in payloads(name)[:-1]]
    kept = [e for e in events if e["choices"] and (e["choices"][0]["delta"] or e["choices"][0]["finish_reason"])]
    assert [json.loads(e) for e in stream(payloads(name))[0][:-1]] == [without(e) for e in kept]


@given(st.text(max_size=30), st.lists(st.integers(0, 50_000), max_size=3))
def test_any_text_passes_through_the_cut_unharmed(text: str, ids: list[int]) -> None:
    event = chunk(text, ids, [-0.25] * len(ids))
    seen = stream([event])[0][0]
    assert json.loads(seen) == without(json.loads(event))


HOSTILE = [
    '"logprobs":{"content":[]}',
    ',"token_ids":[7]',
    '\\","token_ids":[7],"x":"',
    f'"id":"{ID}"',
    '"prompt_token_ids":[5]',
    '"model":"smollm2"',
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_that_looks_like_a_span_is_not_cut(text: str) -> None:
    seen, captured = stream([first([5]), chunk(text, [7], [-0.5]), last(1, 1)], public_id=OTHER, model="support")
    shown = json.loads(seen[1])
    assert shown["choices"][0]["delta"]["content"] == text
    assert captured.choices[0].message["content"] == text
    assert (shown["id"], shown["model"]) == (OTHER, "support")
    assert "token_ids" not in shown["choices"][0]


def test_log_probs_that_were_asked_for_stay_to_the_byte_while_ids_go() -> None:
    seen, _ = stream(payloads("stop_string.sse"), Wants(logprobs=True))
    event = payloads("stop_string.sse")[1]
    assert seen[1] == event.replace(b',"token_ids":[504]', b"")


def test_top_log_probs_that_were_asked_for_stay_to_the_byte() -> None:
    body = whole("top_logprobs.json")
    seen, captured = capture_whole(body, Wants(logprobs=True), ID, MODEL)
    spans = [body[body.index(b'"logprobs":') : body.index(b',"finish_reason"')]]
    assert all(span in seen for span in spans)
    assert b"token_ids" not in seen
    assert captured.exact


def test_usage_that_was_asked_for_stays() -> None:
    assert b'"usage"' in stream(payloads("empty.sse"), Wants(usage=True))[0][-2]


def test_a_chunk_sent_only_for_its_ids_is_dropped_unless_they_were_asked_for() -> None:
    empty = sum(b'"delta":{}' in e and b'"finish_reason":null' in e for e in payloads("tool.sse"))
    assert empty > 20
    assert len(stream(payloads("tool.sse"))[0]) == len(payloads("tool.sse")) - empty - 1
    assert len(stream(payloads("tool.sse"), Wants(token_ids=True))[0]) == len(payloads("tool.sse")) - 1


def test_the_last_chunk_stays_though_its_delta_is_empty() -> None:
    assert b'"finish_reason":"stop"' in stream(payloads("empty.sse"))[0][-2]


def test_a_foreign_id_and_model_are_rewritten() -> None:
    for seen in stream(payloads("two_choices.sse"), public_id=OTHER, model="support")[0][:-1]:
        shown = json.loads(seen)
        assert (shown["id"], shown["model"]) == (OTHER, "support")
    body, _ = capture_whole(whole("whole.json"), Wants(), OTHER, "support")
    assert (json.loads(body)["id"], json.loads(body)["model"]) == (OTHER, "support")


@pytest.mark.parametrize("style", [{"indent": 1}, {"separators": (", ", ": ")}, {"sort_keys": True}])
def test_other_white_space_or_order_of_keys_is_handled_by_parsing(style: dict[str, Any]) -> None:
    events = [json.dumps(json.loads(e), **style).encode() for e in payloads("two_choices.sse")[:-1]]
    seen, captured = stream(events, public_id=OTHER)
    assert captured.exact
    assert [json.loads(e) for e in seen] == [without(json.loads(e)) | {"id": OTHER} for e in events[:-1]]


def test_a_whole_answer_loses_each_choices_spans() -> None:
    tree = json.loads(whole("whole.json"))
    tree["choices"] = [{**tree["choices"][0], "index": i, "token_ids": [i, 7]} for i in range(3)]
    seen, _ = capture_whole(json.dumps(tree, separators=(",", ":")).encode(), Wants(), ID, MODEL)
    assert json.loads(seen) == without(tree)
