"""The store, on any server that speaks the Redis protocol and keeps what it acknowledged."""

from __future__ import annotations

import secrets
from pathlib import Path

from ratchet.buffer import schema
from ratchet.buffer.directory import Fleet, Keys
from ratchet.buffer.embedded import url_of
from ratchet.buffer.experience import Experience
from ratchet.buffer.feedback import Feedback
from ratchet.buffer.interactions import Interactions
from ratchet.buffer.link import Link
from ratchet.buffer.quotas import Quotas
from ratchet.buffer.registry import Registry
from ratchet.config import StoreConfig
from ratchet.errors import StoreUnavailable, StoreUnfit

EMBEDDED = "embedded"
OLDEST_SERVER = 7
SCHEMES = {"valkey://": "redis://", "valkeys://": "rediss://"}


class Store:
    """The parts of the store, one for each subject. See docs/store.md."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.interactions = Interactions(link)
        self.feedback = Feedback(link)
        self.experience = Experience(link, self.interactions)
        self.registry = Registry(link)
        self.keys = Keys(link)
        self.quotas = Quotas(link)
        self.fleet = Fleet(link)

    async def ping(self) -> None:
        """Return if the store responds. Raises StoreUnavailable."""
        await self._link.do("PING")

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()


async def open_store(url: str, config: StoreConfig, *, data: Path | None = None) -> Store:
    """Connect to `url`; "embedded" is the server that EmbeddedServer started under `data`.

    Raises StoreUnavailable if no server responds, StoreUnfit if the server would lose acknowledged data.
    """
    link = Link(_resolve(url, data), config)
    try:
        _check(_facts((await link.together(("INFO",)))[0]))
        await link.load()
        await link.do("SET", schema.STORE_ID, secrets.token_hex(8), "NX")
    except BaseException:
        await link.close()
        raise
    return Store(link)


def _resolve(url: str, data: Path | None) -> str:
    if url != EMBEDDED:
        for scheme, plain in SCHEMES.items():
            if url.startswith(scheme):
                return plain + url.removeprefix(scheme)
        return url
    if data is None:
        raise StoreUnavailable("the embedded store needs a data directory; give --data DIR")
    return url_of(data)


def _facts(info: dict[str, object]) -> dict[str, str]:
    return {str(name): str(value) for name, value in info.items()}


def _check(facts: dict[str, str]) -> None:
    """Raises StoreUnfit with what to do. INFO is read rather than CONFIG, which hosted servers forbid."""
    version = facts.get("redis_version", "0")
    if int(version.split(".")[0]) < OLDEST_SERVER:
        raise StoreUnfit(f"the store is version {version}; it needs Redis 7 or Valkey 7.2 at least")
    if facts.get("cluster_enabled", "0") != "0":
        raise StoreUnfit("the store is a cluster; transactions here span keys, so use a server of one node")
    if facts.get("role", "master") != "master":
        raise StoreUnfit("the store is a replica; point store.url at its primary")
    if facts.get("aof_enabled", "0") != "1":
        raise StoreUnfit("the store keeps no append-only file and would lose acknowledged data; set `appendonly yes` on it")
    if facts.get("maxmemory", "0") != "0" and facts.get("maxmemory_policy") != "noeviction":
        raise StoreUnfit(f"the store evicts data ({facts.get('maxmemory_policy')}); set `maxmemory-policy noeviction` on it")
    if facts.get("loading", "0") != "0":
        raise StoreUnavailable("the store is still reading its append-only file; try again")
