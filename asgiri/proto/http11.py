"""The HTTP/1.1 connection: one exchange after the other, in order, on one transport (RFC 9112 section 9).

Its life, states and signals and the table of them, is in http11_life.py; what ends it is in http11_ends.py.
"""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

from asgiri.asgi.http import HttpSession
from asgiri.asgi.scope import http_scope, scope_template
from asgiri.asgi.session import Session
from asgiri.codec.events import Body, End, Event, Failure, Request, Reset
from asgiri.codec.ws_handshake import is_websocket
from asgiri.errors import HandshakeError
from asgiri.proto.connection import HIGH_WATER, Shared
from asgiri.proto.exchange import NOT_OURS, RETRY_SOON, start
from asgiri.proto.files import send_file
from asgiri.proto.http11_ends import CLOSE, Http11Ends
from asgiri.proto.http11_life import (
    ANSWERING,
    CLOSED,
    DISCARDING,
    DONE,
    HELD,
    IDLE,
    LINGERING,
    ON_ANSWERED,
    ON_NEXT,
    ON_REQUEST,
    ON_WHOLE_REQUEST,
    RECEIVING,
    Signal,
)
from asgiri.proto.http11_tunnel import websocket_session
from asgiri.proto.websocket import refuse_while_draining
from asgiri.types import Headers

if TYPE_CHECKING:
    from asgiri.proto.edge import Gate

# How much of an unwanted body is read, so that the connection can be kept, before it is cut instead (bytes).
DISCARD_LIMIT: Final = 256 << 10

# How many pipelined exchanges may follow each other before other connections get their turn.
IN_A_ROW: Final = 16

EMPTY_LINE: Final = b"\r\n"


class Http11Connection(Http11Ends):
    """One HTTP/1.1 connection: moves bytes between transport and codec, and events between codec and session."""

    __slots__ = ("_dispatching", "_gate", "_more_has_come", "_template", "_unread")

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._template: dict[str, Any] = {}  # of the requests' scopes
        self._gate: Gate | None = None  # where the peer may be a proxy, or requests be for hosts that are not ours
        self._unread = 0  # bytes of body thrown away
        self._more_has_come = False  # bytes behind the request in progress, when its answer began
        self._dispatching = False  # events are being handled further up the stack

    def connected(self) -> None:
        shared = self.shared
        self._template = scope_template(self.peers, shared.context)
        self._name = shared.name_of(self._serial)
        if shared.edge is not None:
            self._gate = shared.edge.gate(self.peers, self._template)

    def head_begun(self) -> None:
        """The first bytes of what may be a request's head are here, though not given to us yet."""
        if self._state is IDLE:
            self._move(Signal.BYTES)

    # Bytes in

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is LINGERING or state is CLOSED:
            return
        self.received += len(data)
        if state is RECEIVING:
            self._since = self.shared.now
        codec = self._codec
        events = codec.receive(data)
        if events or state is DONE:
            self._dispatch(events)
        elif (state is IDLE or state is HELD) and data.strip(
            EMPTY_LINE
        ):  # empty lines begin no request (RFC 9112 section 2.2)
            self._move(Signal.BYTES)
        if codec.rest or not self._reading or self._state is RECEIVING:
            self._pace()

    def eof_received(self) -> bool:
        """The peer sends nothing more. It may still read: what it asked for is answered, then the connection ends."""
        self._peer_ended = True
        if self.secure is not None:  # TLS ends as a whole: the transport takes no answer any more
            self._reset_by_peer()
            return False
        if self._state not in (LINGERING, CLOSED, IDLE):
            self._dispatch(self._codec.receive(b""))
        if self._state not in (ANSWERING, DISCARDING, DONE):
            self._close()
        return self._state is not CLOSED

    def _dispatch(self, events: list[Event]) -> None:
        """Handle the events, then those of the next requests, as far as they are here already (pipelining)."""
        self._dispatching = True
        try:
            if len(events) == 1 and type(events[0]) is Request:
                self._begin(events[0])
            else:
                self._handle(events)
            if self._state is DONE:
                self._go_on()
        finally:
            self._dispatching = False

    def _go_on(self) -> None:
        """From a complete exchange to the next, as long as the peer reads its answers; or to the connection's end."""
        codec = self._codec
        for _ in range(IN_A_ROW):
            if self._writable is None and codec.renew():
                self._become_idle()
                return
            if not codec.reusable:
                self._end_exchanges()
                return
            if self._writable is not None:
                return
            events = self._next_exchange()
            if not events:
                return
            self._handle(events)
            if self._state is not DONE:
                return
        self.shared.loop.call_soon(self._advance)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._state is DONE:
            self.shared.loop.call_soon(self._advance)

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if self._state is LINGERING or self._state is CLOSED:  # an early answer was the last one
                return
            kind = type(event)
            if kind is Request:
                self._begin(cast("Request", event))
            elif kind is Body:
                self._body(cast("Body", event))
            elif kind is End:
                if self._session is not None:
                    self._session.body_ended()
                self._move(Signal.END)
            elif kind is Reset:
                self._reset_by_peer()
            else:
                self._refuse(cast("Failure", event))
        if self._peer_ended and self._session is not None:
            self._session.peer_ended()

    def _begin(self, request: Request) -> None:
        shared = self.shared
        if shared.observed:
            self._request = request
            self._status = 0
            self._began_exactly = perf_counter()
        self._state = (ON_WHOLE_REQUEST if request.end_stream else ON_REQUEST)[self._state]
        self._since = self._began = shared.now
        self._requests += 1
        self._awaits_continue = request.expect_continue
        request.id = self._name + str(request.stream_id)
        template: dict[str, Any] | None = self._template
        if self._gate is not None:
            template = self._gate.admit(request)
        if template is None:
            if shared.meter is not None:
                shared.meter.refuse("host")
            self._session = HttpSession(request, {}, self, shared.context)
            self._session.answer(HTTPStatus.BAD_REQUEST, NOT_OURS)
            return
        if request.protocol and shared.websocket is not None and is_websocket(request):
            session = self._websocket(request, template)
            if session is None:
                return
        else:
            scope = http_scope(request, template, shared.context)
            if shared.access_log is not None and shared.access_log.picks:
                scope["headers"] = request.headers.copy()  # the line shows what came, whatever the app does to its list
            session = HttpSession(request, scope, self, shared.context)
        self._session = session
        if 0 < shared.requests <= len(shared.sessions):
            if shared.meter is not None:
                shared.meter.refuse("overload")
            session.answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once", RETRY_SOON)
            return
        shared.sessions.add(session)
        session.task = start(shared.loop, session.run(), shared.base_context.copy())

    def _websocket(self, request: Request, template: dict[str, Any]) -> Session | None:
        """The session of a request for a WebSocket (RFC 6455 section 4.2); None when it is answered already."""
        shared = self.shared
        try:
            refuse_while_draining(shared, self._requests == 1)
            return websocket_session(self, request, template)
        except HandshakeError as error:
            if shared.meter is not None and error.status < 500:
                shared.meter.refuse("malformed")
            session = self._session = HttpSession(request, {}, self, shared.context)
            session.answer(HTTPStatus(error.status), error.reason, *error.headers)
            return None

    def _body(self, event: Body) -> None:
        self._awaits_continue = False
        if self._state is DISCARDING:
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
        state = self._state
        on = state is not HELD  # what is discarded is read all the same
        if state is RECEIVING:
            session = self._session
            on = session is None or session.buffered <= HIGH_WATER
        elif state is ANSWERING or state is DONE:
            on = len(self._codec.rest) <= HIGH_WATER  # as long as we read, we see the peer leave
        if on is not self._reading:
            self._read(on)

    def hand_over(self, headers: Headers) -> tuple[bytes, bool]:
        """Answer with 101 and these fields (RFC 9110 section 15.2.2): what follows is no HTTP/1.1 any more.

        Gives what has come behind the request, and whether the peer has ended its side. Nothing reaches this object
        from then on; whoever calls it takes over the transport, which reads. Raises LocalProtocolError, and nothing has
        happened, for fields that cannot be sent.
        """
        self._codec.send_informational(self._requests, HTTPStatus.SWITCHING_PROTOCOLS, headers)
        self._flush()
        meter, request = self.shared.meter, self._request
        if meter is not None and request is not None:  # the access log waits for the end of what comes now
            meter.http1.ended(request.method, HTTPStatus.SWITCHING_PROTOCOLS.value, self._began_exactly)
            meter.http1.opened()
        self._read(True)
        self._request = self._session = None
        self._move(Signal.CLOSED)
        return self._codec.rest, self._peer_ended

    # From one exchange to the next

    def _advance(self) -> None:
        """The exchange may be over: go on to the next one, unless the loop further up the stack will."""
        if self._state is DONE and not self._dispatching:
            self._dispatching = True
            try:
                self._go_on()
            finally:
                self._dispatching = False
            if self._codec.rest or not self._reading:
                self._pace()

    def _leave(self) -> None:
        """Leave the exchange that is over."""
        self._session = None
        self._unread = 0
        self._state = ON_NEXT[self._state]
        self._since = self.shared.now

    def _become_idle(self) -> None:
        """The same, and nothing of a next one is here."""
        self._leave()
        if self.shared.on_idle is not None:
            self.shared.tell_idle(self)

    def _next_exchange(self) -> list[Event]:
        self._leave()
        codec = self._codec
        pending = codec.pending
        if self._peer_ended and not pending:
            self._close()
            return []
        events = codec.next_request()
        if pending and not events:
            self._move(Signal.BYTES)
        elif not pending:
            self.shared.tell_idle(self)
        return events

    def _end_exchanges(self) -> None:
        self._session = None
        if self._more_has_come or not self._reading:
            self._linger()  # what we have not read would reset the connection, and the answer with it
        else:
            self._close()

    # The session's stream

    def send_informational(self, session: Session, status: int, headers: Headers) -> None:
        if session is self._session:
            if status == HTTPStatus.CONTINUE and self._awaits_continue:
                self._awaits_continue = False
                self._since = self.shared.now  # until now the body was not the peer's to send
            self._codec.send_informational(self._requests, status, headers)
            self._flush()
            self.heed_close()

    def send_head(self, session: Session, status: int, headers: Headers) -> None:
        if session is self._session:
            self._codec.send_head(self._requests, status, self._with_close(headers))
            if self._state is not CLOSED:
                self._status = status
                if self.shared.meter is not None:
                    self._answer_began = perf_counter()

    def send_answer(self, session: Session, status: int, headers: Headers, data: bytes) -> None:
        if session is not self._session:
            return
        data = self._codec.answer(self._requests, status, self._with_close(headers), data)
        if self._state is not CLOSED:
            self._status = status
            self.post(data)
            self._answered()

    def _with_close(self, headers: Headers) -> Headers:
        """The fields of an answer, with Connection: close when it is the last one."""
        shared, codec = self.shared, self._codec
        self._more_has_come = bool(codec.rest) and codec.pending
        rare = self._awaits_continue or self._refusing or self._peer_ended
        if (rare or shared.draining or shared.requests_per_connection) and self._last_answer():
            return [*headers, CLOSE]
        return headers

    def _last_answer(self) -> bool:
        """Whether this answer says Connection: close. A drain still answers what the peer has sent already."""
        if self._awaits_continue:  # it may send the body or not: the next bytes could be read in two ways
            return True
        most = self.shared.requests_per_connection
        if self._refusing or (most and self._requests >= most):
            return True
        return (self.shared.draining or self._peer_ended) and not self._more_has_come

    def send_body(self, session: Session, data: bytes, end_stream: bool) -> None:
        if session is not self._session:
            return
        self._codec.send_body(self._requests, data, end_stream)
        self._flush()
        if end_stream:
            self._answered()
        else:
            self.heed_close()

    async def send_file(self, session: Session, fd: int, offset: int, count: int, end_stream: bool) -> None:
        if session is not self._session:
            return
        if not self._codec.begin_raw(self._requests, count):
            self.send_body(session, b"", end_stream)
            return
        self._flush()
        self._file_end = self._written + count
        await send_file(self, fd, offset, count)
        if self._state is CLOSED or self._written < self._file_end:  # lost: the transport may know it before we do
            session.lost()
            return
        self._file_end = 0
        self._codec.end_raw(self._requests, end_stream)
        self._flush()
        if end_stream:
            self._answered()

    def send_trailers(self, session: Session, trailers: Headers) -> None:
        if session is self._session:
            self._codec.send_trailers(self._requests, trailers)
            self._flush()
            self._answered()

    def _answered(self) -> None:
        if self._request is not None:
            self._log()
        if self._state is CLOSED:
            return
        self._state = ON_ANSWERED[self._state]
        self._since = self.shared.now
        if self._state is DISCARDING:
            self._stop_receiving()
        elif self._dispatching:
            pass  # who dispatches goes on
        elif self.shared.requests:  # a turn later the app has returned, and counts no more
            self.shared.loop.call_soon(self._advance)
        elif self._reading and self._writable is None and self._codec.renew():  # the plain case of _advance()
            self._become_idle()
        else:
            self._advance()

    def _stop_receiving(self) -> None:
        """The answer is complete before the request is: throw the rest of it away, or end here."""
        if self._codec.closing or self.shared.draining:
            self._linger()
        else:
            self._read(True)

    def reset(self, session: Session) -> None:
        if session is self._session:
            session.lost()
            self.abort()

    def drain(self, session: Session) -> Awaitable[object] | None:
        del session
        return None if self._writable is None else self._writable.wait()

    def body_consumed(self, session: Session, size: int) -> None:
        del size
        if session is self._session and not self._dispatching:
            self._pace()

    def finished(self, session: Session) -> None:
        self.shared.forget_session(session)
