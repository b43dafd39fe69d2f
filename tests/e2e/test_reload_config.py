"""What a reload takes of a configuration: each key that can be, what it logs of it, and what it says stays."""

from __future__ import annotations

import grp
import http.client
import json
import os
import pwd
import re
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import httpx

from asgiri.config.keys import keys_of
from asgiri.config.schema import Config
from tests.e2e.conftest import APP_DIR, Start
from tests.e2e.service import PATIENCE, Service, control, eventually

APP = """
import asyncio, json, os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    if scope["path"].endswith("/slow"):
        await asyncio.sleep(60)
    umask = os.umask(0)
    os.umask(umask)
    told = {"root_path": scope["root_path"], "env": {name: os.environ.get(name) for name in ("A", "B", "C")},
            "umask": umask, "loop": type(asyncio.get_running_loop()).__module__, "made": False}
    await answer(told, send)

async def made(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return

    async def also(message):
        if message["type"] == "http.response.body":
            message = {**message, "body": json.dumps({**json.loads(message["body"]), "made": True}).encode()}
        await send(message)
    await app(scope, receive, also)

def make():
    return made

async def answer(told, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""

BEFORE: dict[str, Any] = {
    "app": "told:app",
    "app_dir": "old",
    "env": {"A": "old", "C": "old"},
    "loop": "asyncio",
    "listen": [{"bind": "127.0.0.1:0"}, {"bind": "unix:web.sock", "mode": "0600"}, {"bind": "unix:gone.sock"}],
    "process": {"title": "before", "pidfile": "old.pid", "umask": "022"},
}
AFTER: dict[str, Any] = {
    "app": "told:make",
    "app_dir": "new",
    "factory": True,
    "root_path": "/shop",
    "lifespan": "on",
    "loop": "uvloop",
    "env": {"A": "a secret"},
    "env_file": "variables",
    "listen": [
        {"bind": "127.0.0.1:0", "http": ["http/1.1"], "backlog": 100},
        {"bind": "unix:web.sock", "mode": "0666", "owner": "daemon", "group": "daemon"},
        {"bind": "unix:new.sock"},
    ],
    "workers": {"count": 2},
    "timeouts": {"request": "200ms"},
    "limits": {"request_line": "1KiB", "header_count": 20, "body_size": 10, "requests_per_connection": 1},
    "response_headers": {"X-Colour": "a secret"},
    "server_header": True,
    "date_header": False,
    "log": {"format": "json", "file": "new.log", "access": {"file": "access.log", "format": "{method} {status}"}},
    "admin": {"bind": "unix:admin.sock"},
    "process": {"title": "after", "pidfile": "new.pid", "umask": "027"},
}
LINES = [
    "app: told:app -> told:make",
    "app_dir: old -> new",
    "factory: false -> true",
    'root_path: "" -> /shop',
    'lifespan: auto -> "on"',
    "loop: asyncio -> uvloop",
    "env.A: changed",
    "env.C: removed",
    "env_file: null -> variables",
    "listen[127.0.0.1:0].http: [h2, http/1.1] -> [http/1.1]",
    "listen[127.0.0.1:0].backlog: 2048 -> 100",
    'listen[unix:web.sock].mode: "0600" -> "0666"',
    "listen[unix:web.sock].owner: null -> daemon",
    "listen[unix:web.sock].group: null -> daemon",
    "listen: unix:new.sock is new",
    "listen: unix:gone.sock is gone",
    "workers.count: 1 -> 2",
    "timeouts.request: 0s -> 200ms",
    "limits.request_line: 8KiB -> 1KiB",
    "limits.header_count: 100 -> 20",
    "limits.body_size: 0 -> 10B",
    "limits.requests_per_connection: 0 -> 1",
    "response_headers.X-Colour: added",
    "server_header: false -> true",
    "date_header: true -> false",
    "log.format: text -> json",
    'log.file: "-" -> new.log',
    'log.access.file: "-" -> access.log',
    'log.access.format: text -> "{method} {status}"',
    "admin.bind: null -> unix:admin.sock",
    'process.umask: "0022" -> "0027"',
    "process.pidfile: old.pid -> new.pid",
    "process.title: before -> after",
]

# What a worker is made of in the same way as of the ones above, and what stays.
ELSEWHERE = {"interface", "http1", "http2", "websocket", "control", "reload", "proxy", "metrics"} | {
    "allowed_hosts",
    "request_id",
}


def test_no_section_is_left_out() -> None:
    assert set(keys_of(Config)) == set(AFTER) | ELSEWHERE


def reload(service: Service, config: dict[str, Any] | str) -> int:
    """Have it take another file; from where on its log is about that."""
    text = config if isinstance(config, str) else json.dumps(config)
    (service.directory / "asgiri.yaml").write_text(text, "utf-8")
    mark = len(service.log)
    service.signal(signal.SIGHUP)
    return mark


def told(service: Service, mark: int) -> list[str]:
    """What the log says that is changed by the reload, without the head of each line."""
    lines = service.log.since(mark).splitlines()
    begun = next(index for index, line in enumerate(lines) if "HUP: reloading" in line)
    found = []
    for line in lines[begun + 1 :]:
        text = line.partition("[master] ")[2]
        if text and not re.search("is ready|listening on|reload (failed|is)", text):  # else a worker's
            found.append(text)
    return found


def ask(
    port: int, path: str = "/", method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[Any, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


def first_bytes(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(data)
        return sock.recv(100)


def test_a_reload_takes_every_key_that_it_can(start: Start, tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "told.py").write_text(APP, "utf-8")
    (tmp_path / "variables").write_text("B=from the file\n", "utf-8")
    service = start(config=json.dumps(BEFORE), app=None, bind=False).ready()
    port, pid = service.port, f"{service.pid}\n"
    before = json.loads(ask(port)[1])
    assert before == {
        "root_path": "", "env": {"A": "old", "B": None, "C": "old"}, "umask": 0o22, "loop": "asyncio.unix_events",
        "made": False,
    }  # fmt: skip
    assert (tmp_path / "old.pid").read_text("ascii") == pid

    mark = reload(service, AFTER)
    log = tmp_path / "new.log"
    assert eventually(lambda: log.exists() and "the reload is complete" in log.read_text("utf-8")), str(service.log)
    assert told(service, mark)[: len(LINES)] == LINES
    assert "secret" not in str(service.log) + log.read_text("utf-8")
    assert {json.loads(line)["logger"] for line in log.read_text("utf-8").splitlines()} >= {"asgiri.master"}

    response, body = ask(port)
    assert json.loads(body) == {
        "root_path": "/shop", "env": {"A": "a secret", "B": "from the file", "C": None}, "umask": 0o27,
        "loop": "uvloop", "made": True,
    }  # fmt: skip
    assert (response.headers["x-colour"], response.headers["date"]) == ("a secret", None)
    assert response.headers["server"]
    assert response.headers["connection"] == "close"
    assert ask(port, f"/{'a' * 1100}")[0].status == 414
    assert ask(port, headers={f"X-{number}": "a" for number in range(21)})[0].status == 431
    assert ask(port, method="POST", body=b"a" * 11)[0].status == 413
    assert ask(port, "/slow")[0].status == 503
    assert first_bytes(port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 505")
    assert eventually(lambda: "GET 503\n" in (tmp_path / "access.log").read_text("utf-8"))

    file = (tmp_path / "web.sock").stat()
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid) == (
        0o666, pwd.getpwnam("daemon").pw_uid, grp.getgrnam("daemon").gr_gid,
    )  # fmt: skip
    assert stat.S_IMODE((tmp_path / "new.sock").stat().st_mode) == 0o777 & ~0o27
    assert not (tmp_path / "gone.sock").exists()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "admin.sock"))) as client:
        assert eventually(lambda: client.get("http://admin/livez").status_code == 200)
    assert (tmp_path / "new.pid").read_text("ascii") == pid
    assert not (tmp_path / "old.pid").exists()
    titles = [
        "after: admin",
        "after: master [told:make]",
        *(f"after: worker {one} gen 2 [told:make]" for one in (1, 2)),
    ]
    assert eventually(lambda: [title.strip() for title in sorted(service.members().values())] == titles)
    assert all(umask_of(member) == 0o27 for member in service.members())

    # And back again: what is named no more is as if it had never been.
    reload(service, BEFORE)
    assert eventually(lambda: "generation 3 serves" in str(service.log)), log.read_text("utf-8")
    assert json.loads(ask(port)[1]) == before
    file = (tmp_path / "web.sock").stat()
    assert (stat.S_IMODE(file.st_mode), file.st_uid, file.st_gid) == (0o600, os.geteuid(), os.getegid())
    assert (tmp_path / "old.pid").read_text("ascii") == pid
    assert not (tmp_path / "new.pid").exists()
    assert eventually(lambda: not (tmp_path / "new.sock").exists())  # the log tells first
    assert umask_of(service.pid) == 0o22


def served(config: str = "") -> str:
    """The file of a small service with one unix socket."""
    return f"app: app:app\napp_dir: {APP_DIR}\nlisten:\n- {{bind: unix:web.sock, mode: '0600'}}\n{config}"


def test_what_stays_is_told_at_each_reload_for_as_long_as_the_file_differs(start: Start) -> None:
    service = start(config=served("control: {socket: control.sock}\n"), app=None, bind=False).ready()
    changed = served("control: {socket: other.sock}\nprocess: {chdir: /}\n").replace("mode:", "name: web, mode:")
    stays = ["listen[unix:web.sock].name: null -> web", "control.socket: control.sock -> other.sock"]
    stays.append("process.chdir: null -> /")
    warning = f"not changed by a reload, but by an upgrade (USR2) or a restart: {'; '.join(stays)}"
    for generation in (2, 3):
        mark = reload(service, changed)
        service.log.wait(f"generation {generation} serves", mark)
        assert told(service, mark) == [warning]
    (service.directory / "asgiri.yaml").write_text(
        served("workers: {drain_timeout: 9s}\nprocess: {chdir: /}\n"), "utf-8"
    )
    answer = control(service.directory / "control.sock", "reload", wait=True)
    assert answer == {
        "generation": 4, "changed": ["workers.drain_timeout: 30s -> 9s"],
        "stays": ["control.socket: control.sock -> null", "process.chdir: null -> /"],
    }  # fmt: skip
    mark = reload(service, served("control: {socket: control.sock}\nworkers: {drain_timeout: 9s}\n"))
    service.log.wait("generation 5 serves", mark)
    assert told(service, mark) == ["nothing in the configuration has changed"]


def test_what_a_failed_reload_would_have_changed_is_told_again(start: Start, tmp_path: Path) -> None:
    service = start(config=served(), app=None, bind=False).ready()
    file = tmp_path / "web.sock"
    wrong = served("lifespan: 'off'\nlog: {file: none/such}\nprocess: {pidfile: new.pid, umask: '077'}\n")
    wrong = wrong.replace("0600", "0666")
    lines = ['lifespan: auto -> "off"', 'listen[unix:web.sock].mode: "0600" -> "0666"', 'log.file: "-" -> none/such']
    lines += ['process.umask: null -> "0077"', "process.pidfile: null -> new.pid"]
    for _ in range(2):
        mark = reload(service, wrong)
        service.log.wait("the reload failed, generation 1 goes on: log.file: cannot open", mark)
        assert told(service, mark) == lines
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert not (tmp_path / "new.pid").exists()
        assert umask_of(service.pid) == 0o22


def test_a_reload_that_is_refused_tells_of_no_change(start: Start) -> None:
    service = start(config=served(), app=None, bind=False).ready()
    mark = reload(service, served("workers: {count: 2}\n").replace("'0600'", "'0666', owner: nobody-such"))
    service.log.wait('the reload is refused, generation 1 goes on: .*there is no user "nobody-such"', mark)
    assert told(service, mark) == []


def test_a_pid_file_that_cannot_be_written_is_refused(start: Start, tmp_path: Path) -> None:
    service = start(config=served("process: {pidfile: old.pid}\n"), app=None, bind=False).ready()
    mark = reload(service, served("process: {pidfile: none/new.pid}\n"))
    refused = (
        r'the reload is refused, generation 1 goes on: asgiri.yaml:\d+: process.pidfile: there is no directory ".*none"'
    )
    service.log.wait(refused, mark)
    assert told(service, mark) == []
    (tmp_path / "old.pid").unlink()
    (tmp_path / "old.pid").mkdir()  # what is served with is not asked again
    mark = reload(service, served("process: {pidfile: old.pid}\n"))
    service.log.wait("the reload is complete", mark)
    (tmp_path / "none").mkdir()
    reload(service, served("process: {pidfile: none/new.pid}\n"))
    assert eventually((tmp_path / "none/new.pid").exists)
    assert (tmp_path / "none/new.pid").read_text("ascii") == f"{service.pid}\n"


def test_the_same_pid_file_by_another_path_is_not_removed(start: Start, tmp_path: Path) -> None:
    service = start(config=served("process: {pidfile: old.pid}\n"), app=None, bind=False).ready()
    (tmp_path / "here").symlink_to(tmp_path)
    (tmp_path / "old.pid").unlink()
    mark = reload(service, served("process: {pidfile: here/old.pid}\n"))
    service.log.wait("the reload is complete", mark)
    assert (tmp_path / "old.pid").read_text("ascii") == f"{service.pid}\n"


def test_an_upgrade_takes_what_is_changed_of_a_socket(start: Start, tmp_path: Path) -> None:
    service = start(config=served(), app=None, bind=False).ready()
    changed = served("process: {pidfile: new.pid}\n").replace("'0600'", "'0666', group: daemon")
    (tmp_path / "asgiri.yaml").write_text(changed, "utf-8")
    service.signal(signal.SIGUSR2)
    service.log.wait("the upgrade is complete")
    file = (tmp_path / "web.sock").stat()
    assert (stat.S_IMODE(file.st_mode), file.st_gid) == (0o666, grp.getgrnam("daemon").gr_gid)


def test_the_fleet_goes_by_the_new_config(start: Start) -> None:
    service = start(config=served(), app=None, bind=False).ready()
    mark = reload(service, served("workers: {max_lifetime: 300ms}\n"))
    service.log.wait("worker 1 gen 2.* it has lived for", mark)


def umask_of(pid: int) -> int:
    found = re.search(r"Umask:\s*(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found is not None
    return int(found[1], 8)
