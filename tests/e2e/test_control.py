"""asgirictl, with a real master."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asgiri.ctl.command import command
from asgiri.ctl.talk import talk
from tests.ctl.test_top import top
from tests.e2e.conftest import Start
from tests.e2e.service import ROOT, Service, eventually, get


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose name is short enough for sockets, as the runtime directory of a user."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


def asgirictl(service: Service, place: Path, *args: str) -> Result:
    return CliRunner().invoke(command, ["--socket", str(place / f"asgiri/{service.pid}.sock"), *args])


def begin(start: Start, place: Path, *args: str, **more: str) -> Service:
    return start(*args, env={"XDG_RUNTIME_DIR": str(place)}, **more).ready()


def test_a_service_says_how_it_is_and_does_what_it_is_told(start: Start, place: Path) -> None:
    service = begin(start, place)
    found = CliRunner(env={"XDG_RUNTIME_DIR": str(place), "RUNTIME_DIRECTORY": ""}).invoke(command, ["status"])
    assert f"pid {service.pid}" in found.output  # alone, or among those that run here

    assert eventually(lambda: json.loads(asgirictl(service, place, "--json", "status").stdout)["workers"][0]["memory"])
    get(service, "/who")
    status = json.loads(asgirictl(service, place, "--json", "status").stdout)
    assert (status["state"], status["generation"], status["count"]) == ("running", 1, 1)
    assert status["listeners"] == [service.url]
    [worker] = status["workers"]
    assert (worker["pid"], worker["state"]) == (get(service, "/who")["pid"], "serving")

    assert asgirictl(service, place, "scale", "2").exit_code == 0
    service.log.wait("worker 2 gen 1 is ready")

    before = set(service.workers())
    assert asgirictl(service, place, "recycle").exit_code == 0
    assert eventually(lambda: len(service.workers()) == 2 and not before & set(service.workers()))

    assert asgirictl(service, place, "drain").exit_code == 0
    assert json.loads(asgirictl(service, place, "--json", "status").stdout)["draining"] is True
    get(service, "/who")
    assert asgirictl(service, place, "drain", "--off").exit_code == 0
    assert json.loads(asgirictl(service, place, "--json", "status").stdout)["draining"] is False

    assert asgirictl(service, place, "stop").exit_code == 0
    assert service.wait() == 0
    assert os.listdir(place / "asgiri") == []


def test_a_reload_that_is_waited_for(start: Start, place: Path) -> None:
    app = place / "shop.py"
    good = Path(ROOT, "tests/e2e/app.py").read_text("utf-8")
    app.write_text(good, "utf-8")
    service = begin(start, place, "--app-dir", str(place), app="shop:app")
    config = service.directory / "asgiri.yaml"

    done = asgirictl(service, place, "reload", "--wait")
    assert (done.exit_code, done.stdout) == (0, "reloaded: generation 2 serves\n")
    assert get(service, "/who")["generation"] == 2  # and is the only one: it was complete

    app.write_text("raise RuntimeError('not today')\n", "utf-8")
    failed = asgirictl(service, place, "reload", "--wait")
    assert failed.exit_code == 1
    assert "the reload failed" in failed.stderr
    assert "RuntimeError: not today" in failed.stderr
    assert f'File "{app}", line 1' in failed.stderr
    app.write_text(good, "utf-8")

    config.write_text("worker: {}\n", "utf-8")
    refused = asgirictl(service, place, "reload", "--wait")
    assert refused.exit_code == 1
    assert 'unknown key "worker"' in refused.stderr
    config.write_text("", "utf-8")
    assert get(service, "/who")["generation"] == 2


FAILING = """
import asyncio
import gc
import os

frozen = gc.get_freeze_count()

def look():
    if gc.get_freeze_count() > frozen:  # the worker's last step before it says that it is ready
        os._exit(3)
    asyncio.get_running_loop().call_soon(look)

async def app(scope, receive, send):
    await receive()
    look()
    await send({"type": "lifespan.startup.complete"})
    await receive()
"""


def test_a_reload_that_has_to_wait_is_answered_by_its_own_generation(start: Start, place: Path) -> None:
    """And not by that of a worker which is replaced meanwhile."""
    app = place / "shop.py"
    good = Path(ROOT, "tests/e2e/app.py").read_text("utf-8")
    app.write_text(good, "utf-8")
    service = begin(start, place, "--app-dir", str(place), app="shop:app")
    gate = place / "gate"
    os.mkfifo(gate)
    waits = f"with open({str(gate)!r}) as gate:\n    gate.read()\n"
    app.write_text(f"{good}\n{waits}", "utf-8")  # it is imported once somebody writes there
    assert asgirictl(service, place, "reload").exit_code == 0
    assert eventually(lambda: any("gen 2" in title for title in service.workers().values()))
    call = [
        sys.executable,
        "-m",
        "asgiri.ctl",
        "--socket",
        str(place / f"asgiri/{service.pid}.sock"),
        "reload",
        "--wait",
    ]
    with subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, text=True) as waiting:
        service.log.wait("the reload is kept until")
        app.write_text(good, "utf-8")
        [old] = [pid for pid, title in service.workers().items() if "gen 1" in title]
        mark = len(service.log)
        os.kill(old, signal.SIGKILL)
        service.log.wait(r"gen 1 is ready", mark)
        gate.write_text("go", "utf-8")
        out, _ = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (0, "reloaded: generation 3 serves\n")


def test_a_reload_to_code_that_is_ready_and_dies_has_an_end(start: Start, place: Path) -> None:
    app = place / "shop.py"
    good = Path(ROOT, "tests/e2e/app.py").read_text("utf-8")
    app.write_text(good, "utf-8")
    settings = ("--set", "workers.respawn_backoff.first=10ms", "--set", "workers.respawn_backoff.most=50ms")
    service = begin(start, place, "--app-dir", str(place), "-w", "2", *settings, app="shop:app")
    app.write_text(FAILING, "utf-8")
    failed = asgirictl(service, place, "reload", "--wait")
    assert failed.exit_code == 1
    assert "generation 2 does not stay up, 3 of its workers in a row have failed; the last one: " in failed.stderr
    assert "exited with status 3" in failed.stderr
    status = json.loads(asgirictl(service, place, "--json", "status").stdout)
    assert any("in a row; the last one: worker" in sentence for sentence in status["wrong"])

    recycled = asgirictl(service, place, "--json", "recycle", "--wait")
    assert recycled.exit_code == 1
    assert "does not stay up" in json.loads(recycled.stdout)["error"]

    app.write_text(good, "utf-8")  # another reload is the cure, and is waited for
    cured = asgirictl(service, place, "reload", "--wait")
    assert (cured.exit_code, cured.stdout) == (0, "reloaded: generation 3 serves\n"), cured.stderr
    assert json.loads(asgirictl(service, place, "--json", "status").stdout)["wrong"] == []


def test_what_is_waited_for_may_have_a_limit(start: Start, place: Path) -> None:
    app = place / "shop.py"
    app.write_text(Path(ROOT, "tests/e2e/app.py").read_text("utf-8"), "utf-8")
    service = begin(start, place, "--app-dir", str(place), app="shop:app")
    before = set(service.workers())
    assert asgirictl(service, place, "recycle", "--wait").stdout == "recycled: 1 worker replaced\n"
    assert not before & set(service.workers())

    app.write_text("import time\ntime.sleep(60)\n", "utf-8")
    limited = asgirictl(service, place, "--json", "reload", "--wait", "--timeout", "300ms")
    assert limited.exit_code == 1
    assert "not complete after 300ms; it goes on" in json.loads(limited.stdout)["error"]
    status = json.loads(asgirictl(service, place, "--json", "status").stdout)
    assert "a reload is under way" in status["wrong"]


def test_a_stop_ends_the_wait_for_a_reload(start: Start, place: Path) -> None:
    app = place / "shop.py"
    app.write_text(Path(ROOT, "tests/e2e/app.py").read_text("utf-8"), "utf-8")
    service = begin(start, place, "--app-dir", str(place), app="shop:app")
    app.write_text("import time\ntime.sleep(60)\n", "utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "asgiri.ctl", "--socket", f"{place}/asgiri/{service.pid}.sock", "reload", "--wait"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        service.log.wait("asgirictl: reloading")
        service.signal(signal.SIGTERM)
        _, error = waiting.communicate(timeout=20)
    assert waiting.returncode == 1
    assert "stop" in error
    assert len(error.splitlines()) == 1
    assert service.wait() == 0


def test_a_socket_that_the_config_names(start: Start, place: Path) -> None:
    path = place / "control.sock"
    config = f"control: {{socket: {path}}}\n"
    service = start(config=config).ready()
    assert talk(str(path), {"verb": "status"}, 10.0)["pid"] == service.pid
    other = start(config=config)
    assert other.wait() == 4
    other.log.wait(f"cannot bind the control socket {path}: a live server listens there, pid {service.pid}")
    assert talk(str(path), {"verb": "status"}, 10.0)["pid"] == service.pid
    service.process.kill()
    service.wait()
    assert path.exists()
    third = start(config=config).ready()
    assert talk(str(path), {"verb": "status"}, 10.0)["pid"] == third.pid


def test_workers_do_not_hold_the_control_socket(start: Start, place: Path) -> None:
    service = begin(start, place)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(f"{place}/asgiri/{service.pid}.sock")
        client.sendall(b'{"verb": "scale", "count": 2}\n')
        assert client.recv(1000)
        assert eventually(lambda: len(service.workers()) == 2)  # one was forked while the client was there
        service.process.kill()
        service.wait()
        assert client.recv(1000) == b""  # nobody else has its other end


def test_an_upgrade_takes_the_named_socket_over(start: Start, place: Path) -> None:
    path = place / "control.sock"
    service = start(config=f"control: {{socket: {path}}}\n").ready()
    service.signal(signal.SIGUSR2)
    new = int(service.log.wait(r"the new master serves \(pid (\d+)\)")[1])
    assert service.wait() == 0
    assert talk(str(path), {"verb": "status"}, 10.0)["pid"] == new
    assert talk(str(path), {"verb": "stop"}, 10.0) == {}
    assert eventually(lambda: not path.exists())


def test_after_an_upgrade_there_is_one_to_be_found(start: Start, place: Path) -> None:
    service = begin(start, place)
    service.signal(signal.SIGUSR2)
    new = int(service.log.wait(r"the new master serves \(pid (\d+)\)")[1])
    assert eventually(lambda: os.listdir(place / "asgiri") == [f"{new}.sock"])
    assert service.wait() == 0
    assert talk(f"{place}/asgiri/{new}.sock", {"verb": "status"}, 10.0)["pid"] == new


STUCK = """
import asyncio
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
    if scope["path"] == "/native":
        max(iter(int, 1))
    if scope["path"] == "/reset":
        import signal
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})
"""


def test_stacks_are_told_and_nobody_is_stopped_for_it(start: Start, place: Path) -> None:
    (place / "shop.py").write_text(STUCK, "utf-8")
    service = begin(start, place, "--app-dir", str(place), "-w", "2", app="shop:app")
    before = service.workers()
    told = json.loads(asgirictl(service, place, "--json", "stacks").stdout)["workers"]
    assert [(one["number"], one["generation"]) for one in told] == [(1, 1), (2, 1)]
    assert {one["pid"] for one in told} == set(before)
    for one in told:
        assert "(most recent call first)" in one["stacks"]
        assert 'Task "housekeeping" (background) waits:' in one["stacks"]
        assert "\0" not in one["stacks"]
    text = asgirictl(service, place, "stacks", "2").stdout
    assert text.startswith(f"worker 2 gen 1 (pid {told[1]['pid']})\n\n")
    assert "worker 1" not in text
    wrong = asgirictl(service, place, "stacks", "7")
    assert (wrong.exit_code, wrong.stderr) == (1, "asgirictl: there is no worker 7; there are 1, 2\n")
    assert service.workers() == before

    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"GET /native HTTP/1.1\r\nHost: a\r\n\r\n")
        line = f'shop.py", line {1 + STUCK.splitlines().index("        max(iter(int, 1))")} in app'

        def blocked() -> bool:
            workers = json.loads(asgirictl(service, place, "--json", "stacks").stdout)["workers"]
            found = [one["stacks"] for one in workers if line in one["stacks"]]
            return any("(no asyncio tasks: its main thread has not been back in Python for 1s)" in one for one in found)

        assert eventually(blocked)
        get(service, "/")  # the other one serves, and the master goes on
        assert service.workers() == before
    for pid in before:  # one of them hears no TERM
        os.kill(pid, signal.SIGKILL)


def test_many_at_once_and_garbage_between_them(start: Start, place: Path) -> None:
    """Who asks for stacks at the same time gets them whole, and who talks nonsense holds nobody up."""
    service = begin(start, place, "-w", "2")
    path = f"{place}/asgiri/{service.pid}.sock"
    before = service.workers()
    with ExitStack() as kept:

        def say(data: bytes) -> socket.socket:
            client = kept.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(10)
            client.connect(path)
            client.sendall(data)
            return client

        for garbage in (
            b"\x00\xff" * 3000,
            b"[" * 65_000,
            b'{"verb": "stat',
            b"\n" * 5000,
            b'{"verb": "stacks"}\n' * 50,
        ):
            say(garbage)  # and none of them reads
        asking = [say(b'{"verb": "stacks"}\n') for _ in range(12)]
        for client in asking:
            answer = json.loads(client.makefile("rb").readline())
            assert answer["ok"] is True
            assert [one["number"] for one in answer["result"]["workers"]] == [1, 2]
            for one in answer["result"]["workers"]:
                assert one["stacks"].count("asyncio tasks: ") == 1, one["stacks"]
                assert "Worker.serve" in one["stacks"]
        client = say(b'{"verb": "stacks", "worker": -1}\n')
        assert "there is no worker -1; there are 1, 2" in json.loads(client.makefile("rb").readline())["error"]
    assert talk(path, {"verb": "status"}, 10.0)["pid"] == service.pid
    assert service.workers() == before


def test_who_would_end_by_it_is_not_asked_and_who_is_stopped_is_told_so(start: Start, place: Path) -> None:
    (place / "shop.py").write_text(STUCK, "utf-8")
    service = begin(start, place, "--app-dir", str(place), app="shop:app")
    [pid] = service.workers()
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "it is stopped, by a signal or a debugger" in asgirictl(service, place, "stacks").stdout
    finally:
        os.kill(pid, signal.SIGCONT)
    get(service, "/reset")
    assert "SIGUSR2 would end it" in asgirictl(service, place, "stacks").stdout
    assert list(service.workers()) == [pid]


def test_a_log_level_is_for_all_and_ends_with_a_reload_that_brings_another(start: Start, place: Path) -> None:
    config = "log: {level: warning}\n"
    (place / "shop.py").write_text(STUCK, "utf-8")
    service = start("--app-dir", str(place), app="shop:app", env={"XDG_RUNTIME_DIR": str(place)}, config=config)
    path = place / f"asgiri/{service.pid}.sock"
    assert eventually(path.exists)
    # One that boots is not recycled.
    assert eventually(lambda: " serving " in asgirictl(service, place, "status").stdout)

    bad = asgirictl(service, place, "loglevel", "verbos")
    assert (bad.exit_code, bad.stdout) == (1, "")
    assert 'unknown level "verbos"; there are debug, info, warning, error, critical' in bad.stderr
    assert asgirictl(service, place, "loglevel").stdout == "log level warning\n"
    told = asgirictl(service, place, "loglevel", "INFO").stdout
    assert told == "log level info; that of the config is warning\n"

    asgirictl(service, place, "recycle", "--wait")
    service.log.wait(r"\[worker 1 gen 1\] draining")  # of who was there; and below of who has come since
    asgirictl(service, place, "reload", "--wait")
    assert eventually(lambda: len(service.log.find(r"\[worker 1 gen 1\] draining")) == 2)
    assert json.loads(asgirictl(service, place, "--json", "status").stdout)["log_level"] == "info"

    (service.directory / "asgiri.yaml").write_text("log: {level: error}\n", "utf-8")
    asgirictl(service, place, "reload", "--wait")
    told = asgirictl(service, place, "--json", "loglevel").stdout
    assert json.loads(told) == {"level": "error", "configured": "error"}
    mark = len(service.log)
    asgirictl(service, place, "reopen")
    asgirictl(service, place, "recycle", "--wait")
    assert service.log.since(mark) == ""
    asgirictl(service, place, "loglevel", "info")
    asgirictl(service, place, "reopen")
    service.log.wait("asgirictl: log files are reopened")
    assert json.loads(asgirictl(service, place, "--json", "loglevel", "--reset").stdout)["level"] == "error"


def test_top_follows_a_master_that_is_upgraded(start: Start, place: Path) -> None:
    """To the socket of its heir, which has another name."""
    service = begin(start, place)
    with top(place / f"asgiri/{service.pid}.sock") as shown:
        shown.wait("1 of 1 worker serving")
        service.signal(signal.SIGUSR2)
        new = int(service.log.wait(r"the new master serves \(pid (\d+)\)")[1])
        shown.wait(f"another master serves: pid {new}")
        shown.next(f"pid {new}")
        shown.press(b"q")
        assert shown.end() == 0
        assert shown.is_as_before
