"""What every HTTP/1.1 engine must say to the same bytes: one table, each row whole and cut at every byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asgiri.codec.engines import HTTP1_ENGINES, Http1Engine, http1_engine
from asgiri.codec.events import Body, End, Event, Failure, Request, Reset
from asgiri.codec.rules import HttpLimits
from tests.codec.rows import (
    CHUNKED,
    GARBAGE,
    GET,
    GOOD,
    HOST_A,
    POST,
    SMALL,
    A,
    Row,
    chunked,
    head,
    request,
    text,
    with_length,
)
from tests.codec.rows_table import ACCEPTED, ENDED, REFUSED
from tests.codec.tables import about, in_parts
from tests.codec.wire import answer, cuts, dripped, each_engine, feed, is_whole, merged, numbered, parsed

ROWS = [*ACCEPTED, *REFUSED, *ENDED]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name[:60])

GOOD_REQUEST = request(target=b"/good", headers=[(b"host", b"good")])
# What may come behind a request, and what it makes.
TRAILING: dict[bytes, list[Event]] = {
    GOOD: [GOOD_REQUEST],
    b"\r\n" + GOOD: [GOOD_REQUEST],
    GARBAGE: [Failure(400, "")],
    b"\r\n": [],
}


def test_auto_is_the_fastest_engine_and_a_wrong_name_is_none() -> None:
    assert http1_engine("auto") is HTTP1_ENGINES.get("httptools", HTTP1_ENGINES["h11"])
    with pytest.raises(KeyError):
        http1_engine("apache")


@each_engine
@each_row
def test_the_table_whole_and_cut_anywhere(engine: Http1Engine, row: Row) -> None:
    for pieces in cuts(row.data):
        codec = engine(row.limits)
        assert feed(codec, pieces, row.eof) == list(row.events), pieces
        assert codec.take() == b"", "an engine answers nothing by itself"
        assert not codec.reusable


@each_engine
@in_parts(ROWS)
def test_the_table_behind_a_good_request(engine: Http1Engine, rows: list[Row]) -> None:
    for row in rows:
        with about(row):
            check_behind_a_good_request(engine, row)


def check_behind_a_good_request(engine: Http1Engine, row: Row) -> None:
    for pieces in ([GOOD + row.data], [GOOD, row.data]):
        codec = engine(row.limits)
        assert feed(codec, [piece for piece in pieces if piece], row.eof) == [GOOD_REQUEST]
        assert codec.pending is bool(row.data.strip(b"\r\n"))
        assert len(codec.rest) == len(row.data)
        answer(codec)
        assert codec.reusable
        assert merged(codec.next_request()) == numbered(row.events, 2)


@each_engine
@in_parts(ACCEPTED)
def test_what_trails_a_request_waits_for_the_next_one(engine: Http1Engine, rows: list[Row]) -> None:
    for row in rows:
        with about(row):
            check_what_trails(engine, row)


def check_what_trails(engine: Http1Engine, row: Row) -> None:
    for trailing, after in TRAILING.items():
        data = row.data + trailing
        for pieces in ([data], [row.data, trailing], dripped(data)):
            codec = engine(row.limits)
            assert feed(codec, pieces) == list(row.events), pieces
            assert codec.pending is (not row.last and trailing != b"\r\n")
            answer(codec)
            assert (codec.reusable, codec.closing) == (not row.last, row.last)
            if codec.reusable:
                assert merged(codec.next_request()) == numbered(after, 2)
                assert not codec.pending


@each_engine
@in_parts(REFUSED)
def test_a_refusal_can_be_answered_and_nothing_behind_it_is_parsed(engine: Http1Engine, rows: list[Row]) -> None:
    for row in rows:
        with about(row):
            check_a_refusal(engine, row)


def check_a_refusal(engine: Http1Engine, row: Row) -> None:
    codec = engine(row.limits)
    *_, failure = feed(codec, [row.data], row.eof)
    assert isinstance(failure, Failure)
    codec.send_head(0, failure.status, [(b"content-length", b"3"), (b"connection", b"close")])
    codec.send_body(0, b"no\n", True)
    status, fields, body = parsed(codec.take())
    assert (status.split(b" ")[1], fields) == (
        b"%d" % failure.status,
        [(b"connection", b"close"), (b"content-length", b"3")],
    )
    assert body == b"no\n" or row.data.startswith(b"HEAD")
    assert codec.closing
    assert not codec.reusable
    assert not codec.pending
    assert feed(codec, [GOOD], True) == []


@each_engine
@pytest.mark.parametrize("size", [8192, 8193])
def test_the_default_limit_of_a_request_line(engine: Http1Engine, size: int) -> None:
    line = b"GET /" + b"p" * (size - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
    assert len(line) == size
    data = head(line, A)
    for pieces in ([data], [data[:size], data[size:]], [data[: size + 1], data[size + 1 :]]):
        (event,) = feed(engine(HttpLimits()), pieces)
        assert isinstance(event, Request) if size == 8192 else event == Failure(414, "")


@each_engine
@pytest.mark.parametrize("count", [100, 101])
def test_the_default_limit_of_fields(engine: Http1Engine, count: int) -> None:
    data = head(GET, A, *[b"X: 1"] * (count - 1))
    for pieces in ([data], [data[:-2], data[-2:]]):
        (event,) = feed(engine(HttpLimits()), pieces)
        assert isinstance(event, Request) if count == 100 else event == Failure(431, "")


@each_engine
@pytest.mark.parametrize("size", [65536, 65537])
def test_the_default_limit_of_all_fields(engine: Http1Engine, size: int) -> None:
    data = head(GET, A, b"X: " + b"v" * (size - len(b"Host: a\r\nX: \r\n")))
    for pieces in ([data], [data[:-4], data[-4:]], [data[:20], data[20:-3], data[-3:-1], data[-1:]]):
        (event,) = feed(engine(HttpLimits()), pieces)
        assert isinstance(event, Request) if size == 65536 else event == Failure(431, "")


@each_engine
@pytest.mark.parametrize("size", [65536, 65537])
def test_the_default_limit_of_trailers(engine: Http1Engine, size: int) -> None:
    data = CHUNKED + b"0\r\nX: " + b"v" * (size - len(b"X: \r\n")) + b"\r\n\r\n"
    for pieces in ([data], [data[:-4], data[-4:]], [data[:90], data[90:-3], data[-3:-1], data[-1:]]):
        *_, event = feed(engine(HttpLimits()), pieces)
        assert isinstance(event, End) if size == 65536 else event == Failure(431, "")


@each_engine
def test_pipelined_requests_come_one_by_one(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    upload = head(POST, A, b"Content-Length: 3") + b"abc"
    assert feed(codec, [GOOD + upload + b"\r\n" + GOOD + CHUNKED + b"1\r\nx\r\n"]) == [GOOD_REQUEST]
    transcript: list[tuple[list[Event], bool]] = []
    for stream_id in (1, 2, 3):
        answer(codec, stream_id)
        transcript.append((merged(codec.next_request()), codec.pending))
    assert transcript == [
        (numbered([with_length(b"3"), Body(1, b"abc"), End(1, [])], 2), True),
        (numbered([GOOD_REQUEST], 3), True),
        (numbered([chunked(), Body(1, b"x")], 4), False),
    ]
    assert feed(codec, [b"0\r\n\r\n"]) == [End(4, [])]


@each_engine
def test_one_connection_takes_every_good_row_after_the_other(engine: Http1Engine) -> None:
    """Nothing of a request stays behind: not its limits, its upgrade, its trailers, nor what an engine made of it."""
    rows = [row for row in ACCEPTED if not row.last and row.limits != SMALL]
    for step in (1, -1):
        codec = engine(HttpLimits())
        events = feed(codec, [b"".join(row.data for row in rows[::step])])
        for stream_id, row in enumerate(rows[::step], 1):
            assert merged(events) == numbered(row.events, stream_id), row.name
            answer(codec, stream_id)
            events = codec.next_request()
        assert events == []


@each_engine
@pytest.mark.parametrize(
    ("line", "events"),
    [
        (GET, [request()]),
        (b"HEAD /x?y HTTP/1.1", [request("HEAD", b"/x?y")]),
        (b"OPTIONS * HTTP/1.1", [request("OPTIONS", b"*")]),
        (b"GET http://b/ HTTP/1.1", [request(target=b"http://b/", path=b"/", headers=[(b"host", b"b")])]),
        (b"GET / HTTP/1.2", [request()]),
        (b"GET / HTTP/1.0", [request(http_version="1.0")]),
        (b"GET / HTTP/2.0", [Failure(505, "")]),
        (b"CONNECT / HTTP/1.1", [Failure(501, "")]),
        (b"GET * HTTP/1.1", [Failure(400, "")]),
        (b"GET / HTTP/1.1 ", [Failure(400, "")]),
        (b"GET / HTTP/1.1\r\nHost: b", [Failure(400, "")]),
        (b"GET / HTTP/1.1\r\nConnection: close", [request(headers=[(b"connection", b"close"), *HOST_A])]),
        (b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1", [Failure(400, "")]),
        (b"\r\nGET / HTTP/1.1", [request()]),
        (b"GET /" + b"p" * 27 + b" HTTP/1.1", [Failure(414, "")]),
    ],
    ids=lambda value: text(value) if isinstance(value, bytes) else "",
)
def test_the_same_fields_behind_another_line_mean_what_they_mean_alone(
    engine: Http1Engine, line: bytes, events: list[Event]
) -> None:
    """An engine may remember what it made of a head's fields."""
    for before in (GET, b"GET http://c/ HTTP/1.1", b"GET / HTTP/1.2", b"HEAD / HTTP/1.1"):
        for pieces in cuts(head(line, A)):
            codec = engine(SMALL)
            for stream_id in (1, 2):
                feed(codec, [head(before, A)])
                answer(codec, stream_id)
                assert codec.next_request() == []
            assert feed(codec, pieces) == numbered(events, 3), (before, pieces)


@each_engine
def test_a_request_s_headers_are_its_own(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    for stream_id in (1, 2, 3):
        (event,) = codec.receive(GOOD)
        assert event == replace(GOOD_REQUEST, stream_id=stream_id)
        assert isinstance(event, Request)
        event.headers.append((b"x", b"the application's"))
        answer(codec, stream_id)
        codec.next_request()


@each_engine
def test_the_body_limit_counts_each_request_anew(engine: Http1Engine) -> None:
    codec = engine(SMALL)
    for stream_id in (1, 2):
        upload = CHUNKED + b"8\r\n01234567\r\n0\r\n\r\n"
        assert feed(codec, [upload]) == numbered([chunked(), Body(1, b"01234567"), End(1, [])], stream_id)
        answer(codec, stream_id)
        assert codec.next_request() == []


@each_engine
def test_the_limits_of_extensions_and_trailers_count_each_request_anew(engine: Http1Engine) -> None:
    codec = engine(SMALL)
    for stream_id in range(1, 8):
        upload = CHUNKED + b"1;" + b"e" * 4000 + b"\r\na\r\n0\r\n" + b"X: 1\r\n" * 4 + b"\r\n"
        *_, end = feed(codec, [upload[:-5], upload[-5:]])
        assert end == End(stream_id, [(b"x", b"1")] * 4)
        answer(codec, stream_id)
        assert codec.next_request() == []


@each_engine
def test_limits_of_zero_are_none(engine: Http1Engine) -> None:
    fields = [b"X-%d: %s" % (n, b"v" * 50) for n in range(2000)]
    codec = engine(HttpLimits(0, 0, 0, 0))
    events = feed(codec, [head(b"GET /" + b"p" * 20_000 + b" HTTP/1.1", A, *fields)])
    assert [type(event) for event in events] == [Request]
    for beginning, status in ((b"GET /", 414), (b"GET / HTTP/1.1\r\nX: ", 431)):
        endless = engine(HttpLimits(0, 0, 0, 0))
        assert feed(endless, [beginning, *[b"p" * 65536] * 40]) == [Failure(status, "")], "some bound must stand"
    many = engine(HttpLimits(0, 0, 0, 0))
    upload = CHUNKED + b"%x\r\n" % (1 << 60) + b"x" * 100
    assert feed(many, [upload]) == [chunked(), Body(1, b"x" * 100)]


@each_engine
def test_a_body_cut_off_behind_a_complete_answer_is_a_reset(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    feed(codec, [head(POST, A, b"Content-Length: 3") + b"a"])
    answer(codec)
    assert not codec.reusable
    assert feed(codec, [b"b"], eof=True) == [Body(1, b"b"), Reset(1, "")]


@each_engine
def test_bytes_after_the_end_of_file_are_ignored(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    assert feed(codec, [head(GET, A)], eof=True) == [request()]
    assert feed(codec, [GOOD], eof=True) == []


@each_engine
@pytest.mark.parametrize(
    ("rest", "events"),
    [
        (b"", []),
        (b"\r\n", []),
        (GOOD, [GOOD_REQUEST]),
        (GOOD[:-1], [Failure(400, "")]),
        (CHUNKED + b"1\r\na", [chunked(), Body(1, b"a"), Reset(1, "")]),
        (CHUNKED + b"1\r\na\r\n0\r\n\r\n", [chunked(), Body(1, b"a"), End(1, [])]),
    ],
    ids=["nothing", "an empty line", "a request", "half a request", "half a body", "a request with a body"],
)
def test_a_half_closed_peer_gets_its_answers(engine: Http1Engine, rest: bytes, events: list[Event]) -> None:
    codec = engine(HttpLimits())
    assert feed(codec, [GOOD + rest], eof=True) == [GOOD_REQUEST]
    answer(codec)
    assert codec.reusable
    assert merged(codec.next_request()) == numbered(events, 2)
    if events and is_whole(events[-1]):
        answer(codec, 2)
        assert codec.reusable
        assert codec.next_request() == []


@each_engine
def test_a_head_of_the_last_method_does_not_silence_the_next_answer(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    feed(codec, [head(b"HEAD / HTTP/1.1", A)])
    assert parsed(answer(codec))[2] == b""
    assert codec.next_request() == []
    assert feed(codec, [GARBAGE]) == [Failure(400, "")]
    assert parsed(answer(codec))[2] == b"ok"
