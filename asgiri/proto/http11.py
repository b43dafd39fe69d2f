"""The HTTP/1.1 connection: one exchange after the other, in order, on one transport (RFC 9112 section 9).

    IDLE        nothing of a request is here; the connection waits
    HEAD        bytes of a request's head are here
    RECEIVING   the head is here, the body is arriving, the answer is not complete
    ANSWERING   the request is whole, the answer is not
    DISCARDING  the answer is complete, the body is still arriving and of no use any more
    DONE        both are complete, the next exchange has not begun
    LINGERING   refused: the answer is out, what still comes is thrown away (section 9.6)
    CLOSED      the transport is closed or closing

The table below is the whole life; a pair that is not in it is a defect of ours and raises KeyError.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from enum import Enum
from http import HTTPStatus
from typing import Any

from asgiri.asgi.http import HttpSession, plain_answer, with_defaults
from asgiri.asgi.scope import http_scope
from asgiri.codec.events import Body, End, Event, Failure, Request, Reset
from asgiri.proto.connection import HIGH_WATER, LINGER_SECONDS, Connection, Shared
from asgiri.types import Headers

# How much of an unwanted body is read, so that the connection can be kept, before it is cut instead (bytes).
DISCARD_LIMIT = 256 << 10

# How many pipelined exchanges may follow each other before other connections get their turn.
IN_A_ROW = 16

CLOSE = (b"connection", b"close")
EMPTY_LINE = b"\r\n"


class State(Enum):
    IDLE = "idle"
    HEAD = "head"
    RECEIVING = "receiving"
    ANSWERING = "answering"
    DISCARDING = "discarding"
    DONE = "done"
    LINGERING = "lingering"
    CLOSED = "closed"


class Signal(Enum):
    BYTES = "bytes of a head"
    REQUEST = "a head with a body to come"
    WHOLE_REQUEST = "a head without a body"
    END = "the body's end"
    ANSWERED = "the answer's end"
    NEXT = "the next exchange"
    REFUSED = "an error answer was sent"
    CLOSED = "the transport closes"


S, G = State, Signal
LIFE: dict[tuple[State, Signal], State] = {
    (S.IDLE, G.BYTES): S.HEAD,
    (S.HEAD, G.BYTES): S.HEAD,
    (S.HEAD, G.REQUEST): S.RECEIVING,
    (S.HEAD, G.WHOLE_REQUEST): S.ANSWERING,
    (S.RECEIVING, G.END): S.ANSWERING,
    (S.RECEIVING, G.ANSWERED): S.DISCARDING,
    (S.ANSWERING, G.ANSWERED): S.DONE,
    (S.DISCARDING, G.END): S.DONE,
    (S.DONE, G.NEXT): S.IDLE,
    (S.HEAD, G.REFUSED): S.LINGERING,
    (S.DONE, G.REFUSED): S.LINGERING,
    (S.DISCARDING, G.REFUSED): S.LINGERING,
    **{(state, G.CLOSED): S.CLOSED for state in State},
}

if sys.version_info >= (3, 12):

    def start(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
        """Run the coroutine at once up to its first wait: most answers are complete before this returns."""
        return asyncio.Task(coro, loop=loop, eager_start=True, context=context)

else:

    def start(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, None], context: Context) -> asyncio.Task[None]:
        """Run the coroutine from the loop's next turn on: Python 3.11 has no eager start."""
        return loop.create_task(coro, context=context)


class Http11Connection(Connection):
    """One HTTP/1.1 connection: moves bytes between transport and codec, and events between codec and session."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._codec = shared.http1(shared.limits)
        self._state = State.IDLE
        self._since = shared.now  # when the state, or the last piece of body, came
        self._session: HttpSession | None = None
        self._requests = 0
        self._began = 0.0  # when the request in progress did
        self._unread = 0  # bytes of body thrown away
        self._more_has_come = False  # bytes behind the request in progress, when its answer began
        self._awaits_continue = False  # the peer holds its body back until a 100
        self._peer_ended = False  # it sends nothing more, though it may still read
        self._refusing = False  # the answer in progress is the last one, whatever else holds
        self._reading = True
        self._dispatching = False  # events are being handled further up the stack

    def _move(self, signal: Signal) -> None:
        self._state = LIFE[self._state, signal]
        self._since = self.shared.now

    # Bytes in

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is State.LINGERING or state is State.CLOSED:
            return
        if state is State.IDLE:
            if data[0] in EMPTY_LINE and not data.strip(EMPTY_LINE):
                return  # empty lines begin no request (RFC 9112 section 2.2)
            self._move(Signal.BYTES)
        elif state is State.RECEIVING:
            self._since = self.shared.now
        self._dispatch(self._codec.receive(data))
        self._pace()

    def eof_received(self) -> bool:
        """The peer sends nothing more. It may still read: what it asked for is answered, then the connection ends."""
        self._peer_ended = True
        if self._state not in (State.LINGERING, State.CLOSED, State.IDLE):
            self._dispatch(self._codec.receive(b""))
        if self._state not in (State.ANSWERING, State.DISCARDING, State.DONE):
            self._close()
        return self._state is not State.CLOSED

    def _dispatch(self, events: list[Event]) -> None:
        """Handle the events, then those of the next requests, as far as they are here already (pipelining)."""
        self._dispatching = True
        try:
            self._handle(events)
            for _ in range(IN_A_ROW):
                if not self._may_go_on():
                    break
                self._handle(self._next_exchange())
            else:
                self.shared.loop.call_soon(self._advance)
        finally:
            self._dispatching = False

    def _may_go_on(self) -> bool:
        """The exchange is over, and the peer reads its answer; or no other follows, so it need not."""
        return self._state is State.DONE and (self._writable is None or not self._codec.reusable)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._state is State.DONE:
            self.shared.loop.call_soon(self._advance)

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if self._state in (State.LINGERING, State.CLOSED):  # an early answer was the last one
                return
            match event:
                case Request():
                    self._request(event)
                case Body():
                    self._body(event)
                case End():
                    if self._session is not None:
                        self._session.body_ended()
                    self._move(Signal.END)
                case Reset():
                    self._reset_by_peer()
                case Failure():
                    self._refuse(event)
        if self._peer_ended and self._session is not None:
            self._session.peer_ended()

    def _request(self, request: Request) -> None:
        self._move(Signal.WHOLE_REQUEST if request.end_stream else Signal.REQUEST)
        shared = self.shared
        self._requests += 1
        self._began = shared.now
        self._awaits_continue = request.expect_continue
        scope = http_scope(request, self.peers, shared.context)
        session = self._session = HttpSession(request, scope, self, shared.context)
        shared.sessions.add(session)
        session.task = start(shared.loop, session.run(), shared.base_context.copy())

    def _body(self, event: Body) -> None:
        self._awaits_continue = False
        if self._state is State.DISCARDING:
            self._unread += len(event.data)
            if self._unread > DISCARD_LIMIT:
                self._linger()
        elif self._session is not None:
            self._session.body_received(event.data)

    def _reset_by_peer(self) -> None:
        session = self._session
        if session is not None:
            session.lost()
        self._close()

    def _pace(self) -> None:
        """Read on, or not: a body waits for the app, and pipelined requests wait for their turn."""
        session = self._session
        match self._state:
            case State.RECEIVING:
                self._read(session is None or session.buffered <= HIGH_WATER)
            case State.ANSWERING | State.DONE:
                self._read(self._codec.held <= HIGH_WATER)  # as long as we read, we see the peer leave
            case _:  # nothing waits: what is discarded is read all the same
                self._read(True)

    def _read(self, on: bool) -> None:
        if on is self._reading or self._state is State.CLOSED:
            return
        self._reading = on
        if on:
            self._since = self.shared.now  # the time that we did not read is not the peer's
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    # From one exchange to the next

    def _advance(self) -> None:
        """The exchange may be over: go on to the next one, unless the loop further up the stack will."""
        if self._state is State.DONE and not self._dispatching:
            self._dispatch([])
            self._pace()

    def _next_exchange(self) -> list[Event]:
        self._session = None
        self._unread = 0
        if not self._codec.reusable:
            if self._more_has_come or not self._reading:
                self._linger()  # what we have not read would reset the connection, and the answer with it
            else:
                self._close()
            return []
        self._move(Signal.NEXT)
        if self._codec.pending:
            self._move(Signal.BYTES)
        elif self._peer_ended:
            self._close()
            return []
        return self._codec.next_request()

    # The session's stream

    def send_informational(self, session: HttpSession, status: int, headers: Headers) -> None:
        if session is self._session:
            if self._awaits_continue:
                self._awaits_continue = False
                self._since = self.shared.now  # until now the body was not the peer's to send
            self._codec.send_informational(self._requests, status, headers)
            self._flush()

    def send_head(self, session: HttpSession, status: int, headers: Headers) -> None:
        if session is self._session:
            self._more_has_come = self._codec.pending
            if self._last_answer():
                headers = [*headers, CLOSE]
            self._codec.send_head(self._requests, status, headers)

    def _last_answer(self) -> bool:
        """Whether this answer says Connection: close. A drain still answers what the peer has sent already."""
        if self._awaits_continue:  # it may send the body or not: the next bytes could be read in two ways
            return True
        most = self.shared.requests_per_connection
        if self._refusing or (most and self._requests >= most):
            return True
        return (self.shared.draining or self._peer_ended) and not self._more_has_come

    def send_body(self, session: HttpSession, data: bytes, end_stream: bool) -> None:
        if session is not self._session:
            return
        self._codec.send_body(self._requests, data, end_stream)
        self._flush()
        if end_stream:
            if self._state is State.CLOSED:
                return
            self._move(Signal.ANSWERED)
            if self._state is State.DISCARDING:
                self._stop_receiving()
            else:
                self._advance()

    def _stop_receiving(self) -> None:
        """The answer is complete before the request is: throw the rest of it away, or end here."""
        if self._codec.closing or self.shared.draining:
            self._linger()
        else:
            self._read(True)

    def reset(self, session: HttpSession) -> None:
        if session is self._session:
            session.lost()
            self.abort()

    def drain(self, session: HttpSession) -> Awaitable[object] | None:
        del session
        return None if self._writable is None else self._writable.wait()

    def body_consumed(self, session: HttpSession, size: int) -> None:
        del size
        if session is self._session and not self._dispatching:
            self._pace()

    def finished(self, session: HttpSession) -> None:
        self.shared.forget_session(session)

    def _flush(self) -> None:
        data = self._codec.take()
        if data and self._state is not State.CLOSED:
            self.write(data)

    # Ends

    def _refuse(self, failure: Failure) -> None:
        """The peer broke the protocol: tell it, if the answer is still ours to give, and hear no more of it."""
        if self._state is State.HEAD:
            self._answer(HTTPStatus(failure.status), failure.reason)
        elif self._state is State.RECEIVING:
            self._cut_short(HTTPStatus(failure.status), failure.reason)
        elif self._state is State.DISCARDING:
            self._linger()

    def _answer(self, status: HTTPStatus, reason: str) -> None:
        """Answer a request that never became one, and end."""
        headers, body = plain_answer(status, reason)
        with_defaults(headers, self.shared.context)
        self._codec.send_head(0, status, [*headers, CLOSE])
        self._codec.send_body(0, body, True)
        self._flush()
        self._linger()

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
        self._move(Signal.REFUSED)
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
        if self._state is not State.CLOSED:
            self._move(Signal.CLOSED)
            self.transport.close()

    def abort(self) -> None:
        if self._state in (State.RECEIVING, State.ANSWERING) or self.transport.get_write_buffer_size():
            self.reset_transport()
        if self._state is not State.CLOSED:
            self._move(Signal.CLOSED)
        super().abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state is not State.CLOSED:
            self._move(Signal.CLOSED)
        if self._session is not None:
            self._session.lost()
        super().connection_lost(exc)

    def close_idle(self) -> None:
        if self._state is State.IDLE:
            self._close()
        elif self._state is State.DISCARDING:  # the answer is out, and nothing that comes is of use
            self._linger()

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
                    self.abort()

    def _overtime(self) -> None:
        """The request has taken longer than ``timeouts.request``, the application included: end both."""
        session = self._session
        assert session is not None
        self._cut_short(HTTPStatus.SERVICE_UNAVAILABLE, "the request took too long")
        self.shared.cancel(session)
