"""What the tests of the session share: a hand-written stream, an exchange on it, messages, and a look at the log."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import pytest

from asgiri.asgi.http import HttpSession
from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext, Peers, http_scope, scope_template
from asgiri.asgi.session import Session
from asgiri.codec.events import Request
from asgiri.errors import LocalProtocolError
from asgiri.types import ASGIApp, Headers, Message, Receive, Scope, Send

Call = tuple[Any, ...]


@dataclass
class FakeStream:
    """Records what a session asks for.

    ``stalled``: the peer does not read until the event is set. ``sending``: what happens while a file is sent.
    ``breaks``: what the last piece of an answer meets on its way.
    """

    calls: list[Call] = field(default_factory=list)
    stalled: asyncio.Event | None = None
    sending: Callable[[], Awaitable[None]] | None = None
    breaks: BaseException | None = None

    def send_informational(self, session: Session, status: int, headers: Headers) -> None:
        if any(b"\n" in value for _, value in headers):
            raise LocalProtocolError("a value holds a line feed")
        self.calls.append(("interim", int(status), headers))

    def send_head(self, session: Session, status: int, headers: Headers) -> None:
        if any(b"\n" in value for _, value in headers):
            raise LocalProtocolError("a value holds a line feed")
        self.calls.append(("head", status, headers))

    def send_answer(self, session: Session, status: int, headers: Headers, data: bytes) -> None:
        self.send_head(session, status, headers)
        self.send_body(session, data, True)

    def send_body(self, session: Session, data: bytes, end_stream: bool) -> None:
        assert type(data) is bytes
        if end_stream and self.breaks is not None:
            raise self.breaks
        self.calls.append(("body", data, end_stream))

    async def send_file(self, session: Session, fd: int, offset: int, count: int, end_stream: bool) -> None:
        assert count
        self.calls.append(("file", os.pread(fd, count, offset), end_stream))
        if self.sending is not None:
            await self.sending()

    def send_trailers(self, session: Session, trailers: Headers) -> None:
        if any(b"\n" in value for _, value in trailers):
            raise LocalProtocolError("a value holds a line feed")
        self.calls.append(("trailers", trailers))

    def reset(self, session: Session) -> None:
        self.calls.append(("reset",))
        session.lost()

    def drain(self, session: Session) -> Awaitable[object] | None:
        return None if self.stalled is None else self.stalled.wait()

    def body_consumed(self, session: Session, size: int) -> None:
        self.calls.append(("took", size))

    def finished(self, session: Session) -> None:
        self.calls.append(("finished",))


class Recorded(Protocol):
    """A stream that keeps what a session asks of it."""

    calls: list[Call]


S = TypeVar("S", bound=Session)
R = TypeVar("R", bound=Recorded)


class Running(Generic[S, R]):
    """A session on a hand-written stream, its application's run and the end of that."""

    session: S
    stream: R
    task: asyncio.Task[None] | None = None

    def __init__(self) -> None:
        self.broken: list[BaseException] = []  # what a test asserts within the application, and is not so

    def start(self) -> asyncio.Task[None]:
        self.task = asyncio.create_task(self.session.run())
        return self.task

    async def finish(self) -> list[Call]:
        """Run the app to its end; the calls without the last one, which says that it ended."""
        async with asyncio.timeout(10):
            await (self.task or self.start())
        for failure in self.broken:
            raise failure
        *calls, last = self.stream.calls
        assert last == ("finished",)
        assert self.stream.calls.count(last) == 1
        return calls


class Exchange(Running[HttpSession, FakeStream]):
    """One request to ``app``, and the stream that its answer goes to. To be made in a running loop."""

    def __init__(self, app: ASGIApp, request: Request | None = None, **context: Any) -> None:
        super().__init__()
        shared = AppContext(watched(app, self.broken), **({"extensions": HTTP_EXTENSIONS} | context))
        request = request or get()
        request.id = f"7-{request.stream_id}"
        self.stream = FakeStream()
        self.scope = http_scope(request, scope_template(Peers(None, None), shared), shared)
        self.session = HttpSession(request, self.scope, self.stream, shared)


def watched(app: ASGIApp, broken: list[BaseException]) -> ASGIApp:
    """``app``, and what a test asserts in it: to the session that is an application like any that fails."""

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except (AssertionError, pytest.fail.Exception) as error:
            broken.append(error)
            raise

    return watched


def get(method: str = "GET") -> Request:
    return Request(1, method, b"/p", b"/p", b"", [(b"host", b"a")], "1.1", True)


def post(expect_continue: bool = False) -> Request:
    return Request(1, "POST", b"/p", b"/p", b"", [(b"host", b"a")], "1.1", False, expect_continue)


def start(status: object = 200, *headers: object) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: object = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def piece(data: bytes, more: bool) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


def length(size: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % size)


def says(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def listens(heard: list[Message], times: int, *messages: Message) -> ASGIApp:
    """Receives so often, then sends the messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(times):
            message = await receive()
            heard.append(message)
        await says(*messages)(scope, receive, send)

    return app


DISCONNECT: Message = {"type": "http.disconnect"}
OK = (start(200), body(b"ok"))
ANSWERED: list[Call] = [("head", 200, [length(2)]), ("body", b"ok", True)]
PLAIN = (b"content-type", b"text/plain; charset=utf-8")
FAILED: list[Call] = [("head", 500, [PLAIN, length(26)]), ("body", b"500 Internal Server Error\n", True)]


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def records_of(name: str) -> Iterator[list[logging.LogRecord]]:
    """The records of that logger, whatever the loggers above it are set to."""
    logger, handler = logging.getLogger(name), Records()
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield handler.records
    logger.removeHandler(handler)
    logger.propagate, logger.level = before


def lines(log: list[logging.LogRecord]) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in log]
