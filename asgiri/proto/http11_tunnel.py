"""The byte stream of HTTP/1.1 after a 101: what HTTP2StreamTransport is to HTTP/2.

HANDSHAKE --accept--> OPEN --linger--> LINGERING --the peer's end, or its time is over--> CLOSED
                      OPEN --close, abort, the peer's end-------------------------------> CLOSED
                      OPEN --TLS is over, and bytes wait--> LEFT --the last of them-----> CLOSED

One whose request is answered with anything else stays in HANDSHAKE, and is forgotten: the bytes are still HTTP/1.1's.
"""

from __future__ import annotations

from collections.abc import Awaitable
from enum import Enum
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from asgiri.asgi.session import Session
from asgiri.codec.events import Request
from asgiri.proto.carrier import PORTION, Carried
from asgiri.proto.connection import LINGER_SECONDS, Connection
from asgiri.proto.exchange import VERSIONS
from asgiri.proto.websocket import WebSocketProtocol
from asgiri.types import Headers

if TYPE_CHECKING:
    from asgiri.proto.http11 import Http11Connection


class Life(Enum):
    """HANDSHAKE: the bytes are HTTP/1.1's. LINGERING: our side is over, and what still comes is thrown away, so that
    the peer gets to read what went out. LEFT: the transport is gone, and what came by it waits for the protocol.
    CLOSED: the transport is closed or closing."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    LINGERING = "lingering"
    LEFT = "left"
    CLOSED = "closed"


class Reading(Enum):
    """ON: the transport reads. BEHIND: the protocol does, but first it is given what waits, and meanwhile the transport
    does not, or ever more would wait. OFF: neither does."""

    ON = "on"
    BEHIND = "behind"
    OFF = "off"


HANDSHAKE: Final = Life.HANDSHAKE
OPEN: Final = Life.OPEN
LINGERING: Final = Life.LINGERING
LEFT: Final = Life.LEFT
CLOSED: Final = Life.CLOSED
ON: Final = Reading.ON
BEHIND: Final = Reading.BEHIND
OFF: Final = Reading.OFF


class Http11Tunnel(Connection):
    """A connection that leaves HTTP/1.1 behind, once its request is accepted: a :class:`asgiri.proto.carrier.Carrier`.

    Until then it speaks through ``before``, whose request it is.
    """

    __slots__ = (
        "_before",
        "_began_exactly",
        "_peer_ended",
        "_reading",
        "_request",
        "_rest",
        "_session",
        "_since",
        "_size",
        "_state",
        "protocol",
    )

    protocol: Carried

    def __init__(self, before: Http11Connection, request: Request) -> None:
        super().__init__(before.shared)
        self._serial = before._serial
        self._before: Http11Connection | None = before
        self._request = request
        self._session: Session | None = None
        self._began_exactly = perf_counter()
        self._state = HANDSHAKE
        self._since = 0.0  # when it began to linger
        self._rest = b""  # what came behind the request, or while the protocol paused
        self._peer_ended = False  # it has ended its side, and the protocol is not told yet
        self._reading = ON
        self._size = 0  # bytes written since the 101

    def carries(self, protocol: Carried, session: Session) -> None:
        """Let the protocol have it, and its session speak to ``before``. Whoever makes the tunnel calls this, once."""
        self.protocol = protocol
        self._session = session

    def cut_stream(self) -> None:
        self.abort()

    # The answer to the request

    def accept(self, headers: Headers) -> None:
        before = self._before
        if before is None or before.has_ended:
            return
        self._rest, self._peer_ended = before.hand_over(headers)
        self._before = self._session = None
        self._state = OPEN
        self.take_over(before)
        if self._writable is not None:  # earlier answers, and the 101, fill the transport
            self.protocol.pause_writing()

    def deny(self, status: int, headers: Headers, data: bytes) -> None:
        if self._before is not None and self._session is not None:
            self._before.send_answer(self._session, status, headers, data)
            self._before = self._session = None

    def deny_head(self, status: int, headers: Headers) -> None:
        if self._before is not None and self._session is not None:
            self._before.send_head(self._session, status, headers)

    def deny_body(self, data: bytes, end_stream: bool) -> None:
        if self._before is not None and self._session is not None:
            self._before.send_body(self._session, data, end_stream)
            if end_stream:
                self._before = self._session = None

    def drain(self) -> Awaitable[object] | None:
        before, session = self._before, self._session
        return None if before is None or session is None else before.drain(session)

    # Bytes in

    def speaks(self) -> str:
        return "websocket"

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self._state is OPEN:
            if self._rest:
                data, self._rest = self._rest + data, b""
            if len(data) <= PORTION:
                self.protocol.data_received(data)
            else:
                self._give(data)

    def _give(self, data: bytes) -> None:
        """Give the protocol so much at once that it can pause in time; what is left then waits."""
        at = 0
        end = len(data)
        while at < end and self._is_taken():
            stop = min(at + self.protocol.portion(data, at), end)
            # Compiled, a slice is a copy even of all of it.
            self.protocol.data_received(data if stop - at == end else data[at:stop])
            at = stop
        # What comes behind its end is of no use.
        self._rest = data[at:] if at < end and self._is_open() else b""

    def _is_open(self) -> bool:
        state = self._state
        return state is OPEN or state is LEFT

    def _is_taken(self) -> bool:
        return self._is_open() and self._reading is not OFF

    def eof_received(self) -> bool:
        """The peer sends nothing more: what it may still read, its protocol has said by now."""
        if self._state is OPEN:
            self._deliver_rest()
            if self._rest:
                self._peer_ended = True
                return self.secure is None  # TLS does not wait for the protocol
            self.protocol.eof_received()
        self._state = CLOSED
        return False

    def _deliver_rest(self) -> None:
        if self._rest:
            data, self._rest = self._rest, b""
            self._give(data)

    def _deliver(self) -> None:
        """What waits, as far as the protocol takes it; then the peer's end if that has come, or what comes next."""
        self._deliver_rest()
        if self._rest or not self._is_open():
            return
        if self._state is LEFT:
            self._state = CLOSED
            self.protocol.connection_lost(None)
        elif self._peer_ended:
            self.eof_received()
            self.transport.close()
        elif self._reading is BEHIND:
            self._read_on()

    def pause_reading(self) -> None:
        if self._is_open():
            if self._reading is ON and self._state is OPEN:
                self.transport.pause_reading()
            self._reading = OFF

    def resume_reading(self) -> None:
        if not self._is_open():
            return
        if self._rest or self._peer_ended:
            if self._reading is OFF:
                self._reading = BEHIND
            self.shared.loop.call_soon(self._deliver)
        else:
            self._read_on()

    def _read_on(self) -> None:
        if self._reading is not ON:
            self._reading = ON
            self.transport.resume_reading()

    # Bytes out

    def write(self, data: bytes) -> None:
        if self._state is OPEN:
            size = len(data)
            self._size += size
            self._written += size
            self.transport.write(data)
            self.heed_close()

    def flush_soon(self, at_once: bool) -> None:
        outbox = self.shared.outbox
        if not at_once:
            outbox.keep(self)
        elif not outbox.takes(self):
            self.protocol.push()

    def push(self) -> None:
        self.protocol.push()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.protocol.resume_writing()

    @property
    def unsent(self) -> int:
        if self._state is not OPEN:
            return 0
        return self.transport.get_write_buffer_size() + self._in_kernel(0)[0]

    # Ends

    def close(self) -> None:
        if self._state is OPEN or self._state is LINGERING:
            self._state = CLOSED
            self.transport.close()

    def linger(self) -> None:
        if self._state is not OPEN:
            return
        self._state = LINGERING
        self._since = self.shared.now
        if self.secure is not None:  # TLS has no half to end, but the time is given
            self._read_on()
        elif self._peer_ended or not self.transport.can_write_eof():
            self.close()
        else:
            try:
                self.transport.write_eof()
            except OSError:  # ENOTCONN: the peer has reset the connection, and the loop does not know it yet
                self.abort()
            else:
                self._read_on()

    def abort(self) -> None:
        if self._state is HANDSHAKE:
            if self._before is not None and self._session is not None:
                self._session.lost()
                self._before.abort()
            return
        if self._state is LEFT:
            self._rest = b""
            self._deliver()
            return
        self.push()
        if self.transport.get_write_buffer_size():
            self.reset_transport()  # a part of what was said must not look like all of it
        self._state = CLOSED
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._peer_ended and self._rest and self._state is OPEN:
            self._state = LEFT
        else:
            self._state = CLOSED
            self.protocol.connection_lost(exc)
        self._log()
        if self.shared.meter is not None:
            self.shared.meter.http1.websockets -= 1
        super().connection_lost(exc)

    def _log(self) -> None:
        """Put the request in the access log, now that all of its answer is known."""
        log, request = self.shared.access_log, self._request
        if log is not None:
            log.record(
                request.client or self.client,
                request.method,
                request.target,
                VERSIONS[request.http_version],
                request.headers,
                101,
                self._size,
                self._began_exactly,
                self._serial,
                request.stream_id,
                request.id,
            )

    # The server's side

    def begin_drain(self) -> None:
        self.protocol.begin_drain()

    def close_idle(self) -> None:
        """It is not idle: it was told of the drain, and ends by itself."""

    def check(self, now: float) -> None:
        if self.write_overdue(now) or (self._reading is not ON and self.is_reset()):
            self.abort()
        elif self._state is OPEN or self._state is CLOSED:
            self.protocol.check(now)
        elif self.transport.get_write_buffer_size():
            self._since = now  # what went out is still on its way; ``timeouts.write`` watches over that
        elif now - self._since > LINGER_SECONDS:
            self.abort() if self.secure is None else self.close()


def websocket_session(before: Http11Connection, request: Request, template: dict[str, Any]) -> Session:
    """The session of a request for a WebSocket. Raises HandshakeError for one that cannot be had."""
    tunnel = Http11Tunnel(before, request)
    protocol = WebSocketProtocol(request, tunnel, template, before.shared)
    session = protocol.session
    assert session is not None
    tunnel.carries(protocol, session)
    return session
