"""The way to the client: every write through ASGI, and what is watched of a connection."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope, Send

from bench.without.optimisation import optimisation, override, replace
from gateway.relay.relay import Relay
from gateway.server.client import Client


class CollectingClient(Client):
    """A connection that keeps the pieces of an answer for ASGI's `send`."""

    __slots__ = ("pending",)

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.pending = b""

    def piece(self, data: bytes) -> bool:
        self.pending += data
        return False  # so that the relay calls `send` next


@optimisation("a chunk is written to the client's connection as it is", instead="each chunk is a message to ASGI's `send`")
def direct_chunks() -> None:
    call = Relay.__call__

    async def through_send(self: Relay, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["connection"]
        scope["state"]["send"] = _collecting(client, scope["state"]["send"])
        await call(self, scope, receive, _collecting(client, send))

    replace(Client, CollectingClient)
    override(Relay, "__call__", through_send)


def _collecting(client: CollectingClient, send: Send) -> Send:
    async def collecting(message: Message) -> None:
        if client.pending and message["type"] == "http.response.body":
            message["body"], client.pending = client.pending + message["body"], b""
        await send(message)

    return collecting


@optimisation("an answer's head is written together with the first bytes of its body", instead="the head is written by itself")
def held_head() -> None:
    def write(self: Client, data: bytes) -> None:
        if not self.over:
            self._transport.write(data)

    override(Client, "write", write)


@optimisation("a stream's messages after the first go to the server's own `send`", instead="all go through the layer that adds headers")
def own_send() -> None:
    call = Relay.__call__

    async def through_layer(self: Relay, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["send"] = send
        await call(self, scope, receive, send)

    override(Relay, "__call__", through_layer)


@optimisation("the connection itself reports a disconnect", instead="a task for each request waits for `http.disconnect`")
def disconnect_callback() -> None:
    call, left = Relay.__call__, Client.left

    def over(self: Client) -> None:
        self.over = True

    async def until_disconnect(receive: Receive, client: Client) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if client.is_closing():  # uvicorn says the same once the answer is complete
            left(client)

    async def watched(self: Relay, scope: Scope, receive: Receive, send: Send) -> None:
        watches: list[asyncio.Task[None]] = []

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watches.append(asyncio.create_task(until_disconnect(receive, scope["connection"])))
            return message

        try:
            await call(self, scope, receiving, send)
        finally:
            for watch in watches:
                watch.cancel()

    override(Client, "left", over)
    override(Relay, "__call__", watched)
