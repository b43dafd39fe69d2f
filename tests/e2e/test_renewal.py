"""TLS files that change while the service runs: swapped in by every worker when good, refused and said when not."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.reloading import Project, is_warm, project
from tests.e2e.service import PATIENCE, Service, eventually
from tests.http2_client import http2_connected
from tests.pki import Pki

__all__ = ["project"]

Pair = tuple[str, str]

HTTPS = """
workers: {count: 2}
log: {level: debug}
listen:
  - bind: 127.0.0.1:0
    tls: {certfile: cert.pem, keyfile: key.pem}
"""
SWAPPED = r"INFO .*127\.0\.0\.1:0: a new certificate for localhost, 127\.0\.0\.1, until \d{4}-"


def put(directory: Path, pair: Pair, names: tuple[str, str] = ("cert.pem", "key.pem")) -> None:
    """Put a certificate and its key where the config looks for them, as most do: each in one step."""
    for name, file in zip(names, pair, strict=True):
        replace(directory / name, Path(file).read_bytes())


def replace(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(data)
    fresh.chmod(0o600)
    fresh.rename(path)


def handshake(
    service: Service, client: ssl.SSLContext, name: str = "localhost"
) -> tuple[str, http.client.HTTPConnection]:
    """The certificate that a new connection is shown, in PEM, and the connection."""
    sock = client.wrap_socket(socket.create_connection(("127.0.0.1", service.port), PATIENCE), server_hostname=name)
    der = sock.getpeercert(binary_form=True)
    assert der is not None
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    connection.sock = sock
    return ssl.DER_cert_to_PEM_cert(der), connection


def who(connection: http.client.HTTPConnection) -> int:
    """The pid of the worker that a connection is to."""
    connection.request("GET", "/who")
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    pid: int = json.loads(body)["pid"]
    return pid


def deposits(pid: int) -> int:
    """How many deposits a process has open."""
    fds = Path(f"/proc/{pid}/fd")
    found = 0
    for fd in fds.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a connection that has just ended
            found += "asgiri-deposit" in os.readlink(fd)
    return found


def is_of(pem: str, pair: Pair) -> bool:
    return Path(pair[0]).read_text("ascii").replace("\r", "").startswith(pem)


def shows(service: Service, pki: Pki, pair: Pair, workers: int = 2) -> bool:
    """Whether all of so many workers show this certificate: each is asked until all have answered."""
    seen: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    while len(seen) < workers and time.monotonic() < deadline:
        pem, connection = handshake(service, pki.client())
        try:
            if not is_of(pem, pair):
                return False
            seen.add(who(connection))
        finally:
            connection.close()
    return len(seen) == workers


def test_every_worker_swaps_and_what_is_open_goes_on(start: Start, pki: Pki, tmp_path: Path) -> None:
    old, new = (pki.certfile, pki.keyfile), pki.issue("renewed", "localhost", "127.0.0.1")
    put(tmp_path, old)
    service = start(config=HTTPS, bind=False).ready()
    assert shows(service, pki, old)
    _, kept = handshake(service, pki.client())
    pid = who(kept)
    half = socket.create_connection(("127.0.0.1", service.port), PATIENCE)  # accepted, and its handshake not begun

    async def over_http2() -> None:
        async with http2_connected(("127.0.0.1", service.port), pki.client(alpn=("h2",))) as peer:
            assert (await peer.get("/who")).status == 200
            put(tmp_path, new)
            await asyncio.to_thread(service.log.wait, SWAPPED)
            await asyncio.to_thread(eventually, lambda: len(service.log.find("new certificates are taken")) == 2)
            assert (await peer.get("/who")).status == 200
            assert not peer.goaways

    asyncio.run(over_http2())
    assert who(kept) == pid, "the same connection, to the same worker"
    kept.close()
    with pki.client().wrap_socket(half, server_hostname="localhost") as tls:
        tls.sendall(b"GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert tls.recv(64).startswith(b"HTTP/1.1 200")
    assert shows(service, pki, new)
    assert not service.log.find("ERROR|WARN")
    assert not service.log.find("gen 2")
    assert [deposits(pid) for pid in (service.pid, *service.workers())] == [2, 1, 1], "each has its own alone"


def test_a_bad_pair_is_refused_and_said_once_and_no_new_worker_has_it(start: Start, pki: Pki, tmp_path: Path) -> None:
    old, new = (pki.certfile, pki.keyfile), pki.issue("renewed", "localhost", "127.0.0.1")
    put(tmp_path, old)
    service = start(config=HTTPS, bind=False).ready()
    put(tmp_path, (new[0], old[1]))
    refused = service.log.wait(r"ERROR .*changed files are refused, and what was in use stays: (.*)")[1]
    assert refused == (
        'asgiri.yaml:6: listen[0].tls.keyfile: the key in "key.pem" does not belong to the certificate in "cert.pem"'
    )
    victim = min(service.workers())
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: len(service.log.find("is ready")) == 3)
    assert shows(service, pki, old)

    (tmp_path / "cert.pem").unlink()
    mark = len(service.log)
    service.log.wait('ERROR .*listen.0..tls.certfile: cannot read "cert.pem": No such file or directory', mark)
    replace(tmp_path / "cert.pem", Path(old[0]).read_bytes())
    service.log.wait("the files are again as they are in use", mark)
    assert shows(service, pki, old)

    put(tmp_path, new)
    service.log.wait(SWAPPED, mark)
    assert eventually(lambda: shows(service, pki, new))
    assert len(service.log.find("ERROR .*refused")) == 2, "each once"


def test_a_key_that_comes_a_second_late_is_no_error(start: Start, pki: Pki, tmp_path: Path) -> None:
    old, new = (pki.certfile, pki.keyfile), pki.issue("renewed", "localhost", "127.0.0.1")
    put(tmp_path, old)
    service = start(config=HTTPS, bind=False).ready()
    shutil.copy(new[0], tmp_path / "cert.pem")  # in place, too
    service.log.wait("DEBUG .*the changed files are no good yet: .*does not belong to")
    shutil.copy(new[1], tmp_path / "key.pem")
    service.log.wait(SWAPPED)
    assert eventually(lambda: shows(service, pki, new))
    assert not service.log.find("ERROR|WARN")


def test_a_name_alone_by_a_symbolic_link(start: Start, pki: Pki, tmp_path: Path) -> None:
    put(tmp_path, (pki.certfile, pki.keyfile))
    first, second = (pki.issue(name, "www.example.org") for name in ("first", "second"))
    for number, pair in enumerate((first, second)):
        (tmp_path / f"..{number}").mkdir()
        put(tmp_path / f"..{number}", pair)
    (tmp_path / "data").symlink_to("..0")
    sni = "sni: {www.example.org: {certfile: data/cert.pem, keyfile: data/key.pem}}"
    service = start(config=HTTPS.replace("key.pem}", f"key.pem, {sni}}}"), bind=False).ready()

    def shown(name: str) -> str:
        pem, connection = handshake(service, pki.client(), name)
        connection.close()
        return pem

    assert is_of(shown("www.example.org"), first)
    (tmp_path / "next").symlink_to("..1")
    (tmp_path / "next").rename(tmp_path / "data")
    service.log.wait(r"127\.0\.0\.1:0 \(www\.example\.org\): a new certificate for www\.example\.org, until")
    assert eventually(lambda: len(service.log.find("new certificates are taken")) == 2)
    assert is_of(shown("www.example.org"), second)
    assert is_of(shown("localhost"), (pki.certfile, pki.keyfile))


def test_the_authorities_of_clients(start: Start, pki: Pki, tmp_path: Path) -> None:
    put(tmp_path, (pki.certfile, pki.keyfile))
    others = tmp_path / "others"
    others.mkdir()
    stranger = Pki(others)
    shutil.copy(pki.ca_file, tmp_path / "ca.pem")
    asks = "client_ca: ca.pem, client_certs: required"
    service = start(config=HTTPS.replace("key.pem}", f"key.pem, {asks}}}"), bind=False).ready()

    def may(pair: Pair) -> bool:
        try:
            with httpx.Client(verify=pki.client(pair), timeout=PATIENCE) as client:
                return client.get(f"https://127.0.0.1:{service.port}/who").status_code == 200
        except httpx.HTTPError:
            return False

    ours, theirs = pki.issue("jane", "jane@asgiri.test"), stranger.issue("eve", "eve@asgiri.test")
    assert (may(ours), may(theirs)) == (True, False)
    replace(tmp_path / "ca.pem", Path(stranger.ca_file).read_bytes())
    service.log.wait(r"127\.0\.0\.1:0: new client authorities: 1 certificate$")
    assert eventually(lambda: len(service.log.find("new certificates are taken")) == 2)
    assert (may(ours), may(theirs)) == (False, True)


def test_without_watch_a_reload_does_it_and_a_new_worker_does_not(start: Start, pki: Pki, tmp_path: Path) -> None:
    old, new = (pki.certfile, pki.keyfile), pki.issue("renewed", "localhost", "127.0.0.1")
    put(tmp_path, old)
    service = start(config=HTTPS.replace("key.pem}", "key.pem, watch: false}"), bind=False).ready()
    put(tmp_path, new)
    os.kill(min(service.workers()), signal.SIGKILL)
    assert eventually(lambda: len(service.log.find("is ready")) == 3)
    assert shows(service, pki, old), "all workers of a generation show the same"
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete")
    assert shows(service, pki, new)
    assert not service.log.find(SWAPPED)


def test_under_reload_the_zygotes_workers_have_what_is_held(project: Project, pki: Pki) -> None:
    old, new = (pki.certfile, pki.keyfile), pki.issue("renewed", "localhost", "127.0.0.1")
    put(project.top, old)
    developed = project.serve(HTTPS.split("debug}")[1], bind=False).ready().warm()
    service = developed.service
    (project.top / "key.pem").write_bytes(b"")
    service.log.wait("the changed files are no good yet")

    def ask(pair: Pair) -> dict[str, object]:
        pem, connection = handshake(service, pki.client())
        connection.request("GET", "/")
        told: dict[str, object] = json.loads(connection.getresponse().read())
        connection.close()
        assert is_of(pem, pair)
        return told

    before = ask(old)
    pid = before["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: len(service.log.find("is ready")) == 2)
    assert is_warm(ask(old))
    put(project.top, new)
    service.log.wait(SWAPPED)
    service.log.wait("new certificates are taken")
    assert ask(new)["pid"] != pid


def test_garbage_of_any_kind_leaves_what_is_served(start: Start, pki: Pki, tmp_path: Path) -> None:
    old = (pki.certfile, pki.keyfile)
    put(tmp_path, old)
    service = start(config=HTTPS, bind=False).ready()
    path = tmp_path / "cert.pem"
    path.unlink()
    os.mkfifo(path)  # which nobody writes to: the master must not wait for it
    service.log.wait(r'DEBUG .*"cert\.pem" has no certificate in it; it is empty')
    path.unlink()
    path.symlink_to("/dev/zero")
    service.log.wait(r'DEBUG .*"cert\.pem" is larger than 1MiB')
    path.unlink()
    path.mkdir()
    service.log.wait(r'DEBUG .*cannot read "cert\.pem": Is a directory')
    path.rmdir()
    expired = pki.issue("expired", "localhost", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    put(tmp_path, expired)
    service.log.wait(r'DEBUG .*the certificate in "cert\.pem" expired on 2020-.*, and the one in use has not')
    assert shows(service, pki, old)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sees_the_new_serial(start: Start, pki: Pki, tmp_path: Path) -> None:
    new = pki.issue("renewed", "localhost", "127.0.0.1")
    put(tmp_path, (pki.certfile, pki.keyfile))
    service = start(config=HTTPS.replace("count: 2", "count: 1"), bind=False).ready()

    def expires() -> str:
        done = subprocess.run(
            ["curl", "-sS", "--fail", "--cacert", pki.ca_file, f"https://127.0.0.1:{service.port}/", "-w", "%{certs}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return re.sub(r"\s", "", done.stdout)

    put(tmp_path, new)
    service.log.wait("new certificates are taken")
    body = re.search("-----BEGIN CERTIFICATE-----(.*?)-----END", Path(new[0]).read_text("ascii"), re.DOTALL)
    assert body is not None
    assert re.sub(r"\s", "", body[1]) in expires()
