"""The stand-in that speaks the other engine's form, with the fake's tokens; routes that both have are the fake's.

    python -m tests.contracts.other.server --model NAME --port P [--adapter NAME=FOLDER ...] [--dies-of NAME]

It prints its URL once it serves. `--dies-of`: started with an adapter of that name, it ends at once.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from engines import sse
from engines.fake import answers, asks
from engines.fake.answers import Token
from engines.fake.app import FakeEngine
from engines.fake.asks import Ask
from engines.fake.faults import Faults
from engines.fake.forms.base import Form
from engines.fake.forms.chats import ChatForm
from engines.fake.forms.texts import TextForm
from engines.routes import MESSAGES, RESPONSES, TOKENS
from ratchet.process import die_with_parent

OWN = {"heat": "temperature", "share": "top_p", "keep": "top_k", "limit": "max_tokens"}
NOT_ITS = ("token_ids", "prompt_token_ids", "prompt_text", "stop_reason", "prompt_logprobs")
"""Fields of vLLM's that it has never heard of."""


class OtherEngine:
    """One life of the engine: its adapters are those that it was started with."""

    def __init__(self, base: str, adapters: dict[str, str], slots: int) -> None:
        self.base = base
        self.adapters = adapters
        self.shared = FakeEngine(base, slots=slots, faults=Faults())
        self.shared.adapters = adapters
        self.seen: list[dict[str, Any]] = []
        """Bodies of requests that generate."""
        self.encoded = 0
        """Calls for the ids of a prompt."""
        self.encodes = True
        """Whether it gives the ids of prompts."""
        self.busy = False
        """Whether it refuses requests for half a second each."""
        self._running = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20, middlewares=[self._refusing])
        app.add_routes(
            [
                web.get("/status", self.status),
                web.post("/draw", self.draw),
                web.post("/encode", self.encode),
                web.post("/chat", partial(self.answer, asks.of_chat, ChatForm)),
                web.post("/text", partial(self.answer, asks.of_text, TextForm)),
                *(web.post(route, partial(self.shared.generate, route)) for route in (RESPONSES, MESSAGES)),
                *(web.post(route, partial(self.shared.pool, answer)) for route, answer in _tokens().items()),
            ]
        )
        return app

    async def status(self, request: web.Request) -> web.Response:
        return _json({"models": [self.base, *self.adapters], "busy": self._running, "queued": 0})

    async def encode(self, request: web.Request) -> web.Response:
        self.encoded += 1
        if not self.encodes:
            raise Oops(400, "no ids today", "messages")
        tree = await request.json()
        return _json(Ask(messages=tree.get("messages") or [], prompt=tree.get("prompt") or "").prompts[0])

    async def draw(self, request: web.Request) -> web.Response:
        tree = await request.json()
        self._serves(tree["who"])
        ask = Ask(tree["who"], [], tree["ids"], tree["draws"], max_tokens=tree["limit"], temperature=tree["heat"], seed=tree["seed"])
        drawn = [token async for token in answers.tokens(ask, _at_once)]
        by_choice = [[t for t in drawn if t.choice == index] for index in range(ask.n)]
        texts, ends = ["".join(t.text for t in one) for one in by_choice], [one[-1].finish for one in by_choice]
        return _json({**trace(drawn, ask), "texts": texts, "ends": ends})

    async def answer(self, read: Any, form_of: type[Form], request: web.Request) -> web.StreamResponse:
        """A chat or a text completion."""
        tree = await request.json()
        self.seen.append(tree)
        if self.busy:
            return _json({"oops": "too much to do", "wait_ms": 500}, 529)
        self._serves(tree["model"])
        ask: Ask = read({OWN.get(key, key): value for key, value in tree.items()})
        if ask.seed == 13:
            raise Oops(400, "an unlucky number", "luck")
        form = form_of(ask, tree["answer_id"])
        with self._at_work():
            if ask.stream:
                return await self._stream(request, form, traced=tree["trace"])
            drawn = [token async for token in answers.tokens(ask, _at_once)]
            whole = _without(form.whole(drawn))
            return _json(whole | ({"trace": trace(drawn, ask)} if tree["trace"] else {}))

    async def _stream(self, request: web.Request, form: Form, *, traced: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_plain(form.first()))
        drawn = []
        async for token in answers.tokens(form.ask, _at_once):
            drawn.append(token)
            await response.write(_plain(form.token(token)))
        if traced:
            await response.write(b"event: trace\ndata: " + msgspec.json.encode(trace(drawn, form.ask)) + b"\n\n")
        await response.write(_plain(form.last()))
        return response

    def _at_work(self) -> Any:
        engine = self

        class Work:
            def __enter__(self) -> None:
                engine._running += 1

            def __exit__(self, *exc: object) -> None:
                engine._running -= 1

        return Work()

    def _serves(self, name: str) -> None:
        if name != self.base and name not in self.adapters:
            raise Oops(404, f"I know no {name}", "who")

    @web.middleware
    async def _refusing(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            found: web.StreamResponse = await self.shared._refusing(request, handler)
        except Oops as error:
            return _json({"oops": str(error), "about": error.field}, error.status)
        except web.HTTPNotFound:
            return web.Response(status=404, text="nothing here")
        return found


class Oops(Exception):
    """An error in the other engine's form."""

    def __init__(self, status: int, message: str, field: str) -> None:
        super().__init__(message)
        self.status, self.field = status, field


def trace(drawn: Sequence[Token], ask: Ask) -> dict[str, Any]:
    """All choices' ids and log-probs in one list each, one choice after the other."""
    count = ask.n * len(ask.prompts)
    by_choice = [[t for t in drawn if t.choice == index] for index in range(count)]
    flat = [token for one in by_choice for token in one]
    prompt = sum(len(ids) for ids in ask.prompts)
    return {
        "ids": [token.id for token in flat],
        "log_probs": [token.logprob for token in flat],
        "lengths": [len(one) for one in by_choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": len(flat), "total_tokens": prompt + len(flat)},
    }


def _tokens() -> dict[str, Any]:
    from engines.fake.pooling import ROUTES

    return {route: ROUTES[route] for route in TOKENS}


def _without(tree: dict[str, Any]) -> dict[str, Any]:
    for place in (tree, *tree["choices"]):
        for name in NOT_ITS:
            place.pop(name, None)
    return tree


def _plain(events: bytes) -> bytes:
    """vLLM's events without the fields that this engine does not have."""
    payloads = [p if p == sse.DONE else msgspec.json.encode(_without(msgspec.json.decode(p))) for p in sse.split(events)[0]]
    return sse.frame(*payloads) if payloads else b""


async def _at_once(token: int) -> None:
    """No token takes any time."""
    await asyncio.sleep(0)


def _json(tree: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(tree), status=status, content_type="application/json")


async def listen(engine: OtherEngine, port: int) -> web.AppRunner:
    """Serve on loopback; `cleanup` of the runner ends it."""
    runner = web.AppRunner(engine.app(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.contracts.other.server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--adapter", action="append", default=[])
    parser.add_argument("--dies-of", default="")
    return parser.parse_args(argv)


async def serve(options: argparse.Namespace) -> None:
    adapters = dict(text.split("=", 1) for text in options.adapter)
    if options.dies_of in adapters or not all(Path(path, "adapter_config.json").is_file() for path in adapters.values()):
        sys.exit("an adapter cannot be read")
    runner = await listen(OtherEngine(options.model, adapters, options.slots), options.port)
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    die_with_parent()
    asyncio.run(serve(arguments(sys.argv[1:])))


if __name__ == "__main__":
    main()
