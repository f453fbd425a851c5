"""What routing reads of a request: its size in tokens, and the key that its strategy keeps together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.context import key, prefix, tokens
from ratchet.config import RoutingConfig

CONFIG = RoutingConfig(answer_tokens=100, max_answer_tokens=1000)


def by(strategy: str, **fields: Any) -> RoutingConfig:
    return RoutingConfig.model_validate({"strategy": strategy, **fields})


def chat(*turns: str, system: str = "Be kind.") -> dict[str, Any]:
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return {"messages": [{"role": "system", "content": system}, *messages]}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, 101 + 10),
        ({"max_tokens": 7}, 8 + 10),
        ({"max_completion_tokens": 9, "max_tokens": 7}, 10 + 10),
        ({"max_tokens": 10**9}, 1001 + 10),
        ({"max_tokens": 5, "n": 8}, 41 + 10),
        ({"max_tokens": None, "n": None}, 101 + 10),
        ({"max_output_tokens": 3}, 4 + 10),
    ],
)
def test_tokens_are_the_prompts_estimate_and_the_answers_limit_capped(tree: dict[str, Any], expected: int) -> None:
    assert tokens(tree, 40, CONFIG) == expected


def test_a_session_is_named_by_the_header_then_the_body_then_the_episode() -> None:
    tree = {"user": "u", "prompt_cache_key": "p"}
    config = by("session")
    assert key(tree, "header", "episode", None, config) == b"header"
    assert key(tree, "", "episode", None, config) == b"u"
    assert key({"prompt_cache_key": "p"}, "", "episode", None, config) == b"p"
    assert key({}, "", "episode", None, config) == b"episode"
    assert key({"user": None}, "", None, None, config) == b""
    assert len(key({"user": "x" * 10**6}, "", None, None, config)) == 512


def test_each_strategy_has_its_own_key() -> None:
    assert key(chat("hi"), "s", None, "support@1", by("adapter")) == b"support@1"
    assert key(chat("hi"), "s", None, None, by("adapter")) == b""
    assert key(chat("hi"), "s", None, "support@1", by("power_of_two")) == b""
    assert key(chat("hi"), "s", None, None, by("prefix", prefix_bytes=64)) == prefix(chat("hi"), 64)


def test_a_dialogue_keeps_its_prefix_turn_by_turn_and_another_has_another() -> None:
    first = prefix(chat("Hello"), 4096)
    assert prefix(chat("Hello", "Hi!", "And then?"), 4096) == first
    assert prefix(chat("Hello there"), 4096) != first
    assert prefix(chat("Hello", system="Be rude."), 4096) != first


def test_only_the_first_bytes_count() -> None:
    document = "x" * 64
    assert prefix(chat("one", system=document), 64) == prefix(chat("two", system=document), 64)
    assert prefix({"prompt": document + "a"}, 64) == prefix({"prompt": document + "b"}, 64)


@pytest.mark.parametrize(
    "tree",
    [
        {"prompt": "text"},
        {"prompt": ["several", "texts"]},
        {"prompt": [1, 2, 3]},
        {"prompt": [[1, 2], [3]]},
        {"input": "text"},
        {"input": [{"role": "user", "content": "text"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "text"}]}]},
        {"system": "s", "messages": [{"role": "user", "content": "text"}]},
        {"query": "text"},
    ],
)
def test_every_form_of_prompt_has_a_prefix(tree: dict[str, Any]) -> None:
    assert len(prefix(tree, 256)) == 16


def test_nothing_to_read_is_no_prefix() -> None:
    for tree in ({}, {"prompt": ""}, {"messages": []}, {"messages": [{"role": "user", "content": None}]}, {"prompt": 7}):
        assert prefix(tree, 256) == b""


@settings(deadline=None, max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
)
def test_no_body_however_odd_breaks_it(value: Any) -> None:
    for field in ("messages", "prompt", "input", "system"):
        assert len(prefix({field: value}, 128)) in (0, 16)
        assert len(prefix({"messages": [value, {"role": "user", "content": value}]}, 128)) in (0, 16)


def test_the_work_is_bounded_by_the_bytes_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the prompt and however its pieces are cut."""
    import gateway.routing.context as module

    texts, seen = module._texts, 0

    def counted(tree: Any) -> Any:
        nonlocal seen
        for text in texts(tree):
            seen += 1
            yield text

    monkeypatch.setattr(module, "_texts", counted)
    prefix({"prompt": [""] * 10**5}, 1000)
    prefix({"messages": [{"role": "system", "content": "x"}] * 10**5}, 1000)
    assert seen <= 2002
