"""The units of systemd/: what systemd says of them, that they fit asgiri and its sample, a life in their sandbox."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from asgiri.units import parse_duration
from tests.e2e.conftest import APP_DIR
from tests.e2e.sandbox import library, settings, system_calls
from tests.e2e.service import PATIENCE, ROOT, Log, Service, eventually, processes
from tests.e2e.test_container import needs
from tests.pki import Pki

UNITS = ROOT / "systemd"
SERVICES = ("asgiri.service", "asgiri@.service")
SOCKETS = tuple(path.name for path in sorted(UNITS.glob("*.socket")))
DROP_INS = tuple(path.name for path in sorted((UNITS / "drop-ins").glob("*.conf")))
SYSTEM = Path("/usr/lib/systemd/system")
SAMPLE: dict[str, Any] = yaml.safe_load((ROOT / "config" / "production.yaml").read_text("utf-8"))


def version() -> int:
    """systemd's; 0: there is none."""
    if shutil.which("systemd-analyze") is None or not SYSTEM.is_dir():
        return 0
    out = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(out.split()[1])


VERSION = version()
analyzed = pytest.mark.skipif(not VERSION, reason="there is no systemd-analyze")
activates = pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system on which the units and what they start are installed."""
    there = tmp_path / "etc" / "systemd" / "system"
    there.mkdir(parents=True)
    for name in (*SERVICES, *SOCKETS):
        shutil.copy(UNITS / name, there)
    shutil.copytree(SYSTEM, tmp_path / SYSTEM.relative_to("/"), symlinks=True)
    for program in ("opt/asgiri/bin/asgiri", "opt/asgiri/bin/asgirictl", "bin/kill"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
    return tmp_path


def analyze(root: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", *args[:1], f"--root={root}", *args[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


def verify(root: Path) -> str:
    """What systemd has to say against the units; empty when that is nothing."""
    names = ("asgiri.service", "asgiri@shop.service", *SOCKETS)
    done = analyze(root, "verify", "--man=no", *names)
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


def drop_in(root: Path, name: str) -> None:
    for service in SERVICES:
        folder = root / "etc" / "systemd" / "system" / f"{service}.d"
        folder.mkdir()
        shutil.copy(UNITS / "drop-ins" / name, folder)


@analyzed
def test_systemd_has_nothing_to_say_against_them(root: Path) -> None:
    assert verify(root) == ""
    (root / "opt" / "asgiri" / "bin" / "asgiri").unlink()
    assert "/opt/asgiri/bin/asgiri is not executable" in verify(root)  # so it would have


@analyzed
@pytest.mark.parametrize("name", ["", *DROP_INS])
def test_how_exposed_they_are(root: Path, name: str) -> None:
    """Below 3.0 of 10, by systemd's own reckoning, with each of the drop-ins too, which are good as well."""
    if name == "notify-reload.conf" and VERSION < 253:
        pytest.skip(f"systemd {VERSION} does not know Type=notify-reload")
    if name:
        drop_in(root, name)
        assert verify(root) == ""
    for unit in ("asgiri.service", "asgiri@shop.service"):
        done = analyze(root, "security", "--offline=true", "--threshold=29", "--no-pager", unit)
        assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_both_services_are_the_same_but_for_their_names() -> None:
    one, many = (settings(UNITS / name) for name in SERVICES)
    assert many.pop("SyslogIdentifier") == ["asgiri-%i"]
    assert many["Environment"].pop(0) == "ASGIRI_CONTROL__SOCKET=%t/asgiri/%i/control.sock"
    text = {name: [value.replace("asgiri/%i", "asgiri") for value in values] for name, values in many.items()}
    differ = {name: (one[name], text[name]) for name in one | text if one[name] != text[name]}
    assert differ == {
        "Description": (["asgiri, the ASGI server"], ["asgiri, the ASGI server, for %i"]),
        "ExecStart": (
            ["/opt/asgiri/bin/asgiri -c /etc/asgiri/asgiri.yaml"],
            ["/opt/asgiri/bin/asgiri -c /etc/asgiri.yaml"],
        ),
        "WorkingDirectory": (["/srv/app"], ["/srv/%i"]),
    }


def test_the_sockets_are_those_of_the_sample() -> None:
    names = [settings(UNITS / name)["FileDescriptorName"][0] for name in SOCKETS]
    assert sorted(names) == sorted(listen["name"] for listen in SAMPLE["listen"])
    assert all(settings(UNITS / name).get("Service", ["asgiri.service"]) == ["asgiri.service"] for name in SOCKETS)


@pytest.mark.parametrize("name", SERVICES)
def test_the_times_and_limits_are_those_of_the_sample(name: str) -> None:
    unit = settings(UNITS / name)
    workers = SAMPLE["workers"]
    drain = parse_duration(workers["drain_timeout"]) + parse_duration(workers.get("drain_delay", "0s"))
    assert float(unit["TimeoutStopSec"][0]) >= drain + 2
    assert float(unit["TimeoutStartSec"][0]) > parse_duration(workers.get("boot_timeout", "60s"))
    assert int(unit["LimitNOFILE"][0]) > SAMPLE["limits"]["connections"]
    assert f"FDSTORE={unit['FileDescriptorStoreMax'][0]}" in unit["Environment"]
    assert int(unit["FileDescriptorStoreMax"][0]) > len(SAMPLE["listen"])


# In the sandbox

CAPABILITY = ("--bounding-set=-all,+net_bind_service", "--inh-caps=-all,+net_bind_service", "--no-new-privs")
CONFINED = ("unshare", "--net", "setpriv", *CAPABILITY)


def sandboxed(unit: str) -> tuple[str, ...]:
    return (*CONFINED, sys.executable, "-W", "error", str(ROOT / "tests" / "e2e" / "sandbox.py"), str(UNITS / unit))


has_seccomp = pytest.mark.skipif(library() is None, reason="there is no libseccomp")
LACKS = {
    "memory that is written and run": "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
    "raw packets": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "another user": "import os; os.setuid(1)",
    "another root": "import os; os.chroot('/')",
    "mounts": "import ctypes, os; r = ctypes.CDLL(None, use_errno=True).mount(b'a', b'/', b'tmpfs', 0, None); "
    "raise SystemExit() if r == 0 else OSError(ctypes.get_errno(), 'mount')",
}


@analyzed
@has_seccomp
@needs(*CONFINED)
def test_asgiri_lives_in_the_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system calls, the memory and the capability that the unit leaves do for all of a service's life."""
    config = f"listen: [{{bind: '0.0.0.0:443'}}, {{bind: 'unix:web', mode: '0660', group: '{os.getegid()}'}}]"
    (tmp_path / "asgiri.yaml").write_text(f"{config}\nworkers: {{count: auto}}\nadmin: {{bind: 'unix:admin'}}", "utf-8")
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    (tmp_path / "marks").mkdir()
    args = ("--app-dir", str(APP_DIR), "app:app")
    service = Service(tmp_path, *args, prefix=sandboxed("asgiri.service"), env={"MARKS": str(tmp_path / "marks")})
    try:
        service.log.wait(r"listening on http://0\.0\.0\.0:443 ")  # which takes the capability
        service.ready()
        status = Path(f"/proc/{service.pid}/status").read_text("ascii")
        assert re.search(r"(?m)^Seccomp:\s+2$", status)
        assert ask("web", "/who")["generation"] == 1
        assert ask("admin", "/readyz")["ready"]
        service.signal(signal.SIGHUP)
        service.log.wait("the reload is complete")
        assert ask("web", "/who")["generation"] == 2
        service.signal(signal.SIGUSR2)
        service.log.wait("the upgrade is complete")
        assert service.wait() == 0
        [heir] = service.masters()
        os.kill(heir, signal.SIGTERM)
        assert eventually(lambda: not service.members())
        assert not re.search(" (WARN|ERROR|CRIT) ", str(service.log)), str(service.log)
    finally:
        service.close()


@analyzed
@has_seccomp
@needs(*CONFINED)
@pytest.mark.parametrize("what", LACKS)
def test_what_the_sandbox_does_not_leave(what: str) -> None:
    code = f"try:\n {LACKS[what].replace('; ', chr(10) + ' ')}\nexcept OSError as error: print(error.errno)"
    command = [*sandboxed("asgiri.service"), sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.stdout.strip().isdecimal(), done


@analyzed
def test_a_master_that_is_root_has_its_calls_too() -> None:
    lines = settings(UNITS / "asgiri.service")["SystemCallFilter"]
    assert not {"setresuid", "setgroups"} & system_calls(lines)
    more = settings(UNITS / "drop-ins" / "root-master.conf")["SystemCallFilter"]
    assert {"setresuid", "setresgid", "setgroups", "fchown"} <= system_calls([*lines, *more])


def ask(path: str, target: str) -> Any:
    with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=PATIENCE) as client:
        response = client.get(f"http://localhost{target}")
        assert response.status_code == 200, response.text
        return response.json()


# Activated by the shipped socket units


@pytest.fixture
def activated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[str], Log, Pki]]:
    """The sample for production, with the sockets of the units, by their names, bound as files in the directory."""
    monkeypatch.chdir(tmp_path)
    pki = Pki(tmp_path)
    Path(pki.keyfile).chmod(0o640)
    for name in ("run", "log"):
        (tmp_path / name).mkdir()
    names = [settings(UNITS / unit)["FileDescriptorName"][0] for unit in SOCKETS]
    env = {
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "APP_DIR": str(tmp_path),
        "CERTFILE": pki.certfile,
        "KEYFILE": pki.keyfile,
        "RUNTIME_DIRECTORY": "run",
        "LOGS_DIRECTORY": str(tmp_path / "log"),
        "PROXY_GROUP": str(os.getegid()),
        "WORKER_USER": pwd.getpwuid(os.geteuid()).pw_name,
        "ADMIN": "127.0.0.1:0",
        "ASGIRI_WORKERS__COUNT": "1",
    }
    listens = [word for name in names for word in ("-l", str(tmp_path / name))]
    environ = [f"-E{name}={value}" for name, value in env.items()]
    command = [sys.executable, "-m", "asgiri", "-c", str(ROOT / "config" / "production.yaml")]
    process = subprocess.Popen(
        ["systemd-socket-activate", *listens, f"--fdname={':'.join(names)}", *environ, *command],
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = Log(process.stderr)
    try:
        assert eventually(lambda: all(map(os.path.exists, names)))
        yield process, log, pki
    finally:
        process.terminate()
        process.wait(PATIENCE)
        assert eventually(lambda: not any(processes(process.pid).values()))
        log.join()


@activates
def test_the_sample_is_served_on_the_sockets_of_the_units(
    activated: tuple[subprocess.Popen[str], Log, Pki], tmp_path: Path
) -> None:
    process, log, pki = activated
    context = pki.client(alpn=("h2", "http/1.1"))
    with httpx.Client(
        transport=httpx.HTTPTransport(uds="https", verify=context, http2=True), timeout=PATIENCE
    ) as client:
        response = client.get("https://127.0.0.1/")
        assert (response.status_code, response.http_version) == (200, "HTTP/2")
    with httpx.Client(transport=httpx.HTTPTransport(uds="proxy"), timeout=PATIENCE) as client:
        assert client.get("http://unix/").status_code == 200
    assert "asgiri.sock" not in os.listdir("run")  # it binds nothing by itself
    assert "is not in the configuration" not in str(log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
