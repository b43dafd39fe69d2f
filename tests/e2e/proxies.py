"""Real nginx, haproxy and Envoy in front of a service: each of its own config text, and seen to be gone at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.service import PATIENCE, eventually

# What nginx needs to run as whoever runs the tests, in one folder, without workers that outlive it.
NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
{streams}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
{http}
}}
"""

HAPROXY = """
global
    maxconn 256
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    timeout tunnel 20s
{text}
"""


def needs(program: str) -> str:
    """The program's path; the test is skipped where there is none, and fails on CI, which installs it."""
    places = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", str(Path(sys.executable).parent)]
    path = shutil.which(program, path=os.pathsep.join(places))
    if path is None:
        assert not os.environ.get("CI"), f"{program} is not installed"
        pytest.skip(f"{program} is not installed")
    return path


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def nginx(http: str, *ports: int, streams: str = "") -> Iterator[None]:
    """nginx with these server blocks of its http context, and of ``streams``, a whole stream block.

    It has begun to listen on the ``ports`` when the body runs.
    """
    program = needs("nginx")
    with tempfile.TemporaryDirectory(prefix="nginx-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)  # unprivileged processes read it, where root runs the tests
        config = Path(directory, "nginx.conf")
        if streams and Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists():  # Debian's is not built in
            config.write_text("load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n", "utf-8")
        with config.open("a", encoding="utf-8") as file:
            file.write(NGINX.format(directory=directory, http=http, streams=streams))
        with _running([program, "-p", directory, "-e", "stderr", "-c", str(config)], ports):
            yield


@contextmanager
def haproxy(text: str, *ports: int) -> Iterator[None]:
    """haproxy with these sections (frontend, backend); it listens on the ``ports`` when the body runs."""
    with whole_haproxy(HAPROXY.format(text=text), *ports):
        yield


@contextmanager
def envoy(text: str, *ports: int) -> Iterator[None]:
    """Envoy with this whole config; it listens on the ``ports`` when the body runs."""
    program = needs("envoy")
    with tempfile.TemporaryDirectory(prefix="envoy-", dir="/tmp") as directory:
        config = Path(directory, "envoy.yaml")
        config.write_text(text, "utf-8")
        # One thread, and no shared memory: several may run on one machine.
        few = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
        with _running([program, "-c", str(config), *few], ports):
            yield


@contextmanager
def whole_haproxy(text: str, *ports: int) -> Iterator[None]:
    """haproxy with this whole config."""
    program = needs("haproxy")
    with tempfile.TemporaryDirectory(prefix="haproxy-", dir="/tmp") as directory:
        config = Path(directory, "haproxy.cfg")
        config.write_text(text, "utf-8")
        with _running([program, "-db", "-f", str(config)], ports):
            yield


@contextmanager
def whole_nginx(text: str, *ports: int) -> Iterator[None]:
    """nginx with this whole config, but for where it writes, and that it stays one process."""
    program = needs("nginx")
    with tempfile.TemporaryDirectory(prefix="nginx-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)  # unprivileged processes read it, where root runs the tests
        config = Path(directory, "nginx.conf")
        config.write_text(writes_to(directory, text), "utf-8")
        alone = f"daemon off; master_process off; pid {directory}/nginx.pid; error_log stderr warn;"
        with _running([program, "-p", directory, "-e", "stderr", "-c", str(config), "-g", alone], ports):
            yield


def writes_to(directory: str, text: str) -> str:
    """nginx's config, with a directory of its own for all that it writes: the built-in ones are root's."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"    {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    return text.replace("http {\n", f"http {{\n    access_log off;\n{places}", 1)


@contextmanager
def _running(command: list[str], ports: tuple[int, ...]) -> Iterator[None]:
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            accepts = eventually(lambda: process.poll() is not None or all(map(_listens, ports)))
            output.seek(0)
            running = accepts and process.poll() is None
            assert running, f"{command[0]} did not start:\n{output.read()}"
            yield
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)


def _listens(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1. Asked of the kernel: a try would show in the logs."""
    wanted = f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] in (wanted, f"00000000:{port:04X}") and fields[3] == "0A":
            return True
    return False
