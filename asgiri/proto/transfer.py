"""Under reload: connections that wait between two requests go from a process with old code to one with newer code.

A Giver sends them, as descriptors (SCM_RIGHTS, unix(7)), into one end of a socket pair that all workers share; a Taker
at the other end takes them as if it had accepted them. What their clients have sent meanwhile is in the kernel, and
goes with them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import deque
from typing import TYPE_CHECKING

from asgiri.asgi.scope import Announced
from asgiri.proto.accept import Acceptor, Intake
from asgiri.proto.connection import Connection
from asgiri.proto.secure import MakeConnection

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("asgiri.server")

# What a message begins with; it is the descriptor that counts. What a proxy has said of the connection follows, as
# JSON: its header is read, and will not come again.
CONNECTION = b"c"
# More than the header of a proxy can become.
MESSAGE_SIZE = 64 << 10

# How long to wait for room in the queue, in seconds. Whoever takes from it takes hundreds in a millisecond.
PATIENCE = 1.0


class Giver:
    """Gives away what is idle, and ends what cannot be another's, in the way of its protocol."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.given = 0
        self.kept = 0  # of those that could have been given away, for want of somebody who takes them
        self._loop = loop
        self._sock = sock
        self._waiting: deque[Connection] = deque()  # there is no room in the queue for them
        self._late: asyncio.TimerHandle | None = None
        self._done = asyncio.Event()

    def offer(self, connection: Connection) -> None:
        """Give the connection away, if it is idle."""
        connection.hold()
        if self._waiting:
            self._waiting.append(connection)
        else:
            self._give(connection)

    async def done(self) -> None:
        """Wait until nothing waits for room any more."""
        while self._waiting:
            self._done.clear()
            await self._done.wait()

    def close(self) -> None:
        """Give nothing away any more."""
        self._give_up()

    def _give(self, connection: Connection) -> None:
        if not connection.is_free:
            connection.retire()
            return
        fd = connection.transport.get_extra_info("socket").fileno()
        try:
            socket.send_fds(self._sock, [CONNECTION, packed(connection.peers.announced)], [fd])
        except BlockingIOError:
            if not self._waiting:
                self._loop.add_writer(self._sock.fileno(), self._go_on)
                self._late = self._loop.call_later(PATIENCE, self._give_up)
            self._waiting.appendleft(connection)
        except OSError as error:
            logger.debug("a connection is not handed over: %s", error.strerror)
            self.kept += 1
            connection.retire()
        else:
            self.given += 1
            connection.abort()  # which closes our descriptor, and does nothing to the connection itself

    def _go_on(self) -> None:
        """There is room again."""
        waiting, self._waiting = self._waiting, deque()
        self._stop_waiting()
        while waiting:
            self._give(waiting.popleft())
            if self._waiting:
                self._waiting.extend(waiting)
                return
        self._done.set()

    def _give_up(self) -> None:
        """Nobody takes them: the old code answers what waits."""
        if not self._waiting:
            return
        logger.warning("nobody takes over: %d connections stay with the old code, and end", len(self._waiting))
        waiting, self._waiting = self._waiting, deque()
        self._stop_waiting()
        self.kept += len(waiting)
        for connection in waiting:
            connection.retire()
        self._done.set()

    def _stop_waiting(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Taker(Acceptor):
    """The acceptor of what others give away, which finds by a connection's own address what is spoken on it.

    ``make`` is for one whose listener is not among ours any more, or has become one of TLS.
    """

    def __init__(self, intake: Intake, sock: socket.socket, make: MakeConnection) -> None:
        loop = intake.shared.loop
        super().__init__(intake, sock, "handed over", make, loop.connect_accepted_socket)
        self._plain = [(one.sock.family, one.sock.getsockname(), one.make) for one in intake.acceptors if one.is_plain]

    def _accept_one(self) -> None:
        message, descriptors, flags, _ = socket.recv_fds(self.sock, MESSAGE_SIZE, 1, socket.MSG_CMSG_CLOEXEC)
        if not descriptors:
            lost = flags & socket.MSG_CTRUNC  # no descriptor was left for it: the kernel has closed it
            raise OSError(errno.EMFILE if lost else errno.EPROTO, "nothing was handed over")
        sock = socket.socket(fileno=descriptors[0])
        make = self._maker_of(sock)
        if len(message) > len(CONNECTION):
            from asgiri.proto.announced import announcing

            make = announcing(make, unpacked(message[len(CONNECTION) :]))
        self._arrive(sock, self._loop.connect_accepted_socket(make, sock))

    def _maker_of(self, sock: socket.socket) -> Callable[[], asyncio.Protocol]:
        here = sock.getsockname()
        for family, bound, make in self._plain:
            if family == sock.family and is_at(here, bound):
                return make
        return self.make


def packed(announced: Announced | None) -> bytes:
    """What a proxy has said, for a message; empty when it has said nothing."""
    if announced is None:
        return b""
    import json  # few connections have it

    client, server = announced.client, announced.server
    return json.dumps((client, server, announced.secure, announced.details, announced.tells_ends)).encode()


def unpacked(data: bytes) -> Announced:
    """:func:`packed`, taken apart: a process of ours has made it."""
    import json

    client, server, is_secure, details, tells_ends = json.loads(data)
    return Announced(client and tuple(client), server and tuple(server), is_secure, details, tells_ends)


def is_at(address: object, bound: object) -> bool:
    """Whether a connection with this local address was accepted by a socket that is bound so."""
    if isinstance(address, tuple) and isinstance(bound, tuple):
        return address[1] == bound[1] and bound[0] in (address[0], "0.0.0.0", "::")
    return address == bound
