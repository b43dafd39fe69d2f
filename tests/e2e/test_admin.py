"""The admin child of a real service: /livez and /readyz in all that a service goes through."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, ROOT, Service, eventually, get, load

ADMIN = ("--admin", "127.0.0.1:0")
WHERE = r"listening on (http://127\.0\.0\.1:\d+) \(admin\)"


def admin_url(service: Service, since: int = 0) -> str:
    return service.log.wait(WHERE, since)[1]


def admins(service: Service) -> list[int]:
    return [pid for pid, title in service.members().items() if title == "asgiri: admin"]


class Probe:
    """Asks the way that orchestrators do: a new connection each time."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")

    def ask(self, path: str = "/readyz") -> tuple[int, Any]:
        with closing(http.client.HTTPConnection(self._address, timeout=PATIENCE)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        return answer.status, json.loads(body) if answer.headers["content-type"] == "application/json" else body

    def status(self, path: str = "/readyz") -> int:
        return self.ask(path)[0]


def up(service: Service) -> Probe:
    """One who asks the service, which is ready, and so is its admin child."""
    service.ready()
    probe = Probe(admin_url(service))
    assert probe.status() == 200  # a connection waits until there is somebody to accept it
    return probe


@contextmanager
def watched(probe: Probe) -> Iterator[Counter[object]]:
    """Ask /readyz all the time; how often it has said what, or not answered."""
    said: Counter[object] = Counter()
    halt = threading.Event()

    def watch() -> None:
        while not halt.wait(0.002):
            try:
                status, what = probe.ask()
                said[status if status == 200 else (status, what["reason"])] += 1
            except (OSError, http.client.HTTPException) as error:
                said[repr(error)] += 1

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield said
    finally:
        halt.set()
        thread.join(PATIENCE)


def test_ready_is_when_the_workers_are(start: Start, tmp_path: Path) -> None:
    source = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\nfrom asgiri.demo import app\n"
    (tmp_path / "patient.py").write_text(source)
    service = start(*ADMIN, "-w", "2", app="patient:app")
    probe = Probe(admin_url(service))
    status, said = probe.ask()
    assert (status, said["ready"], said["workers"]) == (503, False, {"wanted": 2, "serving": 0})
    assert "starting" in said["reason"]
    assert probe.ask("/livez") == (200, b"ok\n")
    (tmp_path / "go").touch()
    service.ready()
    assert probe.ask() == (200, {"ready": True, "workers": {"wanted": 2, "serving": 2}})


def test_not_ready_comes_before_the_drain(start: Start) -> None:
    service = start(*ADMIN, config="workers: {count: 2, drain_delay: 60s}")
    probe = up(service)
    with load(service, clients=2, keep_alive=False) as clients:
        service.signal(signal.SIGTERM)
        assert eventually(lambda: probe.status() == 503)
        assert "draining" in probe.ask()[1]["reason"]
        assert probe.ask("/livez") == (200, b"ok\n")
        assert get(service, "/who")["worker"] in (1, 2)
    assert not [failure for client in clients for failure in client.failures]
    service.signal(signal.SIGTERM)  # the second one does not wait for it
    assert service.wait() == 0


def test_not_ready_is_said_until_the_last_worker_is_done(start: Start, tmp_path: Path) -> None:
    service = start(*ADMIN, env={"MARKS": str(tmp_path)})
    probe = up(service)
    slow = threading.Thread(target=get, args=(service, "/slow?seconds=1"), daemon=True)
    slow.start()
    assert eventually((tmp_path / "slow").exists)
    with watched(probe) as said:
        os.killpg(service.pid, signal.SIGTERM)  # all of its processes, as service managers do
        slow.join(PATIENCE)
        before = dict(said)
    draining = (503, "the service is draining")
    # The worker may have its TERM, and say so, a moment before the master has its own.
    fewer = (503, "less than half of the workers are serving")
    assert {draining} <= before.keys() <= {200, draining, fewer}
    assert service.wait() == 0


def test_ready_through_reloads(start: Start) -> None:
    service = start(*ADMIN, "-w", "2")
    probe = up(service)
    [before] = admins(service)
    with load(service, clients=2), watched(probe) as said:
        for _ in range(3):
            mark = len(service.log)
            service.signal(signal.SIGHUP)
            service.log.wait("the reload is complete", mark)
    assert said.keys() == {200}
    assert eventually(lambda: len(admins(service)) == 1)
    assert admins(service) != [before]  # which has the log and the user of the new configuration


def test_ready_through_an_upgrade(start: Start) -> None:
    service = start(*ADMIN, "-w", "2")
    probe = up(service)
    with watched(probe) as said:
        service.signal(signal.SIGUSR2)
        service.log.wait("the upgrade is complete")
        assert eventually(lambda: len(service.masters()) == len(admins(service)) == 1)
    assert said.keys() == {200}


def test_ready_while_more_workers_come(start: Start, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(1.3)\nfrom asgiri.demo import app\n")
    service = start(*ADMIN, app="slow:app")
    probe = up(service)
    with watched(probe) as said:
        for _ in range(3):
            mark = len(service.log)
            service.signal(signal.SIGTTIN)
            service.log.wait("TTIN: one worker more", mark)
        for number in (2, 3, 4):  # each of which takes longer to come than the master to say that it is wanted
            service.log.wait(f"worker {number} gen 1 is ready")
    assert said.keys() == {200}


def test_it_answers_when_every_worker_is_stuck(start: Start, tmp_path: Path) -> None:
    service = start(*ADMIN, "-w", "2", env={"MARKS": str(tmp_path)})
    probe = up(service)
    mark = tmp_path / "blocked"
    clients = []
    for _ in range(2):
        mark.unlink(missing_ok=True)
        clients.append(threading.Thread(target=ask_in_vain, args=(f"{service.url}/block?seconds=600",), daemon=True))
        clients[-1].start()
        assert eventually(mark.exists)
    assert eventually(lambda: probe.status() == 503)
    assert "less than half" in probe.ask()[1]["reason"]
    assert probe.ask("/livez") == (200, b"ok\n")
    status = probe.ask("/status?history")[1]
    assert [worker["state"] for worker in status["workers"]] == ["stuck", "stuck"]
    assert [trouble["level"] for trouble in status["troubles"]] == ["bad"] * 3
    assert status["history"][-1]["serving"] == 2  # as they say themselves
    assert b'asgiri_workers{state="stuck"} 2.0\n' in probe.ask("/metrics")[1]
    assert probe.status("/") == 200
    for pid in service.workers():
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: probe.status() == 200)
    for client in clients:
        client.join(PATIENCE)


def ask_in_vain(url: str) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(url, timeout=PATIENCE, trust_env=False)


def test_it_comes_back(start: Start) -> None:
    service = start(*ADMIN)
    probe = up(service)
    [pid] = admins(service)
    os.kill(pid, signal.SIGTERM)  # which it leaves to the master
    os.kill(pid, signal.SIGKILL)
    service.log.wait("the admin process was killed by SIGKILL")
    assert eventually(lambda: len(admins(service)) == 1)
    assert probe.status() == 200


def test_it_does_not_hold_up_the_exit(start: Start) -> None:
    service = start(*ADMIN)
    up(service)
    [pid] = admins(service)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert time.monotonic() - began < 5
    service.log.wait("the admin process did not exit")


def test_a_reload_moves_it_and_ends_it(start: Start, tmp_path: Path) -> None:
    service = start(config="admin: {bind: unix:admin.sock}").ready()
    file = tmp_path / "asgiri.yaml"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "admin.sock"))) as client:
        assert client.get("http://admin/readyz").status_code == 200
    file.write_text("admin: {bind: 127.0.0.1:0}")
    mark = len(service.log)
    service.signal(signal.SIGHUP)
    assert Probe(admin_url(service, mark)).status() == 200
    service.log.wait("no longer listening on unix:")
    assert eventually(lambda: not (tmp_path / "admin.sock").exists())
    file.write_text("{}")
    mark = len(service.log)
    service.signal(signal.SIGHUP)
    service.log.wait("no longer listening on http:", mark)
    assert eventually(lambda: not admins(service))
    assert get(service, "/who")["generation"] == 3


def test_a_taken_address_of_it_ends_the_start(start: Start) -> None:
    url = admin_url(start(*ADMIN))
    second = start("--admin", url.removeprefix("http://"))
    assert second.wait() == 4
    second.log.wait(r"cannot bind 127\.0\.0\.1:\d+: ")


def test_it_pushes_metrics_without_an_address(start: Start) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        service = start(
            config=f"metrics: {{statsd: {{address: '127.0.0.1:{sock.getsockname()[1]}', prefix: web, interval: 0.1s}}}}"
        ).ready()
        while b"web.workers.serving:1|g" not in sock.recv(2000):
            pass
        assert len(admins(service)) == 1
        assert "(admin)" not in str(service.log)


def test_history_goes_on_through_a_reload(start: Start) -> None:
    service = start(*ADMIN)
    probe = up(service)
    assert eventually(lambda: probe.ask("/history")[1])
    [first, *_] = probe.ask("/history")[1]
    [before] = admins(service)
    service.signal(signal.SIGHUP)
    assert eventually(lambda: before not in admins(service) and len(admins(service)) == 1)
    assert probe.ask("/history")[1][0] == first
    assert probe.ask("/status")[1]["service"]["generation"] in (1, 2)  # which the master tells once a second


def test_without_an_address_there_is_none(start: Start) -> None:
    service = start().ready()
    assert admins(service) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_works_as_the_user_of_the_workers(start: Start) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    # A place that nobody can read, and an application that needs nothing else: the interpreter may be root's alone.
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        Path(place, "plain.py").write_text(PLAIN)
        Path(place, "sitecustomize.py").write_text("import importlib.metadata")  # which the import of an app asks for
        env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}
        service = start(*ADMIN, "--user", "nobody", "--app-dir", place, app="plain:app", env=env)
        up(service)
        [pid] = admins(service)
        status = Path(f"/proc/{pid}/status").read_text("ascii")
        assert f"Uid:\t{nobody}\t{nobody}\t{nobody}\t{nobody}\n" in status
        service.signal(signal.SIGKILL)
        assert eventually(lambda: not service.members())


PLAIN = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})
"""
