"""Public names: ids the gateway mints, policy and version names, and the forms they may take.

Every check here is a full match on a small alphabet, so that a name can become a file name or a
store key without escaping (no separator, no dot-dot, no control character can pass).
"""

from __future__ import annotations

import os
import re
import threading
from typing import NamedTuple

POLICY = re.compile(r"[a-z0-9](?:[a-z0-9_-]|\.(?!\.)){0,62}", re.ASCII)
VERSIONED = re.compile(r"(?P<policy>[^@]+)@(?P<version>0|[1-9][0-9]{0,8})", re.ASCII)
RESPONSE_ID = re.compile(r"(?:chatcmpl-|cmpl-|resp_|msg_)[0-9a-f]{32}", re.ASCII)
EPISODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
CHAT_PREFIX, TEXT_PREFIX, RESPONSE_PREFIX, MESSAGE_PREFIX = "chatcmpl-", "cmpl-", "resp_", "msg_"


ID_BYTES, POOL = 16, 256
_local = threading.local()
# A child must not mint its parent's ids; which thread forks is known only then.
os.register_at_fork(after_in_child=lambda: _local.__dict__.clear())


class PolicyVersion(NamedTuple):
    """A policy's name and one of its versions; version 0 is the base itself."""

    policy: str
    version: int

    def __str__(self) -> str:
        return f"{self.policy}@{self.version}"


def mint(prefix: str) -> str:
    """A fresh public id: `prefix` and 32 hex digits of 128 random bits."""
    drawn = _local.__dict__.setdefault("drawn", [])
    if not drawn:  # one system call for many ids
        pool = os.urandom(ID_BYTES * POOL).hex()
        drawn += [pool[i : i + 2 * ID_BYTES] for i in range(0, len(pool), 2 * ID_BYTES)]
    return prefix + str(drawn.pop())


def bare(public_id: str) -> str:
    """A public id without its prefix: the part that an engine may be handed."""
    return public_id[-32:]


def is_name(text: str) -> bool:
    """Whether `text` may name a policy, a model or an engine."""
    return POLICY.fullmatch(text) is not None


def parse_version(text: str) -> PolicyVersion | None:
    """`support@7` as its parts, or None if `text` names no version."""
    found = VERSIONED.fullmatch(text)
    if found is None or not is_name(found["policy"]):
        return None
    return PolicyVersion(found["policy"], int(found["version"]))


def is_target(text: str) -> bool:
    """Whether feedback may name `text`: a response id of ours, or an episode id of at most 128 characters."""
    return RESPONSE_ID.fullmatch(text) is not None or EPISODE_ID.fullmatch(text) is not None
