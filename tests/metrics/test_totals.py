"""What all workers have counted together: nothing is lost or counted twice when one of them goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from time import perf_counter

from asgiri.metrics.catalogue import metric
from asgiri.metrics.meter import Meter
from asgiri.supervisor.scoreboard import Scoreboard, Slot, State

SENT = metric("sent_bytes").word()
REQUESTS = metric("requests").word("h2", "GET", "2xx")
IN_FLIGHT = metric("requests_in_flight").word()
LIVES = 100  # workers, one after the other
EACH = 20  # requests of one


def fork(main: Callable[[], None]) -> int:
    """A child that ends with the status 0, unless ``main`` fails."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            main()
            status = 0
        finally:
            os._exit(status)
    return pid


def work(slot: Slot, number: int) -> None:
    slot.introduce(os.getpid(), number, 1)
    slot.state = State.SERVING
    meter = Meter(slot.cells)
    meter.gauge("requests_in_flight", 7)
    for sent in range(1, EACH + 1):
        meter.http2.ended("GET", 200, perf_counter())
        meter.reached("sent_bytes", sent)
        meter.flush()
    if number % 3 == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def watch(board: Scoreboard) -> None:
    """Look until the master drains: no count may fall."""
    last = (0, 0)
    looks = 0
    while not board.master.draining:
        totals = board.totals()
        now = (totals[REQUESTS], totals[SENT])
        assert now >= last, (last, now)
        assert now[1] >= last[1], (last, now)
        assert max(now) <= LIVES * EACH, now
        last = now
        looks += 1
    assert looks > LIVES


def test_no_count_falls_while_workers_come_crash_and_go() -> None:
    """One process reads all the time; the seqlock is what keeps it from seeing a move half done."""
    board = Scoreboard(slots=4)
    reader = fork(lambda: watch(board))
    running: list[tuple[int, Slot]] = []
    for number in range(1, LIVES + 1):
        slot = board.take()
        assert slot is not None
        running.append((fork(lambda: work(slot, number)), slot))  # noqa: B023 - it is forked at once
        if len(running) == 3:
            pid, done = running.pop(0)
            os.waitpid(pid, 0)
            board.give_back(done)
    for pid, done in running:
        os.waitpid(pid, 0)
        board.give_back(done)
    time.sleep(0)  # the reader's turn, on one core
    totals = board.totals()
    board.master.draining = True
    assert os.waitpid(reader, 0)[1] == 0, "the reader has seen a count fall: see its traceback"
    assert totals[REQUESTS] == totals[SENT] == LIVES * EACH
    assert totals[IN_FLIGHT] == 0, "gauges are of those that live"


def test_a_worker_that_never_introduced_itself_has_counted_nothing() -> None:
    board = Scoreboard(slots=1)
    slot = board.take()
    assert slot is not None
    slot.cells[SENT] = 5
    assert board.totals()[SENT] == 0
    board.give_back(slot)
    assert board.totals()[SENT] == 0
