"""The parts that the table of requests is made of. What an engine must make of it is in test_requests.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asgiri.codec.events import Body, Event, Failure, Request
from asgiri.codec.rules import HttpLimits
from asgiri.types import Headers

GOOD = b"GET /good HTTP/1.1\r\nHost: good\r\n\r\n"
GARBAGE = b"\x00\xff GARBAGE"
GET = b"GET / HTTP/1.1"
POST = b"POST / HTTP/1.1"
A = b"Host: a"
HOST_A = [(b"host", b"a")]
BY_CHUNKS = (b"transfer-encoding", b"chunked")
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

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
    return post([*HOST_A, BY_CHUNKS], **more)


def content(data: bytes) -> list[Body]:
    """The events of a body's content, however long it is."""
    return [Body(1, data)] if data else []


def text(data: bytes) -> str:
    """Bytes as a part of a row's name."""
    return ascii(data)[2:-1]
