"""What every HTTP engine can do. Four kinds of method: bytes in, sends, bytes out, and questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from asgiri.codec.events import Event, Request, WebSocketEvent
from asgiri.codec.framing import RequestReader
from asgiri.codec.rules import HttpLimits
from asgiri.types import Headers


class HttpCodec(Protocol):
    """One connection's HTTP, sans-I/O.

    The ``send_*`` verbs raise LocalProtocolError, and leave the codec as it was, when the head cannot be sent as
    it is (a field with CR, LF or NUL, a status that is none). What they make waits until :meth:`take`.
    """

    def receive(self, data: bytes) -> list[Event]:
        """Events that ``data`` completes; ``b""`` is the peer's end of file. Never raises for a peer's bytes."""
        ...

    def send_informational(self, stream_id: int, status: int, headers: Headers) -> None:
        """An interim answer, 100 to 199 (RFC 9110 section 15.2)."""
        ...

    def send_head(self, stream_id: int, status: int, headers: Headers) -> None:
        """The head of the final answer; the engine chooses the framing from its fields."""
        ...

    def send_body(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """A piece of the answer's content; dropped where the answer may have none (HEAD, 204, 304)."""
        ...

    def send_trailers(self, stream_id: int, trailers: Headers) -> None:
        """End the answer with trailer fields; they are dropped where the framing has no place for them.

        Raises LocalProtocolError for fields that may not be any (RFC 9110 section 6.5.1).
        """
        ...

    def take(self) -> bytes:
        """The bytes to write that gathered since the last call."""
        ...


class Http1Codec(RequestReader):
    """An HTTP/1.1 engine. It has one exchange at a time, so it adds the step from one to the next.

    A base class and no Protocol: compiled, its methods are a few times as quick to call. ``rest`` is what has come and
    was not read yet; behind a whole request, what is of the next ones. ``sent`` counts the bytes of content of the
    present answer so far, without its framing.
    """

    __slots__ = ("sent",)

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__(limits)
        self.sent = 0

    # As HttpCodec says

    def send_informational(self, stream_id: int, status: int, headers: Headers) -> None:
        raise NotImplementedError

    def send_head(self, stream_id: int, status: int, headers: Headers) -> None:
        raise NotImplementedError

    def send_body(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        raise NotImplementedError

    def send_trailers(self, stream_id: int, trailers: Headers) -> None:
        raise NotImplementedError

    def take(self) -> bytes:
        raise NotImplementedError

    # Its own

    @property
    def reusable(self) -> bool:
        """The exchange is over on both sides and another may follow (RFC 9112 section 9.3)."""
        raise NotImplementedError

    @property
    def closing(self) -> bool:
        """The answer is complete and has said, or implied, that the connection ends with it."""
        raise NotImplementedError

    def begin_raw(self, stream_id: int, size: int) -> bool:
        """Announce ``size`` bytes of content that the connection writes itself, behind what :meth:`take` gives now.

        False when there is nothing to write: the answer may have no content, or ``size`` is 0.
        """
        raise NotImplementedError

    def end_raw(self, stream_id: int, end_stream: bool) -> None:
        """These bytes are written; called only when :meth:`begin_raw` said True."""
        raise NotImplementedError

    def renew(self) -> bool:
        """Leave the exchange when it is over and nothing of the next one has come; whether that was so."""
        raise NotImplementedError

    def answer(self, stream_id: int, status: int, headers: Headers, data: bytes) -> bytes:
        """A whole answer at once: what ``send_head``, ``send_body`` and :meth:`take` give, for less."""
        raise NotImplementedError


class Http2Codec(HttpCodec, Protocol):
    """The server side of one HTTP/2 connection (RFC 9113). The server's preface waits for the first :meth:`take`.

    Answers wait here, not in the transport: a ``send_*`` verb never fails, and never blocks, because of a window. A
    verb for a stream that is over (the peer reset it, the connection failed) does nothing.
    """

    def upgrade(self, settings: bytes, request: Request) -> list[Event]:
        """Begin as what an HTTP/1.1 request was upgraded to (RFC 7540 section 3.2): it becomes stream 1.

        ``settings`` is the payload of a SETTINGS frame, decoded from HTTP2-Settings. The request is half-closed if it
        has ``end_stream``; else :meth:`upgraded_body` brings its body. The client's preface is still to come.
        Gives the Request event for stream 1, or a Failure for settings that are none.
        """
        ...

    def upgraded_body(self, end_stream: bool) -> None:
        """The body of the upgraded request, which comes over HTTP/1.1, is complete."""
        ...

    def answer(self, stream_id: int, status: int, headers: Headers, data: bytes) -> None:
        """A whole answer at once: what ``send_head`` and a last ``send_body`` do, for less."""
        ...

    def reset(self, stream_id: int, code: int) -> None:
        """End the stream with RST_STREAM, and drop what it still held."""
        ...

    def consumed(self, stream_id: int, size: int) -> None:
        """The application took ``size`` bytes of the request's body: the peer may send as many more.

        WINDOW_UPDATE frames are made in time, not for each call. Bodies that nobody will read are credited by the codec
        itself.
        """
        ...

    def held(self, stream_id: int) -> int:
        """Bytes of the answer's content that wait for a window or for :meth:`take`; 0 for a stream that is over."""
        ...

    @property
    def holds(self) -> bool:
        """Whether :meth:`held` is more than 0 for any stream."""
        ...

    def blocked(self, stream_id: int) -> bool:
        """Whether the stream holds bytes that only a WINDOW_UPDATE of the peer's will let go."""
        ...

    def starved(self, stream_id: int) -> bool:
        """Whether it is :meth:`blocked` though its own window is open: others have spent the connection's."""
        ...

    def sent_on(self, stream_id: int) -> int:
        """Bytes of content of the stream's answer so far, held ones included, without their framing."""
        ...

    def take(self, most: int = 1 << 18) -> bytes:
        """Frames to write: all control and HEADERS frames, and DATA as windows let, ``most`` bytes or a bit more.

        DATA goes round between streams of one urgency (RFC 9218), a frame each; lower urgency numbers first; streams
        that are not incremental one after the other. ``b""`` when there is nothing to write now.
        """
        ...

    def go_away(self, last_stream_id: int | None, code: int = 0) -> None:
        """Send GOAWAY; None is the last stream that was begun: from then on new streams get REFUSED_STREAM.

        2**31 - 1 announces the end without refusing anything yet (RFC 9113 section 6.8).
        """
        ...

    def ping(self, data: bytes) -> None:
        """Send a PING with these 8 bytes; a PingAck event answers it."""
        ...

    def tick(self, seconds: float) -> None:
        """So much time has passed: the budgets of what a peer may make us do fill up again."""
        ...

    @property
    def streams(self) -> int:
        """How many streams are open or half-closed, on whichever side."""
        ...

    @property
    def in_head(self) -> bool:
        """The client's preface, or a header block, has begun or is still due, and is not complete."""
        ...

    @property
    def last_stream_id(self) -> int:
        """The highest stream that a request has begun."""
        ...

    @property
    def closed(self) -> bool:
        """Nothing is parsed any more: a connection error, or the peer's end of file."""
        ...


@dataclass(frozen=True, slots=True)
class Deflate:
    """What permessage-deflate was agreed on, as the server has it (RFC 7692 section 7.1).

    Window bits are 9 to 15 for the server, whose zlib has no window of 8 to deflate with, and 8 to 15 for the client.
    No context takeover: each message is deflated on its own.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


class WebSocketCodec:
    """The server side of one WebSocket, sans-I/O, behind its opening handshake (RFC 6455 sections 5 to 7).

    A base class and no Protocol, as :class:`Http1Codec` is. ``max_message`` is the most bytes that a message may have,
    inflated; 0 is no limit. ``deflate`` is None where messages are not compressed. The codec itself answers pings and
    a Close frame; what it makes waits until :meth:`take`. Once a Close frame was made, by whoever's doing, the
    ``send_*`` verbs do nothing.
    """

    __slots__ = ()

    def __init__(self, max_message: int, deflate: Deflate | None = None) -> None:
        raise NotImplementedError

    def receive(self, data: bytes) -> list[WebSocketEvent]:
        """Events that ``data`` completes. Never raises for a peer's bytes; after Close or Failure it gives none.

        Failure has the code that the peer is told: 1002, 1007 or 1009.
        """
        raise NotImplementedError

    def ahead(self, data: bytes, at: int) -> int:
        """How many bytes from ``at`` on, which are received next, are of one frame: what is left of the one that has
        begun, else the one that begins there. It may be more than there are.

        0 where its head is not whole or not as it must be, and once nothing is read any more. Nothing changes by it.
        """
        raise NotImplementedError

    def send_text(self, text: str) -> None:
        """A whole message. Raises LocalProtocolError for a text with surrogates, which UTF-8 has none of."""
        raise NotImplementedError

    def send_binary(self, data: bytes) -> None:
        """A whole message."""
        raise NotImplementedError

    def send_ping(self, data: bytes) -> None:
        """A ping with up to 125 bytes."""
        raise NotImplementedError

    def send_close(self, code: int, reason: str = "") -> None:
        """A Close frame; 1005 sends one without a code. What the peer still sends is told until its own Close frame.

        Raises LocalProtocolError for a code that no endpoint may send (RFC 6455 section 7.4), or a reason of more than
        123 bytes of UTF-8.
        """
        raise NotImplementedError

    def take(self) -> bytes:
        """The bytes to write that gathered since the last call."""
        raise NotImplementedError

    @property
    def closing(self) -> bool:
        """A Close frame of ours has been made."""
        raise NotImplementedError
