"""The system log: one datagram a line, to a socket of this machine or, by UDP, to another one.

Nobody waits for it longer than a moment: the socket never blocks, and what cannot be sent is lost, counted, and told of
once lines go through again. A daemon that was restarted is connected to anew with the next line.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from asgiri.log.setup import LineHandler
from asgiri.log_target import parse_syslog

if TYPE_CHECKING:
    from asgiri.log.setup import Label

# RFC 5424 section 6.2.1, table 1, as far as log.syslog_facility names them.
_FACILITIES: Final = {"user": 1, "daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}

# The same section, table 2.
INFORMATIONAL: Final = 6

# Bytes of a message; longer ones are cut. What rsyslog and syslog-ng take by default.
MESSAGE_MOST: Final = 8 << 10
_CUT: Final = b"[...]"

# How long a line waits for a daemon that is behind, in seconds. Once; the lines after it do not wait.
PATIENCE: Final = 0.05

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# RFC 3164 section 4.1.3: who reads takes what is neither letter nor digit for the end of a tag; "-" and "_" are in use.
_NO_TAG = re.compile(r"[^0-9A-Za-z_-]", re.ASCII)

# Family and address of a socket.
Where: TypeAlias = "tuple[int, str | tuple[object, ...]]"

# Where names were found: looked up once, by the master, for a worker that boots must not wait for a name server.
_found: dict[tuple[str, int], Where] = {}


def severity(level: int) -> int:
    """The severity of RFC 5424 that a level of logging has; sd-daemon(3) has the same numbers."""
    for least, number in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= least:
            return number
    return 7


class SyslogSocket:
    """A socket to a system log, in the place of a LogFile. Making one raises OSError for a host that cannot be found.

    That nobody listens is no error here: a line that is sent raises it, and the next one tries again.
    """

    whole: int | None = 1  # of one write: a line

    def __init__(self, name: str, label: Label) -> None:
        self.name = name
        where = parse_syslog(name)
        self._is_local = bool(where.path)
        at: Where = (socket.AF_UNIX, where.path) if where.path else _found_at(where.host, where.port)
        self._family, self._address = at
        self._facility = _FACILITIES[label.facility] << 3
        self._tag = _NO_TAG.sub("_", label.tag)[:32] or "asgiri"
        self._host = _NO_TAG.sub("-", socket.gethostname().partition(".")[0]) or "-"
        self._socket: socket.socket | None = None
        with suppress(OSError):
            self._connect()

    def _connect(self) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            raise
        self.close()
        self._socket = sock
        return sock

    def write(self, data: bytes, patience: float = 0.0) -> int:
        """Send the first line of ``data``, as informational; its length. Raises OSError as :meth:`send` does."""
        end = data.find(b"\n") + 1 or len(data)
        self.send(INFORMATIONAL, data[:end].rstrip(b"\n"), time.time(), patience)
        return end

    def send(self, number: int, line: bytes, when: float, patience: float = 0.0) -> None:
        """Send a line of that severity and time. BlockingIOError when there is no room within ``patience`` seconds,
        OSError when nobody listens, or the network says so.
        """
        if len(line) > MESSAGE_MOST:
            line = line[: MESSAGE_MOST - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT
        datagram = self._head(number, when) + line
        if self._socket is None or not self._sent(self._socket, datagram, patience):
            self._connect().send(datagram)

    def _sent(self, sock: socket.socket, datagram: bytes, patience: float) -> bool:
        """Whether it is sent; False: the daemon was restarted, or has refused an earlier datagram."""
        try:
            try:
                sock.send(datagram)
            except BlockingIOError:
                if not patience or not self._has_room(sock, patience):
                    raise BlockingIOError(errno.EAGAIN, "its reader does not read") from None
                sock.send(datagram)
        except BlockingIOError:
            raise
        except OSError:
            self.close()
            return False
        return True

    @staticmethod
    def _has_room(sock: socket.socket, patience: float) -> bool:
        news = select.poll()
        news.register(sock, select.POLLOUT)
        return bool(news.poll(patience * 1000))

    def _head(self, number: int, when: float) -> bytes:
        """As libc has it (RFC 3164 section 4.1, without the host) on this machine; RFC 5424 section 6.2 elsewhere."""
        local = time.localtime(when)
        priority = self._facility | number
        if self._is_local:
            clock = time.strftime("%H:%M:%S", local)
            stamp = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} {clock}"
            return f"<{priority}>{stamp} {self._tag}[{os.getpid()}]: ".encode("ascii")
        offset = time.strftime("%z", local)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{int(when % 1 * 1e6):06d}{offset[:3]}:{offset[3:]}"
        return f"<{priority}>1 {stamp} {self._host} {self._tag} {os.getpid()} - - ".encode("ascii")

    def reopen(self) -> None:
        """Connect anew, to whoever listens now; on OSError the next line tries again."""
        self._connect()

    def close(self) -> None:
        """Close the socket. A line that is sent later opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class SyslogHandler(LineHandler):
    """Sends each line of a record, those of a traceback too, with the record's own severity and time."""

    _out: SyslogSocket

    def __init__(self, file: str, label: Label) -> None:
        super().__init__(file, label)
        self._patience = PATIENCE
        self._lost = 0  # lines, since that was last told
        self._why = ""

    def _open(self, label: Label) -> SyslogSocket:
        return SyslogSocket(self.file, label)

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record; lines that cannot be sent are lost, and counted."""
        number = severity(record.levelno)
        for line in self.format(record).encode("utf-8", "backslashreplace").split(b"\n"):
            self._send(number, line, record)

    def _send(self, number: int, line: bytes, record: logging.LogRecord) -> None:
        try:
            if self._lost:
                what = f"the system log has lost {self._lost} line{'s' if self._lost > 1 else ''}: {self._why}"
                self._out.send(severity(logging.WARNING), what.encode("utf-8", "replace"), record.created)
                self._lost = 0
                self._patience = PATIENCE
            self._out.send(number, line, record.created, self._patience)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                self._patience = 0.0
            if not self._lost:
                self._complain(error)
            self._lost += 1
            self._why = error.strerror or str(error)
            if record.levelno >= logging.CRITICAL:
                self._say(line)

    def _complain(self, error: OSError) -> None:
        """A log of which nobody knows that it is not there is the worst of all: stderr hears of it, once."""
        self._say(f'asgiri: the system log "{self.file}" takes no lines: {error.strerror or error}'.encode())

    @staticmethod
    def _say(line: bytes) -> None:
        with suppress(OSError):
            os.write(2, line + b"\n")


def _found_at(host: str, port: int) -> Where:
    """Family and address of a host. Raises OSError when its name is not known."""
    key = (host, port)
    if key not in _found:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        _found[key] = family, address
    return _found[key]
