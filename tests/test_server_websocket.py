"""WebSockets on real sockets, by a client that says exactly what it is told to."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from asgiri.config.schema import Config, Listen, Tls, WebSocket
from asgiri.errors import ConfigError
from asgiri.proto import secure
from asgiri.server import Server
from tests.pki import Pki
from tests.proto.fakes import until
from tests.proto.fakes_websocket import BINARY, CLOSE, PING, TEXT, Http1Client, close, frame, frames, text
from tests.serving import Client, config, connected, on_both_loops, shared_of

ASKING = Http1Client.asking()


class Echo:
    """Echoes, unless it is ``silent``, and keeps how its WebSockets have ended."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.codes: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if not self.silent:
                await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
        self.codes.append(message["code"])


def with_pings(base: Config, interval: float, timeout: float) -> Config:
    return msgspec.structs.replace(base, websocket=WebSocket(ping_interval=interval, ping_timeout=timeout))


@asynccontextmanager
async def opened(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    async with connected(server, tls=tls) as client:
        client.send(ASKING)
        await client.some(b"\r\n\r\n")
        yield client


def behind_the_answer(data: bytes) -> list[tuple[int, bytes]]:
    assert data.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    return frames(data.partition(b"\r\n\r\n")[2])


@on_both_loops
async def test_a_conversation_in_one_piece() -> None:
    """Frames that come with the handshake are kept, and the server ends TCP first (RFC 6455 section 7.1.1)."""
    app = Echo()
    async with Server(app, config=config()) as server, connected(server) as client:
        client.send(ASKING + text("hello") + frame(BINARY, b"x" * 300_000))
        await client.some(b"x" * 300_000)
        client.send(close(1000, "bye"))
        sent = behind_the_answer(await client.rest())
    assert sent == [(TEXT, b"hello"), (BINARY, b"x" * 300_000), (CLOSE, b"\x03\xe8")]
    assert app.codes == [1000]


@on_both_loops
async def test_who_broke_the_protocol_reads_why_and_is_not_reset() -> None:
    app = Echo()
    async with Server(app, config=config()) as server, opened(server) as client:
        client.send(b"\x81\x00" + b"what follows is not read" * 20_000)
        sent = behind_the_answer(await client.rest())
    assert [(opcode, payload[:2]) for opcode, payload in sent] == [(CLOSE, (1002).to_bytes(2))]
    assert app.codes == [1002]


@on_both_loops
async def test_who_resets_is_lost() -> None:
    app = Echo()
    async with Server(app, config=config()) as server, opened(server) as client:
        client.reset()
        await until(lambda: app.codes)
    assert app.codes == [1006]


@on_both_loops
async def test_a_ping_that_nobody_answers() -> None:
    app = Echo()
    async with Server(app, config=with_pings(config(), 0.05, 0.05)) as server, opened(server) as client:
        sent = behind_the_answer(await client.rest())
    assert sent[0][0] == PING
    assert sent[-1][0] == CLOSE
    assert sent[-1][1][:2] == (1011).to_bytes(2)
    assert app.codes == [1011]


@pytest.mark.parametrize(("retiring", "code"), [(False, 1001), (True, 1012)])
@on_both_loops
async def test_a_shutdown_closes_them_at_once(retiring: bool, code: int) -> None:
    app = Echo(silent=True)  # an answer would find the WebSocket closed
    async with Server(app, config=config()) as server, opened(server) as client:
        stopping = asyncio.create_task(server.shutdown(window=20, retiring=retiring))
        await client.some(code.to_bytes(2))
        client.send(text("on its way") + close(code))
        sent = behind_the_answer(await client.rest())
        await asyncio.wait_for(stopping, 10)
    assert [opcode for opcode, _ in sent] == [CLOSE]
    assert app.codes == [code]


@on_both_loops
async def test_a_shutdown_cuts_who_does_not_go(caplog: pytest.LogCaptureFixture) -> None:
    """The peer answers nothing, and the application does not end."""

    async def stays(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    with caplog.at_level(logging.WARNING, "asgiri"):
        async with Server(stays, config=config(drain_timeout=0.2)) as server, opened(server) as client:
            await server.shutdown()
            await client.rest()
    assert any("cut off while stopping: WebSocket '/chat'" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("fast", [True, False])
@on_both_loops
async def test_over_tls(fast: bool, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fast:
        monkeypatch.setattr(secure, "fast_connect", lambda: None)
    app = Echo()
    tls = Tls(certfile=pki.certfile, keyfile=pki.keyfile)
    listen = Listen(bind="127.0.0.1:0", tls=tls)
    client_context = pki.client()
    async with Server(app, config=config(listen)) as server:
        async with connected(server, tls=client_context) as client:
            client.send(ASKING + text("hello") + frame(BINARY, b"x" * 300_000))
            await client.some(b"x" * 300_000)
            client.send(close())
            sent = behind_the_answer(await client.rest())
        assert [opcode for opcode, _ in sent] == [TEXT, BINARY, CLOSE]
        async with opened(server, client_context) as client:
            client.send(b"\x81\x00")
            await client.some(b"\x88")
        await until(lambda: not shared_of(server).connections)
    assert app.codes == [1000, 1002]


@on_both_loops
async def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asgiri.codec.ws_wsproto", None)
    server = Server(Echo(), config=msgspec.structs.replace(config(), websocket=WebSocket(engine="wsproto")))
    with pytest.raises(ConfigError, match=r'websocket\.engine: wsproto is not installed: use "auto"'):
        await server.start()
