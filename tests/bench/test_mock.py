"""The C mock sends what vLLM sends, and the C load generator counts only complete answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.gateways import mock
from engines import Wants, sse
from engines.vllm.capture import ChoicesCapture, capture_whole
from tests.support.gateway_process import plain_http

RECORDED = Path(__file__).parent.parent / "support" / "recorded"
ASKED = {"logprobs": True, "return_token_ids": True}
ID = "ab" * 16
OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"chatcmpl-1","choices":[]}\n\n'


async def answer_of(url: str, **fields: Any) -> bytes:
    body = {"model": mock.MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, **fields}
    async with plain_http() as http:
        answer = await http.post(url + mock.CHAT, json=body, headers={"x-request-id": ID})
    answer.raise_for_status()
    return answer.content


def shape(tree: Any) -> Any:
    """Keys in their order, values by their kind; of a list its first item."""
    if isinstance(tree, dict):
        return [(key, shape(value)) for key, value in tree.items()]
    if isinstance(tree, list):
        return [shape(tree[0])] if tree else []
    return "number" if isinstance(tree, (int, float)) else type(tree).__name__


def shapes(stream: bytes) -> list[Any]:
    events, _ = sse.split(stream)
    return [shape(msgspec.json.decode(event)) for event in events[:-1]]


async def test_a_stream_has_vllms_keys_in_vllms_order() -> None:
    async with mock.mocked() as engine:
        found = shapes(await answer_of(engine.url, stream=True, stream_options={"include_usage": True}, **ASKED))
    real = shapes((RECORDED / "stop_string.sse").read_bytes())
    assert found[0] == real[0]
    assert found[1] == real[1]
    assert found[-1] == real[-1]


async def test_a_whole_answer_has_vllms_keys_in_vllms_order() -> None:
    async with mock.mocked() as engine:
        found = msgspec.json.decode(await answer_of(engine.url, **ASKED))
    assert shape(found) == shape(msgspec.json.decode((RECORDED / "whole.json").read_bytes()))


async def test_a_captured_stream_is_exact_and_hides_what_the_recorder_asked_for() -> None:
    async with mock.mocked() as engine:
        events, rest = sse.split(await answer_of(engine.url, stream=True, stream_options={"include_usage": True}, **ASKED))
    capture = ChoicesCapture(Wants(), f"chatcmpl-{ID}", mock.MODEL)
    seen = [visible for event in events if (visible := capture.event(event)) is not None]
    found = capture.captured()
    assert (rest, capture.done, capture.finished, found.exact) == (b"", True, True, True)
    assert (len(found.prompt_ids), len(found.choices[0].token_ids), found.choices[0].finish_reason) == (200, 8, "length")
    assert found.choices[0].message["content"] == " w00 w01 w02 w03 w04 w05 w06 w07"
    assert len(seen) == 1 + 8 + 1
    assert not any(word in b"".join(seen) for word in (b"token_ids", b'"logprob":', b"usage"))
    assert all(f'"id":"chatcmpl-{ID}"'.encode() in event for event in seen[:-1])


async def test_a_captured_whole_answer_is_exact() -> None:
    async with mock.mocked() as engine:
        body, found = capture_whole(await answer_of(engine.url, **ASKED), Wants(usage=True), f"chatcmpl-{ID}", mock.MODEL)
    assert found.exact and found.finished and len(found.choices[0].logprobs) == 8
    assert b"token_ids" not in body


async def test_a_request_without_ids_gets_none() -> None:
    async with mock.mocked() as engine:
        found = await answer_of(engine.url, stream=True) + await answer_of(engine.url)
    assert not any(word in found for word in (b'"logprob":', b'"token_ids":[', b'_ids":[', b'stream_options"'))
    assert found.count(b'"finish_reason":"length"') == 2


async def test_streams_wait_for_the_step_and_go_on_once_there_is_one(tmp_path: Path) -> None:
    async with mock.mocked(-1) as engine:
        running = asyncio.create_task(mock.load(engine.url, mock.request_body(tmp_path, tokens=8), c=5, n=5, d=1, w=30))
        async with asyncio.timeout(20):
            while engine.running() < 5:
                await asyncio.sleep(0.01)
        engine.step(1000)
        result = await running
    assert (result.ok, result.events, sum(result.errors.values())) == (5, 5 * 10, 0)


@pytest.mark.parametrize(("stream", "events"), [(True, 10), (False, 0)])
async def test_a_closed_loop_counts_answers_and_times_each(tmp_path: Path, stream: bool, events: int) -> None:
    async with mock.mocked() as engine:
        result = await mock.load(engine.url, mock.request_body(tmp_path, tokens=8, stream=stream, prompt=100_000), c=4, n=50)
    assert (result.sent, result.ok, result.events, result.leaks) == (50, 50, 50 * events, 0)
    assert len(result.ttft_us) == len(result.total_us) == 50
    assert all(0 < first <= total for first, total in zip(result.ttft_us, result.total_us, strict=True))
    assert result.last_id.startswith("chatcmpl-")


async def test_an_open_loop_keeps_its_rate(tmp_path: Path) -> None:
    async with mock.mocked() as engine:
        result = await mock.load(engine.url, mock.request_body(tmp_path, tokens=8), r=100, d=0.5)
    assert result.ok == result.sent
    assert 49 <= result.sent <= 51


@asynccontextmanager
async def serving(*pieces: bytes) -> AsyncIterator[str]:
    """Run a server that answers the first request of a connection with `pieces`, in one write each, and closes it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


END = b"0\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ((OK + chunk(EVENT) + chunk(DONE) + END,), None),
        ((OK, chunk(EVENT + DONE[:7]), chunk(DONE[7:]), END), None),
        ((OK + chunk(EVENT)[:9], chunk(EVENT)[9:] + b"e", b"\r\n" + DONE + b"\r", b"\n0\r", b"\n\r\n"), None),
        ((OK + chunk(EVENT) + END,), "no_done"),
        ((OK + chunk(EVENT),), "cut"),
        ((OK + chunk(b'data: {"error":{"message":"x"}}\n\n') + chunk(DONE) + END,), "error_event"),
        ((b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}",), "status"),
        ((b'HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"choices":0',), "no_done"),
        ((), "cut"),
    ],
    ids=["whole", "mark in two chunks", "odd pieces", "no end", "broken off", "error event", "503", "no answer in it", "nothing"],
)
async def test_only_a_whole_answer_counts(tmp_path: Path, pieces: tuple[bytes, ...], kind: str | None) -> None:
    async with serving(*pieces) as url:
        result = await mock.load(url, mock.request_body(tmp_path, tokens=8), n=1, w=5)
    assert {name for name, count in result.errors.items() if count} == ({kind} if kind else set())
    assert result.ok == (kind is None)


async def test_ids_that_a_client_did_not_ask_for_are_counted(tmp_path: Path) -> None:
    leaky = b'data: {"id":"x","choices":[{"token_ids":[1]}]}\n\n'
    async with serving(OK + chunk(leaky) + chunk(DONE) + END) as url:
        result = await mock.load(url, mock.request_body(tmp_path, tokens=8), n=1)
    assert (result.ok, result.leaks) == (1, 1)


async def test_a_port_without_a_server_is_an_error_of_its_own(tmp_path: Path) -> None:
    result = await mock.load("http://127.0.0.1:1", mock.request_body(tmp_path, tokens=8), n=2)
    assert (result.ok, result.errors["connect"]) == (0, 2)
