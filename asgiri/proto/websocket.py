"""A WebSocket over any byte stream (RFC 6455): between its carrier, its codec and its session.

    bytes -> carrier -> WebSocketProtocol -> codec -> events -> session -> application

Which carrier it is, an HTTP/1.1 connection after a 101 or a stream of HTTP/2 (RFC 8441), nobody here knows. Its life,
states and signals and the table of them, is in websocket_life.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, Final, cast

from asgiri.asgi.scope import websocket_scope
from asgiri.asgi.session import Session
from asgiri.asgi.websocket import WebSocketSession
from asgiri.codec.events import Binary, Close, Failure, Ping, Pong, Request, Text, WebSocketEvent
from asgiri.codec.ws_deflate import agree
from asgiri.codec.ws_handshake import Handshake, answer_fields, judge_handshake
from asgiri.errors import HandshakeError
from asgiri.proto.carrier import PORTION, Carried, Carrier
from asgiri.proto.connection import HIGH_WATER, POSTED, Shared
from asgiri.proto.exchange import RETRY_SOON, start
from asgiri.proto.websocket_life import (
    CLOSING,
    DENYING,
    GONE,
    HANDSHAKE,
    LEAVING,
    LIFE,
    OPEN,
    OVERDUE,
    Signal,
)
from asgiri.types import Headers

# How long the peer has to answer our Close frame, in seconds: a few round trips and retransmissions. Less than a drain
# has, so that whoever answers is let go in peace.
CLOSE_SECONDS: Final = 5.0

# What our pings say; the pong that says the same answers one. There is no need to tell one ping from another.
PING: Final = b"asgiri"
PONG_OVERHEAD: Final = 2

ABNORMAL_CLOSURE: Final = 1006
INTERNAL_ERROR: Final = 1011
NO_PONG: Final = (INTERNAL_ERROR, "no pong came in time")
# Close codes of a drain -> the reasons that go with them.
DRAIN_REASONS: Final = {1001: "the server stops", 1012: "the server restarts"}


class WebSocketProtocol(Carried):
    """One WebSocket, from its handshake on; to its session it is the :class:`asgiri.asgi.stream.WebSocketStream`.

    ``template`` is the one of the connection's scopes. Raises HandshakeError for a request that asks for no WebSocket.
    """

    __slots__ = (
        "_asked",
        "_began",
        "_carrier",
        "_codec",
        "_deflate",
        "_due",
        "_final",
        "_fresh",
        "_handshake",
        "_held",
        "_pinged",
        "_reading",
        "_since",
        "_state",
        "_within",
        "_writable",
        "session",
        "shared",
    )

    def __init__(self, request: Request, carrier: Carrier, template: dict[str, Any], shared: Shared) -> None:
        options = shared.websocket
        assert options is not None
        handshake = judge_handshake(request)
        scope = websocket_scope(request, template, shared.context, handshake.subprotocols)
        if shared.access_log is not None and shared.access_log.picks:
            scope["headers"] = request.headers.copy()  # the line shows what came, whatever the app does to its list
        self.shared = shared
        self.session: WebSocketSession | None = WebSocketSession(request, scope, self, shared.context)
        self._carrier = carrier
        self._handshake: Handshake | None = handshake  # until it is accepted
        self._deflate = agree(handshake.offers) if options.compression else None
        self._codec = options.engine(options.max_message, self._deflate)
        self._state = HANDSHAKE
        self._began = self._since = shared.now  # when the request came; when the state did
        self._pinged = 0.0  # when the last ping left
        self._asked: float | None = None  # since when the peer owes a pong, without the time that we did not read
        self._final: tuple[int, str] | None = None  # what the app is told once the Close frame that we sent is answered
        self._reading = True  # or the peer waits: for the app to take messages, or for itself to read
        self._writable: asyncio.Event | None = None  # there while the peer does not read fast enough
        self._due = False  # push() will be called
        self._held = 0  # bytes made since the last write, or nearly
        self._fresh = False  # something was read since anything was written
        self._within = False  # what was read last was not the whole of a frame, or of a message

    def _move(self, signal: Signal) -> None:
        self._state = LIFE[self._state, signal]
        self._since = self.shared.now

    # Bytes in

    def portion(self, data: bytes, at: int) -> int:
        """A read of 256 KiB may hold 256 MiB of messages, compressed, or 43690 empty ones, but one frame ends one."""
        return PORTION if self._deflate is not None else max(PORTION, self._codec.ahead(data, at))

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is not OPEN and state is not CLOSING:
            return
        session = self.session
        events = self._codec.receive(data)
        self._fresh = True
        if self.shared.meter is not None:
            self.shared.meter.messages_received += len(events)
        for event in events:
            kind = type(event)
            if kind is Text:
                if session is not None:
                    text = cast("Text", event)
                    session.message(text.text, None, text.size)
            elif kind is Binary:
                if session is not None:
                    binary = cast("Binary", event).data
                    session.message(None, binary, len(binary))
            else:
                self._control(event)
        if not events or self._within:
            self._within_frame(not events)
        if session is not None and session.buffered > HIGH_WATER:
            self._pace()

    def _within_frame(self, still: bool) -> None:
        """What has come belongs to a large frame: before its end, nothing else (RFC 6455 section 5.4)."""
        self._within = still
        if self._asked is not None:
            self._asked = self.shared.now
        if self._final is not None:  # a drain lets it finish what it has begun
            self._since = self.shared.now

    def _control(self, event: WebSocketEvent) -> None:
        if self.shared.meter is not None:
            self.shared.meter.messages_received -= 1  # it is none
        if isinstance(event, Ping):  # the codec has answered
            self._made(len(event.data) + PONG_OVERHEAD)
        elif isinstance(event, Pong):
            if event.data == PING:
                self._asked = None
        elif isinstance(event, Close):
            self._leave(Signal.CLOSED, *(self._final or (event.code, event.reason)))
            self._carrier.close()  # the server ends TCP first (RFC 6455 section 7.1.1)
        elif isinstance(event, Failure):
            self._leave(Signal.FAILED, event.code, event.reason)
            self._carrier.linger()

    def eof_received(self) -> bool:
        """The peer sends nothing more: without a Close frame, the WebSocket is lost (RFC 6455 section 7.1.5)."""
        if self._state is HANDSHAKE or self._state is DENYING:
            if self.session is not None:
                self.session.peer_ended()
            return True
        if self._state is not LEAVING and self._state is not OVERDUE:
            self._lose()
        return False

    def _pace(self) -> None:
        """Read on, or not: messages wait for the app, and a peer that does not read is not to make us write."""
        if self._state is not OPEN and self._state is not CLOSING:
            return
        session = self.session
        on = self._writable is None and (session is None or session.buffered <= HIGH_WATER)
        if on is not self._reading:
            self._reading = on
            if on:
                if self._asked is not None:
                    self._asked = self.shared.now  # a pong may have been there all the time
                self._carrier.resume_reading()
            else:
                self._carrier.pause_reading()

    # The session's stream: the handshake

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        handshake = self._handshake
        if self._state is not HANDSHAKE or handshake is None:
            return
        self._carrier.accept(answer_fields(handshake, subprotocol, self._deflate, headers))
        self._handshake = None
        self._move(Signal.ACCEPTED)
        self._pinged = self.shared.now
        self._carrier.resume_reading()
        self._pace()  # what was answered before may still wait for the peer
        if self.shared.draining:
            self.begin_drain()

    def deny(self, status: int, headers: Headers, data: bytes) -> None:
        if self._state is HANDSHAKE:
            self._carrier.deny(status, headers, data)
            self._move(Signal.DENIED)

    def deny_head(self, status: int, headers: Headers) -> None:
        if self._state is HANDSHAKE:
            self._carrier.deny_head(status, headers)
            self._move(Signal.DENY_HEAD)

    def deny_body(self, data: bytes, end_stream: bool) -> None:
        if self._state is DENYING:
            self._carrier.deny_body(data, end_stream)
            if end_stream:
                self._move(Signal.DENIED)

    def reset(self) -> None:
        if self._state is not GONE:
            self._lose()
            self._carrier.abort()

    # The session's stream: messages

    def send_text(self, text: str) -> None:
        if self._state is OPEN:
            self._codec.send_text(text)
            if self.shared.meter is not None:
                self.shared.meter.messages_sent += 1
            self._made(len(text))

    def send_binary(self, data: bytes) -> None:
        if self._state is OPEN:
            self._codec.send_binary(data)
            if self.shared.meter is not None:
                self.shared.meter.messages_sent += 1
            self._made(len(data))

    def close(self, code: int, reason: str) -> None:
        if self._state is OPEN:
            self._codec.send_close(code, reason)
            self._move(Signal.CLOSE_SENT)
            self._made(0)

    def drain(self) -> Awaitable[object] | None:
        if self._writable is not None:
            return self._writable.wait()
        return self._carrier.drain() if self._state is DENYING else None

    def message_consumed(self) -> None:
        if not self._reading:
            self._pace()

    def request_id(self) -> str:
        return self._carrier.request_id()

    def finished(self) -> None:
        session = self.session
        if session is not None:
            self.session = None  # two that know each other are left to the garbage collector
            self.shared.forget_session(session)
            if not self._reading:
                self._pace()

    # Bytes out

    def _made(self, size: int) -> None:
        """The codec has made a frame of about ``size`` bytes: it leaves with others of this turn, where there are some.

        An answer to the only message that was there is mostly the last one for now.
        """
        self._held += size
        if self._held > POSTED:
            self._flush()  # so that the app feels a peer that does not read
        elif not self._due:
            session = self.session
            alone = self._fresh and session is not None and not session.buffered
            self._fresh = False
            self._due = True
            self._carrier.flush_soon(alone)

    def push(self) -> None:
        self._due = False
        self._flush()

    def _flush(self) -> None:
        self._held = 0
        data = self._codec.take()
        if data:
            self._carrier.write(data)

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self._pace()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
            self._pace()

    # Ends

    def _leave(self, signal: Signal, code: int, reason: str) -> None:
        """Nothing passes any more: tell the app, and let the last bytes out."""
        self._move(signal)
        if self.session is not None:
            self.session.closed(code, reason)
        self._flush()
        self._let_go()

    def _lose(self) -> None:
        """The carrier is gone, or of no use any more."""
        self._move(Signal.LOST)
        session = self.session
        if session is not None:
            session.closed(*self._final or (ABNORMAL_CLOSURE, ""))
            session.lost()
        self._let_go()

    def _let_go(self) -> None:
        """Nobody has a reason to wait any more."""
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lose()

    def begin_drain(self) -> None:
        """Say so by a Close frame. Before the handshake is answered, the app has its say first."""
        if self._state is OPEN:
            code = self.shared.drain_code
            self._final = (code, DRAIN_REASONS[code])
            self._codec.send_close(*self._final)
            self._move(Signal.CLOSE_SENT)
            self._made(0)
            if self.session is not None:
                self.session.closing()

    # Time

    def check(self, now: float) -> None:
        state = self._state
        if state is OPEN:
            self._check_pings(now)
        elif state is CLOSING:
            if (self._final is not None and not self._reading) or self._carrier.unsent:
                self._since = now  # the app has not taken what came before a drain, or the peer what went out before
            elif now - self._since > CLOSE_SECONDS:
                self._carrier.abort()
        elif state is OVERDUE:
            self._carrier.abort()
        elif (state is HANDSHAKE or state is DENYING) and 0 < self.shared.times.request < now - self._began:
            self._overtime()

    def _check_pings(self, now: float) -> None:
        times = self.shared.times
        if self._asked is not None and self._reading and 0 < times.ping_timeout < now - self._asked:
            self._codec.send_close(*NO_PONG)
            self._leave(Signal.SILENT, *NO_PONG)
            self._carrier.close()
        elif 0 < times.ping_interval <= now - self._pinged and self._writable is None:
            self._pinged = now
            if self._asked is None:
                self._asked = now
            self._codec.send_ping(PING)
            self._made(len(PING))

    def _overtime(self) -> None:
        """The handshake has taken longer than ``timeouts.request``: answer it, and end the application."""
        session = self.session
        if session is None:
            return
        if session.unanswered:
            session.answer(HTTPStatus.SERVICE_UNAVAILABLE, "the request took too long")
        else:
            self._lose()
            self._carrier.abort()
        self.shared.cancel(session)


def run(session: Session, shared: Shared) -> None:
    """Run the application, unless there are too many: then the answer is 503."""
    if 0 < shared.requests <= len(shared.sessions):
        if shared.meter is not None:
            shared.meter.refuse("overload")
        session.answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once", RETRY_SOON)
        return
    shared.sessions.add(session)
    session.task = start(shared.loop, session.run(), shared.base_context.copy())


def refuse_while_draining(shared: Shared, is_first: bool) -> None:
    """Raise HandshakeError for a WebSocket that would have to be closed again at once.

    Not on a connection that has had no request before (``is_first``): its client could not know, and whoever is asked
    gets an answer from the application.
    """
    if shared.draining and not is_first:
        raise HandshakeError(HTTPStatus.SERVICE_UNAVAILABLE, DRAIN_REASONS[shared.drain_code], [RETRY_SOON])
