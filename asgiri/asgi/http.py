"""One HTTP request and its answer, as the application sees them: receive, send, and what they may not do.

The session knows ASGI and nothing of the wire; its stream knows the wire and nothing of ASGI. Two small machines:

Input, what the app is still to be told of the request
    OPEN         the body is still arriving
    ENDED        all of it is here, and the app has not been told so yet
    HALF_CLOSED  the same, and the peer will send nothing more at all
    TOLD         the app has seen ``more_body: False``
    GONE         the peer went away; the app gets ``http.disconnect``

                 body ends   peer ends     the app takes the last piece
    OPEN         ENDED       GONE          -
    ENDED        -           HALF_CLOSED   TOLD
    HALF_CLOSED  -           -             GONE
    TOLD         -           GONE          -

Output, how far the answer is
    NONE --start--> HELD --body--> SENT --last body--> DONE
    HELD keeps the head back until the first piece of body: they leave in one write, and until then a failing
    app can still be answered for with a 500. From any state but DONE a lost connection leads to LOST.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from enum import Enum
from http import HTTPStatus
from typing import Any, Protocol

from asgiri.asgi.scope import AppContext
from asgiri.codec.events import Request
from asgiri.errors import ClientDisconnectedError, LocalProtocolError
from asgiri.tracebacks import user_traceback
from asgiri.types import Headers, Message, Scope

logger = logging.getLogger("asgiri.app")


class HttpStream(Protocol):
    """What a session asks of its connection. The verbs never wait; ``drain`` tells when to."""

    def send_informational(self, session: HttpSession, status: int, headers: Headers) -> None: ...

    def send_head(self, session: HttpSession, status: int, headers: Headers) -> None:
        """Hold the head until the first ``send_body``. Raises LocalProtocolError when it cannot be sent."""

    def send_body(self, session: HttpSession, data: bytes, end_stream: bool) -> None: ...

    def reset(self, session: HttpSession) -> None:
        """The answer will never be whole: make sure that the peer cannot take it for one that is."""

    def drain(self, session: HttpSession) -> Awaitable[object] | None:
        """None while the peer reads well enough; else what to await before more is sent."""

    def body_consumed(self, session: HttpSession, size: int) -> None:
        """The app took ``size`` bytes of the request body: the peer may send as many more."""

    def finished(self, session: HttpSession) -> None:
        """The application has returned, or failed; nothing more comes from this session."""


class Input(Enum):
    OPEN = "open"
    ENDED = "ended"
    HALF_CLOSED = "half closed"
    TOLD = "told"
    GONE = "gone"


class Output(Enum):
    NONE = "none"
    HELD = "held"
    SENT = "sent"
    DONE = "done"
    LOST = "lost"


WHOLE = {Input.ENDED: Input.TOLD, Input.HALF_CLOSED: Input.GONE}  # the body is here -> once the app was told
PEER_ENDED = {Input.OPEN: Input.GONE, Input.ENDED: Input.HALF_CLOSED, Input.TOLD: Input.GONE}

# Output states in which nothing of the answer is on the wire yet, so that another can take its place.
UNANSWERED = (Output.NONE, Output.HELD)


class HttpSession:
    """Runs the application for one request. The connection feeds it; it drives the connection's stream."""

    __slots__ = (
        "_chunks",
        "_context",
        "_head",
        "_input",
        "_left",
        "_output",
        "_request",
        "_scope",
        "_silent",
        "_stream",
        "_wake",
        "buffered",
        "task",
    )

    def __init__(self, request: Request, scope: Scope, stream: HttpStream, context: AppContext) -> None:
        self._request = request
        self._scope = scope
        self._stream = stream
        self._context = context
        self._input = Input.ENDED if request.end_stream else Input.OPEN
        self._output = Output.NONE
        self._head: tuple[int, Headers] | None = None
        self._left: int | None = None  # bytes that the answer's Content-Length still promises
        self._silent = False  # the answer has no content by its method or status
        self._chunks: list[bytes] = []
        self._wake: asyncio.Event | None = None
        self.buffered = 0  # bytes of request body that the app has not taken yet
        self.task: asyncio.Task[None] | None = None

    # What the connection tells the session

    def body_received(self, data: bytes) -> None:
        if self._input is Input.OPEN and self._output is not Output.DONE:
            self._request.expect_continue = False  # it did not wait for the 100 (RFC 9110 section 10.1.1)
            self._chunks.append(data)
            self.buffered += len(data)
            self._awaken()

    def body_ended(self) -> None:
        if self._input is Input.OPEN:
            self._input = Input.ENDED
            self._awaken()

    def peer_ended(self) -> None:
        """The peer sends nothing more, though it may still read: the app hears of it once the body is told."""
        if self._input is Input.OPEN:
            self._chunks.clear()  # the body is cut off: what there is of it must not pass for all of it
            self.buffered = 0
        self._input = PEER_ENDED.get(self._input, self._input)
        self._awaken()

    def lost(self) -> None:
        """The connection is gone, or no answer can be sent any more."""
        self._input = Input.GONE
        self._chunks.clear()
        self.buffered = 0
        if self._output is not Output.DONE:
            self._output = Output.LOST
        self._awaken()

    @property
    def unanswered(self) -> bool:
        """Nothing of the answer is on the wire yet."""
        return self._output in UNANSWERED

    @property
    def summary(self) -> str:
        """The request as a log line shows it: no byte of the peer's unescaped."""
        return f"{self._request.method} {self._request.target.decode('latin-1')!r}"

    # The application

    async def run(self) -> None:
        """Call the application and answer for it when it fails. Raises only CancelledError."""
        try:
            await self._context.app(self._scope, self.receive, self.send)
        except asyncio.CancelledError as error:
            if not being_cancelled():  # nobody cancelled us: the app awaited something that was
                self._failed(error)
                return
            self._give_up()
            raise
        except BaseException as error:
            self._failed(error)
        else:
            if self._input is Input.GONE and self._output is not Output.DONE:
                self._give_up()  # it was told that the peer has left, and rightly saw no use in an answer
            elif self._output not in (Output.DONE, Output.LOST):
                self._fail("returned without completing its answer", "")
        finally:
            self._stream.finished(self)

    def _failed(self, error: BaseException) -> None:
        if self._output is Output.LOST and comes_of_disconnect(error):
            return  # it was told, and let the news pass through: nothing is wrong
        self._fail(f"failed: {type(error).__name__}", user_traceback(error))

    def _fail(self, what: str, trace: str) -> None:
        logger.error("the application %s (%s)", what, self.summary, extra={"trace": trace})
        self._give_up()

    def _give_up(self) -> None:
        if self._output in UNANSWERED:
            self.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif self._output is Output.SENT:
            self._output = Output.LOST
            self._stream.reset(self)

    def answer(self, status: HTTPStatus, reason: str = "") -> None:
        """Answer in the application's place; what it sends later is refused as if the peer had gone."""
        headers, body = plain_answer(status, reason)
        self._left = None
        self._head = (status.value, with_defaults(headers, self._context))
        self._output = Output.HELD
        self._write(body, True)
        self.lost()
        self._output = Output.LOST

    # receive

    async def receive(self) -> Message:
        """The next event for the application: ``http.request`` or ``http.disconnect`` (ASGI HTTP 2.5)."""
        while True:
            if self._output is Output.DONE or self._output is Output.LOST or self._input is Input.GONE:
                return {"type": "http.disconnect"}
            if self._chunks or self._input in WHOLE:
                return self._next_piece()
            if self._request.expect_continue and self._input is Input.OPEN:
                self._request.expect_continue = False
                if self._output in UNANSWERED:
                    self._stream.send_informational(self, HTTPStatus.CONTINUE, [])
            if self._wake is None:
                self._wake = asyncio.Event()
            self._wake.clear()
            await self._wake.wait()

    def _next_piece(self) -> Message:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        more = self._input is Input.OPEN
        self._input = WHOLE.get(self._input, self._input)
        if body:
            self._stream.body_consumed(self, len(body))
        return {"type": "http.request", "body": body, "more_body": more}

    def _awaken(self) -> None:
        if self._wake is not None:
            self._wake.set()

    # send

    async def send(self, message: Message) -> None:
        """Take one event of the application's answer (ASGI HTTP 2.5).

        Raises ClientDisconnectedError (an OSError) once the peer is gone, RuntimeError for a message that does
        not belong here or a body that breaks its Content-Length, TypeError and ValueError for ill-formed ones.
        """
        if self._output is Output.LOST:
            raise ClientDisconnectedError("the client has disconnected")
        kind = message.get("type")
        if kind == "http.response.body":
            self._send_body(message)
            waiting = self._stream.drain(self)
            if waiting is not None:
                await waiting
                if self._output is Output.LOST:  # type: ignore[comparison-overlap]  # changed while waiting
                    raise ClientDisconnectedError("the client has disconnected")
        elif kind == "http.response.start":
            self._send_start(message)
        else:
            raise RuntimeError(
                f"message type {kind!r} is not known here: expected http.response.start or http.response.body"
            )

    def _send_start(self, message: Message) -> None:
        if self._output is not Output.NONE:
            raise RuntimeError("http.response.start was sent already")
        status = message.get("status")
        if not isinstance(status, int):
            raise TypeError(f"status: expected an int, got {status!r}")
        headers = response_headers(message.get("headers", ()))
        self._silent = self._request.method == "HEAD" or status in (204, 304)
        self._left = None if self._silent else content_length(headers)
        self._head = (int(status), with_defaults(headers, self._context))
        self._output = Output.HELD

    def _send_body(self, message: Message) -> None:
        if self._output is Output.NONE:
            raise RuntimeError("http.response.body was sent before http.response.start")
        if self._output is Output.DONE:
            raise RuntimeError("http.response.body was sent after the answer was complete")
        body = message.get("body", b"")
        if type(body) is not bytes:
            if not isinstance(body, bytes | bytearray | memoryview):
                raise TypeError(f"body: expected bytes, got {type(body).__name__}")
            body = bytes(body)
        more = bool(message.get("more_body", False))
        self._check_length(len(body), more)
        self._write(body, not more)

    def _check_length(self, size: int, more: bool) -> None:
        """Hold the application to its Content-Length before a byte of the piece is sent (RFC 9110 section 8.6)."""
        if self._left is None:
            if not more and self._output is Output.HELD and not self._silent:
                self._state_length(size)
            return
        if size > self._left:
            raise RuntimeError(f"the answer's body is longer than its Content-Length, by {size - self._left} bytes")
        if not more and size < self._left:
            raise RuntimeError(f"the answer's body is shorter than its Content-Length, by {self._left - size} bytes")
        self._left -= size

    def _state_length(self, size: int) -> None:
        """The whole answer is here and names no framing: its length is better than chunks."""
        assert self._head is not None
        headers = self._head[1]
        if not any(name == b"transfer-encoding" for name, _ in headers):
            headers.append((b"content-length", b"%d" % size))

    def _write(self, body: bytes, last: bool) -> None:
        stream = self._stream
        if self._head is not None:
            status, headers = self._head
            try:
                stream.send_head(self, status, headers)
            except LocalProtocolError as error:
                raise RuntimeError(f"the answer's head cannot be sent: {error}") from error
            self._head = None
        self._output = Output.DONE if last else Output.SENT
        if last:  # the app is told no more of the request: what it left must not hold the reading up
            self._chunks.clear()
            self.buffered = 0
        stream.send_body(self, body, last)
        if last:
            self._awaken()  # who waits in receive() hears that it is over


def plain_answer(status: HTTPStatus, reason: str = "") -> tuple[Headers, bytes]:
    """Header fields and body of an answer of the server's own; ``reason`` is one sentence for the peer."""
    body = f"{status.value} {status.phrase}{': ' if reason else ''}{reason}\n".encode()
    return [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))], body


def with_defaults(headers: Headers, context: AppContext) -> Headers:
    """``headers``, with the server's default ones added where none of that name is there."""
    names = {name for name, _ in headers}
    headers.extend(field for field in context.default_headers if field[0] not in names)
    return headers


def being_cancelled() -> bool:
    """Whether somebody has cancelled the task that this runs in."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def comes_of_disconnect(error: BaseException | None) -> bool:
    """Whether the error is our ClientDisconnectedError, was raised because of it, or is a group of such alone."""
    seen: set[int] = set()  # `raise error from error` makes a circle
    while error is not None and id(error) not in seen:
        if isinstance(error, ClientDisconnectedError):
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(map(comes_of_disconnect, error.exceptions))
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def response_headers(headers: Iterable[Any]) -> Headers:
    """The app's header fields as a list of byte pairs, names in lower case. TypeError says which field is none."""
    try:
        return [(bytes_of(name).lower(), bytes_of(value)) for name, value in headers]
    except (TypeError, ValueError):
        for header in headers:
            try:
                name, value = header
                bytes_of(name), bytes_of(value)
            except (TypeError, ValueError):
                raise TypeError(f"headers: expected pairs of bytes, got {header!r}") from None
        raise


def bytes_of(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"expected bytes, got {type(value).__name__}")


def content_length(headers: Headers) -> int | None:
    """The Content-Length of an answer, None without one; ValueError when it is none, or there are two."""
    values = [value.strip(b" \t") for name, value in headers if name == b"content-length"]
    if not values:
        return None
    if len(values) > 1 or not values[0].isdigit():
        raise ValueError(f"content-length: expected one number of bytes, got {b', '.join(values)!r}")
    return int(values[0])
