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
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asgiri.ctl.command import command
from asgiri.ctl.talk import talk
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
