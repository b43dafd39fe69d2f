"""Logs as an operator has them: rotated by logrotate, kept by the system, on a disk that is full, read by nobody."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.conftest import APP_DIR, Start
from tests.e2e.service import PATIENCE, ROOT, Service, eventually, get, load

LOGROTATE = shutil.which("logrotate") or "/usr/sbin/logrotate"
PAGE = (ROOT / "docs" / "operations" / "logs.md").read_text("utf-8")

needs_logrotate = pytest.mark.skipif(
    not Path(LOGROTATE).exists() and not os.environ.get("CI"), reason="needs logrotate (Debian: logrotate)"
)


class Unix(http.client.HTTPConnection):
    """A connection to s.sock in the working directory."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect("s.sock")


def status(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    return response.status


def listens() -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex("s.sock") == 0


# Rotation


def snippet(title: str) -> str:
    """The block of logs.md that comes first below a heading."""
    found = re.search(rf"^## {title}$.*?^```\w*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rotate(directory: Path, text: str) -> None:
    """Have logrotate do it now, whatever it thinks of the time."""
    conf = directory / "rotate.conf"
    conf.write_text(text, "ascii")
    conf.chmod(0o644)
    found = subprocess.run(
        [LOGROTATE, "--force", "--state", str(directory / "state"), str(conf)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")


def as_documented(directory: Path) -> str:
    """The configuration of the page, for the files of a test."""
    text = snippet("Rotation").replace("/var/log/asgiri", str(directory)).replace("/run/asgiri/asgiri.pid", "{pid}")
    text = text.replace("{pid}", str(directory / "asgiri.pid"))
    return text.replace("delaycompress", "nodelaycompress").replace("    compress\n", "    nocompress\n")


def workers_in(file: Path) -> set[str]:
    return set(re.findall(r"\[worker (\d+) gen", file.read_text("ascii"))) if file.exists() else set()


@needs_logrotate
def test_logrotate_under_load_loses_no_line(start: Start, tmp_path: Path) -> None:
    access, main = tmp_path / "access.log", tmp_path / "asgiri.log"
    config = f"log: {{file: {main}, access: {{file: {access}}}}}\nprocess: {{pidfile: {tmp_path}/asgiri.pid}}"
    service = start("--bind", "127.0.0.1:0", "--workers", "2", config=config, bind=False)
    assert eventually(lambda: main.exists() and "ready:" in main.read_text("ascii"))
    [port] = re.findall(r"listening on http://127\.0\.0\.1:(\d+)", main.read_text("ascii"))
    service.log._lines.append(f"listening on http://127.0.0.1:{port}")  # where Service looks for it
    with load(service, keep_alive=False) as clients:
        for number in (1, 2):
            assert eventually(lambda: workers_in(access) == {"1", "2"})
            rotate(tmp_path, as_documented(tmp_path))
            assert eventually(lambda: workers_in(access) == {"1", "2"}), f"rotation {number}"
            old = tmp_path / "access.log.1"
            size, served = old.stat().st_size, len(clients[0].served)
            assert eventually(lambda served=served: len(clients[0].served) > served + 20)  # type: ignore[misc]
            assert old.stat().st_size == size  # all of them are in the new one
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert not [client.failures for client in clients if client.failures]
    lines = [line for file in tmp_path.glob("access.log*") for line in file.read_text("ascii").splitlines()]
    assert len(lines) == sum(len(client.served) for client in clients)
    assert all(
        re.fullmatch(r'\S+ \S+ HTTP  \[worker \d gen 1\] \S+ "GET /who HTTP/1.1" 200 .*', line) for line in lines
    )
    mains = "".join(file.read_text("ascii") for file in sorted(tmp_path.glob("asgiri.log*"), reverse=True))
    assert mains.count("log files are reopened") == 2
    assert mains.rstrip().endswith("stopped")
    assert "log files are reopened" in main.read_text("ascii")


@needs_logrotate
def test_copytruncate_leaves_no_hole(start: Start, tmp_path: Path) -> None:
    access = tmp_path / "access.log"
    service = start("--set", f"log.access.file={access}").ready()
    get(service, "/who")
    assert eventually(lambda: access.stat().st_size)
    rotate(tmp_path, f"{access} {{\n  rotate 1\n  copytruncate\n}}\n")
    assert "/who" in (tmp_path / "access.log.1").read_text("ascii")
    assert access.stat().st_size == 0
    get(service, "/who")
    assert eventually(lambda: access.stat().st_size)
    assert re.match(
        r"\d{4}-", access.read_text("ascii")
    )  # and not the NULs of a file that was written to at its old end


# What never stops it


# Programs that run the rest of their arguments, with a stderr of this kind.
BAD_STDERR = {
    "full": ["sh", "-c", 'exec "$@" 2>/dev/full', "sh"],
    "closed": ["sh", "-c", 'exec "$@" 2>&-', "sh"],
    "gone": [
        sys.executable,
        "-c",
        "import os, sys\nr, w = os.pipe()\nos.dup2(w, 2)\nos.execvp(sys.argv[1], sys.argv[1:])",
    ],
    "stuck": [
        sys.executable,
        "-c",
        (
            "import os, sys\nr, w = os.pipe()\nos.set_inheritable(r, True)\nos.dup2(w, 2)\n"
            "os.execvp(sys.argv[1], sys.argv[1:])"
        ),
    ],
}


@pytest.mark.parametrize("kind", BAD_STDERR)
def test_a_stderr_that_takes_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    service = Service(tmp_path, "--bind", "unix:s.sock", "--app-dir", str(APP_DIR), "app:app", prefix=BAD_STDERR[kind])
    try:
        assert eventually(listens)
        with closing(Unix("localhost")) as connection:
            began = time.monotonic()
            for _ in range(60):  # more than a pipe holds
                assert status(connection, f"/who?{'x' * 3500}") == 200
            assert time.monotonic() - began < PATIENCE / 2
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
    finally:
        service.close()


def test_files_on_a_disk_that_is_full(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    full = ("--set", "log.file=/dev/full", "--set", "log.access.file=/dev/full")
    service = start("--bind", "unix:s.sock", *full, bind=False)
    assert eventually(listens)
    with closing(Unix("localhost")) as connection:
        for _ in range(20):
            assert status(connection, "/who") == 200
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_a_directory_that_is_gone_and_comes_back(start: Start, tmp_path: Path) -> None:
    room = tmp_path / "logs"
    room.mkdir()
    service = start("--set", f"log.access.file={room}/access.log").ready()
    shutil.rmtree(room)
    get(service, "/who")
    service.signal(signal.SIGUSR1)
    service.log.wait(r'ERROR \[worker 1 gen 1\] cannot reopen the access log ".*/access\.log": No such file')
    get(service, "/who")
    room.mkdir()
    service.signal(signal.SIGUSR1)
    assert eventually((room / "access.log").exists)
    get(service, "/who")
    assert eventually(lambda: "/who" in (room / "access.log").read_text("ascii"))


# The system's logs


AS_THE_JOURNAL = """
import os, sys
found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
os.execvp(sys.argv[1], sys.argv[1:])
"""

FAILING = """
import logging, logging.config, os
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError
    logging.getLogger("shop").warning("asked for %s", scope["path"])
    raise RuntimeError(os.environ.get("JOURNAL_STREAM"))
"""


def test_in_the_journal_each_line_has_its_priority(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING, "ascii")
    prefix = [sys.executable, "-c", AS_THE_JOURNAL]
    service = Service(tmp_path, "--bind", "127.0.0.1:0", "failing:app", prefix=prefix)
    try:
        service.ready()
        with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)) as connection:
            assert status(connection, "/x") == 500
        service.log.wait(r'^<6>HTTP  \[worker 1 gen 1\] .*"GET /x HTTP/1\.1" 500 ')
        service.log.wait(r"^<3>ERROR \[worker 1 gen 1\] the application failed: RuntimeError \(GET '/x'")
        service.log.wait(r"^<3>Traceback \(most recent call last\):$")
        device = service.log.wait(r"^<3>RuntimeError: (\d+:\d+)$")  # the application sees the same stderr
        assert device[1]
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        asgiris = [line for line in str(service.log).splitlines() if "asked for" not in line]
        assert all(re.match(r"<[0-7]>(?!\d{4}-)", line) for line in asgiris)
    finally:
        service.close()


def test_both_logs_in_a_system_log_that_goes_and_comes(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"/tmp/asgiri-syslog-{os.getpid()}"  # short enough for a socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        daemon.settimeout(PATIENCE)
        config = f"log: {{file: 'syslog:{path}', access: {{file: 'syslog:{path}'}}}}"
        service = start("--bind", "unix:s.sock", config=config, bind=False)
        assert "INFO  [master] asgiri " in until(daemon, r"^<30>\w{3} [ \d]\d \S+ asgiri\[\d+\]: ")
        until(daemon, r"ready: 1 worker")
        with closing(Unix("localhost")) as connection:
            assert status(connection, "/who") == 200
            until(daemon, r'^<30>.* asgiri\[\d+\]: HTTP  \[worker 1 gen 1\] unix "GET /who HTTP/1\.1" 200 ')
            daemon.close()
            os.unlink(path)
            for _ in range(20):
                assert status(connection, "/who") == 200
            service.signal(signal.SIGUSR1)
            service.log.wait(f'asgiri: the system log "syslog:{path}" takes no lines: ')
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as successor:
                successor.bind(path)
                successor.settimeout(PATIENCE)
                assert status(connection, "/who") == 200
                told = [successor.recv(1 << 16).decode()]
                while sum("GET /who" in line for line in told) < 21:  # all that waited, or there is no room for more
                    told.append(successor.recv(1 << 16).decode())
                service.signal(signal.SIGTERM)
                while "[master] stopped" not in told[-1]:
                    told.append(successor.recv(1 << 16).decode())
                assert any(re.search(r"<28>.*the system log has lost \d+ line", line) for line in told)
                assert service.wait() == 0
                os.unlink(path)


def until(daemon: socket.socket, pattern: str) -> str:
    """The first datagram that has the pattern in it."""
    while not re.search(pattern, text := daemon.recv(1 << 16).decode()):
        pass
    return text


# The application's own


@pytest.mark.parametrize("capture", ["true", "false"])
def test_what_the_application_logs(start: Start, tmp_path: Path, capture: str) -> None:
    (tmp_path / "failing.py").write_text(FAILING, "ascii")
    service = start("--set", f"log.capture={capture}", app="failing:app").ready()
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)) as connection:
        assert status(connection, "/x") == 500
    service.log.wait("the application failed")
    if capture == "true":
        line = service.log.wait(r"^\S+ \S+ WARN  \[worker 1 gen 1\] shop: asked for /x \(request (\S+)\)$")
        service.log.wait(rf"HTTP .*/x.* {line[1]}$")
        assert len(service.log.find("asked for")) == 1
    else:
        service.log.wait("^asked for /x$")  # as Python does without a word from anybody


CONFIGURED = FAILING.replace(
    "async def", 'logging.config.dictConfig({"version": 1, "handlers": {"own": {"class": "logging.StreamHandler"}}, '
    '"root": {"handlers": ["own"], "level": "INFO"}})\nasync def', 1
)  # fmt: skip


def test_an_application_that_configures_logging_wins_and_ours_goes_on(start: Start, tmp_path: Path) -> None:
    """dictConfig closes all handlers that there are, and silences all loggers that it does not name."""
    (tmp_path / "failing.py").write_text(CONFIGURED, "ascii")
    service = start("--set", "log.capture=true", "--log-format", "json", app="failing:app").ready()
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)) as connection:
        assert status(connection, "/x") == 500
    service.log.wait("^asked for /x$")
    told = json.loads(service.log.wait(r"^\{.*the application failed.*")[0])
    access = re.search(r"request ([0-9a-f]{8}-\d+-\d+)", told["message"])
    assert access
    assert told["request_id"] == access[1]
    assert (told["logger"], told["worker"], told["generation"]) == ("asgiri.app", 1, 1)
