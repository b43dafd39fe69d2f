"""The table of requests: the end of file, everywhere. What is cut off never looks whole."""

from __future__ import annotations

from asgiri.codec.events import Body, Reset
from tests.codec.rows import (
    CHUNKED,
    GET,
    POST,
    A,
    chunked,
    content,
    head,
    post,
    refused,
    request,
    row,
    text,
    with_length,
)

GONE = Reset(1, "")

ENDED = [
    row("end of file before anything", b"", eof=True),
    row("end of file after empty lines", b"\r\n\r\n", eof=True),
    row("end of file after a request", head(GET, A), request(), eof=True),
    row("end of file after a request and an empty line", head(GET, A) + b"\r\n", request(), eof=True),
    row(
        "end of file after a request of HTTP/1.0",
        head(b"GET / HTTP/1.0"),
        request(headers=[], http_version="1.0"),
        eof=True,
        last=True,
    ),
    *[
        refused(f"end of file after {text(data)}", 400, data, eof=True)
        for data in (
            *(b"G", b"GET", b"GET /", b"GET / HTTP/1.1", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\n", b"\r\nG"),
            *(b"GET / HTTP/1.1\r\nHost", b"GET / HTTP/1.1\r\nHost: a", b"GET / HTTP/1.1\r\nHost: a\r\n"),
            b"GET / HTTP/1.1\r\nHost: a\r\n\r",
        )
    ],
    row("end of file before a body", head(POST, A, b"Content-Length: 3"), with_length(b"3"), GONE, eof=True),
    row(
        "end of file in a body",
        head(POST, A, b"Content-Length: 3") + b"ab",
        with_length(b"3"),
        Body(1, b"ab"),
        GONE,
        eof=True,
    ),
    row(
        "end of file in a body of HTTP/1.0",
        head(b"POST / HTTP/1.0", b"Content-Length: 3") + b"ab",
        post([(b"content-length", b"3")], http_version="1.0"),
        Body(1, b"ab"),
        GONE,
        eof=True,
    ),
    row(
        "end of file in a body of the greatest length",
        head(POST, A, b"Content-Length: " + b"9" * 18) + b"ab",
        with_length(b"9" * 18),
        Body(1, b"ab"),
        GONE,
        eof=True,
    ),
    row(
        "end of file in a chunk of the greatest size",
        CHUNKED + b"f" * 16 + b"\r\nab",
        chunked(),
        Body(1, b"ab"),
        GONE,
        eof=True,
    ),
    *[
        row(f"end of file after {text(data)}", CHUNKED + data, chunked(), *content(body), GONE, eof=True)
        for data, body in [
            *[(data, b"") for data in (b"", b"2", b"2\r", b"2;a=", b'2;a="', b"2;a\r", b"2\r\n", b"g", b"0", b"0\r")],
            *[
                (data, b"")
                for data in (b"0\r\n", b"0\r\n\r", b"0\r\nX", b"0\r\nX: 1", b"0\r\nX: 1\r\n", b"0\r\nX: 1\r\n\r")
            ],
            *[
                (data, b"ab")
                for data in (b"2\r\nab", b"2\r\nab\r", b"2\r\nab\r\n", b"2\r\nab\r\n0", b"2\r\nab\r\n0\r\n")
            ],
            *[(data, b"a") for data in (b"2\r\na", b"2;a\r\na", b"1\r\na\r\n2\r\n", b"1\r\na\r\n;a")],
        ]
    ],
]
