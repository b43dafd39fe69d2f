"""The HTTP/1.1 connection, on a transport without a socket and with a clock that the tests turn."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec.rules import HttpLimits
from asgiri.proto.connection import HIGH_WATER, LINGER_SECONDS, TimeLimits
from asgiri.proto.http11 import DISCARD_LIMIT, IN_A_ROW
from asgiri.proto.http11_life import LIFE, Signal, State
from asgiri.types import Message, Receive, Scope, Send
from tests.proto.fakes import (
    ByHand,
    Call,
    Held,
    Peer,
    echo,
    hello,
    in_loop,
    read_body,
    reply,
    request,
    run,
    settle,
    until,
)

pytestmark = pytest.mark.usefixtures("each_engine")

S, G = State, Signal
CHUNKED = "Transfer-Encoding: chunked"
EXPECT = "Expect: 100-continue"
KIB = 1 << 10


def head(size: int, *fields: str) -> bytes:
    """The head of a POST whose body has ``size`` bytes and is still to come."""
    return request("/", f"Content-Length: {size}", *fields, method="POST")


# One request, and one after the other


@in_loop
async def test_one_request_and_its_answer() -> None:
    peer = Peer(hello)
    peer.feed(request("/a"))
    await until(lambda: peer.answers)
    [answer] = peer.answers
    assert (answer.status, answer.body) == (200, b"/a")
    assert not answer.closes
    assert peer.state() is S.IDLE
    assert len(peer.transport.writes) == 1, "head and first body leave in one write"
    assert peer.connection in peer.shared.connections
    assert not peer.shared.sessions
    await peer.end()


@in_loop
async def test_head_and_first_piece_of_a_stream_are_one_write() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request())
    call = await app.next()
    await call.start()
    assert not peer.sent(), "the head waits for the first piece"
    await call.body(b"one")
    await call.body(b"two")
    await call.body(b"", more=False)
    assert len(peer.transport.writes) == 3
    assert peer.answers[0].body == b"onetwo"
    call.finish()
    await peer.end()


@in_loop
async def test_keep_alive() -> None:
    peer = Peer(hello)
    for number in range(3):
        peer.feed(request(f"/{number}"))
        await until(peer.has_answered(number + 1))
        assert peer.state() is S.IDLE
    assert [answer.body for answer in peer.answers] == [b"/0", b"/1", b"/2"]
    assert not peer.transport.is_closing()
    await peer.end()


@pytest.mark.parametrize("cut", [1, 3, 16, 1000])
@in_loop
async def test_a_head_in_pieces(cut: int) -> None:
    peer = Peer(echo)
    data = request("/", method="POST", body=b"x" * 40) * 2
    for start in range(0, len(data), cut):
        await until(lambda: peer.transport.is_reading())
        peer.feed(data[start : start + cut])
    await until(lambda: len(peer.answers) == 2)
    assert [answer.body for answer in peer.answers] == [b"x" * 40] * 2
    await peer.end()


@in_loop
async def test_pipelined_requests_answered_at_once_come_in_order() -> None:
    peer = Peer(hello)
    peer.feed(request("/1") + request("/2") + request("/3"))
    await until(lambda: len(peer.answers) == 3)
    assert [answer.body for answer in peer.answers] == [b"/1", b"/2", b"/3"]
    assert peer.transport.is_reading()
    await peer.end()


@in_loop
async def test_pipelined_requests_answered_late_come_in_order() -> None:
    app = Held()
    peer = Peer(app)
    peer.feed(request("/1") + request("/2") + request("/3"))
    for path in ("/3", "/2"):
        app.release(path)
        await settle()
        assert not peer.sent()
    assert app.paths == ["/1"], "one exchange after the other"
    app.release("/1")
    await until(lambda: len(peer.answers) == 3)
    assert [answer.body for answer in peer.answers] == [b"/1", b"/2", b"/3"]
    await peer.end()


@in_loop
async def test_pipelined_requests_with_bodies() -> None:
    peer = Peer(echo)
    peer.feed(b"".join(request("/", method="POST", body=b"%d" % number * 100) for number in range(5)))
    await until(lambda: len(peer.answers) == 5)
    assert [answer.body[:1] for answer in peer.answers] == [b"0", b"1", b"2", b"3", b"4"]
    await peer.end()


@in_loop
async def test_thousands_of_pipelined_requests_do_not_recurse() -> None:
    peer = Peer(hello)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        peer.feed(request("/x") * 5000)
        await until(lambda: peer.sent().count(b"HTTP/1.1 200") == 5000)
    finally:
        sys.setrecursionlimit(limit)
    assert peer.state() is S.IDLE
    await peer.end()


@in_loop
async def test_thousands_of_pipelined_requests_answered_late_do_not_recurse() -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0)
        await reply(send)

    peer = Peer(late)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        peer.feed(request("/x") * 2000)
        await until(lambda: len(peer.transport.writes) == 2000)
    finally:
        sys.setrecursionlimit(limit)
    await peer.end()


@in_loop
async def test_work_after_the_answer_goes_on_while_the_next_request_is_served() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/1"))
    first = await app.next()
    await first.start()
    await first.body(b"one", more=False)
    peer.feed(request("/2"))
    second = await app.next()
    assert await first.receive() == {"type": "http.disconnect"}
    with pytest.raises(RuntimeError):
        await first.body(b"too late")
    await second.reply(b"two")
    assert [answer.body for answer in peer.answers] == [b"one", b"two"]
    await until(lambda: len(peer.shared.sessions) == 1)
    first.finish(ValueError("in the background"))
    await until(lambda: not peer.shared.sessions)
    assert peer.state() is S.IDLE
    assert not peer.transport.is_closing(), "the connection is not the background work's to cut"
    await peer.end()


# Request bodies


@in_loop
async def test_chunked_upload() -> None:
    peer = Peer(echo)
    peer.feed(request("/", CHUNKED, method="POST"))
    for piece in (b"5\r\nhello\r\n", b"6\r\n wor", b"ld\r\n0\r\nx-trailer: 1\r\n", b"\r\n"):
        assert not peer.sent()
        peer.feed(piece)
        await settle()
    await until(lambda: peer.answers)
    assert peer.answers[0].body == b"hello world"
    assert peer.state() is S.IDLE
    await peer.end()


@in_loop
async def test_reading_pauses_while_the_body_waits_for_the_app() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(256 * KIB))
    call = await app.next()
    peer.feed(b"x" * HIGH_WATER)
    assert peer.transport.is_reading()
    peer.feed(b"x")
    assert not peer.transport.is_reading()
    message = await call.receive()
    assert len(message["body"]) == HIGH_WATER + 1
    assert peer.transport.is_reading()
    peer.feed(b"x" * (256 * KIB - HIGH_WATER - 1))
    assert (await call.receive())["more_body"] is False
    await call.reply()
    assert peer.transport.is_reading()
    assert peer.state() is S.IDLE
    await peer.end()


@in_loop
async def test_pipelined_bytes_pause_reading() -> None:
    app = Held()
    peer = Peer(app)
    peer.feed(request("/1"))
    await until(lambda: app.paths)
    assert peer.transport.is_reading()
    peer.feed(b"G")
    assert peer.transport.is_reading()  # or it would not be seen when the peer leaves
    peer.feed(request("/2")[1:] + request("/3", f"X-Padding: {'x' * 4 * KIB}") * 20)
    assert not peer.transport.is_reading()
    for path in ("/1", "/2", "/3"):
        app.release(path)
    await until(peer.has_answered(22))
    assert peer.transport.is_reading()
    await peer.end()


@in_loop
async def test_an_app_hears_that_the_peer_has_left_although_it_left_a_byte_behind() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/1") + b"G")
    call = await app.next()
    await call.receive()
    peer.eof()
    assert await call.receive() == {"type": "http.disconnect"}
    call.finish()
    await until(lambda: peer.transport.is_closing() or peer.state() is S.LINGERING)
    await peer.end()


@in_loop
async def test_pipelined_requests_wait_until_the_peer_reads_its_answers() -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, bytes(2 * HIGH_WATER))

    peer = Peer(large)
    peer.transport.stalled = True
    peer.feed(request() * 10)
    await settle()
    assert len(peer.answers) == 1
    assert len(peer.sent()) < 3 * HIGH_WATER
    for count in range(2, 11):
        peer.transport.peer_reads(3 * HIGH_WATER)
        await until(peer.has_answered(count))
    await peer.end()


@in_loop
async def test_the_window_of_a_drain_ends_what_only_discards() -> None:
    peer = Peer(hello)
    peer.feed(head(1000) + b"ab")
    await until(lambda: peer.state() is State.DISCARDING)
    peer.shared.draining = True
    peer.connection.close_idle()
    assert peer.state() is State.LINGERING
    peer.passes(LINGER_SECONDS + 1)
    await peer.end()


@in_loop
async def test_the_time_that_we_do_not_read_is_not_the_next_heads() -> None:
    app = Held()
    peer = Peer(app)
    peer.feed(request("/1") + b"GET /2 HT")
    await until(lambda: app.paths)
    peer.passes(100)
    app.release("/1")
    await until(lambda: peer.answers)
    peer.passes(9)
    await settle()
    assert peer.statuses == [200]
    peer.passes(2)
    await settle()
    assert peer.statuses == [200, 408]
    await peer.end()


@in_loop
async def test_an_expected_100_is_sent_when_the_app_asks_for_the_body() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(5, EXPECT))
    call = await app.next()
    assert not peer.sent()
    asking = asyncio.ensure_future(call.receive())
    await until(lambda: peer.sent())
    assert peer.sent() == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.feed(b"hello")
    assert await asking == {"type": "http.request", "body": b"hello", "more_body": False}
    await call.reply()
    [answer] = peer.answers
    assert (answer.status, answer.interim, answer.closes) == (200, (100,), False)
    assert peer.state() is S.IDLE
    await peer.end()


@in_loop
async def test_an_answer_instead_of_the_100_closes() -> None:
    """The peer may send the body all the same: what comes next could be read in two ways."""
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(5, EXPECT))
    await (await app.next()).reply(b"no", 403)
    [answer] = peer.answers
    assert (answer.status, answer.interim, answer.closes) == (403, (), True)
    assert peer.state() is S.LINGERING
    peer.feed(b"hello" + request())
    await settle()
    assert len(peer.answers) == 1
    await peer.end()


@in_loop
async def test_an_expectation_without_a_body_does_not_cost_the_connection() -> None:
    peer = Peer(hello)
    peer.feed(head(0, EXPECT))
    await until(lambda: peer.answers)
    assert peer.answers[0].interim == ()
    assert not peer.answers[0].closes
    assert peer.state() is S.IDLE
    await peer.end()


@in_loop
async def test_a_peer_that_waits_for_our_100_is_not_the_late_one() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(5, EXPECT))
    call = await app.next()
    await peer.drip(100, 10)
    assert not peer.sent()
    asking = asyncio.ensure_future(call.receive())
    await until(lambda: peer.sent())
    peer.passes(59)
    assert peer.state() is S.RECEIVING
    peer.passes(2)
    assert peer.statuses == [408]
    assert (await asking)["type"] == "http.disconnect"
    call.finish()
    await peer.end()


# An answer before the whole request


@in_loop
async def test_the_rest_of_a_small_body_is_discarded_and_the_connection_kept() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(DISCARD_LIMIT))
    await (await app.next()).reply(b"early")
    assert peer.state() is S.DISCARDING
    assert not peer.answers[0].closes
    peer.feed(b"x" * (DISCARD_LIMIT - 1))
    assert peer.state() is S.DISCARDING
    peer.feed(b"x" + request("/2"))
    await (await app.next()).reply(b"two")
    assert [answer.body for answer in peer.answers] == [b"early", b"two"]
    assert peer.state() is S.IDLE
    await peer.end()


@in_loop
async def test_a_body_that_waited_for_the_app_does_not_hold_the_rest_up() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(200 * KIB))
    call = await app.next()
    peer.feed(b"x" * (100 * KIB))
    assert not peer.transport.is_reading()
    await call.reply(b"early")
    assert peer.transport.is_reading()
    peer.feed(b"x" * KIB)
    assert peer.transport.is_reading(), "what nobody will take is no reason to wait"
    peer.feed(b"x" * (99 * KIB))
    assert peer.state() is S.IDLE
    await peer.end()


@in_loop
async def test_half_a_chunk_size_in_a_discarded_body_does_not_stop_reading() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/", CHUNKED, method="POST"))
    await (await app.next()).reply(b"early")
    peer.feed(b"1")
    assert peer.transport.is_reading()
    peer.feed(b"0\r\n0123456789abcdef\r\n0\r\n\r\n")
    assert peer.state() is S.IDLE
    await peer.end()


@in_loop
async def test_too_long_a_rest_closes() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(1 << 30))
    await (await app.next()).reply(b"early")
    peer.feed(b"x" * DISCARD_LIMIT)
    assert peer.state() is S.DISCARDING
    peer.feed(b"x")
    assert peer.state() is S.LINGERING
    assert peer.transport.half_closed
    await peer.end()


@in_loop
async def test_too_long_a_rest_that_ends_in_the_same_packet_closes() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(DISCARD_LIMIT + 1))
    await (await app.next()).reply(b"early")
    peer.feed(b"x" * (DISCARD_LIMIT + 1))
    assert peer.state() is S.LINGERING
    await peer.end()


@in_loop
async def test_an_answer_that_closes_before_its_body_was_looked_at() -> None:
    """From Python 3.12 on the app answers before the body, which is in the same packet, is handled."""
    peer = Peer(hello)
    peer.feed(request("/", "Connection: close", method="POST", body=b"hello"))
    await until(lambda: peer.answers)
    assert peer.answers[0].closes
    await settle()
    assert peer.state() in (S.LINGERING, S.CLOSED)
    await peer.end()


@in_loop
async def test_an_answer_before_its_body_was_looked_at() -> None:
    peer = Peer(hello)
    peer.feed(request("/1", method="POST", body=b"hello") + request("/2"))
    await until(lambda: len(peer.answers) == 2)
    assert peer.state() is S.IDLE
    assert [answer.body for answer in peer.answers] == [b"/1", b"/2"]
    await peer.end()


@in_loop
async def test_a_discarded_body_has_a_deadline() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(100))
    await (await app.next()).reply(b"early")
    peer.passes(61)
    assert peer.state() is S.LINGERING
    peer.passes(LINGER_SECONDS + 1)
    assert peer.transport.is_aborted()
    await peer.end()


# Writing


@in_loop
async def test_send_waits_for_a_peer_that_does_not_read() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.transport.stalled = True
    peer.feed(request())
    call = await app.next()
    await call.start()
    await call.body(b"x" * 1000)
    sending = asyncio.ensure_future(call.body(b"x" * HIGH_WATER))
    await settle()
    assert not sending.done()
    peer.transport.peer_reads(100)
    await settle()
    assert not sending.done()
    peer.transport.peer_reads(HIGH_WATER)
    await sending
    peer.transport.peer_reads(1 << 20)
    await call.body(b"", more=False)
    call.finish()
    assert len(peer.answers[0].body) == HIGH_WATER + 1000
    await peer.end()


@pytest.mark.parametrize("more", [True, False])
@in_loop
async def test_a_waiting_send_hears_that_the_connection_is_lost(more: bool) -> None:
    app = ByHand()
    peer = Peer(app)
    peer.transport.stalled = True
    peer.feed(request())
    call = await app.next()
    await call.start()
    sending = asyncio.ensure_future(call.body(b"x" * (HIGH_WATER + 1), more=more))
    await settle()
    assert not sending.done()
    peer.transport.lose(ConnectionResetError())
    if more:
        with pytest.raises(OSError, match="disconnected"):
            await sending
        with pytest.raises(OSError, match="disconnected"):
            await call.body(b"more")
    else:
        await sending  # the whole answer was taken; nobody knows how much of it has come
    assert await call.receive() == {"type": "http.disconnect"}
    call.finish()
    await peer.end()


@in_loop
async def test_a_stalled_reader_is_cut_off() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.transport.stalled = True
    peer.feed(request())
    call = await app.next()
    await call.start()
    sending = asyncio.ensure_future(call.body(b"x" * (1 << 20)))
    await settle()
    peer.passes(1)
    peer.passes(59)
    assert not peer.transport.is_aborted()
    peer.passes(2)
    assert peer.transport.is_aborted()
    with pytest.raises(OSError, match="disconnected"):
        await sending
    call.finish()
    await peer.end()


@in_loop
async def test_a_slow_reader_that_makes_progress_is_not_cut_off() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.transport.stalled = True
    peer.feed(request())
    call = await app.next()
    await call.start()
    sending = asyncio.ensure_future(call.body(b"x" * (HIGH_WATER + 10), more=False))
    await settle()
    for _ in range(10):
        peer.passes(50)
        peer.transport.peer_reads(1)
    assert not peer.transport.is_aborted()
    peer.transport.peer_reads(1 << 20)
    await sending
    peer.passes(50)
    assert not peer.transport.is_aborted()
    call.finish()
    await peer.end()


@in_loop
async def test_a_stalled_reader_is_cut_off_after_the_close_too() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.transport.stalled = True
    peer.feed(request("/", "Connection: close"))
    call = await app.next()
    await call.reply(b"small")
    assert peer.transport.is_closing()
    assert not peer.transport.is_aborted()
    peer.passes(1)
    peer.passes(61)
    assert peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_the_write_timeout_can_be_off() -> None:
    app = ByHand()
    peer = Peer(app, times=TimeLimits(write=0))
    peer.transport.stalled = True
    peer.feed(request())
    call = await app.next()
    await call.start()
    await call.body(b"some")
    peer.passes(1)
    peer.passes(100000)
    assert not peer.transport.is_aborted()
    call.finish()
    await peer.end()


@in_loop
async def test_a_pipeline_lets_others_have_their_turn() -> None:
    peer = Peer(hello)
    count = 20 * IN_A_ROW
    peer.feed(b"".join(request(f"/{number}") for number in range(count)))
    served = []
    while len(peer.answers) < count:
        served.append(len(peer.answers))
        await asyncio.sleep(0)
    assert max(after - before for before, after in pairwise([0, *served, count])) <= IN_A_ROW + 1
    await peer.end()


@in_loop
async def test_empty_lines_begin_no_request() -> None:
    peer = Peer(hello, times=TimeLimits(request_head=10, keep_alive=75))
    for piece in (b"\r\n", b"\r", b"\n"):
        peer.feed(piece)
        assert peer.state() is State.IDLE
    peer.passes(20)
    assert not peer.transport.is_closing()
    peer.feed(b"\r\n" + request())
    await until(peer.has_answered(1))
    await peer.end()


# What ends a connection


@in_loop
async def test_http_1_0_closes() -> None:
    peer = Peer(hello)
    peer.feed(request("/", version="1.0"))
    await until(lambda: peer.transport.is_lost())
    assert peer.answers[0].closes
    await peer.end()


@in_loop
async def test_connection_close_of_the_peer() -> None:
    peer = Peer(hello)
    peer.feed(request("/", "Connection: close"))
    await until(lambda: peer.transport.is_lost())
    assert peer.answers[0].closes
    assert not peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_connection_close_of_the_app() -> None:
    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"bye", 200, (b"connection", b"close"))

    peer = Peer(closing)
    peer.feed(request() + request())
    await until(lambda: peer.state() is State.LINGERING)  # a close would reset the connection over what is unread
    peer.eof()
    await until(lambda: peer.transport.is_lost())
    assert len(peer.answers) == 1
    await peer.end()


@in_loop
async def test_the_last_request_of_a_connection_is_answered_with_a_close() -> None:
    peer = Peer(hello, requests_per_connection=3)
    peer.feed(request("/1"))
    await until(lambda: peer.answers)
    peer.feed(request("/2") + request("/3") + request("/4"))
    await until(lambda: peer.state() is State.LINGERING)
    peer.passes(LINGER_SECONDS + 0.5)
    assert peer.transport.is_closing()
    assert [answer.closes for answer in peer.answers] == [False, False, True]
    await peer.end()


@in_loop
async def test_draining_says_close_but_answers_what_was_sent() -> None:
    app = Held()
    peer = Peer(app)
    peer.feed(request("/1") + request("/2") + request("/3"))
    await until(lambda: app.paths)
    peer.shared.draining = True
    for path in ("/1", "/2", "/3"):
        app.release(path)
    await until(peer.has_answered(3))
    if peer.state() is State.LINGERING:  # it was not reading: what it has not read could be a request
        peer.eof()
    await until(lambda: peer.transport.is_lost())
    assert [(answer.body, answer.closes) for answer in peer.answers] == [(b"/1", False), (b"/2", False), (b"/3", True)]
    await peer.end()


@in_loop
async def test_draining_answers_an_idle_connection_once_more() -> None:
    peer = Peer(hello)
    peer.feed(request("/1"))
    await until(lambda: peer.answers)
    peer.shared.draining = True
    peer.feed(request("/2"))
    await until(lambda: peer.transport.is_lost())
    assert [answer.closes for answer in peer.answers] == [False, True]
    await peer.end()


@in_loop
async def test_close_idle_closes_only_what_is_idle() -> None:
    app = Held()
    peer = Peer(app)
    peer.feed(request("/1")[:9])
    peer.connection.close_idle()
    peer.feed(request("/1")[9:])
    peer.connection.close_idle()
    await until(lambda: app.paths)
    peer.connection.close_idle()
    assert not peer.transport.is_closing()
    app.release("/1")
    await until(lambda: peer.answers)
    peer.connection.close_idle()
    await until(lambda: peer.transport.is_lost())
    await peer.end()


@in_loop
async def test_a_half_closed_peer_gets_its_answer() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request())
    call = await app.next()
    peer.eof()
    await settle()
    assert not peer.transport.is_closing()
    assert (await call.receive())["type"] == "http.request"
    assert (await call.receive())["type"] == "http.disconnect"
    await call.reply(b"late")
    assert (peer.answers[0].body, peer.answers[0].closes) == (b"late", True)
    await until(lambda: peer.transport.is_lost())
    assert not peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_a_half_closed_peer_gets_all_its_pipelined_answers() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/1"))
    first = await app.next()
    # All in one packet with the end of file, as far as a transport can tell: reading stops at pipelined bytes.
    peer.connection.data_received(request("/2", method="POST", body=b"two") + request("/3"))
    if not peer.transport.is_reading():
        peer.transport.resume_reading()
        peer.connection._reading = True
    peer.eof()
    await first.reply(b"1")
    second = await app.next()
    assert await read_body(second.receive) == b"two"
    assert (await second.receive())["type"] == "http.disconnect", "the peer's end holds for the later ones too"
    await second.reply(b"2")
    await (await app.next()).reply(b"3")
    await until(lambda: peer.transport.is_lost())
    assert [(answer.body, answer.closes) for answer in peer.answers] == [(b"1", False), (b"2", False), (b"3", True)]
    await peer.end()


@in_loop
async def test_eof_while_idle_closes() -> None:
    peer = Peer(hello)
    peer.eof()
    await until(lambda: peer.transport.is_lost())
    assert not peer.sent()
    await peer.end()


@in_loop
async def test_eof_in_a_head_is_a_bad_request() -> None:
    peer = Peer(hello)
    peer.feed(b"GET / HTT")
    peer.eof()
    await until(lambda: peer.transport.is_lost())
    assert [(answer.status, answer.closes) for answer in peer.answers] == [(400, True)]
    await peer.end()


@pytest.mark.parametrize("framing", ["Content-Length: 10", CHUNKED])
@in_loop
async def test_eof_in_a_body_is_a_disconnect(framing: str) -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/", framing, method="POST"))
    call = await app.next()
    peer.feed(b"1\r\nx")
    peer.eof()
    assert await call.receive() == {"type": "http.disconnect"}
    with pytest.raises(OSError, match="disconnected"):
        await call.start()
    call.finish()
    await until(lambda: peer.transport.is_lost())
    assert not peer.sent()
    await peer.end()


@in_loop
async def test_eof_in_a_discarded_body_closes() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(10))
    await (await app.next()).reply(b"early")
    peer.eof()
    await until(lambda: peer.transport.is_lost())
    assert peer.statuses == [200]
    await peer.end()


# Refusals

LIMITS = HttpLimits(request_line=200, header_count=5, header_size=400, body_size=10)
REFUSED = [
    pytest.param(b"GARBAGE\r\n\r\n", 400, id="no request line"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n", 400, id="no colon"),
    pytest.param(request("/", "Content-Length: 11", method="POST"), 413, id="declared body too large"),
    pytest.param(request("/" + "x" * 300), 414, id="target too long"),
    pytest.param(b"GET /" + b"x" * 2000, 414, id="target too long and never ending"),
    pytest.param(request("/", *(f"X-{n}: 1" for n in range(5))), 431, id="too many fields"),
    pytest.param(request("/", "X: " + "x" * 500), 431, id="field too large"),
    pytest.param(request("/", "X: " + "x" * 2000)[:-4], 431, id="field too large and never ending"),
    pytest.param(request("/", *(f"X-{n}: 1" for n in range(5)), method="HEAD"), 431, id="too many fields, HEAD"),
]


@pytest.mark.parametrize("before", [b"", request("/ok"), request("/ok", method="HEAD")], ids=["first", "GET", "HEAD"])
@pytest.mark.parametrize(("data", "status"), REFUSED)
@in_loop
async def test_a_refused_head(data: bytes, status: int, before: bytes) -> None:
    peer = Peer(hello, limits=LIMITS)
    if before:
        peer.feed(before)
        await until(lambda: peer.sent() and peer.state() is S.IDLE)
        peer.transport.writes.clear()
    peer.feed(data)
    await settle()
    head_of_answer, _, body = peer.sent().partition(b"\r\n\r\n")
    assert head_of_answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head_of_answer.lower()
    assert body.startswith(b"%d " % status) is not data.startswith(b"HEAD")
    assert peer.state() is S.LINGERING
    assert peer.transport.half_closed
    assert not peer.transport.is_closing()

    written = peer.sent()
    peer.feed(request("/later"))
    peer.feed(b"\0" * 1000)
    await settle()
    assert peer.sent() == written, "later bytes are nobody's"
    peer.passes(LINGER_SECONDS - 0.1)
    assert not peer.transport.is_closing()
    peer.passes(0.2)
    assert peer.transport.is_closing()
    await until(lambda: peer.transport.is_lost())
    await peer.end()


@in_loop
async def test_a_refused_peer_that_ends_is_let_go() -> None:
    peer = Peer(hello)
    peer.feed(b"GARBAGE\r\n\r\n")
    peer.eof()
    await until(lambda: peer.transport.is_lost())
    assert not peer.transport.is_aborted()
    assert peer.statuses == [400]
    await peer.end()


@in_loop
async def test_a_refusal_where_half_closing_is_impossible() -> None:
    peer = Peer(hello)
    peer.transport.can_half_close = False
    peer.feed(b"GARBAGE\r\n\r\n")
    await until(lambda: peer.transport.is_lost())
    assert peer.statuses == [400]
    await peer.end()


@in_loop
async def test_a_refused_peer_whose_reset_is_on_its_way() -> None:
    """shutdown(2) fails with ENOTCONN on a socket that was reset, before the loop has seen the reset."""
    peer = Peer(hello)
    peer.transport.reset_by_peer = True
    peer.feed(b"GARBAGE\r\n\r\n")
    await until(lambda: peer.transport.is_lost())
    await peer.end()


@in_loop
async def test_lingering_does_not_cut_an_answer_that_is_still_being_read() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.transport.stalled = True
    peer.feed(head(1 << 30, "Connection: close"))
    call = await app.next()
    await call.start()
    sending = asyncio.ensure_future(call.body(b"x" * (1 << 20), more=False))
    await until(lambda: peer.state() is S.LINGERING)
    for _ in range(10):
        peer.transport.peer_reads(50 * KIB)
        peer.passes(1)
    assert not peer.transport.is_aborted()
    peer.transport.peer_reads(1 << 20)
    await sending
    call.finish()
    peer.passes(0.1)
    peer.passes(LINGER_SECONDS + 0.1)
    assert peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_pipelined_requests_before_a_malformed_one_are_answered() -> None:
    app = Held()
    peer = Peer(app)
    peer.feed(request("/1") + b"GARBAGE\r\n\r\n")
    await until(lambda: app.paths)
    assert not peer.sent()
    app.release("/1")
    await until(lambda: len(peer.answers) == 2)
    assert peer.statuses == [200, 400]
    assert peer.state() is S.LINGERING
    await peer.end()


@in_loop
async def test_a_body_over_its_limit_before_the_answer() -> None:
    app = ByHand()
    peer = Peer(app, limits=HttpLimits(body_size=10))
    peer.feed(request("/", CHUNKED, method="POST"))
    call = await app.next()
    peer.feed(b"b\r\nhello world\r\n")
    assert [(answer.status, answer.closes) for answer in peer.answers] == [(413, True)]
    assert peer.state() is S.LINGERING
    assert await call.receive() == {"type": "http.disconnect"}
    with pytest.raises(OSError, match="disconnected"):
        await call.start()
    call.finish()
    await peer.end()


BAD_CHUNK = b"xyz\r\n"


@in_loop
async def test_a_malformed_chunk_before_the_answer() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/", CHUNKED, method="POST"))
    call = await app.next()
    await call.start()  # held back: nothing is on the wire yet
    peer.feed(BAD_CHUNK)
    assert [(answer.status, answer.closes) for answer in peer.answers] == [(400, True)]
    with pytest.raises(OSError, match="disconnected"):
        await call.body(b"late", more=False)
    call.finish()
    await peer.end()


@in_loop
async def test_a_malformed_chunk_in_the_middle_of_the_answer_cuts() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/", CHUNKED, method="POST"))
    call = await app.next()
    await call.start()
    await call.body(b"some")
    peer.feed(BAD_CHUNK)
    assert peer.transport.is_aborted()
    assert not peer.answers, "the peer can tell that the answer is not whole"
    with pytest.raises(OSError, match="disconnected"):
        await call.body(b"more")
    call.finish()
    await peer.end()


@in_loop
async def test_a_malformed_chunk_after_the_answer_closes() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/", CHUNKED, method="POST"))
    await (await app.next()).reply(b"early")
    peer.feed(BAD_CHUNK)
    assert peer.state() is S.LINGERING
    assert peer.statuses == [200]
    await peer.end()


@in_loop
async def test_a_malformed_chunk_in_the_packet_of_the_head() -> None:
    """Whether the app has answered by then depends on when tasks start: both are right, a crash is not."""
    peer = Peer(hello)
    peer.feed(request("/", CHUNKED, method="POST") + BAD_CHUNK)
    await until(lambda: peer.answers)
    await settle()
    assert peer.state() is S.LINGERING
    assert peer.statuses in ([200], [400])
    await peer.end()


# The application's faults


@in_loop
async def test_an_error_before_the_answer_is_a_500_and_keeps_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            raise ValueError("no")
        await reply(send)

    peer = Peer(broken)
    peer.feed(request("/broken") + request("/fine"))
    await until(lambda: len(peer.answers) == 2)
    assert peer.statuses == [500, 200]
    assert "ValueError" in caplog.text
    await peer.end()


@in_loop
async def test_an_error_in_the_answer_cuts_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request())
    call = await app.next()
    await call.start()
    await call.body(b"some")
    call.finish(ValueError("no"))
    await until(lambda: peer.transport.is_lost())
    assert peer.transport.is_aborted()
    assert not peer.answers
    assert "ValueError" in caplog.text
    await peer.end()


@in_loop
async def test_an_error_in_an_answer_that_never_waited(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise ValueError("no")

    peer = Peer(broken)
    peer.feed(request("/", method="POST", body=b"hello") + request())
    await until(lambda: peer.transport.is_lost())
    assert peer.transport.is_aborted()
    assert peer.sent().count(b"HTTP/1.1") == 1
    await peer.end()


@in_loop
async def test_an_unfinished_answer_cuts_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request())
    call = await app.next()
    await call.start(200, (b"content-length", b"10"))
    await call.body(b"some")
    call.finish()
    await until(lambda: peer.transport.is_lost())
    assert peer.transport.is_aborted()
    assert "without completing" in caplog.text
    await peer.end()


# Time


@in_loop
async def test_the_heads_deadline_is_absolute() -> None:
    peer = Peer(hello)
    peer.passes(50)  # the wait for the first byte is not the head's
    data = request("/" + "x" * 100)
    for index in range(10):
        peer.feed(data[index : index + 1])
        peer.passes(1)
    assert not peer.sent()
    peer.feed(data[10:11])
    peer.passes(0.1)
    assert [(answer.status, answer.closes) for answer in peer.answers] == [(408, True)]
    assert peer.state() is S.LINGERING
    await peer.end()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@in_loop
async def test_the_deadline_of_a_later_head(method: str) -> None:
    peer = Peer(hello)
    peer.feed(request("/1", method=method))
    await until(lambda: peer.sent() and peer.state() is S.IDLE)
    peer.transport.writes.clear()
    peer.feed(b"GET")
    peer.passes(11)
    assert peer.statuses == [408]
    await peer.end()


@in_loop
async def test_the_bodys_deadline_is_between_two_pieces() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(100))
    call = await app.next()
    for _ in range(5):
        peer.passes(59)
        peer.feed(b"x")
    assert not peer.sent()
    peer.passes(61)
    assert [(answer.status, answer.closes) for answer in peer.answers] == [(408, True)]
    assert peer.state() is S.LINGERING
    assert (await call.receive())["type"] == "http.disconnect"
    call.finish()
    await peer.end()


@in_loop
async def test_the_bodys_deadline_in_the_middle_of_the_answer_cuts() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(100))
    call = await app.next()
    await call.start()
    await call.body(b"some")
    peer.passes(61)
    assert peer.transport.is_aborted()
    call.finish()
    await peer.end()


@in_loop
async def test_the_body_has_no_deadline_while_we_do_not_read() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(head(200 * KIB))
    call = await app.next()
    peer.feed(b"x" * (100 * KIB))
    assert not peer.transport.is_reading()
    await peer.drip(1000, 100)
    assert not peer.sent()
    await call.receive()
    peer.passes(59)
    assert not peer.sent()
    peer.passes(2)
    assert peer.statuses == [408]
    call.finish()
    await peer.end()


@in_loop
async def test_the_keep_alive_deadline() -> None:
    peer = Peer(hello)
    peer.feed(request())
    await until(lambda: peer.answers)
    peer.passes(74)
    assert not peer.transport.is_closing()
    peer.feed(request())
    await until(lambda: len(peer.answers) == 2)
    peer.passes(74)
    assert not peer.transport.is_closing()
    peer.passes(2)
    assert peer.transport.is_closing()
    assert not peer.transport.is_aborted()
    assert peer.statuses == [200, 200]
    await until(lambda: peer.transport.is_lost())
    await peer.end()


@in_loop
async def test_timeouts_that_are_off() -> None:
    app = ByHand()
    peer = Peer(app, times=TimeLimits(request_head=0, request_body=0, keep_alive=0, write=0))
    century = 1e9
    peer.passes(century)
    peer.feed(b"POST / HTTP/1.1\r\nHost: a\r\n")
    peer.passes(century)
    peer.feed(b"Content-Length: 1\r\n\r\n")
    call = await app.next()
    peer.passes(century)
    peer.feed(b"x")
    peer.passes(century)
    await call.reply()
    assert peer.statuses == [200]
    assert not peer.transport.is_closing()
    await peer.end()


@pytest.mark.parametrize("data", [request(), head(10)], ids=["whole", "body to come"])
@in_loop
async def test_a_request_over_its_time_is_a_503(data: bytes) -> None:
    app = ByHand()
    peer = Peer(app, times=TimeLimits(request=5))
    peer.feed(data)
    call = await app.next()
    peer.passes(4)
    assert not peer.sent()
    peer.passes(2)
    assert [(answer.status, answer.closes) for answer in peer.answers] == [(503, True)]
    await until(lambda: call.cancelled)
    await until(lambda: not peer.shared.sessions)
    await peer.end()


@in_loop
async def test_an_app_that_is_cancelled_before_its_first_step_is_forgotten() -> None:
    """Before Python 3.12 tasks start a turn later, and one that is cancelled by then never runs."""
    peer = Peer(hello, times=TimeLimits(request=5))
    peer.feed(request())
    peer.passes(6)
    await settle()
    assert not peer.shared.sessions
    assert peer.statuses in ([503], [200])
    await peer.end()


@in_loop
async def test_an_answer_over_its_time_is_cut() -> None:
    app = ByHand()
    peer = Peer(app, times=TimeLimits(request=5))
    peer.feed(request())
    call = await app.next()
    await call.start()
    await call.body(b"some")
    peer.passes(6)
    assert peer.transport.is_aborted()
    assert not peer.answers
    await until(lambda: call.cancelled)
    await peer.end()


@in_loop
async def test_work_after_the_answer_has_no_request_timeout() -> None:
    app = ByHand()
    peer = Peer(app, times=TimeLimits(request=5))
    peer.feed(request())
    call = await app.next()
    await call.start()
    await call.body(b"done", more=False)
    peer.passes(50)
    await settle()
    assert not call.cancelled
    call.finish()
    await peer.end()


@in_loop
async def test_the_request_timeout_counts_from_its_own_head() -> None:
    app = ByHand()
    peer = Peer(app, times=TimeLimits(request=5))
    peer.feed(request("/1") + request("/2"))
    first = await app.next()
    peer.passes(4)
    await first.reply()
    second = await app.next()
    peer.passes(4)
    await second.reply()
    assert peer.statuses == [200, 200]
    await peer.end()


# The table

HERE = "only an exchange that has begun has a body, an answer and a successor"
BETWEEN = {S.IDLE, S.HELD}  # two requests
IMPOSSIBLE: dict[tuple[State, Signal], str] = {
    **{(state, G.BYTES): "the head is here already, or is not looked for" for state in set(S) - BETWEEN - {S.HEAD}},
    **{(state, G.REQUEST): "no head is looked for" for state in set(S) - BETWEEN - {S.HEAD}},
    **{(state, G.WHOLE_REQUEST): "no head is looked for" for state in set(S) - BETWEEN - {S.HEAD}},
    **{(state, G.END): "no body is arriving" for state in set(S) - {S.RECEIVING, S.DISCARDING}},
    **{(state, G.ANSWERED): "no answer is in progress" for state in set(S) - {S.RECEIVING, S.ANSWERING}},
    **{(state, G.NEXT): "the exchange is not over on both sides" for state in set(S) - {S.DONE}},
    **{(state, G.HOLD): "it is not idle, or is held already" for state in set(S) - {S.IDLE}},
    **{(state, G.RELEASE): "it is not held" for state in set(S) - {S.HELD}},
    (S.HEAD, G.BYTES): "its first bytes said so already",
    (S.RECEIVING, G.REFUSED): "it becomes an answer first, and that leads to DISCARDING",
    (S.ANSWERING, G.REFUSED): "the request was whole and well-formed",
    (S.LINGERING, G.REFUSED): "nothing is parsed any more",
    (S.CLOSED, G.REFUSED): "nothing is parsed any more",
}


@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize("state", State)
def test_every_pair_is_in_the_table_or_impossible(state: State, signal: Signal) -> None:
    assert ((state, signal) in LIFE) is not ((state, signal) in IMPOSSIBLE)


# Losing the connection, in every state


async def to_idle(peer: Peer, app: ByHand) -> None:
    pass


async def to_head(peer: Peer, app: ByHand) -> None:
    peer.feed(b"GET")


async def to_receiving(peer: Peer, app: ByHand) -> None:
    peer.feed(head(10))


async def to_answering(peer: Peer, app: ByHand) -> None:
    peer.feed(request())


async def to_discarding(peer: Peer, app: ByHand) -> None:
    peer.feed(head(10))
    call = await app.next()
    await call.start()
    await call.body(b"early", more=False)
    app.calls.append(call)


async def to_lingering(peer: Peer, app: ByHand) -> None:
    peer.feed(b"GARBAGE\r\n\r\n")


async def to_closed(peer: Peer, app: ByHand) -> None:
    peer.connection.close_idle()


@pytest.mark.parametrize(
    ("reach", "state"),
    [
        (to_idle, S.IDLE),
        (to_head, S.HEAD),
        (to_receiving, S.RECEIVING),
        (to_answering, S.ANSWERING),
        (to_discarding, S.DISCARDING),
        (to_lingering, S.LINGERING),
        (to_closed, S.CLOSED),
    ],
)
@pytest.mark.parametrize("how", ["lose", "abort", "eof"])
@in_loop
async def test_a_lost_connection_leaves_nothing_behind(
    reach: Callable[[Peer, ByHand], Awaitable[None]], state: State, how: str
) -> None:
    app = ByHand()
    peer = Peer(app)
    await reach(peer, app)
    await settle()
    assert peer.state() is state
    match how:
        case "lose":
            peer.transport.lose(ConnectionResetError())
        case "abort":
            peer.connection.abort()
        case "eof" if peer.transport.is_reading():
            peer.eof()
    await settle()
    if app.calls:
        assert len(peer.shared.sessions) == 1, "the app has not returned"
        app.calls[0].finish()
    await peer.end()


@in_loop
async def test_quiet_is_told_when_the_last_app_has_returned() -> None:
    told: list[bool] = []
    app = ByHand()
    peer = Peer(app)
    peer.shared.on_quiet = lambda: told.append(True)
    peer.feed(request())
    call = await app.next()
    peer.transport.lose()
    await settle()
    assert not told
    call.finish()
    await until(lambda: told)
    await peer.end()


@in_loop
async def test_a_receive_that_waits_hears_of_the_loss() -> None:
    heard: list[Message] = []

    async def listens(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        heard.append(await receive())

    peer = Peer(listens)
    peer.feed(request())
    await settle()
    peer.transport.lose()
    await until(lambda: heard)
    assert heard == [{"type": "http.disconnect"}]
    await peer.end()


def test_the_sweep_fits_the_shortest_timeout() -> None:
    assert TimeLimits().sweep_interval() == 1.0
    assert TimeLimits(write=2.0).sweep_interval() == 0.5
    assert TimeLimits(keep_alive=0.001).sweep_interval() == 0.02
    assert TimeLimits(0, 0, 0, 0, 0).sweep_interval() == 1.0


# Anything, in any order

TARGETS = ["/now", "/hand", "/echo", "/fail", "/fail-late"]
REQUESTS = [
    *(request(target) for target in TARGETS),
    *(request(target, method="HEAD") for target in ("/now", "/hand")),
    *(request(target, method="POST", body=b"x" * 300) for target in TARGETS),
    *(request(target, CHUNKED, method="POST") + b"5\r\nhello\r\n0\r\n\r\n" for target in TARGETS),
    request("/hand", EXPECT, method="POST", body=b"hello"),
    request("/now", EXPECT, method="POST", body=b"hello"),
    request("/now", method="POST", body=b"x" * (DISCARD_LIMIT + 10)),
    request("/hand", method="POST", body=b"x" * (DISCARD_LIMIT + 10)),
    request("/now", "Connection: close"),
    request("/now", "Connection: close", method="POST", body=b"hello"),
    request("/hand", version="1.0"),
    request("/hand", "TE: trailers"),
    request("/hand", CHUNKED, method="POST") + b"5\r\nhello\r\n" + BAD_CHUNK,
    b"\r\n",
    b"GARBAGE\r\n\r\n",
]
FILE = os.open(__file__, os.O_RDONLY)
EXTENSIONS: dict[str, Message] = {
    "announce": {"type": "http.response.start", "status": 200, "trailers": True},
    "file": {"type": "http.response.pathsend", "path": __file__},
    "stretch": {"type": "http.response.zerocopysend", "file": FILE, "offset": 7, "count": 20000, "more_body": True},
    "hint": {"type": "http.response.early_hint", "links": [b"</a>"]},
    "trailers": {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
}
PLAYED = ["start", "body", "big", "last", "receive", "error", "return", *EXTENSIONS]
STEPS = st.one_of(
    st.tuples(st.just("feed"), st.sampled_from([1, 7, 60, 200, 1000, HIGH_WATER + 1, 1 << 20])),
    st.tuples(st.sampled_from(PLAYED), st.integers(0, 2)),
    st.tuples(st.just("time"), st.sampled_from([0.5, 3, 11, 62, 80])),
    st.tuples(st.sampled_from(["turn", "eof", "stall", "reads", "drain", "close idle", "no shutdown"]), st.just(0)),
)


class Walk:
    """Does what the steps say, as far as a transport and an application could."""

    def __init__(self, stream: list[bytes], *, request_timeout: float, most: int, at_once: int) -> None:
        self.rest = b"".join(stream)
        self.hand = ByHand()
        self.peer = Peer(
            self.app, times=TimeLimits(request=request_timeout), requests=at_once, requests_per_connection=most
        )
        self.defects: list[BaseException] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.ended = False

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/now":
                await reply(send)
            case "/echo":
                await echo(scope, receive, send)
            case "/fail":
                raise ValueError("before")
            case "/fail-late":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                raise ValueError("in the middle")
            case _:
                await self.hand(scope, receive, send)

    async def guarded(self, doing: Callable[[], Awaitable[object]]) -> None:
        try:
            await doing()
        except (OSError, RuntimeError):
            pass  # gone, or out of turn: what an app may be told
        except Exception as error:
            self.defects.append(error)

    def step(self, what: str, size: float) -> None:
        peer, transport = self.peer, self.peer.transport
        match what:
            case "feed" if transport.is_reading() and not self.ended:
                data, self.rest = self.rest[: int(size)], self.rest[int(size) :]
                if data:
                    peer.feed(data)
            case "eof" if transport.is_reading() and not self.ended:
                self.ended = True
                peer.eof()
            case "time":
                peer.passes(size)
            case "stall":
                transport.stalled = True
            case "reads":
                transport.peer_reads(1 << 15)
            case "drain":
                peer.shared.draining = True
            case "close idle":
                peer.connection.close_idle()
            case "no shutdown":
                transport.reset_by_peer = True
            case _ if what in PLAYED:
                if len(self.hand.calls) > size:
                    self.play(self.hand.calls[int(size)], what)

    def play(self, call: Call, what: str) -> None:
        doing: Callable[[], Awaitable[object]]
        match what:
            case "start":
                doing = call.start
            case "body":
                doing = functools.partial(call.body, b"some")
            case "big":
                doing = functools.partial(call.body, bytes(HIGH_WATER * 2))
            case "last":
                doing = functools.partial(call.body, b"", more=False)
            case "receive":
                doing = call.receive
            case _ if what in EXTENSIONS:
                doing = functools.partial(call.send, EXTENSIONS[what])
            case _:
                call.finish(ValueError("by hand") if what == "error" else None)
                return
        self.tasks.append(asyncio.ensure_future(self.guarded(doing)))

    async def go(self, steps: list[tuple[str, float]]) -> None:
        for what, size in steps:
            self.step(what, size)
            await asyncio.sleep(0)
            transport = self.peer.transport
            assert transport.is_lost() or self.peer.connection in self.peer.shared.connections
            assert (self.peer.state() is S.CLOSED) == transport.is_closing()
        self.peer.transport.lose()
        await settle()
        for call in self.hand.calls:
            call.finish()
        await asyncio.gather(*self.tasks)
        await self.peer.end()
        assert not self.defects, self.defects


@settings(max_examples=150, deadline=None)
@given(
    stream=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=8),
    steps=st.lists(STEPS, max_size=40),
    request_timeout=st.sampled_from([0, 0, 5]),
    most=st.sampled_from([0, 0, 2]),
    at_once=st.sampled_from([0, 0, 1]),
)
def test_any_order_of_anything(
    stream: list[bytes], steps: list[tuple[str, float]], request_timeout: float, most: int, at_once: int
) -> None:
    async def walk() -> None:
        await Walk(stream, request_timeout=request_timeout, most=most, at_once=at_once).go(steps)

    logging.disable(logging.ERROR)  # what the applications' faults say is not the point here
    try:
        run(walk(), collect=False)
    finally:
        logging.disable(logging.NOTSET)
