"""Boards of services that do not exist, for the admin room's tests: workers that have counted this and that."""

from __future__ import annotations

from asgiri.metrics.catalogue import bucket, metric
from asgiri.supervisor.scoreboard import Scoreboard, Slot, State

SECOND = 10**9


class Fake:
    """A service with ``count`` workers that serve, at a time that only moves when it is told to."""

    def __init__(self, count: int = 2, now: int = 10**15) -> None:
        self.now = now
        self.board = Scoreboard(16)
        master = self.board.master
        master.pid, master.wanted, master.reached, master.announced, master.beat_ns = 99, count, count, True, now
        self.workers = [self.fork(number + 1) for number in range(count)]

    def fork(self, number: int, generation: int = 1) -> Slot:
        slot = self.board.take()
        assert slot is not None
        slot.clear(self.now)
        slot.introduce(100 * generation + number, number, generation)
        slot.state = State.SERVING
        return slot

    def clock_ns(self) -> int:
        return self.now

    def wall(self) -> float:
        return self.now / 1e9 + 7e8

    def later(self, seconds: float = 1.0) -> None:
        """Let time go by; all are alive."""
        self.now += int(seconds * SECOND)
        self.board.master.beat_ns = self.now
        for slot in self.board.workers():
            slot._words[5] = self.now


def count(slot: Slot, name: str, *labels: str, by: int = 1) -> None:
    slot.cells[metric(name).word(*labels)] += by


def observe(slot: Slot, name: str, seconds: float, *labels: str, times: int = 1) -> None:
    one = metric(name)
    first = one.word(*labels)
    slot.cells[first + bucket(seconds)] += times
    slot.cells[first + one.width - 1] += round(seconds * 1e6) * times
