"""What is different in a container: PID 1, no environment, nothing to write to, and a stop at any time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import APP_DIR, Start
from tests.e2e.service import PATIENCE, ROOT, Service, eventually, get, processes

# As `docker run` has it: a pid namespace, whose first process is the master, with a /proc of its own.
PID_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")

# In a mount namespace, which makes what is mounted a copy: nothing of it can be written to any more.
READ_ONLY = """
while read -r _ _ _ _ place _; do
    case $place in /proc|/proc/*|/sys|/sys/*) continue;; esac
    mount -o remount,bind,ro "$place" 2>/dev/null
done </proc/self/mountinfo
for place in / /tmp /run /var/tmp /dev/shm "$PWD"; do
    if [ -d "$place" ] && touch "$place/asgiri-probe" 2>/dev/null; then
        rm -f "$place/asgiri-probe"
        echo "$place can still be written to" >&2
        exit 77
    fi
done
exec "$@"
"""
MOUNT_NAMESPACE = ("unshare", "--mount", "sh", "-c", READ_ONLY, "sh")

# A module whose import takes its time.
HANGS = "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n"

MOMENTS = [0.0, 0.02, 0.05, 0.1, 0.15, 0.2]  # seconds from the first one in which a signal is heard


def needs(*command: str) -> pytest.MarkDecorator:
    """Skip where the system does not let us have it."""
    reason = ""
    if shutil.which(command[0]) is None:
        reason = f"there is no {command[0]}"
    else:
        done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            reason = f"not permitted: {(done.stderr or 'why is not said').strip()}"
    return pytest.mark.skipif(bool(reason), reason=reason)


pid_1 = needs(*PID_NAMESPACE)


class Contained(Service):
    """A master as PID 1 of a pid namespace; what is not about the master is of ``unshare``, which waits for it."""

    def __init__(self, directory: Path, *args: str, env: dict[str, str] | None = None) -> None:
        super().__init__(directory, "--bind", "127.0.0.1:0", *args, env=env, prefix=PID_NAMESPACE)

    @property
    def master(self) -> int:
        """The master's pid, as it is seen from here."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        assert eventually(lambda: children.read_text("ascii")), str(self.log)
        return int(children.read_text("ascii"))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.master, number)

    def close(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)  # and with PID 1 goes its namespace
            self.wait()
        super().close()


Contain = Callable[..., Contained]


@pytest.fixture
def contain(tmp_path: Path) -> Iterator[Contain]:
    """Start a master in a pid namespace, with tests/e2e/app.py."""
    services: list[Contained] = []

    def begin(*args: str) -> Contained:
        services.append(Contained(tmp_path, *args, "--app-dir", str(APP_DIR), "app:app", env={"MARKS": str(tmp_path)}))
        return services[-1]

    yield begin
    for service in services:
        service.close()


class Request(threading.Thread):
    """One request, which lasts as long as the application wants; ``status`` is 0 when it was cut."""

    def __init__(self, service: Service, path: str) -> None:
        super().__init__(daemon=True)
        self._url = f"{service.url}{path}"
        self.status: int | None = None
        self.start()

    def run(self) -> None:
        try:
            self.status = httpx.get(self._url, timeout=PATIENCE, trust_env=False).status_code
        except httpx.TransportError:
            self.status = 0

    def wait(self) -> int | None:
        self.join(PATIENCE)
        return self.status


# PID 1


@pid_1
def test_pid_1_reaps_the_orphans_of_others(contain: Contain, tmp_path: Path) -> None:
    service = contain("-w", "1").ready()
    service.log.wait("pid 1$")
    get(service, "/orphan")
    mark = tmp_path / "parent"
    assert eventually(lambda: mark.exists() and mark.read_text() == "1\n"), "it was no orphan of PID 1's"
    assert eventually(lambda: "" not in processes(service.pid).values()), "a zombie is left"
    assert len(service.workers()) == 1


@pid_1
def test_pid_1_stops_gracefully(contain: Contain) -> None:
    service = contain("-w", "2").ready()
    request = Request(service, "/slow?seconds=0.5")
    assert eventually(lambda: busy(service))
    service.signal(signal.SIGTERM)
    assert (service.wait(), request.wait()) == (0, 200)
    assert "Traceback" not in str(service.log)


@pid_1
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_stop_is_quick(contain: Contain, second: signal.Signals) -> None:
    service = contain("-w", "1").ready()
    request = Request(service, "/slow?seconds=60")
    assert eventually(lambda: busy(service))
    service.signal(signal.SIGTERM)
    service.log.wait("stopping, requests in progress are finished")
    assert service.process.poll() is None
    began = time.monotonic()
    service.signal(second)
    assert (service.wait(), request.wait()) == (0, 0)
    assert time.monotonic() - began < 5


@pid_1
def test_all_goes_with_pid_1(contain: Contain) -> None:
    service = contain("-w", "2", "--admin", "127.0.0.1:0").ready()
    service.signal(signal.SIGKILL)
    assert service.wait() != 0
    assert eventually(lambda: not service.members())


# The first moments


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_of_the_first_moments_is_heard(start: Start, number: signal.Signals) -> None:
    for moment in MOMENTS:
        service = start("-w", "1")
        heard_from(service.pid, moment)
        service.signal(number)
        assert service.wait() == 0, (moment, str(service.log))
        assert "Traceback" not in str(service.log)
        assert eventually(lambda: not service.members())  # noqa: B023 - it is asked within the round


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_stop_is_heard_before_anything_else_is_imported(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "click.py").write_text(HANGS)  # in the place of the first library that the command imports
    service = start()
    assert eventually((tmp_path / "begun").exists), str(service.log)
    service.signal(number)
    assert service.wait() == 0
    assert str(service.log) == ""


@pid_1
def test_pid_1_hears_a_stop_of_the_first_moments(contain: Contain) -> None:
    for moment in MOMENTS[::2]:
        service = contain("-w", "1")
        heard_from(service.master, moment)
        service.signal(signal.SIGTERM)
        assert service.wait() == 0, (moment, str(service.log))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_check_that_is_interrupted_has_found_nothing_good(
    start: Start, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "slow.py").write_text(HANGS)
    service = start("--check-config", "--import", app="slow:app")
    assert eventually((tmp_path / "begun").exists), str(service.log)
    service.signal(number)
    assert service.wait() == code
    assert str(service.log) == ""


def heard_from(pid: int, moment: float) -> None:
    """Wait until the process hears a TERM, which Python by itself does not; and then that many seconds."""
    status = Path(f"/proc/{pid}/status")
    bit = 1 << (signal.SIGTERM - 1)

    def hears() -> bool:
        caught = next(line for line in status.read_text("ascii", "replace").splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) & bit)

    assert eventually(hears)
    time.sleep(moment)


# The master gone


def test_nothing_is_left_of_a_master_that_is_killed(start: Start, tmp_path: Path) -> None:
    service = start("-w", "2", "--admin", "127.0.0.1:0", env={"MARKS": str(tmp_path)}).ready()
    assert eventually(lambda: "asgiri: admin" in service.members().values()), service.members()
    request = Request(service, "/slow?seconds=0.5")
    assert eventually(lambda: busy(service))
    service.signal(signal.SIGKILL)
    assert request.wait() == 200  # the workers drain
    assert eventually(lambda: not service.members())
    service.log.wait(r"\[admin\] the master is gone")


# No environment, and nothing to write to


@pytest.mark.skipif(shutil.which("env") is None, reason="there is no env")
def test_it_needs_no_environment(tmp_path: Path) -> None:
    args = ("--bind", "127.0.0.1:0", "-w", "2", "--app-dir", str(APP_DIR), "app:app")
    service = Service(tmp_path, *args, prefix=("env", "-i", "-C", str(ROOT)))
    try:
        service.ready()
        assert get(service, "/env?name=HOME") == get(service, "/env?name=PATH") == {"value": None}
        service.signal(signal.SIGHUP)
        service.log.wait("the reload is complete")
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
    finally:
        service.close()


@needs(*MOUNT_NAMESPACE)
def test_it_needs_no_place_to_write_to(tmp_path: Path) -> None:
    args = ("--bind", "127.0.0.1:0", "-w", "2", "--admin", "127.0.0.1:0", "--app-dir", str(APP_DIR), "app:app")
    service = Service(tmp_path, *args, env={"RUNTIME_DIRECTORY": ""}, prefix=MOUNT_NAMESPACE)
    try:
        service.ready()
        service.log.wait(r"INFO .*there is no control socket, .*[Rr]ead-only file system")
        assert get(service, "/who")["worker"] in (1, 2)
        service.signal(signal.SIGHUP)
        service.log.wait("the reload is complete")
        service.signal(signal.SIGTERM)
        assert service.wait() == 0
        assert "ERROR" not in str(service.log)
    finally:
        service.close()


@needs(*MOUNT_NAMESPACE)
def test_a_pid_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    args = ("--bind", "127.0.0.1:0", "--pidfile", "master.pid")
    service = Service(tmp_path, *args, prefix=MOUNT_NAMESPACE)
    try:
        assert service.wait() == 2
        service.log.wait(r'process\.pidfile: cannot write ".*master\.pid": Read-only file system')
    finally:
        service.close()


def busy(service: Service) -> bool:
    """The application has begun with a request."""
    return (service.directory / "slow").exists()
