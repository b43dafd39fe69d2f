"""What a connection is found out to speak: by its first bytes, cut anywhere; and how it waits until then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext
from asgiri.codec.engines import http1_engine, http2_engine
from asgiri.codec.h2_wire import PREFACE
from asgiri.codec.rules import HttpLimits
from asgiri.proto.connection import Connection, Shared, TimeLimits
from asgiri.proto.detect import Detector, Way
from asgiri.proto.http2 import Http2Connection
from asgiri.proto.http11 import Http11Connection
from asgiri.types import ASGIApp
from tests.http2_client import Answer2, Http2Client
from tests.proto.fakes import Answer, FakeTransport, hello, in_loop, parse_answers, request, run, settle

BOTH = ("h2", "http/1.1")


class Wire:
    """One accepted connection, and its peer's end."""

    def __init__(
        self,
        *http: str,
        app: ASGIApp = hello,
        h2c_upgrade: bool = False,
        shared: Shared | None = None,
        engine: str = "auto",
    ) -> None:
        loop = asyncio.get_running_loop()
        self.shared = shared or Shared(
            context=AppContext(app=app, extensions=HTTP_EXTENSIONS),
            http1=http1_engine(engine),
            limits=HttpLimits(),
            times=TimeLimits(),
            loop=loop,
            http2=http2_engine("auto"),
            now=1000.0,
        )
        self.made = Way(http or BOTH, None, h2c_upgrade).maker(self.shared)()
        self.transport = FakeTransport(loop, self.made)
        self.made.connection_made(self.transport)
        self.client = Http2Client()
        self._read = 0

    @property
    def now(self) -> Connection:
        """What it is by now."""
        [connection] = self.shared.connections
        return connection

    def send(self, data: bytes) -> None:
        self.transport.protocol.data_received(data)

    async def sent(self) -> bytes:
        """What the server has written since the last time."""
        await settle()
        for connection in self.shared.connections:
            connection.push()
        data = self.transport.sent[self._read :]
        self._read += len(data)
        return data

    async def answers(self) -> list[Answer]:
        answers, rest = parse_answers(await self.sent(), ended=self.transport.half_closed)
        assert not rest
        return answers

    async def exchange(self, *cuts: int) -> Answer2:
        """A request over HTTP/2 whose first bytes come in pieces that end at ``cuts``."""
        self.client.begin()
        stream = self.client.request("/a")
        data = self.client.take()
        for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
            self.send(data[begin:end])
        self.client.feed(await self.sent())
        return self.client.answers[stream]

    def passes(self, seconds: float) -> None:
        self.shared.now += seconds
        for connection in list(self.shared.connections):
            connection.check(self.shared.now)

    async def end(self) -> None:
        self.transport.lose()
        await settle()
        assert not self.shared.connections
        assert not self.shared.sessions
        assert self.shared.quiet


# What it is found to be


@in_loop
async def test_the_preface_cut_anywhere_is_http2() -> None:
    for cuts in [(), *[(cut,) for cut in range(1, 40)], tuple(range(1, 40))]:
        wire = Wire()
        answer = await wire.exchange(*cuts)
        assert (answer.status, answer.body, answer.ended) == (200, b"/a", True)
        assert isinstance(wire.now, Http2Connection)
        assert wire.shared.accepted == 1
        await wire.end()


@pytest.mark.parametrize(
    "data",
    [
        request("/a"),
        request("/a", method="POST", body=b"PRI * HTTP/2.0"),
        request("/a", method="PUT"),
        request("/a", method="PRI"),
        request("/a", method="P"),
        b"\r\n" + request("/a"),
    ],
)
@in_loop
async def test_all_else_cut_anywhere_is_http11(data: bytes) -> None:
    for cuts in [(), *[(cut,) for cut in range(1, len(data))], tuple(range(1, len(data)))]:
        wire = Wire()
        for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
            wire.send(data[begin:end])
        [answer] = await wire.answers()
        assert (answer.status, answer.body) == (200, b"/a")
        assert isinstance(wire.now, Http11Connection)
        assert wire.shared.accepted == 1
        wire.send(request("/b"))  # and so it stays
        assert [answer.body for answer in await wire.answers()] == [b"/b"]
        await wire.end()


@in_loop
async def test_a_preface_that_is_broken_anywhere_gets_an_answer_of_http11() -> None:
    for place in range(len(PREFACE)):
        wire = Wire()
        broken = PREFACE[:place] + b"?" + PREFACE[place + 1 :]
        wire.send(broken[: place + 1])
        wire.send(broken[place + 1 :])
        [answer] = await wire.answers()
        assert answer.status in (400, 505), place
        assert answer.closes
        await wire.end()


@in_loop
async def test_http11_alone_makes_no_detector() -> None:
    wire = Wire("http/1.1")
    assert type(wire.made) is Http11Connection
    wire.send(PREFACE)
    assert [answer.status for answer in await wire.answers()] == [505]
    await wire.end()


@pytest.mark.parametrize("data", [request("/a"), b"G", PREFACE[:20] + b"?", b"\x16\x03\x01\x02\x00\x01"])
@in_loop
async def test_http2_alone_tells_a_client_of_http11_so(data: bytes) -> None:
    wire = Wire("h2")
    for byte in data:
        wire.send(bytes([byte]))
    [answer] = await wire.answers()
    assert answer.status == 505  # RFC 9110 section 15.6.6: with what is spoken instead
    assert b"HTTP/2" in answer.body
    assert answer.closes
    assert wire.transport.half_closed
    assert wire.shared.accepted == 1
    wire.send(request("/b"))  # is not read any more
    assert await wire.sent() == b""
    await wire.end()


@in_loop
async def test_http2_alone_speaks_http2() -> None:
    wire = Wire("h2")
    assert (await wire.exchange(5)).status == 200
    await wire.end()


@in_loop
async def test_connections_have_a_number_each_in_the_order_in_which_they_came() -> None:
    first = Wire()
    second = Wire(shared=first.shared)
    third = Wire("http/1.1", shared=first.shared)
    second.send(request("/a"))
    await settle()
    first.send(PREFACE)
    await settle()
    assert first.shared.accepted == 3
    assert [one._serial for one in first.shared.connections if isinstance(one, Http2Connection)] == [1]
    assert sorted(connection._serial for connection in first.shared.connections) == [1, 2, 3]
    for wire in (first, second):
        wire.transport.lose()
    await third.end()


# Until it is found out


@in_loop
async def test_a_silent_connection_is_idle() -> None:
    for http in (BOTH, ("h2",)):
        wire = Wire(*http)
        wire.passes(75.0)
        assert not wire.transport.is_closing()
        wire.passes(1.0)
        assert wire.transport.is_closing()
        assert await wire.sent() == b""
        assert not wire.shared.connections


async def drip(wire: Wire, data: bytes, step: float) -> None:
    for byte in data:
        wire.passes(step)
        wire.send(bytes([byte]))
        await settle()


@in_loop
async def test_a_dripping_preface_has_the_time_of_a_request_head() -> None:
    wire = Wire()
    await drip(wire, PREFACE[:6], 2.0)  # 10 seconds from the first byte
    assert isinstance(wire.transport.protocol, Detector)
    wire.passes(0.5)
    assert [answer.status for answer in await wire.answers()] == [408]
    await wire.end()


@in_loop
async def test_what_turns_out_to_be_http11_has_its_time_from_the_first_byte() -> None:
    wire = Wire()
    await drip(wire, b"PRI *?", 1.9)
    assert isinstance(wire.now, Http11Connection)
    wire.passes(0.5)
    assert await wire.sent() == b""
    wire.passes(0.5)
    assert [answer.status for answer in await wire.answers()] == [408]
    await wire.end()


@in_loop
async def test_a_dripping_preface_where_nothing_else_is_spoken() -> None:
    wire = Wire("h2")
    wire.send(PREFACE[:4])
    wire.passes(10.5)
    assert [answer.status for answer in await wire.answers()] == [408]
    wire.send(PREFACE[4:])  # too late
    assert await wire.sent() == b""
    await wire.end()


@in_loop
async def test_a_drain_closes_a_silent_connection_and_waits_for_one_that_has_begun() -> None:
    silent, begun = Wire(), Wire()
    begun.send(PREFACE[:4])
    for wire in (silent, begun):
        wire.shared.draining = True
        wire.now.begin_drain()
        wire.now.close_idle()
    assert silent.transport.is_closing()
    assert not begun.transport.is_closing()
    begun.send(request("/a", method="PRI")[4:])  # "PRI " was there already
    [answer] = await begun.answers()
    assert (answer.status, answer.closes) == (200, True)
    await begun.end()


@pytest.mark.parametrize("http", [BOTH, ("h2",)])
@in_loop
async def test_a_peer_that_ends_without_a_word(http: Sequence[str]) -> None:
    wire = Wire(*http)
    assert not wire.transport.protocol.eof_received()
    assert wire.transport.is_closing()
    await settle()
    assert not wire.shared.connections


@in_loop
async def test_a_peer_that_ends_in_the_preface() -> None:
    wire = Wire()
    wire.send(PREFACE[:16])
    assert wire.transport.protocol.eof_received() is False
    [answer] = await wire.answers()
    assert answer.status == 505
    only = Wire("h2")
    only.send(PREFACE[:16])
    assert only.transport.protocol.eof_received() is False
    assert await only.sent() == b""
    await settle()
    assert not wire.shared.connections
    assert not only.shared.connections


@in_loop
async def test_a_connection_that_is_lost_or_cut_undecided_is_forgotten() -> None:
    wire = Wire()
    wire.send(b"PR")
    quiet = []
    wire.shared.on_quiet = lambda: quiet.append(True)
    wire.now.abort()
    await settle()
    assert quiet == [True]
    assert not wire.shared.connections


# Anything at all

CONVERSATION = Http2Client()
CONVERSATION.begin()
CONVERSATION.request("/a")
UPGRADE = request("/a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
WORDS = [PREFACE, PREFACE[:7], CONVERSATION.take(), request("/a"), UPGRADE, request("/b", method="POST", body=b"hello")]


@settings(max_examples=150, deadline=None)
@given(
    http=st.sampled_from([BOTH, ("h2",), ("http/1.1",)]),
    words=st.lists(st.sampled_from(WORDS) | st.binary(max_size=30), min_size=1, max_size=4),
    size=st.integers(1, 400),
    step=st.sampled_from([0.0, 0.0, 1.0, 11.0, 80.0]),
    ends=st.sampled_from(["eof", "lost", "abort", "drain"]),
)
def test_no_bytes_can_break_the_finding_out(
    http: tuple[str, ...], words: list[bytes], size: int, step: float, ends: str
) -> None:
    async def main() -> None:
        wire = Wire(*http, h2c_upgrade=True)
        data = b"".join(words)
        for begin in range(0, len(data), size):
            if not wire.transport.is_reading():
                break
            wire.send(data[begin : begin + size])
            await settle()
            wire.passes(step)
            assert len(wire.shared.connections) <= 1
        if wire.transport.is_reading():
            if ends == "eof" and not wire.transport.protocol.eof_received():
                wire.transport.close()
            elif ends == "abort":
                wire.now.abort()
            elif ends == "drain":
                wire.shared.draining = True
                wire.now.begin_drain()
                wire.now.close_idle()
        await settle()
        assert wire.shared.accepted == 1
        await wire.end()

    run(main(), collect=False)
