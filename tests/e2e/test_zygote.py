"""The zygote with real processes: workers that start warm are workers like any other, and else they start cold."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e.reloading import Project, descriptors, is_warm, project
from tests.e2e.service import eventually, get, processes

__all__ = ["project"]

TELL = "(elsewhere.TOLD, len(elsewhere.RUNS), os.environ.get('SHOP'), sys.path[:1])"


def test_workers_start_with_what_is_not_watched_and_are_the_masters_children(project: Project) -> None:
    developed = project.serve("env: {SHOP: a}\n").ready().warm()
    first = developed.ask()
    assert not is_warm(first)
    second = developed.saved("1")
    assert second["told"] == 1
    assert second["first"] == developed.one("zygote")
    assert second["ppid"] == developed.service.pid
    assert developed.service.workers() == {second["pid"]: "asgiri: worker 1 gen 2 [main:app]"}


def test_fifty_reloads_leave_nothing_open(project: Project) -> None:
    developed = project.serve().ready().warm()
    before = developed.saved("0")
    pids = [developed.service.pid, developed.one("zygote"), developed.one("watcher")]
    open_before = [descriptors(pid) for pid in pids]
    answer = before
    for number in range(1, 51):
        answer = developed.saved(str(number))
        assert answer["told"] == number
        assert is_warm(answer)
    assert [developed.service.pid, developed.one("zygote"), developed.one("watcher")] == pids
    assert eventually(lambda: [descriptors(pid) for pid in pids] == open_before), str(developed.log)
    assert answer["fds"] <= before["fds"] + 1
    assert "WARN" not in str(developed.log)
