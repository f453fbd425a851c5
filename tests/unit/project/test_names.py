"""Public names and the error tree."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet import errors, names


@given(st.text(max_size=80))
def test_no_accepted_name_can_leave_its_folder(text: str) -> None:
    if names.is_name(text):
        assert text.isascii()
        assert len(text) <= 63
        assert not {"/", "\\", "\0", "@", " "} & set(text)
        assert ".." not in text
        assert text[0] not in ".-_"


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a..b", "A", "a b", "a\n", "é", "-a", "a" * 64, "a@1", "%2e%2e"])
def test_what_is_no_name_is_refused(text: str) -> None:
    assert not names.is_name(text)


@given(st.from_regex(names.POLICY, fullmatch=True), st.integers(0, 10**9 - 1))
def test_a_version_reads_back_as_written(policy: str, version: int) -> None:
    assert names.parse_version(f"{policy}@{version}") == names.PolicyVersion(policy, version)
    assert str(names.PolicyVersion(policy, version)) == f"{policy}@{version}"


@pytest.mark.parametrize("text", ["support", "support@", "support@-1", "support@01", "support@1.0", "@1", "a@b@1", "support@٣", "x/y@1"])
def test_what_is_no_version_is_none(text: str) -> None:
    assert names.parse_version(text) is None


def test_minted_ids_are_fresh_and_targets() -> None:
    minted = {names.mint(names.CHAT_PREFIX) for _ in range(100)}
    assert len(minted) == 100
    assert all(names.is_target(one) and names.RESPONSE_ID.fullmatch(one) for one in minted)


@pytest.mark.parametrize(
    ("text", "is_one"), [("ticket-42:a.b_c", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a b", False), ("-a", False)]
)
def test_an_episode_id_is_a_target_if_it_is_short_and_plain(text: str, is_one: bool) -> None:
    assert names.is_target(text) is is_one


def test_every_error_of_ours_is_a_ratchet_error_and_in_the_tree() -> None:
    ours = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(ours) > 10
    assert all(issubclass(error, errors.RatchetError) for error in ours)
    assert not [error.__name__ for error in ours if error.__name__ not in str(errors.__doc__)]


def test_errors_carry_what_their_handlers_need() -> None:
    refused = errors.GateRefused("heldout", "0.2 below the live version")
    assert (refused.gate, refused.why, str(refused)) == ("heldout", "0.2 below the live version", "heldout: 0.2 below the live version")
    assert errors.EngineRefused("no", status=404, body=b"{}").status == 404


def test_a_child_that_any_thread_forks_mints_ids_of_its_own() -> None:
    def forked() -> tuple[str, list[str]]:
        names.mint("")
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.write(write, names.mint("").encode())
            os._exit(0)
        os.waitpid(child, 0)
        first = os.read(read, 64).decode()
        os.close(read)
        os.close(write)
        return first, [names.mint("") for _ in range(names.POOL)]

    with ThreadPoolExecutor(1) as pool:
        theirs, ours = pool.submit(forked).result()
    assert len(theirs) == 2 * names.ID_BYTES
    assert theirs not in ours
