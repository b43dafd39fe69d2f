"""What a peer said, in the RFCs' words. The same events for every protocol version and every engine.

Those that come with every request or message write their ``__init__`` themselves: compiled, one that dataclass makes
takes four times as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from asgiri.types import Headers


@dataclass(slots=True, init=False)
class Request:
    """The head of a request (RFC 9110 section 6.2), judged by :mod:`asgiri.codec.rules`.

    ``target`` is the request target as it came; ``path`` and ``query`` are its parts, still percent-encoded, the
    query without its question mark. ``end_stream`` says that no body follows: then no :class:`End` does either.
    ``expect_continue``: the peer waits for a 100 before it sends the body (RFC 9110 section 10.1.1). ``protocol`` is
    what else the peer would speak: the ``:protocol`` of an extended CONNECT (RFC 8441), or over HTTP/1.1 the value of
    Upgrade, where Connection makes it one for us (RFC 9110 section 7.8); empty for all other requests.

    The last two are the connection's to say, once it has the request: what the logs and the application call it, and
    whom the logs show as its client, where that is not the peer.
    """

    stream_id: int
    method: str
    target: bytes
    path: bytes
    query: bytes
    headers: Headers
    http_version: str
    end_stream: bool
    expect_continue: bool
    protocol: bytes
    id: str = field(init=False, compare=False)
    client: str = field(init=False, compare=False)

    def __init__(
        self,
        stream_id: int,
        method: str,
        target: bytes,
        path: bytes,
        query: bytes,
        headers: Headers,
        http_version: str,
        end_stream: bool,
        expect_continue: bool = False,
        protocol: bytes = b"",
    ) -> None:
        self.stream_id = stream_id
        self.method = method
        self.target = target
        self.path = path
        self.query = query
        self.headers = headers
        self.http_version = http_version
        self.end_stream = end_stream
        self.expect_continue = expect_continue
        self.protocol = protocol
        self.id = ""
        self.client = ""


@dataclass(slots=True, init=False)
class Body:
    """A piece of the request's content; never empty."""

    stream_id: int
    data: bytes

    def __init__(self, stream_id: int, data: bytes) -> None:
        self.stream_id = stream_id
        self.data = data


@dataclass(slots=True, init=False)
class End:
    """The request is whole; ``trailers`` are its trailer fields, mostly none."""

    stream_id: int
    trailers: Headers

    def __init__(self, stream_id: int, trailers: Headers) -> None:
        self.stream_id = stream_id
        self.trailers = trailers


@dataclass(slots=True)
class Reset:
    """The exchange will never be whole: the peer gave up on it, went away in the middle, or broke its stream.

    ``code`` is the error code of the RST_STREAM frame that said so or that answered it (RFC 9113 section 7).
    """

    stream_id: int
    reason: str
    code: int = 0


@dataclass(slots=True)
class Refused:
    """A request that could be read and is not to be served: the stream is answered with ``status``, others go on.

    HTTP/2 only; comes instead of :class:`Request`, or once after it (a body over its limit). What still comes of its
    body is not told any more.
    """

    stream_id: int
    status: int
    reason: str


@dataclass(slots=True)
class PingAck:
    """The peer has answered a PING of ours (RFC 9113 section 6.7), and so has read all that went before it."""

    data: bytes


@dataclass(slots=True)
class GoAway:
    """The peer starts no more streams, and ends the connection once those that are open are over (section 6.8)."""

    code: int
    last_stream_id: int


@dataclass(slots=True)
class Failure:
    """The peer broke the protocol. The last event of a connection: nothing after it is parsed.

    ``status`` is the HTTP status that tells the peer so, ``reason`` one sentence without any of the peer's bytes.
    HTTP/2 tells it by a GOAWAY with ``code``, which the codec has made already, and has no status; a WebSocket by a
    Close frame with ``code``, which has been made as well.
    """

    status: int
    reason: str
    code: int = 0


Event = Request | Body | End | Reset | Refused | PingAck | GoAway | Failure


@dataclass(slots=True, init=False)
class Text:
    """A whole text message (RFC 6455 section 5.6): fragments joined, inflated, and valid UTF-8.

    ``size`` is its length in bytes of UTF-8.
    """

    text: str
    size: int

    def __init__(self, text: str, size: int) -> None:
        self.text = text
        self.size = size


@dataclass(slots=True, init=False)
class Binary:
    """A whole binary message."""

    data: bytes

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(slots=True)
class Ping:
    """The peer has sent a ping. The Pong that answers it (RFC 6455 section 5.5.3) waits in the codec already."""

    data: bytes


@dataclass(slots=True)
class Pong:
    """The peer has sent a pong, asked for or not."""

    data: bytes


@dataclass(slots=True)
class Close:
    """The peer's Close frame (RFC 6455 section 5.5.1). ``code`` is 1005 where it had none.

    The last event but none: what comes behind it is not parsed. Unless ours is out already, a Close frame that answers
    it waits in the codec.
    """

    code: int
    reason: str


WebSocketEvent = Text | Binary | Ping | Pong | Close | Failure
