"""The last minutes of a service, a point for each second: sampled whether somebody looks or not.

The points lie in shared memory that the master has mapped, in a row for each second of the clock of the beats: the
admin child that replaces another one, at a reload, has them too, and while there are two both write the same. Like all
that is shared it may have been written over by an application: any number is taken, and none of it is trusted.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct, structs

from asgiri.metrics.catalogue import MASTER, STATUSES, metric
from asgiri.metrics.change import Change
from asgiri.supervisor.scoreboard import HISTORY_NUMBERS, HISTORY_SECONDS, Scoreboard, State

# How far back "now" goes: rates and percentiles are of so many seconds.
WINDOW_SECONDS: Final = 10

# Ends of workers that nobody has asked for.
FAILURES: Final = ("crashed", "hung", "boot")


class Point(Struct, frozen=True):
    """What one second was like. ``second`` is of the clock of the beats, ``at`` in seconds since 1970.

    ``requests_*`` are requests a second by status class, ``received`` and ``sent`` bytes a second, times are seconds
    (None: there was nothing to time), ``memory`` is bytes, ``failures`` are all ends of workers until then that nobody
    has asked for. The rest is how many there were.
    """

    second: int
    at: float
    requests_1xx: float | None
    requests_2xx: float | None
    requests_3xx: float | None
    requests_4xx: float | None
    requests_5xx: float | None
    requests_left: float | None
    refused: float | None
    duration_p50: float | None
    duration_p90: float | None
    duration_p99: float | None
    first_byte_p50: float | None
    first_byte_p90: float | None
    first_byte_p99: float | None
    loop_lag_p50: float | None
    loop_lag_p90: float | None
    loop_lag_p99: float | None
    received: float | None
    sent: float | None
    connections: float | None
    in_flight: float | None
    serving: float | None
    memory: float | None
    failures: float | None


_FIELDS: Final = len(Point.__struct_fields__)
assert _FIELDS <= HISTORY_NUMBERS


class Sample(Struct, frozen=True):
    """A look at the board. ``served`` is what each worker, by number and pid, has served."""

    ns: int
    totals: list[int]
    served: dict[tuple[int, int], int]


class History:
    """Looks at a board each second; :meth:`points` are those there are, the oldest first."""

    def __init__(
        self,
        board: Scoreboard,
        clock_ns: Callable[[], int] = Scoreboard.now_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._board = board
        self._clock_ns = clock_ns
        self._wall = wall
        self._samples: deque[Sample] = deque(maxlen=WINDOW_SECONDS + 1)

    def sample(self) -> None:
        """Look, and keep what has come since the last look; the first one keeps nothing."""
        last = self._samples[-1] if self._samples else None
        sample = self.look()
        if last is not None and sample.ns - last.ns < 5e8:  # one that came late: it is of the same second
            return
        self._samples.append(sample)
        if last is not None:
            self._keep(point(self._board, Change(last.totals, sample.totals, (sample.ns - last.ns) / 1e9), self._now()))

    def look(self) -> Sample:
        served = {(slot.number, slot.pid): slot.served for slot in self._board.workers()}
        return Sample(self._clock_ns(), self._board.totals(), served)

    def lately(self) -> tuple[Sample, Sample]:
        """The looks that rates are made of: the one of :data:`WINDOW_SECONDS` ago or the first, and the last one."""
        if not self._samples:
            self._samples.append(self.look())
        return self._samples[0], self._samples[-1]

    def points(self, after: int = 0) -> list[Point]:
        """Those that there are, of seconds later than ``after``."""
        now = self._clock_ns() // 10**9
        words = self._board.history
        rows = [[*map(float, words[start : start + _FIELDS])] for start in range(0, len(words), HISTORY_NUMBERS)]
        found = [read(row) for row in rows if max(after, now - HISTORY_SECONDS) < row[0] <= now]
        return sorted(found, key=lambda one: one.second)

    def _now(self) -> tuple[int, float]:
        return self._clock_ns() // 10**9, self._wall()

    def _keep(self, one: Point) -> None:
        start = one.second % HISTORY_SECONDS * HISTORY_NUMBERS
        for index, value in enumerate(structs.astuple(one)):
            self._board.history[start + index] = math.nan if value is None else value


def read(row: list[float]) -> Point:
    """The point of a row, whose first number is one."""
    numbers: list[float | None] = [value if math.isfinite(value) else None for value in row]
    return Point(int(row[0]), numbers[1] or 0.0, *numbers[2:])


def point(board: Scoreboard, change: Change, now: tuple[int, float]) -> Point:
    """What has come since the last look, and what there is now."""
    workers = board.workers()
    second, at = now
    numbers: list[float | None] = [
        *(change.rate("requests", status=status) for status in STATUSES),
        change.rate("requests_refused"),
        *structs.astuple(change.quantiles("request_duration_seconds")),
        *structs.astuple(change.quantiles("request_first_byte_seconds")),
        *structs.astuple(change.quantiles("loop_lag_seconds")),
        change.rate("received_bytes"),
        change.rate("sent_bytes"),
        sum(slot.connections for slot in workers),
        sum(slot.requests for slot in workers),
        sum(slot.state is State.SERVING for slot in workers),
        sum(slot.memory for slot in workers),
        failures(board.master.cells),
    ]
    return Point(second, at, *numbers)


def failures(cells: list[int]) -> int:
    """How many workers have ended that nobody had asked to."""
    exits = metric("worker_exits")
    assert exits in MASTER
    return sum(cells[exits.word(reason)] for reason in FAILURES)
