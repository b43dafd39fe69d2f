"""The table of requests: the limits, kept and passed by one."""

from __future__ import annotations

from asgiri.codec.events import Body, End
from tests.codec.rows import (
    CHUNKED,
    GET,
    HOST_A,
    SMALL,
    A,
    chunked,
    head,
    post,
    refused,
    row,
)

AT_THE_LIMITS = [
    row(
        "all limits just kept",
        head(b"POST /" + b"p" * 25 + b" HTTP/1.1", A, b"Content-Length: 8", b"X: " + b"v" * 38, b"Y:") + b"01234567",
        post(
            [*HOST_A, (b"content-length", b"8"), (b"x", b"v" * 38), (b"y", b"")],
            target=b"/" + b"p" * 25,
            path=b"/" + b"p" * 25,
        ),
        Body(1, b"01234567"),
        End(1, []),
        limits=SMALL,
    ),
    row(
        "all limits of trailers just kept",
        CHUNKED + b"8\r\n01234567\r\n0\r\nA: " + b"v" * 63 + b"\r\nB:\r\nC:\r\nD:\r\n\r\n",
        chunked(),
        Body(1, b"01234567"),
        End(1, [(b"a", b"v" * 63), (b"b", b""), (b"c", b""), (b"d", b"")]),
        limits=SMALL,
    ),
]

OVER_THE_LIMITS = [
    refused("a long request line", 414, head(b"GET /" + b"p" * 27 + b" HTTP/1.1", A), limits=SMALL),
    refused("a long request line of blanks", 414, b" " * 41 + b"\r\n", limits=SMALL),
    refused(
        "a long request line and long fields",
        414,
        head(b"GET /" + b"p" * 40 + b" HTTP/1.1", A, b"X: " + b"v" * 200),
        limits=SMALL,
    ),
    refused("a request line without an end", 414, b"GET /" + b"p" * 500, limits=SMALL),
    refused("a method without an end", 414, b"G" * 500, limits=SMALL),
    refused("a control character within the limit of a line", 400, b"G" * 39 + b"\x00" + b"G" * 60, limits=SMALL),
    refused("a control character beyond the limit of a line", 414, b"G" * 40 + b"\x00" + b"G" * 60, limits=SMALL),
    refused("CR at the limit of a line", 414, b"G" * 40 + b"\rG" + b"G" * 60, limits=SMALL),
    refused("many fields", 431, head(GET, A, b"A:", b"B:", b"C:", b"D:"), limits=SMALL),
    refused("many fields, and none is a Host", 431, head(GET, b"A:", b"B:", b"C:", b"D:", b"E:"), limits=SMALL),
    refused("many fields and a malformed one", 431, head(GET, A, b"A:", b"B:", b"C:", b"D", b"E:"), limits=SMALL),
    refused("a malformed field and many", 400, head(GET, A, b"A:", b"B", b"C:", b"D:", b"E:"), limits=SMALL),
    refused("many fields in another version", 505, head(b"GET / HTTP/2.0", *[b"A:"] * 5), limits=SMALL),
    refused("many fields and no target", 431, head(b"GET a HTTP/1.1", *[b"A:"] * 5), limits=SMALL),
    refused("a long field", 431, head(GET, A, b"X: " + b"v" * 67), limits=SMALL),
    refused("a long first field", 431, head(GET, b"X: " + b"v" * 76), limits=SMALL),
    refused("long fields, each of them short", 431, head(GET, *[b"X: " + b"v" * 20] * 4), limits=SMALL),
    refused("long fields in another version", 505, head(b"GET / HTTP/2.0", b"X: " + b"v" * 90), limits=SMALL),
    refused("a field without an end", 431, head(GET, A)[:-2] + b"X: " + b"v" * 500, limits=SMALL),
    refused(
        "a control character within the limit of fields",
        400,
        head(GET, b"X: " + b"v" * 70 + b"\x01" * 60),
        limits=SMALL,
    ),
    refused(
        "a control character beyond the limit of fields",
        431,
        head(GET, b"X: " + b"v" * 80 + b"\x01" * 60),
        limits=SMALL,
    ),
]

ACCEPTED = [*AT_THE_LIMITS]
REFUSED = [*OVER_THE_LIMITS]
