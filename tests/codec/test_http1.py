"""What every HTTP/1.1 engine must say to the same bytes: one table, each row whole and cut at every byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.codec.contract import Http1Codec
from asgiri.codec.engines import HTTP1_ENGINES, Http1Engine, http1_engine
from asgiri.codec.events import Body, End, Event, Failure, Request, Reset
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers

each_engine = pytest.mark.parametrize("engine", HTTP1_ENGINES.values(), ids=HTTP1_ENGINES)

GOOD = b"GET /good HTTP/1.1\r\nHost: good\r\n\r\n"
GARBAGE = b"\x00\xff GARBAGE"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED_FIELDS = [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
HOST_A = [(b"host", b"a")]

# Small enough that a row can go over each of them.
SMALL = HttpLimits(request_line=40, header_count=4, header_size=80, body_size=8)


@dataclass(frozen=True)
class Row:
    """``data`` makes ``events``; ``eof``: and then the peer ends. ``last``: it cannot be followed by a request."""

    name: str
    data: bytes
    events: tuple[Event, ...]
    limits: HttpLimits = field(default_factory=HttpLimits)
    eof: bool = False
    last: bool = False


def row(name: str, data: bytes, *events: Event, **more: Any) -> Row:
    return Row(name, data, events, **more)


def refused(name: str, status: int, data: bytes, *before: Event, **more: Any) -> Row:
    return Row(name, data, (*before, Failure(status, "")), **more)


def head(start_line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([start_line, *fields, b"", b""])


def request(method: str = "GET", target: bytes = b"/", headers: Headers = HOST_A, **more: Any) -> Request:
    path, _, query = target.partition(b"?")
    parts: dict[str, Any] = {"path": path, "query": query, "http_version": "1.1", "end_stream": True}
    return Request(1, method, target, headers=headers, **(parts | more))


def post(headers: Headers, **more: Any) -> Request:
    return request("POST", headers=headers, **({"end_stream": False} | more))


def with_length(value: bytes, **more: Any) -> Request:
    return post([*HOST_A, (b"content-length", value)], **more)


def chunked(**more: Any) -> Request:
    return post(CHUNKED_FIELDS, **more)


ACCEPTED = [
    row("GET", head(b"GET / HTTP/1.1", b"Host: a"), request()),
    row("HEAD", head(b"HEAD /x HTTP/1.1", b"Host: a"), request("HEAD", b"/x")),
    row("DELETE without a body", head(b"DELETE /x HTTP/1.1", b"Host: a"), request("DELETE", b"/x")),
    row("a method of an extension", head(b"PROPFIND / HTTP/1.1", b"Host: a"), request("PROPFIND")),
    row("query", head(b"GET /p/q?a=1&b=%20? HTTP/1.1", b"Host: a"), request(target=b"/p/q?a=1&b=%20?")),
    row("empty query", head(b"GET /p? HTTP/1.1", b"Host: a"), request(target=b"/p?")),
    row("percent stays", head(b"GET /a%2Fb;x%zz HTTP/1.1", b"Host: a"), request(target=b"/a%2Fb;x%zz")),
    row("two slashes are a path", head(b"GET //b/c HTTP/1.1", b"Host: a"), request(target=b"//b/c")),
    row(
        "absolute form: its authority replaces Host (RFC 9112 section 3.2.2)",
        head(b"GET http://b:81/p?q HTTP/1.1", b"X: 1", b"Host: a"),
        request(target=b"http://b:81/p?q", path=b"/p", query=b"q", headers=[(b"host", b"b:81"), (b"x", b"1")]),
    ),
    row(
        "absolute form without a path",
        head(b"GET HTTPS://b HTTP/1.1", b"Host: a"),
        request(target=b"HTTPS://b", path=b"/", headers=[(b"host", b"b")]),
    ),
    row(
        "absolute form without a path, with a query",
        head(b"GET http://b?q HTTP/1.1", b"Host: a"),
        request(target=b"http://b?q", path=b"/", query=b"q", headers=[(b"host", b"b")]),
    ),
    row("asterisk form", head(b"OPTIONS * HTTP/1.1", b"Host: a"), request("OPTIONS", b"*")),
    row(
        "names in lower case, order and repetition kept",
        head(b"GET / HTTP/1.1", b"X-B: 1", b"HOST: a", b"x-a: 2", b"X-b: 3"),
        request(headers=[(b"x-b", b"1"), (b"host", b"a"), (b"x-a", b"2"), (b"x-b", b"3")]),
    ),
    row(
        "values: obs-text, empty, trimmed, blanks and colons inside",
        head(b"GET / HTTP/1.1", b"Host: a", b"X: caf\xc3\xa9 \xff", b"Y:", b"Z: ", b"T:\t a:\tb  c \t"),
        request(headers=[*HOST_A, (b"x", b"caf\xc3\xa9 \xff"), (b"y", b""), (b"z", b""), (b"t", b"a:\tb  c")]),
    ),
    row(
        "every kind of tchar in a name",
        head(b"GET / HTTP/1.1", b"Host: a", b"!#$%&'*+-.^_`|~09aZ: 1"),
        request(headers=[*HOST_A, (b"!#$%&'*+-.^_`|~09az", b"1")]),
    ),
    # Section 5.2 leaves the choice between 400 and this one to the server.
    row(
        "obs-fold: its line end and blanks are one blank",
        head(b"GET / HTTP/1.1", b"Host: a", b"X: 1", b" \t2", b"\t3"),
        request(headers=[*HOST_A, (b"x", b"1 2 3")]),
    ),
    row(
        "empty lines before the request (section 2.2)",
        b"\r\n\r\n\n" + GOOD,
        request(target=b"/good", headers=[(b"host", b"good")]),
    ),
    row(
        "lines that end with LF alone (section 2.2)",
        b"GET / HTTP/1.1\nHost: a\nX: 1\n\n",
        request(headers=[*HOST_A, (b"x", b"1")]),
    ),
    row("empty Host", head(b"GET / HTTP/1.1", b"Host:"), request(headers=[(b"host", b"")])),
    row("IPv6 Host", head(b"GET / HTTP/1.1", b"Host: [::1]:80"), request(headers=[(b"host", b"[::1]:80")])),
    row("HTTP/1.2 is spoken as 1.1", head(b"GET / HTTP/1.2", b"Host: a"), request()),
    row("HTTP/1.0", head(b"GET / HTTP/1.0"), request(headers=[], http_version="1.0"), last=True),
    row(
        "HTTP/1.0 with a body",
        head(b"POST / HTTP/1.0", b"Content-Length: 3") + b"abc",
        post([(b"content-length", b"3")], http_version="1.0"),
        Body(1, b"abc"),
        End(1, []),
        last=True,
    ),
    row(
        "HTTP/1.0 waits for no 100 (RFC 9110 section 10.1.1)",
        head(b"POST / HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 1") + b"a",
        post([(b"expect", b"100-continue"), (b"content-length", b"1")], http_version="1.0"),
        Body(1, b"a"),
        End(1, []),
        last=True,
    ),
    row(
        "Connection: close",
        head(b"GET / HTTP/1.1", b"Host: a", b"Connection: Close"),
        request(headers=[*HOST_A, (b"connection", b"Close")]),
        last=True,
    ),
    row(
        "an upgrade that is left alone",
        head(b"GET / HTTP/1.1", b"Host: a", b"Connection: upgrade", b"Upgrade: websocket"),
        request(headers=[*HOST_A, (b"connection", b"upgrade"), (b"upgrade", b"websocket")]),
    ),
    row(
        "Content-Length",
        head(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 10") + b"0123\r\n6789",
        with_length(b"10"),
        Body(1, b"0123\r\n6789"),
        End(1, []),
    ),
    row(
        "Content-Length: 0",
        head(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 0"),
        with_length(b"0", end_stream=True),
    ),
    row(
        "the same Content-Length twice is one (section 6.3)",
        head(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 2, 2", b"Content-Length: 2") + b"ab",
        with_length(b"2"),
        Body(1, b"ab"),
        End(1, []),
    ),
    row(
        "Expect: 100-continue",
        head(b"POST / HTTP/1.1", b"Host: a", b"Expect: 100-Continue", b"Content-Length: 2") + b"ab",
        post([*HOST_A, (b"expect", b"100-Continue"), (b"content-length", b"2")], expect_continue=True),
        Body(1, b"ab"),
        End(1, []),
    ),
    row(
        "Expect: 100-continue without a body",
        head(b"GET / HTTP/1.1", b"Host: a", b"Expect: 100-continue"),
        request(headers=[*HOST_A, (b"expect", b"100-continue")]),
    ),
    row(
        "chunked",
        CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        chunked(),
        Body(1, b"abc0123456789"),
        End(1, []),
    ),
    row("chunked and empty", CHUNKED + b"0\r\n\r\n", chunked(), End(1, [])),
    row(
        "chunk sizes with leading zeros and in either case",
        CHUNKED + b"0003\r\nabc\r\n0a\r\n0123456789\r\n000\r\n\r\n",
        chunked(),
        Body(1, b"abc0123456789"),
        End(1, []),
    ),
    row(
        "chunk extensions are dropped",
        CHUNKED + b'3;a\r\nabc\r\n2;b=1;c="x;y"\r\nde\r\n0;last\r\n\r\n',
        chunked(),
        Body(1, b"abcde"),
        End(1, []),
    ),
    row(
        "trailers",
        CHUNKED + b"1\r\na\r\n0\r\nX-Sum: 1\r\nx-b:\r\n\r\n",
        chunked(),
        Body(1, b"a"),
        End(1, [(b"x-sum", b"1"), (b"x-b", b"")]),
    ),
    row("trailers without a body", CHUNKED + b"0\r\nX: 1\r\n\r\n", chunked(), End(1, [(b"x", b"1")])),
    row(
        "the coding's name in any case",
        CHUNKED.replace(b"chunked", b"CHUNKED") + b"1\r\na\r\n0\r\n\r\n",
        chunked(),
        Body(1, b"a"),
        End(1, []),
    ),
    row(
        "all limits just kept",
        head(b"POST /" + b"p" * 25 + b" HTTP/1.1", b"Host: a", b"Content-Length: 8", b"X: " + b"v" * 38, b"Y:")
        + b"01234567",
        post(
            [*HOST_A, (b"content-length", b"8"), (b"x", b"v" * 38), (b"y", b"")],
            target=b"/" + b"p" * 25,
            path=b"/" + b"p" * 25,
        ),
        Body(1, b"01234567"),
        End(1, []),
        limits=SMALL,
    ),
]

POST = b"POST / HTTP/1.1"
GET = b"GET / HTTP/1.1"
A = b"Host: a"

REFUSED = [
    # RFC 9112 section 3.2: Host
    refused("no Host", 400, head(GET)),
    refused("no Host in HTTP/1.2", 400, head(b"GET / HTTP/1.2")),
    refused("two Hosts", 400, head(GET, A, A)),
    refused("two Hosts in HTTP/1.0", 400, head(b"GET / HTTP/1.0", A, b"Host: b")),
    refused("two Hosts with an absolute form", 400, head(b"GET http://a/ HTTP/1.1", A, b"Host: b")),
    refused("a Host with userinfo", 400, head(GET, b"Host: u@a")),
    refused("a Host with a path", 400, head(GET, b"Host: a/b")),
    refused("a Host with a blank", 400, head(GET, b"Host: a b")),
    refused("a Host with a port that is none", 400, head(GET, b"Host: a:b")),
    # section 6.1 and 6.3: framing
    refused(
        "Content-Length with Transfer-Encoding", 400, head(POST, A, b"Content-Length: 1", b"Transfer-Encoding: chunked")
    ),
    refused(
        "Transfer-Encoding with Content-Length", 400, head(POST, A, b"Transfer-Encoding: chunked", b"Content-Length: 1")
    ),
    refused("two Content-Lengths", 400, head(POST, A, b"Content-Length: 1", b"Content-Length: 2")),
    refused("a list of Content-Lengths", 400, head(POST, A, b"Content-Length: 1, 2")),
    *[
        refused(f"Content-Length: {value.decode()}", 400, head(POST, A, b"Content-Length: " + value))
        for value in (b"+1", b"-1", b"1.0", b"0x1", b"1 2", b"1_0", b"a", b"", b",", b"9" * 5000)
    ],
    *[
        refused(f"Transfer-Encoding: {value.decode()}", 501, head(POST, A, b"Transfer-Encoding: " + value))
        for value in (b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked", b'"chunked"')
    ],
    refused("two Transfer-Encodings", 501, head(POST, A, *[b"Transfer-Encoding: chunked"] * 2)),
    refused("Transfer-Encoding in HTTP/1.0", 400, head(b"POST / HTTP/1.0", A, b"Transfer-Encoding: chunked")),
    # section 7.1: chunks
    *[
        refused(f"chunk size {size!r}", 400, CHUNKED + size + b"\r\n", chunked())
        for size in (b"", b"g", b"-1", b"+1", b"0x1", b" 1", b"1 2", b"1,", b"1\n", b"f" * 21)
    ],
    refused("a chunk longer than its size", 400, CHUNKED + b"3\r\nabcd\r\n", chunked(), Body(1, b"abc")),
    refused("a chunk that ends with LF alone", 400, CHUNKED + b"3\r\nabc\n0\r\n\r\n", chunked(), Body(1, b"abc")),
    refused("a trailer that is none", 400, CHUNKED + b"0\r\nno field\r\n\r\n", chunked()),
    refused("a control character in a trailer", 400, CHUNKED + b"0\r\nX: \x01\r\n\r\n", chunked()),
    # section 5: fields
    refused("a blank before the colon", 400, head(GET, A, b"X : 1")),
    refused("a tab before the colon", 400, head(GET, A, b"X\t: 1")),
    refused("a blank before the first field", 400, head(GET, b" X: 1", A)),
    refused("an empty name", 400, head(GET, A, b": 1")),
    refused("a name that is no token", 400, head(GET, A, b"X(1): 1")),
    refused("a name beyond ASCII", 400, head(GET, A, b"\xc3\xa9: 1")),
    refused("no colon", 400, head(GET, A, b"X")),
    *[
        refused(f"{char!r} in a value", 400, head(GET, A, b"X: a" + char + b"b"))
        for char in (b"\x00", b"\x01", b"\x08", b"\x0b", b"\x0c", b"\x1b", b"\x7f", b"\r")
    ],
    refused("CR at the end of a value", 400, head(GET, A, b"X: a\r")),
    refused("NUL in a name", 400, head(GET, A, b"X\x00: 1")),
    # section 3: request line
    refused("no version", 400, head(b"GET /", A)),
    refused("a version that is none", 400, head(b"GET / HTTP/1", A)),
    refused("a version of two digits", 400, head(b"GET / HTTP/1.10", A)),
    refused("a version in lower case", 400, head(b"GET / http/1.1", A)),
    refused("another protocol", 400, head(b"GET / ICY/1.1", A)),
    refused("HTTP/0.9", 505, head(b"GET / HTTP/0.9", A)),
    refused("HTTP/2.0", 505, head(b"GET / HTTP/2.0", A)),
    refused("the preface of HTTP/2 (RFC 9113 section 3.4)", 505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused("a TLS ClientHello", 400, bytes.fromhex("16030100c8010000c40303") + b"\r\n\r\n"),
    refused("a method that is no token", 400, head(b"G@T / HTTP/1.1", A)),
    refused("no method", 400, head(b" / HTTP/1.1", A)),
    refused("no target", 400, head(b"GET HTTP/1.1", A)),
    refused("two blanks", 400, head(b"GET  / HTTP/1.1", A)),
    refused("a tab for a blank", 400, head(b"GET\t/ HTTP/1.1", A)),
    refused("a blank in the target", 400, head(b"GET /a b HTTP/1.1", A)),
    refused("a blank at the end of the line", 400, head(b"GET / HTTP/1.1 ", A)),
    refused("CR in the target", 400, head(b"GET /a\rb HTTP/1.1", A)),
    refused("NUL in the target", 400, head(b"GET /a\x00b HTTP/1.1", A)),
    refused("a target beyond ASCII", 400, head(b"GET /\xc3\xa9 HTTP/1.1", A)),
    refused("CONNECT", 501, head(b"CONNECT a:443 HTTP/1.1", b"Host: a:443")),
    refused("an asterisk with GET", 400, head(b"GET * HTTP/1.1", A)),
    refused("an asterisk with HEAD", 400, head(b"HEAD * HTTP/1.1", A)),
    refused("a target without a slash", 400, head(b"GET index.html HTTP/1.1", A)),
    refused("an authority with GET", 400, head(b"GET a:80 HTTP/1.1", A)),
    refused("a scheme that is not ours", 400, head(b"GET ftp://a/ HTTP/1.1", A)),
    refused("an absolute form with userinfo", 400, head(b"GET http://u:p@a/ HTTP/1.1", A)),
    refused("an absolute form without an authority", 400, head(b"GET http:///p HTTP/1.1", A)),
    refused("nothing but noise", 400, b"\x00\x01\x02\x03"),
    # limits
    refused("a long request line", 414, head(b"GET /" + b"p" * 27 + b" HTTP/1.1", A), limits=SMALL),
    refused(
        "a long request line and long fields",
        414,
        head(b"GET /" + b"p" * 40 + b" HTTP/1.1", A, b"X: " + b"v" * 200),
        limits=SMALL,
    ),
    refused("a request line without an end", 414, b"GET /" + b"p" * 500, limits=SMALL),
    refused("many fields", 431, head(GET, A, b"A:", b"B:", b"C:", b"D:"), limits=SMALL),
    refused("a long field", 431, head(GET, A, b"X: " + b"v" * 68), limits=SMALL),
    refused("a field without an end", 431, head(GET, A)[:-2] + b"X: " + b"v" * 500, limits=SMALL),
    refused("a long Content-Length", 413, head(POST, A, b"Content-Length: 9"), limits=SMALL),
    refused(
        "a long chunked body",
        413,
        CHUNKED + b"8\r\n01234567\r\n1\r\n8\r\n",
        chunked(),
        Body(1, b"01234567"),
        limits=SMALL,
    ),
    refused("many trailers", 431, CHUNKED + b"0\r\n" + b"A:\r\n" * 5 + b"\r\n", chunked(), limits=SMALL),
    refused("trailers without an end", 431, CHUNKED + b"0\r\nX: " + b"v" * 500, chunked(), limits=SMALL),
    refused("a chunk extension without an end", 431, CHUNKED + b"1;" + b"e" * 500, chunked(), limits=SMALL),
    # end of file
    *[
        refused(f"end of file after {data!r}", 400, data, eof=True)
        for data in (b"G", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n")
    ],
]

ENDED = [
    row("end of file before anything", b"", eof=True),
    row("end of file after empty lines", b"\r\n\r\n", eof=True),
    row("end of file after a request", head(GET, A), request(), eof=True),
    row("end of file before a body", head(POST, A, b"Content-Length: 3"), with_length(b"3"), Reset(1, ""), eof=True),
    row(
        "end of file in a body",
        head(POST, A, b"Content-Length: 3") + b"ab",
        with_length(b"3"),
        Body(1, b"ab"),
        Reset(1, ""),
        eof=True,
    ),
    row("end of file before the chunks", CHUNKED, chunked(), Reset(1, ""), eof=True),
    row("end of file in a chunk size", CHUNKED + b"1", chunked(), Reset(1, ""), eof=True),
    row("end of file in a chunk", CHUNKED + b"3\r\nab", chunked(), Body(1, b"ab"), Reset(1, ""), eof=True),
    row("end of file after a chunk", CHUNKED + b"2\r\nab\r\n", chunked(), Body(1, b"ab"), Reset(1, ""), eof=True),
    row("end of file in the last chunk", CHUNKED + b"0\r\n", chunked(), Reset(1, ""), eof=True),
    row("end of file in the trailers", CHUNKED + b"0\r\nX: 1\r\n", chunked(), Reset(1, ""), eof=True),
    row(
        "end of file in a body of HTTP/1.0",
        head(b"POST / HTTP/1.0", b"Content-Length: 3"),
        post([(b"content-length", b"3")], http_version="1.0"),
        Reset(1, ""),
        eof=True,
    ),
]

each_row = pytest.mark.parametrize("row", [*ACCEPTED, *REFUSED, *ENDED], ids=lambda row: row.name[:60])
each_accepted = pytest.mark.parametrize("row", ACCEPTED, ids=lambda row: row.name)
each_refused = pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name[:60])


def merged(events: Iterable[Event]) -> list[Event]:
    """Adjacent pieces of body made one, and the sentences meant for people left out."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        match event:
            case Body() if isinstance(last, Body):
                out[-1] = Body(last.stream_id, last.data + event.data)
            case Failure() | Reset():
                assert event.reason
                out.append(replace(event, reason=""))
            case _:
                out.append(event)
    return out


def feed(codec: Http1Codec, pieces: Iterable[bytes], eof: bool = False) -> list[Event]:
    """The merged events of the pieces. Nothing comes after a Failure."""
    events: list[Event] = []
    for piece in [*pieces, *([b""] if eof else [])]:
        more = codec.receive(piece)
        assert not (more and events and isinstance(events[-1], Failure)), "parsed on after a Failure"
        assert not any(isinstance(event, Failure) for event in more[:-1]), "a Failure is the last event"
        assert not any(isinstance(event, Body) and not event.data for event in more), "an empty Body"
        events += more
    return merged(events)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and each way to cut it in two."""
    yield [data] if data else []
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, min(len(data), 800)):
        yield [data[:i], data[i:]]


def answer(codec: Http1Codec, stream_id: int = 1) -> bytes:
    codec.send_head(stream_id, 200, [(b"content-length", b"2")])
    codec.send_body(stream_id, b"ok", True)
    return codec.take()


def numbered(events: Iterable[Event], stream_id: int) -> list[Event]:
    return [event if isinstance(event, Failure) else replace(event, stream_id=stream_id) for event in events]


def test_auto_is_an_engine_and_a_wrong_name_is_none() -> None:
    assert http1_engine("auto") in HTTP1_ENGINES.values()
    with pytest.raises(KeyError):
        http1_engine("apache")


# Bytes in


@each_engine
@each_row
def test_the_table_whole_and_cut_anywhere(engine: Http1Engine, row: Row) -> None:
    for pieces in cuts(row.data):
        codec = engine(row.limits)
        assert feed(codec, pieces, row.eof) == list(row.events), pieces
        assert codec.take() == b"", "an engine answers nothing by itself"
        assert not codec.reusable


@each_engine
@each_row
def test_the_table_behind_a_good_request(engine: Http1Engine, row: Row) -> None:
    codec = engine(row.limits)
    good = request(target=b"/good", headers=[(b"host", b"good")])
    assert feed(codec, [GOOD + row.data], row.eof) == [good]
    assert codec.pending is bool(row.data.strip(b"\r\n"))
    answer(codec)
    if codec.reusable:
        assert merged(codec.next_request()) == numbered(row.events, 2)
    else:
        assert (row.data, row.eof) == (b"", True)


@each_engine
@each_accepted
@pytest.mark.parametrize(
    "trailing", [GOOD, b"\r\n" + GOOD, GARBAGE, b"\r\n"], ids=["good", "empty line", "garbage", "end"]
)
def test_what_trails_a_request_waits_for_the_next_one(engine: Http1Engine, row: Row, trailing: bytes) -> None:
    after = {
        GARBAGE: [Failure(400, "")],
        b"\r\n": [],
    }.get(trailing, [request(target=b"/good", headers=[(b"host", b"good")])])
    data = row.data + trailing
    for pieces in ([data], [row.data, trailing], [data[i : i + 1] for i in range(len(data))]):
        codec = engine(row.limits)
        assert feed(codec, pieces) == list(row.events), pieces
        assert codec.pending is (not row.last and trailing != b"\r\n")
        answer(codec)
        assert (codec.reusable, codec.closing) == (not row.last, row.last)
        if codec.reusable:
            assert merged(codec.next_request()) == numbered(after, 2)
            assert not codec.pending


@each_engine
@each_refused
def test_a_refusal_can_be_answered(engine: Http1Engine, row: Row) -> None:
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
    assert body == (b"" if row.data.startswith(b"HEAD") else b"no\n")
    assert codec.closing
    assert not codec.reusable
    assert feed(codec, [GOOD], True) == []


@each_engine
def test_pipelined_requests_come_one_by_one(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    upload = head(POST, A, b"Content-Length: 3") + b"abc"
    assert feed(codec, [GOOD + upload + b"\r\n" + GOOD + CHUNKED + b"1\r\nx\r\n"]) == [
        request(target=b"/good", headers=[(b"host", b"good")])
    ]
    transcript: list[tuple[list[Event], bool]] = []
    for stream_id in (1, 2, 3):
        answer(codec, stream_id)
        transcript.append((merged(codec.next_request()), codec.pending))
    assert transcript == [
        (numbered([with_length(b"3"), Body(1, b"abc"), End(1, [])], 2), True),
        (numbered([request(target=b"/good", headers=[(b"host", b"good")])], 3), True),
        (numbered([chunked(), Body(1, b"x")], 4), False),
    ]
    assert feed(codec, [b"0\r\n\r\n"]) == [End(4, [])]


@each_engine
def test_the_body_limit_counts_each_request_anew(engine: Http1Engine) -> None:
    codec = engine(SMALL)
    for stream_id in (1, 2):
        upload = CHUNKED + b"8\r\n01234567\r\n0\r\n\r\n"
        assert feed(codec, [upload]) == numbered([chunked(), Body(1, b"01234567"), End(1, [])], stream_id)
        answer(codec, stream_id)
        assert codec.next_request() == []


@each_engine
def test_limits_of_zero_are_none(engine: Http1Engine) -> None:
    fields = [b"X-%d: %s" % (n, b"v" * 50) for n in range(500)]
    codec = engine(HttpLimits(0, 0, 0, 0))
    events = feed(codec, [head(b"GET /" + b"p" * 20_000 + b" HTTP/1.1", A, *fields)])
    assert [type(event) for event in events] == [Request]
    endless = engine(HttpLimits(0, 0, 0, 0))
    assert feed(endless, [b"GET /", *[b"p" * 65536] * 40]) == [Failure(414, "")], "some bound must stand"


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
def test_a_head_of_the_last_method_does_not_silence_the_next_answer(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    feed(codec, [head(b"HEAD / HTTP/1.1", A)])
    assert parsed(answer(codec))[2] == b""
    assert codec.next_request() == []
    assert feed(codec, [GARBAGE]) == [Failure(400, "")]
    assert parsed(answer(codec))[2] == b"ok"


# Bytes out


def parsed(data: bytes) -> tuple[bytes, Headers, bytes]:
    """Status line, fields sorted and with names in lower case, and what follows the head."""
    top, _, rest = data.partition(b"\r\n\r\n")
    line, *fields = top.split(b"\r\n")
    pairs = (field.partition(b": ") for field in fields)
    return line, sorted((name.lower(), value) for name, _, value in pairs), rest


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
BY_CHUNKS = (b"transfer-encoding", b"chunked")

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
    Sent(
        "chunked and Content-Length", GET_A, 200, [BY_CHUNKS, LENGTH_2], (b"ok",), [BY_CHUNKS], b"2\r\nok\r\n0\r\n\r\n"
    ),
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
def test_answers(engine: Http1Engine, sent: Sent) -> None:
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


BAD_HEADS: list[tuple[int, Headers]] = [
    *[(200, [(b"x" + bad, b"1")]) for bad in (b"\r", b"\n", b"\x00", b":", b" ", b"\xe9")],
    *[
        (200, [(b"x", b"a" + bad)])
        for bad in (b"\r", b"\n", b"\x00", b"\x7f", b"\r\nSet-Cookie: a=1", b"\r\n\r\n<html>")
    ],
    (200, [(b"", b"1")]),
    *[(status, []) for status in (-1, 0, 99, 600, 1000)],
]


@each_engine
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        *BAD_HEADS,
        (100, []),
        (103, []),
        (200, [(b"content-length", b"+1")]),
        (200, [(b"content-length", b"1"), (b"content-length", b"2")]),
        (200, [(b"transfer-encoding", b"gzip")]),
    ],
)
def test_a_head_that_cannot_be_sent_leaves_room_for_a_500(engine: Http1Engine, status: int, headers: Headers) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    with pytest.raises(LocalProtocolError):
        codec.send_head(1, status, headers)
    assert codec.take() == b""
    codec.send_head(1, 500, [LENGTH_2])
    codec.send_body(1, b"no", True)
    assert parsed(codec.take()) == (b"HTTP/1.1 500 Internal Server Error", [LENGTH_2], b"no")
    assert codec.reusable


@each_engine
@pytest.mark.parametrize(
    ("status", "headers"),
    [*((103 if status == 200 else status, fields) for status, fields in BAD_HEADS), (101, []), (200, [])],
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
def test_trailers_that_cannot_be_sent_leave_the_answer_open(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    codec.receive(GET_A)
    codec.send_head(1, 200, [])
    codec.take()
    with pytest.raises(LocalProtocolError):
        codec.send_trailers(1, [(b"x", b"1\r\ny: 2")])
    codec.send_trailers(1, [(b"x", b"1")])
    assert codec.take() == b"0\r\nx: 1\r\n\r\n"


# Generated input


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


places = st.lists(st.integers(0, 10_000), max_size=8)
fragments = st.sampled_from(
    b"GET POST HEAD / http://a ? * HTTP/1.1 HTTP/1.0 abc : 5;a".split()
    + b"Host: a|Host:|Content-Length: 3|Content-Length:|Transfer-Encoding: chunked".split(b"|")
    + b"Connection: close|Expect: 100-continue|Upgrade: h2c|X: \xe9|\0|\t| ".split(b"|")
    + [b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"3\r\nabc\r\n", b"0\r\n\r\n"]
    + [GET_A, GOOD, CHUNKED, head(POST, A, b"Content-Length: 3"), GET_10]
)
noise = st.binary(max_size=60) | st.lists(fragments, max_size=14).map(b"".join)


def kinds(events: Iterable[Event]) -> list[object]:
    """A malformed head may be found too long first, when it comes in pieces: only that a Failure came is compared."""
    return [Failure if isinstance(event, Failure) else event for event in events]


@pytest.mark.parametrize("name", HTTP1_ENGINES)
@given(data=noise, where=places, eof=st.booleans())
def test_any_bytes_cut_anywhere_give_the_same_events_and_no_exception(
    name: str, data: bytes, where: list[int], eof: bool
) -> None:
    transcripts = []
    for pieces in ([data], cut(data, where)):
        codec = http1_engine(name)(HttpLimits())
        events = feed(codec, pieces if data else [], eof)
        if any(isinstance(event, End) or (isinstance(event, Request) and event.end_stream) for event in events):
            answer(codec)
            events += merged(codec.next_request()) if codec.reusable else []
        transcripts.append(kinds(events))
    assert transcripts[0] == transcripts[1]


tokens = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12)
names = tokens.map(lambda name: f"x-{name}".encode())
values = st.binary(max_size=20).map(lambda value: bytes(c for c in value if c == 9 or 32 <= c != 127).strip(b" \t"))
paths = st.text("/abcXYZ019-._~!$&'()*+,;=:@%#", max_size=20).map(lambda path: b"/" + path.encode())


@pytest.mark.parametrize("name", HTTP1_ENGINES)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    path=paths,
    query=st.none() | paths,
    fields=st.lists(st.tuples(names, values), max_size=6),
    chunks=st.none() | st.lists(st.binary(min_size=1, max_size=40), max_size=4),
    by_length=st.booleans(),
    trailers=st.lists(st.tuples(names, values), max_size=2),
    where=places,
)
def test_a_valid_request_round_trips_at_any_cut(
    name: str,
    method: str,
    path: bytes,
    query: bytes | None,
    fields: Headers,
    chunks: list[bytes] | None,
    by_length: bool,
    trailers: Headers,
    where: list[int],
) -> None:
    target = path if query is None else path + b"?" + query
    headers = [*HOST_A, *fields]
    body = b"".join(chunks or [])
    if chunks is None:
        wire, trailers = b"", []
    elif by_length:
        headers.append((b"content-length", b"%d" % len(body)))
        wire, trailers = body, []
    else:
        headers.append(BY_CHUNKS)
        wire = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        wire += b"0\r\n" + b"".join(b"%s:%s\r\n" % field for field in trailers) + b"\r\n"
    data = head(b"%s %s HTTP/1.1" % (method.encode(), target), *(b"%s: %s" % field for field in headers)) + wire
    end_stream = chunks is None or (by_length and not body)
    expected: list[Event] = [
        Request(1, method, target, path, query or b"", [(k.lower(), v) for k, v in headers], "1.1", end_stream)
    ]
    if body:
        expected.append(Body(1, body))
    if not end_stream:
        expected.append(End(1, [(k.lower(), v) for k, v in trailers]))
    assert feed(http1_engine(name)(HttpLimits()), cut(data, where)) == expected
