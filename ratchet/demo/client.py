"""The demo's users: the unmodified `openai` SDK, and a log of every request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Self, cast

import httpx2
from openai import AsyncOpenAI, OpenAIError
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from ratchet.clock import monotonic, wall
from ratchet.demo.exchange import Exchange, Log
from ratchet.demo.gaps import Stamp
from ratchet.demo.task import MAX_TOKENS, messages

TIMEOUT_SECONDS = 300.0
TAIL_BYTES = 64


class Client:
    """The SDK with one gateway. Requests are logged to `log`; none is retried, since a failure must be counted."""

    def __init__(self, gateway: str, key: str, log: Log) -> None:
        self.log = log
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        http = httpx2.AsyncClient(transport=_TailTransport(limits=limits), timeout=TIMEOUT_SECONDS)
        self.sdk = AsyncOpenAI(base_url=f"{gateway}/v1", api_key=key, http_client=http, max_retries=0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.sdk.close()

    async def stream(self, model: str, topic: str, n: int = 1) -> Exchange:
        """Stream `n` answers about `topic` and log them. What fails is noted in the exchange, not raised."""
        exchange = self._open(model, topic, streamed=True)
        done = False
        try:
            raw = await self.sdk.chat.completions.with_raw_response.create(
                **_body(model, topic, n), stream=True, stream_options={"include_usage": True}
            )
            exchange.policy = raw.headers.get("x-ratchet-policy", "")
            stream = raw.parse()
            async for chunk in stream:
                _take(exchange, chunk)
            done = cast(_Tail, stream.response.extensions["tail"]).done
        except (OpenAIError, httpx2.HTTPError) as error:
            exchange.error = _line(error)
        return _close(exchange, n, done=done)

    async def ask(self, model: str, topic: str, n: int, seed: int, *, store: bool = False) -> Exchange:
        """Ask for `n` answers, not streamed, with a sampling seed. Without `store` they are not recorded, so nothing learns from them."""
        exchange = self._open(model, topic, streamed=False)
        try:
            raw = await self.sdk.chat.completions.with_raw_response.create(**_body(model, topic, n), seed=seed, store=store)
            exchange.policy = raw.headers.get("x-ratchet-policy", "")
            answer = raw.parse()
            exchange.id = answer.id
            exchange.tokens = answer.usage.completion_tokens if answer.usage else 0
            for choice in answer.choices:
                exchange.answers[choice.index] = choice.message.content or ""
                exchange.finished.add(choice.index)
        except (OpenAIError, httpx2.HTTPError) as error:
            exchange.error = _line(error)
        return _close(exchange, n, done=True)

    async def rate(self, target: str, choice: int, value: float) -> str | None:
        """Post the reward of one answer and return the feedback's id; None if it is refused, which is logged as a failed request."""
        body = {"target": target, "choice": choice, "metric": "reward", "value": value, "idempotency_key": f"{target}/{choice}"}
        try:
            accepted: dict[str, Any] = await self.sdk.post("/feedback", cast_to=cast(Any, dict[str, Any]), body=body)
        except (OpenAIError, httpx2.HTTPError) as error:
            self.log.refused.append(f"feedback: {_line(error)}")
            return None
        self.log.posted += 1
        return str(accepted["id"])

    def _open(self, model: str, topic: str, *, streamed: bool) -> Exchange:
        exchange = Exchange(topic, model, streamed, _now())
        self.log.exchanges.append(exchange)
        return exchange


def _now() -> Stamp:
    return Stamp(wall(), monotonic())


def _body(model: str, topic: str, n: int) -> dict[str, Any]:
    chat = cast(list[ChatCompletionMessageParam], messages(topic))
    return {"model": model, "messages": chat, "n": n, "max_tokens": MAX_TOKENS, "temperature": 1.0}


def _take(exchange: Exchange, chunk: ChatCompletionChunk) -> None:
    now = _now()
    exchange.id = chunk.id
    if chunk.usage is not None:
        exchange.tokens = chunk.usage.completion_tokens
    for choice in chunk.choices:
        if choice.delta.content:
            exchange.stamps.setdefault(choice.index, []).append(now)
        exchange.answers[choice.index] = exchange.answers.get(choice.index, "") + (choice.delta.content or "")
        if choice.finish_reason is not None:
            exchange.finished.add(choice.index)


def _close(exchange: Exchange, n: int, *, done: bool) -> Exchange:
    exchange.ended = _now()
    if exchange.error is None:
        exchange.check(n, done=done)
    return exchange


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


class _Tail(httpx2.AsyncByteStream):
    """A response's bytes, passed on. It keeps the last few, since the SDK does not say whether `[DONE]` was among them."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner
        self._last = b""

    @property
    def done(self) -> bool:
        return self._last.rstrip().endswith(b"data: [DONE]")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._last = (self._last + chunk)[-TAIL_BYTES:]
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class _TailTransport(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        tail = _Tail(cast(httpx2.AsyncByteStream, response.stream))
        response.stream = tail
        response.extensions = _with(response.extensions, tail)
        return response


def _with(extensions: Mapping[str, Any], tail: _Tail) -> dict[str, Any]:
    return {**extensions, "tail": tail}
