"""The client of one WebSocket over either carrier, on a transport without a socket: the same verbs for both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from asgiri.codec.engines import websocket_engine
from asgiri.proto.connection import Shared, TimeLimits, WebSocketOptions
from asgiri.proto.http2_websocket import websocket_on
from asgiri.types import ASGIApp
from tests.proto.fakes import Answer, ByHand, Call, FakeTransport, Peer, parse_answers, settle
from tests.proto.fakes_http2 import Http2Peer

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

HANDSHAKE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
)
KEY = b"\x01\x02\x03\x04"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A frame as a client sends it: masked."""
    masked = bytes(byte ^ KEY[place % 4] for place, byte in enumerate(payload))
    return head(opcode, len(payload), fin=fin) + KEY + masked


def head(opcode: int, size: int, *, fin: bool = True) -> bytes:
    """What comes before the key."""
    first = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        return first + bytes([0x80 | size])
    return first + (b"\xfe" + size.to_bytes(2) if size < 1 << 16 else b"\xff" + size.to_bytes(8))


def text(words: str) -> bytes:
    return frame(TEXT, words.encode())


def close(code: int = 1000, reason: str = "") -> bytes:
    return frame(CLOSE, code.to_bytes(2) + reason.encode())


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """The whole frames of a server's in ``data``: (opcode, payload). None is masked, none a fragment."""
    found = []
    while len(data) >= 2:
        assert data[0] & 0xF0 == 0x80, "a fragment, or a reserved bit"
        size, begin = data[1], 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            size = int.from_bytes(data[2:begin])
        if len(data) < begin + size:
            break
        found.append((data[0] & 15, data[begin : begin + size]))
        data = data[begin + size :]
    return found


def set_up(shared: Shared, max_message: int) -> None:
    """Let the connections of ``shared`` take WebSockets."""
    shared.websocket = WebSocketOptions(engine=websocket_engine("auto"), max_message=max_message)
    shared.tunnels[b"websocket"] = websocket_on


class Played(ByHand):
    """An application that the test plays, and that returns at the end of it at the latest."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Call] = []

    async def next(self) -> Call:
        self.taken.append(await super().next())
        return self.taken[-1]

    def finish(self) -> None:
        for call in (*self.taken, *self.calls):
            call.finish()


class Client:
    """One WebSocket's client. What it sends is under way at once; ``await turn()`` lets the server see to it."""

    shared: Shared
    transport: FakeTransport

    async def open(self, path: str = "/chat", *fields: tuple[str, str]) -> None:
        """Send the handshake, and let the application see it."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    async def turn(self) -> None:
        raise NotImplementedError

    def answer(self) -> Answer | None:
        """The answer to the handshake; its body is whole where it has one."""
        raise NotImplementedError

    @property
    def received(self) -> bytes:
        """The bytes of the WebSocket's."""
        raise NotImplementedError

    def ended(self) -> bool:
        """The server has ended its side, in order."""
        raise NotImplementedError

    def cut(self) -> bool:
        """The server has cut it."""
        raise NotImplementedError

    def is_read(self) -> bool:
        """Whether the server reads what this WebSocket's client sends."""
        raise NotImplementedError

    def half_close(self) -> None:
        raise NotImplementedError

    async def stall(self) -> None:
        """Read nothing more."""
        raise NotImplementedError

    async def read_on(self) -> None:
        raise NotImplementedError

    def vanish(self) -> None:
        """Be gone, without a Close frame."""
        raise NotImplementedError

    async def end(self) -> None:
        """Take the connection away, and let the application return; nothing of it may stay with the server."""
        self.transport.lose()
        await settle()
        if isinstance(self.shared.context.app, Played):
            self.shared.context.app.finish()
        await settle()
        assert not self.shared.connections
        assert not self.shared.sessions

    @property
    def status(self) -> int | None:
        answer = self.answer()
        return None if answer is None else answer.status

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        return frames(self.received)

    def closed_with(self) -> tuple[int, str] | None:
        """Code and reason of the server's Close frame."""
        for opcode, payload in self.frames:
            if opcode == CLOSE:
                return int.from_bytes(payload[:2]), payload[2:].decode()
        return None

    async def say(self, *data: bytes) -> None:
        for one in data:
            self.send(one)
        await self.turn()

    async def passes(self, seconds: float, *, step: float = 1.0) -> None:
        """Time goes by in steps, with a sweep after each one and a turn of the loop for what it does."""
        while seconds > 0:
            self.shared.now += min(step, seconds)
            seconds -= step
            for connection in list(self.shared.connections):
                connection.check(self.shared.now)
            await self.turn()

    def begin_drain(self, code: int) -> None:
        """As the server does it."""
        self.shared.draining = True
        self.shared.drain_code = code
        for connection in list(self.shared.connections):
            connection.begin_drain()

    async def drain(self, code: int) -> None:
        self.begin_drain(code)
        await self.turn()


class Http1Client(Client):
    version = "1.1"

    def __init__(self, app: ASGIApp, *, max_message: int = 1 << 20, **more: Any) -> None:
        self.peer = Peer(app, **more)
        self.shared = self.peer.shared
        self.transport = self.peer.transport
        set_up(self.shared, max_message)

    @staticmethod
    def asking(path: str = "/chat", *fields: tuple[str, str], but: str = "") -> bytes:
        """A handshake; ``but`` leaves one field out."""
        lines = [f"GET {path} HTTP/1.1", "Host: asgiri.test"]
        lines += [f"{name}: {value}" for name, value in (*HANDSHAKE, *fields) if name != but]
        return "\r\n".join([*lines, "", ""]).encode()

    async def open(self, path: str = "/chat", *fields: tuple[str, str]) -> None:
        await self.say(self.asking(path, *fields))

    def send(self, data: bytes) -> None:
        assert self.transport.is_reading(), "bytes to a transport that does not read"
        self.transport.protocol.data_received(data)

    async def turn(self) -> None:
        await settle()

    @property
    def _split(self) -> tuple[Answer | None, bytes]:
        sent = self.transport.sent
        if sent.startswith(b"HTTP/1.1 101 "):
            head, _, rest = sent.partition(b"\r\n\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
            return Answer(101, headers, b""), rest
        answers, _ = parse_answers(sent, ended=self.transport.is_closing())
        return (answers[-1] if answers else None), b""

    def answer(self) -> Answer | None:
        return self._split[0]

    @property
    def received(self) -> bytes:
        return self._split[1]

    def ended(self) -> bool:
        return (self.transport.is_closing() or self.transport.half_closed) and not self.cut()

    def cut(self) -> bool:
        return self.transport.is_aborted()

    def is_read(self) -> bool:
        return self.transport.is_reading()

    def half_close(self) -> None:
        if not self.transport.protocol.eof_received():
            self.transport.close()

    async def stall(self) -> None:
        self.transport.stalled = True

    async def read_on(self) -> None:
        self.transport.stalled = False
        self.transport.peer_reads(self.transport.waiting)
        await self.turn()

    def vanish(self) -> None:
        self.transport.lose(ConnectionResetError())


class Http2Client(Client):
    version = "2"

    def __init__(self, app: ASGIApp, *, max_message: int = 1 << 20, **more: Any) -> None:
        self.peer = Http2Peer(app, greet=False, **more)
        self.shared = self.peer.shared
        self.transport = self.peer.transport
        self.stream = 0
        set_up(self.shared, max_message)
        self.peer.pump()

    def connect(self, path: str = "/chat", *fields: tuple[str, str], end_stream: bool = False) -> int:
        """Ask for one more, on a stream of its own."""
        number = self.peer.client.get_next_available_stream_id()
        begin = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "asgiri.test")]
        head = [*begin, (":path", path), ("sec-websocket-version", "13"), *fields]
        self.peer.client.send_headers(number, [(name.lower(), value) for name, value in head], end_stream=end_stream)
        return number

    async def open(self, path: str = "/chat", *fields: tuple[str, str]) -> None:
        self.stream = self.connect(path, *fields)
        await self.turn()

    def send(self, data: bytes) -> None:
        for begin in range(0, len(data), 16384):
            self.peer.client.send_data(self.stream, data[begin : begin + 16384])

    async def turn(self) -> None:
        await self.peer.turn()

    def answer(self) -> Answer | None:
        found = self.peer.answers.get(self.stream)
        if found is None or not found.status:
            return None
        return Answer(found.status, found.headers, b"" if found.status == 200 else found.body)

    @property
    def received(self) -> bytes:
        found = self.peer.answers.get(self.stream)
        return found.body if found is not None and found.status == 200 else b""

    def ended(self) -> bool:
        return self.peer.answers[self.stream].ended

    def cut(self) -> bool:
        return self.peer.answers[self.stream].reset not in (None, 0)

    def is_read(self) -> bool:
        stream: Any = self.peer.connection.streams[self.stream]
        return bool(stream.is_reading())

    def half_close(self) -> None:
        self.peer.client.send_data(self.stream, b"", end_stream=True)

    async def stall(self) -> None:
        self.peer.reads = False

    async def read_on(self) -> None:
        self.peer.reads = True
        self.peer.grant(1 << 24, self.stream)
        self.peer.grant(1 << 24)
        await self.turn()

    def vanish(self) -> None:
        self.peer.cancel(self.stream)


CLIENTS: dict[str, Callable[..., Client]] = {"http/1.1": Http1Client, "h2": Http2Client}


def times(**more: float) -> TimeLimits:
    """Timeouts that are not in the way, but for ``more``."""
    none = TimeLimits(0, 0, 0, 0, 0, ping_interval=0, ping_timeout=0)
    return replace(none, **more)


async def opened(client: Client, app: Any, **accept: Any) -> Any:
    """The application's side of a WebSocket that it has accepted."""
    await client.open()
    call = await app.next()
    assert (await call.receive())["type"] == "websocket.connect"
    await call.send({"type": "websocket.accept", **accept})
    await client.turn()
    return call


async def now(awaitable: Any) -> Any:
    """What the awaitable gives without a wait for anything but the loop's turns."""
    task = asyncio.ensure_future(awaitable)
    await settle()
    if not task.done():
        task.cancel()
        raise AssertionError("it waits")
    return task.result()
