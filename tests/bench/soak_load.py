"""``python -m tests.bench.soak_load ADDRESS``: three loads at once on one service, from clients that never retry.

kept    HTTP/1.1 on connections that are kept. A client that is told ``Connection: close`` makes a new one, and one that
        finds its connection closed right before it writes does so too, as a careful client does. A request that was
        written and not answered is a failure.
fresh   HTTP/1.1, a new connection for each request; one that is refused or reset is a failure.
h2      HTTP/2 by prior knowledge, with some streams in flight at once on each connection. After a GOAWAY (RFC 9113
        section 6.8) new streams go to a new connection; one that was sent before it came and is refused is a failure.

Every client keeps a pace, so that what is measured is the server and not the queue in here: a request counts from when
it was due if the answer before it was late, else from when it was written.

ADDRESS is HOST:PORT or unix:PATH; with --cafile all is over TLS, where h2 is agreed on by ALPN. Prints the line
``running`` when every client has been answered once, ends when its standard input does, and prints what it has seen as
JSON: see :class:`Ledger`. Times are seconds of CLOCK_MONOTONIC, which whoever has started this shares.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from typing import Any

import h2.events

from tests.http2_client import Http2Client

PATIENCE = 20.0  # seconds until an answer, or a connection, is taken not to come
BODY = b"b" * 2048
# What is asked for in turn: at once, after a while, and with a body.
PATHS = ("/", "/wait", "/echo")
WORKER = "x-worker"  # the field in which the application names its process
LOADS = ("kept", "fresh", "h2")


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no answer, or a wrong one. ``pid`` is whose connection it was on, as far as that was told."""

    load: str
    began: float
    ended: float
    pid: int
    why: str


@dataclass(slots=True)
class Ledger:
    """What is printed.

    ``samples`` has a pair for each good answer: when it began and how long it took. ``connections`` counts by load;
    ``abrupt`` those of HTTP/2 that ended without a GOAWAY. ``lag`` is the worst that this process itself was late by.
    """

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {load: [] for load in LOADS})
    failures: list[Failure] = field(default_factory=list)
    connections: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LOADS, 0))
    abrupt: int = 0
    lag: float = 0.0

    def good(self, load: str, began: float) -> None:
        self.samples[load].append((round(began, 6), round(time.monotonic() - began, 6)))

    def bad(self, load: str, began: float, pid: int, why: str) -> None:
        self.failures.append(Failure(load, began, time.monotonic(), pid, why))


class FailedError(Exception):
    """A request has failed, for this reason."""


@dataclass(slots=True)
class Context:
    """What all clients share."""

    address: str
    ledger: Ledger
    stop: asyncio.Event
    cafile: str = ""  # TLS, of this authority

    def tls(self, load: str) -> dict[str, Any]:
        """What a connection is made with: TLS, with the protocol that this load speaks."""
        if not self.cafile:
            return {}
        if load not in self._tls:
            context = self._tls[load] = ssl.create_default_context(cafile=self.cafile)
            context.set_alpn_protocols(["h2" if load == "h2" else "http/1.1"])
        return {"ssl": self._tls[load], "server_hostname": "localhost"}

    _tls: dict[str, ssl.SSLContext] = field(default_factory=dict)

    async def connect(self, load: str, make: Callable[[socket.socket], Any]) -> Any:
        """A connection as ``make`` makes it of its socket. Raises OSError, and TimeoutError with it."""
        loop = asyncio.get_running_loop()
        unix = self.address.startswith("unix:")
        sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        try:
            sock.setblocking(False)
            host, _, port = self.address.rpartition(":")
            async with asyncio.timeout(PATIENCE):
                await loop.sock_connect(sock, self.address.removeprefix("unix:") if unix else (host, int(port)))
            _, protocol = await loop.create_connection(lambda: make(sock), sock=sock, **self.tls(load))
        except BaseException:
            sock.close()
            raise
        self.ledger.connections[load] += 1
        return protocol


class Pace:
    """Due each ``interval`` seconds."""

    def __init__(self, context: Context, interval: float, first: float) -> None:
        self._context = context
        self._interval = interval
        self._due = time.monotonic() + first

    async def next(self) -> float | None:
        """Wait until it is due: since when the request counts. None at the end."""
        due = self._due
        self._due += self._interval
        left = due - time.monotonic()
        if self._context.stop.is_set():
            return None
        if left <= 0:
            return due
        try:
            async with asyncio.timeout(left):
                await self._context.stop.wait()
            return None
        except TimeoutError:
            now = time.monotonic()
            self._context.ledger.lag = max(self._context.ledger.lag, now - due)
            return now


class Connection(asyncio.Protocol):
    """Its socket, the transport on it, and whose it is."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pid = 0
        self.lost: str | None = None  # why, once it is
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = f"{type(exc).__name__}: {exc}" if exc else "the connection ended"

    def close(self) -> None:
        self.transport.close()

    def has_ended(self) -> bool:
        """Whether the peer has ended it, by what the kernel knows at this moment."""
        if self.lost is not None or self.transport.is_closing():
            return True
        try:
            return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True


class Http1(Connection):
    """One request at a time."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.closing = False  # the last answer said so
        self._data = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    async def ask(self, path: str, *, close: bool = False) -> None:
        """Raises FailedError, unless the answer is right."""
        if self._data:
            raise FailedError(f"bytes that nobody asked for: {self._data[:80]!r}")
        body = BODY if path == "/echo" else b""
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: soak\r\n"
        head += "Connection: close\r\n" if close else ""
        head += f"Content-Length: {len(body)}\r\n" if body else ""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(head.encode("ascii") + b"\r\n" + body)
        try:
            async with asyncio.timeout(PATIENCE):
                status, got = await self._answer
        except TimeoutError:
            raise FailedError(f"no answer within {PATIENCE:.0f} s") from None
        finally:
            self._answer = None
        check(status, got, path)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._answer is None:
            return
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        status, _, lines = head.decode("latin-1").partition("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines.split("\r\n"))
        }
        if len(rest) < int(fields["content-length"]):
            return
        self._data = b""
        self.closing = fields.get("connection", "").lower() == "close"
        self.pid = int(fields.get(WORKER, 0))
        if not self._answer.done():
            self._answer.set_result((int(status.split()[1]), rest))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._answer is not None and not self._answer.done():
            part = f" in the middle of an answer of {len(self._data)} bytes" if self._data else " before any answer"
            self._answer.set_exception(FailedError(f"{self.lost}{part}"))


class Http2(Connection):
    """Some requests at a time."""

    def __init__(self, sock: socket.socket, ledger: Ledger) -> None:
        super().__init__(sock)
        self._ledger = ledger
        self._peer = Peer(self)
        self._open: dict[int, tuple[float, str, asyncio.Future[None]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._peer.begin()
        self.flush()

    def flush(self) -> None:
        if data := self._peer.take():
            self.transport.write(data)

    @property
    def spent(self) -> bool:
        """Whether no new stream may be sent on it."""
        return bool(self._peer.goaways) or self.has_ended()

    def ask(self, paths: list[str], began: float) -> list[asyncio.Future[None]]:
        """Send all these requests at once; each future is done when its request has been entered."""
        asked = []
        for path in paths:
            body = BODY if path == "/echo" else None
            stream = self._peer.request(path, method="POST" if body else "GET", body=body)
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._open[stream] = (began, path, done)
            asked.append(done)
        self.flush()
        return asked

    def data_received(self, data: bytes) -> None:
        self._peer.feed(data)
        self.flush()
        refused = {stream for stream in self._open if any(stream > last for last, _ in self._peer.goaways)}
        for stream in refused:
            self._enter(stream, f"refused by a GOAWAY: it is stream {stream} of {self._peer.goaways}")
        self._leave()

    def ended(self, stream: int) -> None:
        """An answer is whole, or was reset."""
        answer = self._peer.answers.pop(stream)
        if stream not in self._open:
            return
        self.pid = int(answer.headers.get(WORKER, 0)) or self.pid
        if answer.reset is not None:
            self._enter(stream, f"reset with code {answer.reset}")
            return
        try:
            check(answer.status, answer.body, self._open[stream][1])
        except FailedError as failure:
            self._enter(stream, str(failure))
        else:
            self._enter(stream, None)

    def _enter(self, stream: int, why: str | None) -> None:
        began, _, done = self._open.pop(stream)
        if why is None:
            self._ledger.good("h2", began)
        else:
            self._ledger.bad("h2", began, self.pid, why)
        if not done.done():
            done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self._peer.goaways and not self._left:
            self._ledger.abrupt += 1
        for stream in list(self._open):
            self._enter(stream, f"{self.lost} before the answer was whole")

    _left = False  # we have closed it ourselves

    def _leave(self) -> None:
        if self._peer.goaways and not self._open:
            self.close()

    def close(self) -> None:
        self._left = True
        super().close()


class Peer(Http2Client):
    """Tells when a stream ends."""

    def __init__(self, owner: Http2) -> None:
        super().__init__()
        self._owner = owner

    def _handle(self, event: h2.events.Event) -> None:
        super()._handle(event)
        if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self._owner.ended(event.stream_id)


def check(status: int, body: bytes, path: str) -> None:
    """Raises FailedError when that is no answer to a request for the path."""
    if status != 200:
        raise FailedError(f"status {status}: {body[:80]!r}")
    if body != (BODY if path == "/echo" else path.encode()):
        raise FailedError(f"{path} was answered with {body[:80]!r}")


async def kept(context: Context, pace: Pace, started: Callable[[], None]) -> None:
    """One client of HTTP/1.1 that keeps its connection as long as the server does."""
    ledger = context.ledger
    connection: Http1 | None = None
    turn = 0
    while (began := await pace.next()) is not None:
        path = PATHS[(turn := turn + 1) % len(PATHS)]
        try:
            if connection is None or connection.closing or connection.has_ended():
                if connection is not None:
                    connection.close()
                connection = None
                connection = await context.connect("kept", Http1)
                assert connection is not None
            await connection.ask(path)
            ledger.good("kept", began)
        except (FailedError, OSError) as error:
            ledger.bad("kept", began, connection.pid if connection else 0, words(error))
            if connection is not None:
                connection.close()
            connection = None
        started()
    if connection is not None:
        connection.close()


async def fresh(context: Context, pace: Pace, started: Callable[[], None]) -> None:
    """One client that makes a connection for each request; every other request says that it is the only one."""
    ledger = context.ledger
    turn = 0
    while (began := await pace.next()) is not None:
        turn += 1
        connection: Http1 | None = None
        try:
            connection = await context.connect("fresh", Http1)
            assert connection is not None
            await connection.ask(PATHS[turn % len(PATHS)], close=turn % 2 == 0)
            ledger.good("fresh", began)
        except (FailedError, OSError) as error:
            ledger.bad("fresh", began, 0, words(error))
        finally:
            if connection is not None:
                connection.close()
        started()


async def multiplexed(context: Context, pace: Pace, started: Callable[[], None], streams: int) -> None:
    """One client of HTTP/2 that sends so many requests at once, and again when they are answered."""
    ledger = context.ledger
    connection: Http2 | None = None
    paths = [PATHS[index % len(PATHS)] for index in range(streams)]
    while (began := await pace.next()) is not None:
        try:
            if connection is None or connection.spent:  # one that has had its GOAWAY closes by itself
                connection = await context.connect("h2", lambda sock: Http2(sock, ledger))
                assert connection is not None
        except OSError as error:
            connection = None
            for _ in paths:
                ledger.bad("h2", began, 0, words(error))
            continue
        asked = connection.ask(paths, began)
        _, late = await asyncio.wait(asked, timeout=PATIENCE)
        if late:
            connection.transport.abort()  # and each of them is entered as a failure
            await asyncio.wait(late)
        started()
    if connection is not None:
        connection.close()


def words(error: Exception) -> str:
    return str(error) if isinstance(error, FailedError) else f"no connection: {type(error).__name__}: {error}"


async def run(args: argparse.Namespace) -> Ledger:
    """All clients until standard input ends."""
    loop = asyncio.get_running_loop()
    context = Context(args.address, Ledger(), asyncio.Event(), args.cafile)
    loop.add_reader(sys.stdin.fileno(), end_of_input, context.stop)
    waiting = 0
    running = asyncio.Event()

    def starter() -> Callable[[], None]:
        """What one client calls after each answer: the first time counts."""
        nonlocal waiting
        waiting += 1
        called = False

        def started() -> None:
            nonlocal waiting, called
            waiting, called = waiting - (not called), True
            if not waiting:
                running.set()

        return started

    clients: list[Coroutine[Any, Any, None]] = []
    for index in range(args.kept):
        pace = Pace(context, args.kept / args.rate, index / args.rate)
        clients.append(kept(context, pace, starter()))
    for index in range(args.slow):  # seldom enough to have an idle connection most of the time
        pace = Pace(context, args.slow_interval, index / args.rate)
        clients.append(kept(context, pace, starter()))
    for index in range(args.fresh):
        pace = Pace(context, args.fresh / args.rate, index / args.rate)
        clients.append(fresh(context, pace, starter()))
    for index in range(args.h2):
        pace = Pace(context, args.h2 * args.streams / args.rate, index * args.streams / args.rate)
        clients.append(multiplexed(context, pace, starter(), args.streams))
    tasks = [loop.create_task(client) for client in clients]
    tasks.append(loop.create_task(tell(running)))
    await context.stop.wait()
    running.set()
    await asyncio.gather(*tasks)
    return context.ledger


def end_of_input(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


async def tell(running: asyncio.Event) -> None:
    await running.wait()
    print("running", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.bench.soak_load", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("address", help="HOST:PORT or unix:PATH")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second of each load; default 60")
    parser.add_argument("--cafile", default="", help="speak TLS, with a server of this authority")
    parser.add_argument("--kept", type=int, default=6, help="clients of the first load; default 6")
    parser.add_argument("--slow", type=int, default=2, help="more of them, that ask seldom; default 2")
    parser.add_argument("--slow-interval", type=float, default=2.0, help="how seldom, in seconds; default 2")
    parser.add_argument("--fresh", type=int, default=4, help="clients of the second load; default 4")
    parser.add_argument("--h2", type=int, default=2, help="connections of the third load; default 2")
    parser.add_argument("--streams", type=int, default=10, help="requests at once on each of them; default 10")
    ledger = asyncio.run(run(parser.parse_args()))
    print(json.dumps(asdict(ledger)), flush=True)


if __name__ == "__main__":
    main()
