"""A minimal router built like that of vLLM's production-stack, which no registry has as a package: FastAPI with aiohttp as its client.

    python bench/peers/fastapi_proxy.py PORT ENGINE_URL...

Like production-stack's it runs on uvicorn without its extras (asyncio, h11), parses the body to find the model, looks up an engine,
logs a line for each request, counts each chunk and streams through a generator. It records and checks nothing, and has no keys.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

WINDOW = 1000
DROPPED = frozenset({"host", "content-length", "transfer-encoding", "connection"})
log = logging.getLogger("proxy")


@dataclass
class Engine:
    """One engine and its statistics."""

    url: str
    running: int = 0
    answered: int = 0
    first_chunks: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    chunks: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))


def application(urls: list[str]) -> FastAPI:
    engines = [Engine(url) for url in urls]
    sessions: list[aiohttp.ClientSession] = []

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0)) as session:
            sessions.append(session)
            yield

    app = FastAPI(lifespan=life)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        began, body = time.monotonic(), await request.body()
        try:
            model = json.loads(body)["model"]
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": {"message": "no model", "type": "invalid_request_error"}}, 400)
        request_id = request.headers.get("x-request-id") or str(uuid.uuid4())
        engine = min(engines, key=lambda e: e.running)
        log.info("request %s for %s goes to %s after %.6f s", request_id, model, engine.url, time.monotonic() - began)
        headers = {key: value for key, value in request.headers.items() if key not in DROPPED}
        headers["x-request-id"] = request_id
        answer = relay(sessions[0], engine, body, headers, began)
        status, kind = await anext(answer), await anext(answer)
        return StreamingResponse(answer, status_code=int(status), headers={"x-request-id": request_id}, media_type=kind.decode())

    return app


async def relay(session: aiohttp.ClientSession, engine: Engine, body: bytes, headers: dict[str, str], began: float) -> AsyncIterator[bytes]:
    """Yield the status and the content type of the engine's answer, then its chunks."""
    engine.running += 1
    first = True
    try:
        async with session.post(engine.url + "/v1/chat/completions", data=body, headers=headers) as answer:
            yield str(answer.status).encode()
            yield answer.headers.get("content-type", "application/json").encode()
            async for chunk in answer.content.iter_any():
                now = time.monotonic()
                (engine.first_chunks if first else engine.chunks).append(now - began)
                first = False
                yield chunk
        engine.answered += 1
    finally:
        engine.running -= 1


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvicorn.run(application(sys.argv[2:]), port=int(sys.argv[1]), loop="asyncio", http="h11")
