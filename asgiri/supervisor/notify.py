"""What a service tells the service manager, by the protocol of sd_notify(3).

A datagram of ``NAME=value`` lines to the socket that NOTIFY_SOCKET names. Nothing here waits and nothing fails: a
manager that is gone or busy is no reason to stop serving. What it must not miss is said again with the next message.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Final

from asgiri.log.setup import escape

logger = logging.getLogger("asgiri.master")

SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_OF: Final = "WATCHDOG_PID"
STORE: Final = "FDSTORE"

# systemd takes no datagram over 4096 bytes (PIPE_BUF), and a status is a line for people.
_STATUS_MOST: Final = 1000
# Messages that wait for a manager that takes none, beside one for each socket: a start, a reload and a stop make fewer.
_WAITING_MOST: Final = 8
# How long a manager that takes nothing may hold up who has said its last word, in seconds.
_LAST_WORD: Final = 1
# More sockets than anybody has the manager keep.
_STORE_MOST: Final = 1000


class Notifier:
    """One service's word to its manager, at ``address``: a path, or ``@name`` in the abstract namespace; None: nobody.

    ``watchdog`` is how often the manager wants to hear :meth:`alive` at the least, in seconds; None: it does not.
    ``room`` is how many sockets it keeps for us.
    """

    def __init__(self, address: str | None, watchdog: float | None = None, room: int = 0) -> None:
        self.watchdog = watchdog if address is not None else None
        self.room = room if address is not None else 0
        self._address = address
        self._socket: socket.socket | None = None
        self._waiting: deque[tuple[bytes, socket.socket | None]] = deque(maxlen=_WAITING_MOST + self.room)
        self._heard = True  # whether the last message arrived: a failure is told once
        if address is not None:
            self._open(address)

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Notifier:
        """The manager that the environment names. Its variables are taken away: they are not for the workers.

        WATCHDOG_PID, where it is set, says whose watchdog WATCHDOG_USEC is (sd_watchdog_enabled(3)).
        """
        address = environ.pop(SOCKET, "")
        interval = environ.pop(WATCHDOG, "")
        of = environ.pop(WATCHDOG_OF, "")
        store = environ.pop(STORE, "")
        if not address:
            return cls(None)
        is_ours = not of or of == str(os.getpid())
        return cls(address, _seconds(interval) if is_ours else None, _room(store))

    def environ(self) -> dict[str, str]:
        """The variables for a master that takes over; WATCHDOG_PID, which names its own pid, is its to set."""
        if self._address is None:
            return {}
        variables = {SOCKET: self._address}
        if self.watchdog is not None:
            variables[WATCHDOG] = str(round(self.watchdog * 1e6))
        if self.room:
            variables[STORE] = str(self.room)
        return variables

    def ready(self, status: str) -> None:
        """The service serves: after the start, and after :meth:`reloading`."""
        self._tell(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """A reload begins; systemd's Type=notify-reload wants to know when, by CLOCK_MONOTONIC."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service is about to stop."""
        self._tell("STOPPING=1")

    def main_pid(self, pid: int) -> None:
        """Another process is the main one from here on."""
        self._tell(f"MAINPID={pid}")

    def keep(self, name: str, sock: socket.socket) -> None:
        """Keep a socket under a name, and give it to the master that is started next. A second time it is no other."""
        self._tell(f"FDSTORE=1\nFDNAME={name}", sock)

    def forget(self, name: str) -> None:
        """Keep the socket of this name no longer."""
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def status(self, text: str) -> None:
        """One line for people: what the service is doing."""
        self._send(f"STATUS={_line(text)}")

    def extend(self, seconds: float) -> None:
        """What is under way (start, reload or stop) takes that long yet, from now: do not time it out before."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def alive(self) -> None:
        """The service is well: the watchdog starts anew."""
        self._send("WATCHDOG=1")

    def finish(self) -> None:
        """Say what waits, and nothing any more. A manager that is busy has a second: nobody says it again."""
        if self._waiting and self._socket is not None:
            self._socket.setblocking(True)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _LAST_WORD, 0))
            self._flush()
        self.close()

    def close(self) -> None:
        """Say nothing any more: at the end, and in a child."""
        self.room = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, address: str) -> None:
        if address[0] not in "/@" or len(address) < 2:
            logger.warning("%s is not understood, the service manager is told nothing: %s", SOCKET, escape(address))
            return
        try:
            # Kept open, so that the watchdog is fed when no descriptor is left.
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError as error:
            logger.warning("the service manager is told nothing: %s", error.strerror)
            return
        self._socket.setblocking(False)

    def _tell(self, text: str, sock: socket.socket | None = None) -> None:
        """Send what the manager must not miss: it waits until it can be sent, and what comes later waits behind it."""
        if self._socket is not None:
            self._waiting.append((text.encode(), sock))
            self._flush()

    def _send(self, text: str) -> None:
        """Send what is of no use later."""
        if self._socket is not None and self._flush():
            self._put(text.encode())

    def _flush(self) -> bool:
        while self._waiting and self._put(*self._waiting[0]):
            self._waiting.popleft()
        return not self._waiting

    def _put(self, data: bytes, sock: socket.socket | None = None) -> bool:
        """Send one datagram, and a socket along with it; whether that was possible."""
        assert self._socket is not None
        assert self._address is not None
        if sock is not None and sock.fileno() == -1:  # it was closed while it waited
            return True
        name = os.fsencode(self._address)
        where = b"\0" + name[1:] if name[:1] == b"@" else name
        try:
            if sock is None:
                self._socket.sendto(data, where)
            else:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, sock.fileno().to_bytes(4, sys.byteorder))
                self._socket.sendmsg([data], [rights], 0, where)  # socket.send_fds() forgets the address
        except OSError as error:
            if self._heard:
                logger.warning("the service manager cannot be told at %s: %s", escape(self._address), _why(error))
            self._heard = False
            return False
        if not self._heard:
            logger.info("the service manager is told again")
        self._heard = True
        return True


def _why(error: OSError) -> str:
    if error.errno == errno.EAGAIN:
        return "it does not read"
    return error.strerror or str(error)  # a path that is too long has no number


def _seconds(microseconds: str) -> float | None:
    """The value of WATCHDOG_USEC; None when there is none, or it is no positive number."""
    if not microseconds:
        return None
    if not (microseconds.isascii() and microseconds.isdigit() and len(microseconds) < 20 and int(microseconds)):
        logger.warning('%s is ignored: expected microseconds, got "%s"', WATCHDOG, escape(microseconds))
        return None
    return int(microseconds) / 1e6


def _room(text: str) -> int:
    """The value of FDSTORE; 0 when there is none, or it is no number."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        logger.warning('%s is ignored: expected a number of descriptors, got "%s"', STORE, escape(text))
        return 0
    return min(int(text), _STORE_MOST)


def _line(text: str) -> str:
    """``text`` as the one line that a value can be: a newline would begin the next assignment."""
    return escape(text)[:_STATUS_MOST].encode("utf-8", "backslashreplace").decode()
