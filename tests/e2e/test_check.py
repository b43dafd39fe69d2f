"""``--check-config`` next to a service that runs: it tells whose the addresses are, and the service notices nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.e2e.conftest import APP_DIR, Start
from tests.e2e.service import ROOT, control, get, load
from tests.e2e.test_tls import HTTPS, install, shown
from tests.pki import Pki
from tests.proto.fakes import unused_port

CONFIG = """\
app: app:app
app_dir: {app_dir}
listen:
  - bind: 127.0.0.1:{port}
  - bind: unix:shop.sock
  - bind: unix:@asgiri-e2e-{port}
admin: {{bind: "127.0.0.1:{admin}"}}
control: {{socket: control.sock}}
process: {{pidfile: pid}}
"""


def check(directory: Path, *arguments: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "asgiri", "--check-config", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout in ("", "asgiri: asgiri.yaml is good\n")
    assert (done.returncode == 0) == bool(done.stdout)
    return done.returncode, [line.removeprefix("asgiri: ") for line in done.stderr.splitlines()]


def files(directory: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_ino for path in directory.rglob("*") if "__pycache__" not in path.parts}


def test_a_check_before_a_reload(start: Start, tmp_path: Path) -> None:
    port, admin = unused_port(), unused_port()
    config = CONFIG.format(app_dir=APP_DIR, port=port, admin=admin)
    service = start("-w", "2", "--no-access-log", config=config, app=None, bind=False).ready()
    before, mark = files(tmp_path), len(service.log)
    with load(service, clients=2) as clients:
        code, said = check(tmp_path, "--import")
        assert files(tmp_path) == before
        keeps = f"in use by the running service, pid {service.pid}, which keeps it"
        assert (code, said) == (
            0,
            [
                f"note: asgiri.yaml:4: listen[0].bind: 127.0.0.1:{port} is {keeps}",
                f"note: asgiri.yaml:5: listen[1].bind: unix:shop.sock is {keeps}",
                f"note: asgiri.yaml:6: listen[2].bind: unix:@asgiri-e2e-{port} is {keeps}",
                f"note: asgiri.yaml:7: admin.bind: 127.0.0.1:{admin} is {keeps}",
            ],
        )
        assert service.log.since(mark) == "", "the service has noticed"
    assert not any(client.failures for client in clients)
    assert control(tmp_path / "control.sock", "status")["pid"] == service.pid
    # What the notes say is so: a reload keeps the addresses.
    service.signal(signal.SIGHUP)
    service.log.wait("generation 2", mark)
    assert get(service, "/who")


def test_what_a_reload_could_not_bind_and_another_service(start: Start, tmp_path: Path) -> None:
    port = unused_port()
    config = f'app: app:app\napp_dir: {APP_DIR}\nlisten: [{{bind: "127.0.0.1:{port}"}}]\n'
    service = start(config=config, app=None, bind=False).ready()
    part = f"0.0.0.0:{port} is in use by the running service, pid {service.pid}, for another address of that port"
    assert check(tmp_path, "--bind", f"0.0.0.0:{port}") == (
        0,
        [f"warning: --bind: listen[0].bind: {part}: a reload cannot bind it, a restart can"],
    )
    mark = len(service.log)
    (tmp_path / "asgiri.yaml").write_text(config.replace("127.0.0.1", "0.0.0.0"), "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is refused", mark)
    (tmp_path / "asgiri.yaml").write_text(config, "utf-8")
    other = f"in use by another service of asgiri, pid {service.pid} (asgiri: master [app:app])"
    assert check(tmp_path, "asgiri.demo:app") == (
        0,
        [
            f"warning: asgiri.yaml:3: listen[0].bind: 127.0.0.1:{port} is {other}: fine if that one is to reload this",
        ],
    )


def test_a_certificate_that_has_expired_is_served_with_a_warning(start: Start, tmp_path: Path, pki: Pki) -> None:
    install(tmp_path, pki.issue("expired", "localhost", not_after=datetime(2020, 2, 3, 4, 5, tzinfo=UTC)))
    expired = r'listen\[0\]\.tls\.certfile: the certificate in "cert.pem" expired on 2020-02-03 04:05 UTC'
    service = start(config=HTTPS, app=None, bind=False)
    service.log.wait(f"WARN .*asgiri.yaml:4: {expired}")
    service.ready()
    mark = len(service.log)
    service.signal(signal.SIGHUP)
    service.log.wait(f"WARN .*{expired}", mark)
    service.log.wait("generation 2", mark)
    code, said = check(tmp_path)
    assert code == 2
    assert any("expired on 2020-02-03" in line and not line.startswith("warning") for line in said)
    install(tmp_path, (pki.certfile, pki.keyfile))
    mark = len(service.log)
    service.signal(signal.SIGHUP)
    service.log.wait("generation 3", mark)
    assert "expired" not in service.log.since(mark)
    assert shown(service, pki)
