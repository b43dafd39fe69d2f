"""Accepting: a listening socket's queue to connections, as long as there is room for them.

    ACCEPTING  the loop tells when the kernel has a connection for us
    YIELDING   we have more than our share, and for a moment leave what comes to other processes
    FULL       as many are open as ``limits.connections`` lets; more wait in the kernel's queue, or go to other workers
    STARVED    the system has no descriptor or no memory left for one more; more wait in the queue
    HELD       under reload: what comes waits in the queue for newer code
    CLOSED     the listening socket is closed

The table below is the whole life; a pair that is not in it is a defect of ours and raises KeyError.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import select
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from asgiri.proto.connection import Shared
from asgiri.proto.secure import Connect, MakeConnection, Secure

if TYPE_CHECKING:
    from asgiri.proto.announced import Proxies

logger = logging.getLogger("asgiri.server")

# Connections that are taken before the loop gets to those it has: under half a millisecond, as each costs about 25 us,
# and few enough that workers which share the socket get their part of a rush.
BURST = 16

# How long to leave the queue to others when we have more than our share, in seconds. Another process that is free
# needs a tenth of it; when all are busy, a connection waits no longer than this.
YIELD_SECONDS = 0.005

# How long to wait for a descriptor or for memory when no connection of our own ends meanwhile, in seconds.
RETRY_SECONDS = 1.0

# Turns of the loop after which whatever was accepted has its transport, and a plaintext one its connection.
TURNS = 4

# accept(2) hands on errors that belong to the one connection, which is gone with them; EPERM is a firewall's.
OF_THE_CONNECTION = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EPERM,
        errno.EPROTO,
    }
)


class Phase(Enum):
    ACCEPTING = "accepting"
    YIELDING = "yielding"
    FULL = "full"
    STARVED = "starved"
    HELD = "held"
    CLOSED = "closed"


class Cause(Enum):
    LIMIT = "no more connections are allowed"
    ROOM = "a connection has gone"
    SHORTAGE = "the system has nothing left"
    RELIEF = "the system has something again"
    SHARE = "we have our share, and more"
    MOMENT = "the others have had their moment"
    HOLD = "newer code is on its way"
    RELEASE = "it did not come up"
    END = "the server stops"


P, C = Phase, Cause
LIFE: dict[tuple[Phase, Cause], Phase] = {
    (P.ACCEPTING, C.LIMIT): P.FULL,
    (P.ACCEPTING, C.SHORTAGE): P.STARVED,
    (P.ACCEPTING, C.SHARE): P.YIELDING,
    (P.YIELDING, C.MOMENT): P.ACCEPTING,
    (P.YIELDING, C.ROOM): P.ACCEPTING,
    (P.FULL, C.LIMIT): P.FULL,
    (P.FULL, C.ROOM): P.ACCEPTING,
    (P.STARVED, C.LIMIT): P.STARVED,
    (P.STARVED, C.SHORTAGE): P.STARVED,
    (P.STARVED, C.RELIEF): P.ACCEPTING,
    **{(phase, C.HOLD): P.HELD for phase in (P.ACCEPTING, P.YIELDING, P.FULL, P.STARVED)},
    (P.HELD, C.RELEASE): P.ACCEPTING,
    **{(phase, C.END): P.CLOSED for phase in Phase},
}

# The pauses that the metrics know, by the phase that begins with one.
PAUSES = {P.FULL: "limit", P.STARVED: "shortage"}

Accept = Callable[[], tuple[int, Any]]


class Share(Protocol):
    """What part of the connections is this process's, where several accept from the same sockets."""

    def room(self) -> int:
        """How many more may be taken now; 0 or less: it has its share, and the next ones should be for others."""

    def tell(self, connections: int) -> None:
        """So many are open or being made: called when one comes or goes, never for a request."""


class Acceptor:
    """One listening socket, which it closes at the end, and what has been accepted from it and is no connection yet."""

    def __init__(self, intake: Intake, sock: socket.socket, name: str, make: MakeConnection, connect: Connect) -> None:
        self.name = name
        self.is_plain = connect == intake.shared.loop.connect_accepted_socket  # there is no TLS on it
        self.phase = Phase.ACCEPTING
        self.arriving: dict[asyncio.Task[Any], socket.socket] = {}
        self._short_at: float | None = None  # when the system last had nothing left, until a second went well
        self._yielding: asyncio.TimerHandle | None = None
        self._intake = intake
        self._shared = intake.shared
        self._loop = intake.shared.loop
        self.sock = sock
        # The descriptor alone: of it we make a cheaper socket than accept() does.
        self._accept: Accept = sock._accept  # type: ignore[attr-defined]
        self.socket = socket_class(sock)
        self._kind = (sock.family, sock.type, sock.proto)
        self.swap(make, connect)

    def swap(self, make: MakeConnection, connect: Connect) -> None:
        """Make transports and their protocols in this way from here on: the two belong together."""
        self.make = make
        self._connect = connect

    def listen(self) -> None:
        """Have the loop tell when the kernel has a connection."""
        self._loop.add_reader(self.sock.fileno(), self._ready)

    def _ready(self) -> None:
        share = self._intake.share
        if share is None:
            self.take(BURST)
        elif (room := share.room()) > 0:
            self.take(min(BURST, room))
        else:
            self._move(Cause.SHARE)

    def resume(self) -> None:
        """End the moment in which others may accept."""
        if self.phase is Phase.YIELDING:
            self._move(Cause.MOMENT)

    def _moment_over(self) -> None:
        """Whatever the shares are, take one: had somebody else been free, it would be gone."""
        self.resume()
        share = self._intake.share
        self.take(1 if share is None else max(1, min(BURST, share.room())))

    def take(self, most: int) -> bool:
        """Accept ``most`` connections at most; whether that has emptied the queue."""
        room = self._intake.room()
        try:
            for _ in range(min(most, room)):
                try:
                    self._accept_one()
                except BlockingIOError:  # another worker was first, or there are no more
                    self._relieved()
                    return True
                except OSError as error:
                    if error.errno not in OF_THE_CONNECTION:
                        self._starve(error)
                        return False
                    logger.debug("%s: a connection was gone before it was accepted: %s", self.name, error)
        finally:
            self._intake.tell()
        if room > 0:
            self._relieved()
        if self._intake.room() <= 0:
            self._move(Cause.LIMIT)
        return False

    def _accept_one(self) -> None:
        """OSError when none is there, or none can be had."""
        fd, _address = self._accept()
        sock = self.socket(*self._kind, fd)
        self._arrive(sock, self._connect(self.make, sock))

    def _arrive(self, sock: socket.socket, making: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(making)
        self.arriving[task] = sock
        self._shared.arriving += 1
        self._intake.taken += 1
        task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        """A transport was made, or not: then it was the peer's doing, or the end's, and the socket goes."""
        sock = self.arriving.pop(task)
        if task.cancelled():
            sock.close()
            self._intake.taken -= 1
        elif (error := task.exception()) is not None:
            sock.close()
            self._intake.taken -= 1
            if isinstance(error, OSError):
                self._note_failure(error)
                logger.debug("%s: no connection was made: %s", self.name, str(error) or type(error).__name__)
            else:
                self._loop.call_exception_handler({"message": "no connection was made", "exception": error})
        self._shared.forget_arrival()

    def _note_failure(self, error: OSError) -> None:
        """No connection was made, and the peer's part in that was ``error``."""
        del error
        if not self.is_plain:
            self._intake.refuse("tls")

    def go_on(self) -> None:
        """A connection has gone, or the time for another try has come."""
        if (self.phase is Phase.FULL and self._intake.room() > 0) or (
            self.phase is Phase.YIELDING and self._intake.has_share()
        ):
            self._move(Cause.ROOM)
        elif self.phase is Phase.STARVED:
            self.take(BURST)

    def take_over(self) -> bool:
        """Accept what is in the queue and has room; whether some of it waits on. While held, it is for others."""
        if self.phase is Phase.HELD:
            return False
        self.resume()
        if self.phase is Phase.FULL:
            self.go_on()
        return not self.take(BURST) and self.has_queue()

    def hold(self) -> None:
        """Leave what comes to newer code."""
        if self.phase is not Phase.HELD and self.phase is not Phase.CLOSED:
            self._move(Cause.HOLD)

    def release(self) -> None:
        """There is no newer code: take it."""
        if self.phase is Phase.HELD:
            self._move(Cause.RELEASE)

    def _starve(self, error: OSError) -> None:
        if self._short_at is None:
            logger.warning("%s: accepting pauses: %s", self.name, in_words(error))
        self._short_at = self._loop.time()
        self._move(Cause.SHORTAGE)

    def _relieved(self) -> None:
        if self.phase is Phase.STARVED:
            self._move(Cause.RELIEF)

    def settle(self) -> bool:
        """Whether a shortage is over. It is when a second has gone well: at its edge, it would come and go."""
        if self._short_at is None:
            return True
        if self.phase is Phase.STARVED or self._loop.time() - self._short_at < RETRY_SECONDS:
            return False
        self._short_at = None
        logger.info("%s: accepting goes on", self.name)
        return True

    def _move(self, cause: Cause) -> None:
        before, self.phase = self.phase, LIFE[self.phase, cause]
        if before is Phase.YIELDING and self._yielding is not None:
            self._yielding.cancel()
            self._yielding = None
        if before is not self.phase:
            if self._shared.meter is not None and self.phase in PAUSES:
                self._shared.meter.pause(PAUSES[self.phase])
            if self.phase is Phase.ACCEPTING:
                self.listen()
            elif before is Phase.ACCEPTING:
                self._loop.remove_reader(self.sock.fileno())
        if self.phase is Phase.YIELDING:
            self._yielding = self._intake.call_later(YIELD_SECONDS, self._moment_over)
            self._intake.wait_for_room()
        elif self.phase is Phase.FULL:
            self._intake.wait_for_room()
        elif self.phase is Phase.STARVED:
            self._intake.wait_for_room()
            self._intake.try_again_later()

    def has_queue(self) -> bool:
        """Whether the kernel has a connection that nobody has accepted."""
        queue = select.poll()
        queue.register(self.sock, select.POLLIN)
        return bool(queue.poll(0))

    def close(self) -> None:
        """Accept no more, and close the socket. What has arrived goes on."""
        if self.phase is not Phase.CLOSED:
            self._move(Cause.END)
            self.sock.close()


class Intake:
    """All acceptors of a server: the room that they share, and their common end.

    ``limit`` is how many connections may be open at once, those included that are still being made; 0 is any number.
    ``share`` is this process's part of them, None where it has all to itself.
    """

    def __init__(self, shared: Shared, limit: int = 0, share: Share | None = None) -> None:
        self.shared = shared
        self.share = share
        self.taken = 0  # accepted, but for those that came to nothing
        self.acceptors: list[Acceptor] = []
        self._limit = limit
        self._context = copy_context()  # what is begun when a connection ends must not be begun in its context
        self._retry: asyncio.TimerHandle | None = None
        self._waking: asyncio.Handle | None = None
        self._room = asyncio.Event()  # there may be some again
        self._wait_for_none()

    def open(
        self,
        sock: socket.socket,
        name: str,
        make: MakeConnection,
        secure: Secure | None = None,
        proxies: Proxies | None = None,
    ) -> None:
        """Accept connections from a listening socket, and close it at the end. ``make`` makes their protocols."""
        if proxies is None:
            self.add(Acceptor(self, sock, name, make, self._connect(secure)))
        else:
            from asgiri.proto.announced import ProxiedAcceptor  # few services have a proxy that speaks this

            self.add(ProxiedAcceptor(self, sock, name, make, self._connect(secure), proxies))

    def swap(self, acceptor: Acceptor, make: MakeConnection, secure: Secure | None) -> None:
        """What is accepted from here on is made so; what has been before stays as it is, with its handshake."""
        acceptor.swap(make, self._connect(secure))

    def _connect(self, secure: Secure | None) -> Connect:
        loop = self.shared.loop
        return secure.connect(loop) if secure is not None else loop.connect_accepted_socket

    def refuse(self, reason: str) -> None:
        """Count a connection that came to nothing: ``reason`` is one of the metric ``connections_refused``."""
        if self.shared.meter is not None:
            self.shared.meter.refuse_connection(reason)

    def add(self, acceptor: Acceptor) -> None:
        """One more, which takes its part in all that holds for the others."""
        self.acceptors.append(acceptor)
        acceptor.listen()

    def hold(self) -> None:
        """Leave what comes to newer code."""
        for acceptor in self.acceptors:
            acceptor.hold()

    def release(self) -> None:
        """There is no newer code: take it."""
        for acceptor in self.acceptors:
            acceptor.release()

    def room(self) -> int:
        """How many connections the limit lets us accept now."""
        if not self._limit:
            return BURST + 1
        return self._limit - len(self.shared.connections) - self.shared.arriving

    def has_share(self) -> bool:
        """Whether a connection more is within our share."""
        return self.share is None or self.share.room() > 0

    def tell(self) -> None:
        """Tell how many connections there are, where anybody wants to know."""
        if self.share is not None:
            shared = self.shared
            ended = shared.accepted - len(shared.connections)
            # Not with shared.arriving: for a turn of the loop, what has arrived is that and a connection.
            self.share.tell(max(0, self.taken - ended))

    def wait_for_room(self) -> None:
        """An acceptor has paused: tell it when a connection has gone."""
        self.shared.on_room = self._wake_soon

    def _wait_for_none(self) -> None:
        self.shared.on_room = self.tell if self.share is not None else nothing

    def try_again_later(self) -> None:
        """What the system lacks may come back from elsewhere: look in a second, too."""
        if self._retry is None:
            self._retry = self.call_later(RETRY_SECONDS, self._try_again)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self.shared.loop.call_later(seconds, callback, context=self._context)

    def _wake_soon(self) -> None:
        """In the loop's next turn: a connection is gone a little before its descriptor is."""
        self.tell()
        if self._waking is None:
            self._waking = self.shared.loop.call_soon(self._wake, context=self._context)

    def _wake(self) -> None:
        self._waking = None
        self._room.set()
        self._wait_for_none()
        for acceptor in self.acceptors:
            acceptor.go_on()
            if acceptor.phase in (Phase.FULL, Phase.YIELDING):
                self.wait_for_room()

    def _try_again(self) -> None:
        self._retry = None
        self._wake()
        settled = [acceptor.settle() for acceptor in self.acceptors]
        if not all(settled):
            self.try_again_later()

    async def close(self, seconds: float) -> None:
        """Take over what the kernel has accepted for us by now, close the sockets, and have the connections made.

        With other processes on a busy socket there is always one more, so this ends after ``seconds``; so it does
        where there is no room.
        """
        loop = self.shared.loop
        deadline = loop.time() + seconds
        while True:
            self._room.clear()
            waiting = [acceptor for acceptor in self.acceptors if acceptor.take_over()]
            if not waiting or loop.time() >= deadline:
                break
            if any(acceptor.phase is Phase.ACCEPTING for acceptor in waiting):
                await asyncio.sleep(0)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._room.wait()
        for acceptor in waiting:
            if acceptor.phase is not Phase.ACCEPTING:
                logger.warning("%s: what waited to be accepted is left behind: %s", acceptor.name, acceptor.phase.value)
        self.abort()
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def abort(self) -> None:
        """Close the sockets, whatever is in their queues."""
        for acceptor in self.acceptors:
            acceptor.close()
        for handle in (self._retry, self._waking):
            if handle is not None:
                handle.cancel()
        self._wait_for_none()

    def cut(self) -> None:
        """End what has arrived and is no connection yet: whoever has not sent its handshake has asked for nothing."""
        for acceptor in self.acceptors:
            for task in acceptor.arriving:
                task.cancel()


def nothing() -> None:
    """What ``Shared.on_room`` does while no acceptor waits."""


def socket_class(listening: socket.socket) -> type[socket.socket]:
    """The class of the sockets that a listening one accepts.

    What the loops ask each of them for is the same for all: to have it at hand, and not to convert a number to an enum
    each time, saves a tenth of what a short connection costs.
    """
    return type("Accepted", (socket.socket,), {"__slots__": (), "family": listening.family, "type": listening.type})


def in_words(error: OSError) -> str:
    """What the system lacks, and what to raise."""
    match error.errno:
        case errno.EMFILE:
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return f"no file descriptor is left of {soft}; raise RLIMIT_NOFILE (LimitNOFILE= in systemd, ulimit -n)"
        case errno.ENFILE:
            return "the system's file table is full; raise fs.file-max"
        case errno.ENOBUFS | errno.ENOMEM:
            return "the kernel has no memory for another connection"
    return error.strerror or str(error)
