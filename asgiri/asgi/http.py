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
    NONE      nothing of it is here
    HELD      the head is kept back until the first piece of body: they leave in one write, and until then a failing
              app can still be answered for with a 500
    SENT      the head is on the wire, the body is not whole
    FILE      a file is on its way: no other message may come until it is through
    TRAILERS  the body is whole; the trailer fields that the start announced are to come
    DONE      the answer is complete
    LOST      nobody will get it, or what is left of it

              start    body    last body           file    last trailers
    NONE      HELD     -       -                   -       -
    HELD      -        SENT    DONE or TRAILERS    FILE    -
    SENT      -        SENT    DONE or TRAILERS    FILE    -
    FILE      (once it is through: SENT, DONE or TRAILERS, as for a body)
    TRAILERS  -        -       -                   -       DONE
    From any state but DONE a lost connection leads to LOST.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from enum import Enum
from http import HTTPStatus
from typing import Final

from asgiri.asgi.answers import SILENT, answer_head, plain_answer, with_defaults, with_id
from asgiri.asgi.files import FilePart, FileSlice, opened
from asgiri.asgi.messages import content_of, length_left, link_fields, response_headers, status_of, takes_trailers
from asgiri.asgi.scope import AppContext
from asgiri.asgi.session import Session, logger
from asgiri.asgi.stream import HttpStream
from asgiri.codec.events import Request
from asgiri.errors import ClientDisconnectedError, LocalProtocolError, comes_of_disconnect
from asgiri.types import Headers, Message, Scope

DISCONNECTED: Final = "the client has disconnected"


class Input(Enum):
    __hash__ = object.__hash__  # Enum's own is written in Python

    OPEN = "open"
    ENDED = "ended"
    HALF_CLOSED = "half closed"
    TOLD = "told"
    GONE = "gone"


class Output(Enum):
    __hash__ = object.__hash__

    NONE = "none"
    HELD = "held"
    SENT = "sent"
    FILE = "file"
    TRAILERS = "trailers"
    DONE = "done"
    LOST = "lost"


# For the hot path: a member of an Enum by its class is a slow look-up on Python 3.11.
OPEN: Final = Input.OPEN
ENDED: Final = Input.ENDED
HALF_CLOSED: Final = Input.HALF_CLOSED
TOLD: Final = Input.TOLD
GONE: Final = Input.GONE
NONE: Final = Output.NONE
HELD: Final = Output.HELD
SENT: Final = Output.SENT
FILE: Final = Output.FILE
TRAILERS: Final = Output.TRAILERS
DONE: Final = Output.DONE
LOST: Final = Output.LOST

WHOLE: Final = {ENDED: TOLD, HALF_CLOSED: GONE}  # the body is here -> once the app was told
PEER_ENDED: Final = {OPEN: GONE, ENDED: HALF_CLOSED, TOLD: GONE}

# Output states in which nothing of the answer is on the wire yet, so that another can take its place.
UNANSWERED: Final = (NONE, HELD)

# Those in which some is.
STREAMED: Final = (SENT, FILE, TRAILERS)

# When a message comes that does not belong where the answer is.
MISPLACED: Final = {
    NONE: "before http.response.start",
    HELD: "before the body was complete",
    SENT: "before the body was complete",
    FILE: "while a file was being sent",
    TRAILERS: "after the body was complete",
    DONE: "after the answer was complete",
}


class HttpSession(Session):
    """Runs the application for one request. The connection feeds it; it drives the connection's stream."""

    # What most requests never touch is of the class until it is set.
    _head: Headers | None = None  # of the answer, until it is on its way
    _status = 0  # of the answer
    _framed = False  # the app says itself how long the answer is, or how it is coded
    _left: int | None = None  # bytes that the answer's Content-Length still promises
    _silent = False  # the answer has no content by its method or status
    _trailers: Headers | None = None  # those that have come; None when none were announced
    _wake: asyncio.Event | None = None

    def __init__(self, request: Request, scope: Scope, stream: HttpStream, context: AppContext) -> None:
        self._request = request
        self._scope = scope
        self._stream = stream
        self._context = context
        self._input = ENDED if request.end_stream else OPEN
        self._output = NONE
        self._chunks: list[bytes] = []

    # What the connection tells the session

    def body_received(self, data: bytes) -> None:
        if self._input is OPEN and self._output is not DONE:
            self._request.expect_continue = False  # it did not wait for the 100 (RFC 9110 section 10.1.1)
            self._chunks.append(data)
            self.buffered += len(data)
            self._awaken()

    def body_ended(self) -> None:
        if self._input is OPEN:
            self._input = ENDED
            self._awaken()

    def peer_ended(self) -> None:
        """The peer sends nothing more, though it may still read: the app hears of it once the body is told."""
        if self._input is OPEN:
            self._chunks.clear()  # the body is cut off: what there is of it must not pass for all of it
            self.buffered = 0
        self._input = PEER_ENDED.get(self._input, self._input)
        self._awaken()

    def lost(self) -> None:
        """The connection is gone, or no answer can be sent any more."""
        self._input = GONE
        self._chunks.clear()
        self.buffered = 0
        if self._output is not DONE:
            self._output = LOST
        self._awaken()

    @property
    def unanswered(self) -> bool:
        """Nothing of the answer is on the wire yet."""
        return self._output in UNANSWERED

    @property
    def is_stream(self) -> bool:
        return self._output in STREAMED

    @property
    def summary(self) -> str:
        """The request as a log line shows it: no byte of the peer's unescaped."""
        request = self._request
        return f"{request.method} {request.target.decode('latin-1')!r}, request {request.id}"

    @property
    def number(self) -> int:
        """The request's number on its connection."""
        return self._request.stream_id

    # The application

    def _returned(self) -> None:
        if self._input is GONE and self._output is not DONE:
            self._give_up()  # it was told that the peer has left, and rightly saw no use in an answer
        elif self._output not in (DONE, LOST):
            self._fail("returned without completing its answer", "")

    def _was_told(self, error: BaseException) -> bool:
        return self._output is LOST and comes_of_disconnect(error)

    def _finished(self) -> None:
        self._stream.finished(self)

    def _give_up(self) -> None:
        if self._output in UNANSWERED:
            self.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif self._output is not DONE and self._output is not LOST:
            self._output = LOST
            self._stream.reset(self)

    def answer(self, status: HTTPStatus, reason: str = "", *fields: tuple[bytes, bytes]) -> None:
        """Answer in the application's place; what it sends later is refused as if the peer had gone."""
        headers, body = plain_answer(status, reason)
        self._left = self._trailers = None
        self._status = status.value
        self._head = with_defaults([*headers, *fields], self._context, self._request)
        self._output = HELD
        self._write(body, True)
        self.lost()
        self._output = LOST

    # receive

    def next_message(self) -> Message | None:
        """``http.request`` or ``http.disconnect`` (ASGI HTTP 2.5)."""
        if self._output is DONE or self._output is LOST or self._input is GONE:
            return {"type": "http.disconnect"}
        if self._chunks or self._input in WHOLE:
            return self._next_piece()
        if self._request.expect_continue and self._input is OPEN:
            self._request.expect_continue = False
            if self._output in UNANSWERED:
                self._stream.send_informational(self, HTTPStatus.CONTINUE, [])
        return None

    def news(self) -> Awaitable[object]:
        if self._wake is None:
            self._wake = asyncio.Event()
        self._wake.clear()
        return self._wake.wait()

    @property
    def has_listener(self) -> bool:
        return self._wake is not None

    def _next_piece(self) -> Message:
        chunks = self._chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        more = self._input is OPEN
        self._input = WHOLE.get(self._input, self._input)
        if body:
            self._stream.body_consumed(self, len(body))
        return {"type": "http.request", "body": body, "more_body": more}

    def _awaken(self) -> None:
        if self._wake is not None:
            self._wake.set()

    # send

    def take(self, message: Message) -> Awaitable[object] | None:
        """One event of the answer (ASGI HTTP 2.5, and its extensions where they are offered).

        RuntimeError is also for a body that breaks its Content-Length, OSError for a file that cannot be opened.
        """
        if self._output is LOST:
            raise ClientDisconnectedError(DISCONNECTED)
        kind = message.get("type")
        if kind == "http.response.body":
            self._send_body(message)
            waiting = self._stream.drain(self)
            return self.breath() if waiting is None and self._output is not DONE else waiting
        if kind == "http.response.start":
            self._send_start(message)
            return None
        return self._send_extension(kind, message)

    def check_connected(self) -> None:
        if self._output is LOST:
            raise ClientDisconnectedError(DISCONNECTED)

    def _misplaced(self, kind: str) -> RuntimeError:
        return RuntimeError(f"{kind} was sent {MISPLACED[self._output]}")

    async def _send_extension(self, kind: object, message: Message) -> None:
        """A message of an extension: known as long as the scope offers it."""
        match kind if kind in self._context.extensions else None:
            case "http.response.zerocopysend":
                await self._send_slice(message)
            case "http.response.pathsend":
                await self._send_path(message)
            case "http.response.trailers":
                self._send_trailers(message)
            case "http.response.early_hint":
                self._send_hint(message)
            case "http.response.debug":
                if self._output is not NONE:
                    raise RuntimeError("http.response.debug was sent after http.response.start")
            case _:
                raise RuntimeError(
                    f"message type {kind!r} is not known here: expected http.response.start, http.response.body, "
                    "or one of an extension that the scope offers"
                )
        waiting = self._stream.drain(self) or self.breath()
        if waiting is not None:
            await waiting

    def _send_start(self, message: Message) -> None:
        if self._output is not NONE:
            raise RuntimeError("http.response.start was sent already")
        status = message.get("status")
        if type(status) is not int:
            status = status_of(status)
        head = answer_head(self._context, status, message.get("headers", ()))
        if status in SILENT or self._request.method == "HEAD":
            self._silent = True
        else:
            self._left = head.length
        if "trailers" in message:
            self._announce_trailers(message["trailers"])
        self._status = status
        self._framed = head.framed
        id_field = self._context.id_field
        self._head = head if not id_field else with_id(head, id_field, self._request)
        self._output = HELD

    def _announce_trailers(self, announced: object) -> None:
        if announced and "http.response.trailers" in self._context.extensions:
            self._trailers = []

    def _send_hint(self, message: Message) -> None:
        """103 (RFC 8297). The extension lets it come until the body is whole; behind the head it has lost its use."""
        links = link_fields(message.get("links"))
        if self._output is TRAILERS or self._output is DONE:
            raise self._misplaced("http.response.early_hint")
        if not links or self._output not in UNANSWERED:
            return
        try:
            self._stream.send_informational(self, HTTPStatus.EARLY_HINTS, links)
        except LocalProtocolError as error:
            raise RuntimeError(f"the early hint cannot be sent: {error}") from error

    # The body

    def _send_body(self, message: Message) -> None:
        output = self._output
        if output is not HELD and output is not SENT:
            raise self._misplaced("http.response.body")
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = content_of(body, "body")
        more = bool(message.get("more_body", False))
        if more or len(body) != self._left:
            self._check_length(len(body), more)
        self._write(body, not more)

    async def _send_path(self, message: Message) -> None:
        if self._output is SENT:
            raise RuntimeError("http.response.pathsend is the whole body: it cannot be mixed with other pieces")
        if self._output is not HELD:
            raise self._misplaced("http.response.pathsend")
        path = message.get("path")
        if not isinstance(path, str):
            raise TypeError(f"path: expected a str, got {path!r}")
        with opened(path) as part:
            if self._request.method == "HEAD" and self._status not in SILENT:
                self._state_length(part.size)  # as the answer to a GET would (RFC 9110 section 8.6)
            await self._send_file(part, more=False)

    async def _send_slice(self, message: Message) -> None:
        if self._output is not HELD and self._output is not SENT:
            raise self._misplaced("http.response.zerocopysend")
        await self._send_file(FileSlice(message), more=bool(message.get("more_body", False)))

    async def _send_file(self, file: FilePart, more: bool) -> None:
        self._check_length(file.size, more)
        file.advance()
        if not file.size:
            self._write(b"", not more)
            return
        if self._head is not None:
            self._put_head(self._head)
        after = SENT if more else DONE if self._trailers is None else TRAILERS
        self._output = FILE
        try:
            await self._stream.send_file(self, file.fd, file.offset, file.size, after is DONE)
        except asyncio.CancelledError:
            self._give_up()  # a part of it is out, and nobody will send the rest
            raise
        except OSError as error:
            logger.error("a file could not be sent to its end: %s (%s)", error, self.summary)
            self._give_up()
            raise ClientDisconnectedError("the connection was cut: a file could not be sent to its end") from error
        self.check_connected()
        self._output = after
        if after is DONE:
            self._forget_request()

    def _check_length(self, size: int, more: bool) -> None:
        """Hold the application to its Content-Length before a byte of the piece is sent (RFC 9110 section 8.6)."""
        if self._left is None:
            if not more and self._output is HELD and not self._silent:
                self._state_length(size)
            return
        self._left = length_left(self._left, size, more)

    def _state_length(self, size: int) -> None:
        """The whole body is here, and the app names no framing: its length is better than chunks.

        But chunks it must be when trailers are to follow (RFC 9112 section 7.1.2).
        """
        assert self._head is not None
        if self._trailers is None and not self._framed:
            self._head = [*self._head, (b"content-length", b"%d" % size)]

    def _put_head(self, headers: Headers) -> None:
        try:
            self._stream.send_head(self, self._status, headers)
        except LocalProtocolError as error:
            raise RuntimeError(f"the answer's head cannot be sent: {error}") from error
        self._head = None

    def _write(self, body: bytes, last: bool) -> None:
        head = self._head
        if last and self._trailers is None:
            if head is None:
                self._output = DONE
                try:
                    self._forget_request()
                    self._stream.send_body(self, body, True)
                except BaseException:
                    self._output = SENT
                    raise
            else:
                self._answer(head, body)
            return
        if head is not None:
            self._put_head(head)
        self._output = TRAILERS if last else SENT
        self._stream.send_body(self, body, False)

    def _answer(self, headers: Headers, body: bytes) -> None:
        """The whole answer at once."""
        self._output = DONE
        self._head = None
        try:
            self._forget_request()
            self._stream.send_answer(self, self._status, headers, body)
        except LocalProtocolError as error:
            self._output = HELD
            self._head = headers
            raise RuntimeError(f"the answer's head cannot be sent: {error}") from error
        except BaseException:  # a stack that is full, mostly: nobody knows what of it is out, so it is to be cut
            self._output = SENT
            raise

    def _forget_request(self) -> None:
        """The app is told no more of the request: what it left must not hold the reading up."""
        if self._chunks:
            self._chunks.clear()
            self.buffered = 0
        if self._wake is not None:
            self._wake.set()  # who waits in receive() hears that it is over

    # The trailers

    def _send_trailers(self, message: Message) -> None:
        """Gather the fields, and end the answer with the last message.

        Without ``TE: trailers`` in the request they are left out, as the extension demands.
        """
        if self._output is not NONE and self._trailers is None:
            raise RuntimeError("http.response.trailers was sent, and http.response.start had no trailers: True")
        if self._output is not TRAILERS or self._trailers is None:
            raise self._misplaced("http.response.trailers")
        fields = self._trailers + response_headers(message.get("headers", ()))[0]
        if message.get("more_trailers", False):
            self._trailers = fields
            return
        try:
            self._stream.send_trailers(self, fields if takes_trailers(self._request.headers) else [])
        except LocalProtocolError as error:
            raise RuntimeError(f"the trailers cannot be sent: {error}") from error
        self._output = DONE
        self._forget_request()
