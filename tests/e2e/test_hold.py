"""Development mode, where a HUP is the save: old code holds, new code takes over, and what is broken is shown."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, Service, eventually
from tests.e2e.terminal import on_terminal

APP = """
import asyncio, json, os
from pathlib import Path

VERSION = int(Path("version").read_text())


async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/slow":
        await asyncio.sleep(0.3)
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
    if scope["path"] == "/break":
        breakpoint()
    await send(head)
    if scope["path"] == "/stream":
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.Event().wait()
    await send({"type": "http.response.body", "body": json.dumps([VERSION, os.getpid()]).encode()})
"""
RELOADS = 20


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    (tmp_path / "version").write_text("0")
    (tmp_path / "empty").mkdir()
    return tmp_path


def developed(start: Start, more: str = "", warm: bool = False) -> Service:
    """Without a zygote the watcher has nothing to do but with the config: a HUP alone is a save."""
    watched = "dirs: [.], warm: true" if warm else "dirs: [empty], warm: false"
    config = f"reload: {{enabled: true, {watched}}}\nlifespan: off\n{more}"
    return start(app="main:app", config=config).ready()


def save(service: Service, text: str, name: str = "version") -> int:
    """Change a file, and have that seen; where the log is then."""
    (service.directory / name).write_text(text)
    mark = len(service.log)
    service.signal(signal.SIGHUP)
    return mark


def ask(service: Service, path: str = "/") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Watcher(threading.Thread):
    """Asks again and again; keeps when each request was sent, when its answer was there, and of which version."""

    def __init__(self, port: int, keep_alive: bool) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._keep_alive = keep_alive
        self._halt = threading.Event()
        self.answers: list[tuple[float, float, int]] = []
        self.connections = 0
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._halt.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            self.connections += 1
            with suppress(StopIteration):
                try:
                    self._use(connection)
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                finally:
                    connection.close()

    def _use(self, connection: http.client.HTTPConnection) -> None:
        while not self._halt.is_set():
            sent = time.monotonic()
            connection.request("GET", "/")
            response = connection.getresponse()
            body = response.read()
            self.answers.append((sent, time.monotonic(), int(body.split(b",")[0][1:])))
            if response.will_close or not self._keep_alive:
                return
            time.sleep(0.001)  # or all that is measured is the clients

    def stop(self) -> None:
        self._halt.set()
        self.join(PATIENCE)


@pytest.mark.parametrize(("loop", "workers"), [("uvloop", 1), ("asyncio", 2)])
def test_nothing_is_lost_and_no_old_answer_follows_a_new_one(
    start: Start, project: Path, loop: str, workers: int
) -> None:
    more = f"loop: {loop}\nworkers: {{count: {workers}}}\nlog: {{level: debug, access: {{enabled: false}}}}\n"
    service = developed(start, more, warm=workers == 1)  # what is saved is no source: the watcher says nothing of it
    watchers = [Watcher(service.port, keep_alive) for keep_alive in (True, True, True, False, False)]
    reloads = RELOADS // workers
    for watcher in watchers:
        watcher.start()
    try:
        for version in range(1, reloads + 1):
            mark = save(service, str(version))
            service.log.wait(f"the reload is complete: generation {version + 1} serves", mark)
        assert eventually(lambda: all(one.answers and one.answers[-1][2] == reloads for one in watchers))
    finally:
        for watcher in watchers:
            watcher.stop()
    assert not [failure for watcher in watchers for failure in watcher.failures]
    newest = sorted((there, version) for watcher in watchers for _, there, version in watcher.answers)
    late = []
    best, place = 0, 0
    for sent, _, version in sorted(answer for watcher in watchers for answer in watcher.answers):
        while place < len(newest) and newest[place][0] < sent:
            best = max(best, newest[place][1])
            place += 1
        if version < best:
            late.append((sent, version, best))
    assert not late, f"old answers to requests that were sent when newer code had answered: {late}"
    kept = [watcher for watcher in watchers if watcher._keep_alive]
    assert sum(watcher.connections for watcher in kept) <= len(kept) + 2 * reloads, "connections were handed over"
    assert "nobody takes over" not in str(service.log)


def test_a_connection_outlives_its_process_and_what_was_sent_meanwhile_is_answered_by_the_new_code(
    start: Start, project: Path
) -> None:
    (project / "main.py").write_text(APP.replace("VERSION =", "import time; time.sleep(0.2)\nVERSION ="))
    service = developed(start)
    with ExitStack() as stack:
        kept, slow = (stack.enter_context(socket.create_connection(("127.0.0.1", service.port))) for _ in range(2))
        for sock in (kept, slow):
            sock.settimeout(PATIENCE)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"[0, " in sock.recv(65536)
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert eventually(lambda: not sent_unread(slow))
        mark = save(service, "1")
        assert eventually(lambda: len(service.workers()) == 2)
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = kept.recv(65536)
        assert b"[1, " in answer
        assert b"[0, " in slow.recv(65536)
        service.log.wait("generation 2 serves", mark)
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"[1, " in kept.recv(65536)


def until_there(sock: socket.socket, what: bytes) -> None:
    data = b""
    while what not in data:
        more = sock.recv(65536)
        assert more, data
        data += more


def sent_unread(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_a_reload_that_fails_answers_what_has_waited_with_the_old_code(start: Start, project: Path) -> None:
    service = developed(start)
    good = (project / "main.py").read_text()
    mark = save(service, "import time; time.sleep(0.2)\nraise ValueError('half done')\n", "main.py")
    assert eventually(lambda: len(service.workers()) == 2)
    began = time.monotonic()
    assert ask(service)[1].startswith("[0, ")
    assert time.monotonic() - began > 0.1, "it waited for the new code"
    service.log.wait("the reload failed, generation 1 goes on: .*ValueError: half done", mark)
    assert service.log.since(mark).count("Traceback (most recent call last)") == 1
    assert "/work/rel/asgiri/" not in service.log.since(mark)
    assert ask(service)[1].startswith("[0, ")
    mark = save(service, good.replace("VERSION =", "VERSION = 5 +"), "main.py")
    service.log.wait("generation 3 serves", mark)
    assert ask(service)[1].startswith("[5, ")


def test_a_first_start_that_is_broken_shows_why_until_it_is_mended(start: Start, project: Path) -> None:
    (project / "main.py").write_text("import shop\n")
    (project / "shop.py").write_text("def price(:\n    pass\n")
    service = developed(start, "workers: {count: 2}\n")
    service.log.wait("SyntaxError.*; serving an error page until the application can be imported")
    status, text = ask(service)
    assert (status, "shop.py" in text, "def price(:" in text) == (500, True, True)
    assert str(service.log).count("serving an error page") == 1
    mark = save(service, "def price(): return 1 / 0\nprice()\n", "shop.py")
    service.log.wait("the reload failed, generation 1 goes on: .*ZeroDivisionError", mark)
    assert eventually(lambda: "ZeroDivisionError" in ask(service)[1])
    mark = save(service, APP, "main.py")
    service.log.wait("generation 3 serves", mark)
    assert ask(service)[0] == 200


def test_a_startup_that_fails_is_shown_too(start: Start, project: Path) -> None:
    broken = "async def app(scope, receive, send):\n    await receive()\n    raise OSError('no database')\n"
    (project / "main.py").write_text(broken)
    service = start(app="main:app", config="reload: {enabled: true, warm: false}\nlifespan: on\n").ready()
    status, text = ask(service)
    assert (status, "no database" in text, "main.py" in text) == (500, True, True)


def test_streams_hold_nothing_up(start: Start, project: Path) -> None:
    service = developed(start, "log: {level: debug}\n")
    with socket.create_connection(("127.0.0.1", service.port)) as stream:
        stream.settimeout(PATIENCE)
        stream.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        until_there(stream, b"begun")
        mark = save(service, "1")
        began = time.monotonic()
        service.log.wait("generation 2 serves, .* ms after HUP", mark)
        assert ask(service)[1].startswith("[1, ")
        service.log.wait("the reload is complete: generation 2 serves", mark)
        assert 0.5 < time.monotonic() - began < 5


def test_it_cannot_be_turned_off_by_a_reload(start: Start, project: Path) -> None:
    service = developed(start)
    (service.directory / "asgiri.yaml").write_text(
        "reload: {enabled: false, dirs: [empty], warm: false}\nlifespan: off\n"
    )
    service.log.wait("not changed by a reload.*reload.enabled: true -> false")  # which the watcher began
    service.log.wait("generation 2 serves")
    with socket.create_connection(("127.0.0.1", service.port)) as kept:
        kept.settimeout(PATIENCE)
        for version in (0, 1):
            kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert f"[{version}, ".encode() in kept.recv(65536)
            if not version:
                service.log.wait("generation 3 serves", save(service, "1"))


def test_ctrl_c_ends_an_idle_server_at_once_and_quietly(start: Start, project: Path) -> None:
    service = developed(start)
    with socket.create_connection(("127.0.0.1", service.port)) as kept:
        kept.settimeout(PATIENCE)
        kept.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"[0, " in kept.recv(65536)
        began = time.monotonic()
        os.killpg(service.pid, signal.SIGINT)  # as a terminal does: to all of them
        assert service.wait() == 0
        assert time.monotonic() - began < 0.9, "no window for idle connections"
        assert kept.recv(65536) == b""
    assert "Traceback" not in str(service.log)
    assert "KeyboardInterrupt" not in str(service.log)


def test_a_breakpoint_has_the_terminal(project: Path, tmp_path: Path) -> None:
    (tmp_path / "asgiri.yaml").write_text(
        "app: main:app\nreload: {enabled: true, warm: false, dirs: [empty]}\nlifespan: off\n"
        "workers: {heartbeat_timeout: 1s}\n"
    )
    with on_terminal(tmp_path) as terminal:
        terminal.wait("Ctrl-C stops it")
        with socket.create_connection(("127.0.0.1", terminal.port)) as client:
            client.settimeout(PATIENCE)
            client.sendall(b"GET /break HTTP/1.1\r\nHost: a\r\n\r\n")
            terminal.wait("(Pdb)")
            terminal.type("VERSION + 41")
            terminal.wait("41")
            terminal.type("c")
            assert b"[0, " in client.recv(65536)
            assert "hangs" not in terminal.text
