"""What the tests of connections share: a transport without a socket, a peer that drives it, and a reader of answers."""

from __future__ import annotations

import asyncio
import functools
import gc
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec

from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext
from asgiri.codec.engines import http1_engine
from asgiri.codec.rules import HttpLimits
from asgiri.proto.connection import ExchangeLog, Shared, TimeLimits
from asgiri.proto.http11 import Http11Connection
from asgiri.proto.http11_life import State
from asgiri.types import ASGIApp, Message, Receive, Scope, Send

P = ParamSpec("P")

# Turns of the loop that are enough for everything that needs no time to have happened.
TURNS = 12


def run(
    main: Coroutine[Any, Any, None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    *,
    collect: bool = True,
) -> None:
    """Run to the end on a loop of its own; an error that only the loop heard of is a failure too."""
    heard: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: heard.append(context))
        runner.run(main)
        if collect:
            gc.collect()  # "exception was never retrieved" is said by __del__
    assert not heard, heard


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """An async test as pytest wants it."""

    @functools.wraps(test)
    def sync(*args: P.args, **kwargs: P.kwargs) -> None:
        run(test(*args, **kwargs))

    return sync


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Wait for the condition; the limit is there for the message it gives.

    What does not come within some turns comes from outside, a thread or a socket, and is not to be kept from its work.
    """
    async with asyncio.timeout(20):
        turns = 0
        while not condition():
            await asyncio.sleep(0 if turns < 10 * TURNS else 0.001)
            turns += 1


class FakeTransport(asyncio.Transport):
    """Records what a connection does. ``stalled``: the peer reads nothing until :meth:`peer_reads`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: asyncio.Protocol) -> None:
        self._info: dict[str, Any] = {"peername": ("192.0.2.7", 40000), "sockname": ("192.0.2.1", 80)}
        super().__init__(self._info)
        self._loop = loop
        self._connection = connection
        self._high = 64 << 10
        self._paused = False
        self.writes: list[bytes] = []
        self.waiting = 0  # bytes written that the peer has not taken
        self.stalled = False
        self._reading = True
        self.half_closed = False  # by us, with write_eof
        self._closing = False
        self._aborted = False
        self._lost = False
        self.reset_by_peer = False  # the kernel knows of it, the loop does not yet
        self.can_half_close = True
        self.breaks: BaseException | None = None  # what the next write meets

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def carries(self, sock: socket.socket) -> None:
        """Stand on a socket, as far as the connection asks for one."""
        self._info["socket"] = sock

    # What the connection may call

    @property
    def protocol(self) -> asyncio.Protocol:
        """Who gets what comes."""
        return self._connection

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._connection = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del low
        assert high is not None
        self._high = high
        if self.waiting > high and not self._paused:
            self._paused = True
            self._connection.pause_writing()

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.half_closed:
            raise RuntimeError("Cannot call write() after write_eof()")
        assert data, "an empty write"
        if self._closing:
            return
        if self.breaks is not None:
            breaks, self.breaks = self.breaks, None
            raise breaks
        self.writes.append(bytes(data))
        if self.stalled:
            self.waiting += len(data)
            if self.waiting > self._high and not self._paused:
                self._paused = True
                self._connection.pause_writing()

    def can_write_eof(self) -> bool:
        return self.can_half_close

    def write_eof(self) -> None:
        if self.reset_by_peer:
            raise OSError(107, "Transport endpoint is not connected")
        self.half_closed = True

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        assert self._reading, "paused twice"
        self._reading = False

    def resume_reading(self) -> None:
        assert not self._reading, "resumed twice"
        self._reading = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._reading = False
            if not self.waiting:
                self._loop.call_soon(self.lose)

    def abort(self) -> None:
        if not self._aborted:
            self._closing = self._aborted = True
            self._reading = False
            self.waiting = 0
            self._loop.call_soon(self.lose)

    # What the peer and the network see and do

    def is_aborted(self) -> bool:
        return self._aborted

    def is_lost(self) -> bool:
        return self._lost

    def lose(self, error: OSError | None = None) -> None:
        """The connection is gone."""
        if not self._lost:
            self._lost = self._closing = True
            self._reading = False
            self._connection.connection_lost(error)

    def peer_reads(self, size: int) -> None:
        self.waiting = max(0, self.waiting - size)
        if self._paused and self.waiting <= self._high // 4:
            self._paused = False
            self._connection.resume_writing()
        if self._closing and not self.waiting:
            self._loop.call_soon(self.lose)


class Peer:
    """The other end of one HTTP/1.1 connection, and its clock."""

    engine: ClassVar[str] = "h11"  # of the server; the fixture ``each_engine`` changes it

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: HttpLimits | None = None,
        times: TimeLimits | None = None,
        requests: int = 0,
        requests_per_connection: int = 0,
        access_log: ExchangeLog | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.shared = Shared(
            context=AppContext(app=app, extensions=HTTP_EXTENSIONS),
            http1=http1_engine(self.engine),
            limits=limits or HttpLimits(),
            times=times or TimeLimits(),
            loop=loop,
            requests=requests,
            requests_per_connection=requests_per_connection,
            access_log=access_log,
            now=1000.0,
            patience=60.0,  # a machine that is busy must not part what leaves together
        )
        self.connection = Http11Connection(self.shared)
        self.transport = FakeTransport(loop, self.connection)
        self.connection.connection_made(self.transport)

    def state(self) -> State:
        return self.connection._state

    def sent(self) -> bytes:
        """What the server wrote so far, its turn of the loop being over."""
        self.connection.push()
        return self.transport.sent

    @property
    def answers(self) -> list[Answer]:
        """The answers that are whole."""
        return parse_answers(self.sent(), ended=self.transport.is_closing())[0]

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    def feed(self, data: bytes) -> None:
        """Bytes arrive. A transport that does not read would not deliver them."""
        assert self.transport.is_reading(), "bytes to a transport that does not read"
        self.connection.data_received(data)

    def eof(self) -> None:
        assert self.transport.is_reading()
        if not self.connection.eof_received():
            self.transport.close()

    def passes(self, seconds: float) -> None:
        """Time goes by, and the server's sweep comes."""
        self.shared.now += seconds
        self.connection.check(self.shared.now)

    def has_answered(self, count: int) -> Callable[[], bool]:
        """A condition for :func:`until`."""
        return lambda: len(self.answers) == count

    async def drip(self, seconds: float, step: float) -> None:
        """Time goes by in steps, with a sweep after each one and a turn of the loop for what it does."""
        for _ in range(round(seconds / step)):
            self.passes(step)
            await settle()

    async def end(self) -> None:
        """Take the connection away; nothing of it may stay with the server."""
        self.transport.lose()
        await settle()
        await settle()
        assert self.state() is State.CLOSED
        assert not self.shared.connections
        assert not self.shared.sessions


@dataclass
class Answer:
    """One answer as a client reads it; field names in lower case, a repeated one joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: tuple[int, ...] = ()

    @property
    def closes(self) -> bool:
        return "close" in self.headers.get("connection", "")


def parse_answers(data: bytes, *, methods: Iterable[str] = (), ended: bool = False) -> tuple[list[Answer], bytes]:
    """The whole answers in ``data`` and the bytes that are left. ``ended``: no more will come."""
    answers: list[Answer] = []
    asked = iter(methods)
    interim: tuple[int, ...] = ()
    while b"\r\n\r\n" in data:
        head, rest = data.split(b"\r\n\r\n", 1)
        line, *fields = head.decode("latin-1").split("\r\n")
        version, code, _ = line.split(" ", 2)
        assert version == "HTTP/1.1", line
        headers: dict[str, str] = {}
        for field in fields:
            name, _, value = field.partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        status = int(code)
        if status < 200:
            interim, data = (*interim, status), rest
            continue
        silent = next(asked, "GET") == "HEAD" or status in (204, 304)
        found = (b"", rest) if silent else take_body(headers, rest, ended=ended)
        if found is None:
            break
        body, data = found
        answers.append(Answer(status, headers, body, interim))
        interim = ()
    return answers, data


def take_body(headers: dict[str, str], data: bytes, *, ended: bool) -> tuple[bytes, bytes] | None:
    """Body and what follows it; None when it is not whole."""
    if "chunked" in headers.get("transfer-encoding", ""):
        return take_chunks(data)
    if "content-length" in headers:
        size = int(headers["content-length"])
        return (data[:size], data[size:]) if len(data) >= size else None
    return (data, b"") if ended else None


def take_chunks(data: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while b"\r\n" in data:
        line, data = data.split(b"\r\n", 1)
        size = int(line, 16)
        if len(data) < size + 2:
            return None
        assert data[size : size + 2] == b"\r\n"
        body, data = body + data[:size], data[size + 2 :]
        if not size:
            return body, data
    return None


# Requests and applications


def request(target: str = "/", *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: asgiri.test", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def read_body(receive: Receive) -> bytes | None:
    """The request's body, None when the client went away before its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        assert isinstance(message["body"], bytes)
        body += message["body"]
        if not message["more_body"]:
            return body


async def reply(send: Send, body: bytes = b"hello", status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, whatever comes."""
    del receive
    await reply(send, scope["path"].encode())


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the request's body, once it is here."""
    del scope
    body = await read_body(receive)
    if body is not None:
        await reply(send, body)


class Held:
    """Tells what it is asked, and answers when the test says so: ``release(path)``."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.ended: list[str] = []  # paths whose call has returned or was cancelled
        self._gates: dict[str, asyncio.Event] = {}

    @property
    def paths(self) -> list[str]:
        return [scope["path"] for scope in self.scopes]

    def release(self, path: str) -> None:
        self._gates.setdefault(path, asyncio.Event()).set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        self.scopes.append(scope)
        path = scope["path"]
        try:
            await self._gates.setdefault(path, asyncio.Event()).wait()
            await reply(send, path.encode())
        finally:
            self.ended.append(path)


class ByHand:
    """An application that the test plays: ``call = await app.next()``, then ``call.receive`` and ``call.send``."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        self.calls.append(call)
        try:
            await call.over.wait()
            if call.error is not None:
                raise call.error
        except asyncio.CancelledError:
            call.cancelled = True
            raise

    async def next(self) -> Call:
        """The call that nobody has taken yet."""
        await until(lambda: self.calls)
        return self.calls.pop(0)


class Call:
    """One call of the application."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive: Callable[[], Awaitable[Message]] = receive
        self.send = send
        self.over = asyncio.Event()
        self.error: BaseException | None = None
        self.cancelled = False

    async def start(self, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def body(self, data: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def reply(self, data: bytes = b"hello", status: int = 200) -> None:
        """The whole answer, and the return."""
        await reply(self.send, data, status)
        self.finish()

    def finish(self, error: BaseException | None = None) -> None:
        self.error = error
        self.over.set()


def unused_port(host: str = "127.0.0.1") -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port
