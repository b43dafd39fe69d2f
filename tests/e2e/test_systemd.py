"""What a service manager is told, by a real master, on a socket as systemd's."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import APP_DIR, Start
from tests.e2e.service import PATIENCE, ROOT, Log, Service, eventually, get, processes


class Manager:
    """The service manager's end: the assignments that came, in order, each with the pid of who sent it.

    ``store`` has the sockets that it keeps, by name.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.said: list[tuple[int, str]] = []
        self.store: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)

    def read(self) -> None:
        while True:
            size = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4)
            try:
                data, ancillary, _, _ = self._socket.recvmsg(4096, size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            said = {kind: content for _, kind, content in ancillary}
            pid = int.from_bytes(said[socket.SCM_CREDENTIALS][:4], "little")
            lines = data.decode().splitlines()
            self.said += [(pid, line) for line in lines]
            if socket.SCM_RIGHTS in said:
                self._keep(lines, int.from_bytes(said[socket.SCM_RIGHTS], sys.byteorder))
            elif lines[0] == "FDSTOREREMOVE=1":
                os.close(self.store.pop(lines[1].removeprefix("FDNAME=")))

    def _keep(self, lines: list[str], fd: int) -> None:
        assert lines[0] == "FDSTORE=1"
        name = lines[1].removeprefix("FDNAME=")
        assert lines[1] == f"FDNAME={name}"
        assert name.isascii()
        assert name.isprintable()
        assert ":" not in name
        assert len(name) < 256
        if name in self.store:
            assert os.path.sameopenfile(fd, self.store[name])
            os.close(fd)
        else:
            self.store[name] = fd

    def keeps(self, count: int) -> bool:
        """Whether, in time, it has so many sockets."""

        def looked() -> bool:
            self.read()
            return len(self.store) == count

        return eventually(looked)

    def words(self, *names: str) -> list[str]:
        """What was assigned to these names so far, in order."""
        self.read()
        return [line for _, line in self.said if line.partition("=")[0] in names]

    def hears(self, expected: list[str], *names: str) -> bool:
        return eventually(lambda: self.words(*names) == expected)

    def close(self) -> None:
        self._socket.close()
        for fd in self.store.values():
            os.close(fd)
        self.store = {}


@contextmanager
def manager(address: str) -> Iterator[Manager]:
    one = Manager(address)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(params=["path", "abstract"])
def heard(request: Any, tmp_path: Path) -> Iterator[Manager]:
    name = f"@asgiri-test-{os.getpid()}-{time.monotonic_ns()}"
    with manager(name if request.param == "abstract" else str(tmp_path / "notify")) as one:
        yield one


def test_a_life_as_systemd_sees_it(start: Start, heard: Manager) -> None:
    service = start("-w", "2", env={"NOTIFY_SOCKET": heard.address})
    assert heard.hears(["READY=1"], "READY")
    assert heard.words("STATUS")[0].startswith("STATUS=2 of 2 workers ready, generation 1")
    service.ready()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    service.signal(signal.SIGHUP)
    names = ("READY", "RELOADING", "STOPPING")
    assert heard.hears(["READY=1", "RELOADING=1", "READY=1"], *names)
    [told] = heard.words("MONOTONIC_USEC")
    assert before <= int(told.partition("=")[2]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert "generation 2" in heard.words("STATUS")[-1]
    assert get(service, "/env?name=NOTIFY_SOCKET") == {"value": None}
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert heard.words(*names) == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert {pid for pid, _ in heard.said} == {service.pid}


def test_a_reload_that_is_refused_or_fails_is_over_too(start: Start, tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as heard:
        service = start(env={"NOTIFY_SOCKET": heard.address}).ready()
        (tmp_path / "asgiri.yaml").write_text("wrokers: {}", "utf-8")
        service.signal(signal.SIGHUP)
        assert heard.hears(["READY=1", "RELOADING=1", "READY=1"], "READY", "RELOADING")
        (tmp_path / "asgiri.yaml").write_text("env_file: none.env\n", "utf-8")
        service.signal(signal.SIGHUP)
        assert heard.hears(["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1"], "READY", "RELOADING")


def test_the_watchdog_is_fed_while_a_loop_turns(start: Start, tmp_path: Path) -> None:
    """And no longer: a service in which no worker can answer is for the manager to restart."""
    marks = tmp_path / "marks"
    marks.mkdir()
    with manager(str(tmp_path / "notify")) as heard:
        env = {"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": "600000", "MARKS": str(marks)}
        service = start(config="workers: {heartbeat_timeout: 0}", env=env).ready()
        assert eventually(lambda: len(heard.words("WATCHDOG")) >= 3)
        block(service, 600)
        assert eventually(lambda: falls_silent(heard))
        service.signal(signal.SIGQUIT)
        assert service.wait() == 0


def test_a_variable_that_makes_no_sense_is_told_in_the_log(start: Start, tmp_path: Path) -> None:
    """With a level, and where the log goes to: it is not read before there is a log."""
    with manager(str(tmp_path / "notify")) as heard:
        service = start(env={"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": "soon"}).ready()
        service.log.wait(r'WARN +\[master\] WATCHDOG_USEC is ignored: expected microseconds, got "soon"')


def falls_silent(heard: Manager) -> bool:
    """Whether the watchdog was not fed for a second."""
    fed = len(heard.words("WATCHDOG"))
    return not eventually(lambda: len(heard.words("WATCHDOG")) > fed, patience=1.0)


def block(service: Service, seconds: float) -> None:
    """Have a worker block its event loop; nobody waits for the answer."""
    with socket.create_connection(("127.0.0.1", service.port)) as sock:
        sock.sendall(f"GET /block?seconds={seconds} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert eventually((service.directory / "marks" / "blocked").exists)


def test_a_long_drain_is_extended(start: Start, tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as heard:
        service = start(config="workers: {drain_delay: 1500ms}", env={"NOTIFY_SOCKET": heard.address}).ready()
        assert heard.words("EXTEND_TIMEOUT_USEC") == []
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        assert heard.words("EXTEND_TIMEOUT_USEC")


def test_an_upgrade_hands_the_main_pid_over(start: Start, tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as heard:
        env = {"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": "30000000"}
        service = start(config="process: {pidfile: master.pid}", env=env).ready()
        service.signal(signal.SIGUSR2)
        service.log.wait("the upgrade is complete")
        heir = int((tmp_path / "master.pid").read_text("ascii"))
        assert heard.hears(["READY=1", f"MAINPID={heir}", "READY=1"], "READY", "MAINPID", "STOPPING")
        assert service.wait() == 0
        # What systemd takes from the main process only, comes from who is that at the time.
        assert [pid for pid, line in heard.said if line.startswith(("READY", "MAINPID"))] == [
            service.pid,
            service.pid,
            heir,
        ]
        assert eventually(lambda: heard.words("WATCHDOG") and (heir, "WATCHDOG=1") in heard.said)
        os.kill(heir, signal.SIGTERM)
        assert eventually(lambda: not service.members())
        assert heard.words("STOPPING") == ["STOPPING=1"]


# Sockets that systemd keeps

# What systemd does with what it keeps: descriptors from 3 on, and who they are for.
GIVE = """
import os, sys
count = int(os.environ["LISTEN_FDS"])
copies = [os.dup(int(fd)) for fd in sys.argv[1 : 1 + count]]
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(copies)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[1 + count], sys.argv[1 + count:])
"""

Restart = Callable[..., Service]


@pytest.fixture
def restart(tmp_path: Path) -> Iterator[Restart]:
    """Start a master as a manager does that keeps its sockets, with what it has of them."""
    services: list[Service] = []

    def begin(heard: Manager, config: str, room: int = 8) -> Service:
        (tmp_path / "asgiri.yaml").write_text(config, "utf-8")
        fds = list(heard.store.values())
        env = {"NOTIFY_SOCKET": heard.address, "FDSTORE": str(room), "MARKS": str(tmp_path)}
        if fds:
            env |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(heard.store)}
        prefix = (sys.executable, "-c", GIVE, *map(str, fds)) if fds else ()
        args = ("--app-dir", str(APP_DIR), "app:app")
        services.append(Service(tmp_path, *args, env=env, prefix=prefix, descriptors=fds))
        return services[-1]

    yield begin
    for service in services:
        service.close()


@pytest.fixture
def short() -> Iterator[str]:
    """A directory with a name that sockets can have."""
    with tempfile.TemporaryDirectory(prefix="asgiri-", dir="/tmp") as directory:
        yield directory


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody else is given."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_refuses_nobody(restart: Restart, tmp_path: Path, short: str, port: int, end: signal.Signals) -> None:
    """Who comes while there is no master waits for the next one, on TCP and on a unix socket."""
    web = f"{short}/web"
    config = f"listen: [{{bind: '127.0.0.1:{port}'}}, {{bind: 'unix:{web}', mode: '0600'}}]"
    with manager(str(tmp_path / "notify")) as heard:
        first = restart(heard, config).ready()
        assert heard.keeps(2)
        first.signal(end)
        assert first.wait() == (0 if end == signal.SIGTERM else -signal.SIGKILL)
        assert eventually(lambda: not first.members())
        with socket.create_connection(("127.0.0.1", port)) as client, socket.socket(socket.AF_UNIX) as local:
            local.connect(web)
            for one in (client, local):
                one.settimeout(PATIENCE)
                one.sendall(b"GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            second = restart(heard, config).ready()
            assert [one.recv(12) for one in (client, local)] == [b"HTTP/1.1 200"] * 2
        assert heard.keeps(2)
        assert stat.S_IMODE(os.stat(web).st_mode) == 0o600
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
        assert " WARN " not in str(second.log)


def test_what_is_kept_is_what_the_config_has(restart: Restart, tmp_path: Path, port: int) -> None:
    web, api = (f"{{bind: 'unix:{tmp_path}/{name}'}}" for name in ("web", "api"))
    with manager(str(tmp_path / "notify")) as heard:
        first = restart(heard, f"listen: [{{bind: '127.0.0.1:{port}'}}, {web}]").ready()
        assert heard.keeps(2)
        (tmp_path / "asgiri.yaml").write_text(f"listen: [{web}]", "utf-8")
        first.signal(signal.SIGHUP)
        first.log.wait("the reload is complete")
        assert heard.keeps(1)
        (tmp_path / "web").unlink()  # as a runtime directory goes: what was kept is of no use
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
        second = restart(heard, f"listen: [{web}]").ready()
        assert ask(str(tmp_path / "web"))["worker"] == 1
        assert eventually(lambda: heard.words("FDSTOREREMOVE") and len(heard.store) == 1)
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
        third = restart(heard, f"listen: [{api}]").ready()
        third.log.wait(f"passed on is not in the configuration, and is closed: .* kept by systemd, unix:{tmp_path}/web")
        assert not (tmp_path / "web").exists()
        third.ready()
        assert eventually(lambda: heard.words("STATUS") and ["/api," in name for name in heard.store] == [True])


def test_who_follows_in_an_upgrade_is_kept_too(restart: Restart, tmp_path: Path, port: int) -> None:
    with manager(str(tmp_path / "notify")) as heard:
        first = restart(heard, f"listen: [{{bind: '127.0.0.1:{port}'}}]").ready()
        assert heard.keeps(1)
        first.signal(signal.SIGUSR2)
        first.log.wait("the upgrade is complete")
        assert first.wait() == 0
        assert eventually(lambda: len(heard.words("FDSTORE")) == 2)
        assert [heard.words("FDSTOREREMOVE"), len(heard.store)] == [["FDSTOREREMOVE=1"], 1]


def test_no_more_is_kept_than_there_is_room_for(restart: Restart, tmp_path: Path) -> None:
    binds = ", ".join(f"{{bind: 'unix:{tmp_path}/{name}'}}" for name in "abc")
    with manager(str(tmp_path / "notify")) as heard:
        service = restart(heard, f"listen: [{binds}]", room=2).ready()
        service.log.wait("WARN .*has room for 2 sockets of 3: the others are closed in a restart")
        assert heard.keeps(2)
        assert get_env(tmp_path / "a", "FDSTORE") is None


def test_what_is_kept_is_given_up_when_it_is_not_to_be_kept_any_more(restart: Restart, tmp_path: Path) -> None:
    web = tmp_path / "web"
    with manager(str(tmp_path / "notify")) as heard:
        first = restart(heard, f"listen: [{{bind: 'unix:{web}'}}]").ready()
        assert heard.keeps(1)
        first.signal(signal.SIGTERM)
        assert first.wait() == 0
        second = restart(heard, f"listen: [{{bind: 'unix:{web}'}}]", room=0).ready()
        assert heard.keeps(0)
        assert ask(str(web))["worker"] == 1
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
        assert not web.exists()


def get_env(path: Path, name: str) -> Any:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=PATIENCE) as client:
        return client.get(f"http://a/env?name={name}").json()["value"]


# Socket activation

ACTIVATE = shutil.which("systemd-socket-activate")


@pytest.fixture
def activated(tmp_path: Path) -> Iterator[Callable[..., Activated]]:
    services: list[Activated] = []

    def begin(config: str, **sockets: str) -> Activated:
        (tmp_path / "asgiri.yaml").write_text(config, "utf-8")
        service = Activated(tmp_path, sockets)
        services.append(service)
        return service

    yield begin
    for service in services:
        service.close()


class Activated:
    """asgiri as a socket unit starts it: bound by another process, at the first connection. ``sockets``: name, path."""

    def __init__(self, directory: Path, sockets: dict[str, str]) -> None:
        assert ACTIVATE is not None
        listens = [argument for path in sockets.values() for argument in ("-l", path)]
        names = f"--fdname={':'.join(sockets)}"
        environ = [f"-E{name}={value}" for name, value in {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}.items()]
        self.process = subprocess.Popen(
            [ACTIVATE, *listens, names, *environ, sys.executable, "-m", "asgiri"],
            cwd=directory,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.log = Log(self.process.stderr)
        assert eventually(lambda: all(map(os.path.exists, sockets.values())))

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(PATIENCE) in (0, 4)
        assert eventually(lambda: not [title for title in processes(self.process.pid).values() if title])
        self.log.join()


def ask(path: str) -> Any:
    with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=PATIENCE) as client:
        return client.get("http://a/who").json()


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed")
def test_sockets_come_from_systemd_by_their_names(activated: Callable[..., Activated], tmp_path: Path) -> None:
    web, api, other = (str(tmp_path / name) for name in ("web", "api", "other"))
    config = f"""
app: app:app
app_dir: {APP_DIR}
listen:
  - bind: systemd:web
  - bind: unix:{tmp_path}/not-bound
    name: api
"""
    service = activated(config, web=web, api=api, other=other)
    assert ask(web)["worker"] == 1  # the connection that starts it is served, too
    assert ask(api)["generation"] == 1
    service.log.wait("a socket that was passed on is not in the configuration, and is closed: .*other")
    assert not os.path.exists(tmp_path / "not-bound")
    os.kill(service.process.pid, signal.SIGHUP)  # it has become the master, by exec
    service.log.wait("the reload is complete: generation 2 serves")
    assert [ask(web)["generation"], ask(api)["generation"]] == [2, 2]
    os.kill(service.process.pid, signal.SIGUSR2)
    service.log.wait("the upgrade is complete")
    assert service.process.wait(PATIENCE) == 0
    assert [ask(web)["generation"], ask(api)["generation"]] == [1, 1]
    [heir] = [pid for pid, title in processes(service.process.pid).items() if "master" in title]
    os.kill(heir, signal.SIGTERM)
    assert eventually(lambda: not any(processes(service.process.pid).values()))
    assert os.path.exists(web)  # systemd's file is systemd's
    assert os.path.exists(api)


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed")
def test_a_socket_that_systemd_does_not_have_is_an_exit_with_4(
    activated: Callable[..., Activated], tmp_path: Path
) -> None:
    web = str(tmp_path / "web")
    service = activated("listen: [{bind: 'systemd:shop'}]", web=web)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(web)
        assert service.process.wait(PATIENCE) == 4
    service.log.wait(r"cannot listen on systemd:shop: no socket was passed for it; left are: web")
