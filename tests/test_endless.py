"""Applications that send on and on, with no wait of their own: others have their turns, and it ends with its client."""

from __future__ import annotations

import asyncio
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from typing import IO

import pytest

from asgiri.server import Server
from asgiri.types import Message, Receive, Scope, Send
from tests.proto.fakes import reply
from tests.serving import config, on_both_loops, url_of

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WEBSOCKET = GET.replace(
    b"\r\n\r\n",
    b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
)


class Endless:
    """Sends until it is told that nobody is there; any other path is answered at once.

    ``piece`` is what it sends over HTTP.
    """

    def __init__(self, piece: Message | None = None) -> None:
        self.over = asyncio.Event()
        self._piece = piece or {"type": "http.response.body", "body": b"x" * 100, "more_body": True}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/":
            await reply(send, b"other")
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            piece: Message = {"type": "websocket.send", "bytes": b"x" * 100}
        else:
            piece = self._piece
            if piece["type"] != "http.response.early_hint":
                await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send(piece)
        except OSError:
            self.over.set()


def read_on(port: int, ask: bytes, enough: threading.Event) -> None:
    """Ask, read as fast as it comes until there was enough, and reset the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20.0) as client:
        client.sendall(ask)
        while not enough.is_set():
            assert client.recv(1 << 20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def other(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET.replace(b"/ ", b"/other "))
    try:
        await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(5)
    finally:
        writer.close()


async def others_are_served(app: Endless, ask: bytes) -> None:
    async with Server(app, config=config()) as server:
        port = int(url_of(server).rpartition(":")[2])
        enough = threading.Event()
        reading = asyncio.create_task(asyncio.to_thread(read_on, port, ask, enough))
        try:
            async with asyncio.timeout(20):
                for _ in range(20):
                    assert await other(port) == b"other"
                enough.set()
                await reading
                await app.over.wait()
        finally:
            enough.set()


@pytest.mark.parametrize("ask", [GET, WEBSOCKET], ids=["http", "websocket"])
@on_both_loops
async def test_others_have_their_turns_and_it_ends_with_its_client(ask: bytes) -> None:
    await others_are_served(Endless(), ask)


def a_slice(file: IO[bytes]) -> Message:
    return {"type": "http.response.zerocopysend", "file": file, "offset": 0, "count": 100, "more_body": True}


def a_hint(file: IO[bytes]) -> Message:
    del file
    return {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}


@pytest.mark.parametrize("piece", [a_slice, a_hint])
@on_both_loops
async def test_so_it_is_with_what_is_no_plain_piece(piece: Callable[[IO[bytes]], Message]) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100)
        file.flush()
        await others_are_served(Endless(piece(file)), GET)


@pytest.mark.parametrize("ask", [GET, WEBSOCKET], ids=["http", "websocket"])
@on_both_loops
async def test_one_that_throws_the_error_away_leaves_others_their_turns(ask: bytes) -> None:
    told = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def stubborn(message: Message) -> None:
            try:
                await send(message)
            except OSError:
                told.set()

        await Endless()(scope, receive, stubborn)

    async with Server(app, config=config(drain_timeout=0.1)) as server:
        port = int(url_of(server).rpartition(":")[2])
        enough = threading.Event()
        enough.set()
        await asyncio.to_thread(read_on, port, ask, enough)
        async with asyncio.timeout(20):
            await told.wait()
            for _ in range(20):
                assert await other(port) == b"other"
