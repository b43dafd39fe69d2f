"""USR2: another master on the same sockets. Nothing is lost, and there is a whole service or none at any time."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.bench.soak_run import ROOT, Load
from tests.e2e.conftest import Start
from tests.e2e.service import Service, control, eventually

CODE = (ROOT / "tests" / "bench" / "soak_app.py").read_text("utf-8")
CONFIG = """
app: own:app
listen:
  - bind: 127.0.0.1:{port}
  - bind: unix:web.sock
workers: {{count: 2}}
process: {{pidfile: master.pid}}
control: {{socket: control.sock}}
log: {{access: {{enabled: false}}}}
"""


def begin(start: Start, directory: Path, sleep: float = 0.0) -> Service:
    (directory / "own.py").write_text(CODE, "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    return start(config=CONFIG.format(port=port), app=None, bind=False, env={"SOAK_SLEEP": str(sleep)}).ready()


def master(service: Service) -> int:
    return int((service.directory / "master.pid").read_text("ascii"))


def upgrade(service: Service) -> int:
    """Do it, and wait until the old master is gone: the new one's pid."""
    before = master(service)
    os.kill(before, signal.SIGUSR2)
    assert eventually(lambda: master(service) != before), str(service.log)
    after = master(service)
    assert eventually(lambda: service.masters() == [after]), str(service.log)
    return after


def heir(service: Service) -> int:
    """The pid of a new master that is under way, as soon as it has a master's title."""
    seen: list[int] = []

    def is_there() -> bool:
        seen.extend(pid for pid in service.masters() if pid != service.pid)
        return bool(seen)

    assert eventually(is_there), str(service.log)
    return seen[0]


def ask(service: Service) -> None:
    assert httpx.get(service.url).status_code == 200


def worker_of(service: Service) -> int:
    """Who answers on the unix socket."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(service.directory / "web.sock"))) as client:
        return int(client.get("http://web/").headers["x-worker"])


def parents(service: Service) -> set[int]:
    found = set()
    for pid in service.workers():
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        found.add(int(fields[1]))
    return found


def test_upgrades_fail_no_request_of_three_loads(start: Start, tmp_path: Path) -> None:
    service = begin(start, tmp_path, sleep=0.2)
    with Load(f"127.0.0.1:{service.port}") as load, Load("unix:web.sock", directory=tmp_path) as local:
        first = upgrade(service)
        second = upgrade(service)
    for seen in (load.seen, local.seen):
        assert not seen.failures, seen.complaints()
        assert seen.ledger.abrupt == 0
    assert len({service.pid, first, second}) == 3
    assert service.wait() == 0
    assert parents(service) == {second}
    assert worker_of(service) in service.workers()
    assert control(tmp_path / "control.sock", "status")["pid"] == second
    os.kill(second, signal.SIGTERM)
    assert eventually(lambda: not service.members())
    assert not [name for name in ("master.pid", "web.sock", "control.sock") if (tmp_path / name).exists()]


@pytest.mark.parametrize(
    ("config", "code"),
    [("wrokers: {}\n", CODE), ("", f"{CODE}1 / 0\n"), ("lifespan: on\n", CODE)],
    ids=["config", "app", "lifespan"],
)
def test_the_old_master_stays_where_the_new_one_fails(start: Start, tmp_path: Path, config: str, code: str) -> None:
    service = begin(start, tmp_path)
    before = service.workers()
    good = (tmp_path / "asgiri.yaml").read_text("utf-8")
    (tmp_path / "asgiri.yaml").write_text(good + config, "utf-8")
    (tmp_path / "own.py").write_text(code, "utf-8")
    service.signal(signal.SIGUSR2)
    service.log.wait("the upgrade failed, this master goes on")
    assert eventually(lambda: service.masters() == [service.pid])
    assert service.workers() == before
    assert master(service) == service.pid
    assert worker_of(service) in before
    assert control(tmp_path / "control.sock", "status")["pid"] == service.pid
    ask(service)
    (tmp_path / "asgiri.yaml").write_text(good, "utf-8")
    (tmp_path / "own.py").write_text(CODE, "utf-8")
    assert upgrade(service) != service.pid
    ask(service)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_in_the_middle_of_an_upgrade_stops_both(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    service = begin(start, tmp_path, sleep=0.5)
    service.signal(signal.SIGUSR2)
    heir(service)
    service.signal(number)
    assert service.wait() == 0
    service.log.wait("the upgrade is over, the service stops")
    assert "this master goes on" not in str(service.log)
    assert eventually(lambda: not service.members())
    assert not [name for name in ("master.pid", "web.sock", "control.sock") if (tmp_path / name).exists()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_a_new_master_in_the_middle_leaves_the_old_one(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    service = begin(start, tmp_path, sleep=0.5)
    before = service.workers()
    service.signal(signal.SIGUSR2)
    os.kill(heir(service), number)
    service.log.wait("the upgrade failed, this master goes on")
    assert eventually(lambda: service.workers() == before)
    assert service.masters() == [service.pid]
    assert master(service) == service.pid
    ask(service)
    assert worker_of(service) in before


def test_the_death_of_the_old_master_in_the_middle_leaves_a_service(start: Start, tmp_path: Path) -> None:
    service = begin(start, tmp_path, sleep=0.5)
    service.signal(signal.SIGUSR2)
    new = heir(service)
    os.kill(service.pid, signal.SIGKILL)
    assert service.wait() == -signal.SIGKILL
    assert eventually(lambda: (tmp_path / "master.pid").exists() and master(service) == new), str(service.log)
    assert eventually(lambda: parents(service) == {new})
    ask(service)
    assert worker_of(service) in service.workers()
    assert control(tmp_path / "control.sock", "status")["pid"] == new


def test_a_term_to_either_after_an_upgrade(start: Start, tmp_path: Path) -> None:
    """The old one drains what it has and is gone by itself; the new one goes on."""
    service = begin(start, tmp_path)
    with socket.create_connection(("127.0.0.1", service.port), 20) as held:
        held.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 200 " in held.recv(65536)
        service.signal(signal.SIGUSR2)
        assert eventually(lambda: master(service) != service.pid), str(service.log)
        service.signal(signal.SIGTERM)
    assert service.wait() == 0
    new = master(service)
    assert service.masters() == [new]
    ask(service)
    os.kill(new, signal.SIGHUP)
    service.log.wait("the reload is complete")
    ask(service)


def test_an_old_master_that_drains_keeps_no_socket_open(start: Start, tmp_path: Path) -> None:
    """Where the new one has stopped, nobody accepts: clients would wait for the last request of the old one."""
    service = begin(start, tmp_path)
    with socket.create_connection(("127.0.0.1", service.port), 20) as busy:
        busy.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1")
        service.signal(signal.SIGUSR2)
        assert eventually(lambda: master(service) != service.pid), str(service.log)
        new = master(service)
        os.kill(new, signal.SIGTERM)
        assert eventually(lambda: service.masters() == [service.pid]), str(service.log)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", service.port), 20).close()
        busy.sendall(b"2")
        assert busy.recv(65536).startswith(b"HTTP/1.1 200")
    assert service.wait() == 0
