"""The access log: one line for each exchange, through a buffer of its own. How a line looks is in layout.py.

It is on by default, so it has to cost next to nothing: what an exchange pays for is that its values go into a list.
When there are enough of them, or a tenth of a second has passed, they are made into lines and written, all at once.

A file that cannot be written fails no request, and a reader that does not read holds none up: lines wait in a buffer
that is bounded. Those that it has no room for are lost, counted, and told of on the main log.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from asgiri.log.file import LogFile, is_journal
from asgiri.log.layout import WIDTH, Batch, Layout, Source
from asgiri.log.setup import Label, cannot_open
from asgiri.log_target import STDERR, is_syslog
from asgiri.types import Headers

if TYPE_CHECKING:
    from asgiri.log.syslog import SyslogSocket

logger = logging.getLogger("asgiri.access")

# How long a line waits for others, in seconds, and how many bytes of lines are written without waiting for more.
FLUSH_SECONDS: Final = 0.1
FLUSH_SIZE: Final = 64 << 10
# How many lines at the most: short ones may be followed by long ones.
FLUSH_LINES: Final = 512

# How many bytes of lines wait for a file that cannot be written at present.
BUFFER_SIZE: Final = 1 << 20

# How long close() waits for a slow reader, in seconds: much less than whoever waits for the process does.
CLOSE_SECONDS: Final = 0.5

# While lines are being lost, how often that is told, in seconds.
TELL_SECONDS: Final = 60.0

Clock = Callable[[], float]
CallLater = Callable[[float, Callable[[], None]], object]


class AccessLog:
    """Takes what there is to say of exchanges, and writes it in batches. To be used by one thread, the loop's.

    ``call_later(seconds, callback)`` is the loop's; ``clock`` tells the seconds since 1970, and ``timer`` those that
    exchanges are measured by.
    """

    def __init__(
        self,
        layout: Layout,
        outlet: Outlet,
        call_later: CallLater,
        clock: Clock = time.time,
        timer: Clock = time.perf_counter,
    ) -> None:
        self._layout = layout
        self._outlet = outlet
        self._call_later = call_later
        self._clock = clock
        self._timer = timer
        self.picks = layout.picks  # lines show fields of the request
        self._pick = layout.pick if layout.picks else None
        self._batch: Batch = []
        self._enough = FLUSH_LINES * WIDTH  # of a batch: what makes FLUSH_SIZE, to go by the last one
        self._stamp: object = None
        # When the stamp has to be made anew, by the timer; what else is not for each record is done then, too.
        self._until = -math.inf
        self._armed = False  # a timer is running
        self._closed = False

    @property
    def lost(self) -> int:
        """Lines that were lost so far."""
        return self._outlet.lost

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
    ) -> None:
        """Note an exchange that is over. Raises nothing.

        ``client`` is ``127.0.0.1:53412``, ``[::1]:80`` or ``unix``, and ``version`` ``HTTP/1.1``: texts of our own.
        ``method``, ``target`` and ``headers`` (names in lower case) may be anything that a peer can send. ``status``
        is 499 when the peer left before an answer began; ``size`` counts bytes of content; ``began`` is when the
        request came, by the timer; ``connection`` and ``request`` are the serial numbers that make the request id.
        """
        now = self._timer()
        if now >= self._until:
            self._turn(now)
        picked = self._pick(headers) if self._pick is not None else None
        # In the order of layout.Field.
        self._batch += (
            self._stamp,
            client,
            method,
            target,
            version,
            picked,
            status,
            size,
            now - began,
            connection,
            request,
        )

    def request_id(self, connection: int, request: int) -> str:
        """The id that the line of this exchange has, for what else is logged of it."""
        return self._layout.source.request_id(connection, request)

    def _turn(self, now: float) -> None:
        """Once a millisecond at most: make the stamp, see how long the batch is, have it flushed in time."""
        if self._closed:
            self._batch.clear()
            return
        clock = self._clock()
        self._stamp, until = self._layout.stamp(clock)
        self._until = now + until - clock
        if not self._armed:
            self._armed = True
            self._call_later(FLUSH_SECONDS, self._on_time)
        if len(self._batch) >= self._enough:
            self.flush()

    def _on_time(self) -> None:
        self._armed = False
        self._until = -math.inf  # the next record has this called again
        if self._closed:
            return
        self.flush()
        if self._outlet.waiting:
            self._armed = True
            self._call_later(FLUSH_SECONDS, self._on_time)

    def flush(self) -> None:
        """Write what there is, as far as the file takes it now."""
        self._flush(0.0)

    def _flush(self, patience: float) -> None:
        batch, self._batch = self._batch, []
        lines = b""
        if batch:
            lines = self._layout.render(batch)
            self._enough = min(FLUSH_LINES, len(batch) // WIDTH * FLUSH_SIZE // len(lines)) * WIDTH
        self._outlet.write(lines, patience)

    def reopen(self) -> None:
        """Open the file anew, after a rotation; what was noted before goes into the old one."""
        self.flush()
        self._outlet.reopen()

    def close(self) -> None:
        """Write what there is, waiting for a slow reader for up to half a second, and close the file."""
        if not self._closed:
            self._closed = True
            self._until = -math.inf
            self._flush(CLOSE_SECONDS)
            self._outlet.close()


class Outlet:
    """Puts lines into a file, keeps for later what it does not take, and counts what is lost."""

    def __init__(self, file: LogFile | SyslogSocket, clock: Clock = time.time) -> None:
        self._file = file
        self._clock = clock
        self._waiting = b""
        self._told = 0  # lines lost, of which it was told
        self._lost = 0  # lines, since then
        self._why = ""
        self._told_at = -math.inf

    @property
    def waiting(self) -> bool:
        """Whether lines wait for the file to take them."""
        return bool(self._waiting)

    @property
    def lost(self) -> int:
        """Lines that were lost so far."""
        return self._told + self._lost

    def write(self, lines: bytes, patience: float = 0.0) -> None:
        """Write ``lines``, and before them what waits. A slow reader is waited for ``patience`` seconds."""
        data = self._waiting + lines
        taken = self._put(data, patience)
        self._waiting = self._keep(data, taken) if taken < len(data) else b""
        if self._lost:
            self._tell()

    def reopen(self) -> None:
        """Go on in the file that has the name now; on failure in the old one, which is told."""
        try:
            self._file.reopen()
        except OSError as error:
            logger.error('cannot reopen the access log "%s": %s', self._file.name, error.strerror)
        self.write(b"")

    def close(self) -> None:
        """Close the file. What still waits is lost."""
        self._lost += self._waiting.lstrip(b"\n").count(b"\n")
        self._waiting = b""
        if self._lost:
            self._tell()
        self._file.close()

    def _put(self, data: bytes, patience: float) -> int:
        """Write from the beginning of ``data``; how many bytes the file took."""
        deadline = time.monotonic() + patience
        taken = 0
        try:
            while taken < len(data):
                left = max(0.0, deadline - time.monotonic()) if patience else 0.0
                taken += self._file.write(data[taken : self._end(data, taken)], left)
        except OSError as error:
            self._why = error.strerror or str(error)
        return taken

    def _end(self, data: bytes, start: int) -> int:
        """Where the next write ends: after as many lines as the file keeps together, or after one."""
        whole = self._file.whole
        if whole is None:
            return len(data)
        return data.rfind(b"\n", start, start + whole) + 1 or data.index(b"\n", start) + 1

    def _keep(self, data: bytes, taken: int) -> bytes:
        """What there is room for of that which the file did not take."""
        if taken and data[taken - 1 : taken] != b"\n":
            # A disk that became full tore a line. Its rest would be a line of its own behind that of another worker:
            # it is lost, and its end alone is written.
            taken = data.index(b"\n", taken)
            self._lost += 1
        end = data.rfind(b"\n", taken, taken + BUFFER_SIZE) + 1
        self._lost += data.count(b"\n", end)
        return data[taken:end]

    def _tell(self) -> None:
        """Say what was lost: once all is well again, and while it is not, now and then."""
        now = self._clock()
        if self._waiting and self._told_at <= now < self._told_at + TELL_SECONDS:
            return
        what = f"{self._lost} line{'s' if self._lost > 1 else ''}"
        logger.warning('the access log "%s" has lost %s: %s', self._file.name, what, self._why)
        self._told_at = now
        self._told += self._lost
        self._lost = 0


def open_access_log(
    file: str,
    format: str,  # noqa: A002 - the name of the key
    source: Source,
    call_later: CallLater,
    label: Label = Label(),  # noqa: B008 - it cannot be changed
) -> AccessLog:
    """The access log that the keys ``log.access.file`` and ``format`` describe.

    In the journal and in a system log a line of the format "text" has no time of its own: they have it. Raises
    ConfigError when the file cannot be opened, ValueError for what is no format.
    """
    journal, system = file == STDERR and is_journal(), is_syslog(file)
    layout = Layout(format, source, lead="<6>" if journal else "", stamped=not (journal or system))
    try:
        return AccessLog(layout, Outlet(_open(file, label)), call_later)
    except OSError as error:
        raise cannot_open("log.access.file", file, error) from error


def _open(file: str, label: Label) -> LogFile | SyslogSocket:
    if is_syslog(file):
        from asgiri.log.syslog import SyslogSocket  # most logs are files, or stderr

        return SyslogSocket(file, label)
    return LogFile(file)


def this_process(worker: int, generation: int) -> Source:
    """The source of what this process writes. To be asked for after the fork: its ids are its own."""
    return Source(worker, generation, os.getpid(), os.urandom(4).hex())
