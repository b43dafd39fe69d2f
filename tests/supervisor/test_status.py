"""What a status tells of the last seconds, and the numbers that a histogram comes down to."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from asgiri.config.keys import keys_of
from asgiri.config.schema import Log
from asgiri.metrics.catalogue import BUCKETS, PROTOCOLS, WORKER_WORDS, bucket, metric
from asgiri.metrics.change import Change, quantile
from asgiri.supervisor.crew import WorkerState
from asgiri.supervisor.recent import WINDOW, Readings
from asgiri.supervisor.scoreboard import STALE_SECONDS, Scoreboard
from asgiri.supervisor.status import Status
from asgiri.supervisor.verbs import LEVELS, Spread


def counted(name: str, *seconds: float, protocol: str = PROTOCOLS[0]) -> list[int]:
    """All words, after these times were counted."""
    words = [0] * WORKER_WORDS
    one = metric(name)
    first = one.word(protocol) if one.labels else one.first
    for value in seconds:
        words[first + bucket(value)] += 1
    return words


@pytest.mark.parametrize(
    ("times", "part", "found"),
    [
        ([], 0.5, None),
        ([0.0002], 0.5, 0.00025),  # within a bucket, evenly
        ([0.0002], 1.0, 0.0005),
        ([0.003] * 90 + [0.2] * 10, 0.9, 0.005),
        ([0.003] * 90 + [0.2] * 10, 0.95, 0.175),
        ([99.0], 0.5, BUCKETS[-1]),  # over the last bound, how far cannot be said
        ([0.0001, 99.0], 0.99, BUCKETS[-1]),
        ([0.0001, 99.0], 0.5, BUCKETS[0]),
    ],
)
def test_quantiles_come_from_the_buckets(times: list[float], part: float, found: float | None) -> None:
    counts = Change([0] * WORKER_WORDS, counted("loop_lag_seconds", *times), 1.0).buckets("loop_lag_seconds")
    assert quantile(counts, part) == pytest.approx(found)


def test_all_protocols_count_and_what_was_before_does_not() -> None:
    name = "request_duration_seconds"
    before = counted(name, 1.0, 1.0)
    words = [sum(pair) for pair in zip(before, counted(name, 0.002), counted(name, 0.002, protocol="h2"), strict=True)]
    assert sum(Change(before, words, 1.0).buckets(name)) == 2
    assert sum(Change(words, before, 1.0).buckets(name)) == 0  # somebody has written over it


def test_only_the_last_seconds_count() -> None:
    readings = Readings()
    readings.add(0.0, [0] * WORKER_WORDS)
    assert readings.recent() is None
    slow = counted("request_duration_seconds", 20.0)
    readings.add(1.0, slow)
    told = readings.recent()
    assert told is not None
    assert told.seconds == 1.0
    assert told.loop_lag is None
    assert told.duration is not None
    assert told.duration.p50 > 10.0
    fast = [sum(pair) for pair in zip(slow, counted("request_duration_seconds", 0.0001), strict=True)]
    for second in range(2, WINDOW + 3):
        readings.add(float(second), fast if second > 5 else slow)
    told = readings.recent()
    assert told is not None
    assert told.seconds == WINDOW
    assert told.duration == Spread(1, 0.00025, 0.00045, 0.000495)


def test_the_levels_are_those_of_the_config() -> None:
    assert keys_of(Log)["level"].words == LEVELS


@pytest.mark.parametrize(
    ("state", "silence", "word"),
    [
        (WorkerState.READY, 0.0, "serving"),
        (WorkerState.READY, STALE_SECONDS + 1, "stuck"),  # as /status and /readyz have it
        (WorkerState.BOOTING, STALE_SECONDS + 1, "booting"),  # it may import for long
    ],
)
def test_a_worker_that_is_silent_is_not_said_to_serve(state: WorkerState, silence: float, word: str) -> None:
    board = Scoreboard()
    slot = board.take()
    assert slot is not None
    worker: Any = SimpleNamespace(id=1, number=1, generation=1, state=state, born=0.0)
    fleet: Any = SimpleNamespace(workers={1: worker})
    child: Any = SimpleNamespace(slot=slot, pid=4711, is_stopped=False)
    told = Status(fleet, {1: child}, board)._worker(worker, time.monotonic() + silence)
    assert told.state == word
