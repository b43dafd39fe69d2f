"""Crashes: whoever dies is told of and replaced, at once or more and more slowly, and takes only its own with it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.bench.soak import Kill, running
from tests.bench.soak_run import ROOT, Load
from tests.e2e.conftest import Start
from tests.e2e.service import Service, control, eventually, get

CONFIG = "control: {socket: control.sock}\n"
# Serves, and ends a moment later: the import, the lifespan and READY are no trouble.
SHORT_LIVED = """
import asyncio
import os


async def app(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    asyncio.get_running_loop().call_later(0.02, os._exit, 7)
    await send({"type": "lifespan.startup.complete"})
    await receive()
"""


def serving(service: Service) -> list[int]:
    workers = control(service.directory / "control.sock", "status")["workers"]
    return [worker["pid"] for worker in workers if worker["state"] == "serving"]


def test_a_death_is_told_in_words(start: Start) -> None:
    service = start("-w", "2").ready()
    for _ in range(4):
        get(service, "/who")
    told = r"worker [12] gen 1 %s at the age of [\d.a-z]+, after \d+ requests?"
    for number in (signal.SIGKILL, signal.SIGSEGV):
        before = service.workers()
        os.kill(min(before), number)
        service.log.wait(told % f"was killed by {number.name}")
        assert eventually(lambda: len(service.workers()) == 2 and min(before) not in service.workers())  # noqa: B023
        assert eventually(lambda: get(service, "/who"))
    service.log.wait(told % "was killed by SIGSEGV")


def test_a_worker_that_exits_by_itself_is_told_with_its_status(start: Start) -> None:
    service = start().ready()
    try:
        get(service, "/exit?status=7")
    except (ConnectionError, AssertionError):
        pass
    service.log.wait(r"worker 1 gen 1 exited with status 7 at the age of [\d.a-z]+, after \d+ request")
    assert get(service, "/who")["worker"] == 1


def test_kills_cost_only_what_was_in_flight(start: Start) -> None:
    chance = random.Random(6)
    kills: list[Kill] = []
    app = ("--app-dir", str(ROOT / "tests" / "bench"), "--no-access-log")
    service = start("-w", "3", *app, config=CONFIG, app="soak_app:app").ready()
    fds = Path(f"/proc/{service.pid}/fd")
    before = len(os.listdir(fds))
    with Load(f"127.0.0.1:{service.port}", "--rate", "90") as load:
        for turn in range(10):
            begin = time.monotonic()
            victim = chance.choice(serving(service))
            os.kill(victim, signal.SIGKILL)
            assert eventually(lambda: not running(victim))  # noqa: B023
            kills.append(Kill(victim, begin, time.monotonic()))
            assert eventually(lambda: len(serving(service)) == 3), turn
            assert eventually(lambda: time.monotonic() > begin + 0.3)  # noqa: B023
    failures = load.seen.failures
    assert [one for one in failures if not any(kill.excuses(one) for kill in kills)] == [], load.seen.complaints()
    assert load.seen.requests() - len(failures) > 200
    assert len(service.log.find("was killed by SIGKILL")) == 10
    assert eventually(lambda: len(os.listdir(fds)) == before)


def test_what_crashes_again_and_again_is_tried_more_and_more_slowly(start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(SHORT_LIVED, "utf-8")
    service = start("--set", "workers.respawn_backoff.first=50ms", app="own:app")
    service.log.wait("backing off for 400ms")
    waits = [match[1] for _, match in service.log.find(r"exited with status 7 .*; backing off for (\w+)")]
    assert waits == ["50ms", "100ms", "200ms", "400ms"]
    forks = [at for at, _ in service.log.find("worker 1 gen 1 is ready")]
    gaps = [later - earlier for earlier, later in pairwise(forks)]
    assert all(gap > wait for gap, wait in zip(gaps, (0.05, 0.1, 0.2), strict=True)), gaps
    assert service.process.poll() is None
    # The cure needs no restart.
    code = (ROOT / "tests" / "bench" / "soak_app.py").read_text("utf-8")
    (tmp_path / "own.py").write_text(code, "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete: generation 2 serves")
    assert list(service.workers().values()) == ["asgiri: worker 1 gen 2 [own:app]"]


@pytest.mark.parametrize("where", ["import", "startup"])
@pytest.mark.parametrize("what", ["KeyboardInterrupt", "GeneratorExit", "BaseException('bare')"])
def test_what_is_no_exception_fails_a_reload_with_its_traceback(
    start: Start, tmp_path: Path, where: str, what: str
) -> None:
    code = tmp_path / "own.py"
    good = (ROOT / "tests" / "e2e" / "app.py").read_text("utf-8")
    code.write_text(good, "utf-8")
    service = start(
        *("--app-dir", str(tmp_path), "--lifespan", "on", "-w", "1", "--set", "log.format=json"),
        app="own:app",
        config=CONFIG,
    ).ready()
    before = service.workers()
    starts = '    scope["state"]["started"] = os.getpid()\n'
    assert starts in good
    raises = {"import": f"{good}\nraise {what}\n", "startup": good.replace(starts, f"    raise {what}\n")}
    code.write_text(raises[where], "utf-8")
    with pytest.raises(AssertionError, match=f"the reload failed: .*own.py.*raise {re.escape(what)[:12]}"):
        control(tmp_path / "control.sock", "reload", wait=True)
    assert eventually(lambda: service.workers() == before)
    service.log.wait(f"raise {re.escape(what[:12])}")
    told = [json.loads(line) for line in str(service.log).splitlines() if f"raise {what[:12]}" in line]
    assert len(told) == 1, "one message that carries the traceback"
    assert "the reload failed, generation 1 goes on" in told[0]["message"]
