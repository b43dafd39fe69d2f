"""Rows about header blocks: CONTINUATION (RFC 9113 section 6.10) and HPACK (RFC 7541)."""

from __future__ import annotations

from asgiri.codec.events import Body, End, Refused
from asgiri.codec.h2_wire import Http2Options
from tests.codec.h2_rows import SMALL, Row, broken, reset, row
from tests.codec.h2_wire_tools import (
    COMPRESSION_ERROR,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    FULL,
    GET,
    HEADERS,
    POST,
    PROTOCOL_ERROR,
    Rst,
    block,
    continued,
    data,
    frame,
    head,
    integer,
    literal,
    ping,
    post,
    priority,
    request,
    rst,
    settings,
    window,
)

BLOCK = block(GET)
BEGUN = frame(HEADERS, END_STREAM, 1, BLOCK[:20])
REST = frame(CONTINUATION, END_HEADERS, 1, BLOCK[20:])
OPEN = head(1, POST, False)

CONTINUED = [
    *(row(f"a request in {n} frames", continued(1, pieces=n), events=[request()]) for n in (2, 3, 5)),
    row("an empty CONTINUATION in the middle", BEGUN + frame(CONTINUATION, 0, 1) + REST, events=[request()]),
    row("an empty CONTINUATION at the end", frame(HEADERS, END_STREAM, 1, BLOCK) + frame(CONTINUATION, END_HEADERS, 1),
        events=[request()]),
    row("an empty HEADERS, the block behind it",
        frame(HEADERS, END_STREAM, 1) + frame(CONTINUATION, END_HEADERS, 1, BLOCK), events=[request()]),
    row("trailers in two frames", OPEN + continued(1, [(b"x", b"y" * 20)]),
        events=[post(), End(1, [(b"x", b"y" * 20)])]),
    row("a request with a body, in two frames", continued(1, POST, False) + data(1, b"", True),
        events=[post(), End(1, [])]),
    *(
        broken(f"{name} in the middle of a header block", PROTOCOL_ERROR, BEGUN + wire + REST)
        for name, wire in {
            "DATA": data(1, b"x"),
            "DATA of another stream": data(3, b"x"),
            "HEADERS": head(1),
            "HEADERS of another stream": head(3),
            "PRIORITY": priority(1),
            "RST_STREAM": rst(1),
            "SETTINGS": settings(),
            "PING": ping(),
            "WINDOW_UPDATE": window(0, 1),
            "an unknown frame": frame(0x42),
            "CONTINUATION of another stream": frame(CONTINUATION, END_HEADERS, 3, BLOCK[20:]),
            "CONTINUATION of stream 0": frame(CONTINUATION, END_HEADERS, 0, BLOCK[20:]),
        }.items()
    ),
    broken("CONTINUATION behind a whole request", PROTOCOL_ERROR, head(1) + frame(CONTINUATION, END_HEADERS, 1),
           events=[request()], last=1),
    broken("CONTINUATION behind DATA", PROTOCOL_ERROR, OPEN + data(1) + frame(CONTINUATION, END_HEADERS, 1),
           events=[post()], last=1),
    broken("CONTINUATION larger than a frame may be", FRAME_SIZE_ERROR,
           BEGUN + frame(CONTINUATION, 0, 1, b"", FULL + 1)),
]  # fmt: skip


def bad(name: str, encoded: bytes, why: str = "") -> Row:
    return broken(name, COMPRESSION_ERROR, head(1, encoded=encoded), why=why)


AUTHORITY = b"\x41\x01a"  # :authority: a, into the table
START = b"\x82\x86\x84"  # :method: GET, :scheme: http, :path: /
GOOD = START + AUTHORITY
TABLE = "RFC 7541 section 6.3"

HPACK = [
    row("fields of the static table", head(1, encoded=GOOD), events=[request()]),
    row("fields of the dynamic table", head(1, encoded=GOOD) + head(3, encoded=START + b"\xbe"),
        events=[request(), request(3)]),
    row("a name of the dynamic table",
        head(1, encoded=GOOD + b"\x40\x01x\x01y") + head(3, encoded=START + b"\xbf\x0f\x2f\x01z"),
        events=[request(headers=[(b"host", b"a"), (b"x", b"y")]), request(3, headers=[(b"host", b"a"), (b"x", b"z")])]),
    row("a field that is never indexed", head(1, encoded=GOOD + b"\x10\x01x\x01y"),
        events=[request(headers=[(b"host", b"a"), (b"x", b"y")])]),
    row("a value in Huffman's code",
        head(1, encoded=START + b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"),
        events=[request(headers=[(b"host", b"www.example.com")])]),
    row("a length with needless zero octets", head(1, encoded=START + b"\x41\x7f\x80\x00" + b"a" * 127),
        events=[request(headers=[(b"host", b"a" * 127)])]),
    row("the table made smaller", head(1, encoded=GOOD) + head(3, encoded=b"\x20" + GOOD),
        events=[request(), request(3)]),
    row("the table made smaller and large again", head(1, encoded=b"\x20" + integer(4096, 5, 0x20) + GOOD)
        + head(3, encoded=START + b"\xbe"), events=[request(), request(3)]),
    row("the table of its full size", head(1, encoded=integer(4096, 5, 0x20) + GOOD), events=[request()]),
    row("an entry larger than the table empties it", head(1, encoded=GOOD)
        + head(3, encoded=START + b"\xbe" + literal(b"x", b"v" * 5000, 0x40)) + head(5, encoded=GOOD),
        events=[request(), request(3, headers=[(b"host", b"a"), (b"x", b"v" * 5000)]), request(5)]),
    broken("an entry that a larger one has evicted", COMPRESSION_ERROR, head(1, encoded=GOOD)
           + head(3, encoded=START + b"\xbe" + literal(b"x", b"v" * 5000, 0x40)) + head(5, encoded=START + b"\xbe"),
           events=[request(), request(3, headers=[(b"host", b"a"), (b"x", b"v" * 5000)])], last=3),
    broken("an entry of a table that was emptied", COMPRESSION_ERROR,
           head(1, encoded=GOOD) + head(3, encoded=b"\x20" + START + b"\xbe"), events=[request()], last=1),
    bad("index 0", b"\x80"),
    bad("an index beyond both tables", START + b"\xbe"),
    bad("a name beyond both tables", START + b"\x7e\x01a"),
    bad("a name beyond both tables, not indexed", START + b"\x0f\x2f\x01a"),
    bad("an index that overflows", START + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    bad("an index that does not end", START + b"\xff\x80"),
    bad("a length that does not end", START + b"\x41\x7f\x80"),
    bad("a block that ends in a value", START + b"\x41\x05abc"),
    bad("a block that ends in a name", START + b"\x40\x05abc"),
    bad("a block that ends before a value", START + b"\x40\x01a"),
    bad("a block that ends behind a first octet", START + b"\x40"),
    bad("Huffman's code with the end of string in it", START + b"\x41\x84\xff\xff\xff\xff"),
    bad("Huffman's code padded with zeros", START + b"\x41\x81\x18"),
    bad("Huffman's code with a whole octet of padding", START + b"\x41\x82\x1f\xff"),
    bad("a table larger than was allowed", integer(4097, 5, 0x20) + GOOD, why=TABLE),
    bad("a table larger than was allowed, and no field", integer(4097, 5, 0x20), why=TABLE),
    bad("the table's size behind a field", b"\x82\x20" + GOOD[1:], why="RFC 7541 section 4.2"),
    bad("the table's size at the end", GOOD + b"\x20", why="RFC 7541 section 4.2"),
    broken("a bad block on a stream that we have reset", COMPRESSION_ERROR,
           OPEN, lambda codec: codec.reset(1, 8), head(1, encoded=b"\x80"), events=[post()],
           sent=[Rst(1, 8)], last=1),
    broken("a bad block of trailers", COMPRESSION_ERROR, OPEN + head(1, encoded=b"\x80"), events=[post()], last=1),
    broken("a bad block of a refused stream", COMPRESSION_ERROR, head(1) + head(3, encoded=b"\x80"),
           events=[request()], last=1, options=Http2Options(max_concurrent_streams=1)),
]  # fmt: skip

# Requests that an engine may know from those before them, for they differ in their path alone. And such that are none.
SIMILAR = head(1, encoded=START + AUTHORITY) + b"".join(
    head(number, encoded=b"\x82\x86\x04\x02/" + letter + b"\xbe")
    for number, letter in [(3, b"a"), (5, b"b"), (7, b"c")]
)
SEEN = [request(), request(3, target=b"/a"), request(5, target=b"/b"), request(7, target=b"/c")]


def ninth(path: bytes) -> bytes:
    return SIMILAR + head(9, encoded=b"\x82\x86" + path + b"\xbe")


KNOWN = [
    *(row(f"a known request with {name}", ninth(path), events=[*SEEN, request(9, target=target)])
      for name, path, target in [
          ("another path", b"\x04\x04/d?e", b"/d?e"),
          ("a path in Huffman's code", b"\x04\x81\x63", b"/"),
          ("a path that is never indexed", b"\x14\x02/d", b"/d"),
          ("a path whose name has another index", b"\x05\x02/d", b"/d"),
          ("a path of the static table", b"\x84", b"/"),
          ("a path of 126 bytes", b"\x04\x7e/" + b"p" * 125, b"/" + b"p" * 125),
          ("a path of 127 bytes", b"\x04\x7f\x00/" + b"p" * 126, b"/" + b"p" * 126),
      ]),
    *(reset(f"a known request with {name}", PROTOCOL_ERROR, ninth(path), events=SEEN, stream_id=9, told=False)
      for name, path in [
          ("no path", b""), ("an empty path", b"\x04\x00"), ("a relative path", b"\x04\x01d"),
          ("a blank in its path", b"\x04\x03/ d"), ("a line's end in its path", b"\x04\x04/\r\nd"),
          ("an asterisk", b"\x04\x01*"), ("two paths", b"\x04\x02/d\x04\x02/e"),
          ("the path of another name", b"\x06\x02/d"),
      ]),
    *(broken(f"a known request with {name}", COMPRESSION_ERROR, ninth(path), events=SEEN, last=7)
      for name, path in [
          ("a path that is cut out", b"\x04"), ("a path longer than it says", b"\x04\x01/d"),
          ("a path shorter than it says", b"\x04\x09/d"), ("a path in bad Huffman's code", b"\x04\x81\x60"),
          ("a path in Huffman's code with too much padding", b"\x04\x82\x63\xff"),
      ]),
    row("a known request with a path that is too long", ninth(b"\x04\x12/" + b"p" * 17),
        events=[*SEEN, Refused(9, 414, "")], options=SMALL),
    row("a known request with a path that makes its list too large", ninth(b"\x04\x28/" + b"p" * 39),
        events=[*SEEN, Refused(9, 431, "")], options=Http2Options(max_header_list=200)),
    row("a known request with a body",
        SIMILAR + head(9, [], False, encoded=b"\x82\x86\x04\x02/d\xbe") + data(9, b"x", True),
        events=[*SEEN, request(9, target=b"/d", end_stream=False), Body(9, b"x"), End(9, [])]),
    row("a known request, and a table that has changed since", SIMILAR
        + head(9, encoded=START + b"\x41\x01b") + head(11, encoded=b"\x82\x86\x04\x02/a\xbe"),
        events=[*SEEN, request(9, headers=[(b"host", b"b")]), request(11, target=b"/a", headers=[(b"host", b"b")])]),
    broken("a known request, and a table that is empty since", COMPRESSION_ERROR, SIMILAR
           + head(9, encoded=b"\x20" + START + b"\x01\x01a") + head(11, encoded=b"\x82\x86\x04\x02/a\xbe"),
           events=[*SEEN, request(9)], last=9),
]  # fmt: skip

ROWS = [*CONTINUED, *HPACK, *KNOWN]
