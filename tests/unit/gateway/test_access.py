"""What a key may do, as far as the key alone says, and how a wait is written."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.access.keys import may_use, require
from gateway.access.quota import duration
from gateway.errors import ApiError
from ratchet.types import KeyRecord


def key(**fields: Any) -> KeyRecord:
    return KeyRecord("key_a", "acme", ["infer"], 1.0, **fields)


def test_one_of_the_scopes_is_enough_and_none_is_not() -> None:
    caller = KeyRecord("one", "acme", ["infer"], 1.0)
    require(caller, frozenset({"infer", "operator"}))
    for scopes in (frozenset({"operator"}), frozenset[str]()):
        with pytest.raises(ApiError) as refused:
            require(caller, scopes)
        assert (refused.value.status, refused.value.code) == (403, "insufficient_permissions")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.017, "17ms"), (1, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (90.5, "1m30.5s"), (360, "6m0s"), (3600, "1h0m0s")],
)
def test_a_duration_is_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("models", "allowed", "not_allowed"),
    [
        (None, ["base", "support", "support@7"], []),
        (["support"], ["support", "support@0", "support@7"], ["base", "supports", "support@07", "support@", "support@7@7"]),
        (["support@7"], ["support@7"], ["support", "support@8", "support@70"]),
        (["base"], ["base"], ["support", "support@7", "Base", ""]),
        ([], [], ["base"]),
    ],
)
def test_a_policys_name_allows_its_versions_and_no_more(models: list[str] | None, allowed: list[str], not_allowed: list[str]) -> None:
    assert all(may_use(key(models=models), name) for name in allowed)
    assert not any(may_use(key(models=models), name) for name in not_allowed)
