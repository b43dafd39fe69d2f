"""One read may hold many messages: how many wait at once, that none is lost, and what a large one costs."""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.asgi.websocket import MESSAGE_COST
from asgiri.codec.engines import WEBSOCKET_ENGINES, websocket_engine
from asgiri.errors import ClientDisconnectedError
from asgiri.proto.carrier import PORTION
from asgiri.proto.connection import HIGH_WATER, WebSocketOptions
from asgiri.proto.secure import Secure
from asgiri.proto.websocket import WebSocketProtocol
from tests.proto.fakes import in_loop, run
from tests.proto.fakes_websocket import BINARY, PING, TEXT, Http1Client, Played, close, frame, opened
from tests.proto.test_websocket import MakeClient, disconnect, on_each_carrier

# What loops and TLS read at once, at most.
READ = 256 << 10
EMPTY = frame(TEXT)
# What a portion of the smallest messages is worth, as they wait.
MOST_TINY = HIGH_WATER + (PORTION // len(EMPTY) + 1) * MESSAGE_COST


def waiting(client: Any) -> int:
    return sum(session.buffered for session in client.shared.sessions)


def over_tls(client: Http1Client) -> None:
    connection: Any = client.transport.protocol
    connection.secure = Secure(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), {}, 0)


@on_each_carrier
@pytest.mark.parametrize("one", [EMPTY, frame(BINARY, b"x"), frame(TEXT, b"", fin=False) + frame(0)])
@in_loop
async def test_tiny_messages(make: MakeClient, one: bytes) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    size = READ if isinstance(client, Http1Client) else 60_000  # what its window lets it
    count = size // len(one)
    await client.say(one * count)
    assert HIGH_WATER < waiting(client) <= MOST_TINY
    told = 0
    while told < count:
        if isinstance(client, Http1Client) and client.is_read():  # of a stream, its window bounds what waits
            assert told + waiting(client) // MESSAGE_COST >= count, "ever more would wait"
        assert (await call.receive())["type"] == "websocket.receive"
        told += 1
        if told % 64 == 0:
            await client.turn()
        assert waiting(client) <= MOST_TINY
    await client.turn()
    assert client.is_read()
    await client.say(close())
    assert await call.receive() == disconnect(1000)
    await client.end()


@pytest.mark.parametrize("large", [PORTION - 4, 70_000])
@pytest.mark.parametrize(
    "before", [b"", EMPTY, frame(PING), EMPTY * (PORTION // len(EMPTY)), frame(TEXT, b"x" * 16_373)]
)
@pytest.mark.parametrize("cut", [0, 1, 3, 9, 13, 20, -1])
@in_loop
async def test_a_large_message_and_then_tiny_ones(large: int, before: bytes, cut: int) -> None:
    app = Played()
    client = Http1Client(app)
    call = await opened(client, app)
    message = frame(BINARY, b"x" * large)
    place = len(before) + (cut if cut >= 0 else len(message) - 1)
    data = before + message + EMPTY * (READ // len(EMPTY))
    bound = MOST_TINY + large + MESSAGE_COST
    client.send(data[:place])
    assert waiting(client) <= bound
    sizes = []
    while not client.is_read():
        sizes.append(len((await call.receive())["bytes"] or b""))
        await client.turn()
    client.send(data[place:])
    assert waiting(client) <= bound
    while not any(sizes):
        sizes.append(len((await call.receive())["bytes"] or b""))
    assert sizes[-1] == large
    assert waiting(client) <= bound
    await client.end()


@pytest.mark.parametrize("size", [PORTION, 65536, 200_000])
@in_loop
async def test_a_large_message_is_given_in_one_piece(size: int) -> None:
    app = Played()
    client = Http1Client(app, max_message=1 << 20)
    await opened(client, app)
    tunnel: Any = client.transport.protocol
    protocol: WebSocketProtocol = tunnel.protocol
    message = frame(BINARY, b"x" * size)
    assert protocol.portion(message, 0) == len(message)
    assert protocol.portion(message + EMPTY * 10_000, 0) == len(message)
    assert protocol.portion(EMPTY * 10_000 + message, 0) == PORTION
    client.send(message[:1000])
    assert protocol.portion(message, 1000) == max(len(message) - 1000, PORTION)
    await client.end()


@pytest.mark.parametrize("secure", [False, True])
@in_loop
async def test_what_waits_is_told_before_the_end_that_came_with_it(secure: bool) -> None:
    """TLS gives its end right behind the bytes, and does not wait: then the connection is gone before they are told."""
    app = Played()
    client = Http1Client(app)
    call = await opened(client, app)
    if secure:
        over_tls(client)
    count = READ // len(EMPTY)
    client.send(EMPTY * count)
    client.half_close()
    await client.turn()
    assert client.transport.is_lost() is secure
    assert len(client.shared.connections) == (not secure)
    assert waiting(client) <= MOST_TINY
    for place in range(count):
        assert (await call.receive())["type"] == "websocket.receive"
        if place % 64 == 0:
            assert waiting(client) <= MOST_TINY
            await client.turn()
    assert await call.receive() == disconnect(1006)
    with pytest.raises(ClientDisconnectedError):
        await call.send({"type": "websocket.send", "text": "x"})
    call.finish()
    await client.end()


@pytest.mark.parametrize("end", [close(1000, "bye"), b"\xff"], ids=["close", "failure"])
@in_loop
async def test_a_close_that_waits_when_tls_ends(end: bytes) -> None:
    app = Played()
    client = Http1Client(app)
    call = await opened(client, app)
    over_tls(client)
    client.send(EMPTY * 4000 + end + EMPTY)
    client.half_close()
    await client.turn()
    for _ in range(4000):
        assert (await call.receive())["type"] == "websocket.receive"
        await asyncio.sleep(0)
    last = await call.receive()
    assert (last["type"], last["code"]) == ("websocket.disconnect", 1000 if end != b"\xff" else 1002)
    await client.end()


@pytest.mark.parametrize("how", ["returns", "fails", "closes", "is reset"])
@in_loop
async def test_the_application_ends_after_tls_has(how: str) -> None:
    app = Played()
    client = Http1Client(app)
    call = await opened(client, app)
    over_tls(client)
    await client.stall()
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": b"x" * 300_000}))
    await client.turn()
    assert not sending.done()
    tunnel: Any = client.transport.protocol
    tunnel.data_received(EMPTY * 40_000)  # which was deciphered already
    client.half_close()
    client.transport.lose()
    await client.turn()
    assert sending.done(), "nothing takes it any more"
    if how == "closes":
        await call.send({"type": "websocket.close"})
    elif how == "is reset":
        tunnel.protocol.reset()
    await client.turn()
    call.finish(ZeroDivisionError() if how == "fails" else None)
    await client.turn()
    assert not client.shared.sessions
    await client.end()


class Flood:
    """Messages of random sizes, in reads of random sizes, to an application that takes them at its own pace."""

    def __init__(self, seed: int) -> None:
        draw = self.random = random.Random(seed)
        self.app = Played()
        self.client = Http1Client(self.app, max_message=1 << 20)
        engine = websocket_engine(draw.choice(list(WEBSOCKET_ENGINES)))
        self.client.shared.websocket = WebSocketOptions(engine=engine, max_message=1 << 20)
        self.sent: list[bytes] = []
        self.data = b""
        for number in range(draw.randrange(1, 12)):
            self.add(number)
        self.heard: list[bytes] = []

    def add(self, number: int) -> None:
        draw = self.random
        size = draw.choice([0, 1, 125, 126, 5000, PORTION - 14, PORTION - 8, PORTION, 20_000, 70_000])
        if draw.random() < 0.4:
            many = draw.randrange(6000 // (size // 100 + 1))
            self.sent += [b""] * many
            self.data += EMPTY * many
        content = bytes([number]) * size
        self.sent.append(content)
        if draw.random() < 0.3:
            cut = draw.randrange(size + 1)
            self.data += frame(BINARY, content[:cut], fin=False) + frame(PING, b"?") + frame(0, content[cut:])
        else:
            self.data += frame(BINARY, content)

    async def run(self) -> None:
        client, draw = self.client, self.random
        self.call = await opened(client, self.app)
        secure = draw.random() < 0.5
        if secure:
            over_tls(client)
        while self.data:
            if client.is_read():
                size = draw.choice([1, 13, 1000, 65536, READ])
                client.send(self.data[:size])
                self.data = self.data[size:]
            else:
                await self.hear(draw.choice([1, 100, 1000]))
            assert waiting(client) <= MOST_TINY + 70_000 + MESSAGE_COST
        client.half_close()
        while (message := await self.call.receive())["type"] == "websocket.receive":
            self.heard.append(message["bytes"] or b"")
            if len(self.heard) % 100 == 0:
                await client.turn()
        assert message == disconnect(1006)
        assert self.heard == self.sent
        await client.end()

    async def hear(self, most: int) -> None:
        for _ in range(most):
            if not waiting(self.client):
                break
            message = await self.call.receive()
            self.heard.append(message["bytes"] or b"")
        await self.client.turn()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_nothing_is_lost_or_overtaken(seed: int) -> None:
    async def flood() -> None:
        await Flood(seed).run()

    run(flood(), collect=False)
