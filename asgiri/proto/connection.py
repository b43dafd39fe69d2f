"""What every connection has, whatever it speaks: a transport, write backpressure, deadlines, draining.

Time is coarse on purpose: the server's sweep sets ``Shared.now`` and asks each connection whether it is overdue, so
that no request pays for a timer. A deadline is met to within one sweep.
"""

from __future__ import annotations

import asyncio
import inspect
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from asgiri.asgi.scope import AppContext, Peers
from asgiri.codec.engines import Http1Engine
from asgiri.codec.rules import HttpLimits

if TYPE_CHECKING:
    from asgiri.asgi.http import HttpSession

# Bytes of answer that may wait in a transport before send() waits, and of request body before reading pauses.
HIGH_WATER = 64 << 10
# How long a peer that was refused may go on sending before it is cut off, in seconds (RFC 9112 section 9.6).
LINGER_SECONDS = 2.0
# struct linger: on, for no time at all.
NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """The timeouts that bind a connection, in seconds; 0 is none. The config's ``timeouts``, by the same names."""

    request_head: float = 10.0
    request_body: float = 60.0
    request: float = 0.0
    keep_alive: float = 75.0
    write: float = 60.0

    def sweep_interval(self) -> float:
        """How often to sweep: a quarter of the shortest timeout, between 20 ms and a second."""
        timeouts = (self.request_head, self.request_body, self.request, self.keep_alive, self.write)
        shortest = min((timeout for timeout in timeouts if timeout), default=4.0)
        return min(1.0, max(0.02, shortest / 4))


@dataclass(slots=True, eq=False)
class Shared:
    """What the connections of one server share, and how it knows them."""

    context: AppContext
    http1: Http1Engine
    limits: HttpLimits
    times: TimeLimits
    loop: asyncio.AbstractEventLoop
    requests_per_connection: int = 0
    # Each request runs in a copy of it: in the context that happens to be current, it could see an earlier one's.
    base_context: Context = field(default_factory=copy_context)
    now: float = 0.0  # monotonic seconds, as fresh as the last sweep
    draining: bool = False  # answer what comes, once more, with Connection: close
    connections: set[Connection] = field(default_factory=set)
    sessions: set[HttpSession] = field(default_factory=set)  # whose application has not returned yet
    # Called when the last connection or session has gone: what a drain waits for.
    on_quiet: Callable[[], None] = lambda: None

    @property
    def quiet(self) -> bool:
        """No connection is open and no application is running."""
        return not self.connections and not self.sessions

    def forget_connection(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.quiet:
            self.on_quiet()

    def forget_session(self, session: HttpSession) -> None:
        self.sessions.discard(session)
        if self.quiet:
            self.on_quiet()

    def cancel(self, session: HttpSession) -> None:
        """Cancel the session's application."""
        task = session.task
        if task is None:
            return
        task.cancel()
        coro = task.get_coro()
        if inspect.iscoroutine(coro) and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
            self.forget_session(session)  # cancelled before its first step, it will never say that it is over


class Connection(asyncio.Protocol):
    """The base of all connections: owns the transport, knows when to wait and when it is overdue."""

    transport: asyncio.Transport

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.peers = Peers(None, None)
        self._writable: asyncio.Event | None = None  # there while the peer does not read fast enough
        self._written = 0  # bytes given to the transport
        self._read_by_peer = 0  # bytes of them that it had passed on at the last sweep
        self._read_at = shared.now  # when that number last changed, or nothing waited

    # Transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self.peers = peers_of(self.transport)
        self.shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.resume_writing()
        self.shared.forget_connection(self)

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    # The server's side

    def check(self, now: float) -> None:
        """Act on what is overdue at ``now``, monotonic seconds. Called by each sweep."""
        raise NotImplementedError

    def close_idle(self) -> None:
        """The drain's window is over: close unless a request is in progress."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the connection, whatever is in progress."""
        self.transport.abort()

    def reset_transport(self) -> None:
        """Let the coming abort be a TCP reset: an answer that ends with the connection must not look whole."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with suppress(OSError):  # it is closed already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)

    def is_reset(self) -> bool:
        """Whether the peer has reset the connection: what a transport that does not read cannot see by itself."""
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        news = select.poll()
        news.register(sock.fileno(), 0)  # errors and hang-ups are told without being asked for
        return bool(news.poll(0))

    def write(self, data: bytes) -> None:
        self._written += len(data)
        self.transport.write(data)

    def write_overdue(self, now: float) -> bool:
        """Whether bytes have waited for ``timeouts.write`` seconds and the peer has taken none of them."""
        waiting = self.transport.get_write_buffer_size()
        passed = self._written - waiting
        if not waiting or passed != self._read_by_peer:
            self._read_by_peer = passed
            self._read_at = now
            return False
        timeout = self.shared.times.write
        return bool(timeout) and now - self._read_at > timeout


def peers_of(transport: asyncio.BaseTransport) -> Peers:
    """The two ends of a transport, as the scope shows them; IPv4 addresses mapped into IPv6 are shown as IPv4."""
    sockname = transport.get_extra_info("sockname")
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        path = sockname.decode("utf-8", "replace") if isinstance(sockname, bytes) else sockname
        return Peers(client=None, server=(path, None))
    peername = transport.get_extra_info("peername")
    return Peers(client=host_port(peername), server=host_port(sockname))


def host_port(address: object) -> tuple[str, int] | None:
    """(host, port) of a socket address of the AF_INET family or the AF_INET6 one."""
    if not isinstance(address, tuple) or len(address) < 2:
        return None
    host, port = address[:2]
    return host.removeprefix("::ffff:") if "." in host else host, port
