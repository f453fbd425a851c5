"""gateway.server.strict: JSON that leaves nothing to interpretation."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ApiError
from gateway.server.strict import HIGHEST, LOWEST, MAX_PARTS, parse

TREES = st.recursive(
    st.none() | st.booleans() | st.integers(LOWEST, HIGHEST) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), TREES, max_size=5), st.booleans())
def test_any_object_comes_back_as_it_was(tree: dict[str, object], escaped: bool) -> None:
    body = json.dumps(tree, ensure_ascii=escaped).encode()
    assert parse(body, 64) == tree


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"[]",
        b'"text"',
        b"null",
        b'{"a": 1',
        b'{"a": 1} {"b": 2}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\udc00"}',
        b'{"\\ud800": 1}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        b'{"a": 9223372036854775808}',
        b'{"a": -9223372036854775809}',
        b'{"a": [' + b"9" * 100_000 + b"]}",
        b'{"a": ' + b"[" * 100_000,
        b'{"a": 01}',
        b"{'a': 1}",
        b'{"a": 1,}',
    ],
)
def test_what_is_no_plain_json_object_is_400(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        parse(body, 64)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": [{"b": 1}, {"c": 1, "c": 2}]}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a" :1,"b":":x","a":2}',
        b'{"a"\n:1,"b":":x","c":":y","a":2,"a":3}',
    ],
)
def test_a_key_given_twice_is_400_at_any_depth_and_in_any_spelling(body: bytes) -> None:
    with pytest.raises(ApiError, match="duplicate key"):
        parse(body, 64)


@given(st.dictionaries(st.text(), TREES, min_size=1, max_size=5), st.sampled_from([":", " :", ": ", "\t:", "\n: "]), st.data())
def test_a_key_given_twice_is_400_whatever_the_rest_and_the_spacing(tree: dict[str, object], colon: str, data: st.DataObject) -> None:
    twice = data.draw(st.sampled_from(sorted(tree)))
    body = json.dumps(tree, separators=(",", colon))[:-1] + f",{json.dumps(twice)}{colon}1}}"
    with pytest.raises(ApiError, match="duplicate key"):
        parse(body.encode(), 64)


def test_colons_and_quotes_inside_strings_are_no_keys() -> None:
    tree = {"a:b": 'c":"d', "e": "\\", "f": {"g": ":::"}}
    assert parse(json.dumps(tree).encode(), 64) == tree


def test_depth_is_counted_in_objects_and_arrays() -> None:
    assert parse(b'{"a": [[1]]}', 3)
    with pytest.raises(ApiError, match="deeper than 3"):
        parse(b'{"a": [[[]]]}', 3)


@pytest.mark.parametrize("part", [b"[],", b"{},", b"0,", b'"",', b'{"a":'])
def test_a_body_of_too_many_values_is_400_before_any_is_made(part: bytes) -> None:
    body = b'{"a": [' + part * (MAX_PARTS + 1)
    tracemalloc.start()
    with pytest.raises(ApiError, match="more than") as refused:
        parse(body, 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.code == "invalid_json"
    assert peak < len(body)


def test_a_long_text_of_escapes_takes_little_more_than_its_own_memory() -> None:
    body = b'{"a": "' + b"\\n" * 2**20 + b'"}'
    tracemalloc.start()
    tree = parse(body, 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tree == {"a": "\n" * 2**20}
    assert peak < 4 * len(body)
