"""Whatever a peer, an application, the network and the clock do to a WebSocket, in any order: nothing is left of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from h2.exceptions import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.proto.connection import HIGH_WATER
from tests.proto.fakes import run, settle
from tests.proto.fakes_websocket import (
    BINARY,
    CLIENTS,
    PING,
    PONG,
    Client,
    Http1Client,
    Http2Client,
    Played,
    close,
    frame,
    frames,
    text,
    times,
)
from tests.proto.test_access import Lines

MESSAGES: list[dict[str, Any]] = [
    {"type": "websocket.accept"},
    {"type": "websocket.accept"},
    {"type": "websocket.send", "text": "x"},
    {"type": "websocket.send", "bytes": b"x" * 20_000},
    {"type": "websocket.send", "bytes": b"x" * 200_000},
    {"type": "websocket.close", "code": 3000},
    {"type": "websocket.http.response.start", "status": 404},
    {"type": "websocket.http.response.body", "body": b"x", "more_body": True},
    {"type": "websocket.http.response.body"},
]
SAID = [
    text("x"),
    frame(BINARY, b"x" * 5000),
    frame(BINARY, b"x" * HIGH_WATER),
    frame(PING, b"?") * 100,
    frame(PONG, b"asgiri"),
    text("in pieces"),
    close(),
    close(4000, "bye"),
    b"\x81\x00",
]


class Storm:
    """Draws what happens next."""

    def __init__(self, make: Callable[..., Client], seed: int) -> None:
        self.random = random.Random(seed)
        self.app = Played()
        self.lines = Lines()
        draw = self.random.choice
        limits = times(request=draw([0, 15]), write=10, ping_interval=draw([0, 5]), ping_timeout=draw([0, 5, 12]))
        self.client = make(self.app, access_log=self.lines, times=limits)
        self.doing: list[asyncio.Future[Any]] = []  # what the application has begun
        self.left = b""  # of a frame whose beginning was sent
        self.gone = False

    async def run(self, length: int) -> None:
        await self.client.open()
        often = [self.say, self.say, self.piece, self.send, self.send, self.receive, self.receive, self.turn]
        rarely = [self.passes, self.passes, self.stall, self.read_on, self.drain, self.finish, self.fail, self.vanish]
        for _ in range(length):
            with suppress(ProtocolError):  # the client's library knows that this cannot be
                await self.random.choice([*often * 3, *rarely, self.half_close])()
            self.check()
        await self.end()

    def check(self) -> None:
        """What holds at any time."""
        frames(self.client.received)  # whole, in order, none masked
        answer = self.client.answer()
        assert answer is None or answer.status in (101, 200, 400, 403, 404, 500, 503)
        for session in self.client.shared.sessions:
            assert session.buffered <= 3 * HIGH_WATER + 4096, "more than a read, and a message"

    # The client

    async def say(self) -> None:
        if not self.left:
            await self.put(self.random.choice(SAID))

    async def piece(self) -> None:
        """Part of a frame, or what is left of it."""
        if self.left:
            data, self.left = self.left, b""
        else:
            whole = frame(BINARY, b"x" * 100)
            cut = self.random.randrange(1, len(whole))
            data, self.left = whole[:cut], whole[cut:]
        await self.put(data)

    async def put(self, data: bytes) -> None:
        client = self.client
        if not self.gone and (isinstance(client, Http2Client) or client.transport.is_reading()):
            client.send(data)

    async def half_close(self) -> None:
        client = self.client
        if not self.gone and (isinstance(client, Http2Client) or client.transport.is_reading()):
            self.gone = True
            client.half_close()

    async def vanish(self) -> None:
        if self.random.random() < 0.3:
            self.gone = True
            self.client.vanish()

    async def stall(self) -> None:
        await self.client.stall()

    async def read_on(self) -> None:
        if isinstance(self.client, Http1Client) or not self.gone:
            await self.client.read_on()

    # The application

    async def send(self) -> None:
        await self.act(lambda call: call.send(self.random.choice(MESSAGES)))

    async def receive(self) -> None:
        await self.act(lambda call: call.receive())

    async def act(self, begin: Callable[[Any], Any]) -> None:
        if self.app.calls:
            await self.app.next()
        if self.app.taken and all(one.done() for one in self.doing):
            self.doing.append(asyncio.ensure_future(begin(self.app.taken[0])))

    async def finish(self) -> None:
        if self.app.taken and self.random.random() < 0.3:
            self.app.taken[0].finish(None)

    async def fail(self) -> None:
        if self.app.taken and self.random.random() < 0.3:
            self.app.taken[0].finish(ZeroDivisionError())

    # Time and the server

    async def turn(self) -> None:
        await self.client.turn()

    async def passes(self) -> None:
        await self.client.passes(self.random.choice([1, 3, 8]))

    async def drain(self) -> None:
        if self.random.random() < 0.2:
            await self.client.drain(self.random.choice([1001, 1012]))

    async def end(self) -> None:
        await self.client.end()
        for one in self.doing:
            if not one.done():  # a second receive() that waits has nothing more to hear than the first
                one.cancel()
        await settle()
        for one in self.doing:
            assert one.cancelled() or isinstance(one.exception(), OSError | RuntimeError | type(None))
        logged = [line.target for line in self.lines.all if line.target]  # what follows a denial is no request at all
        assert logged == [b"/chat"], "once"


@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_any_order_of_both_sides_ends_well(make: Callable[..., Client], seed: int) -> None:
    async def storm() -> None:
        await Storm(make, seed).run(60)

    run(storm(), collect=False)
