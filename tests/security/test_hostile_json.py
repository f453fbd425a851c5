"""Row 14 of reliability.md: JSON from hostile hands is refused with 4xx, and never breaks anything."""

from __future__ import annotations

import json
import random

import pytest

from engines.routes import MESSAGES, POOLING, RESPONSES, TEXT, TOKENS
from tests.support.fault_figures import FULL, measured
from tests.support.gateway_process import POLICY, Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
MUTANTS = 2000 if FULL else 200
DEPTHS = (65, 1000, 10_000, 100_000)
UNSEEN = "chatcmpl-" + "0" * 32
ROUTES = {
    "/v1/chat/completions": (f'{{"model": "{POLICY}", "messages": [{{"role": "user", "content": "say:x"}}], "seed": ', "}", "client"),
    "/v1/feedback": (f'{{"target": "{UNSEEN}", "value": ', "}", "client"),
    "/v1/chat/completions/" + UNSEEN: ('{"metadata": ', "}", "client"),
    "/admin/policies/support/rollback": ('{"to": ', "}", "operator"),
    **dict.fromkeys((TEXT, RESPONSES, MESSAGES, *POOLING, *TOKENS), (f'{{"model": "{POLICY}", "seed": ', "}", "client")),
}
"""A body that is in order but for the value that is missing in it, and a key."""
VALUES = {
    **{f"{depth} lists": b"[" * depth + b"]" * depth for depth in DEPTHS},
    **{f"{depth} objects": b'{"a":' * depth + b"1" + b"}" * depth for depth in DEPTHS},
    **{f"{depth} lists without end": b"[" * depth for depth in DEPTHS},
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "1e999": b"1e999",
    "a long number": b"9" * 100_000,
    "a long negative number": b"-" + b"9" * 100_000,
    "a long fraction": b"0." + b"9" * 100_000 + b"e999999999",
    "an integer past 64 bits": b"18446744073709551616",
    "a number with a zero before it": b"0123",
    "a number in hex": b"0x10",
    "a duplicate key": b'{"a": "1", "a": "2"}',
    "a duplicate key, escaped": b'{"a": "1", "\\u0061": "2"}',
    "a lone high surrogate": b'{"a": "\\ud800"}',
    "a lone low surrogate": b'{"a": "\\udc00 "}',
    "a surrogate in UTF-8": b'{"a": "\xed\xa0\x80"}',
    "an overlong slash": b'{"a": "\xc0\xaf"}',
    "a byte that is no UTF-8": b'{"a": "\xff"}',
    "a control character": b'{"a": "\x00"}',
    "a comment": b"1 /* one */",
    "single quotes": b"{'a': 1}",
    "nothing": b"",
    "many keys": b"{" + b",".join(b'"%d": 1' % i for i in range(200_001)) + b"}",
}
BODIES = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a text": b'"x"',
    "a number": b"1",
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "two objects": b"{}{}",
    "a zero byte behind": b"{}\x00",
    "an object that is not closed": b'{"a": 1',
    "zeros": b"\x00" * 1000,
}


async def refused(made: Bench, path: str, body: bytes, key: str) -> None:
    answer = await made.call("POST", path, body, key=key)
    assert 400 <= answer.status_code < 500, (path, body[:100], answer.text[:300])
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert len(answer.content) < 2000


@pytest.mark.parametrize("what", VALUES)
async def test_a_value_that_is_no_sound_json_is_4xx_on_every_route(shared: Bench, what: str) -> None:
    for path, (before, after, key) in ROUTES.items():
        await refused(shared, path, before.encode() + VALUES[what] + after.encode(), key)


@pytest.mark.parametrize("what", BODIES)
async def test_a_body_that_is_no_object_is_4xx(shared: Bench, what: str) -> None:
    for path, (_, _, key) in ROUTES.items():
        if not (key == "operator" and what == "nothing"):  # a rollback without a body is in order
            await refused(shared, path, BODIES[what], key)


def mutant(rng: random.Random, body: bytes) -> bytes:
    """`body` with one or two pieces of it taken out, doubled, or written over with bytes that mean something in JSON."""
    changed = bytearray(body)
    for _ in range(rng.randint(1, 2)):
        start = rng.randrange(len(changed) + 1)
        end = start + rng.randint(0, 4)
        piece = bytes(rng.choice([rng.randbytes(3), b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"1e9", b"null", b"\\u", b"-"]))
        changed[start:end] = rng.choice([b"", piece, bytes(changed[start:end]) * 2])
    return bytes(changed)


async def test_no_mutant_of_a_sound_body_is_5xx(shared: Bench) -> None:
    rng = random.Random(14)
    sound = {path: (before + json.dumps({"a": "ü"}) + after).encode() for path, (before, after, _) in ROUTES.items()}
    statuses = []
    for _ in range(MUTANTS):
        path = rng.choice(list(ROUTES))
        answer = await shared.call("POST", path, mutant(rng, sound[path]), key=ROUTES[path][2])
        statuses.append(answer.status_code)
    measured(str({status: statuses.count(status) for status in set(statuses)}))
    assert max(statuses) < 500
    assert (await shared.chat()).status_code == 200
    assert "Traceback" not in shared.log()
