"""A stream of HTTP/2 as an asyncio transport, with protocols that know nothing of HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from asgiri.codec.events import Request
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.proto.connection import HIGH_WATER, TimeLimits
from asgiri.proto.exchange import PEER_LEFT
from asgiri.proto.http2_life import State
from asgiri.proto.http2_stream import HTTP2StreamTransport
from asgiri.types import ASGIApp, Receive, Scope, Send
from tests.proto.fakes import hello, in_loop, reply, settle
from tests.proto.fakes_http2 import Http2Peer
from tests.proto.test_access import Lines

pytestmark = pytest.mark.usefixtures("each_http2_engine")

NO_ERROR, CANCEL = 0, 8


class Recorder(asyncio.Protocol):
    """Tells what it is told."""

    keeps_open = False  # once the peer has ended its side

    def __init__(self, request: Request, transport: HTTP2StreamTransport) -> None:
        self.request = request
        self.given = transport
        self.data = b""
        self.told: list[str] = []
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert transport is self.given
        self.transport = self.given
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.error = exc


class Echo(Recorder):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.accept([(b"x-echo", b"1")])

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


class TunnelPeer(Http2Peer):
    """A client that opens tunnels."""

    def __init__(self, kind: Callable[[Request, HTTP2StreamTransport], Recorder], app: ASGIApp = hello, **more: Any):
        super().__init__(app, **more)
        self.made: list[Recorder] = []

        def make(request: Request, transport: HTTP2StreamTransport) -> Recorder:
            self.made.append(kind(request, transport))
            return self.made[-1]

        self.shared.tunnels[b"echo"] = make

    def connect(self, path: str = "/chat", *, end_stream: bool = False) -> int:
        number = self.client.get_next_available_stream_id()
        head = [
            (":method", "CONNECT"),
            (":protocol", "echo"),
            (":scheme", "http"),
            (":authority", "asgiri.test"),
            (":path", path),
        ]
        self.client.send_headers(number, head, end_stream=end_stream)
        return number

    async def opened(self, path: str = "/chat") -> tuple[int, Recorder]:
        number = self.connect(path)
        await self.turn()
        return number, self.made[-1]

    def send(self, number: int, data: bytes = b"", *, end: bool = False) -> None:
        self.client.send_data(number, data, end_stream=end)


@in_loop
async def test_a_tunnel_carries_bytes_both_ways_and_is_one_line() -> None:
    lines = Lines()
    peer = TunnelPeer(Echo, access_log=lines)
    number, protocol = await peer.opened("/chat?a=b")
    assert (protocol.request.method, protocol.request.protocol, protocol.request.path) == ("CONNECT", b"echo", b"/chat")
    assert peer.answers[number].status == 200
    assert peer.answers[number].headers == {"x-echo": "1"}
    for data in (b"one", b"two"):
        peer.send(number, data)
        await peer.turn()
    assert peer.answers[number].body == b"onetwo"
    peer.send(number, b"three", end=True)
    await peer.turn()
    assert peer.answers[number].body == b"onetwothree"
    assert peer.answers[number].ended
    assert peer.answers[number].reset is None
    assert protocol.told == ["made", "eof", "lost"]
    assert protocol.error is None
    assert lines.short == [("CONNECT", b"/chat?a=b", 200, 11)]
    assert not peer.connection.streams
    assert peer.connection.codec.streams == 0
    await peer.end()


@in_loop
async def test_a_tunnel_that_ends_takes_no_answer_along() -> None:
    """The codec has forgotten the tunnel, and holds an answer: as many as before."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, bytes(5000))

    peer = TunnelPeer(Echo, app, window=1000)
    peer.reads = False
    tunnel, _ = await peer.opened()
    peer.send(tunnel, end=True)
    stream = peer.request()
    await peer.turn()
    assert peer.answers[tunnel].ended
    assert len(peer.answers[stream].body) == 1000
    peer.connection.close_idle()
    peer.grant(4000, stream)
    (answer,) = await peer.until_answered(stream)
    assert len(answer.body) == 5000
    await peer.end()


@in_loop
async def test_a_large_echo_through_small_windows() -> None:
    peer = TunnelPeer(Echo, options=Http2Options(initial_window=65535))
    number, _ = await peer.opened()
    left = 1_000_000
    while left:
        size = min(left, peer.client.local_flow_control_window(number), 16384)
        peer.send(number, bytes(size))
        left -= size
        await peer.turn()
    await peer.turn()
    assert len(peer.answers[number].body) == 1_000_000
    await peer.end()


@in_loop
async def test_tunnels_and_requests_share_a_connection() -> None:
    peer = TunnelPeer(Echo)
    numbers = [(await peer.opened())[0] for _ in range(3)]
    stream = peer.request("/a")
    for number in numbers:
        peer.send(number, b"%d" % number)
    assert (await peer.until_answered(stream))[0].body == b"/a"
    await peer.turn()
    assert [peer.answers[number].body for number in numbers] == [b"%d" % number for number in numbers]
    await peer.end()


@in_loop
async def test_a_tunnel_that_is_refused() -> None:
    lines = Lines()
    peer = TunnelPeer(Recorder, access_log=lines)
    number, protocol = await peer.opened()
    assert number not in peer.answers
    protocol.transport.refuse(403, "not for you")
    await peer.turn()
    assert peer.answers[number].status == 403
    assert peer.answers[number].body == b"403 Forbidden: not for you\n"
    assert peer.answers[number].ended
    assert protocol.told == ["made", "lost"]
    assert lines.short == [("CONNECT", b"/chat", 403, 27)]
    assert peer.connection.codec.streams == 0
    await peer.end()


@in_loop
async def test_refused_in_words_of_its_own() -> None:
    peer = TunnelPeer(Recorder)
    number, protocol = await peer.opened()
    protocol.transport.refuse(401, headers=[(b"www-authenticate", b"Basic")], body=b"who?")
    await peer.turn()
    answer = peer.answers[number]
    assert (answer.status, answer.headers["www-authenticate"], answer.body) == (401, "Basic", b"who?")
    await peer.end()


@in_loop
async def test_nothing_is_written_before_the_tunnel_is_accepted() -> None:
    peer = TunnelPeer(Recorder)
    _, protocol = await peer.opened()
    with pytest.raises(RuntimeError, match="before accept"):
        protocol.transport.write(b"a")
    with pytest.raises(RuntimeError, match="before accept"):
        protocol.transport.write_eof()
    await peer.end()


@in_loop
async def test_bytes_that_come_before_the_tunnel_is_accepted() -> None:
    peer = TunnelPeer(Recorder)
    number, protocol = await peer.opened()
    peer.send(number, b"early")
    await peer.turn()
    assert protocol.data == b"early"
    protocol.transport.accept([])
    protocol.transport.write(b"late")
    await peer.turn()
    assert peer.answers[number].body == b"late"
    await peer.end()


@in_loop
async def test_each_half_ends_by_itself() -> None:
    class Stays(Echo):
        keeps_open = True

    peer = TunnelPeer(Stays)
    number, protocol = await peer.opened()
    peer.send(number, b"all", end=True)
    await peer.turn()
    assert protocol.told == ["made", "eof"]
    assert not peer.answers[number].ended
    protocol.transport.write(b" of it")
    protocol.transport.write_eof()
    await peer.turn()
    assert (peer.answers[number].body, peer.answers[number].ended) == (b"all of it", True)
    with pytest.raises(RuntimeError, match="after write_eof"):
        protocol.transport.write(b"more")
    protocol.transport.close()
    await peer.turn()
    assert protocol.told == ["made", "eof", "lost"]
    assert not peer.connection.streams
    await peer.end()


@in_loop
async def test_our_half_ends_first() -> None:
    peer = TunnelPeer(Echo)
    number, protocol = await peer.opened()
    assert protocol.transport.can_write_eof()
    protocol.transport.write(b"bye")
    protocol.transport.write_eof()
    protocol.transport.write_eof()
    await peer.turn()
    assert (peer.answers[number].body, peer.answers[number].ended) == (b"bye", True)
    assert peer.answers[number].reset is None, "the peer's half is open still"
    assert peer.connection.streams
    protocol.transport.close()
    await peer.turn()
    assert protocol.told == ["made", "lost"]
    await peer.end()


@in_loop
async def test_close_ends_both_halves_once_all_is_out() -> None:
    peer = TunnelPeer(Echo, window=1000)
    peer.reads = False
    number, protocol = await peer.opened()
    protocol.transport.write(bytes(3000))
    protocol.transport.close()
    assert protocol.transport.is_closing()
    protocol.transport.write(b"dropped")
    await peer.turn()
    assert protocol.told == ["made"]
    assert protocol.transport.get_write_buffer_size() == 2000
    peer.send(number, b"not told")
    peer.grant(5000, number)
    await peer.turn()
    assert (len(peer.answers[number].body), peer.answers[number].ended) == (3000, True)
    assert protocol.data == b""
    assert protocol.told == ["made", "lost"]
    assert protocol.error is None
    assert peer.connection.codec.streams == 0
    await peer.end()


@in_loop
async def test_abort_resets_the_stream() -> None:
    lines = Lines()
    peer = TunnelPeer(Echo, window=1000, access_log=lines)
    peer.reads = False
    number, protocol = await peer.opened()
    protocol.transport.write(bytes(3000))
    await peer.turn()
    protocol.transport.abort()
    protocol.transport.abort()
    protocol.transport.close()
    await peer.turn()
    assert peer.answers[number].reset == CANCEL
    assert protocol.told == ["made", "lost"]
    assert protocol.error is None
    assert lines.short == [("CONNECT", b"/chat", 200, 1000)]
    await peer.end()


@in_loop
async def test_closed_before_it_is_accepted() -> None:
    lines = Lines()
    peer = TunnelPeer(Recorder, access_log=lines)
    number, protocol = await peer.opened()
    protocol.transport.close()
    await peer.turn()
    assert peer.answers[number].reset == CANCEL
    assert lines.short == [("CONNECT", b"/chat", PEER_LEFT, 0)]
    await peer.end()


@pytest.mark.parametrize("how", ["reset", "connection"])
@in_loop
async def test_a_peer_that_leaves(how: str) -> None:
    peer = TunnelPeer(Echo)
    number, protocol = await peer.opened()
    if how == "reset":
        peer.cancel(number)
        await peer.turn()
    else:
        peer.transport.lose()
        await settle()
    assert protocol.told == ["made", "lost"]
    assert isinstance(protocol.error, ConnectionResetError)
    protocol.transport.write(b"into the void")
    protocol.transport.write_eof()
    protocol.transport.close()
    await settle()
    assert protocol.told == ["made", "lost"]
    await peer.end()


# The pace


@in_loop
async def test_a_protocol_that_does_not_read_stops_its_peer() -> None:
    peer = TunnelPeer(Echo, options=Http2Options(initial_window=65535))
    number, protocol = await peer.opened()
    protocol.transport.pause_reading()
    assert not protocol.transport.is_reading()
    for _ in range(3):
        peer.send(number, bytes(16384))
    peer.send(number, bytes(16383), end=True)
    await peer.turn()
    assert protocol.data == b""
    assert protocol.told == ["made"]
    assert peer.client.local_flow_control_window(number) == 0
    protocol.transport.resume_reading()
    protocol.transport.resume_reading()
    await peer.turn()
    assert len(protocol.data) == 65535
    assert protocol.told == ["made", "eof", "lost"]
    assert len(peer.answers[number].body) == 65535
    await peer.end()


@in_loop
async def test_what_was_not_read_when_it_closes_does_not_use_the_connection_up() -> None:
    peer = TunnelPeer(Echo, options=Http2Options(initial_window=65535, max_concurrent_streams=1))
    for _ in range(10):
        number, protocol = await peer.opened()
        protocol.transport.pause_reading()
        peer.send(number, bytes(16000))
        await peer.turn()
        protocol.transport.close()
        await peer.turn()
    assert peer.client.outbound_flow_control_window >= 32_767
    await peer.end()


@in_loop
async def test_what_was_not_read_is_credited_while_the_rest_goes_out() -> None:
    peer = TunnelPeer(Echo, options=Http2Options(initial_window=65535, max_concurrent_streams=1), window=0)
    number, protocol = await peer.opened()
    protocol.transport.pause_reading()
    for _ in range(3):
        peer.send(number, bytes(16000))
    protocol.transport.write(b"abc")
    await peer.turn()
    assert peer.client.outbound_flow_control_window == 65535 - 48000
    protocol.transport.close()
    await peer.turn()
    assert peer.connection.streams
    assert peer.client.outbound_flow_control_window == 65535
    await peer.end()


@in_loop
async def test_writing_is_paused_until_the_peer_reads() -> None:
    peer = TunnelPeer(Echo, window=0)
    peer.reads = False
    number, protocol = await peer.opened()
    protocol.transport.write(bytes(HIGH_WATER))
    assert protocol.told == ["made"]
    protocol.transport.write(b"a")
    assert protocol.told == ["made", "pause"]
    protocol.transport.write(b"b")
    peer.grant(1000, number)
    await peer.turn()
    assert protocol.told == ["made", "pause"]
    peer.grant(HIGH_WATER, number)
    await peer.turn()
    assert protocol.told == ["made", "pause", "resume"]
    await peer.end()


@in_loop
async def test_a_protocol_that_writes_as_soon_as_it_may() -> None:
    class Pours(Echo):
        left = 20

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.left:
                self.left -= 1
                self.transport.write(bytes(100_000))  # which pauses it again

    peer = TunnelPeer(Pours)
    number, protocol = await peer.opened()
    protocol.transport.write(bytes(100_000))
    most = 0
    while len(peer.answers[number].body) < 2_100_000:
        peer.pump()
        most = max(most, len(peer.connection.waiting))
        await asyncio.sleep(0)
    assert most == 1
    assert protocol.told.count("pause") == protocol.told.count("resume") == 21
    assert not peer.connection.waiting
    await peer.end()


@in_loop
async def test_limits_of_the_write_buffer() -> None:
    peer = TunnelPeer(Echo, window=0)
    number, protocol = await peer.opened()
    transport = protocol.transport
    assert transport.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER)
    transport.set_write_buffer_limits(high=100)
    assert transport.get_write_buffer_limits() == (25, 100)
    transport.set_write_buffer_limits(low=50)
    assert transport.get_write_buffer_limits() == (50, 200)
    transport.set_write_buffer_limits()
    assert transport.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER)
    with pytest.raises(ValueError, match="at least"):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.write(bytes(300))
    transport.set_write_buffer_limits(high=200)
    assert protocol.told == ["made", "pause"]
    peer.grant(300, number)
    await peer.turn()
    assert protocol.told == ["made", "pause", "resume"]
    transport.writelines([b"ab", b"cd"])
    peer.grant(300, number)
    await peer.turn()
    assert peer.answers[number].body.endswith(b"abcd")
    await peer.end()


@in_loop
async def test_a_tunnel_that_its_peer_does_not_read() -> None:
    peer = TunnelPeer(Echo, window=0, times=TimeLimits(write=10, request_body=5, request=5, keep_alive=5))
    quiet, left_alone = await peer.opened()
    number, protocol = await peer.opened()
    protocol.transport.write(b"abc")
    await peer.drip(9, 1)
    assert protocol.told == ["made"]
    await peer.drip(3, 1)
    assert protocol.told == ["made", "lost"]
    assert peer.answers[number].reset == CANCEL
    assert left_alone.told == ["made"], "the times of requests are none of a tunnel"
    assert peer.answers[quiet].reset is None
    await peer.end()


# The rest


@in_loop
async def test_what_the_transport_knows() -> None:
    peer = TunnelPeer(Echo)
    number, protocol = await peer.opened()
    transport = protocol.transport
    assert transport.get_extra_info("peername") == ("192.0.2.7", 40000)
    assert transport.get_extra_info("http2_stream") == number
    assert transport.get_extra_info("none", "such") == "such"
    assert transport.get_protocol() is protocol
    other = Echo(protocol.request, transport)
    other.transport = transport
    transport.set_protocol(other)
    peer.send(number, b"abc")
    await peer.turn()
    assert other.data == b"abc"
    assert cast("Any", protocol).data == b""
    await peer.end()


@in_loop
async def test_a_connect_that_ends_at_once() -> None:
    peer = TunnelPeer(Echo)
    number = peer.connect(end_stream=True)
    await peer.turn()
    assert peer.answers[number].status == 200
    assert peer.answers[number].ended
    assert peer.made[0].told == ["made", "eof", "lost"]
    await peer.end()


@in_loop
async def test_a_drain_waits_for_tunnels() -> None:
    peer = TunnelPeer(Echo)
    number, protocol = await peer.opened()
    peer.connection.begin_drain()
    await settle()
    await peer.turn()
    assert peer.state() is State.FINISHING
    peer.send(number, b"abc")
    await peer.turn()
    assert peer.answers[number].body == b"abc"
    protocol.transport.close()
    await peer.turn()
    assert peer.state() is State.LINGERING
    await peer.end()


@in_loop
async def test_body_limits_do_not_hold_for_tunnels() -> None:
    peer = TunnelPeer(Echo, limits=HttpLimits(body_size=10))
    number, _ = await peer.opened()
    peer.send(number, bytes(100))
    await peer.turn()
    assert len(peer.answers[number].body) == 100
    await peer.end()
