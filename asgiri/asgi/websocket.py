"""One WebSocket as the application sees it (ASGI WebSocket 2.5): connect, accept, receive, send, close, and denial.

The session knows ASGI and nothing of the wire; its stream knows the wire and nothing of ASGI. Two small machines:

Input, what the app is still to be told
    OPEN    the peer may still say something. What has come and was not taken waits in a queue; ``websocket.connect`` is
            the first in it
    OVER    nothing comes any more: ``websocket.disconnect`` is behind what waits
    TOLD    the app has seen ``websocket.disconnect``; it sees it again as often as it asks

            over    the app asks, and nothing waits
    OPEN    OVER    -
    OVER    -       TOLD

Output, what the app has answered
    NONE      nothing
    ACCEPTED  the WebSocket is open
    CLOSING   the server has said Close in the app's place (a drain): nothing can be sent any more, and what the peer
              still says is told
    HELD      a denial has begun (``websocket.http.response.start``); its head is kept back until the first piece of
              body, so that a failing app can still be answered for with a 500
    DENYING   the head of the denial is on the wire, its body is not whole
    DENIED    the denial is complete
    CLOSED    the app has closed the WebSocket; before it was accepted that is a 403
    LOST      nobody will get what the app still sends: the peer has closed, or is gone, or was answered in its place

              accept    send      start    body     last body  close
    NONE      ACCEPTED  -         HELD     -        -          CLOSED
    ACCEPTED  -         ACCEPTED  -        -        -          CLOSED
    CLOSING   -         -         -        -        -          CLOSED
    HELD      -         -         -        DENYING  DENIED     -
    DENYING   -         -         -        DENYING  DENIED     -
    From any state but DENIED and CLOSED, the end of the WebSocket leads to LOST.

CLOSED, DENIED and LOST close the input too. The codes that the app is told are those of RFC 6455 section 7.1.5: of the
Close frame that ended it, its own ones when it closed itself, 1006 without one (a denial, a lost connection).

A peer that has ended its side before the answer may still read a denial: the app is told that it is gone, and what it
sends still goes out.

An app that returns without a close has done its work: 1000, as other servers say it. 1011 is for those that fail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from http import HTTPStatus
from typing import Final

from asgiri.asgi.answers import SILENT, answer_head, plain_answer, with_defaults, with_id
from asgiri.asgi.messages import content_of, length_left, response_headers, status_of
from asgiri.asgi.scope import AppContext
from asgiri.asgi.session import Session
from asgiri.asgi.stream import WebSocketStream
from asgiri.codec.events import Request
from asgiri.errors import ClientDisconnectedError, LocalProtocolError, comes_of_disconnect
from asgiri.types import Headers, Message, Scope


class Input(Enum):
    OPEN = "open"
    OVER = "over"
    TOLD = "told"


class Output(Enum):
    NONE = "none"
    ACCEPTED = "accepted"
    CLOSING = "closing"
    HELD = "held"
    DENYING = "denying"
    DENIED = "denied"
    CLOSED = "closed"
    LOST = "lost"


# For the hot path: a member of an Enum by its class is a slow look-up on Python 3.11.
OPEN: Final = Input.OPEN
OVER: Final = Input.OVER
TOLD: Final = Input.TOLD
NONE: Final = Output.NONE
ACCEPTED: Final = Output.ACCEPTED
CLOSING: Final = Output.CLOSING
HELD: Final = Output.HELD
DENYING: Final = Output.DENYING
DENIED: Final = Output.DENIED
CLOSED: Final = Output.CLOSED
LOST: Final = Output.LOST

NORMAL_CLOSURE: Final = 1000
ABNORMAL_CLOSURE: Final = 1006
INTERNAL_ERROR: Final = 1011

# Bytes that a message takes in memory besides its content, or nearly: empty ones must not wait without a limit.
MESSAGE_COST: Final = 256

# When a message came that does not belong there, and what would have.
MISPLACED: Final = {
    NONE: "before the handshake was answered: expected websocket.accept, websocket.close or "
    "websocket.http.response.start",
    ACCEPTED: "after websocket.accept: expected websocket.send or websocket.close",
    HELD: "after websocket.http.response.start: expected websocket.http.response.body",
    DENYING: "before the denial was complete: expected websocket.http.response.body",
    DENIED: "after the denial was complete: expected nothing more",
}
KINDS: Final = (
    "websocket.accept",
    "websocket.send",
    "websocket.close",
    "websocket.http.response.start",
    "websocket.http.response.body",
)


class WebSocketSession(Session):
    """Runs the application for one WebSocket. The protocol feeds it; it drives the protocol's stream.

    ``buffered`` counts the bytes of the messages that the app has not taken, and :data:`MESSAGE_COST` for each; it is 0
    once the WebSocket is over.
    """

    # What most never touch is of the class until it is set.
    _code = ABNORMAL_CLOSURE  # of websocket.disconnect
    _reason = ""
    _status = 0  # of a denial
    _head: Headers | None = None  # of a denial, until it is on its way
    _framed = False  # the app says itself how long the denial's body is, or how it is coded
    _left: int | None = None  # bytes that the denial's Content-Length still promises
    _wake: asyncio.Future[None] | None = None  # there, and not done, while the app waits in receive()
    _new_future: Callable[[], asyncio.Future[None]] | None = None  # the loop's, once it was asked for

    def __init__(self, request: Request, scope: Scope, stream: WebSocketStream, context: AppContext) -> None:
        self._request = request
        self._scope = scope
        self._stream = stream
        self._context = context
        self._input = OPEN
        self._output = NONE
        self._waiting: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])

    # What the protocol tells the session

    def message(self, text: str | None, data: bytes | None, size: int) -> None:
        """A whole message has come, one of the two; ``size`` is its length in bytes. Dropped once it is over."""
        if self._input is not OPEN:
            return
        size += MESSAGE_COST
        self._waiting.append(({"type": "websocket.receive", "text": text, "bytes": data}, size))
        self.buffered += size
        if self._wake is not None:
            self._awaken()

    def closing(self) -> None:
        """The server has said Close, and the peer has not answered yet.

        A send raises from now on: what the peer will not get must not look as if it had.
        """
        if self._output is ACCEPTED:
            self._output = CLOSING

    def closed(self, code: int, reason: str) -> None:
        """The WebSocket is over, or is about to be: ``websocket.disconnect`` says so behind the messages that wait."""
        self._end_input(code, reason)
        if self._output is not CLOSED and self._output is not DENIED:
            self._output = LOST

    def lost(self) -> None:
        """The connection is gone: 1006, unless :meth:`closed` came before."""
        self.closed(ABNORMAL_CLOSURE, "")

    def body_received(self, data: bytes) -> None:
        """A handshake has no content."""

    def body_ended(self) -> None:
        """A handshake has no content."""

    def peer_ended(self) -> None:
        """The peer says nothing more, not even a Close frame, though it may still read: the app hears 1006."""
        self._end_input(ABNORMAL_CLOSURE, "")

    def _end_input(self, code: int, reason: str) -> None:
        if self._input is not OPEN:
            return
        self._input = OVER
        self._code, self._reason = code, reason
        self.buffered = 0  # what waits must not hold the reading up: the peer's Close frame may be still to come
        if self._wake is not None:
            self._awaken()

    def _awaken(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():  # done: who waited was cancelled
            wake.set_result(None)

    @property
    def unanswered(self) -> bool:
        """Nothing of an answer to the handshake is on the wire yet."""
        return self._output is NONE or self._output is HELD

    @property
    def is_stream(self) -> bool:
        return True

    @property
    def summary(self) -> str:
        """The WebSocket as a log line shows it: no byte of the peer's unescaped."""
        return f"WebSocket {self._request.target.decode('latin-1')!r}, request {self._request.id}"

    @property
    def number(self) -> int:
        """The handshake's number among the requests of its connection."""
        return self._request.stream_id

    # The application

    def _returned(self) -> None:
        output = self._output
        if output is ACCEPTED or output is CLOSING:
            self._close(NORMAL_CLOSURE)
        elif self.unanswered or output is DENYING:
            if self._input is not OPEN:
                self._give_up()  # the peer has ended its side, and an answer is of little use
            elif output is NONE:
                self._fail("returned without answering the handshake", "")
            else:
                self._fail("returned without completing its denial", "")

    def _was_told(self, error: BaseException) -> bool:
        over = self._output is LOST or self._output is CLOSING or self._input is TOLD
        return over and comes_of_disconnect(error)

    def _give_up(self) -> None:
        if self.unanswered:
            self.answer(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif self._output is ACCEPTED or self._output is CLOSING:
            self._close(INTERNAL_ERROR)
        elif self._output is DENYING:
            self.lost()
            self._stream.reset()

    def _close(self, code: int) -> None:
        """Close in the application's place."""
        self._end_output(CLOSED, code, "")
        self._stream.close(code, "")

    def _finished(self) -> None:
        self._stream.finished()

    def answer(self, status: HTTPStatus, reason: str = "", *fields: tuple[bytes, bytes]) -> None:
        """Answer the handshake in the application's place; what it sends later is refused as if the peer had gone."""
        headers, body = plain_answer(status, reason)
        self.lost()
        self._stream.deny(status.value, with_defaults([*headers, *fields], self._context, self._request), body)

    # receive

    def next_message(self) -> Message | None:
        """ASGI WebSocket 2.5.

        ``websocket.connect``, then ``websocket.receive`` with both ``text`` and ``bytes``, one of them None, at last
        ``websocket.disconnect`` with ``code`` and ``reason``, again and again.
        """
        if not self._waiting:
            if self._input is OPEN:
                return None
            self._input = TOLD
            return {"type": "websocket.disconnect", "code": self._code, "reason": self._reason}
        message, size = self._waiting.popleft()
        self._sends = 0  # who answers what the peer sends goes on no longer than that
        if size and self._input is OPEN:
            self.buffered -= size
            self._stream.message_consumed()
        return message

    def news(self) -> Awaitable[object]:
        wake = self._wake
        if wake is None or wake.done():
            if self._new_future is None:
                self._new_future = asyncio.get_running_loop().create_future
            wake = self._wake = self._new_future()
            return wake
        return asyncio.wait((wake,))  # another task waits: its future is not to be cancelled with this one

    # send

    def take(self, message: Message) -> Awaitable[object] | None:
        """One event of ASGI WebSocket 2.5, or of its denial response.

        ClientDisconnectedError is for a WebSocket that is over, by whoever's doing, RuntimeError also for an answer
        that cannot be sent. Whatever is raised, nothing was sent.
        """
        kind = message.get("type")
        if self._output is ACCEPTED and kind == "websocket.send":
            self._send_message(message)
            return self._stream.drain() or self.breath()
        self._check_open(kind)
        match kind:
            case "websocket.accept":
                self._accept(message)
                return None
            case "websocket.close":
                self._send_close(message)
                return None
            case "websocket.http.response.start":
                self._send_start(message)
                return None
            case "websocket.http.response.body":
                self._send_body(message)
                return self._stream.drain() or self.breath()
            case _:
                raise self._misplaced(kind)

    def check_connected(self) -> None:
        if self._output is LOST:
            raise ClientDisconnectedError("the client has disconnected")

    def _check_open(self, kind: object) -> None:
        self.check_connected()
        if self._output is CLOSING and kind != "websocket.close":
            raise ClientDisconnectedError("the server is closing the WebSocket")
        if self._output is CLOSED:
            raise ClientDisconnectedError("the application has closed the WebSocket")

    def _misplaced(self, kind: object) -> RuntimeError:
        where = MISPLACED[self._output]
        if kind in KINDS:
            return RuntimeError(f"{kind} was sent {where}")
        return RuntimeError(f"message type {kind!r} is not known here; it was sent {where}")

    def _send_message(self, message: Message) -> None:
        text, data = message.get("text"), message.get("bytes")
        if data is None:
            if text is None:
                raise ValueError("websocket.send: expected text or bytes, got neither")
            if not isinstance(text, str):
                raise TypeError(f"text: expected a str, got {type(text).__name__}")
            try:
                self._stream.send_text(text)
            except LocalProtocolError as error:
                raise ValueError(f"the text cannot be sent: {error}") from error
            return
        if text is not None:
            raise ValueError("websocket.send: expected text or bytes, got both")
        self._stream.send_binary(data if type(data) is bytes else content_of(data, "bytes"))

    def _accept(self, message: Message) -> None:
        if self._output is not NONE:
            raise self._misplaced("websocket.accept")
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and not isinstance(subprotocol, str):
            raise TypeError(f"subprotocol: expected a str or None, got {type(subprotocol).__name__}")
        headers, _ = response_headers(message.get("headers", ()))
        self._output = ACCEPTED  # at once: the stream may tell of messages, and of the end, before it returns
        try:
            self._stream.accept(subprotocol, with_defaults(headers, self._context, self._request))
        except LocalProtocolError as error:
            self._output = NONE
            raise RuntimeError(f"the WebSocket cannot be accepted like that: {error}") from error
        except BaseException:  # as for a denial's head: nobody knows what of it is out, so it is to be cut
            self._output = DENYING
            raise

    def _send_close(self, message: Message) -> None:
        if self._output is not NONE and self._output is not ACCEPTED and self._output is not CLOSING:
            raise self._misplaced("websocket.close")
        code = message.get("code")
        code = NORMAL_CLOSURE if code is None else code
        if not isinstance(code, int):
            raise TypeError(f"code: expected an int, got {code!r}")
        if self._output is NONE:  # no reason is told; FastAPI's is a list where a parameter is not valid
            headers, body = plain_answer(HTTPStatus.FORBIDDEN)
            self._end_output(CLOSED, ABNORMAL_CLOSURE, "")
            self._stream.deny(HTTPStatus.FORBIDDEN.value, with_defaults(headers, self._context, self._request), body)
            return
        reason = message.get("reason")
        reason = "" if reason is None else reason
        if not isinstance(reason, str):
            raise TypeError(f"reason: expected a str or None, got {type(reason).__name__}")
        try:
            self._stream.close(int(code), reason)
        except LocalProtocolError as error:
            raise ValueError(f"the WebSocket cannot be closed like that: {error}") from error
        held = self.buffered
        self._end_output(CLOSED, int(code), reason)
        if held:
            self._stream.message_consumed()

    def _end_output(self, output: Output, code: int, reason: str) -> None:
        self._output = output
        self._end_input(code, reason)

    # The denial

    def _send_start(self, message: Message) -> None:
        if self._output is not NONE:
            raise self._misplaced("websocket.http.response.start")
        status = status_of(message.get("status"))
        head = answer_head(self._context, status, message.get("headers", ()))
        self._left = None if status in SILENT else head.length
        self._status = status
        self._framed = head.framed
        id_field = self._context.id_field
        self._head = head if not id_field else with_id(head, id_field, self._request)
        self._output = HELD

    def _send_body(self, message: Message) -> None:
        if self._output is not HELD and self._output is not DENYING:
            raise self._misplaced("websocket.http.response.body")
        body = content_of(message.get("body", b""), "body")
        more = bool(message.get("more_body", False))
        if self._left is not None:
            self._left = length_left(self._left, len(body), more)
        head = self._head
        if head is not None:
            self._send_head(head, body, more)
        else:
            if not more:
                self._output = DENIED
            self._stream.deny_body(body, not more)
        if not more:
            self._end_input(ABNORMAL_CLOSURE, "")

    def _send_head(self, head: Headers, body: bytes, more: bool) -> None:
        """The denial's head with the first piece of its body, which may be all of it."""
        self._output = DENYING if more else DENIED  # at once: the stream may tell that it is lost before it returns
        try:
            if more:
                self._stream.deny_head(self._status, head)
                self._stream.deny_body(body, False)
            else:
                if not self._framed and self._status not in SILENT:
                    head = [*head, (b"content-length", b"%d" % len(body))]
                self._stream.deny(self._status, head, body)
        except LocalProtocolError as error:
            self._output = HELD
            raise RuntimeError(f"the answer's head cannot be sent: {error}") from error
        except BaseException:  # a stack that is full, mostly: nobody knows what of it is out, so it is to be cut
            self._output = DENYING
            self._head = None
            raise
        self._head = None
