"""The routes, over aiohttp's server."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from engines.fake import answers, forms, messages, plain, responses
from engines.fake.answers import Ask
from engines.fake.faults import Fate, Faults, befall
from ratchet import names

SEEN = 1000
"""Request bodies that `GET /fake/seen` still knows."""
_T = TypeVar("_T")


class _Adapter(msgspec.Struct):
    lora_name: str = ""
    lora_path: str = ""


class FakeEngine:
    """One engine's state: adapters (in memory, so that a restart loses them), faults, and what it was asked."""

    def __init__(self, model: str, *, slots: int, faults: Faults) -> None:
        self.model = model
        self.adapters: dict[str, str] = {}
        self.fate = Fate(faults)
        self.seen: deque[dict[str, Any]] = deque(maxlen=SEEN)
        self.traces: deque[str] = deque(maxlen=SEEN)
        """The requests' `traceparent`, "" where they had none."""
        self.running = self.waiting = self.aborted = 0
        self._slots = asyncio.Semaphore(slots)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.add_routes(
            [
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
                web.get("/v1/models", self.models),
                web.post("/v1/load_lora_adapter", self.load),
                web.post("/v1/unload_lora_adapter", self.unload),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.completions),
                web.post("/v1/responses", self.responses),
                web.post("/v1/messages", self.messages),
                *(web.post(path, self.plain) for path in plain.ROUTES),
                web.post("/fake/faults", self.set_faults),
                web.post("/fake/forget", self.forget),
                web.get("/fake/seen", self.show),
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
            return _error(400, "InvalidUserInput", f"The lora adapter '{asked.lora_name}' conflicts with a served base model.")
        if asked.lora_name in self.adapters:
            return _error(400, "InvalidUserInput", f"The lora adapter '{asked.lora_name}' has already been loaded.")
        if not _is_adapter(asked.lora_path):
            return _error(404, "NotFoundError", f"Loading lora {asked.lora_name} failed: No adapter found for {asked.lora_path}")
        self.adapters[asked.lora_name] = asked.lora_path
        return web.Response(text=f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    async def unload(self, request: web.Request) -> web.Response:
        asked = await _read(request, _Adapter)
        if self.adapters.pop(asked.lora_name, None) is None:
            return _error(404, "NotFoundError", f"The lora adapter '{asked.lora_name}' cannot be found.")
        return web.Response(text=f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        ask = await _read(request, Ask)
        return await self._answer(request, ask, forms.Chat(ask, _request_id(request)))

    async def completions(self, request: web.Request) -> web.StreamResponse:
        ask = await _read(request, Ask)
        ask.max_tokens = 16 if ask.max_tokens is None else ask.max_tokens
        return await self._answer(request, ask, forms.Text(ask, _request_id(request)))

    async def responses(self, request: web.Request) -> web.StreamResponse:
        asked = await _read(request, responses.Asked)
        ask = asked.ask()
        return await self._answer(request, ask, responses.Responses(asked, ask))

    async def messages(self, request: web.Request) -> web.StreamResponse:
        ask = (await _read(request, messages.Asked)).ask()
        return await self._answer(request, ask, messages.Messages(ask, _request_id(request)))

    async def plain(self, request: web.Request) -> web.Response:
        """A route that generates nothing."""
        asked = await _read(request, plain.Asked)
        _, refused = await self._meet(request, asked.model)
        return refused or _json(plain.ROUTES[request.path](asked))

    async def set_faults(self, request: web.Request) -> web.Response:
        self.fate = Fate(await _read(request, Faults))
        return _json({"faults": self.fate.faults})

    async def forget(self, request: web.Request) -> web.Response:
        """Loses the adapters, as a restart does."""
        self.adapters.clear()
        return _json({"adapters": []})

    async def show(self, request: web.Request) -> web.Response:
        return _json({"requests": list(self.seen), "traces": list(self.traces), "running": self.running, "aborted": self.aborted})

    async def _meet(self, request: web.Request, named: str) -> tuple[Faults, web.Response | None]:
        """Notes the request down; what befalls it, and the refusal if there is one."""
        self.seen.append(msgspec.json.decode(await request.read()))
        self.traces.append(request.headers.get("traceparent", ""))
        faults = self.fate.deal()
        if faults.refuse is not None:
            refused = _error(faults.refuse, "InternalServerError", "refused, as asked")
            if faults.retry_after is not None:
                refused.headers["retry-after"] = str(faults.retry_after)
            return faults, refused
        if named != self.model and named not in self.adapters:
            return faults, _error(404, "NotFoundError", f"The model `{named}` does not exist.")
        return faults, None

    async def _answer(self, request: web.Request, ask: Ask, form: forms.Form) -> web.StreamResponse:
        faults, refused = await self._meet(request, ask.model)
        if refused is not None:
            return refused
        if not 1 <= ask.n <= 128 or ask.limit < 1:
            return _error(400, "BadRequestError", f"n must be at least 1, got {ask.n}.")
        if not ask.playable:
            return _error(400, "BadRequestError", "The schema is none.")

        async def pace(token: int) -> None:
            await befall(faults, token, lambda: _abort(request))

        async with self._busy():
            try:
                prompts = ask.prompts()
                stream = answers.tokens(ask, prompts, pace)
                if ask.stream:
                    return await _stream(request, form, prompts, stream)
                return _json(form.whole(prompts, [token async for token in stream]))
            except ConnectionResetError:
                return web.Response(status=500)  # the connection is gone: nobody reads it

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


async def _stream(
    request: web.Request, form: forms.Form, prompts: list[list[int]], stream: AsyncIterator[answers.Token]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    drawn = [await anext(stream)]  # a fault before the first token comes before the first byte
    await response.prepare(request)
    await response.write(b"".join([*form.begin(prompts), *form.token(drawn[0])]))
    async for token in stream:
        drawn.append(token)
        for frame in form.token(token):
            await response.write(frame)
    await response.write(b"".join(form.end(prompts, drawn)))
    return response


def _request_id(request: web.Request) -> str:
    return request.headers.get("X-Request-Id", names.mint(""))


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _read(request: web.Request, form: type[_T]) -> _T:
    try:
        return msgspec.json.decode(await request.read(), type=form)
    except msgspec.DecodeError as error:
        problem = msgspec.json.encode(_problem(400, "BadRequestError", str(error))).decode()
        raise web.HTTPBadRequest(text=problem, content_type="application/json") from None


def _problem(status: int, kind: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def _error(status: int, kind: str, message: str) -> web.Response:
    return _json(_problem(status, kind, message), status)


def _json(tree: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(tree), status=status, content_type="application/json")
