"""What a peer said, in the RFCs' words. The same events for every protocol version and every engine."""

from __future__ import annotations

from dataclasses import dataclass

from asgiri.types import Headers


@dataclass(slots=True)
class Request:
    """The head of a request (RFC 9110 section 6.2), judged by :mod:`asgiri.codec.rules`.

    ``target`` is the request target as it came; ``path`` and ``query`` are its parts, still percent-encoded, the
    query without its question mark. ``end_stream`` says that no body follows: then no :class:`End` does either.
    ``expect_continue``: the peer waits for a 100 before it sends the body (RFC 9110 section 10.1.1).
    """

    stream_id: int
    method: str
    target: bytes
    path: bytes
    query: bytes
    headers: Headers
    http_version: str
    end_stream: bool
    expect_continue: bool = False


@dataclass(slots=True)
class Body:
    """A piece of the request's content; never empty."""

    stream_id: int
    data: bytes


@dataclass(slots=True)
class End:
    """The request is whole; ``trailers`` are its trailer fields, mostly none."""

    stream_id: int
    trailers: Headers


@dataclass(slots=True)
class Reset:
    """The request will never be whole: the peer gave up on it or went away in the middle."""

    stream_id: int
    reason: str


@dataclass(slots=True)
class Failure:
    """The peer broke the protocol. The last event of a connection: nothing after it is parsed.

    ``status`` is the HTTP status that tells the peer so, ``reason`` one sentence without any of the peer's bytes.
    """

    status: int
    reason: str


Event = Request | Body | End | Reset | Failure
