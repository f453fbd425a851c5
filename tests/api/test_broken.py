"""An engine that begins an answer and does not end it well, and a client that does not send its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from engines import sse
from engines.fake.app import FakeEngine
from engines.fake.faults import Faults
from tests.support.gateway_process import BASE, POLICY, Bench, bench, until
from tests.support.stores import listed


class Quitter(FakeEngine):
    """Gives chat answers up: writes "abort", as a stopped vLLM does, or `breaks` off or falls silent in the middle of a whole one."""

    def __init__(self, how: str) -> None:
        super().__init__(BASE, slots=4, faults=Faults())
        self.how = how
        self.asked = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if asked.get("temperature") == 0:  # a probe
            return await super().chat(request)
        self.asked += 1
        tree: dict[str, Any] = {"id": "chatcmpl-1", "created": 1, "model": BASE, "prompt_token_ids": [5]}
        choice: dict[str, Any] = {"index": 0, "token_ids": [7], "finish_reason": "abort"}
        if asked.get("stream"):
            begun = {**tree, "choices": [{**choice, "delta": {"content": "half"}, "finish_reason": None}]}
            given_up = {**tree, "choices": [{**choice, "delta": {"content": ""}}]}
            payloads = [msgspec.json.encode(begun), msgspec.json.encode(given_up), sse.DONE]
            return web.Response(body=b"".join(map(sse.frame, payloads)), content_type="text/event-stream")
        body = msgspec.json.encode({**tree, "choices": [{**choice, "message": {"role": "assistant", "content": "half"}}]})
        if self.how == "aborts":
            return web.Response(body=body, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(body))})
        await response.prepare(request)
        await response.write(body[:10])
        if self.how == "falls silent":
            await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.close()
        return response


@asynccontextmanager
async def behind(data: Path, how: str, **gateway: Any) -> AsyncIterator[tuple[Bench, Quitter]]:
    """A gateway whose two engines are one and the same quitter."""
    quitter = Quitter(how)
    runner = web.AppRunner(quitter.app(), handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with bench(data, engines=0, start=False, **gateway) as made:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            made.config["engines"] = [{"name": name, "kind": "fake", "model": BASE, "url": url} for name in ("one", "two")]
            await made.launch()
            await made.healthy("one", "two")
            yield made, quitter
    finally:
        await runner.cleanup()


async def test_an_answer_that_the_engine_gave_up_is_broken_and_recorded_as_truncated(tmp_path: Path) -> None:
    async with behind(tmp_path, "aborts") as (made, _):
        whole = await made.chat()
        assert (whole.status_code, whole.json()["error"]["code"]) == (502, "engine_broken")
        stream = await made.chat(stream=True)
        *chunks, last = [line.removeprefix("data: ") for line in stream.text.split("\n\n") if line]
        assert json.loads(last)["error"]["code"] == "engine_broken"
        assert [json.loads(chunk)["choices"][0]["delta"]["content"] for chunk in chunks] == ["half"]

        async def both() -> bool:
            return await made.store.interactions.count() == 2

        await until(both, "both are recorded")
        kept, _ = await listed(made.store, "acme", limit=2)
        assert [(item.status, item.untrainable, item.choices[0].message["content"]) for item in kept] == [
            ("truncated", "truncated", "half")
        ] * 2


@pytest.mark.parametrize("how", ["breaks off", "falls silent"])
async def test_a_whole_answer_that_has_begun_is_asked_of_no_other_replica_and_may_take_longer_than_its_first_byte(
    tmp_path: Path, how: str
) -> None:
    async with behind(tmp_path, how, first_byte_seconds=0.5, idle_seconds=1) as (made, quitter):
        clock = asyncio.get_running_loop().time
        begun = clock()
        answer = await made.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_broken")
        assert quitter.asked == 1
        assert how == "breaks off" or clock() - begun >= 1


async def test_a_replica_that_broke_a_stream_has_to_generate_again_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        fake = made.fakes["fake-0"]
        await fake.faults(die_after=4)
        assert "[DONE]" not in (await made.chat("say:" + "x" * 20, stream=True)).text
        before = len((await fake.state())["requests"])

        async def probed() -> bool:
            return len((await fake.state())["requests"]) > before

        await asyncio.wait_for(until(probed, "it is probed"), 10)


async def slow_body(made: Bench) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A request of which the last byte is not sent yet."""
    host, port = made.url.removeprefix("http://").split(":")
    body = msgspec.json.encode({"model": POLICY, "messages": [{"role": "user", "content": "say:hello"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer rk-client\r\ncontent-length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode() + body[:-1])
    await writer.drain()
    return reader, writer, body[-1:]


async def test_a_body_that_is_being_read_counts_as_a_request_in_flight(tmp_path: Path) -> None:
    async with bench(tmp_path, limits={"max_inflight": 1}) as made:
        reader, writer, rest = await slow_body(made)
        while (await made.chat()).status_code != 429:  # that one may have come first, and turned the slow one away
            writer.close()
            reader, writer, rest = await slow_body(made)
        writer.write(rest)
        assert b" 200 " in await reader.readline()
        writer.close()


async def test_a_body_that_ends_after_the_drain_began_is_not_taken(tmp_path: Path) -> None:
    async with bench(tmp_path, limits={"max_inflight": 2}) as made:
        reader, writer, rest = await slow_body(made)
        fake = made.fakes["fake-0"]
        await fake.faults(token_ms=200)
        held = asyncio.create_task(made.chat("say:" + "x" * 20))

        async def busy() -> bool:
            return bool((await fake.state())["running"])

        await until(busy, "a request holds the drain open")
        assert made.process is not None
        made.process.terminate()

        async def draining() -> bool:
            return (await made.call("GET", "/readyz", key=None)).status_code == 503

        await until(draining, "it drains")
        writer.write(rest)
        assert b" 503 " in await reader.readline()
        writer.close()
        assert (await held).status_code == 200
