"""The way to the client: every write through ASGI, and what is watched of a connection."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope, Send

from bench.without.optimisation import optimisation, override, replace
from gateway.relay.relay import Relay
from gateway.server.client import ClientConnection


class CollectingClient(ClientConnection):
    """A connection that keeps the pieces of an answer for ASGI's `send`."""

    __slots__ = ("pending",)

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.pending = b""

    def send_chunk(self, data: bytes) -> bool:
        self.pending += data
        return False  # so that the relay calls `send` next


@optimisation("a chunk is written to the client's connection as it is", instead="each chunk is a message to ASGI's `send`")
def direct_chunks() -> None:
    call = Relay.__call__

    async def through_send(self: Relay, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["state"]["connection"]
        scope["state"]["server_send"] = _collecting(client, scope["state"]["server_send"])
        await call(self, scope, receive, _collecting(client, send))

    replace(ClientConnection, CollectingClient)
    override(Relay, "__call__", through_send)


def _collecting(client: CollectingClient, send: Send) -> Send:
    async def collecting(message: Message) -> None:
        if client.pending and message["type"] == "http.response.body":
            message["body"], client.pending = client.pending + message["body"], b""
        await send(message)

    return collecting


@optimisation("an answer's head is written together with the first bytes of its body", instead="the head is written by itself")
def held_head() -> None:
    def write(self: ClientConnection, data: bytes) -> None:
        if not self.disconnected:
            self._transport.write(data)

    override(ClientConnection, "write", write)


@optimisation("a stream's messages after the first go to the server's own `send`", instead="all go through the layer that adds headers")
def own_send() -> None:
    call = Relay.__call__

    async def through_layer(self: Relay, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["server_send"] = send
        await call(self, scope, receive, send)

    override(Relay, "__call__", through_layer)


@optimisation("the connection itself reports a disconnect", instead="a task for each request waits for `http.disconnect`")
def disconnect_callback() -> None:
    call, lost = Relay.__call__, ClientConnection.connection_lost

    def over(self: ClientConnection) -> None:
        self.disconnected = True

    async def until_disconnect(receive: Receive, client: ClientConnection) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if client.is_closing():  # uvicorn says the same once the answer is complete
            lost(client)

    async def watched(self: Relay, scope: Scope, receive: Receive, send: Send) -> None:
        watches: list[asyncio.Task[None]] = []

        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                watches.append(asyncio.create_task(until_disconnect(receive, scope["state"]["connection"])))
            return message

        try:
            await call(self, scope, receiving, send)
        finally:
            for watch in watches:
                watch.cancel()

    override(ClientConnection, "connection_lost", over)
    override(Relay, "__call__", watched)
