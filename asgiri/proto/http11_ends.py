"""How an HTTP/1.1 connection ends: refusals, deadlines, a drain, a peer that leaves (RFC 9112 section 9.6).

What it needs to know of the exchange in progress is kept here, too.
"""

from __future__ import annotations

from http import HTTPStatus
from time import perf_counter
from typing import Final

from asgiri.asgi.answers import plain_answer, with_defaults
from asgiri.asgi.session import Session
from asgiri.codec.events import Failure, Request
from asgiri.proto.connection import LINGER_SECONDS, Connection, Shared
from asgiri.proto.exchange import PEER_LEFT, VERSIONS
from asgiri.proto.http11_life import (
    ANSWERING,
    CLOSED,
    DISCARDING,
    HEAD,
    HELD,
    IDLE,
    LIFE,
    LINGERING,
    RECEIVING,
    Signal,
    State,
)

CLOSE: Final = (b"connection", b"close")


class Http11Ends(Connection):
    """An HTTP/1.1 connection as far as its end is concerned; exchanges are what Http11Connection adds."""

    __slots__ = (
        "_answer_began",
        "_awaits_continue",
        "_began",
        "_began_exactly",
        "_codec",
        "_file_end",
        "_peer_ended",
        "_reading",
        "_refusing",
        "_request",
        "_requests",
        "_session",
        "_since",
        "_state",
        "_status",
    )

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._codec = shared.http1(shared.limits)
        self._state = IDLE
        self._since = shared.now  # when the state, or the last piece of body, came
        self._session: Session | None = None
        self._request: Request | None = None  # in progress, and neither logged nor counted yet
        self._status = 0  # of its answer, 0 before that has begun
        self._began_exactly = 0.0  # when it came, for the access log and the metrics
        self._answer_began = 0.0  # when its answer did, for the metrics; 0.0: that is in one piece
        self._file_end = 0  # bytes written once the file that is on its way is through, 0 while there is none
        self._requests = 0
        self._began = 0.0  # when the request in progress did
        self._awaits_continue = False  # the peer holds its body back until a 100
        self._peer_ended = False  # it sends nothing more, though it may still read
        self._refusing = False  # the answer in progress is the last one, whatever else holds
        self._reading = True

    def speaks(self) -> str:
        return "http/1.1" if self.received else "unknown"

    def _move(self, signal: Signal) -> None:
        self._state = LIFE[self._state, signal]
        self._since = self.shared.now

    @property
    def has_ended(self) -> bool:
        """Nothing that comes is of use any more."""
        return self._state is LINGERING or self._state is CLOSED

    def _read(self, on: bool) -> None:
        if on is self._reading or self._state is CLOSED:
            return
        self._reading = on
        if on:
            self._since = self.shared.now  # the time that we did not read is not the peer's
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _flush(self) -> None:
        data = self._codec.take()
        if data and self._state is not CLOSED:
            self.write(data)

    def _log(self) -> None:
        """Count the exchange, and put it in the access log, once."""
        request, log, meter = self._request, self.shared.access_log, self.shared.meter
        if request is None:
            return
        self._request = None
        if meter is not None:
            if self._answer_began or not self._status:
                meter.http1.ended_in_pieces(request.method, self._status, self._began_exactly, self._answer_began)
                self._answer_began = 0.0
            else:
                meter.http1.ended(request.method, self._status, self._began_exactly)
        if log is None:
            return
        size = self._codec.sent if self._status else 0
        if self._file_end:  # the file was cut short
            size -= self._file_end - self._written
        log.record(
            self.client,
            request.method,
            request.target,
            VERSIONS[request.http_version],
            request.headers,
            self._status or PEER_LEFT,
            size,
            self._began_exactly,
            self._serial,
            self._requests,
        )

    # Ends

    def _refuse(self, failure: Failure) -> None:
        """The peer broke the protocol: tell it, if the answer is still ours to give, and hear no more of it."""
        if self._state is IDLE or self._state is HEAD or self._state is HELD:
            self._answer(HTTPStatus(failure.status), failure.reason)
        elif self._state is RECEIVING:
            self._cut_short(HTTPStatus(failure.status), failure.reason)
        elif self._state is DISCARDING:
            self._linger()

    def _answer(self, status: HTTPStatus, reason: str) -> None:
        """Answer a request that never became one, and end."""
        headers, body = plain_answer(status, reason)
        with_defaults(headers, self.shared.context)
        self._codec.send_head(0, status, [*headers, CLOSE])
        self._codec.send_body(0, body, True)
        self._flush()
        if self.shared.meter is not None:
            self.shared.meter.refuse("malformed")
        if self.shared.observed:  # of a request that never became one there is not much to say
            self._requests += 1
            self._request = Request(self._requests, "", b"", b"", b"", [], "1.1", True)
            self._status = status
            self._began_exactly = perf_counter()
            self._log()
        self._linger()

    def turn_away(self, status: HTTPStatus, reason: str) -> None:
        """Answer bytes that are not to be read, as to a request that never became one, and end."""
        if self._state is IDLE or self._state is HEAD:
            self._answer(status, reason)

    def _cut_short(self, status: HTTPStatus, reason: str) -> None:
        """End the exchange in progress: with ``status`` when nothing is answered yet, else by a cut."""
        session = self._session
        assert session is not None
        if session.unanswered:
            self._refusing = True
            session.answer(status, reason)
        else:
            session.lost()
            self.abort()

    def _linger(self) -> None:
        """End our side, and give the peer time to read the answer before what it still sends resets it."""
        self.push()
        self._move(Signal.REFUSED)
        if self.secure is not None and not self._peer_ended:  # TLS has no half to end, but the time is given
            self._read(True)
            return
        if self._peer_ended or not self.transport.can_write_eof():
            self._close()
            return
        try:
            self.transport.write_eof()
        except OSError:  # ENOTCONN: the peer has reset the connection, and the loop does not know it yet
            self.abort()
        else:
            self._read(True)

    def _close(self) -> None:
        if self._state is not CLOSED:
            self.push()
            self._move(Signal.CLOSED)
            self.transport.close()

    def abort(self) -> None:
        self.push()
        if self._state in (RECEIVING, ANSWERING) or self.transport.get_write_buffer_size():
            self.reset_transport()
        if self._state is not CLOSED:
            self._move(Signal.CLOSED)
        super().abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state is not CLOSED:
            self._move(Signal.CLOSED)
        if self._session is not None:
            self._session.lost()
        if self._request is not None:
            self._log()
        super().connection_lost(exc)

    def close_idle(self) -> None:
        if self._state is IDLE:
            self._close()
        elif self._state is DISCARDING:  # the answer is out, and nothing that comes is of use
            self._linger()

    # Under reload

    def hold(self) -> None:
        if self._state is IDLE:
            self.push()
            self._read(False)
            self._move(Signal.HOLD)

    def release(self) -> None:
        if self._state is HELD:
            self._move(Signal.RELEASE)
            self._read(True)

    @property
    def is_free(self) -> bool:
        transport = self.transport
        if self._state is not HELD or self.secure is not None or transport.is_closing():
            return False
        return not transport.get_write_buffer_size()

    # Time

    def check(self, now: float) -> None:
        if self.write_overdue(now) or (not self._reading and self.is_reset()):
            self.abort()
            return
        waited = now - self._since
        times = self.shared.times
        match self._state:
            case State.IDLE:
                if 0 < times.keep_alive < waited:
                    self._close()
            case State.HEAD:
                if 0 < times.request_head < waited:
                    self._answer(HTTPStatus.REQUEST_TIMEOUT, "the request head took too long")
            case State.RECEIVING if self._reading and not self._awaits_continue and 0 < times.request_body < waited:
                self._cut_short(HTTPStatus.REQUEST_TIMEOUT, "the request body took too long")
            case State.RECEIVING | State.ANSWERING:
                if 0 < times.request < now - self._began:
                    self._overtime()
            case State.DISCARDING:
                if 0 < times.request_body < waited:
                    self._linger()
            case State.LINGERING:
                if self.transport.get_write_buffer_size():
                    self._since = now  # the answer is still on its way; ``timeouts.write`` watches over that
                elif waited > LINGER_SECONDS:
                    self.abort() if self.secure is None else self._close()

    def _overtime(self) -> None:
        """The request has taken longer than ``timeouts.request``, the application included: end both."""
        session = self._session
        assert session is not None
        self._cut_short(HTTPStatus.SERVICE_UNAVAILABLE, "the request took too long")
        self.shared.cancel(session)
