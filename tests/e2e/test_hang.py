"""Hangs: a worker whose loop stands still is seen, told of with its stacks, and replaced; a stopped one is not."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, Service, control, eventually, get

HEARTBEAT = 1.0  # seconds
SLACK = 6.0  # seconds for the rest: a worker starts meanwhile, on a machine that may do other things
SETTINGS = ("--no-access-log", "--set", f"workers.heartbeat_timeout={HEARTBEAT}s")
CONFIG = "control: {socket: control.sock}\n"
APP = """
import asyncio
import itertools
import os
import time


async def background():
    await asyncio.sleep(3600)


async def app(scope, receive, send):
    global task
    if scope["type"] == "lifespan":
        task = asyncio.create_task(background(), name="housekeeping")
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task.cancel()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/sleep":
        time.sleep(600)
    if scope["path"] == "/spin":
        while True: pass
    if scope["path"] == "/native":
        max(itertools.repeat(0))
    body = b'{"pid": %d}' % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


def line_of(code: str) -> int:
    return next(number for number, line in enumerate(APP.splitlines(), 1) if code in line)


@pytest.fixture
def asked() -> Iterator[ExitStack]:
    """Connections that wait for their answers until the end."""
    with ExitStack() as stack:
        yield stack


def ask(service: Service, path: str, stack: ExitStack) -> None:
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", service.port), PATIENCE))
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


def begin(start: Start, directory: Path, *args: str) -> Service:
    (directory / "hanging.py").write_text(APP, "utf-8")
    return start(*SETTINGS, *args, config=CONFIG, app="hanging:app").ready()


def status(service: Service) -> list[dict[str, Any]]:
    workers: list[dict[str, Any]] = control(service.directory / "control.sock", "status")["workers"]
    return workers


@pytest.mark.parametrize(
    ("path", "code", "tasks"),
    [
        ("/sleep", "time.sleep(600)", True),
        ("/spin", "while True: pass", True),
        ("/native", "max(itertools.repeat(0))", False),  # the interpreter never gets to run a handler
    ],
)
def test_a_worker_that_hangs_is_replaced_and_its_stacks_are_told(
    start: Start, tmp_path: Path, asked: ExitStack, path: str, code: str, tasks: bool
) -> None:
    service = begin(start, tmp_path)
    [victim] = service.workers()
    began = time.monotonic()
    ask(service, path, asked)
    assert eventually(lambda: len(service.log.find("worker 1 gen 1 is ready")) == 2)
    assert service.log.find("worker 1 gen 1 is ready")[1][0] - began < HEARTBEAT + SLACK
    assert get(service, "/who")["pid"] != victim
    service.log.wait("worker 1 gen 1 hangs: its event loop has not turned for")
    service.log.wait(rf'File ".*hanging.py", line {line_of(code)} in app')
    if tasks:
        service.log.wait(re.escape(code))
        service.log.wait(r'Task "[^"]*" \(.*\) runs')
        service.log.wait(r'Task "housekeeping" \(background\) waits')
    assert eventually(lambda: victim not in service.workers())
    assert len(service.workers()) == 1


def test_a_hang_costs_only_what_the_worker_held(start: Start, tmp_path: Path, asked: ExitStack) -> None:
    service = begin(start, tmp_path, "-w", "2")
    both = set(service.workers())
    ask(service, "/sleep", asked)
    service.log.wait("worker [12] gen 1 hangs")
    for _ in range(20):
        get(service, "/who")
    assert len(both & set(service.workers())) == 1


@pytest.mark.parametrize("who", ["all", "master", "worker"])
def test_what_was_stopped_does_not_hang(start: Start, tmp_path: Path, who: str) -> None:
    """A suspended host, a debugger: time goes on, and nobody could beat."""
    service = begin(start, tmp_path, "-w", "2")
    before = service.workers()
    stopped = {"all": [service.pid, *before], "master": [service.pid], "worker": [min(before)]}[who]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    stop = time.monotonic()
    try:
        assert eventually(lambda: time.monotonic() - stop > 2 * HEARTBEAT)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    went_on = time.monotonic()
    assert eventually(lambda: time.monotonic() - went_on > 1.5 * HEARTBEAT)
    assert eventually(lambda: all(worker["silence"] < HEARTBEAT for worker in status(service)))
    assert service.workers() == before
    assert "hangs" not in str(service.log)
    assert get(service, "/who")["pid"] in before


def test_a_worker_that_is_stuck_in_its_import_is_killed_with_its_stacks_told(start: Start, tmp_path: Path) -> None:
    service = begin(start, tmp_path, "--set", "workers.boot_timeout=1s")
    before = service.workers()
    (tmp_path / "hanging.py").write_text("import time\ntime.sleep(600)\n", "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload failed, generation 1 goes on: it was not ready within 1s")
    service.log.wait(r'File ".*hanging.py", line 2 in <module>')
    service.log.wait(r"time\.sleep\(600\)")
    assert eventually(lambda: service.workers() == before)


def test_a_worker_without_a_descriptor_is_no_hang(start: Start, tmp_path: Path) -> None:
    """What it serves goes on: to end it then would cost the connections that are why it has none."""
    service = start("--workers", "1", *SETTINGS, config=CONFIG).ready()
    [worker] = service.workers()
    _, most = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{worker}/fd")) + 8, most))

    def uptime() -> float:
        return float(control(tmp_path / "control.sock", "status")["uptime"])

    with ExitStack() as held:
        for _ in range(20):
            held.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE))
        service.log.wait("accepting pauses: no file descriptor is left")
        enough = uptime() + 3 * HEARTBEAT  # that it takes a beat, and heartbeat_timeout, to be called hung
        assert eventually(lambda: uptime() > enough)
    service.log.wait("accepting goes on")
    assert list(service.workers()) == [worker]
    assert not re.search("hangs|Traceback", str(service.log)), str(service.log)
