"""A stream's plain chunks, one after another: the same bytes around a piece of text, its log-probs and its ids.

Such a chunk is split at three places instead of being parsed: a quarter of the cost, on every token's way. That is sound because a
quote inside a JSON string stands behind a backslash: what begins with a bare quote, or with a comma and one, is found only where it
is. Whatever has another shape is parsed as before.
"""

from __future__ import annotations

from typing import NamedTuple

from engines.wire import ABSENT, NULL, Body, Part

OPENINGS = ((b'"delta":{"content":"', b'"},"logprobs":'), (b'"text":"', b'","logprobs":'))
"""What stands before and behind the text of a chat's chunk, and of a text completion's."""
IDS = b'"token_ids":['
NEXT = b'},"'
"""What is behind an object where a key follows that the plain chunk did not have: a finish reason, of an engine that writes no nulls."""


class Shape(NamedTuple):
    """`opening` text `closing` log-probs `between` ids `ending`; the client is shown `shown` text `rest`."""

    opening: bytes
    closing: bytes
    between: bytes
    ending: bytes
    shown: bytes
    rest: bytes

    def split(self, data: bytes) -> tuple[bytes, bytes, bytes] | None:
        """The text as JSON has it between its quotes, the log-probs' and the ids' JSON; None for a chunk of another shape."""
        opening, closing, between, ending, _, _ = self
        if not data.startswith(opening):
            return None
        text_end = data.find(closing, len(opening))
        found = data.find(between, text_end)
        end = len(data) - len(ending)
        text = data[len(opening) : text_end]
        if text_end < 0 or found < 0 or b'"' in text or not data.endswith(ending):
            return None
        ids = data[found + len(between) - 1 : end]
        logprobs = data[text_end + len(closing) : found]
        if ids.find(b"]") != len(ids) - 1 or (logprobs != NULL and (not logprobs.startswith(b"{") or NEXT in logprobs)):
            return None
        return text, logprobs, ids


def learn(data: bytes, body: Body, visible: bytes) -> Shape | None:
    """The shape of a chunk, given it parsed and as the client sees it; None if it is no plain one."""
    if body.usage is not None or len(body.choices) != 1 or not _plain(body.choices[0]):
        return None
    for opens, closing in OPENINGS:
        opening, at, behind = data.partition(opens)
        text, closes, behind = behind.partition(closing)
        _, ids, after = behind.partition(IDS)
        before, _, ending = after.partition(b"]")
        if at and closes and ids and b'"' not in text:
            values = bytes(body.choices[0].logprobs)
            between = behind[len(values) : behind.find(IDS) + len(IDS)]
            shown, _, rest = visible.partition(opens)
            made = Shape(opening + opens, closing, between, ending, shown + opens, rest[len(text) :])
            whole = made.opening + text + closing + values + between + before + b"]" + ending
            return made if whole == data and made.shown + text + made.rest == visible and between.startswith(b',"') else None
    return None


def _plain(part: Part) -> bool:
    prompt = part.prompt_token_ids is ABSENT or bytes(part.prompt_token_ids) == NULL
    told = part.logprobs is not ABSENT and part.token_ids is not ABSENT
    delta = part.delta
    bare = part.text is not None if delta is None else delta.role is None and delta.content is not None
    return prompt and told and bare and part.finish_reason is None
