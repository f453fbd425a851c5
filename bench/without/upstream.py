"""The way to the engines: aiohttp in place of our HTTP client, and a task's turn for each chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import aiohttp

from bench.without.optimisation import optimisation, override, replace
from gateway.relay.transport import KEEPALIVE_SECONDS, Closed, NotConnected, Pool, Response, TransportError

OWN_HEADERS = ("User-Agent", "Accept", "Accept-Encoding")
"""Headers that aiohttp adds of its own accord."""
T = TypeVar("T")


class AiohttpPool:
    """The interface of `transport.Pool` on an aiohttp session."""

    def __init__(self, url: str, connect_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds)
        self._session: aiohttp.ClientSession | None = None
        self._closing: set[asyncio.Future[None]] = set()

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> AiohttpResponse:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout, auto_decompress=False)
        sent = {"content-type": "application/json", **headers}
        request = self._session.post(self._url + path, data=body, headers=sent, skip_auto_headers=OWN_HEADERS, allow_redirects=False)
        return AiohttpResponse(request)

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            closing = asyncio.ensure_future(session.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    close_idle = close


class AiohttpResponse:
    """The interface of `transport.Response` on aiohttp's. aiohttp does not say whether a connection was a kept one."""

    def __init__(self, request: Coroutine[Any, Any, aiohttp.ClientResponse]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._request = request
        self._response: aiohttp.ClientResponse | None = None
        self._error: TransportError | None = None
        self._reader: asyncio.Task[Any] | None = None

    async def head(self) -> int:
        response = self._response = await self._guarded(self._request)
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.status = response.status
        return self.status

    async def read(self) -> bytes:
        assert self._response is not None
        return await self._guarded(self._response.content.readany())

    async def feed(self, sink: Callable[[bytes], bool]) -> None:
        while (data := await self.read()) and sink(data):
            pass

    def fail(self, error: TransportError) -> None:
        self._error = self._error or error
        if self._reader is not None:
            self._reader.cancel()
        self.close()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()  # its connection was given back before, if the whole answer was read
        elif self._reader is None:
            self._request.close()

    async def _guarded(self, reading: Awaitable[T]) -> T:
        """Wait for aiohttp; its errors become those of `transport`, and `fail` ends the wait."""
        if self._error is not None:
            raise self._error
        task = self._reader = asyncio.current_task()
        try:
            return await reading
        except asyncio.CancelledError:
            failed: TransportError | None = self._error  # of `fail`, meanwhile
            if failed is None or task is None:
                raise
            task.uncancel()
            raise failed from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotConnected(str(error)) from error
        except aiohttp.ClientError as error:
            raise Closed(str(error) or type(error).__name__) from error
        finally:
            self._reader = None


@optimisation("HTTP client of our own to the engines, on httptools", instead="aiohttp's client")
def upstream_client() -> None:
    replace(Pool, AiohttpPool)


@optimisation("a chunk is handled in the call that read it from the engine's socket", instead="the request's task is woken for each chunk")
def pushed_chunks() -> None:
    async def feed(self: Response, sink: Callable[[bytes], bool]) -> None:
        while (data := await self.read()) and sink(data):
            pass

    override(Response, "feed", feed)
