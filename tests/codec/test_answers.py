"""What every HTTP/1.1 engine makes of an application's answer, and what it refuses to send."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from asgiri.codec import h1_httptools
from asgiri.codec.engines import Http1Engine, http1_engine
from asgiri.codec.events import Body, End
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers
from tests.codec.rows import BY_CHUNKS, GET, POST, A, head, request
from tests.codec.wire import answer, each_engine, feed, parsed


@dataclass(frozen=True)
class Sent:
    """To ``asked``, ``status`` with ``headers`` and ``pieces`` makes ``fields`` and ``body``."""

    name: str
    asked: bytes
    status: int
    headers: Headers
    pieces: tuple[bytes, ...]
    fields: Headers
    body: bytes
    closing: bool = False


GET_A, HEAD_A, GET_10 = head(GET, A), head(b"HEAD / HTTP/1.1", A), head(b"GET / HTTP/1.0")
CLOSE = (b"connection", b"close")
LENGTH_2 = (b"content-length", b"2")
LENGTH_18 = (b"content-length", b"9" * 18)
KEEP = (b"connection", b"keep-alive")

SENT = [
    Sent("Content-Length", GET_A, 200, [LENGTH_2], (b"o", b"k"), [LENGTH_2], b"ok"),
    Sent("Content-Length: 0", GET_A, 200, [(b"content-length", b"0")], (b"",), [(b"content-length", b"0")], b""),
    Sent(
        "unknown length",
        GET_A,
        200,
        [],
        (b"a", b"", b"0123456789"),
        [BY_CHUNKS],
        b"1\r\na\r\na\r\n0123456789\r\n0\r\n\r\n",
    ),
    Sent("chunked by the app", GET_A, 200, [BY_CHUNKS], (b"a",), [BY_CHUNKS], b"1\r\na\r\n0\r\n\r\n"),
    Sent("chunked by the app, and Content-Length", GET_A, 200, [BY_CHUNKS, LENGTH_2], (b"ok",), [LENGTH_2], b"ok"),
    Sent("nothing at all", GET_A, 200, [], (), [BY_CHUNKS], b"0\r\n\r\n"),
    Sent("HTTP/1.0, unknown length", GET_10, 200, [], (b"a", b"b"), [CLOSE], b"ab", closing=True),
    Sent("HTTP/1.0, chunked by the app", GET_10, 200, [BY_CHUNKS], (b"a", b"b"), [CLOSE], b"ab", closing=True),
    Sent("HTTP/1.0, Content-Length", GET_10, 200, [LENGTH_2], (b"ok",), [CLOSE, LENGTH_2], b"ok", closing=True),
    Sent("HEAD", HEAD_A, 200, [LENGTH_2], (b"o", b"k"), [LENGTH_2], b""),
    Sent("HEAD, the wrong length", HEAD_A, 200, [LENGTH_2], (b"much longer",), [LENGTH_2], b""),
    Sent("204", GET_A, 204, [], (b"no",), [], b""),
    Sent("204 names no length (RFC 9110 section 8.6)", GET_A, 204, [(b"content-length", b"0")], (), [], b""),
    Sent("204 names no coding (RFC 9112 section 6.1)", GET_A, 204, [BY_CHUNKS], (b"",), [], b""),
    Sent("304", GET_A, 304, [LENGTH_2, (b"etag", b'"1"')], (b"ok",), [LENGTH_2, (b"etag", b'"1"')], b""),
    Sent("Connection: close", GET_A, 200, [LENGTH_2, CLOSE], (b"ok",), [CLOSE, LENGTH_2], b"ok", closing=True),
    Sent(
        "the peer said close",
        head(GET, A, b"Connection: close"),
        200,
        [LENGTH_2],
        (b"ok",),
        [CLOSE, LENGTH_2],
        b"ok",
        closing=True,
    ),
    Sent(
        "values are trimmed",
        GET_A,
        200,
        [(b"x", b" \ta  b\t"), (b"content-length", b" 2 ")],
        (b"ok",),
        [LENGTH_2, (b"x", b"a  b")],
        b"ok",
    ),
    Sent("values beyond ASCII", GET_A, 204, [(b"x", b"\xe9\xff")], (), [(b"x", b"\xe9\xff")], b""),
    Sent("the same name twice", GET_A, 204, [(b"x", b"1"), (b"x", b"2")], (), [(b"x", b"1"), (b"x", b"2")], b""),
    Sent("the longest Content-Length", HEAD_A, 200, [LENGTH_18], (), [LENGTH_18], b""),
    Sent(
        "Content-Length: 005",
        GET_A,
        200,
        [(b"content-length", b"005")],
        (b"12345",),
        [(b"content-length", b"005")],
        b"12345",
    ),
    Sent("HEAD, unknown length", HEAD_A, 200, [], (b"a",), [BY_CHUNKS], b""),
    Sent("HTTP/1.0 HEAD", head(b"HEAD / HTTP/1.0"), 200, [], (b"a",), [CLOSE], b"", closing=True),
    Sent("HTTP/1.0 204", GET_10, 204, [], (b"a",), [CLOSE], b"", closing=True),
    Sent("HTTP/1.0 and keep-alive", GET_10, 200, [LENGTH_2, KEEP], (b"ok",), [CLOSE, LENGTH_2], b"ok", closing=True),
    Sent("keep-alive", GET_A, 200, [LENGTH_2, KEEP], (b"ok",), [KEEP, LENGTH_2], b"ok"),
    Sent("close among others", GET_A, 204, [(b"connection", b"x, Close")], (), [CLOSE], b"", closing=True),
    Sent("close twice", GET_A, 204, [CLOSE, CLOSE], (), [CLOSE], b"", closing=True),
    Sent("a long value", GET_A, 204, [(b"x", b"v" * 70_000)], (), [(b"x", b"v" * 70_000)], b""),
    Sent("an empty value", GET_A, 204, [(b"x", b"")], (), [(b"x", b"")], b""),
    Sent(
        "to an upgrade with a body",
        head(POST, A, b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 1") + b"a",
        200,
        [LENGTH_2],
        (b"ok",),
        [LENGTH_2],
        b"ok",
    ),
    Sent(
        "an upgrade declined",
        head(GET, A, b"Connection: upgrade", b"Upgrade: x"),
        200,
        [LENGTH_2],
        (b"ok",),
        [LENGTH_2],
        b"ok",
    ),
]


@each_engine
@pytest.mark.parametrize("sent", SENT, ids=lambda sent: sent.name)
def test_an_answer_has_the_framing_that_its_peer_understands(engine: Http1Engine, sent: Sent) -> None:
    codec = engine(HttpLimits())
    codec.receive(sent.asked)
    codec.send_head(1, sent.status, sent.headers)
    for piece in sent.pieces:
        codec.send_body(1, piece, False)
    assert not codec.reusable
    assert not codec.closing
    codec.send_body(1, b"", True)
    line, fields, body = parsed(codec.take())
    assert (line.split(b" ")[:2], fields, body) == ([b"HTTP/1.1", b"%d" % sent.status], sent.fields, sent.body)
    assert (codec.closing, codec.reusable) == (sent.closing, not sent.closing)
    assert codec.take() == b""


@each_engine
@pytest.mark.parametrize("sent", SENT, ids=lambda sent: sent.name)
def test_an_answer_at_once_is_the_answer_in_pieces(engine: Http1Engine, sent: Sent) -> None:
    content = b"".join(sent.pieces)
    in_pieces, at_once = engine(HttpLimits()), engine(HttpLimits())
    for codec in (in_pieces, at_once):
        codec.receive(sent.asked)
    in_pieces.send_head(1, sent.status, sent.headers)
    in_pieces.send_body(1, content, True)
    assert at_once.answer(1, sent.status, sent.headers, content) == in_pieces.take()
    assert at_once.take() == b""
    has_content = sent.status not in (204, 304) and sent.asked[:4] != b"HEAD"
    assert at_once.sent == in_pieces.sent == (len(content) if has_content else 0)
    assert (at_once.closing, at_once.reusable) == (in_pieces.closing, in_pieces.reusable)
    with pytest.raises(LocalProtocolError):
        at_once.answer(1, 200, [], b"again")
    assert at_once.take() == b""


@each_engine
def test_an_answer_at_once_comes_behind_an_interim_one(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    codec.send_informational(1, 103, [(b"link", b"</x>")])
    wire = codec.answer(1, 200, [LENGTH_2], b"ok")
    assert wire.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert wire.endswith(b"\r\n\r\nok")


@each_engine
def test_the_content_that_was_sent_is_counted(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    assert codec.sent == 0
    for stream_id in (1, 2):
        codec.receive(GET_A)
        codec.send_head(stream_id, 200, [])
        assert codec.sent == 0
        codec.send_body(stream_id, b"abc", False)
        assert codec.begin_raw(stream_id, 10)
        codec.end_raw(stream_id, False)
        codec.send_body(stream_id, b"", True)
        assert codec.sent == 13
        codec.next_request()


@each_engine
def test_the_reason_phrase_is_the_registered_one_or_empty(engine: Http1Engine) -> None:
    for status, line in ((404, b"HTTP/1.1 404 Not Found"), (299, b"HTTP/1.1 299 ")):
        codec = engine(HttpLimits())
        codec.receive(GET_A)
        codec.send_head(1, status, [])
        assert parsed(codec.take())[0] == line


@each_engine
def test_interim_answers_come_before_the_final_one(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    codec.receive(head(POST, A, b"Expect: 100-continue", b"Content-Length: 1"))
    codec.send_informational(1, 100, [])
    assert parsed(codec.take()) == (b"HTTP/1.1 100 Continue", [], b"")
    codec.send_informational(1, 103, [(b"link", b" </x>"), (b"content-length", b"0")])
    assert parsed(codec.take()) == (b"HTTP/1.1 103 Early Hints", [(b"link", b"</x>")], b"")
    assert feed(codec, [b"a"]) == [Body(1, b"a"), End(1, [])]
    answer(codec)
    assert codec.reusable


@each_engine
def test_http_1_0_gets_no_interim_answer(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_10)
    codec.send_informational(1, 103, [(b"link", b"</x>")])
    assert codec.take() == b""
    assert answer(codec).startswith(b"HTTP/1.1 200 ")


@each_engine
@pytest.mark.parametrize(
    ("asked", "body"), [(GET_A, b"1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"), (HEAD_A, b"")], ids=["GET", "HEAD"]
)
def test_trailers_end_a_chunked_answer(engine: Http1Engine, asked: bytes, body: bytes) -> None:
    codec = engine(HttpLimits())
    codec.receive(asked)
    codec.send_head(1, 200, [])
    codec.send_body(1, b"a", False)
    codec.send_trailers(1, [(b"x-sum", b" 1 ")])
    assert parsed(codec.take())[1:] == ([BY_CHUNKS], body)
    assert codec.reusable


@each_engine
def test_one_connection_answers_one_request_after_the_other(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    for stream_id in (1, 2, 3):
        assert feed(codec, [GET_A]) == [replace(request(), stream_id=stream_id)]
        assert not codec.pending
        answer(codec, stream_id)
        assert codec.reusable
        assert codec.next_request() == []
        assert not codec.reusable


# RFC 9110 section 5: what is no name, and what no value may hold, lest an app's input becomes a field or an answer.
BAD_NAMES = [
    *(b"x" + bad for bad in (b"\r", b"\n", b"\x00", b":", b" ", b"\t", b"\xe9", b"\r\nx", b"(")),
    b"",
    b" x",
    b"\nx",
]
BAD_VALUES = [
    *(
        b"a" + bad
        for bad in (b"\r", b"\n", b"\x00", b"\x0b", b"\x1b", b"\x7f", b"\r\nSet-Cookie: a=1", b"\r\n\r\n<html>")
    ),
    *(b"\na", b"\r\n a", b"\x00", b"v" * 300 + b"\n", b"v" * 300 + b"\r\nx: 1"),
]
BAD_FIELDS: list[Headers] = [
    *[[(name, b"1")] for name in BAD_NAMES],
    *[[(b"x", value)] for value in BAD_VALUES],
    *[[LENGTH_2, (b"x", value)] for value in BAD_VALUES],
    *[[CLOSE, (b"x", value)] for value in BAD_VALUES],
    [(b"connection", b"close\r\nx: 1")],
    [CLOSE, (b"connection", b"\x00")],
    [(b"content-length", b"2\r\nx: 1")],
]
BAD_HEADS: list[tuple[int, Headers]] = [
    *[(200, fields) for fields in BAD_FIELDS],
    *[(status, []) for status in (-1, 0, 99, 600, 1000)],
]


@each_engine
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        *BAD_HEADS,
        (100, []),
        (103, []),
        *[
            (200, [(b"content-length", value)])
            for value in (b"+1", b"-1", b"", b" ", b"1,1", b"1 1", b"0x1", b"\xb2", b"9" * 19, b"0" * 21, b"1" * 5000)
        ],
        (200, [(b"content-length", b"1"), (b"content-length", b"2")]),
        (200, [(b"content-length", b"1"), (b"x", b"1"), (b"content-length", b"1")]),
        (200, [(b"transfer-encoding", b"gzip")]),
        (200, [(b"transfer-encoding", b"gzip, chunked")]),
        (200, [(b"content-length", b"1"), (b"transfer-encoding", b"identity")]),
        (204, [(b"content-length", b"x")]),
    ],
)
def test_a_head_that_cannot_be_sent_leaves_room_for_a_500(engine: Http1Engine, status: int, headers: Headers) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    with pytest.raises(LocalProtocolError):
        codec.send_head(1, status, headers)
    assert codec.take() == b""
    with pytest.raises(LocalProtocolError):
        codec.answer(1, status, headers, b"ok")
    assert codec.take() == b""
    codec.send_head(1, 500, [LENGTH_2])
    codec.send_body(1, b"no", True)
    assert parsed(codec.take()) == (b"HTTP/1.1 500 Internal Server Error", [LENGTH_2], b"no")
    assert codec.reusable


NO_INTERIM: list[tuple[int, Headers]] = [(101, []), (200, []), (103, [(b"transfer-encoding", b"gzip")])]


@each_engine
@pytest.mark.parametrize(
    ("status", "headers"),
    [*((103 if status == 200 else status, fields) for status, fields in BAD_HEADS), *NO_INTERIM],
)
def test_an_interim_head_that_cannot_be_sent_leaves_room_for_an_answer(
    engine: Http1Engine, status: int, headers: Headers
) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    with pytest.raises(LocalProtocolError):
        codec.send_informational(1, status, headers)
    assert codec.take() == b""
    assert parsed(answer(codec)) == (b"HTTP/1.1 200 OK", [LENGTH_2], b"ok")


@each_engine
@pytest.mark.parametrize("fields", [*BAD_FIELDS, [LENGTH_2], [BY_CHUNKS], [CLOSE], [(b"Host", b"a")]])
def test_trailers_that_cannot_be_sent_leave_the_answer_open(engine: Http1Engine, fields: Headers) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    codec.send_head(1, 200, [])
    codec.take()
    with pytest.raises(LocalProtocolError):
        codec.send_trailers(1, fields)
    assert codec.take() == b""
    codec.send_trailers(1, [(b"x", b"1")])
    assert codec.take() == b"0\r\nx: 1\r\n\r\n"
    assert codec.reusable


@each_engine
def test_verbs_out_of_turn_are_refused_and_change_nothing(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    for data, end_stream in ((b"a", False), (b"a", True), (b"", True)):
        with pytest.raises(LocalProtocolError):
            codec.send_body(1, data, end_stream)
    with pytest.raises(LocalProtocolError):
        codec.send_trailers(1, [])
    with pytest.raises(LocalProtocolError):
        codec.begin_raw(1, 3)
    assert codec.take() == b""
    codec.send_head(1, 200, [])
    codec.take()
    with pytest.raises(LocalProtocolError):
        codec.send_head(1, 204, [])
    with pytest.raises(LocalProtocolError):
        codec.send_informational(1, 103, [])
    codec.send_body(1, b"a", True)
    assert codec.take() == b"1\r\na\r\n0\r\n\r\n"
    for _ in range(2):
        with pytest.raises(LocalProtocolError):
            codec.send_body(1, b"a", True)
        with pytest.raises(LocalProtocolError):
            codec.send_head(1, 200, [])
        with pytest.raises(LocalProtocolError):
            codec.send_informational(1, 103, [])
    assert codec.take() == b""
    assert codec.reusable
    assert codec.next_request() == []
    assert feed(codec, [GET_A]) == [replace(request(), stream_id=2)]
    assert parsed(answer(codec, 2)) == (b"HTTP/1.1 200 OK", [LENGTH_2], b"ok")


RAW = b"0123456789abcdef"


@each_engine
@pytest.mark.parametrize(
    ("asked", "status", "headers", "body"),
    [
        (GET_A, 200, [], b"1\r\na\r\n10\r\n0123456789abcdef\r\n1\r\nb\r\n0\r\n\r\n"),
        (GET_A, 200, [(b"content-length", b"18")], b"a0123456789abcdefb"),
        (GET_10, 200, [], b"a0123456789abcdefb"),
        (GET_10, 200, [(b"content-length", b"18")], b"a0123456789abcdefb"),
        (HEAD_A, 200, [], b""),
        (HEAD_A, 200, [(b"content-length", b"18")], b""),
        (GET_A, 204, [], b""),
        (GET_A, 304, [], b""),
    ],
    ids=["chunked", "length", "1.0", "1.0 length", "HEAD", "HEAD length", "204", "304"],
)
def test_raw_content_stands_between_what_is_taken_before_and_after_it(
    engine: Http1Engine, asked: bytes, status: int, headers: Headers, body: bytes
) -> None:
    codec = engine(HttpLimits())
    codec.receive(asked)
    codec.send_head(1, status, headers)
    codec.send_body(1, b"a", False)
    assert codec.begin_raw(1, 0) is False
    wire = b""
    if codec.begin_raw(1, len(RAW)):
        wire = codec.take() + RAW
        codec.end_raw(1, False)
    codec.send_body(1, b"b", True)
    wire += codec.take()
    assert parsed(wire)[2] == body
    assert codec.reusable is (asked is not GET_10)


@each_engine
@pytest.mark.parametrize(
    ("headers", "body"), [([], b"10\r\n" + RAW + b"\r\n0\r\n\r\n"), ([(b"content-length", b"16")], RAW)]
)
def test_raw_content_may_be_the_last(engine: Http1Engine, headers: Headers, body: bytes) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    codec.send_head(1, 200, headers)
    assert codec.begin_raw(1, len(RAW))
    wire = codec.take() + RAW
    assert not codec.reusable
    codec.end_raw(1, True)
    assert parsed(wire + codec.take())[2] == body
    assert codec.reusable


@each_engine
def test_raw_content_may_be_larger_than_any_storage(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    codec.send_head(1, 200, [])
    assert codec.begin_raw(1, 1 << 40)
    assert parsed(codec.take())[2] == b"10000000000\r\n"


def test_remembered_lines_are_bounded_and_true() -> None:
    engine = http1_engine("httptools")
    for round_ in range(2):
        for number in range(h1_httptools.MOST_LINES * 2):
            codec = engine(HttpLimits())
            codec.receive(GET_A)
            fields = [(b"x", b"%d" % (number * (round_ + 1))), (b"y%d" % number, b"1"), (b"z", b"long" * number)]
            codec.send_head(1, 204, fields)
            assert parsed(codec.take())[1] == sorted(fields)
            assert len(h1_httptools.LINES) <= h1_httptools.MOST_LINES
    assert max(map(len, h1_httptools.LINES.values())) <= h1_httptools.LONG_LINE
