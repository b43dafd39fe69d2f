"""Applications that send on and on, with no wait of their own: others have their turns, and it ends with its client."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading

import pytest

from asgiri.server import Server
from asgiri.types import Receive, Scope, Send
from tests.proto.fakes import reply
from tests.serving import config, on_both_loops, url_of

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WEBSOCKET = GET.replace(
    b"\r\n\r\n",
    b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
)


class Endless:
    """Sends until it is told that nobody is there; any other path is answered at once."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/":
            await reply(send, b"other")
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            piece: dict[str, object] = {"type": "websocket.send", "bytes": b"x" * 100}
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            piece = {"type": "http.response.body", "body": b"x" * 100, "more_body": True}
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


@pytest.mark.parametrize("ask", [GET, WEBSOCKET], ids=["http", "websocket"])
@on_both_loops
async def test_others_have_their_turns_and_it_ends_with_its_client(ask: bytes) -> None:
    app = Endless()
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
