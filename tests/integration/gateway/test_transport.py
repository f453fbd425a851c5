"""gateway.relay.transport against real servers that keep to HTTP/1.1, and some that do not."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter

import pytest

from gateway.relay import transport
from gateway.relay.transport import Closed, Pool, Response, TransportError
from tests.integration.gateway.scripted_server import HELLO, OK, Talk, begin, body, pieces, pooled, post, serving, stay


async def test_the_request_is_one_and_whole() -> None:
    async with serving(HELLO) as server, pooled(server.url + "/under/") as pool:
        response = await pool.post("/v1/x", b'{"a":1}', {"x-request-id": "7", "authorization": "Bearer k"})
        assert (await response.head(), response.headers, await body(response)) == (200, {"content-length": "5"}, b"hello")
        head, sent = server.connections[0][0].split(b"\r\n\r\n")
        assert sent == b'{"a":1}'
        assert head.decode().split("\r\n") == [
            "POST /under/v1/x HTTP/1.1",
            f"host: {server.url.removeprefix('http://')}",
            "content-type: application/json",
            "x-request-id: 7",
            "authorization: Bearer k",
            "content-length: 7",
        ]


@pytest.mark.parametrize(
    "answer",
    [
        HELLO,
        OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nx-trailer: y\r\n\r\n",
        OK + b"\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO,
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + HELLO,
        OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello",
    ],
    ids=["length", "chunked", "until close", "http/1.0", "continue", "hints", "closing"],
)
@pytest.mark.parametrize("dripped", [False, True])
async def test_a_body_comes_whole_however_it_is_framed_and_cut(answer: bytes, dripped: bool) -> None:
    async def drip(_: StreamReader, writer: StreamWriter) -> None:
        for byte in answer:
            writer.write(bytes([byte]))
            await writer.drain()

    async with serving(drip if dripped else answer) as server, pooled(server.url) as pool:
        assert await post(pool) == (200, b"hello")


@pytest.mark.parametrize(("answer", "status"), [(b"HTTP/1.1 204 No Content\r\n\r\n", 204), (OK + b"content-length: 0\r\n\r\n", 200)])
async def test_an_answer_without_a_body_ends_at_once_and_keeps_the_connection(answer: bytes, status: int) -> None:
    async with serving(answer, HELLO) as server, pooled(server.url) as pool:
        assert await post(pool) == (status, b"")
        assert await post(pool) == (200, b"hello")
        assert [len(requests) for requests in server.connections] == [2]


async def test_the_hints_before_an_answer_leave_no_headers() -> None:
    async with serving(b"HTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\n" + HELLO) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        assert (await response.head(), response.headers) == (200, {"content-length": "5"})
        await body(response)


async def test_a_connection_is_used_again_and_as_many_are_opened_as_are_busy() -> None:
    async with serving(*[HELLO] * 6) as server, pooled(server.url) as pool:
        for _ in range(2):
            assert await post(pool) == (200, b"hello")
        assert await asyncio.gather(*(post(pool) for _ in range(3))) == [(200, b"hello")] * 3
        assert sorted(len(requests) for requests in server.connections) == [1, 1, 3]


async def test_an_old_connection_is_closed_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(HELLO, HELLO, HELLO) as server, pooled(server.url) as pool:
        await post(pool)
        monkeypatch.setattr(transport, "KEEPALIVE_SECONDS", 0)
        await post(pool)
        await server.client_closed.wait()
        assert [len(requests) for requests in server.connections] == [1, 1]


@pytest.mark.parametrize(
    "answer",
    [OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello"],
    ids=["closing", "http/1.0"],
)
async def test_a_connection_that_is_to_be_closed_is_not_kept(answer: bytes) -> None:
    async with serving(answer, HELLO) as server, pooled(server.url) as pool:
        assert await post(pool) == await post(pool) == (200, b"hello")
        assert len(server.connections) == 2


async def test_a_kept_connection_that_was_closed_under_a_request_says_so() -> None:
    async with serving(HELLO, stay_no_longer) as server, pooled(server.url) as pool:
        await post(pool)
        response = await pool.post("/v1/x", b"", {})
        with pytest.raises(Closed) as error:
            await response.head()
        assert error.value.reused


async def stay_no_longer(_: StreamReader, writer: StreamWriter) -> None:
    """Closes without an answer."""
    writer.close()


async def test_a_kept_connection_that_was_closed_meanwhile_is_not_used() -> None:
    async with serving(HELLO) as server, pooled(server.url) as pool:  # it closes after its last answer
        await post(pool)
        async with serving(HELLO) as _:
            await until_forgotten(pool)
        with pytest.raises(TransportError):  # a new one, which is closed as well
            await post(pool)
        assert len(server.connections) == 2


async def until_forgotten(pool: Pool) -> None:
    while pool._idle:
        await asyncio.sleep(0)


@pytest.mark.parametrize("kept", [False, True])
async def test_once_a_head_has_come_a_break_is_no_longer_the_kept_connections(kept: bool) -> None:
    cut = OK + b"content-length: 50\r\n\r\nhel"
    async with serving(*[HELLO] * kept, cut) as server, pooled(server.url) as pool:
        if kept:
            await post(pool)
        response = await pool.post("/v1/x", b"", {})
        assert await response.head() == 200
        with pytest.raises(Closed) as error:
            await body(response)
        assert not error.value.reused


async def test_what_came_before_a_break_is_read_first() -> None:
    async with serving(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n") as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        assert await response.read() == b"hel"
        with pytest.raises(Closed):
            await response.read()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"bad header\r\n\r\n",
    ],
    ids=["nothing", "text", "ssh", "http/2", "status", "tls", "upgrade", "two lengths", "negative", "header"],
)
async def test_what_is_no_answer_is_an_error_and_ends_the_connection(answer: bytes) -> None:
    async with serving(answer) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        with pytest.raises(Closed):
            await response.head()
        assert not pool._idle


async def test_a_broken_chunk_is_an_error_after_the_head() -> None:
    async with serving(OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\nzz\r\n") as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        with pytest.raises(Closed):
            await body(response)


@pytest.mark.parametrize("line", [b"x: y\r\n", b"x" * 4096, b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["many", "long", "hints"])
async def test_a_head_without_end_is_given_up(line: bytes) -> None:
    async def endless(_: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"" if line.startswith(b"HTTP") else OK)
        while True:
            writer.write(line * 100)
            await writer.drain()

    async with serving(endless) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        with pytest.raises(Closed):
            await response.head()
        await server.client_closed.wait()


async def test_trailers_are_not_kept() -> None:
    trailers = b"".join(b"x-%d: y\r\n" % i for i in range(1000))
    answer = OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + trailers + b"\r\n"
    async with serving(answer) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        assert (await body(response), response.headers) == (b"hello", {"transfer-encoding": "chunked"})


@pytest.mark.parametrize("second", [HELLO, OK + b"content-length: 4\r\n\r\n"], ids=["whole", "begun"])
async def test_a_second_answer_to_a_request_is_never_taken_for_the_next_ones(second: bytes) -> None:
    async with serving(HELLO + second.replace(b"hello", b"wrong"), HELLO) as server, pooled(server.url) as pool:
        assert await post(pool) == (200, b"hello")
        assert await post(pool) == (200, b"hello")
        assert [len(requests) for requests in server.connections] == [1, 1]


async def test_bytes_on_an_idle_connection_end_it() -> None:
    late = asyncio.Event()

    async def unasked(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(HELLO)
        await late.wait()
        writer.write(HELLO)
        await stay(reader, writer)

    async with serving(unasked, HELLO) as server, pooled(server.url) as pool:
        await post(pool)
        late.set()
        await server.client_closed.wait()
        assert await post(pool) == (200, b"hello")


async def test_an_engine_is_not_read_faster_than_its_client_reads() -> None:
    size, sent = 2**26, 0

    async def flood(_: StreamReader, writer: StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"content-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 2**16)
            sent += 2**16
            await writer.drain()

    async with serving(flood) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        connection = response._connection
        assert connection is not None
        while not connection._paused:
            await asyncio.sleep(0)
        assert response._unread < transport.HIGH_WATER + 2**19  # and what one read may bring
        assert sent < size
        assert sum([len(piece) async for piece in pieces(response)]) == size


async def test_what_is_failed_from_outside_raises_its_error_for_whoever_reads() -> None:
    for reads in (Response.head, Response.read):
        talk = stay if reads is Response.head else begin
        async with serving(talk) as server, pooled(server.url) as pool:
            response = await pool.post("/v1/x", b"", {})
            if reads is Response.read:
                await response.head()
                assert await response.read() == b"hel"
            waiting = asyncio.create_task(reads(response))  # type: ignore[arg-type]
            await asyncio.sleep(0)
            response.fail(Closed("enough"))
            response.fail(Closed("never raised"))
            with pytest.raises(Closed, match="enough"):
                await waiting
            with pytest.raises(Closed, match="enough"):
                await response.read()
            await server.client_closed.wait()


async def test_closing_an_answer_ends_its_connection_and_twice_is_once() -> None:
    async with serving(begin) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        response.close()
        response.close()
        await server.client_closed.wait()
        assert not pool._idle


async def test_closing_a_read_answer_leaves_its_connection_to_the_next() -> None:
    async with serving(HELLO, HELLO) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        await body(response)
        response.close()
        assert await post(pool) == (200, b"hello")
        assert len(server.connections) == 1


async def test_a_closed_pool_keeps_nothing() -> None:
    async with serving(HELLO, HELLO, HELLO) as server, pooled(server.url) as pool:
        await post(pool)
        response = await pool.post("/v1/x", b"", {})
        pool.close()
        await response.head()
        assert await body(response) == b"hello"
        assert not pool._idle
        await server.client_closed.wait()


async def test_a_reader_that_is_cancelled_leaves_the_answer_to_be_closed() -> None:
    async with serving(begin) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        await response.read()
        waiting = asyncio.create_task(response.read())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        response.close()
        await server.client_closed.wait()


CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def waiting(go: asyncio.Event, *writes: bytes) -> Talk:
    """An engine that waits for `go` before each write but the first."""

    async def talk(_: StreamReader, writer: StreamWriter) -> None:
        for number, data in enumerate(writes):
            if number:
                await go.wait()
            writer.write(data)
            await writer.drain()

    return talk


async def test_a_sink_gets_each_read_at_once_until_it_says_enough_and_the_rest_is_kept() -> None:
    go = asyncio.Event()

    async with serving(waiting(go, OK + b"content-length: 9\r\n\r\nabc", b"def", b"ghi"), HELLO) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        taken = b""

        def sink(data: bytes) -> bool:
            nonlocal taken
            taken += data
            go.set()
            return len(taken) < 6

        await response.feed(sink)
        assert taken[:6] == b"abcdef"
        assert taken + await body(response) == b"abcdefghi"
        assert await post(pool) == (200, b"hello")


async def test_a_sink_that_never_has_enough_is_fed_to_the_end_and_once_more_to_nothing() -> None:
    async with serving(HELLO) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        taken: list[bytes] = []
        for _ in range(2):
            await response.feed(lambda data: taken.append(data) is None)
        assert b"".join(taken) == b"hello"


async def test_a_sink_gets_what_came_before_the_answer_broke_off() -> None:
    go, taken = asyncio.Event(), list[bytes]()

    def sink(data: bytes) -> bool:
        taken.append(data)
        go.set()
        return True

    async with serving(waiting(go, CHUNKED + b"3\r\nabc\r\n", b"3\r\ndef\r\nno chunk")) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        with pytest.raises(Closed):
            await response.feed(sink)
        assert b"".join(taken) == b"abcdef"


async def test_a_sink_that_has_enough_is_not_told_of_what_broke_behind_that() -> None:
    go, taken = asyncio.Event(), list[bytes]()
    async with serving(waiting(go, CHUNKED, b"3\r\nend\r\nno chunk")) as server, pooled(server.url) as pool:
        response = await pool.post("/v1/x", b"", {})
        await response.head()
        go.set()
        await response.feed(lambda data: taken.append(data) is not None)
        assert taken == [b"end"]
        with pytest.raises(Closed):
            await response.read()
