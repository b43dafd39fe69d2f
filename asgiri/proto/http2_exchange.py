"""One request and its answer on one stream of an HTTP/2 connection: what its session sees of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING

from asgiri.asgi.answers import SILENT
from asgiri.asgi.http import HttpSession
from asgiri.asgi.session import Session
from asgiri.codec.events import Request
from asgiri.codec.h2_wire import ErrorCode
from asgiri.metrics.meter import ENOUGH
from asgiri.proto.connection import HIGH_WATER
from asgiri.proto.files import PIECE, read_piece
from asgiri.proto.http2_life import ANSWERED, ANSWERING, DONE, END, EXCHANGE, GONE, LOST, RECEIVING
from asgiri.types import Headers, Scope

if TYPE_CHECKING:
    from asgiri.proto.http2 import Http2Connection


# Of an answer that waits for the peer's window: bytes that have left, and since when they are no more.
Progress = tuple[int, float] | None


class Exchange:
    """One request and its answer: the stream of its session (:class:`asgiri.asgi.stream.HttpStream`).

    Its phases, and the table of them, are in http2_life.py. Once it is DONE or GONE it has nothing more to tell the
    session, and does without: two that know each other are left to the garbage collector, each time.
    """

    __deletable__ = ("session",)  # for the compiler (mypyc)
    __slots__ = (
        "_answer_began",
        "_began",
        "_began_exactly",
        "_progress",
        "_request",
        "_since",
        "_size",
        "_status",
        "_wake",
        "connection",
        "number",
        "phase",
        "session",
    )

    def __init__(self, connection: Http2Connection, request: Request, scope: Scope) -> None:
        shared = connection.shared
        self.connection = connection
        self.number = request.stream_id
        self.phase = ANSWERING if request.end_stream else RECEIVING
        self.session = HttpSession(request, scope, self, shared.context)
        self._began = self._since = shared.now  # when it came; when the last piece of its body did
        self._request = request
        self._began_exactly = connection.read_at
        self._answer_began = 0.0  # when the answer did, for the metrics; 0.0: that is in one piece
        self._status = 0  # of the answer, 0 before it has begun
        self._size = 0  # bytes of the answer's content so far
        self._progress: Progress = None
        self._wake: asyncio.Event | None = None  # there while the application waits for the peer

    # What the connection tells

    def body(self, data: bytes) -> None:
        if self.phase is RECEIVING:
            self._since = self.connection.shared.now
            self.session.body_received(data)

    def end(self) -> None:
        """The request is whole."""
        if self.phase is RECEIVING:
            self.phase = EXCHANGE[self.phase, END]
            self.session.body_ended()

    def peer_ended(self) -> None:
        if self.phase is not DONE:
            self.session.peer_ended()

    def lost(self) -> None:
        """The stream is over before its time: the peer's doing, or ours."""
        before = self.phase
        if before is GONE:
            return
        self.phase = EXCHANGE[before, LOST]
        self.connection.streams.pop(self.number, None)
        if before is not DONE:
            self._log()
            self.session.lost()
            del self.session
        self._awaken()

    def drained(self) -> bool:
        """Bytes have left: let the application go on, if it may. Whether it waits no more."""
        if self.connection.codec.held(self.number) > HIGH_WATER:
            return False
        self._awaken()
        return True

    def _awaken(self) -> None:
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    @property
    def unread(self) -> int:
        """Bytes of the request's body that the application has not taken."""
        return self.session.buffered if self.phase is RECEIVING or self.phase is ANSWERING else 0

    def begin_drain(self) -> None:
        """It ends by itself."""

    # Ends

    def refuse(self, status: HTTPStatus, reason: str) -> None:
        """End the exchange: with ``status`` when nothing is answered yet, else by a reset."""
        if self.phase is RECEIVING or self.phase is ANSWERING:
            if self.session.unanswered:
                self.session.answer(status, reason)
            else:
                self.cut(ErrorCode.CANCEL)

    def cut(self, code: ErrorCode) -> None:
        """Reset the stream."""
        if self.phase is not GONE:
            codec = self.connection.codec
            self._size -= codec.held(self.number)  # what the peer never gets
            codec.reset(self.number, code)
            self.lost()
            self.connection.flush_soon()

    # The session's stream

    def send_informational(self, session: Session, status: int, headers: Headers) -> None:
        del session
        self.connection.codec.send_informational(self.number, status, headers)
        self.connection.flush_soon()

    def send_head(self, session: Session, status: int, headers: Headers) -> None:
        del session
        self.connection.codec.send_head(self.number, status, headers)
        self._status = status
        if self.connection.shared.meter is not None:
            self._answer_began = perf_counter()

    def send_answer(self, session: Session, status: int, headers: Headers, data: bytes) -> None:
        del session
        if self.phase is DONE or self.phase is GONE:
            return
        connection = self.connection
        connection.codec.answer(self.number, status, headers, data)
        self._status = status
        self._size = len(data)
        self.phase = DONE
        del self.session
        if connection.shared.observed:
            self._log()
        connection.ended.append(self)
        connection.answered()

    def send_body(self, session: Session, data: bytes, end_stream: bool) -> None:
        del session
        if self.phase is DONE or self.phase is GONE:
            return
        connection = self.connection
        connection.codec.send_body(self.number, data, end_stream)
        self._size += len(data)
        if end_stream:
            self._answered()
        elif not connection.due:
            connection.flush_soon()

    async def send_file(self, session: Session, fd: int, offset: int, count: int, end_stream: bool) -> None:
        if self._silent:
            self.send_body(session, b"", end_stream)
            return
        loop = self.connection.shared.loop
        while count and (self.phase is RECEIVING or self.phase is ANSWERING):
            data = await loop.run_in_executor(None, read_piece, fd, min(PIECE, count), offset)
            offset += len(data)
            count -= len(data)
            self.send_body(session, data, end_stream and not count)
            waiting = self.drain(session)
            if waiting is not None:
                await waiting

    def send_trailers(self, session: Session, trailers: Headers) -> None:
        del session
        if self.phase is not DONE and self.phase is not GONE:
            self.connection.codec.send_trailers(self.number, trailers)
            self._answered()

    def _answered(self) -> None:
        self.phase = EXCHANGE[self.phase, ANSWERED]
        del self.session
        self._log()
        connection = self.connection
        connection.ended.append(self)
        connection.answered()

    def reset(self, session: Session) -> None:
        del session
        self.cut(ErrorCode.INTERNAL_ERROR)

    def drain(self, session: Session) -> Awaitable[object] | None:
        del session
        if self._size <= HIGH_WATER:
            return None
        connection = self.connection
        if connection.codec.held(self.number) <= HIGH_WATER:
            return None
        connection.flush_soon()  # not at once: the applications of other streams get their turn first
        if self._wake is None:
            self._wake = asyncio.Event()
            connection.tell_when_drained(self)
        return self._wake.wait()

    def body_consumed(self, session: Session, size: int) -> None:
        del session
        if self.phase is not GONE:
            self.connection.codec.consumed(self.number, size)
            self.connection.flush_soon()

    def finished(self, session: Session) -> None:
        self.connection.shared.forget_session(session)

    # Time

    def check(self, now: float, crowded: bool) -> None:
        """Act on what is overdue. ``crowded``: bodies that nobody takes fill the connection's window."""
        times = self.connection.shared.times
        if self.phase is RECEIVING:
            if crowded or self._owes_room():
                self._since = now
            elif 0 < times.request_body < now - self._since:
                self.refuse(HTTPStatus.REQUEST_TIMEOUT, "the request body took too long")
                return
        if self.phase is not DONE and 0 < times.request < now - self._began:
            session = self.session
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "the request took too long")
            self.connection.shared.cancel(session)
        elif self._size and times.write and self._stalled(now, times.write):
            self.cut(ErrorCode.CANCEL)

    def _owes_room(self) -> bool:
        """Whether the peer waits for us: for a 100, or for the application to take what is here of the body.

        Credit comes once half of the window is taken, so with less than half of it unread there is some.
        """
        awaits_continue = self._request.expect_continue  # as long as the session has not sent it
        return awaits_continue or 2 * self.session.buffered > self.connection.shared.http2_options.initial_window

    def _stalled(self, now: float, limit: float) -> bool:
        """Whether the answer has waited ``limit`` seconds for the peer's window, and none of it could go."""
        self._progress = progress_of(self.connection, self.number, self._size, self._progress, now)
        return self._progress is not None and now - self._progress[1] > limit

    # The access log

    @property
    def _silent(self) -> bool:
        """The answer has no content by its method or status."""
        return self._status in SILENT or self._request.method == "HEAD"

    def _log(self) -> None:
        """Count the exchange, and put it in the access log: once, where it leaves RECEIVING and ANSWERING."""
        shared = self.connection.shared
        meter = shared.meter
        if meter is not None:
            if self._answer_began or not self._status:
                meter.http2.ended_in_pieces(self._request.method, self._status, self._began_exactly, self._answer_began)
            else:
                batch = meter.http2.whole  # ended(), without a call
                batch += (self._request.method, self._status, perf_counter() - self._began_exactly)
                if len(batch) >= ENOUGH:
                    meter.http2.count()
        if shared.access_log is not None:
            size = 0 if self._silent else self._size
            self.connection.log(self._request, self._status, size, self._began_exactly)


def progress_of(connection: Http2Connection, number: int, size: int, before: Progress, now: float) -> Progress:
    """How far an answer of ``size`` bytes is that waits for the peer's window, and since when: None if it does not.

    ``before`` is what this gave the last time. Where other streams have spent the connection's window, it is their turn
    (RFC 9218): then the progress of any of them counts.
    """
    codec = connection.codec
    if not codec.blocked(number):
        return None
    left = size - codec.held(number)
    if before is None:
        return left, now
    if before[0] != left:
        connection.progress_at = now
        return left, now
    if before[1] < connection.progress_at and codec.starved(number):
        return left, connection.progress_at
    return before
