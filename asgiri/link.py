"""What a master and one of its workers say to each other, over two pipes: orders down, reports up.

The pipes are also the tie between the two lives: a worker that reads end of file has lost its master, a master that
reads end of file has a worker that is about to exit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct

from asgiri.config.schema import Config
from asgiri.sockets.listener import Listener
from asgiri.supervisor.scoreboard import Scoreboard, Slot


class Order(Enum):
    """What a master asks of a worker; one byte on the pipe."""

    RETIRE = b"r"  # drain and exit: others go on serving
    STOP = b"s"  # drain and exit: the service stops


class Booted(msgspec.Struct, frozen=True, tag="booted"):
    """The application is imported, its lifespan is up, the listeners are taken."""


class BootFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The worker cannot serve. ``message`` is one sentence, ``trace`` the application's traceback or empty."""

    message: str
    trace: str = ""


Report = Booted | BootFailed

# Characters of a traceback that are told, the last ones; more bytes than the line of any report then has; how much is
# taken at once: who writes without end must not hold the master up, nor make it grow.
TRACE_MOST: Final = 128 << 10
LINE_MOST: Final = 2 << 20
REPORTS_MOST: Final = 8  # of one child: it has one thing to say, or two
_READ: Final = 64 << 10

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def _sendable(text: str) -> str:
    """``text`` with its lone surrogates, which UTF-8 cannot carry, shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class GarbledError(ValueError):
    """What came up a link is no report: in the child somebody else writes there, too."""


class ParentEnd:
    """The master's end of a link."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders = orders
        self._reports = reports
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
        if len(self._buffer) >= LINE_MOST or self._heard > REPORTS_MOST:
            raise GarbledError(f"it reports without end: more than {REPORTS_MOST} lines, or {LINE_MOST} bytes in one")
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

    def report(self, report: Report) -> None:
        """Tell the master; one that is gone is not told."""
        if isinstance(report, BootFailed):
            report = BootFailed(_sendable(report.message[:TRACE_MOST]), _sendable(report.trace[-TRACE_MOST:]))
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


def make_link() -> tuple[ParentEnd, ChildEnd]:
    """Two pipes, by end. After the fork each side closes the other's end. OSError when no descriptor is left."""
    orders_read, orders_write = os.pipe()
    try:
        reports_read, reports_write = os.pipe()
    except OSError:
        os.close(orders_read)
        os.close(orders_write)
        raise
    return ParentEnd(orders_write, reports_read), ChildEnd(orders_read, reports_write)


class Boot(Struct, frozen=True):
    """All that a child needs to come up: made by the master, read by the child after the fork.

    ``number`` is the worker's, 0 for a child that is none. ``slot`` is its own on the ``board``. ``stacks`` is a
    descriptor: what is written there on SIGUSR2 the master reads (see :mod:`asgiri.child.stacks`).
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


# The child's main: takes its boot, returns its exit status. The master gets it from the composition root.
ChildMain = Callable[[Boot], int]
