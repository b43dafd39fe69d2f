"""Whatever a peer, an application, the network and the clock do, in any order: nothing is left, all is logged once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from h2.exceptions import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.proto.connection import HIGH_WATER, TimeLimits
from asgiri.proto.http2_life import State
from tests.proto.fakes import ByHand, Call, run, settle
from tests.proto.fakes_http2 import Http2Peer
from tests.proto.test_access import Lines

pytestmark = pytest.mark.usefixtures("each_http2_engine")


class Storm:
    """Draws what happens next."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.app = ByHand()
        self.lines = Lines()
        self.peer = Http2Peer(
            self.app,
            access_log=self.lines,
            limits=HttpLimits(body_size=200_000),
            options=Http2Options(
                limits=HttpLimits(body_size=200_000),
                initial_window=self.random.choice([65535, 1 << 20]),
                max_concurrent_streams=20,
            ),
            times=TimeLimits(
                request_head=10, request_body=10, request=self.random.choice([0, 15]), keep_alive=20, write=10
            ),
            requests=self.random.choice([0, 5]),
            requests_per_connection=self.random.choice([0, 0, 10]),
            window=self.random.choice([0, 1000, 65535, 1 << 20]),
        )
        self.peer.reads = self.random.random() < 0.5
        self.open: list[int] = []  # requests that are not whole
        self.begun: list[int] = []
        self.calls: list[Call] = []
        self.doing: dict[Call, asyncio.Future[object]] = {}  # the last thing that each application has begun to do

    def steps(self) -> list[Callable[[], object]]:
        often = [
            self.request,
            self.request,
            self.piece,
            self.piece,
            self.act,
            self.act,
            self.act,
            self.turn,
            self.grant,
        ]
        return [*often * 3, self.cancel, self.passes, self.passes, self.stall, self.drain, self.leave]

    async def run(self, length: int) -> None:
        for _ in range(length):
            step = self.random.choice(self.steps())
            try:
                step()
            except ProtocolError:  # the client's library knows that this cannot be
                pass
            if self.random.random() < 0.5:
                await self.turn_of_the_loop()
            self.check()
        await self.end()

    def check(self) -> None:
        connection = self.peer.connection
        for number in connection.streams:
            assert connection.codec.held(number) <= HIGH_WATER + 100_000, "an application was not held up"

    async def turn_of_the_loop(self) -> None:
        if not self.peer.transport.is_closing():
            self.turn()
        await settle()
        self.calls += self.app.calls
        self.app.calls.clear()

    # What may happen

    def turn(self) -> None:
        self.peer.pump()

    def request(self) -> None:
        method = self.random.choice(["GET", "POST", "HEAD"])
        fields = [("expect", "100-continue")] if self.random.random() < 0.1 else []
        whole = method != "POST"
        number = self.peer.request("/", *fields, method=method, end_stream=whole)
        self.begun.append(number)
        if not whole:
            self.open.append(number)

    def piece(self) -> None:
        if not self.open:
            return
        number = self.random.choice(self.open)
        client = self.peer.client
        room = min(client.local_flow_control_window(number), 16384)
        size = self.random.randint(0, max(0, room))
        last = self.random.random() < 0.4
        client.send_data(number, bytes(size), end_stream=last)
        if last:
            self.open.remove(number)

    def cancel(self) -> None:
        if self.begun:
            self.peer.cancel(self.random.choice(self.begun))

    def grant(self) -> None:
        number = self.random.choice([None, *self.begun])
        size = self.random.choice([1, 1000, 100_000])
        with suppress(KeyError):  # the client's library has forgotten the stream
            self.peer.grant(size, *([] if number is None else [number]))

    def act(self) -> None:
        """Something that an application does."""
        idle = [call for call in self.calls if call not in self.doing or self.doing[call].done()]
        if not idle:
            return
        call = self.random.choice(idle)
        match self.random.randint(0, 6):
            case 0:
                self.later(call, call.receive())
            case 1:
                self.later(call, call.start())
            case 2 | 3:
                self.later(call, call.body(bytes(self.random.choice([0, 10, 1000, 100_000]))))
            case 4:
                self.later(call, call.body(b"end", more=False))
            case 5:
                self.later(call, call.reply(bytes(self.random.choice([0, 10, 1000, 100_000]))))
            case 6:
                call.finish(ValueError("no") if self.random.random() < 0.5 else None)

    def later(self, call: Call, doing: Awaitable[object]) -> None:
        if call in self.doing and not self.doing[call].cancelled():
            self.doing[call].exception()  # what the last one came to is of no interest
        self.doing[call] = asyncio.ensure_future(doing)

    def passes(self) -> None:
        self.peer.passes(self.random.choice([0.3, 1, 5]))

    def stall(self) -> None:
        transport = self.peer.transport
        if transport.stalled:
            transport.stalled = False
            transport.peer_reads(1 << 30)
        else:
            transport.stalled = True

    def drain(self) -> None:
        if self.random.random() < 0.2:
            self.peer.shared.draining = True
            self.peer.connection.begin_drain()

    def leave(self) -> None:
        """Rarely, for it ends all."""
        if self.random.random() > 0.1:
            return
        match self.random.randint(0, 4):
            case 0 if self.peer.transport.is_reading() and self.peer.state() is not State.HALF_CLOSED:
                self.peer.eof()
            case 1:
                self.peer.transport.lose()
            case 2:
                self.peer.connection.abort()
            case 3:
                self.peer.connection.close_idle()
            case 4 if self.peer.transport.is_reading():
                self.peer.connection.data_received(self.random.randbytes(30))

    async def end(self) -> None:
        told = self.peer.connection.requests
        self.peer.transport.lose()
        await self.turn_of_the_loop()
        for call in self.calls:
            call.finish()
        for _ in range(3):
            await self.turn_of_the_loop()
        await asyncio.wait_for(asyncio.gather(*self.doing.values(), return_exceptions=True), 10)
        await self.peer.end()
        assert self.peer.state() is State.CLOSED
        ids = [line.request_id for line in self.lines.all]
        assert len(ids) == len(set(ids)), "an exchange was logged twice"
        assert len(ids) >= told, "an exchange was not logged"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_anything_in_any_order(seed: int) -> None:
    async def storm() -> None:
        await Storm(seed).run(120)

    run(storm(), collect=False)
