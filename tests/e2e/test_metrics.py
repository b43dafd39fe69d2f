"""What a real service has counted, read out of the memory that its processes share."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from asgiri.metrics.catalogue import Metric, metric
from asgiri.supervisor.scoreboard import Scoreboard
from tests.e2e.service import PATIENCE, get

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Start
    from tests.e2e.service import Service

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is read by /proc")


def board_of(service: Service) -> Scoreboard:
    """A copy of the service's board as it is now."""
    board = Scoreboard()
    size = len(board._memory)
    with open(f"/proc/{service.pid}/maps") as maps, open(f"/proc/{service.pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            first, _, last = line.split(maxsplit=1)[0].partition("-")
            begin = int(first, 16)
            if "/dev/zero" in line and int(last, 16) - begin == -(-size // 4096) * 4096:
                board._memory[:] = os.pread(memory.fileno(), size, begin)
                return board
    raise AssertionError("the board is not in the master's memory")


def counts(service: Service, *names: str) -> dict[str, int]:
    """Their series that are not 0."""
    board = board_of(service)
    totals, own = board.totals(), board.master.cells
    found: dict[str, int] = {}
    for one in map(metric, names):
        words = own if is_masters(one) else totals
        found |= {f"{one.name} {' '.join(labels)}".strip(): words[one.word(*labels)] for labels in one.series}
    return {name: number for name, number in found.items() if number}


def is_masters(one: Metric) -> bool:
    return one.name in ("worker_exits", "reloads")


def wait_for(service: Service, names: tuple[str, ...], right: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    deadline = time.monotonic() + PATIENCE
    while not right(found := counts(service, *names)):
        assert time.monotonic() < deadline, f"{found}\n{service.log}"
        time.sleep(0.02)
    return found


def test_what_workers_have_counted_outlives_them(start: Start) -> None:
    service = start("--workers", "2", "--no-access-log").ready()
    for _ in range(10):
        assert get(service, "/who")
    names = ("requests", "request_duration_seconds")
    wait_for(service, names, lambda found: found.get("requests http/1.1 GET 2xx") == 10)
    # Lag is sampled all the time, and the gauges are those of the living.
    assert wait_for(service, ("loop_lag_seconds", "sent_bytes"), lambda found: len(found) >= 2)
    mark = len(service.log)
    os.kill(next(iter(service.workers())), signal.SIGKILL)
    ends = ("worker_exits", "reloads")
    wait_for(service, ends, lambda found: found == {"worker_exits crashed": 1})
    service.log.wait(r"ready \(pid \d+\)", since=mark)
    service.signal(signal.SIGHUP)
    wait_for(service, ends, lambda found: found.get("worker_exits reload") == 2)
    assert counts(service, *ends) == {"worker_exits crashed": 1, "worker_exits reload": 2, "reloads done": 1}
    assert counts(service, "requests") == {"requests http/1.1 GET 2xx": 10}
    service.log.wait("the reload is complete")
    (service.directory / "asgiri.yaml").write_text("nonsense: 1\n", "utf-8")
    service.signal(signal.SIGHUP)
    wait_for(service, ends, lambda found: found.get("reloads failed") == 1)


def test_without_metrics_nothing_is_counted(start: Start) -> None:
    service = start("--set", "metrics.enabled=false").ready()
    assert get(service, "/who")
    os.kill(next(iter(service.workers())), signal.SIGTERM)  # at its end, a worker has told all that it will
    wait_for(service, ("worker_exits",), lambda found: found == {"worker_exits crashed": 1})
    assert counts(service, "requests", "loop_lag_seconds", "sent_bytes") == {}
