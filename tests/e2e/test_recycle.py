"""Recycling: workers that are worn are replaced, one at a time, and never before what replaces them serves."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bench.soak_run import ROOT, Load
from tests.e2e.conftest import Start
from tests.e2e.service import Service, control, eventually, get

APP = ("--app-dir", str(ROOT / "tests" / "bench"), "--no-access-log")
CONFIG = "control: {socket: control.sock}\n"


def states(service: Service) -> list[str]:
    return [worker["state"] for worker in control(service.directory / "control.sock", "status")["workers"]]


def replaced_in_order(service: Service) -> int:
    """How many workers drained; each of them once more of its number had been ready than had drained before it."""
    more: dict[str, int] = {}
    drained = 0
    for line in str(service.log).splitlines():
        if match := re.search(r"worker (\d+) gen 1 is ready", line):
            more[match[1]] = more.get(match[1], 0) + 1
        elif match := re.search(r"worker (\d+) gen 1\] draining", line):
            more[match[1]] -= 1
            drained += 1
            assert more[match[1]] >= 1, f"nobody has taken the place of worker {match[1]}:\n{service.log}"
    return drained


def test_workers_are_recycled_by_requests_and_no_request_fails(start: Start) -> None:
    limits = ("--set", "workers.max_requests=100", "--set", "workers.max_requests_jitter=20")
    service = start("-w", "2", *APP, *limits, config=CONFIG, app="soak_app:app", env={"SOAK_SLEEP": "0.1"}).ready()
    seen: list[list[str]] = []
    with Load(f"127.0.0.1:{service.port}", "--rate", "100") as load:

        def enough() -> bool:
            seen.append(states(service))
            return len(service.log.find(r"worker \d gen 1\] draining")) >= 4

        assert eventually(enough)
    assert not load.seen.failures, load.seen.complaints()
    assert min(one.count("serving") for one in seen) >= 2
    assert max(one.count("serving") + one.count("booting") for one in seen) <= 3
    assert replaced_in_order(service) >= 4
    served = [int(match[1]) for _, match in service.log.find(r"it has served (\d+) requests")]
    assert min(served) >= 100


def test_a_worker_is_recycled_by_its_age(start: Start) -> None:
    service = start("--set", "workers.max_lifetime=1s").ready()
    first = get(service, "/who")["pid"]
    service.log.wait("worker 1 gen 1 is to be replaced: it has lived for")
    assert eventually(lambda: get(service, "/who")["pid"] != first)
    assert eventually(lambda: len(service.workers()) == 1)
    assert eventually(lambda: replaced_in_order(service) >= 1)  # its last lines may still be on their way


def test_all_workers_are_recycled_when_somebody_asks(start: Start, tmp_path: Path) -> None:
    service = start("-w", "2", config=CONFIG).ready()
    before = set(service.workers())
    control(tmp_path / "control.sock", "recycle")
    assert eventually(lambda: len(service.workers()) == 2 and not before & set(service.workers()))
    assert eventually(lambda: replaced_in_order(service) == 2)
