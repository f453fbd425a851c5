"""Public names: the ids that the gateway creates, and the names of policies and versions.

Every check is a full match against a small alphabet. So a name that passes can be part of a file name or of a store key without
escaping: it has no separator, no `..` and no control character.
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
# After a fork, the child must not use ids from its parent's pool. The handler runs in the thread that forked.
os.register_at_fork(after_in_child=lambda: _local.__dict__.clear())


class PolicyVersion(NamedTuple):
    """A policy and one of its versions. Version 0 is the base model itself."""

    policy: str
    version: int

    def __str__(self) -> str:
        return f"{self.policy}@{self.version}"


def mint(prefix: str) -> str:
    """Return a new public id: `prefix` and 128 random bits as 32 hex digits."""
    drawn = _local.__dict__.setdefault("drawn", [])
    if not drawn:  # one system call makes many ids
        pool = os.urandom(ID_BYTES * POOL).hex()
        drawn += [pool[i : i + 2 * ID_BYTES] for i in range(0, len(pool), 2 * ID_BYTES)]
    return prefix + str(drawn.pop())


def bare(public_id: str) -> str:
    """Return a public id without its prefix. This is the part that may be sent to an engine."""
    return public_id[-32:]


def is_name(text: str) -> bool:
    """Return whether `text` is a valid name of a policy, a model or an engine."""
    return POLICY.fullmatch(text) is not None


def parse_version(text: str) -> PolicyVersion | None:
    """Split a name such as `support@7`. Return None if `text` is not the name of a version."""
    found = VERSIONED.fullmatch(text)
    if found is None or not is_name(found["policy"]):
        return None
    return PolicyVersion(found["policy"], int(found["version"]))


def is_target(text: str) -> bool:
    """Return whether `text` can be the target of feedback: the id of a response, or of an episode (at most 128 characters)."""
    return RESPONSE_ID.fullmatch(text) is not None or EPISODE_ID.fullmatch(text) is not None
