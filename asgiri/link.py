"""What a master and one of its workers say to each other, over two pipes: orders down, reports up.

The pipes are also the tie between the two lives: a worker that reads end of file has lost its master, a master that
reads end of file has a worker that is about to exit.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from asgiri.config.schema import Config, Listen
from asgiri.errors import ExitCode
from asgiri.sockets.listener import Listener
from asgiri.supervisor.scoreboard import Scoreboard, Slot
from asgiri.tracebacks import Trouble, encodable

logger = logging.getLogger("asgiri.master")


class Order(Enum):
    """What a master asks of a worker; one byte on the pipe."""

    RETIRE = b"r"  # drain and exit: others go on serving
    STOP = b"s"  # drain and exit: the service stops
    RENEW = b"t"  # TLS files have changed: what is in them is in the deposit
    # Under reload only (docs/design/reload.md).
    HOLD = b"h"  # accept nothing, read nothing from idle connections: newer code is on its way
    RESUME = b"c"  # it did not come up: go on
    NEWS = b"n"  # the bulletin has changed


class Booted(msgspec.Struct, frozen=True, tag="booted"):
    """The application is imported, its lifespan is up, the listeners are taken.

    Under reload: ``trouble`` is why the error page is served in the application's place; ``modules`` are those that
    it has imported from outside the watched folders, in the order of their import; ``environ`` are the variables that
    it has set.
    """

    trouble: Trouble | None = None
    modules: tuple[str, ...] = ()
    environ: dict[str, str] = {}


class BootFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker cannot serve. ``message`` is one sentence, ``trace`` the application's traceback or empty.

    ``trouble`` is the same as data, where the application is to blame; under reload only.
    """

    message: str
    trace: str = ""
    trouble: Trouble | None = None


class Aside(msgspec.Struct, frozen=True, tag="aside"):
    """From the zygote: it cannot be one, and exits; ``why`` is a clause: "import torch has started a thread".

    ``again``: another one can.
    """

    why: str
    again: bool = False


class Changed(msgspec.Struct, frozen=True, tag="changed"):
    """From the watcher: the first few of ``total`` files that have changed, as a person would name them."""

    files: tuple[str, ...]
    total: int


Report = Booted | BootFailed | Changed | Aside

# Characters of a traceback that are told, the last ones; more bytes than the line of any report then has; how much is
# taken at once: who writes without end must not hold the master up, nor make it grow.
TRACE_MOST: Final = 128 << 10
LINE_MOST: Final = 2 << 20
REPORTS_MOST: Final = 8  # of one child: it has one thing to say, or two
_READ: Final = 64 << 10

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


class GarbledError(ValueError):
    """What came up a link is no report: in the child somebody else writes there, too."""


class ParentEnd:
    """The master's end of a link."""

    def __init__(self, orders: int, reports: int, most: int | None = REPORTS_MOST) -> None:
        self._orders = orders
        self._reports = reports
        self._most = most  # reports; None: any number, of a child that runs our own code only
        self._buffer = b""
        self._heard = 0
        os.set_blocking(orders, False)
        os.set_blocking(reports, False)

    def fileno(self) -> int:
        return self._reports

    def send(self, order: Order) -> None:
        """Give an order. A worker that is gone, or reads nothing, is for the deadlines to deal with."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._orders, order.value)

    def read(self) -> tuple[list[Report], bool]:
        """The reports that have come, and whether more may. GarbledError where they make no sense: no more will."""
        more = True
        try:
            while len(self._buffer) < LINE_MOST:
                chunk = os.read(self._reports, _READ)
                if not chunk:
                    more = False
                    break
                self._buffer += chunk
        except BlockingIOError:
            pass
        *lines, self._buffer = self._buffer.split(b"\n")
        self._heard += len(lines)
        if len(self._buffer) >= LINE_MOST or (self._most is not None and self._heard > self._most):
            raise GarbledError(f"it reports without end: more than {self._most} lines, or {LINE_MOST} bytes in one")
        try:
            return [_decoder.decode(line) for line in lines], more
        except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors; of endless brackets it recurses
            raise GarbledError(str(error)) from None

    def close(self) -> None:
        os.close(self._orders)
        os.close(self._reports)


class ChildEnd:
    """The worker's end of a link."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders = orders
        self._reports = reports
        os.set_blocking(orders, False)

    def fileno(self) -> int:
        return self._orders

    @property
    def descriptors(self) -> list[int]:
        """Of the two pipes, as the constructor takes them."""
        return [self._orders, self._reports]

    def report(self, report: Report) -> None:
        """Tell the master; one that is gone is not told."""
        if isinstance(report, BootFailed):
            message, trace = encodable(report.message, TRACE_MOST), encodable(report.trace, -TRACE_MOST)
            report = BootFailed(message, trace, report.trouble)
        line = memoryview(_encode(report) + b"\n")
        with contextlib.suppress(BrokenPipeError):
            while line:
                line = line[os.write(self._reports, line) :]

    def read(self) -> list[Order] | None:
        """The orders that have come; None when the master is gone."""
        try:
            data = os.read(self._orders, 64)
        except BlockingIOError:
            return []
        return [Order(data[i : i + 1]) for i in range(len(data))] if data else None

    def close(self) -> None:
        os.close(self._orders)
        os.close(self._reports)


def make_link(most: int | None = REPORTS_MOST) -> tuple[ParentEnd, ChildEnd]:
    """Two pipes, by end. After the fork each side closes the other's end. OSError when no descriptor is left."""
    orders_read, orders_write = os.pipe()
    try:
        reports_read, reports_write = os.pipe()
    except OSError:
        os.close(orders_read)
        os.close(orders_write)
        raise
    return ParentEnd(orders_write, reports_read, most), ChildEnd(orders_read, reports_write)


class Errand(Struct, frozen=True):
    """What the zygote is asked for: a worker; goes pickled, with descriptors: of the ticket, of the worker's link and
    stacks, of its deposit if it has one, and of its listeners, one for each of ``listens``.

    The ticket is a socket. The worker tells its pid there, and lives when it gets a byte back. ``slot`` is a number on
    the board, which the zygote has already.
    """

    number: int
    generation: int
    config: Config
    listens: tuple[Listen, ...]
    slot: int
    umask: int
    first: bool
    has_deposit: bool


class Warm(Struct, frozen=True):
    """What a zygote is given besides: where it is asked, the modules to import, and what the application had in its
    environment when it did."""

    sock: socket.socket
    modules: tuple[str, ...]
    environ: dict[str, str]


class Watch(Struct, frozen=True):
    """What a watcher is given besides: folders and files, all absolute, and since when a change is news.

    ``since_ns`` is a time of the wall clock, in nanoseconds; ``delay`` is in seconds. ``polling`` None: as it is best.
    """

    dirs: tuple[str, ...]
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    files: tuple[str, ...]
    delay: float
    polling: bool | None
    since_ns: int


class Boot(Struct, frozen=True):
    """All that a child needs to come up: made by the master, read by the child after the fork.

    ``number`` is the worker's, 0 for a child that is none. ``slot`` is its own on the ``board``. ``stacks`` is a
    descriptor: what is written there on SIGUSR2 the master reads (see :mod:`asgiri.child.stacks`). So is ``deposit``:
    what is in the TLS files (:mod:`asgiri.deposit`), -1 where there are none.

    Under reload only, else -1 or None: ``bulletin`` is a descriptor to read :mod:`asgiri.supervisor.bulletin` of;
    ``transfer`` the two ends, to give and to take, of what hands idle connections over. ``first``: nothing has served
    before, so a broken application is shown and not refused. ``warm`` is the zygote's, ``watch`` the watcher's.
    """

    number: int
    generation: int
    config: Config
    listeners: Sequence[Listener]
    link: ChildEnd
    master_pid: int
    board: Scoreboard
    slot: Slot
    stacks: int
    bulletin: int = -1
    transfer: tuple[socket.socket, socket.socket] | None = None
    first: bool = False
    warm: Warm | None = None
    watch: Watch | None = None
    deposit: int = -1


# The child's main: takes its boot, returns its exit status. The master gets it from the composition root.
ChildMain = Callable[[Boot], int]


def be(main: ChildMain, boot: Boot, *, is_warm: bool = False) -> NoReturn:
    """In a fresh child: be what it was forked for, and end without unwinding the stack of who has forked it.

    ``is_warm``: what was imported before the fork is its own, with the exit handlers of that.
    """
    status = int(ExitCode.FAILED)
    try:
        if not is_warm:
            atexit._clear()
        status = main(boot)
        atexit._run_exitfuncs()
    except BaseException:
        logger.exception("the process crashed")
    finally:
        flush_streams()
        os._exit(status)


def flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):  # a full disk, a closed pipe: not a reason to fail
                stream.flush()
