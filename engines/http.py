"""One aiohttp client for each replica; its failures are EngineErrors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from engines.base import EngineControl
from ratchet.errors import EngineBroken, EngineRefused, EngineUnavailable
from ratchet.types import EngineRecord

CONNECT_SECONDS = 5.0
MAX_BYTES = 256 * 2**20
"""Bytes of an answer that is read whole (128 choices with their log-probs fit)."""


class Client:
    """Calls one engine's control and sampling routes. It follows no redirect and reads no proxy from the environment."""

    def __init__(self, record: EngineRecord) -> None:
        self._name = record.name
        self._base = record.url.rstrip("/")
        self._headers = authorization(record.api_key)
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, *, seconds: float) -> bytes:
        """The body of `GET path`; see `post` for the errors."""
        return await self._call("GET", path, None, seconds)

    async def post(self, path: str, body: Mapping[str, Any], *, seconds: float) -> bytes:
        """The body of `POST path` with a JSON `body`, within `seconds` in all.

        EngineUnavailable: no connection, no answer, or cut off before its head. EngineRefused: a status of 400 or more
        (or a redirect). EngineBroken: cut off within the body, or too long.
        """
        return await self._call("POST", path, msgspec.json.encode(body), seconds)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, method: str, path: str, data: bytes | None, seconds: float) -> bytes:
        async with self._told(path):
            timeout = aiohttp.ClientTimeout(total=seconds, connect=CONNECT_SECONDS)
            headers = self._headers if data is None else {**self._headers, "content-type": "application/json"}
            async with self._open().request(
                method, self._base + path, data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                body = await _read(answer, self._name)
                if answer.status >= 300:
                    text = body[:300].decode(errors="replace")
                    raise EngineRefused(f"engine {self._name} answered {answer.status} to {path}: {text}", answer.status, body)
                return body

    @asynccontextmanager
    async def _told(self, path: str) -> AsyncIterator[None]:
        try:
            yield
        except aiohttp.ClientPayloadError as error:
            raise EngineBroken(f"engine {self._name} broke off its answer to {path}: {error}") from None
        except TimeoutError:  # before OSError, whose kind it is
            raise EngineUnavailable(f"engine {self._name} gave no answer to {path} in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(f"engine {self._name} cannot be reached at {self._base}: {error or type(error).__name__}") from None

    def _open(self) -> aiohttp.ClientSession:
        # Made at the first call: a session belongs to the loop that runs then.
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False)
        return self._session


class HttpControl(EngineControl):
    """A control plane over one HTTP client."""

    def __init__(self, record: EngineRecord) -> None:
        super().__init__(record)
        self._client = Client(record)

    async def close(self) -> None:
        await self._client.close()


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries an engine's key; none without one."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


async def _read(answer: aiohttp.ClientResponse, name: str) -> bytes:
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size > MAX_BYTES:
            raise EngineBroken(f"engine {name} answered more than {MAX_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)
