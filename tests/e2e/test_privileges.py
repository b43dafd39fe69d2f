"""A real service whose workers are nobody: what was root's is open, and the application is not root.

The interpreter and the checkout may be for root's eyes only (a home directory, a CI's temporary one): in a mount
namespace of its own, the service sees them at places that everybody can read.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import PATIENCE, ROOT, Log, eventually, processes
from tests.pki import Pki

NOBODY = pwd.getpwnam("nobody")

APP = """
import ctypes, json, os

def capabilities():
    with open("/proc/self/status") as status:
        return sum(int(line.split()[1], 16) for line in status if line.startswith(("CapEff", "CapPrm")))

async def app(scope, receive, send):
    signal = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(signal), 0, 0, 0)  # PR_GET_PDEATHSIG
    umask = os.umask(0)
    os.umask(umask)
    body = json.dumps({
        "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "capabilities": capabilities(),
        "dies_on": signal.value, "umask": umask, "key": os.access(os.environ["KEY"], os.R_OK),
        "env": {name: os.environ.get(name) for name in ("HOME", "USER", "LOGNAME", "SECRET")}, "pid": os.getpid(),
    }).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


def may_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="takes root, and a mount namespace (unshare -m)")


class Unprivileged:
    """A master whose workers are nobody. ``folder`` is readable by all."""

    def __init__(self, folder: Path, *args: str, env: dict[str, str] | None = None) -> None:
        # Where they are here, and where the service sees them.
        places = {
            sys.base_prefix: folder / "python",
            sysconfig.get_path("purelib"): folder / "packages",
            str(ROOT): folder / "checkout",
        }
        script = "mount --make-rprivate /\n"
        for here, there in places.items():
            there.mkdir(exist_ok=True)
            script += f"mount --bind {shlex.quote(here)} {shlex.quote(str(there))}\n"
        base = os.path.realpath(sys.executable)
        program = folder / "python" / os.path.relpath(base, sys.base_prefix)
        mounted = ["unshare", "-m", "sh", "-e", "-c", script + 'exec "$@"', "sh"]
        command = [str(program), "-W", "error", "-m", "asgiri", "--bind", "127.0.0.1:0", "--user", "nobody"]
        self.process = subprocess.Popen(
            [*mounted, *command, "--app-dir", str(folder / "app"), *args, "main:app"],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": f"{folder / 'checkout'}:{folder / 'packages'}",
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": "/root",
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.log = Log(self.process.stderr)

    def get(self, tls: ssl.SSLContext | None = None) -> Any:
        found = self.log.wait(r"listening on (https?)://127\.0\.0\.1:(\d+)")
        url = f"{found[1]}://{'localhost' if tls else '127.0.0.1'}:{found[2]}/"
        with urllib.request.urlopen(url, timeout=PATIENCE, context=tls) as answer:
            return json.load(answer)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
        gone = eventually(lambda: not any(processes(self.process.pid).values()), 5.0)
        self.log.join()
        assert gone


Start = Callable[..., Unprivileged]


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody can read, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        app = Path(name, "app")
        app.mkdir()
        (app / "main.py").write_text(APP, "ascii")
        yield Path(name)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    services: list[Unprivileged] = []

    def begin(*args: str, env: dict[str, str] | None = None) -> Unprivileged:
        services.append(Unprivileged(folder, *args, env=env))
        return services[-1]

    yield begin
    for service in services:
        service.close()


def test_what_takes_root_is_done_before_and_the_application_is_nobody(start: Start, folder: Path, pki: Pki) -> None:
    private = folder / "private"
    private.mkdir(0o700)
    shutil.copy(pki.certfile, private / "cert.pem")
    shutil.copy(pki.keyfile, private / "key.pem")
    (private / "env").write_text("SECRET=of root's\nLOGNAME=somebody\n", "ascii")
    for file in private.iterdir():
        file.chmod(0o600)
    service = start(
        *("--certfile", str(private / "cert.pem"), "--keyfile", str(private / "key.pem")),
        *("--set", f"env_file={private / 'env'}", "--set", "process.umask=027"),
        *("--access-log", "--set", f"log.access.file={private / 'access.log'}", "--set", "env={HOME: /from-env}"),
        env={"KEY": str(private / "key.pem")},
    )
    service.log.wait("ready: 1 worker")
    found = service.get(pki.client())
    user, group = NOBODY.pw_uid, NOBODY.pw_gid
    assert (found["uids"], found["gids"]) == ([user] * 3, [group] * 3)
    assert found["groups"] == os.getgrouplist("nobody", group)
    assert (found["capabilities"], found["key"], found["umask"]) == (0, False, 0o27)
    assert found["dies_on"] == signal.SIGTERM, "the tie to the master is there after the change"
    assert found["env"] == {"HOME": "/from-env", "USER": "nobody", "LOGNAME": "somebody", "SECRET": "of root's"}
    assert os.stat(f"/proc/{service.process.pid}").st_uid == 0

    assert "cannot" not in str(service.log), "nobody has asked for the logs to be opened anew"

    # The rotated file is root's and cannot be opened any more: it says so, and goes on with the old one.
    (private / "access.log").rename(private / "access.log.1")
    service.process.send_signal(signal.SIGUSR1)
    service.log.wait("cannot reopen the access log .*Permission denied")
    service.get(pki.client())
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE) == 0
    assert (private / "access.log.1").read_text("ascii").count("GET / ") == 2


def test_a_key_for_root_alone_is_renewed_while_the_workers_are_nobody(start: Start, folder: Path, pki: Pki) -> None:
    private = folder / "private"
    private.mkdir(0o700)
    certfile, keyfile = private / "cert.pem", private / "key.pem"

    def put(pair: tuple[str, str]) -> None:
        for path, source in zip((certfile, keyfile), pair, strict=True):
            shutil.copy(source, path)
            path.chmod(0o600)

    put((pki.certfile, pki.keyfile))
    service = start("--certfile", str(certfile), "--keyfile", str(keyfile), "--log-level", "debug", env={"KEY": "/"})
    service.log.wait("ready: 1 worker")
    assert service.get(pki.client())["uids"] == [NOBODY.pw_uid] * 3
    other = Pki(folder / "app")  # whom no client of the old one trusts
    put((other.certfile, other.keyfile))
    service.log.wait("a new certificate for localhost, 127.0.0.1, until")
    service.log.wait("new certificates are taken")
    assert service.get(other.client())["uids"] == [NOBODY.pw_uid] * 3


def test_the_workers_of_a_master_that_is_killed_end(start: Start) -> None:
    service = start(env={"KEY": "/"})
    service.log.wait("ready: 1 worker")
    service.get()
    service.process.kill()
    assert eventually(lambda: not any(processes(service.process.pid).values()), 10.0)


def test_an_app_dir_for_root_alone(start: Start, folder: Path) -> None:
    (folder / "app").chmod(0o700)
    service = start()
    service.log.wait(f'app_dir "{folder / "app"}" cannot be read by uid {NOBODY.pw_uid}, gid {NOBODY.pw_gid}')
    assert service.process.wait(PATIENCE) == 3


def test_no_such_user_is_known_before_anything_is_bound(start: Start) -> None:
    service = start("--user", "nosuchuser")
    assert service.process.wait(PATIENCE) == 2
    service.log.join()
    assert re.search(r'--user: process\.user: there is no user "nosuchuser"', str(service.log))
    assert "listening" not in str(service.log)
