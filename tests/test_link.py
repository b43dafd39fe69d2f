"""The link between a master and its child: what the master does with what is no report."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from asgiri.link import LINE_MOST, TRACE_MOST, Booted, BootFailed, ChildEnd, GarbledError, ParentEnd, Report


class Pair:
    """A link, of which the child's end for reports can be written to by anybody, as an application can."""

    def __init__(self) -> None:
        orders_read, orders_write = os.pipe()
        reports_read, self.reports = os.pipe()
        os.set_blocking(self.reports, False)
        self.parent = ParentEnd(orders_write, reports_read)
        self.child = ChildEnd(orders_read, self.reports)

    def write(self, data: bytes) -> None:
        os.write(self.reports, data)

    def close(self) -> None:
        self.parent.close()
        self.child.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_a_report_may_come_in_pieces(pair: Pair) -> None:
    pair.write(b'{"type":"boo')
    assert pair.parent.read() == ([], True)
    pair.write(b'ted"}\n{"type":')
    assert pair.parent.read() == ([Booted()], True)


@pytest.mark.parametrize("garbage", [b"hello\n", b"\xff\xfe\n", b"{}\n", b"[" * 5000 + b"\n", b'{"type":"none"}\n'])
def test_what_is_no_report_is_said_to_be_none(pair: Pair, garbage: bytes) -> None:
    pair.write(garbage)
    with pytest.raises(GarbledError):
        pair.parent.read()


def test_a_child_that_reports_without_end_is_not_read_without_end(pair: Pair) -> None:
    pair.write(b'{"type":"booted"}\n' * 1000)
    with pytest.raises(GarbledError, match="without end"):
        pair.parent.read()


def test_a_line_without_end_does_not_grow_the_master(pair: Pair) -> None:
    piece = b"a" * (1 << 16)
    for _ in range(LINE_MOST // len(piece) - 1):
        pair.write(piece)
        assert pair.parent.read() == ([], True)
    pair.write(piece)
    with pytest.raises(GarbledError, match="without end"):
        pair.parent.read()


def test_of_a_long_traceback_the_end_is_told(pair: Pair) -> None:
    os.set_blocking(pair.reports, True)
    trace = "\N{SNOWMAN}" * (2 * TRACE_MOST) + "the end"
    child = threading.Thread(target=pair.child.report, args=[BootFailed("why", trace)])
    child.start()
    told: list[Report] = []
    while not told:
        told += pair.parent.read()[0]
    child.join()
    assert told == [BootFailed("why", trace[-TRACE_MOST:])]
