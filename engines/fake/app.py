"""The routes, over aiohttp's server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from engines.fake import answers, asks, pooling
from engines.fake.asks import Ask
from engines.fake.faults import FaultPlan, Faults, inject
from engines.fake.forms.base import Form
from engines.fake.forms.chats import ChatForm
from engines.fake.forms.messages import MessageForm
from engines.fake.forms.responses import ResponseForm
from engines.fake.forms.texts import TextForm
from ratchet import names

MAX_REQUESTS = 1000
"""Request bodies that `GET /fake/state` lists, the latest."""
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
_T = TypeVar("_T")


class _Route(NamedTuple):
    """How a generating route is read, how it is answered, and what its ids begin with."""

    read: Callable[[dict[str, Any]], Ask]
    form: type[Form]
    prefix: str


ROUTES = {
    CHAT: _Route(asks.of_chat, ChatForm, names.CHAT_PREFIX),
    "/v1/completions": _Route(asks.of_text, TextForm, names.TEXT_PREFIX),
    "/v1/responses": _Route(asks.of_response, ResponseForm, names.RESPONSE_PREFIX),
    MESSAGES: _Route(asks.of_message, MessageForm, names.CHAT_PREFIX),
}


class _Refused(Exception):
    """An error as its answer."""

    def __init__(self, status: int, kind: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.retry_after = status, kind, retry_after

    def response(self, path: str) -> web.Response:
        """In OpenAI's form, or in Anthropic's on its route."""
        if path == MESSAGES:
            tree: dict[str, Any] = {"type": "error", "error": {"type": self.kind, "message": str(self)}}
        else:
            tree = {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.status}}
        answer = _json(tree, self.status)
        if self.retry_after is not None:
            answer.headers["retry-after"] = str(self.retry_after)
        return answer


class _Adapter(msgspec.Struct):
    lora_name: str = ""
    lora_path: str = ""


class FakeEngine:
    """One engine's state: adapters (in memory, so that a restart loses them), faults, and what it was asked."""

    def __init__(self, model: str, *, slots: int, faults: Faults) -> None:
        self.model = model
        self.adapters: dict[str, str] = {}
        self.plan = FaultPlan(faults)
        self.requests: deque[dict[str, Any]] = deque(maxlen=MAX_REQUESTS)
        """Their bodies."""
        self.traces: deque[str] = deque(maxlen=MAX_REQUESTS)
        """The requests' `traceparent`, "" where they had none."""
        self.running = self.waiting = self.aborted = 0
        self._slots = asyncio.Semaphore(slots)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._refusing])
        app.add_routes(
            [
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
                web.get("/v1/models", self.models),
                web.post("/v1/load_lora_adapter", self.load),
                web.post("/v1/unload_lora_adapter", self.unload),
                web.post(CHAT, self.chat),
                *(web.post(path, partial(self.generate, path)) for path in ROUTES if path != CHAT),
                *(web.post(path, partial(self.pool, answer)) for path, answer in pooling.ROUTES.items()),
                web.post("/fake/faults", self.set_faults),
                web.post("/fake/forget", self.forget),
                web.get("/fake/state", self.show),
            ]
        )
        return app

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def metrics(self, request: web.Request) -> web.Response:
        label = f'{{engine="0",model_name="{self.model}"}}'
        lines = [f"vllm:num_requests_running{label} {self.running}.0", f"vllm:num_requests_waiting{label} {self.waiting}.0", ""]
        return web.Response(text="\n".join(lines))

    async def models(self, request: web.Request) -> web.Response:
        base = {"id": self.model, "object": "model", "owned_by": "vllm", "root": self.model, "parent": None}
        adapters = [{**base, "id": name, "root": path, "parent": self.model} for name, path in self.adapters.items()]
        return _json({"object": "list", "data": [base, *adapters]})

    async def load(self, request: web.Request) -> web.Response:
        asked = await _read(request, _Adapter)
        if not asked.lora_name or not asked.lora_path or asked.lora_name == self.model:
            raise _Refused(400, "InvalidUserInput", f"The lora adapter '{asked.lora_name}' conflicts with a served base model.")
        if asked.lora_name in self.adapters:
            raise _Refused(400, "InvalidUserInput", f"The lora adapter '{asked.lora_name}' has already been loaded.")
        if not _is_adapter(asked.lora_path):
            raise _Refused(404, "NotFoundError", f"Loading lora {asked.lora_name} failed: No adapter found for {asked.lora_path}")
        self.adapters[asked.lora_name] = asked.lora_path
        return web.Response(text=f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    async def unload(self, request: web.Request) -> web.Response:
        asked = await _read(request, _Adapter)
        if self.adapters.pop(asked.lora_name, None) is None:
            raise _Refused(404, "NotFoundError", f"The lora adapter '{asked.lora_name}' cannot be found.")
        return web.Response(text=f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self.generate(CHAT, request)

    async def generate(self, path: str, request: web.Request) -> web.StreamResponse:
        route = ROUTES[path]
        tree, faults = await self._enter(request)
        ask = _read_as(route.read, tree)
        self._serves(ask.model)
        if not 1 <= ask.n <= 128 or ask.limit < 1:
            raise _Refused(400, "BadRequestError", f"n must be at least 1, got {ask.n}.")
        if not ask.playable:
            raise _Refused(400, "BadRequestError", "The schema is none.")
        form, pace = route.form(ask, route.prefix + _ident(request)), _pace(request, faults)
        async with self._busy():
            try:
                if ask.stream:
                    return await self._stream(request, form, pace)
                return _json(form.whole([t async for t in answers.tokens(ask, pace)]))
            except ConnectionResetError:
                return web.Response(status=500)  # the connection is closed: nobody reads it

    async def pool(self, answer: pooling.Answer, request: web.Request) -> web.StreamResponse:
        """The routes that generate nothing: one step of work."""
        tree, faults = await self._enter(request)
        self._serves(served := str(tree.get("model")))
        async with self._busy():
            try:
                await _pace(request, faults)(0)
            except ConnectionResetError:
                return web.Response(status=500)
            return _json(_read_as(lambda given: answer(given, _ident(request), served), tree))

    async def set_faults(self, request: web.Request) -> web.Response:
        self.plan = FaultPlan(await _read(request, Faults))
        return _json({"faults": self.plan.faults})

    async def forget(self, request: web.Request) -> web.Response:
        """Loses the adapters, as a restart does."""
        self.adapters.clear()
        return _json({"adapters": []})

    async def show(self, request: web.Request) -> web.Response:
        return _json({"requests": list(self.requests), "traces": list(self.traces), "running": self.running, "aborted": self.aborted})

    @web.middleware
    async def _refusing(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in self.plan.faults.lacks:
            return _json({"detail": "Not Found"}, 404)  # as FastAPI answers where it has no route
        try:
            return await handler(request)
        except _Refused as error:
            return error.response(request.path)

    async def _enter(self, request: web.Request) -> tuple[dict[str, Any], Faults]:
        """The body, and the faults of its request."""
        tree = await _read(request, dict[str, Any])
        self.requests.append(tree)
        self.traces.append(request.headers.get("traceparent", ""))
        faults = self.plan.next()
        if faults.refuse is not None:
            raise _Refused(faults.refuse, "InternalServerError", "refused, as asked", retry_after=faults.retry_after)
        return tree, faults

    def _serves(self, name: str) -> None:
        if name != self.model and name not in self.adapters:
            raise _Refused(404, "NotFoundError", f"The model `{name}` does not exist.")

    async def _stream(self, request: web.Request, form: Form, pace: answers.Pace) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        stream = answers.tokens(form.ask, pace)
        token = await anext(stream)  # a fault before the first token comes before the first byte
        await response.prepare(request)
        await response.write(form.first() + form.token(token))
        async for token in stream:
            if events := form.token(token):
                await response.write(events)
        await response.write(form.last())
        return response

    @asynccontextmanager
    async def _busy(self) -> AsyncIterator[None]:
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1
            self._slots.release()


def _is_adapter(path: str) -> bool:
    return Path(path, "adapter_config.json").is_file()


def _pace(request: web.Request, faults: Faults) -> answers.Pace:
    def abort() -> None:
        if request.transport is not None:
            request.transport.abort()

    async def pace(token: int) -> None:
        await inject(faults, token, abort)

    return pace


def _ident(request: web.Request) -> str:
    """vLLM makes its ids from this header."""
    return request.headers.get("X-Request-Id", names.mint(""))


def _read_as(read: Callable[[dict[str, Any]], _T], tree: dict[str, Any]) -> _T:
    try:
        return read(tree)
    except (msgspec.ValidationError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise _Refused(400, "BadRequestError", str(error)) from None


async def _read(request: web.Request, form: type[_T]) -> _T:
    try:
        return msgspec.json.decode(await request.read(), type=form)
    except msgspec.DecodeError as error:
        raise _Refused(400, "BadRequestError", str(error)) from None


def _json(tree: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(tree), status=status, content_type="application/json")
