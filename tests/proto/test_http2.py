"""The HTTP/2 connection between a transport without a socket and a real HTTP/2 client, on both engines."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from asgiri.asgi.http import HttpSession
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.proto.connection import HIGH_WATER, LINGER_SECONDS, TimeLimits
from asgiri.proto.exchange import EAGER, PEER_LEFT
from asgiri.proto.http2_ends import LAST_PING_SECONDS
from asgiri.proto.http2_exchange import Exchange
from asgiri.proto.http2_life import EXCHANGE, LIFE, News, Phase, Signal, State
from asgiri.proto.outbox import MOST_WAIT
from asgiri.types import Receive, Scope, Send
from tests.proto.fakes import ByHand, Held, echo, hello, in_loop, read_body, reply, settle
from tests.proto.fakes_http2 import Http2Peer, frames
from tests.proto.test_access import Lines

pytestmark = pytest.mark.usefixtures("each_http2_engine")

MIB = 1 << 20
GOAWAY_LATER = 2**31 - 1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, CANCEL = 0, 1, 2, 8


def streamed(pieces: int, size: int = 16384) -> Any:
    """An application that answers in so many pieces, and tells how many of them it could send."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(pieces):
            await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
            app.sent += 1  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": b""})

    app.sent = 0  # type: ignore[attr-defined]
    return app


# Requests and answers


@in_loop
async def test_an_answer_does_not_wait_for_applications_that_work_for_long() -> None:
    written: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        written.append(len(peer.transport.writes))
        until = time.perf_counter() + 2 * MOST_WAIT
        while time.perf_counter() < until:
            pass
        await hello(scope, receive, send)

    peer = Http2Peer(app)
    peer.shared.patience = MOST_WAIT
    await settle()
    streams = [peer.request("/") for _ in range(4)]
    await peer.until_answered(*streams)
    # The answer of the first may wait for that of the second.
    assert len(set(written)) >= 3


@in_loop
async def test_a_request_is_answered() -> None:
    app = Held()
    peer = Http2Peer(app)
    app.release("/a b")
    stream = peer.request("/a%20b?c=d", ("x-one", "1"), ("cookie", "a=1"), ("cookie", "b=2"))
    (answer,) = await peer.until_answered(stream)
    assert (answer.status, answer.body) == (200, b"/a b")
    assert answer.headers["content-length"] == "4"
    (scope,) = app.scopes
    assert scope["type"] == "http"
    assert scope["http_version"] == "2"
    assert scope["method"] == "GET"
    assert scope["scheme"] == "http"
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"c=d")
    assert scope["client"] == ("192.0.2.7", 40000)
    assert (b"host", b"asgiri.test") in scope["headers"]
    assert (b"cookie", b"a=1; b=2") in scope["headers"]
    await peer.end()


@in_loop
async def test_answers_come_in_the_order_in_which_they_are_made() -> None:
    app = Held()
    peer = Http2Peer(app)
    first, second = peer.request("/1"), peer.request("/2")
    await peer.turn()
    assert app.paths == ["/1", "/2"]
    app.release("/2")
    await peer.until_answered(second)
    assert first not in peer.answers
    app.release("/1")
    await peer.until_answered(first)
    await peer.end()


@in_loop
async def test_answers_of_one_turn_leave_in_one_write() -> None:
    peer = Http2Peer(hello)
    await peer.turn()
    writes = len(peer.transport.writes)
    streams = [peer.request(f"/{number}") for number in range(40)]
    peer.connection.data_received(peer.client.data_to_send())
    await settle()
    assert len(peer.transport.writes) == writes + 1
    assert [answer.body for answer in await peer.until_answered(*streams)] == [b"/%d" % n for n in range(40)]
    await peer.end()


@in_loop
async def test_answers_that_wait_for_one_thing_leave_in_one_write() -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await reply(send)

    peer = Http2Peer(app)
    streams = [peer.request() for _ in range(20)]
    await peer.turn()
    writes = len(peer.transport.writes)
    gate.set()
    await settle()
    assert len(peer.transport.writes) == writes + 1
    await peer.until_answered(*streams)
    await peer.end()


@in_loop
async def test_many_requests_leave_nothing_behind() -> None:
    peer = Http2Peer(hello)
    for _ in range(200):
        await peer.until_answered(*[peer.request() for _ in range(10)])
    assert not peer.connection.streams
    assert not peer.connection.ended
    assert not peer.connection.waiting
    await peer.end()


@in_loop
async def test_exchanges_that_are_over_are_not_left_to_the_garbage_collector() -> None:
    def alive() -> int:
        return sum(isinstance(one, HttpSession | Exchange) for one in gc.get_objects())

    peer = Http2Peer(echo)
    gc.collect()
    gc.disable()
    try:
        before = alive()
        await peer.until_answered(*[peer.post("/", b"abc") for _ in range(20)], *[peer.request() for _ in range(20)])
        for _ in range(20):
            cancelled = peer.request(method="POST", end_stream=False)
            await peer.turn()
            peer.cancel(cancelled)
        await peer.turn()
        assert alive() == before
    finally:
        gc.enable()
    await peer.end()


@in_loop
async def test_a_body_is_told_in_pieces() -> None:
    app = ByHand()
    peer = Http2Peer(app)
    stream = peer.request(method="POST", end_stream=False)
    peer.client.send_data(stream, b"ab")
    peer.pump()
    call = await app.next()
    assert await call.receive() == {"type": "http.request", "body": b"ab", "more_body": True}
    peer.client.send_data(stream, b"c", end_stream=True)
    peer.pump()
    assert await call.receive() == {"type": "http.request", "body": b"c", "more_body": False}
    await call.reply(b"done")
    assert (await peer.until_answered(stream))[0].body == b"done"
    await peer.end()


async def upload(peer: Http2Peer, stream: int, size: int) -> None:
    """Send so much, as the windows let."""
    while size:
        room = min(size, peer.client.local_flow_control_window(stream), peer.client.max_outbound_frame_size)
        if room > 0:
            size -= room
            peer.client.send_data(stream, bytes(room), end_stream=not size)
        else:
            await settle()
        peer.pump()


@in_loop
async def test_bodies_that_come_with_their_requests() -> None:
    """However many there are in one read, their applications find them there, and one write answers all."""
    app = ByHand()
    peer = Http2Peer(app)
    streams = [peer.post("/", b"%d" % number) for number in range(5)]
    cancelled = peer.post("/", b"no")
    peer.cancel(cancelled)
    peer.pump()
    for number in range(5):
        call = await app.next()
        assert await call.receive() == {"type": "http.request", "body": b"%d" % number, "more_body": False}
        await call.reply()
    await peer.until_answered(*streams)
    assert not app.calls or await app.calls[0].receive() == {"type": "http.disconnect"}
    for call in app.calls:
        call.finish()
    await peer.end()


@pytest.mark.skipif(not EAGER, reason="applications start in the loop's next turn")
@in_loop
async def test_a_body_that_comes_with_its_request_is_not_waited_for() -> None:
    peer = Http2Peer(echo)
    writes = len(peer.transport.writes)
    for number in range(5):
        peer.post("/", b"%d" % number)
    peer.connection.data_received(peer.client.data_to_send())
    assert len(peer.transport.writes) == writes + 1
    assert not peer.connection.streams
    await peer.end()


@in_loop
async def test_a_body_larger_than_all_windows() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        assert body is not None
        await reply(send, b"%d" % len(body))

    peer = Http2Peer(app, options=Http2Options(initial_window=65535))
    stream = peer.request(method="POST", end_stream=False)
    async with asyncio.timeout(20):
        await upload(peer, stream, 2 * MIB)
    assert (await peer.until_answered(stream))[0].body == b"%d" % (2 * MIB)
    await peer.end()


@in_loop
async def test_a_body_that_nobody_reads_stops_its_peer() -> None:
    app = ByHand()
    options = Http2Options(initial_window=100_000)
    peer = Http2Peer(app, options=options)
    stream = peer.request(method="POST", end_stream=False)
    sending = asyncio.ensure_future(upload(peer, stream, 200_000))
    call = await app.next()
    await settle()
    assert peer.client.local_flow_control_window(stream) == 0
    (exchange,) = peer.connection.streams.values()
    assert exchange.unread == 100_000
    read = 0
    while read < 200_000:
        read += len((await call.receive())["body"])
    await sending
    await call.reply()
    await peer.until_answered(stream)
    await peer.end()


@in_loop
async def test_bodies_that_nobody_reads_do_not_use_the_connection_up() -> None:
    """Answered early, they must not cost the others their window."""
    options = Http2Options(initial_window=65535, max_concurrent_streams=1)
    peer = Http2Peer(hello, options=options)
    for _ in range(40):
        stream = peer.request(method="POST", end_stream=False)
        peer.client.send_data(stream, bytes(10_000))
        peer.client.send_data(stream, bytes(10_000), end_stream=True)
        await peer.until_answered(stream)
    await peer.end()


@in_loop
async def test_bodies_of_cancelled_requests_do_not_use_the_connection_up() -> None:
    app = ByHand()
    options = Http2Options(initial_window=65535, max_concurrent_streams=1)
    peer = Http2Peer(app, options=options)
    for _ in range(20):
        stream = peer.request(method="POST", end_stream=False)
        peer.client.send_data(stream, bytes(10_000))
        peer.pump()
        call = await app.next()
        peer.cancel(stream)
        await peer.turn()
        call.finish()
    await peer.turn()
    assert peer.client.outbound_flow_control_window >= 32_767
    await peer.end()


@in_loop
async def test_100_continue_comes_when_the_app_wants_the_body() -> None:
    app = ByHand()
    peer = Http2Peer(app)
    stream = peer.request("/", ("expect", "100-continue"), method="POST", end_stream=False)
    peer.pump()
    call = await app.next()
    await peer.turn()
    assert stream not in peer.answers
    receiving = asyncio.ensure_future(call.receive())
    await peer.turn()
    assert peer.answers[stream].interim == [100]
    peer.client.send_data(stream, b"abc", end_stream=True)
    peer.pump()
    assert (await receiving)["body"] == b"abc"
    await call.reply()
    await peer.until_answered(stream)
    await peer.end()


@in_loop
async def test_early_hints_and_trailers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"abc"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"6")]})

    peer = Http2Peer(app)
    (answer,) = await peer.until_answered(peer.request("/", ("te", "trailers")))
    assert answer.interim == [103]
    assert (answer.body, answer.trailers) == (b"abc", {"x-sum": "6"})
    await peer.end()


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@in_loop
async def test_answers_without_content(method: str, status: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"abc", status)

    lines = Lines()
    peer = Http2Peer(app, access_log=lines)
    (answer,) = await peer.until_answered(peer.request("/", method=method))
    assert (answer.status, answer.body) == (status, b"")
    assert lines.short == [(method, b"/", status, 0)]
    await peer.end()


@in_loop
async def test_an_app_that_fails_is_answered_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("no")

    peer = Http2Peer(app)
    (answer,) = await peer.until_answered(peer.request())
    assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
    await peer.end()


@in_loop
async def test_an_app_that_fails_in_its_answer_resets_the_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    app = ByHand()
    peer = Http2Peer(app)
    stream, other = peer.request("/broken"), peer.request()
    peer.pump()
    broken, well = await app.next(), await app.next()
    await broken.start()
    await broken.body(b"ab")
    with caplog.at_level(logging.CRITICAL, "asgiri.app"):
        broken.finish(ValueError("no"))
        await peer.turn()
    assert peer.answers[stream].reset == INTERNAL_ERROR
    await well.reply(b"fine")
    assert (await peer.until_answered(other))[0].body == b"fine"
    await peer.end()


@in_loop
async def test_an_answer_that_is_cut_is_logged_with_what_has_left() -> None:
    app = ByHand()
    lines = Lines()
    peer = Http2Peer(app, access_log=lines, window=1000)
    peer.reads = False
    stream = peer.request("/a")
    peer.pump()
    call = await app.next()
    await call.start()
    await call.body(bytes(3000))
    await peer.turn()
    call.finish()
    await peer.turn()
    assert peer.answers[stream].reset == INTERNAL_ERROR
    assert lines.short == [("GET", b"/a", 200, 1000)]
    await peer.end()


@in_loop
async def test_headers_that_cannot_be_sent_are_the_apps_fault() -> None:
    app = ByHand()
    peer = Http2Peer(app)
    stream = peer.request()
    peer.pump()
    call = await app.next()
    await call.start(200, (b"x", b"a\r\nb"))
    with pytest.raises(RuntimeError, match="cannot be sent"):
        await call.body(b"", more=False)
    call.finish(ValueError("no"))
    assert (await peer.until_answered(stream))[0].status == 500
    await peer.end()


# Files


@in_loop
async def test_a_file_is_sent(tmp_path: Path) -> None:
    content = os.urandom(700_000)
    file = tmp_path / "file"
    file.write_bytes(content)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(file)})

    lines = Lines()
    peer = Http2Peer(app, access_log=lines)
    (answer,) = await peer.until_answered(peer.request("/file"))
    assert answer.body == content
    (head,) = await peer.until_answered(peer.request("/head", method="HEAD"))
    assert (head.body, head.headers["content-length"]) == (b"", "700000")
    assert lines.short == [("GET", b"/file", 200, 700_000), ("HEAD", b"/head", 200, 0)]
    await peer.end()


@in_loop
async def test_a_file_that_becomes_shorter_resets_its_stream(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(MIB))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(file)})

    peer = Http2Peer(app)
    peer.reads = False
    stream = peer.request()
    await peer.until(lambda: stream in peer.answers and len(peer.answers[stream].body) == 65535)
    os.truncate(file, 10)
    peer.grant(2 * MIB)
    peer.grant(2 * MIB, stream)
    await peer.until(lambda: peer.answers[stream].reset == INTERNAL_ERROR)
    await peer.end()


@in_loop
async def test_a_peer_that_leaves_ends_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(MIB))
    errors = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await send({"type": "http.response.pathsend", "path": str(file)})
        except OSError as error:
            errors.append(error)

    peer = Http2Peer(app)
    peer.reads = False
    stream = peer.request()
    await peer.until(lambda: stream in peer.answers)
    peer.cancel(stream)
    await peer.until(lambda: errors)
    await peer.end()


# The pace of the peer


@in_loop
async def test_an_app_waits_for_a_peer_that_grants_nothing() -> None:
    app = streamed(100)
    peer = Http2Peer(app, window=0)
    peer.reads = False
    stream = peer.request()
    await peer.turn()
    assert HIGH_WATER < app.sent * 16384 + 16384 <= HIGH_WATER + 2 * 16384
    assert HIGH_WATER < peer.connection.codec.held(stream) <= HIGH_WATER + 16384
    peer.reads = True
    peer.grant(65535, stream)
    (answer,) = await peer.until_answered(stream)
    assert len(answer.body) == 100 * 16384
    assert not peer.connection.streams
    await peer.end()


@in_loop
async def test_a_whole_answer_that_is_large_is_waited_for() -> None:
    app = ByHand()
    peer = Http2Peer(app, window=0)
    stream = peer.request()
    peer.pump()
    call = await app.next()
    sending = asyncio.ensure_future(call.reply(bytes(MIB)))
    await peer.turn()
    assert not sending.done()
    peer.grant(MIB, stream)
    peer.grant(MIB)
    await peer.until_answered(stream)
    await sending
    await peer.end()


@in_loop
async def test_an_app_that_waits_is_freed_when_the_peer_resets() -> None:
    app = ByHand()
    peer = Http2Peer(app, window=0)
    stream = peer.request()
    peer.pump()
    call = await app.next()
    await call.start()
    sending = asyncio.ensure_future(call.body(bytes(MIB)))
    await peer.turn()
    assert not sending.done()
    peer.cancel(stream)
    await peer.turn()
    with pytest.raises(OSError, match="disconnected"):
        await sending
    assert await call.receive() == {"type": "http.disconnect"}
    call.finish()
    await peer.end()


@in_loop
async def test_an_app_that_waits_is_freed_when_the_connection_is_lost() -> None:
    app = ByHand()
    peer = Http2Peer(app, window=0)
    peer.request()
    peer.pump()
    call = await app.next()
    await call.start()
    sending = asyncio.ensure_future(call.body(bytes(MIB)))
    await peer.turn()
    peer.transport.lose()
    with pytest.raises(OSError, match="disconnected"):
        await sending
    call.finish()
    await peer.end()


@in_loop
async def test_nothing_is_taken_from_the_codec_while_the_transport_is_stalled() -> None:
    app = streamed(50)
    peer = Http2Peer(app, window=64 * MIB)
    peer.grant(64 * MIB)
    peer.pump()
    peer.transport.stalled = True
    streams = [peer.request() for _ in range(20)]
    await peer.turn()
    waiting = peer.transport.waiting
    assert waiting < MIB
    for _ in range(20):
        await settle()
    assert peer.transport.waiting == waiting
    assert sum(map(peer.connection.codec.held, streams)) <= 20 * (HIGH_WATER + 16384)
    peer.transport.stalled = False
    peer.transport.peer_reads(waiting)
    for answer in await peer.until_answered(*streams):
        assert len(answer.body) == 50 * 16384
    await peer.end()


@in_loop
async def test_one_stalled_stream_holds_no_other_up() -> None:
    app = ByHand()
    peer = Http2Peer(app)
    peer.grant(MIB)
    peer.reads = False
    stalled, other = peer.request(), peer.request()
    peer.pump()
    first, second = await app.next(), await app.next()
    sending = asyncio.ensure_future(first.reply(bytes(300_000)))
    await peer.turn()
    assert not sending.done()
    await second.reply(b"quick")
    assert (await peer.until_answered(other))[0].body == b"quick"
    peer.grant(300_000, stalled)
    await peer.until_answered(stalled)
    await sending
    await peer.end()


# What is refused


@in_loop
async def test_requests_over_the_limit_get_503() -> None:
    app = Held()
    lines = Lines()
    peer = Http2Peer(app, requests=2, access_log=lines)
    streams = [peer.request(f"/{n}") for n in range(3)]
    (answer,) = await peer.until_answered(streams[2])
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert app.paths == ["/0", "/1"]
    assert [line.status for line in lines.all] == [503]
    app.release("/0")
    await peer.until_answered(streams[0])
    await peer.turn()
    app.release("/3")
    await peer.until_answered(peer.request("/3"))
    app.release("/1")
    await peer.until_answered(streams[1])
    await peer.end()


@in_loop
async def test_extended_connect_without_a_handler() -> None:
    lines = Lines()
    peer = Http2Peer(hello, access_log=lines)
    assert peer.settings[8] == 1
    number = peer.client.get_next_available_stream_id()
    head = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "asgiri.test"),
        (":path", "/chat"),
    ]
    peer.client.send_headers(number, head)
    await peer.turn()
    assert peer.answers[number].status == 501
    assert lines.short == [("CONNECT", b"/chat", 501, len(peer.answers[number].body))]
    assert (await peer.until_answered(peer.request()))[0].status == 200
    await peer.end()


@pytest.mark.parametrize(
    ("limits", "path", "fields", "status"),
    [
        (HttpLimits(request_line=50), "/" + "a" * 100, {}, 414),
        (HttpLimits(header_count=3), "/", {f"x-{n}": "1" for n in range(9)}, 431),
        (HttpLimits(header_size=100), "/", {"x": "a" * 200}, 431),
    ],
)
@in_loop
async def test_what_is_over_a_limit_is_answered(
    limits: HttpLimits, path: str, fields: dict[str, str], status: int
) -> None:
    lines = Lines()
    peer = Http2Peer(hello, limits=limits, access_log=lines)
    (answer,) = await peer.until_answered(peer.request(path, *fields.items()))
    assert answer.status == status
    assert answer.body.startswith(b"%d " % status)
    assert [line.status for line in lines.all] == [status]
    assert [line.version for line in lines.all] == ["HTTP/2.0"]
    assert (await peer.until_answered(peer.request()))[0].status == 200
    assert not peer.connection.streams
    await peer.end()


@in_loop
async def test_a_body_over_its_limit() -> None:
    app = ByHand()
    lines = Lines()
    peer = Http2Peer(app, limits=HttpLimits(body_size=1000), access_log=lines)
    stream = peer.request(method="POST", end_stream=False)
    peer.client.send_data(stream, bytes(900))
    peer.pump()
    call = await app.next()
    assert len((await call.receive())["body"]) == 900
    peer.client.send_data(stream, bytes(200))
    await peer.turn()
    assert peer.answers[stream].status == 413
    assert await call.receive() == {"type": "http.disconnect"}
    with pytest.raises(OSError, match="disconnected"):
        await call.start()
    call.finish()
    assert [line.status for line in lines.all] == [413]
    await peer.end()


@in_loop
async def test_a_body_over_its_limit_whose_answer_has_begun() -> None:
    app = ByHand()
    peer = Http2Peer(app, limits=HttpLimits(body_size=1000))
    stream = peer.request(method="POST", end_stream=False)
    peer.client.send_data(stream, bytes(900))
    peer.pump()
    call = await app.next()
    await call.start()
    await call.body(b"abc")
    peer.client.send_data(stream, bytes(200))
    await peer.turn()
    assert peer.answers[stream].status == 200
    assert peer.answers[stream].reset == CANCEL
    call.finish()
    await peer.end()


# Ends


@in_loop
async def test_a_request_that_is_cancelled() -> None:
    app = ByHand()
    lines = Lines()
    peer = Http2Peer(app, access_log=lines)
    stream = peer.request("/a")
    peer.pump()
    call = await app.next()
    peer.cancel(stream)
    peer.pump()
    assert await call.receive() == {"type": "http.disconnect"}
    call.finish()
    assert lines.short == [("GET", b"/a", PEER_LEFT, 0)]
    await peer.until_answered()
    await peer.end()


@in_loop
async def test_a_broken_connection_is_told_why() -> None:
    app = ByHand()
    lines = Lines()
    peer = Http2Peer(app, access_log=lines)
    peer.request("/a")
    peer.pump()
    call = await app.next()
    peer.connection.data_received(b"\0\0\0\0\0\0\0\0\0")  # DATA on stream 0
    await peer.turn()
    assert [code for _, code in peer.goaways] == [PROTOCOL_ERROR]
    assert peer.transport.half_closed
    assert not peer.transport.is_closing()
    assert await call.receive() == {"type": "http.disconnect"}
    call.finish()
    peer.connection.data_received(b"more of that")
    assert lines.short == [("GET", b"/a", PEER_LEFT, 0)]
    peer.passes(LINGER_SECONDS + 0.1)
    assert peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_the_news_of_a_broken_connection_may_take_its_time() -> None:
    """The two seconds are for the peer to react, and begin when it has got everything."""
    peer = Http2Peer(hello, times=TimeLimits(write=60))
    await peer.turn()
    peer.transport.stalled = True
    peer.connection.data_received(b"\0\0\0\0\0\0\0\0\0")
    assert peer.state() is State.LINGERING
    for _ in range(10):
        peer.passes(1)
    assert not peer.transport.is_aborted()
    peer.transport.peer_reads(1 << 20)
    peer.passes(LINGER_SECONDS)
    assert not peer.transport.is_aborted()
    peer.passes(1)
    assert peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_bytes_that_are_no_http2() -> None:
    peer = Http2Peer(hello, greet=False)
    peer.connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await settle()
    assert [kind for kind, *_ in frames(peer.transport.sent)][-1] == 7
    assert peer.state() is State.LINGERING
    await peer.end()


@in_loop
async def test_a_peer_that_ends_its_side_may_still_read() -> None:
    app = ByHand()
    peer = Http2Peer(app)
    whole, partial = peer.request(), peer.request(method="POST", end_stream=False)
    await peer.turn()
    call, cut = await app.next(), await app.next()
    peer.eof()
    await settle()
    assert not peer.transport.is_closing()
    assert await cut.receive() == {"type": "http.disconnect"}
    cut.finish()
    assert await call.receive() == {"type": "http.request", "body": b"", "more_body": False}
    assert await call.receive() == {"type": "http.disconnect"}
    await call.reply(b"late")
    await settle()
    peer.hear()
    assert peer.answers[whole].body == b"late"
    assert partial not in peer.answers
    assert peer.transport.is_lost()
    await peer.end()


@in_loop
async def test_an_idle_peer_that_ends_is_let_go() -> None:
    peer = Http2Peer(hello)
    peer.eof()
    await settle()
    assert peer.transport.is_lost()
    await peer.end()


@in_loop
async def test_tls_ends_as_a_whole() -> None:
    app = ByHand()
    peer = Http2Peer(app)
    peer.connection.secure = object()  # type: ignore[assignment]
    peer.request()
    peer.pump()
    call = await app.next()
    peer.eof()
    await settle()
    assert peer.transport.is_lost()
    assert await call.receive() == {"type": "http.disconnect"}
    call.finish()
    await peer.end()


@in_loop
async def test_a_lost_connection() -> None:
    app = ByHand()
    lines = Lines()
    peer = Http2Peer(app, access_log=lines)
    peer.request("/a"), peer.request("/b")
    peer.pump()
    calls = [await app.next(), await app.next()]
    peer.transport.lose()
    for call in calls:
        assert await call.receive() == {"type": "http.disconnect"}
        with pytest.raises(OSError, match="disconnected"):
            await call.start()
        call.finish()
    assert lines.short == [("GET", b"/a", PEER_LEFT, 0), ("GET", b"/b", PEER_LEFT, 0)]
    await peer.end()


@in_loop
async def test_abort_cuts_what_is_in_progress() -> None:
    app = ByHand()
    peer = Http2Peer(app)
    peer.request()
    peer.pump()
    call = await app.next()
    peer.connection.abort()
    await settle()
    assert peer.transport.is_aborted()
    assert await call.receive() == {"type": "http.disconnect"}
    call.finish()
    await peer.end()


@in_loop
async def test_a_peer_that_says_goodbye_gets_its_answers() -> None:
    app = Held()
    peer = Http2Peer(app)
    stream = peer.request("/a")
    await peer.turn()
    peer.connection.data_received(bytes.fromhex("000008070000000000" + "00000000" + "00000000"))
    await peer.turn()
    assert not peer.transport.is_closing()
    app.release("/a")
    await peer.turn()
    peer.hear()
    assert peer.answers[stream].body == b"/a"
    assert peer.transport.half_closed
    await peer.end()


# Draining


@in_loop
async def test_a_drain_in_two_steps() -> None:
    app = Held()
    peer = Http2Peer(app)
    first = peer.request("/1")
    await peer.turn()
    peer.shared.draining = True
    peer.connection.begin_drain()
    second = peer.request("/2")  # was on its way
    request = peer.client.data_to_send()
    await settle()
    peer.connection.data_received(request)
    peer.pump()
    await peer.turn()
    assert peer.goaways[0] == (GOAWAY_LATER, NO_ERROR)
    assert peer.goaways[-1] == (second, NO_ERROR), "the acknowledged PING brings the last one"
    assert len(peer.goaways) == 2
    assert peer.state() is State.FINISHING
    assert app.paths == ["/1", "/2"]
    app.release("/1")
    app.release("/2")
    await settle()
    peer.hear()
    assert [peer.answers[stream].ended for stream in (first, second)] == [True, True]
    assert peer.transport.half_closed
    assert peer.state() is State.LINGERING
    await peer.end()


@in_loop
async def test_a_drain_of_an_idle_connection() -> None:
    peer = Http2Peer(hello)
    await peer.until_answered(peer.request())
    peer.shared.draining = True
    peer.connection.begin_drain()
    await settle()
    await peer.turn()
    assert [last for last, _ in peer.goaways] == [GOAWAY_LATER, 1]
    assert peer.transport.half_closed
    peer.connection.close_idle()
    assert not peer.transport.is_closing(), "the peer may not have read all of it yet"
    peer.eof()
    await settle()
    assert peer.transport.is_lost()
    await peer.end()


@in_loop
async def test_a_drain_does_not_wait_for_a_ping_that_never_comes() -> None:
    app = Held()
    peer = Http2Peer(app)
    peer.request("/")
    await peer.turn()
    peer.connection.begin_drain()
    await settle()
    peer.passes(LAST_PING_SECONDS / 2)
    assert peer.state() is State.WARNED
    peer.passes(LAST_PING_SECONDS)
    assert peer.state() is State.FINISHING
    app.release("/")
    await peer.end()


@in_loop
async def test_the_first_request_of_a_draining_server_is_answered() -> None:
    peer = Http2Peer(hello)
    peer.shared.draining = True
    (answer,) = await peer.until_answered(peer.request())
    assert answer.status == 200
    await peer.turn()
    assert [last for last, _ in peer.goaways] == [GOAWAY_LATER, 1]
    await peer.end()


@in_loop
async def test_the_end_of_the_drains_window() -> None:
    app = Held()
    peer, idle = Http2Peer(app), Http2Peer(app)
    stream = peer.request("/a")
    await peer.turn()
    for one in (peer, idle):
        one.connection.close_idle()
    await settle()
    assert idle.transport.is_closing()
    assert not peer.transport.is_closing()
    app.release("/a")
    await peer.until_answered(stream)
    assert peer.goaways == [(1, NO_ERROR)]
    assert peer.state() is State.LINGERING
    await peer.end()
    await idle.end()


@in_loop
async def test_requests_per_connection() -> None:
    peer = Http2Peer(hello, requests_per_connection=3)
    for _ in range(2):
        await peer.until_answered(peer.request())
    assert not peer.goaways
    (answer,) = await peer.until_answered(peer.request())
    assert answer.status == 200
    await peer.turn()
    assert [last for last, _ in peer.goaways] == [GOAWAY_LATER, 5]
    assert peer.transport.half_closed
    await peer.end()


@in_loop
async def test_what_leaves_early_ends_no_connection_whose_requests_have_not_all_begun() -> None:
    """The last GOAWAY is due, and behind what brings it come requests that it does not refuse."""
    peer = Http2Peer(hello)
    peer.shared.patience = -1.0  # each answer leaves at once
    await peer.turn()
    peer.connection.begin_drain()
    await settle()
    peer.hear()  # the PING, whose acknowledgement goes before the requests
    streams = [peer.request() for _ in range(3)]
    peer.connection.data_received(peer.client.data_to_send())
    answers = await peer.until_answered(*streams)
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [last for last, _ in peer.goaways] == [GOAWAY_LATER, streams[-1]]
    await peer.until(lambda: peer.transport.half_closed)
    await peer.end()


@in_loop
async def test_what_leaves_early_waits_for_a_peer_that_does_not_read() -> None:
    app = streamed(1, HIGH_WATER // 2)
    peer = Http2Peer(app, window=MIB)
    peer.grant(MIB)
    peer.shared.patience = -1.0
    await peer.turn()
    peer.transport.stalled = True
    streams = [peer.request() for _ in range(8)]
    await peer.turn()
    assert app.sent == 8
    assert peer.transport.waiting < 2 * HIGH_WATER
    peer.transport.stalled = False
    peer.transport.peer_reads(MIB)
    answers = await peer.until_answered(*streams)
    assert [len(answer.body) for answer in answers] == [HIGH_WATER // 2] * 8
    await peer.end()


# Time


@in_loop
async def test_an_idle_connection_is_closed() -> None:
    peer = Http2Peer(hello, times=TimeLimits(keep_alive=20))
    await peer.drip(15, 1)
    await peer.until_answered(peer.request())
    await peer.drip(19, 1)
    assert peer.state() is State.OPEN
    peer.client.ping(b"12345678")  # which is no request
    await peer.drip(2, 1)
    assert peer.transport.is_closing()
    peer.hear()
    assert peer.goaways == [(1, NO_ERROR)]
    await peer.end()


@in_loop
async def test_an_idle_connection_with_a_preface_and_no_request() -> None:
    peer = Http2Peer(hello, times=TimeLimits(keep_alive=20))
    await peer.drip(19, 1)
    assert not peer.transport.is_closing()
    await peer.drip(2, 1)
    assert peer.transport.is_closing()
    await peer.end()


@pytest.mark.parametrize("some", [0, 10, 24, 30])
@in_loop
async def test_a_preface_that_never_ends(some: int) -> None:
    peer = Http2Peer(hello, times=TimeLimits(request_head=10), greet=False)
    preface = peer.client.data_to_send()
    if some:
        peer.connection.data_received(preface[:some])
    peer.passes(9)
    assert peer.state() is State.OPEN
    peer.passes(2)
    assert peer.state() is State.LINGERING
    assert [kind for kind, *_ in frames(peer.transport.sent)][-1] == 7
    await peer.end()


@in_loop
async def test_a_header_block_that_never_ends() -> None:
    app = ByHand()
    peer = Http2Peer(app, times=TimeLimits(request_head=10))
    peer.request()
    peer.pump()
    call = await app.next()
    peer.request("/", ("x", "a" * 1000))
    peer.connection.data_received(peer.client.data_to_send()[:50])
    peer.passes(9)
    assert peer.state() is State.OPEN
    peer.passes(2)
    assert peer.state() is State.LINGERING
    assert await call.receive() == {"type": "http.disconnect"}
    call.finish()
    await peer.end()


@in_loop
async def test_blocks_that_are_cut_now_and_then_are_not_one_that_never_ends() -> None:
    peer = Http2Peer(hello, times=TimeLimits(request_head=5))
    for _ in range(30):
        first, second = peer.request(), peer.request()
        del second
        data = peer.client.data_to_send()
        peer.connection.data_received(data[:-3])
        peer.passes(1)
        peer.connection.data_received(data[-3:])
        await peer.until_answered(first)
    assert peer.state() is State.OPEN
    await peer.end()


@in_loop
async def test_a_body_that_does_not_come() -> None:
    app = ByHand()
    lines = Lines()
    peer = Http2Peer(app, times=TimeLimits(request_body=10), access_log=lines)
    slow, begun, other = (peer.request(method="POST", end_stream=False) for _ in range(3))
    peer.pump()
    calls = [await app.next() for _ in range(3)]
    await calls[1].start()
    await calls[1].body(b"ab")
    await peer.drip(9, 1)
    peer.client.send_data(other, b"a")
    await peer.drip(2, 1)
    assert peer.answers[slow].status == 408
    assert peer.answers[begun].reset == CANCEL
    assert other not in peer.answers
    assert await calls[0].receive() == {"type": "http.disconnect"}
    for call in calls[:2]:
        call.finish()
    await calls[2].reply()
    await peer.turn()
    assert [line.status for line in lines.all] == [408, 200, 200]
    await peer.end()


@in_loop
async def test_the_bodys_time_does_not_run_while_it_is_our_turn() -> None:
    app = ByHand()
    peer = Http2Peer(app, times=TimeLimits(request_body=10), options=Http2Options(initial_window=20_000))
    full = peer.request(method="POST", end_stream=False)
    asked = peer.request("/", ("expect", "100-continue"), method="POST", end_stream=False)
    peer.client.send_data(full, bytes(15_000))
    peer.pump()
    calls = [await app.next(), await app.next()]
    await peer.drip(30, 1)
    assert full not in peer.answers
    assert asked not in peer.answers
    assert len((await calls[0].receive())["body"]) == 15_000
    receiving = asyncio.ensure_future(calls[1].receive())
    await settle()
    await peer.drip(9, 1)
    assert not peer.answers[asked].status
    await peer.drip(3, 1)
    assert peer.answers[full].status == 408
    assert peer.answers[asked].status == 408
    assert await receiving == {"type": "http.disconnect"}
    for call in calls:
        call.finish()
    await peer.end()


@in_loop
async def test_the_bodys_time_does_not_run_while_others_fill_the_connection() -> None:
    app = ByHand()
    options = Http2Options(initial_window=65535, max_concurrent_streams=10)
    peer = Http2Peer(app, times=TimeLimits(request_body=10), options=options)
    streams = [peer.request(method="POST", end_stream=False) for _ in range(6)]
    for stream in streams:  # less than half of its own window each, and together more than half of the connection's
        for size in (16384, 13616):
            peer.client.send_data(stream, bytes(size))
    peer.pump()
    calls = [await app.next() for _ in streams]
    await peer.drip(30, 1)
    assert not peer.answers
    for call in calls[:4]:
        await call.receive()
    await peer.drip(12, 1)
    assert [peer.answers[stream].status for stream in streams] == [408] * 6
    for call in calls:
        call.finish()
    await peer.end()


@in_loop
async def test_a_client_that_pings_now_and_then_is_no_flood() -> None:
    app = Held()
    peer = Http2Peer(app, times=TimeLimits(keep_alive=0, write=0))
    stream = peer.request("/")
    await peer.turn()
    for _ in range(3000):
        peer.client.ping(b"12345678")
        peer.passes(1)
        peer.pump()
    app.release("/")
    assert (await peer.until_answered(stream))[0].status == 200
    assert not peer.goaways
    await peer.end()


@in_loop
async def test_a_request_that_takes_too_long() -> None:
    app = ByHand()
    peer = Http2Peer(app, times=TimeLimits(request=10))
    unanswered, begun = peer.request(), peer.request()
    peer.pump()
    calls = [await app.next(), await app.next()]
    await calls[1].start()
    await calls[1].body(b"ab")
    await peer.drip(9, 1)
    assert unanswered not in peer.answers
    await peer.drip(2, 1)
    assert peer.answers[unanswered].status == 503
    assert peer.answers[begun].reset is not None
    assert [call.cancelled for call in calls] == [True, True]
    assert peer.state() is State.OPEN
    await peer.end()


@in_loop
async def test_a_stream_that_its_peer_does_not_read() -> None:
    app = ByHand()
    peer = Http2Peer(app, times=TimeLimits(write=10, keep_alive=0), window=0)
    peer.reads = False
    stalled, slow = peer.request(), peer.request()
    peer.pump()
    calls = [await app.next(), await app.next()]
    sending = [asyncio.ensure_future(call.reply(bytes(MIB))) for call in calls]
    for _ in range(4):
        await peer.drip(8, 1)
        peer.grant(1024, slow)
    assert peer.answers[stalled].reset == CANCEL
    assert peer.answers[slow].reset is None
    await sending[0]  # its answer was whole, so nothing was refused
    assert not sending[1].done()
    await peer.drip(20, 1)
    assert peer.answers[slow].reset == CANCEL
    await sending[1]
    assert peer.state() is State.OPEN
    await peer.end()


@in_loop
async def test_a_stream_that_waits_for_more_urgent_ones() -> None:
    """They use up what the peer lets through, which is no fault of the peer's."""
    app = ByHand()
    peer = Http2Peer(app, times=TimeLimits(write=10), window=MIB)
    peer.reads = False
    urgent, patient = peer.request("/", ("priority", "u=0")), peer.request("/", ("priority", "u=7"))
    peer.pump()
    calls = [await app.next(), await app.next()]
    sending = [asyncio.ensure_future(call.reply(bytes(MIB // 2))) for call in calls]
    for _ in range(8):
        await peer.drip(5, 1)
        peer.grant(20_000)
    await peer.turn()
    assert len(peer.answers[urgent].body) == 65535 + 8 * 20_000
    assert peer.answers[patient].reset is None
    assert peer.answers[patient].body == b""
    await peer.drip(12, 1)  # and now nothing goes at all
    assert [peer.answers[stream].reset for stream in (urgent, patient)] == [CANCEL, CANCEL]
    await asyncio.gather(*sending)
    await peer.end()


@in_loop
async def test_new_requests_do_not_buy_time_for_answers_that_are_not_read() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, bytes(100_000))

    peer = Http2Peer(app, times=TimeLimits(write=10), window=MIB)
    peer.reads = False
    first = peer.request()
    for _ in range(4):
        await peer.drip(4, 1)
        peer.request()
    assert peer.answers[first].reset == CANCEL
    await peer.end()


@in_loop
async def test_a_small_answer_that_its_peer_does_not_read() -> None:
    peer = Http2Peer(hello, times=TimeLimits(write=10, keep_alive=5), window=0)
    peer.reads = False
    stream = peer.request()
    await peer.drip(9, 1)
    assert peer.answers[stream].reset is None
    await peer.drip(4, 1)
    assert peer.answers[stream].reset == CANCEL
    assert not peer.connection.streams
    await peer.drip(7, 1)
    assert peer.transport.is_closing()
    await peer.end()


@in_loop
async def test_a_transport_that_takes_nothing_is_cut() -> None:
    app = streamed(1000)
    peer = Http2Peer(app, times=TimeLimits(write=10), window=64 * MIB)
    peer.grant(64 * MIB)
    peer.pump()
    peer.transport.stalled = True
    peer.request()
    await peer.turn()
    peer.passes(1)
    peer.passes(9)
    assert not peer.transport.is_aborted()
    peer.passes(2)
    assert peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_nothing_is_overdue_where_all_timeouts_are_off() -> None:
    app = ByHand()
    times = TimeLimits(request_head=0, request_body=0, request=0, keep_alive=0, write=0)
    peer = Http2Peer(app, times=times, window=0)
    peer.reads = False
    peer.request(method="POST", end_stream=False), peer.request()
    peer.pump()
    first, second = await app.next(), await app.next()
    sending = asyncio.ensure_future(second.reply(bytes(MIB)))
    await peer.drip(1000, 50)
    assert len(peer.connection.streams) == 2
    sending.cancel()
    for call in (first, second):
        call.finish()
    await settle()
    await peer.end()


# The access log


@in_loop
async def test_the_access_log() -> None:
    lines = Lines()
    peer = Http2Peer(echo, access_log=lines)
    await peer.until_answered(peer.request("/a?b=%20"), peer.post("/c", b"12345"))
    assert lines.short == [("GET", b"/a?b=%20", 200, 0), ("POST", b"/c", 200, 5)]
    assert {line.version for line in lines.all} == {"HTTP/2.0"}
    assert [line.request_id for line in lines.all] == ["1-1", "1-3"]
    assert all(0 <= line.seconds < 10 for line in lines.all)
    await peer.end()


# The tables


def test_every_state_ends_closed() -> None:
    for state in State:
        assert LIFE[state, Signal.CLOSED] is State.CLOSED
    for phase in Phase:
        assert EXCHANGE[phase, News.LOST] is Phase.GONE


def test_no_way_leads_back() -> None:
    order = list(State)
    back = [(before, after) for (before, _), after in LIFE.items() if order.index(before) >= order.index(after)]
    assert set(back) == {(State.HELD, State.OPEN), (State.CLOSED, State.CLOSED)}  # but to serve on after a hold
    phases = list(Phase)
    steps = [(before, after) for (before, _), after in EXCHANGE.items() if after is not Phase.GONE]
    assert all(phases.index(before) < phases.index(after) for before, after in steps)
    assert not [pair for pair in itertools.product(State, Signal) if pair in LIFE and pair[0] is State.LINGERING][1:]
