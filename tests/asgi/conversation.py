"""What the tests of the WebSocket session share: a hand-written stream, a conversation on it, and messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext, Peers, scope_template, websocket_scope
from asgiri.asgi.websocket import WebSocketSession
from asgiri.codec.events import Request
from asgiri.errors import LocalProtocolError
from asgiri.types import ASGIApp, Headers, Message
from tests.asgi.exchange import PLAIN, Call, Running, length, watched


@dataclass
class FakeStream:
    """Records what a session asks for.

    ``stalled``: the peer does not read until the event is set. ``meanwhile``: what happens within the next verb that
    answers or closes. ``breaks``: what that verb meets on its way.
    """

    calls: list[Call] = field(default_factory=list)
    stalled: asyncio.Event | None = None
    meanwhile: Callable[[], None] = lambda: None
    breaks: BaseException | None = None

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        if subprotocol == "unasked":
            raise LocalProtocolError("the peer did not offer this subprotocol")
        self._answer(headers, ("accept", subprotocol, headers))

    def deny(self, status: int, headers: Headers, data: bytes) -> None:
        assert type(status) is int
        assert type(data) is bytes
        self._answer(headers, ("deny", status, headers, data))

    def deny_head(self, status: int, headers: Headers) -> None:
        self._answer(headers, ("head", status, headers))

    def _answer(self, headers: Headers, call: Call) -> None:
        if any(b"\n" in value for _, value in headers):
            raise LocalProtocolError("a value holds a line feed")
        if self.breaks is not None:
            raise self.breaks
        self.calls.append(call)
        self.meanwhile()

    def deny_body(self, data: bytes, end_stream: bool) -> None:
        assert type(data) is bytes
        self.calls.append(("body", data, end_stream))

    def send_text(self, text: str) -> None:
        if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise LocalProtocolError("the text holds a surrogate")
        self.calls.append(("text", text))

    def send_binary(self, data: bytes) -> None:
        assert type(data) is bytes
        self.calls.append(("binary", data))

    def close(self, code: int, reason: str) -> None:
        assert type(code) is int
        if not 1000 <= code <= 4999 or code == 1006:
            raise LocalProtocolError(f"code {code} cannot be sent")
        self.calls.append(("close", code, reason))
        self.meanwhile()

    def reset(self) -> None:
        self.calls.append(("reset",))

    def drain(self) -> Awaitable[object] | None:
        return None if self.stalled is None else self.stalled.wait()

    def message_consumed(self) -> None:
        self.calls.append(("took",))

    def finished(self) -> None:
        self.calls.append(("finished",))


class Conversation(Running[WebSocketSession, FakeStream]):
    """One WebSocket to ``app``, and the stream that its answers go to. To be made in a running loop."""

    def __init__(self, app: ASGIApp, target: bytes = b"/ws", **context: Any) -> None:
        super().__init__()
        shared = AppContext(watched(app, self.broken), **({"extensions": HTTP_EXTENSIONS} | context))
        request = Request(1, "GET", target, b"/ws", b"", [(b"host", b"a")], "1.1", True, False, b"websocket")
        request.id = "7-1"
        self.stream = FakeStream()
        self.scope = websocket_scope(request, scope_template(Peers(None, None), shared), shared, ["chat"])
        self.session = WebSocketSession(request, self.scope, self.stream, shared)


def accept(*headers: object, **more: object) -> Message:
    return {"type": "websocket.accept", "headers": list(headers), **more}


def send_text(text: object) -> Message:
    return {"type": "websocket.send", "text": text}


def send_bytes(data: object) -> Message:
    return {"type": "websocket.send", "bytes": data}


def close(**more: object) -> Message:
    return {"type": "websocket.close", **more}


def start(status: object = 401, *headers: object) -> Message:
    return {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}


def body(data: object = b"", more: bool = False) -> Message:
    return {"type": "websocket.http.response.body", "body": data, "more_body": more}


def text(text: str) -> Message:
    return {"type": "websocket.receive", "text": text, "bytes": None}


def binary(data: bytes) -> Message:
    return {"type": "websocket.receive", "text": None, "bytes": data}


def disconnect(code: int = 1006, reason: str = "") -> Message:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


CONNECT: Message = {"type": "websocket.connect"}
ACCEPTED: list[Call] = [("accept", None, [])]
FORBIDDEN: list[Call] = [("deny", 403, [PLAIN, length(14)], b"403 Forbidden\n")]
FAILED: list[Call] = [("deny", 500, [PLAIN, length(26)], b"500 Internal Server Error\n")]
