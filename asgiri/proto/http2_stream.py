"""One stream of HTTP/2 as an asyncio transport: for what speaks a protocol of its own over it (RFC 8441)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

from asgiri.asgi.answers import plain_answer, with_defaults
from asgiri.codec.events import Request
from asgiri.codec.h2_wire import ErrorCode
from asgiri.errors import LocalProtocolError
from asgiri.proto.carrier import Carried
from asgiri.proto.connection import HIGH_WATER, Shared
from asgiri.proto.http2_exchange import Progress, progress_of
from asgiri.types import Headers

if TYPE_CHECKING:
    from asgiri.proto.http2 import Http2Connection


class Side(Enum):
    """One direction of the stream.

    WAITING  (ours) the CONNECT is not answered yet
    OPEN     bytes may come
    ENDED    END_STREAM was there
    GONE     the stream was reset, or the connection is lost; then both sides are
    """

    WAITING = "waiting"
    OPEN = "open"
    ENDED = "ended"
    GONE = "gone"


WAITING: Final = Side.WAITING
OPEN: Final = Side.OPEN
ENDED: Final = Side.ENDED
GONE: Final = Side.GONE


class HTTP2StreamTransport(asyncio.Transport):
    """The stream of an extended CONNECT, as a transport; flow control is the stream's own, both ways.

    The CONNECT is answered with :meth:`accept`, then bytes may be written; or with :meth:`refuse`, and that is all.
    Its protocol is an :class:`asyncio.Protocol`: it is told of a reset stream by ``connection_lost`` with a
    ConnectionResetError. For one that is a :class:`asgiri.proto.carrier.Carried`, it is a Carrier.
    """

    def __init__(self, connection: Http2Connection, request: Request) -> None:
        super().__init__()
        self.number = request.stream_id
        self._connection = connection
        self._request = request
        self._protocol: asyncio.Protocol | None = None
        self._output = WAITING
        self._input = ENDED if request.end_stream else OPEN
        self._high = HIGH_WATER
        self._low = HIGH_WATER // 4
        self._status = 0
        self._size = 0  # bytes written
        self._began = perf_counter()
        self._progress: Progress = None
        self._arrived: deque[bytes] = deque()  # while reading is paused
        self._unread = 0  # bytes of it
        self._reading = True
        self._paused = False  # the protocol's writing is
        self._closing = False
        self._carried: Carried | None = None  # the protocol, where it is one

    @property
    def shared(self) -> Shared:
        return self._connection.shared

    @property
    def template(self) -> dict[str, Any]:
        """What the scopes of all requests of the connection have in common."""
        return self._connection.template

    @property
    def is_first(self) -> bool:
        """Whether the connection has had no request before."""
        return self._connection.is_first

    def request_id(self) -> str:
        return self._connection.request_id(self.number)

    def begin(self, protocol: asyncio.Protocol) -> None:
        """Let the protocol have it. Whoever makes the transport calls this, once."""
        self.set_protocol(protocol)
        protocol.connection_made(self)
        if self._input is ENDED:
            self._eof()

    # The answer to the CONNECT

    def accept(self, headers: Headers, status: int = HTTPStatus.OK) -> None:
        """Answer the CONNECT with success. Raises LocalProtocolError for fields that cannot be sent."""
        if self._output is not WAITING:
            return
        connection = self._connection
        connection.codec.send_head(self.number, status, with_defaults(list(headers), connection.shared.context))
        self._status = status
        self._output = OPEN
        connection.flush_soon()
        meter = connection.shared.meter
        if meter is not None and 200 <= status < 300:  # the access log waits for the end of what comes now
            meter.http2.ended(self._request.method, status, self._began)
            if self._carried is not None:
                meter.http2.opened()

    def refuse(self, status: int, reason: str = "", headers: Headers | None = None, body: bytes = b"") -> None:
        """Answer the CONNECT with an error, and end: in ``headers`` and ``body``, or with ``reason`` alone.

        Once it is accepted, the stream is reset instead.
        """
        if self._output is not WAITING:
            self.abort()
            return
        if headers is None:
            headers, body = plain_answer(HTTPStatus(status), reason)
        self.deny(status, headers, body)

    def deny(self, status: int, headers: Headers, data: bytes) -> None:
        """:meth:`refuse`, as a Carrier does it. Raises LocalProtocolError for a status that would accept it."""
        if self._output is not WAITING:
            return
        connection = self._connection
        check_denial(status)
        connection.codec.answer(self.number, status, with_defaults(list(headers), connection.shared.context), data)
        self._status = status
        self._size = len(data)
        self._output = ENDED
        self.close()

    def deny_head(self, status: int, headers: Headers) -> None:
        check_denial(status)
        self.accept(headers, status)

    def deny_body(self, data: bytes, end_stream: bool) -> None:
        if self._output is OPEN:
            self.write(data)
            if end_stream:
                self.close()

    def drain(self) -> Awaitable[object] | None:
        """As a Carrier does it: the protocol is told."""
        return None

    # asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._output is WAITING:
            raise RuntimeError("write() was called before accept()")
        if self._output is ENDED and not self._closing:
            raise RuntimeError("write() was called after write_eof()")
        if self._output is not OPEN or self._closing or not data:
            return
        connection = self._connection
        connection.codec.send_body(self.number, bytes(data), False)
        self._size += len(data)
        connection.flush_soon()
        self._pace_writing()

    def flush_soon(self, at_once: bool) -> None:
        """As a Carrier does it: all streams of the connection leave in one write, at the end of the turn."""
        del at_once
        self._connection.posted.append(self)
        self._connection.flush_soon()

    def push(self) -> None:
        """Let the protocol write what waits."""
        if self._carried is not None:
            self._carried.push()

    def write_eof(self) -> None:
        """END_STREAM: the peer may go on to write."""
        if self._output is WAITING:
            raise RuntimeError("write_eof() was called before accept()")
        if self._output is OPEN:
            self._output = ENDED
            self._connection.codec.send_body(self.number, b"", True)
            self._connection.flush_soon()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        """End the stream once what was written is out; what still comes is thrown away."""
        if self._closing:
            return
        self._closing = True
        self._forget_arrived()
        if self._output is WAITING:
            self._cut(ErrorCode.CANCEL)
        else:
            self.write_eof()
            self._connection.tell_when_drained(self)
            self._connection.flush_soon()

    def linger(self) -> None:
        """As :meth:`close`: the end of a stream takes nothing from what went out on it."""
        self.close()

    def abort(self) -> None:
        """Reset the stream: what RST is to TCP (RFC 8441 section 5)."""
        self._closing = True
        self._cut(ErrorCode.CANCEL)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._connection.shared.loop.call_soon(self._deliver)

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be at least low ({low}), and low at least 0")
        self._high, self._low = high, low
        self._pace_writing()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._connection.codec.held(self.number)

    @property
    def unsent(self) -> int:
        return self._connection.codec.held(self.number)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)
        self._carried = protocol if isinstance(protocol, Carried) else None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the connection's transport knows; ``http2_stream`` is the stream's number."""
        return self.number if name == "http2_stream" else self._connection.transport.get_extra_info(name, default)

    # What the connection tells (asgiri.proto.http2_life.Stream)

    def body(self, data: bytes) -> None:
        if self._closing or self._input is not OPEN:
            self._connection.codec.consumed(self.number, len(data))
        else:
            self._arrived.append(data)
            self._unread += len(data)
            if self._reading:
                self._deliver()

    def end(self) -> None:
        if self._input is OPEN:
            self._input = ENDED
            if not self._arrived:
                self._eof()

    def peer_ended(self) -> None:
        """It may still read what is written here. Where END_STREAM has not come, the codec resets the stream."""

    def lost(self) -> None:
        """The stream is no more."""
        if self._output is GONE:
            return
        error = None if self._closing else ConnectionResetError("the stream was reset, or its connection is lost")
        self._output = self._input = GONE
        self._closing = True
        self._arrived.clear()
        self._unread = 0
        connection = self._connection
        connection.forget(self.number)
        connection.log(self._request, self._status, self._size, self._began)
        self._count_end()
        if self._protocol is not None:
            connection.shared.loop.call_soon(self._protocol.connection_lost, error)

    def _count_end(self) -> None:
        meter = self._connection.shared.meter
        if meter is None:
            return
        if not 200 <= self._status < 300:  # else it was counted when it was accepted
            if self._status:
                meter.http2.ended(self._request.method, self._status, self._began)
            else:
                meter.http2.ended_in_pieces(self._request.method, 0, self._began, 0.0)
        elif self._carried is not None:
            meter.http2.websockets -= 1

    def drained(self) -> bool:
        held = self._connection.codec.held(self.number)
        if self._paused and held <= self._low:
            self._paused = False
            if self._protocol is not None and not self._closing:
                self._protocol.resume_writing()
        if self._closing and not held:
            if self._input is OPEN:  # the other half is closed with ours, and END_STREAM is out before this
                self._cut(ErrorCode.NO_ERROR)
            else:
                self.lost()
        return self._output is GONE or not (self._closing or self._paused)

    def check(self, now: float, crowded: bool) -> None:
        del crowded
        connection = self._connection
        limit = connection.shared.times.write
        self._progress = progress_of(connection, self.number, self._size, self._progress, now)
        if self._progress is not None and 0 < limit < now - self._progress[1]:
            self._cut(ErrorCode.CANCEL)
        elif self._carried is not None:
            self._carried.check(now)

    def begin_drain(self) -> None:
        if self._carried is not None:
            self._carried.begin_drain()

    @property
    def unread(self) -> int:
        return self._unread

    # Between them

    def _deliver(self) -> None:
        """Give the protocol what has arrived, as long as it reads."""
        while self._arrived and self._reading and not self._closing:
            assert self._protocol is not None
            data = self._arrived.popleft()
            self._unread -= len(data)
            self._credit(len(data))
            self._protocol.data_received(data)
        if self._input is ENDED and not self._arrived and self._reading and not self._closing:
            self._eof()

    def _eof(self) -> None:
        """The peer has ended its side, and the protocol has had all of it."""
        if self._output is GONE or self._closing or self._protocol is None:
            return
        if not self._protocol.eof_received():
            self.close()

    def _credit(self, size: int) -> None:
        self._connection.codec.consumed(self.number, size)
        self._connection.flush_soon()

    def _forget_arrived(self) -> None:
        if self._unread:
            self._credit(self._unread)
        self._arrived.clear()
        self._unread = 0

    def _pace_writing(self) -> None:
        if not self._paused and not self._closing and self._connection.codec.held(self.number) > self._high:
            self._paused = True
            self._connection.tell_when_drained(self)
            if self._protocol is not None:
                self._protocol.pause_writing()

    def _cut(self, code: ErrorCode) -> None:
        if self._output is not GONE:
            codec = self._connection.codec
            self._size -= codec.held(self.number)  # what the peer never gets
            codec.reset(self.number, code)
            self.lost()
            self._connection.flush_soon()


def check_denial(status: int) -> None:
    """Raise LocalProtocolError for a status that means success to an extended CONNECT (RFC 8441 section 5)."""
    if 200 <= status < 300:
        raise LocalProtocolError(f"status {status} would accept the WebSocket, which is asked for over HTTP/2")


# Takes an extended CONNECT: gives the protocol for it, which may accept it at once or later.
MakeTunnel = Callable[[Request, HTTP2StreamTransport], asyncio.Protocol]
