"""The sample files of config/: each starts as it is, for real, and does what it says."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, ROOT, Service, control
from tests.pki import Pki

CONFIG = ROOT / "config"
ADMIN = r"listening on (http://127\.0\.0\.1:\d+) \(admin\)"


def answer(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        assert response.status == 200
        return str(response.read().decode())


def sample(start: Start, directory: Path, name: str, *args: str, env: dict[str, str] | None = None) -> Service:
    """The service that a sample file makes, in ``directory``, after --check-config has found it good."""
    path = str(CONFIG / name)
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(env or {})}
    command = [sys.executable, "-W", "error", "-m", "asgiri", "-c", path, *args, "--check-config"]
    check = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, check=False)
    assert (check.returncode, check.stderr) == (0, "")
    assert f"{path} is good" in check.stdout
    return start("-c", path, *args, app=None, bind=False, env=env)


def stop(service: Service) -> None:
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_every_sample_file_is_started_here() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [path.name for path in CONFIG.glob("*.yaml") if f'"{path.name}"' not in text] == []


def test_the_sample_with_all_keys(start: Start, tmp_path: Path) -> None:
    service = sample(start, tmp_path, "asgiri.yaml", "--bind", "127.0.0.1:0").ready()
    assert "asgiri" in answer(service.url)
    assert len(service.workers()) == 2
    stop(service)


def test_the_sample_for_development(start: Start, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("from asgiri.demo import app\n")
    service = sample(start, tmp_path, "development.yaml", "--bind", "127.0.0.1:0", "main:app").ready()
    assert "asgiri" in answer(service.url)
    assert "EventSource" in answer(f"{service.url}/.asgiri/reload.js")
    service.log.wait(r'HTTP .*"GET / HTTP/1\.1" 200')
    (tmp_path / "style.css").touch()
    service.log.wait("style.css changed: reloading")
    service.log.wait("generation 2 serves")
    stop(service)


def test_the_sample_for_containers(start: Start, tmp_path: Path) -> None:
    env = {"PORT": "0", "ADMIN_PORT": "0", "WORKERS": "1", "ASGIRI_WORKERS__DRAIN_DELAY": "50ms"}
    service = sample(start, tmp_path, "container.yaml", env=env).ready()
    port = service.log.wait(r'"listening on http://0\.0\.0\.0:(\d+) \(h2')[1]
    admin = service.log.wait(r'"listening on http://0\.0\.0\.0:(\d+) \(admin\)')[1]
    assert "asgiri" in answer(f"http://127.0.0.1:{port}/")
    assert answer(f"http://127.0.0.1:{admin}/livez")
    service.log.wait(r'"logger": "asgiri\.access", .*"path": "/"')
    stop(service)


def test_the_sample_for_production(start: Start, tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    Path(pki.keyfile).chmod(0o600)  # as the file says; --check-config would warn
    (tmp_path / "run").mkdir()
    (tmp_path / "log").mkdir()
    env = {
        "APP_DIR": str(tmp_path),
        "ADDRESS": "127.0.0.1:0",
        "CERTFILE": pki.certfile,
        "KEYFILE": pki.keyfile,
        "RUNTIME_DIRECTORY": "run",  # the names of sockets are short
        "LOGS_DIRECTORY": str(tmp_path / "log"),
        "PROXY_GROUP": str(os.getegid()),
        "WORKER_USER": pwd.getpwuid(os.geteuid()).pw_name,
        "ADMIN": "127.0.0.1:0",
        "ASGIRI_WORKERS__COUNT": "2",  # auto would keep a large machine busy
    }
    service = sample(start, tmp_path, "production.yaml", env=env).ready()
    with httpx.Client(verify=pki.client(alpn=("h2", "http/1.1")), http2=True) as client:
        response = client.get(f"https://127.0.0.1:{service.port}/")
        assert (response.status_code, response.http_version) == (200, "HTTP/2")
        assert response.headers["strict-transport-security"] == "max-age=31536000"
    assert stat.S_IMODE((tmp_path / "run" / "asgiri.sock").stat().st_mode) == 0o660
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "run" / "asgiri.sock"))) as client:
        assert client.get("http://unix/").status_code == 200
    assert answer(f"{service.log.wait(ADMIN)[1]}/livez")
    assert control(tmp_path / "run" / "control.sock", "status")["count"] == 2
    stop(service)
    requests = (tmp_path / "log" / "access.log").read_text("utf-8").splitlines()
    assert len([line for line in requests if '"GET / HTTP/' in line]) == 2
    assert list((tmp_path / "run").iterdir()) == []
