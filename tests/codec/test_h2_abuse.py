"""What a peer may not make an HTTP/2 engine do, and beside each attack an honest client that does much of the same."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from asgiri.codec.contract import Http2Codec
from asgiri.codec.engines import HTTP2_ENGINES, Http2Engine
from asgiri.codec.events import Body, Failure, Refused, Request
from asgiri.codec.h2_wire import Http2Options
from asgiri.types import Headers
from tests.codec.h2_wire_tools import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FULL,
    GET,
    HEADERS,
    INITIAL_WINDOW,
    MOST,
    POST,
    PREFACE,
    Away,
    Data,
    Window,
    answers,
    begin,
    continued,
    data,
    each_engine,
    frame,
    goaway,
    head,
    literal,
    ping,
    priority,
    priority_update,
    request,
    rst,
    settings,
    window,
)

OPEN = head(1, POST, False)
START = b"\x82\x86\x84\x41\x01a"  # a GET as a client writes it first: by indexes, and :authority into the table
MIB = 1 << 20
PLENTY = 1 << 30
# What a connection may hold of an attack, in bytes, besides what the peer is allowed to have us hold.
BOUND = 2 * MIB


def stream(n: int) -> int:
    """The number of the n-th stream; the first is for what an attack needs before it begins."""
    return 2 * n + 3


@dataclass(frozen=True)
class Attack:
    """``piece(n)`` is sent for n = 0, 1... until the connection ends, which must be before ``most`` of them."""

    name: str
    piece: Callable[[int], bytes]
    most: int
    before: bytes = b""
    options: Http2Options = field(default_factory=Http2Options)
    code: int = ENHANCE_YOUR_CALM


WITH_LENGTH: Headers = [*POST, (b"content-length", b"3")]
# Of CVE-2025-8671: each breaks its stream, so that it is we who reset it, and its request is still at work.
MADE_RESETS = {
    "a window that overflows": lambda n: head(stream(n)) + window(stream(n), MOST),
    "a WINDOW_UPDATE of 0": lambda n: head(stream(n)) + window(stream(n), 0),
    "DATA behind the end": lambda n: head(stream(n)) + data(stream(n), b"x"),
    "HEADERS behind the end": lambda n: head(stream(n)) * 2,
    "a PRIORITY of a wrong size": lambda n: head(stream(n)) + frame(2, 0, stream(n), b"1234"),
    "bad trailers": lambda n: head(stream(n), POST, False) + head(stream(n), [(b"X", b"y")]),
    "trailers that do not end": lambda n: head(stream(n), POST, False) + head(stream(n), [(b"x", b"y")], False),
    "a body too long": lambda n: head(stream(n), WITH_LENGTH, False) + data(stream(n), b"1234"),
    "a body too short": lambda n: head(stream(n), WITH_LENGTH, False) + data(stream(n), b"12", True),
    "DATA over the window": lambda n: head(stream(n), POST, False) + data(stream(n), bytes(201)),
    "a malformed request": lambda n: head(stream(n), [*GET, (b"X", b"y")]),
}
CONTINUED = frame(HEADERS, END_STREAM, 1, b"")

ATTACKS = [
    Attack("rapid reset (CVE-2023-44487)", lambda n: head(stream(n)) + rst(stream(n)), 1000),
    Attack("rapid reset of uploads", lambda n: head(stream(n), POST, False) + rst(stream(n)), 1000),
    Attack("rapid reset behind DATA",
           lambda n: head(stream(n), POST, False) + data(stream(n), bytes(99)) + rst(stream(n)), 1000),
    *(Attack(f"streams that we reset: {name}", piece, 1000, options=Http2Options(initial_window=200))
      for name, piece in MADE_RESETS.items()),
    Attack("CONTINUATION without a byte (CVE-2024-27316)", lambda n: frame(CONTINUATION, 0, 1), 100, CONTINUED),
    Attack("CONTINUATION of one byte", lambda n: frame(CONTINUATION, 0, 1, b"\x82"), 100, CONTINUED),
    Attack("CONTINUATION without an end", lambda n: frame(CONTINUATION, 0, 1, bytes(FULL)), 100, CONTINUED),
    Attack("CONTINUATION without an end, no limit", lambda n: frame(CONTINUATION, 0, 1, bytes(FULL)), 500, CONTINUED,
           options=Http2Options(max_header_list=0)),
    Attack("CONTINUATION without an end, on a stream that is refused", lambda n: frame(CONTINUATION, 0, 3, bytes(FULL)),
           100, OPEN + frame(HEADERS, END_STREAM, 3, b""), options=Http2Options(max_concurrent_streams=1)),
    Attack("PING (CVE-2019-9512)", lambda n: ping(), 500),
    Attack("PING acknowledgements", lambda n: ping(flags=ACK), 500),
    Attack("SETTINGS (CVE-2019-9515)", lambda n: settings(), 200),
    Attack("SETTINGS acknowledgements", lambda n: settings(flags=ACK), 200),
    Attack("SETTINGS that change all windows", lambda n: settings({INITIAL_WINDOW: n % 9}), 200,
           b"".join(head(stream(n)) for n in range(99))),
    Attack("PRIORITY (CVE-2019-9513)", lambda n: priority(1 + n % 9, 3), 5000),
    Attack("PRIORITY_UPDATE", lambda n: priority_update(stream(n), b"u=1"), 5000),
    Attack("unknown frames", lambda n: frame(0x77, 0, 0, b"x"), 5000),
    Attack("WINDOW_UPDATE on the connection", lambda n: window(0, 1), 5000),
    Attack("WINDOW_UPDATE on a stream", lambda n: window(1, 1), 5000, head(1)),
    Attack("WINDOW_UPDATE on a stream that is over", lambda n: window(1, 1), 5000, head(1) + rst(1)),
    Attack("RST_STREAM on a stream that is over", lambda n: rst(1), 5000, head(1) + rst(1)),
    Attack("GOAWAY", lambda n: goaway(), 5000),
    Attack("DATA without a byte (CVE-2019-9518)", lambda n: data(1), 500, OPEN),
    Attack("DATA of padding alone", lambda n: data(1, b"", False, 200), 500, OPEN),
    Attack("DATA of one byte", lambda n: data(1, b"x"), 20_000, OPEN),
    Attack("DATA of one byte and padding", lambda n: data(1, b"x", False, 9), 20_000, OPEN),
    Attack("DATA of one byte on a stream that is refused", lambda n: data(1, b"x"), 20_000,
           head(1, [*POST, (b"content-length", b"9" * 19)], False)),
]  # fmt: skip


@each_engine
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "does not read"])
def test_an_attack_ends_the_connection_soon(engine: Http2Engine, attack: Attack, reads: bool) -> None:
    talk = begin(engine, attack.options)
    if attack.before:
        talk.feed(attack.before)
    n = 0
    while not talk.codec.closed:
        assert n < attack.most, "it goes on and on"
        talk.feed(attack.piece(n))
        if reads:
            talk.take()
        n += 1
    talk.take()
    (failure,) = [event for event in talk.events if isinstance(event, Failure)]
    assert failure.code == attack.code
    (away,) = [one for one in talk.sent if isinstance(one, Away)]
    assert away.code == attack.code


@each_engine
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_in_one_piece_ends_the_connection_too(engine: Http2Engine, attack: Attack) -> None:
    """And what it may hold meanwhile is bounded."""
    wire = attack.before + b"".join([attack.piece(n) for n in range(attack.most)])
    codec = engine(attack.options)
    codec.receive(PREFACE + settings(flags=ACK))
    tracemalloc.start()
    try:
        events = codec.receive(wire)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(events[-1], Failure)
    assert events[-1].code == attack.code
    assert peak < BOUND + 2 * len(wire)


# Header lists


def bomb(size: int, times: int) -> bytes:
    """A field of ``size`` bytes that goes into the table, and ``times`` an octet that means it (CVE-2016-6581)."""
    return b"\x82\x86\x84\x41\x01a" + literal(b"x", b"v" * size, 0x40) + b"\xbe" * times


@each_engine
def test_a_bomb_ends_the_connection_before_it_is_large(engine: Http2Engine) -> None:
    talk = begin(engine)
    wire = head(1, encoded=bomb(3900, 12_000))  # 47 MB of fields in 16 KB
    tracemalloc.start()
    try:
        talk.feed(wire)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [type(event) for event in talk.events] == [Failure]
    assert talk.take() == [Away(0, ENHANCE_YOUR_CALM)] or talk.sent == [Away(1, ENHANCE_YOUR_CALM)]
    assert peak < BOUND


@each_engine
def test_a_list_over_the_limit_is_refused_and_the_next_request_served(engine: Http2Engine) -> None:
    talk = begin(engine)
    talk.feed(head(1, encoded=bomb(3900, 50)))  # 200 kB, which can still be decoded
    assert [type(event) for event in talk.events] == [Refused]
    assert talk.events[0].status == 431  # type: ignore[union-attr]
    talk.do(answers(1, 431, content=b"no"))
    talk.events.clear()
    assert talk.feed(head(3, encoded=b"\x82\x86\x84\x41\x01a\xbf")) == [
        request(3, headers=[(b"host", b"a"), (b"x", b"v" * 3900)])
    ], "the table is as the peer's"


@each_engine
@pytest.mark.parametrize("crumb", [b"\xa0", b"\x60\x01x", b"\x00\x06cookie\x01x"], ids=["indexed", "kept", "literal"])
def test_crumbs_of_a_cookie_are_counted(engine: Http2Engine, crumb: bytes) -> None:
    talk = begin(engine)
    count = 101
    talk.feed(head(1, encoded=b"\x82\x86\x84\x41\x01a" + crumb * count))
    assert [type(event) for event in talk.events] == [Refused]
    talk.events.clear()
    talk.feed(head(3, encoded=b"\x82\x86\x84\x41\x01a" + crumb * 90))
    assert [type(event) for event in talk.events] == [Request]


@each_engine
def test_a_block_that_never_ends_is_no_more_than_its_bound(engine: Http2Engine) -> None:
    talk = begin(engine)
    talk.feed(frame(HEADERS, END_STREAM, 1, b"\x82\x86\x84\x41\x01a"))
    tracemalloc.start()
    try:
        while not talk.codec.closed:
            talk.feed(frame(CONTINUATION, 0, 1, literal(b"x", b"v" * 8000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB


# Streams


@each_engine
def test_streams_over_the_limit_are_refused_and_never_end_the_connection(engine: Http2Engine) -> None:
    talk = begin(engine)
    tracemalloc.start()
    try:
        for n in range(5000):
            talk.codec.receive(head(stream(n), POST, False) + data(stream(n), b"x" * 40))
            talk.codec.take()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert talk.codec.streams == 128
    assert held < BOUND
    talk.codec.reset(stream(0), 8)
    talk.codec.take()
    assert talk.feed(head(stream(5000))) == [request(stream(5000))]


def heads(first: int, end: int) -> bytes:
    """A request on each of these streams, as they come in one piece."""
    return b"".join([frame(HEADERS, END_HEADERS | END_STREAM, stream(n), START) for n in range(first, end)])


@each_engine
def test_a_peer_that_does_not_read_its_refusals_is_cut_off(engine: Http2Engine) -> None:
    codec = engine(Http2Options(max_concurrent_streams=1))
    codec.receive(PREFACE)
    for n in range(0, 100_000, 20):
        events = codec.receive(heads(n, n + 20))
        if events and isinstance(events[-1], Failure):
            break
    else:
        pytest.fail("it holds 100,000 refusals")
    assert len(codec.take()) < 2 * MIB


@each_engine
def test_verbs_never_fail_for_a_peer_that_does_not_read(engine: Http2Engine) -> None:
    codec = engine(Http2Options(max_concurrent_streams=2))
    codec.receive(PREFACE + settings(flags=ACK) + head(1, POST, False) + head(3, POST, False) + data(3, bytes(9999)))
    for n in range(2, 80_600, 38):  # RST_STREAM frames of 13 bytes, which are a few less than 1 MiB
        codec.receive(heads(n, n + 38))
    assert not codec.closed
    for _ in range(100):
        codec.ping(b"12345678")
        codec.go_away(MOST)
    codec.consumed(3, 9999)
    codec.answer(1, 403, [], b"early")
    codec.reset(3, 8)
    codec.tick(1.0)
    events = [event for n in range(80_600, 80_800) for event in codec.receive(head(stream(n), encoded=START))]
    (failure,) = [event for event in events if isinstance(event, Failure)]
    assert failure.code == ENHANCE_YOUR_CALM


@each_engine
def test_a_window_that_opens_byte_by_byte_makes_no_frame_of_each(engine: Http2Engine) -> None:
    """CVE-2019-9511. A frame is worth at least a kilobyte; after a second, what there is goes."""
    talk = begin(engine)
    talk.do(settings({INITIAL_WINDOW: 4096}) + head(1))
    talk.do(answers(1, content=bytes(64 << 10)))
    talk.sent.clear()
    for _ in range(990):
        talk.feed(window(1, 1))
        talk.take()
    assert len([one for one in talk.sent if isinstance(one, Data)]) <= 1
    talk.codec.tick(1.0)
    talk.feed(window(1, 1))
    assert sum(len(one.content) for one in talk.take() if isinstance(one, Data)) > 0


# Honest clients. What both engines do alike is done more often by the fast one: it is the one that is used.


def often(engine: Http2Engine, times: int) -> int:
    return times if engine is HTTP2_ENGINES["native"] else times // 10


def serve(codec: Http2Codec, wire: bytes) -> bytes:
    """Answer each request that is whole."""
    for event in codec.receive(wire):
        assert not isinstance(event, Failure), event.reason
        if isinstance(event, Request) and event.end_stream:
            codec.answer(event.stream_id, 200, [(b"content-type", b"text/plain")], b"hello")
    return codec.take()


@each_engine
def test_very_many_requests(engine: Http2Engine) -> None:
    """100,000 on one connection and no tick; what is remembered of them does not grow."""
    codec = begin(engine).codec
    serve(codec, window(0, PLENTY))
    sizes = []
    for n in range(often(engine, 100_000) // 10):
        assert len(serve(codec, heads(10 * n, 10 * n + 10))) > 10 * 20
        if n == 200:
            tracemalloc.start()
        elif n in (300, 900):
            sizes.append(tracemalloc.get_traced_memory()[0])
            if n == 900:
                tracemalloc.stop()
    assert sizes[1] - sizes[0] < 200_000
    assert codec.streams == 0


@each_engine
def test_a_browser_that_cancels(engine: Http2Engine) -> None:
    """A burst of 50 cancels, then a page of 50 answers, 40 times, a second apart."""
    codec = begin(engine).codec
    serve(codec, window(0, PLENTY))
    number = 1
    for _ in range(40):
        for _ in range(50):
            codec.receive(head(number, encoded=START))
            number += 2
        codec.receive(b"".join(rst(number - 2 * i - 2) for i in range(50)))
        serve(codec, b"".join(head(number + 2 * i, encoded=START) for i in range(50)))
        number += 100
        codec.tick(1.0)
        assert not codec.closed


@each_engine
def test_a_browser_that_leaves_every_page_at_once(engine: Http2Engine) -> None:
    """128 streams reset, and one answer, each seven seconds."""
    codec = begin(engine).codec
    serve(codec, window(0, PLENTY))
    number = 1
    for _ in range(20):
        wire = b"".join(head(number + 2 * i, encoded=START) for i in range(128))
        codec.receive(wire + b"".join(rst(number + 2 * i) for i in range(128)))
        codec.take()
        number += 256
        serve(codec, head(number, encoded=START))
        number += 2
        codec.tick(7.0)
        assert not codec.closed


@each_engine
def test_small_messages_both_ways(engine: Http2Engine) -> None:
    """gRPC: messages of a few bytes on one stream, each answered by one, windows opened as they are spent."""
    talk = begin(engine)
    codec = talk.codec
    codec.receive(window(0, PLENTY) + settings({INITIAL_WINDOW: MOST}) + OPEN)
    codec.send_head(1, 200, [])
    codec.take()
    message = b"\x00\x00\x00\x00\x07\x0a\x05hello"
    for n in range(often(engine, 50_000)):
        for event in codec.receive(data(1, message)):
            assert isinstance(event, Body)
            codec.consumed(1, len(event.data))
            codec.send_body(1, message, False)
        if n % 20 == 0:
            codec.receive(window(0, 20) + ping())
        assert codec.take()
    assert not codec.closed


@each_engine
def test_a_ping_every_second_for_a_day(engine: Http2Engine) -> None:
    codec = begin(engine).codec
    for _ in range(often(engine, 86_400)):
        codec.receive(ping())
        assert len(codec.take()) == 17
        codec.tick(1.0)
    assert not codec.closed


@each_engine
def test_settings_every_minute_for_a_week(engine: Http2Engine) -> None:
    codec = begin(engine).codec
    for n in range(often(engine, 7 * 24 * 60)):
        codec.receive(settings({INITIAL_WINDOW: 65_535 + n % 2}))
        assert len(codec.take()) == 9
        codec.tick(60.0)
    assert not codec.closed


@each_engine
def test_a_large_upload_in_full_frames(engine: Http2Engine) -> None:
    """64 MiB, read as they come: the windows never close, and their frames are few."""
    talk = begin(engine)
    talk.feed(OPEN)
    connection, stream_window = 4 * MIB, MIB
    least, updates = MIB, 0
    for _ in range(often(engine, 4096)):
        for event in talk.codec.receive(data(1, bytes(FULL))):
            assert isinstance(event, Body)
            talk.codec.consumed(1, len(event.data))
        connection -= FULL
        stream_window -= FULL
        least = min(least, connection, stream_window)
        for one in talk.take():
            assert isinstance(one, Window)
            updates += 1
            if one.stream_id:
                stream_window += one.size
            else:
                connection += one.size
    assert least >= MIB // 4
    assert updates < often(engine, 4096) // 16
    assert not talk.codec.closed


@each_engine
def test_a_large_download_whose_windows_open_with_each_frame(engine: Http2Engine) -> None:
    """With a PING for each, to measure the way, as gRPC's clients do."""
    talk = begin(engine)
    codec = talk.codec
    codec.receive(head(1))
    codec.send_head(1, 200, [])
    codec.take()
    for _ in range(often(engine, 5000)):
        codec.send_body(1, bytes(FULL), False)
        while size := sum(map(len, content_of(codec.take()))):
            codec.receive(window(1, size) + window(0, size) + ping())
    assert not codec.closed
    assert codec.held(1) == 0


@each_engine
def test_a_download_to_a_peer_with_a_small_window(engine: Http2Engine) -> None:
    """A device with 2 KiB of memory for it."""
    codec = begin(engine).codec
    codec.receive(settings({INITIAL_WINDOW: 2048}) + head(1))
    codec.answer(1, 200, [], bytes(MIB))
    got = 0
    while out := codec.take():
        size = sum(map(len, content_of(out)))
        got += size
        codec.receive(window(1, size) + window(0, size))
    assert got == MIB


def content_of(out: bytes) -> list[bytes]:
    """The content of the DATA frames of an output."""
    found, at = [], 0
    while at < len(out):
        size = int.from_bytes(out[at : at + 3])
        if out[at + 3] == 0:
            found.append(out[at + 9 : at + 9 + size])
        at += 9 + size
    return found


@each_engine
def test_someone_who_types(engine: Http2Engine) -> None:
    """A tunnel with ten frames of a few bytes a second, for an hour, each echoed."""
    codec = begin(engine).codec
    codec.receive(window(0, PLENTY) + settings({INITIAL_WINDOW: MOST}))
    codec.receive(head(1, [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]], False))
    codec.send_head(1, 200, [])
    for _ in range(often(engine, 3600)):
        for _ in range(10):
            assert len(codec.receive(data(1, b"\x81\x81key!x"))) == 1
            codec.consumed(1, 8)
            codec.send_body(1, b"\x81\x01x", False)
            codec.take()
        codec.tick(1.0)
    assert not codec.closed


@each_engine
def test_header_blocks_in_pieces(engine: Http2Engine) -> None:
    """A proxy that writes each field into a frame of its own."""
    codec = begin(engine).codec
    fields = [*GET, *[(b"x-%d" % i, b"v" * 20) for i in range(20)]]
    for n in range(often(engine, 2000)):
        assert serve(codec, continued(stream(n), fields, pieces=24))
        codec.receive(window(0, 5))
    assert not codec.closed


@each_engine
def test_uploads_that_are_answered_early(engine: Http2Engine) -> None:
    """Each is reset by us with NO_ERROR, and its DATA is still on its way: no fault of the peer's, so for nothing."""
    talk = begin(engine)
    talk.feed(window(0, PLENTY))
    for n in range(2000):
        talk.do(head(stream(n), POST, False))
        talk.do(answers(stream(n), 403))
        talk.do(data(stream(n), bytes(1000)) + data(stream(n), b"", True))
        talk.sent.clear()
        talk.events.clear()
    assert not talk.codec.closed
