"""What a master and one of its workers say to each other, over two pipes: orders down, reports up.

The pipes are also the tie between the two lives: a worker that reads end of file has lost its master, a master that
reads end of file has a worker that is about to exit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

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

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def _sendable(text: str) -> str:
    """``text`` with its lone surrogates, which UTF-8 cannot carry, shown as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class ParentEnd:
    """The master's end of a link."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders = orders
        self._reports = reports
        self._buffer = b""
        os.set_blocking(orders, False)
        os.set_blocking(reports, False)

    def fileno(self) -> int:
        return self._reports

    def send(self, order: Order) -> None:
        """Give an order. A worker that is gone, or reads nothing, is for the deadlines to deal with."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._orders, order.value)

    def read(self) -> tuple[list[Report], bool]:
        """The reports that have come, and whether more may."""
        more = True
        try:
            while chunk := os.read(self._reports, 1 << 16):
                self._buffer += chunk
            more = False
        except BlockingIOError:
            pass
        *lines, self._buffer = self._buffer.split(b"\n")
        return [_decoder.decode(line) for line in lines], more

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
            report = BootFailed(_sendable(report.message), _sendable(report.trace))
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


@dataclass(frozen=True, slots=True)
class Boot:
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
