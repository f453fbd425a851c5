"""A request's header is measured however it came, and an answer that is a head alone goes out before what follows it."""

from __future__ import annotations

from tests.integration.gateway.test_protocol import GET, port
from tests.support.raw_http import Wire, head


async def test_a_header_that_begins_behind_a_request_and_ends_in_the_next_packet_is_measured_whole() -> None:
    long = head("GET", "/", x="v" * 5000)
    async with port(max_header_line=1024, max_header_bytes=2000) as made:
        made.go.clear()
        wire = await Wire.open(made.url)
        await wire.send(head("POST", "/", content_length="1", expect="100-continue") + b"a" + GET + long[:-20])
        assert (await wire.answer()).status == 100  # it was read
        await wire.send(long[-20:])
        made.go.set()
        assert [(await wire.answer()).status for _ in range(3)] == [200, 200, 431]
        wire.close()


async def test_a_whole_header_is_bounded_also_where_one_line_might_be_longer() -> None:
    async with port(max_header_line=2**14, max_header_bytes=2000) as made:
        wire = await Wire.open(made.url)
        await wire.send(head("GET", "/", **{f"x{i}": "v" * 180 for i in range(11)}))
        assert (await wire.answer()).status == 431
        wire.close()


async def test_an_answer_of_a_head_alone_comes_before_the_refusal_of_what_follows() -> None:
    async with port() as made:
        wire = await Wire.open(made.url)
        await wire.send(head("HEAD", "/") + b"no request\r\n\r\n")
        answers = await wire.reader.read()
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert answers.count(b"HTTP/1.1 400 ") == 1
        wire.close()
