"""What every connection has, whatever it speaks: a transport, write backpressure, deadlines, draining.

Time is coarse on purpose: the server's sweep sets ``Shared.now`` and asks each connection whether it is overdue, so
that no request pays for a timer. A deadline is met to within one sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast

from asgiri.asgi.scope import Announced, AppContext, Peers
from asgiri.codec.engines import Http1Engine, Http2Engine, WebSocketEngine
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.proto.kernel import has_hung_up, reset_at_close, unread
from asgiri.proto.outbox import MOST_WAIT, Outbox
from asgiri.proto.peers import client_text, peers_of, spoken_for
from asgiri.proto.secure import Secure
from asgiri.types import Headers

if TYPE_CHECKING:
    from asgiri.asgi.session import Session
    from asgiri.metrics.meter import Meter
    from asgiri.proto.edge import Edge
    from asgiri.proto.http2_stream import MakeTunnel

# Bytes of answer that may wait in a transport before send() waits, and of request body before reading pauses.
HIGH_WATER: Final = 64 << 10
# Answers up to this size leave together with others: copying larger ones costs more than it saves.
POSTED: Final = 16 << 10
# How long a peer that was refused may go on sending before it is cut off, in seconds (RFC 9112 section 9.6).
LINGER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """The timeouts that bind a connection, in seconds; 0 is none.

    The config's ``timeouts``, by the same names; ``ping_*`` are of its ``websocket``.
    """

    request_head: float = 10.0
    request_body: float = 60.0
    request: float = 0.0
    keep_alive: float = 75.0
    write: float = 60.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0

    def sweep_interval(self) -> float:
        """How often to sweep: a quarter of the shortest timeout, between 20 ms and a second."""
        requests = (self.request_head, self.request_body, self.request, self.keep_alive)
        timeouts = (*requests, self.write, self.ping_interval, self.ping_timeout)
        shortest = min((timeout for timeout in timeouts if timeout), default=4.0)
        return min(1.0, max(0.02, shortest / 4))


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """How WebSockets are spoken: the config's ``websocket``, by the same names, but for its times.

    ``max_message`` is in bytes, 0 is no limit.
    """

    engine: WebSocketEngine
    max_message: int = 16 << 20
    compression: bool = True


class ExchangeLog(Protocol):
    """Who is told of each exchange that is over: :class:`asgiri.log.access.AccessLog`."""

    @property
    def picks(self) -> bool:
        """Whether it wants the fields of the requests."""

    def record(
        self,
        client: str,
        method: str,
        target: bytes,
        version: str,
        headers: Headers,
        status: int,
        size: int,
        began: float,
        connection: int,
        request: int,
        request_id: str,
        /,
    ) -> None:
        """``began`` is when the request came, of :func:`time.perf_counter`."""


@dataclass(slots=True, eq=False)
class Shared:
    """What the connections of one server share, and how it knows them."""

    context: AppContext
    http1: Http1Engine
    limits: HttpLimits
    times: TimeLimits
    loop: asyncio.AbstractEventLoop
    http2: Http2Engine | None = None  # None: nobody here speaks it
    http2_options: Http2Options = field(default_factory=Http2Options)
    # What takes an extended CONNECT, by its :protocol (RFC 8441); every other one is answered with 501.
    tunnels: dict[bytes, MakeTunnel] = field(default_factory=dict)
    websocket: WebSocketOptions | None = None  # None: over HTTP/1.1, who asks for one has made a plain request
    requests: int = 0  # at once; over it: 503
    requests_per_connection: int = 0
    access_log: ExchangeLog | None = None
    meter: Meter | None = None
    # What the ids of this process's requests begin with, and those of no other.
    id_prefix: str = ""
    edge: Edge | None = None  # None: no peer is a proxy, and requests may be for any host
    accepted: int = 0  # connections so far
    served: int = 0  # exchanges that are over
    # Each request runs in a copy of it: in the context that happens to be current, it could see an earlier one's.
    base_context: Context = field(default_factory=copy_context)
    now: float = 0.0  # monotonic seconds, as fresh as the last sweep; they stand still while the loop is blocked
    patience: float = MOST_WAIT  # seconds that an answer which is whole waits for others
    draining: bool = False  # answer what comes, once more, with Connection: close
    drain_code: int = 1001  # what the Close frames of WebSockets say then (RFC 6455 section 7.4.1, and IANA's 1012)
    connections: set[Connection] = field(default_factory=set)
    sessions: set[Session] = field(default_factory=set)  # whose application has not returned yet
    arriving: int = 0  # accepted, and no connections yet: in their TLS handshake, for the most part
    outbox: Outbox = field(init=False)
    observed: bool = field(init=False)  # somebody wants to know of each exchange
    # Called when the last connection or session has gone: what a drain waits for.
    on_quiet: Callable[[], None] = lambda: None
    # Called when there is one connection less: what acceptors wait for that are at a limit.
    on_room: Callable[[], None] = lambda: None
    # While the server holds, called with each connection that has nothing to do, in a turn of the loop of its own.
    on_idle: Callable[[Connection], None] | None = None

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.loop.call_soon, self.patience)
        self.observed = self.access_log is not None or self.meter is not None

    @property
    def quiet(self) -> bool:
        """No connection is open or being made, and no application is running."""
        return not self.connections and not self.sessions and not self.arriving

    def name_of(self, connection: int) -> str:
        """What the ids of a connection's requests begin with; their number on it follows."""
        return f"{self.id_prefix}{connection}-"

    def tell_idle(self, connection: Connection) -> None:
        if self.on_idle is not None:
            self.loop.call_soon(self._idle, connection)

    def _idle(self, connection: Connection) -> None:
        if self.on_idle is not None and connection in self.connections:
            self.on_idle(connection)

    def forget_connection(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.meter is not None:
            self.meter.received += connection.received
            self.meter.sent += connection.sent
        self.on_room()
        if self.quiet:
            self.on_quiet()

    def forget_arrival(self) -> None:
        """What was accepted has become a connection, or nothing."""
        self.arriving -= 1
        self.on_room()
        if self.quiet:
            self.on_quiet()

    def forget_session(self, session: Session) -> None:
        if session in self.sessions:  # one that is cancelled may be forgotten twice
            self.sessions.remove(session)
            self.served += 1
        if not self.connections and self.quiet:
            self.on_quiet()

    def cancel(self, session: Session) -> None:
        """Cancel the session's application."""
        if session.task is not None:
            session.task.cancel()
            # Cancelled before its first step, it will never say itself that it is over.
            session.task.add_done_callback(lambda _: self.forget_session(session))


class Connection(asyncio.Protocol):
    """The base of all connections: owns the transport, knows when to wait and when it is overdue.

    ``secure`` is what the TLS connections of its listener share, None where that is plaintext. Who makes a connection
    sets it.
    """

    __slots__ = (
        "_closing_since",
        "_delivered",
        "_name",
        "_read_at",
        "_read_by_peer",
        "_serial",
        "_unsent",
        "_writable",
        "_written",
        "client",
        "peers",
        "received",
        "secure",
        "shared",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.secure: Secure | None = None
        self.peers = Peers(None, None)
        self.client = ""  # as the logs show it
        self._name = ""  # what the ids of its requests begin with
        self._serial = 0  # among the server's connections, from 1; there once it is one
        self._writable: asyncio.Event | None = None  # there while the peer does not read fast enough
        self._unsent = b""  # answers that wait for the end of the turn
        self.received = 0  # bytes that the transport has given
        self._written = 0  # bytes given to the transport
        self._read_by_peer = 0  # bytes of them that it had passed on at the last sweep
        self._read_at = shared.now  # when that number last changed, or nothing waited
        self._delivered = 0  # of the bytes given to a TLS transport, those that the peer has acknowledged for certain
        self._closing_since: float | None = None  # when a TLS transport had nothing left to do but end

    # Transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        announced = self.peers.announced
        self.peers = peers_of(self.transport, self.secure)
        if announced is not None:
            self.peers = spoken_for(self.peers, announced)
        self.client = client_text(self.peers)
        self.shared.accepted += 1
        self._serial = self.shared.accepted
        self.shared.connections.add(self)
        self.connected()
        self.shared.tell_idle(self)

    def take_over(self, before: Connection) -> None:
        """Go on as what ``before`` turned out to be: from now on its transport is ours, and it is no connection more.

        ``before`` must be reading.
        """
        before.push()
        shared = self.shared
        self.transport = before.transport
        self.secure, self.peers, self.client = before.secure, before.peers, before.client
        self._serial = before._serial
        self.received, self._written, self._delivered = before.received, before._written, before._delivered
        self._read_by_peer, self._read_at = before._read_by_peer, before._read_at
        self._writable, before._writable = before._writable, None
        shared.connections.discard(before)  # and not forgotten: there is no room more than there was
        shared.connections.add(self)
        self.transport.set_protocol(self)
        self.connected()
        shared.tell_idle(self)

    def announce(self, announced: Announced) -> None:
        """Before there is a transport: whom its peer speaks for."""
        self.peers = Peers(None, None, announced=announced)

    def connected(self) -> None:
        """There is a transport now, new or taken over, and it is known who is at its other end."""

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._unsent = b""
        self.resume_writing()
        self.shared.forget_connection(self)

    def pause_writing(self) -> None:
        if self._writable is None:  # else it was our own word, and somebody may wait already
            self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def heed_close(self) -> None:
        """Pause writing when the transport takes nothing any more, until connection_lost.

        asyncio's drops what it is given then, with a warning each time, and never asks for a pause: an application that
        does nothing but send would go on until its next turn.
        """
        if self._writable is None and self.transport.is_closing():
            self.pause_writing()

    # The server's side

    def speaks(self) -> str:
        """What is spoken on it, as the metrics call it."""
        return "unknown"

    @property
    def sent(self) -> int:
        """Bytes given to the transport."""
        return self._written

    def check(self, now: float) -> None:
        """Act on what is overdue at ``now``, monotonic seconds. Called by each sweep."""
        raise NotImplementedError

    def begin_drain(self) -> None:
        """The server drains from now on (``Shared.draining`` is set): say so, where the protocol can."""

    def close_idle(self) -> None:
        """The drain's window is over: close unless a request is in progress."""
        raise NotImplementedError

    # Under reload, where newer code is to answer what comes next

    def hold(self) -> None:
        """Read nothing, if nothing of a request is here; what the peer sends waits in the kernel."""

    def release(self) -> None:
        """Read on: there is no newer code, or nobody to give the connection to."""

    @property
    def is_free(self) -> bool:
        """It is held, and all that there is of it is in the kernel: another process may go on with it."""
        return False

    def retire(self) -> None:
        """It cannot be another's: end it when it is idle, so that nothing is lost of what the peer has sent."""
        self.release()

    def cut_stream(self) -> None:
        """It is cut if what it carries has no end of its own."""

    def abort(self) -> None:
        """Cut the connection, whatever is in progress. Answers that are whole leave, as far as the transport can."""
        self.push()
        self.transport.abort()

    def reset_transport(self) -> None:
        """Let the coming abort be a TCP reset: an answer that ends with the connection must not look whole."""
        reset_at_close(self.transport.get_extra_info("socket"))

    def is_reset(self) -> bool:
        """Whether the peer has reset the connection: what a transport that does not read cannot see by itself."""
        return has_hung_up(self.transport.get_extra_info("socket"))

    def wrote_past_transport(self, size: int) -> None:
        """Count bytes that went straight to the socket: the peer makes progress."""
        self._written += size

    async def flushed(self) -> None:
        """Wait until the transport has passed on all that it was given, or is closing."""
        transport = self.transport
        if transport.is_closing() or not transport.get_write_buffer_size():
            return
        transport.set_write_buffer_limits(high=0)
        try:
            await self.drained()
        finally:
            if not transport.is_closing():
                transport.set_write_buffer_limits(high=HIGH_WATER)

    async def drained(self) -> None:
        """Wait while the peer does not read fast enough."""
        while self._writable is not None:
            await self._writable.wait()

    async def writable(self, fd: int) -> None:
        """Wait until ``fd``, a duplicate of the socket's, takes bytes again, or the connection is lost.

        To everybody else it is a pause in writing like the transport's own.
        """
        self.pause_writing()
        paused = self._writable
        assert paused is not None
        self.shared.loop.add_writer(fd, self.resume_writing)
        try:
            await paused.wait()
        finally:
            self.shared.loop.remove_writer(fd)
            if self._writable is paused:
                self.resume_writing()

    def write(self, data: bytes) -> None:
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        self._written += len(data)
        self.transport.write(data)

    def post(self, data: bytes) -> None:
        """Write an answer that is whole, together with those of other connections."""
        if self._unsent:
            if len(self._unsent) + len(data) <= POSTED:
                self._unsent += data
            else:
                self.write(data)  # so that a pipeline feels a peer that does not read
        elif len(data) <= POSTED and self.shared.outbox.takes(self):
            self._unsent = data
        else:
            self.write(data)

    def push(self) -> None:
        """Write what waits. To be called before anything else is asked of the transport."""
        if self._unsent:
            self.write(b"")

    def write_overdue(self, now: float) -> bool:
        """Whether bytes have waited for ``timeouts.write`` seconds and the peer has taken none of them.

        Or, of a TLS transport, whether it has closed all but the peer's side of TLS, and that takes too long.
        """
        waiting = self.transport.get_write_buffer_size()
        passed = self._written - waiting
        if self.secure is not None:
            if self._written != self._delivered:
                unacknowledged, passed = self._in_kernel(passed)
                waiting += unacknowledged
            if not waiting:
                self._delivered = self._written
                if self.transport.is_closing():
                    return self._end_overdue(now)
        elif waiting or self._writable is not None:
            # A kernel that is full takes no more until a good part is gone: the peer makes progress long before.
            passed = self._in_kernel(passed)[1]
        if (not waiting and self._writable is None) or passed != self._read_by_peer:
            self._read_by_peer = passed
            self._read_at = now
            return False
        timeout = self.shared.times.write
        return bool(timeout) and now - self._read_at > timeout

    def _in_kernel(self, passed: int) -> tuple[int, int]:
        return unread(self.transport.get_extra_info("socket"), passed)

    def _end_overdue(self, now: float) -> bool:
        """Whether the peer had its time to answer our close_notify (RFC 8446 section 6.1)."""
        if self._closing_since is None:
            self._closing_since = now
        return now - self._closing_since > LINGER_SECONDS
