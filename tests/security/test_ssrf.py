"""Row 22 of reliability.md: nothing a client or an engine says makes the gateway connect to where it was not configured to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engines.fake.app import FakeEngine
from engines.fake.faults import Faults
from tests.support.gateway_process import BASE, POLICY, Bench, bench, until
from tests.support.raw_http import Wire, head

REDIRECTS = (301, 302, 303, 307, 308)


class Canary:
    """Counts who connects."""

    def __init__(self) -> None:
        self.url = ""
        self.called = 0

    def heard(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called += 1
        writer.close()


@asynccontextmanager
async def canary() -> AsyncIterator[Canary]:
    made = Canary()
    server = await asyncio.start_server(made.heard, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await server.wait_closed()


def asks(url: str) -> list[dict[str, Any]]:
    """Fields of a chat request that name `url` in every way a gateway or an engine might fetch."""
    names = ["api_base", "base_url", "endpoint", "proxy", "callback_url", "webhook", "input_reference", "lora_path", "chat_template"]
    image: list[Any] = [{"type": kind, kind: {"url": url}} for kind in ("image_url", "video_url", "audio_url")]
    image += [{"type": "file", "file": {"file_url": url}}, {"type": "input_image", "image_url": url}]
    return [
        *({name: url} for name in names),
        *({"extra_body": {name: url}} for name in names[:2]),
        *({"messages": [{"role": "user", "content": [part]}]} for part in image),
        {"model": url},
        {"model": f"{POLICY}@{url}"},
        {"tools": [{"type": "mcp", "server_url": url}]},
        {"web_search_options": {"url": url}, "tools": [{"type": "web_search"}]},
    ]


def harmless(url: str) -> list[dict[str, Any]]:
    """Those where a URL is a client's own text: they are answered, and nobody fetches it."""
    schema = {"$ref": url, "$schema": url}
    return [
        {"messages": [{"role": "user", "content": f"say:{url}"}]},
        {"metadata": {"api_base": url, "callback": url}},
        {"user": url},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}},
    ]


async def test_no_url_in_a_request_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with canary() as bird, bench(tmp_path, start=False) as made:
        with monkeypatch.context() as environment:
            for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
                environment.setenv(name, bird.url)  # nor does the environment divert what goes to engines
            await made.start()
        for url in (bird.url, "http://169.254.169.254/latest/meta-data", "http://[::1]/", "file:///etc/passwd", "http://localtest.me/"):
            for fields in asks(url):
                answer = await made.chat(**fields)
                assert answer.status_code in (400, 404), (fields, answer.text)
            for fields in harmless(url):
                assert (await made.chat(**fields)).status_code == 200, fields
        diverting = ("host", "x_forwarded_host", "forwarded", "x_api_base", "x_original_url", "x_rewrite_url", "referer", "origin")
        for name in diverting:
            given = {name.replace("_", "-"): bird.url.removeprefix("http://")}
            assert (await made.chat(headers=given)).status_code == 200, name
        wire = await Wire.open(made.url)
        await wire.send(head("GET", bird.url + "/v1/models", authorization="Bearer rk-client"))  # as a proxy is asked
        assert (await wire.answer()).status == 200
        wire.close()
        assert bird.called == 0
        seen = (await made.fakes["fake-0"].state())["requests"]
        assert not [body for body in seen if body.keys() & {"api_base", "base_url", "extra_body", "metadata"}]


class Redirector(FakeEngine):
    """Sends whoever asks for an answer elsewhere, once it has proved that it generates."""

    def __init__(self, to: str) -> None:
        super().__init__(BASE, slots=4, faults=Faults())
        self.to = to
        self.status = 307

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if (await request.json()).get("temperature") == 0:  # a probe
            return await super().chat(request)
        return web.Response(status=self.status, headers={"location": self.to + "/v1/chat/completions"})


@asynccontextmanager
async def behind(data: Path, app: web.Application) -> AsyncIterator[Bench]:
    """A gateway whose only engine is `app`; it listens but may never be ready."""
    runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with bench(data, engines=0, start=False) as made:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            made.config["engines"] = [{"name": "one", "kind": "fake", "model": BASE, "url": url}]
            await made.launch()
            yield made
    finally:
        await runner.cleanup()


async def test_a_redirect_from_an_engine_is_not_followed(tmp_path: Path) -> None:
    async with canary() as bird:
        engine = Redirector(bird.url)
        async with behind(tmp_path, engine.app()) as made:
            await made.healthy("one")
            for status in REDIRECTS:
                engine.status = status
                for stream in (False, True):
                    answer = await made.chat(stream=stream)
                    assert answer.status_code in (502, 503)
                    assert bird.url not in answer.text
        assert bird.called == 0


async def test_an_engine_that_redirects_every_look_at_it_is_not_followed_and_gets_no_traffic(tmp_path: Path) -> None:
    async with canary() as bird:
        asked: list[str] = []

        async def elsewhere(request: web.Request) -> web.Response:
            asked.append(request.path)
            return web.Response(status=REDIRECTS[len(asked) % len(REDIRECTS)], headers={"location": bird.url + request.path})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", elsewhere)
        async with behind(tmp_path, app) as made:

            async def often() -> bool:
                return len(asked) >= len(REDIRECTS)

            await until(often, "it was looked at")
            assert (await made.chat()).status_code == 503
        assert bird.called == 0
