"""What a developer sees: the banner, the lines of the log, Ctrl-C; and that nothing of it is there without reload."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, eventually, get
from tests.e2e.terminal import on_terminal


@pytest.mark.parametrize("enabled", [False, True])
def test_it_is_there_under_reload_only(start: Start, enabled: bool) -> None:
    # reload.browser alone, and folders to watch, turn nothing on.
    reload = f"{{enabled: {str(enabled).lower()}, browser: true, dirs: [.], warm: false}}"
    service = start(config=f"reload: {reload}\n").ready()
    offers = get(service, "/offers")
    found = {name for name in offers["modules"] if name.startswith(("asgiri.dev", "asgiri.worker.dev", "watchfiles"))}
    assert ("asgiri.dev.app" in found) is enabled, found
    assert bool(found) is enabled, found
    assert ("http.response.debug" in offers["extensions"]) is enabled
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    connection.request("GET", "/.asgiri/reload.js")
    answer = connection.getresponse()
    kind = answer.getheader("content-type")
    connection.close()
    assert (kind == "text/javascript; charset=utf-8") is enabled  # without, it is the application's to answer


APP = """
import asyncio

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/waits":
        print("it waits", flush=True)
        await asyncio.Event().wait()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<body>%s"})
"""
WATCHED = "app: main:app\nlifespan: off\nlog: {access: {enabled: false}}\nreload: {enabled: true, warm: false"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP % "one")
    return tmp_path


def messages(text: str) -> list[str]:
    """What the lines of a log say, without their heads; tracebacks and banners are no lines of it."""
    return [line.partition("] ")[2] for line in text.splitlines() if "[" in line and line[:4].isdecimal()]


def test_a_save_is_two_lines(start: Start, project: Path) -> None:
    service = start(app=None, config=WATCHED + "}\n").ready()
    assert messages(str(service.log)) == []  # the banner says it all
    mark = len(service.log)
    (project / "main.py").write_text(APP % "two")
    service.log.wait("generation 2 serves", mark)
    (project / "main.py").write_text("raise OSError('not yet')\n")
    service.log.wait("OSError: not yet$", mark)
    (project / "main.py").write_text(APP % "three")
    service.log.wait("generation 4 serves", mark)
    said = service.log.since(mark)
    patterns = [
        "main.py changed: reloading",
        r"generation 2 serves, \d+ ms after the change",
        "main.py changed: reloading",
        "the reload failed, generation 2 goes on: .*OSError: not yet",
        "main.py changed: reloading",
        r"generation 4 serves, \d+ ms after the change",
    ]
    lines = messages(said)
    assert len(lines) == len(patterns), said
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), said
    assert said.count("Traceback") == 1
    assert "asgiri/" not in said.partition("Traceback")[2]
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert messages(service.log.since(mark))[len(lines) :] == ["TERM: stopping; once more, and what still runs is cut"]


@pytest.mark.parametrize("key", ["level: debug", "level: warning", "format: json"])
def test_logs_of_other_kinds(start: Start, project: Path, key: str) -> None:
    service = start(app=None, config=f"{WATCHED}}}\n".replace("log: {", f"log: {{{key}, "))
    debug = key == "level: debug"
    if key == "level: warning":
        assert eventually(lambda: len(service.workers()) == 1)
    else:
        service.log.wait("ready: 1 worker")
        service.log.wait("listening on http://127.0.0.1:")
    service.signal(signal.SIGHUP)
    if debug:
        for line in ("nothing in the configuration", "worker 1 gen 2 is ready", "the reload is complete: generation 2"):
            service.log.wait(line)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert ("Ctrl-C stops it" in str(service.log)) is debug, str(service.log)


@pytest.mark.parametrize("keeps", ["nothing", "a connection", "live reload", "a request"])
def test_a_terminal(project: Path, keeps: str) -> None:
    config = f"{WATCHED}, browser: true}}\n"
    if keeps == "live reload":  # which is no line of the access log
        config = config.replace("access: {enabled: false}", "access: {enabled: true}")
    (project / "asgiri.yaml").write_text(config)
    path = {"live reload": "/.asgiri/events", "a request": "/waits"}.get(keeps, "/")
    with on_terminal(project, env={"NO_COLOR": "1"} if keeps == "nothing" else None) as terminal, ExitStack() as stack:
        terminal.wait("Ctrl-C stops it")
        assert ("\x1b[" in terminal.text) is (keeps != "nothing")
        text = re.sub(r"\x1b\[\d+m|\r", "", terminal.text)
        assert f"  ->  http://127.0.0.1:{terminal.port}\n      app      main:app\n" in text
        assert "      watches  . (*.py), asgiri.yaml\n" in text
        if keeps != "nothing":
            client = stack.enter_context(socket.create_connection(("127.0.0.1", terminal.port)))
            client.settimeout(PATIENCE)
            client.sendall(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
        if keeps in ("a connection", "live reload"):
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        if keeps == "a request":
            terminal.wait("it waits")
        banner = len(terminal.text)
        began = time.monotonic()
        terminal.press(b"\x03")
        if keeps == "a request":
            terminal.wait("INT: stopping; once more, and what still runs is cut")
            assert terminal.process.poll() is None  # it has its time
            terminal.press(b"\x03")
        assert terminal.end() == 0
        assert time.monotonic() - began < 0.9
        said = terminal.text[banner:]
        assert len(messages(said.replace("^C", ""))) == (3 if keeps == "a request" else 1), said
        assert "Traceback" not in said


def test_what_is_watched_are_folders(start: Start, project: Path) -> None:
    service = start(app=None, config=f"{WATCHED}, dirs: [., nowhere, main.py]}}\n")
    assert service.wait() == 2
    service.log.wait(r"asgiri.yaml:4: reload.dirs\[1\]: cannot look into the folder \"nowhere\": No such file")
    service.log.wait(r"asgiri.yaml:4: reload.dirs\[2\]: \"main.py\" is a file; name its folder")


def test_a_reload_wants_folders_too(start: Start, project: Path) -> None:
    service = start(app=None, config=f"{WATCHED}}}\n", env={"NOTIFY_SOCKET": str(project / "nobody")}).ready()
    service.log.wait("WARN .*reload.enabled: this is for development")
    (project / "asgiri.yaml").write_text(f"{WATCHED}, dirs: [nowhere]}}\n")
    service.log.wait(r"the reload is refused, .*reload.dirs\[0\]: cannot look into")
    mark = len(service.log)
    (project / "asgiri.yaml").write_text(f"{WATCHED}, dirs: [.]}}\n")
    service.log.wait("generation 2 serves", mark)
    assert "for development" not in service.log.since(mark)
