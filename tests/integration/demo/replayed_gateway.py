"""A gateway's answers, replayed over real HTTP, with the faults a client must notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PREFIX = "chatcmpl-"


@dataclass
class Replay:
    """A gateway that answers with `texts` in turn, misbehaves as `fault` says, and keeps its requests."""

    texts: list[str] = field(default_factory=lambda: ["Sure!", "No."])
    fault: str = ""
    version: str = ""
    url: str = ""
    chats: list[dict[str, Any]] = field(default_factory=list)
    feedback: list[dict[str, Any]] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.chats.append(body)
        if self.fault == "503":
            return web.json_response({"error": {"message": "no engine", "type": "server_error", "code": None}}, status=503)
        response_id = f"{PREFIX}{len(self.chats):032x}"
        headers = {"x-ratchet-policy": self.version or body["model"]}
        if not body.get("stream"):
            return web.json_response(self._whole(response_id, body["n"]), headers=headers)
        response = web.StreamResponse(headers={**headers, "content-type": "text/event-stream"})
        await response.prepare(request)
        for event in self._events(response_id, body["n"]):
            await response.write(f"data: {event}\n\n".encode())
        await response.write_eof()
        self.answered.set()
        return response

    async def rate(self, request: web.Request) -> web.Response:
        self.feedback.append(await request.json())
        if self.fault == "feedback":
            return web.json_response({"error": {"message": "store away", "type": "server_error", "code": None}}, status=503)
        return web.json_response({"id": f"fb_{len(self.feedback)}", "object": "feedback"}, status=202)

    def _text(self, index: int) -> str:
        return self.texts[index % len(self.texts)]

    def _events(self, response_id: str, n: int) -> list[str]:
        base = {"id": response_id, "object": "chat.completion.chunk", "created": 1, "model": "m"}
        choices: list[dict[str, Any]] = []
        for index in range(n):
            words = [*self._text(index)]
            choices += [{"index": index, "delta": {"content": word}, "finish_reason": None} for word in words]
            choices += [{"index": index, "delta": {}, "finish_reason": "stop"}] if self.fault != "unfinished" else []
        events = [json.dumps({**base, "choices": [choice]}) for choice in choices]
        if self.fault == "error event":
            return [*events, json.dumps({"error": {"message": "not recorded", "type": "server_error"}})]
        usage = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
        events.append(json.dumps({**base, "choices": [], "usage": usage}))
        return events if self.fault == "no [DONE]" else [*events, "[DONE]"]

    def _whole(self, response_id: str, n: int) -> dict[str, Any]:
        choices = [
            {"index": i, "message": {"role": "assistant", "content": self._text(i)}, "finish_reason": "stop", "logprobs": None}
            for i in range(n)
        ]
        usage = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
        return {"id": response_id, "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}


@contextlib.asynccontextmanager
async def serving(replay: Replay) -> AsyncIterator[Replay]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", replay.chat)
    app.router.add_post("/v1/feedback", replay.rate)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    replay.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield replay
    finally:
        await runner.cleanup()
