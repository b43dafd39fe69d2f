"""What an operator or an application does at the worst moment, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest

from tests.bench.soak_run import ROOT
from tests.e2e.conftest import Start
from tests.e2e.service import Service, control, eventually, get
from tests.pki import Pki

APP = (ROOT / "tests" / "e2e" / "app.py").read_text("utf-8")
DEMO = ("--app-dir", str(ROOT / "tests" / "e2e"), "app:app")
# Writes to every pipe that the process can write to: its link to the master is one.
VANDAL = """
import os
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        if fd > 2 and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
            os.write(fd, b"garbage\\n")
    except OSError:
        pass
"""


def test_an_application_that_writes_on_the_link_does_not_end_the_master(start: Start, tmp_path: Path) -> None:
    code = tmp_path / "own.py"
    code.write_text(APP, "utf-8")
    service = start("-w", "2", "--app-dir", str(tmp_path), app="own:app").ready()
    before = service.workers()
    code.write_text(APP + VANDAL, "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload failed, generation 1 goes on: what it reports makes no sense")
    get(service, "/who")
    assert eventually(lambda: service.workers() == before)


def test_a_worker_that_serves_and_writes_on_the_link_goes_on(start: Start, tmp_path: Path) -> None:
    serves = APP.replace(
        'case "/who":',
        'case "/vandal":\n            exec(VANDAL)\n            await answer(send, {})\n        case "/who":',
    )
    (tmp_path / "own.py").write_text(f"{serves}\nVANDAL = {VANDAL!r}\n", "utf-8")
    service = start("--app-dir", str(tmp_path), app="own:app").ready()
    get(service, "/vandal")
    service.log.wait(r"worker 1 gen 1 \(pid \d+\) is not heard any more")
    before = get(service, "/who")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete")
    assert get(service, "/who")["pid"] != before["pid"]


def test_an_heir_whose_old_master_dies_while_it_boots_has_an_admin_child(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, admin = one.getsockname()[1], two.getsockname()[1]
    (tmp_path / "own.py").write_text(f"{APP}\ntime.sleep(0.5)\n", "utf-8")
    config = f"listen: [{{bind: '127.0.0.1:{port}'}}]\nadmin: {{bind: '127.0.0.1:{admin}'}}\napp: own:app\n"
    service = start(config=config, app=None, bind=False).ready()
    service.signal(signal.SIGUSR2)
    assert eventually(lambda: len(service.masters()) == 2)
    os.kill(service.pid, signal.SIGKILL)

    def says_yes() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    assert service.wait() == -signal.SIGKILL
    service.log.wait("the old master is gone")  # the old admin child may have said yes until then
    assert eventually(says_yes), str(service.log)


def test_what_is_asked_of_a_service_that_stops_is_refused_aloud(start: Start, tmp_path: Path) -> None:
    config = "control: {socket: control.sock}\nworkers: {drain_delay: 60s}\n"
    service = start(config=config).ready()
    control(tmp_path / "control.sock", "stop")
    service.log.wait("serving for 1m more")
    for verb, more in (("scale", {"count": 2}), ("recycle", {}), ("drain", {"off": True}), ("reload", {})):
        with pytest.raises(AssertionError, match="the service stops"):
            control(tmp_path / "control.sock", verb, **more)
    status = control(tmp_path / "control.sock", "status")
    assert (status["state"], status["draining"], status["count"]) == ("stopping", True, 1)
    for number, name in (
        (signal.SIGHUP, "HUP: no reload"),
        (signal.SIGTTIN, "TTIN: not now"),
        (signal.SIGUSR2, "USR2: no"),
    ):
        service.signal(number)
        service.log.wait(name)
    get(service, "/who")
    began = time.monotonic()
    service.signal(signal.SIGQUIT)
    assert service.wait() == 0
    assert time.monotonic() - began < 10


def test_a_stop_amid_a_reload_serves_all_for_the_delay_and_refuses_then(start: Start, tmp_path: Path) -> None:
    """The file of a socket stays, too, though an old worker drains already."""
    web = str(tmp_path / "web")
    config = "listen: [{bind: '127.0.0.1:0'}, {bind: 'unix:web'}]\nworkers: {drain_delay: 1500ms}\n"
    config += "control: {socket: control.sock}\n"
    service = start(config=config, env={"MARKS": str(tmp_path)}, bind=False).ready()
    with socket.create_connection(("127.0.0.1", service.port)) as busy:
        busy.sendall(b"GET /slow?seconds=60 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert eventually((tmp_path / "slow").exists)
        service.signal(signal.SIGHUP)
        service.log.wait("worker 1 gen 1.* draining .*requests: 1")
        service.signal(signal.SIGTERM)
        service.log.wait("serving for .* more")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(web)
            client.sendall(b"GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        service.log.wait("worker 1 gen 2.* draining")
        assert eventually(lambda: not os.path.exists(web))
        assert eventually(lambda: is_refused(service.port)), "it is accepted, and waits for ever"
        assert control(tmp_path / "control.sock", "status")["state"] == "stopping"
        service.signal(signal.SIGQUIT)
        assert service.wait() == 0


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_control_socket_that_a_reload_cannot_move_is_named(start: Start, tmp_path: Path) -> None:
    service = start(config="control: {socket: control.sock}\n").ready()
    (tmp_path / "asgiri.yaml").write_text("control: {socket: other.sock}\n", "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete")
    said = "not changed by a reload, but by an upgrade (USR2) or a restart: control.socket: control.sock -> other.sock"
    assert said in str(service.log)
    assert control(tmp_path / "control.sock", "status")["generation"] == 2


CURIOUS = """
import sys
BEFORE = set(sys.modules)

async def app(scope, receive, send):
    if scope["type"] == "http":
        found = {"before": sorted(BEFORE), "since": sorted(set(sys.modules) - BEFORE)}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})
"""
LEFT_OUT = {"asgiri.codec.h2_native", "asgiri.config.source", "asgiri.tls", "yaml"}


def test_a_worker_imports_nothing_that_another_release_may_have_replaced(tmp_path: Path) -> None:
    """Workers die and are recycled between an installation and USR2; and they all share what the master has.

    All but what the first request of a plain start has no need of: that is imported when the service is up.
    """
    (tmp_path / "own.py").write_text(f"import json\n{CURIOUS}", "utf-8")
    service = Service(tmp_path, "-b", "127.0.0.1:0", "--log-level", "debug", "own:app")  # without a file
    try:
        service.ready()
        assert not {*LEFT_OUT, "h2", "watchfiles"} & {*get(service, "/")["before"]}
        service.log.wait("what the start has left out is imported")
        [first] = service.workers()
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: service.workers() and first not in service.workers())
        found = get(service, "/")
        assert {*found["before"]} >= LEFT_OUT
        assert not [name for name in found["since"] if name.startswith("asgiri")]
    finally:
        service.close()


def test_an_engine_that_is_not_installed_is_a_wrong_configuration(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['wsproto'] = None\n", "utf-8")
    env = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    service = start(env=env).ready()
    (tmp_path / "asgiri.yaml").write_text("websocket: {engine: wsproto}\n", "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is refused, generation 1 goes on: .*wsproto is not installed")
    get(service, "/who")


def test_a_start_in_a_directory_that_was_removed(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "release"
    place.mkdir()
    shell = f'cd {place} && rmdir {place} && exec "$@"'
    service = Service(tmp_path, "-b", "127.0.0.1:0", *DEMO, prefix=["sh", "-c", shell, "sh"])
    try:
        service.ready()
        service.signal(signal.SIGUSR2)
        assert service.wait() == 0
        assert eventually(lambda: len(service.masters()) == 1 and service.workers())
    finally:
        service.close()


def test_an_heir_has_the_umask_that_its_master_was_started_with(start: Start, tmp_path: Path) -> None:
    service = start(config="process: {umask: '077'}\n").ready()

    def umask(pid: int) -> int:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("Umask:")), 8)

    assert umask(service.pid) == 0o077
    (tmp_path / "asgiri.yaml").write_text("", "utf-8")
    service.signal(signal.SIGUSR2)
    assert service.wait() == 0
    [new] = service.masters()
    assert umask(new) == umask(os.getpid())


def test_an_heir_without_a_pid_file_has_a_control_socket(start: Start, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    service = start(config="process: {pidfile: run/master.pid}\ncontrol: {socket: control.sock}\n").ready()
    (tmp_path / "run" / "master.pid").unlink()
    (tmp_path / "run").rmdir()
    service.signal(signal.SIGUSR2)
    assert service.wait() == 0
    [new] = service.masters()
    service.log.wait("the new master goes on without: .*cannot write")
    assert eventually(lambda: control(tmp_path / "control.sock", "status")["pid"] == new)


def test_a_reload_of_a_config_that_came_by_a_pipe_is_refused(start: Start, tmp_path: Path) -> None:
    shell = """exec "$0" "$@" -c <(echo 'workers: {count: 1}')"""
    service = Service(tmp_path, "-b", "127.0.0.1:0", *DEMO, prefix=["bash", "-c", shell])
    try:
        service.ready()
        service.signal(signal.SIGHUP)
        service.log.wait("the reload is refused, generation 1 goes on: .*it is a pipe")
        get(service, "/who")
    finally:
        service.close()


# Writes all over the scoreboard: its process has it in memory.
SCRIBBLER = """
import sys
frame = sys._getframe()
while "boot" not in frame.f_locals:
    frame = frame.f_back
words = frame.f_locals["boot"].board._words
for index in range(len(words)):
    words[index] = int(query["word"])
"""


@pytest.mark.parametrize("word", [0, 2, 99, 2**64 - 1])
def test_an_application_that_writes_all_over_the_scoreboard_hurts_no_master(
    start: Start, tmp_path: Path, word: int
) -> None:
    serves = APP.replace(
        'case "/who":',
        'case "/scribble":\n            exec(SCRIBBLER)\n            await answer(send, {})\n        case "/who":',
    )
    (tmp_path / "own.py").write_text(f"{serves}\nSCRIBBLER = {SCRIBBLER!r}\n", "utf-8")
    config = "control: {socket: control.sock}\n"
    service = start("-w", "2", "--app-dir", str(tmp_path), app="own:app", config=config).ready()
    before = service.workers()
    get(service, f"/scribble?word={word}")
    uptime = control(tmp_path / "control.sock", "status")["uptime"]
    assert eventually(lambda: control(tmp_path / "control.sock", "status")["uptime"] > uptime + 1.1)  # a pulse
    mark = len(service.log)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for number in (1, 2):
        service.log.wait(rf"worker {number} gen 1 is ready", mark)
    get(service, "/who")
    status = control(tmp_path / "control.sock", "status")
    assert [worker["state"] for worker in status["workers"]] == ["serving", "serving"]
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "Traceback" not in str(service.log)


@pytest.mark.parametrize("key", ["env_file", "certfile", "password_file"])
def test_a_pipe_that_a_reload_would_read_is_refused(start: Start, tmp_path: Path, pki: Pki, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = f"app: app:app\napp_dir: {ROOT / 'tests' / 'e2e'}\nlisten:\n  - bind: 127.0.0.1:{port}\n"
    service = start(config=config, app=None, bind=False).ready()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    tls = {"certfile": pki.certfile, "keyfile": pki.keyfile, key: pipe}
    more = f"env_file: {pipe}\n" if key == "env_file" else f"    tls: {json.dumps(tls, default=str)}\n"
    (tmp_path / "asgiri.yaml").write_text(config + more, "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait(f'the reload is refused, generation 1 goes on: .*{key}: "{pipe}": it is a pipe')
    get(service, "/who")


def test_a_worker_that_somebody_sends_a_term_is_replaced_while_it_finishes(start: Start, tmp_path: Path) -> None:
    service = start(env={"MARKS": str(tmp_path)}).ready()
    pid = get(service, "/who")["pid"]
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as slow:
        slow.sendall(b"GET /slow?seconds=3 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert eventually((tmp_path / "slow").exists)
        os.kill(pid, signal.SIGTERM)
        service.log.wait("worker 1 gen 1 drains, which the master has not asked for")
        assert get(service, "/who")["pid"] != pid
        assert pid in service.workers(), "it is not done yet"
        assert b" 200 " in slow.recv(1000)
    assert eventually(lambda: pid not in service.workers())


@pytest.mark.parametrize("succeeds", [True, False])
def test_the_file_of_a_socket_that_an_heir_has_no_use_for_goes_with_the_old_master(
    start: Start, tmp_path: Path, succeeds: bool
) -> None:
    def config(app: str, *binds: str) -> str:
        entries = ", ".join(f"{{bind: '{bind}'}}" for bind in binds)
        return f"app: {app}\napp_dir: {ROOT / 'tests' / 'e2e'}\nlisten: [{entries}]\n"

    with socket.create_server(("127.0.0.1", 0)) as taken:
        tcp = f"127.0.0.1:{taken.getsockname()[1]}"
    file = tmp_path / "own.sock"
    service = start(config=config("app:app", tcp, f"unix:{file}"), app=None, bind=False).ready()
    assert file.is_socket()
    (tmp_path / "asgiri.yaml").write_text(config("app:app" if succeeds else "nosuch:app", tcp), "utf-8")
    service.signal(signal.SIGUSR2)
    service.log.wait("the upgrade is complete" if succeeds else "the upgrade failed, this master goes on")
    assert file.exists() is not succeeds
