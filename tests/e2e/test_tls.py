"""The real command over TLS, with real clients; and reloads that change certificates."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import Service
from tests.pki import Pki

HTTPS = """
listen:
  - bind: 127.0.0.1:0
    tls: {certfile: cert.pem, keyfile: key.pem}
"""


def install(directory: Path, pair: tuple[str, str]) -> None:
    """Put a certificate and its key where the config looks for them."""
    for name, file in zip(("cert.pem", "key.pem"), pair, strict=True):
        shutil.copy(file, directory / name)


def shown(service: Service, pki: Pki) -> str:
    """The certificate that a new connection is shown, in PEM."""
    with (
        socket.create_connection(("127.0.0.1", service.port), timeout=20) as sock,
        pki.client().wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return ssl.DER_cert_to_PEM_cert(der)


def is_of(pem: str, pair: tuple[str, str]) -> bool:
    return Path(pair[0]).read_text("ascii").replace("\r", "").startswith(pem)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(start: Start, pki: Pki) -> None:
    service = start("--certfile", pki.certfile, "--keyfile", pki.keyfile, app=None).ready()
    service.log.wait("listening on https://127.0.0.1:")
    url = f"https://localhost:{service.port}"
    curl = ["curl", "-sS", "--fail", "--max-time", "20", "--cacert", pki.ca_file]
    body = b"x" * 200_000
    done = subprocess.run(
        [*curl, "--resolve", f"localhost:{service.port}:127.0.0.1", "--data-binary", "@-", f"{url}/echo"],
        input=body,
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == body
    service.signal(signal.SIGTERM)
    assert service.wait() == 0


def test_a_reload_takes_a_renewed_certificate_in_and_refuses_a_broken_one(
    start: Start, pki: Pki, tmp_path: Path
) -> None:
    old, renewed = (pki.certfile, pki.keyfile), pki.issue("renewed", "localhost", "127.0.0.1")
    install(tmp_path, old)
    service = start(config=HTTPS, bind=False).ready()
    assert is_of(shown(service, pki), old)
    with httpx.Client(verify=pki.client(), base_url=f"https://127.0.0.1:{service.port}", timeout=20) as client:
        assert client.get("/who").json()["generation"] == 1

        install(tmp_path, (renewed[0], old[1]))
        service.signal(signal.SIGHUP)
        refused = service.log.wait("the reload is refused, generation 1 goes on: asgiri.yaml:4: (.*)")[1]
        assert refused.startswith('listen[0].tls.keyfile: the key in "key.pem" does not belong to the certificate in')
        assert is_of(shown(service, pki), old)
        assert client.get("/who").json()["generation"] == 1, "the kept connection, too"

    install(tmp_path, renewed)
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete: generation 2 serves")
    assert is_of(shown(service, pki), renewed)


def test_a_reload_turns_tls_on_for_a_socket_that_stays(start: Start, pki: Pki, tmp_path: Path) -> None:
    install(tmp_path, (pki.certfile, pki.keyfile))
    service = start(config=HTTPS.replace("    tls:", "    # tls:"), bind=False).ready()
    assert httpx.get(f"http://127.0.0.1:{service.port}/who").status_code == 200
    (tmp_path / "asgiri.yaml").write_text(HTTPS, "utf-8")
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete: generation 2 serves")
    assert is_of(shown(service, pki), (pki.certfile, pki.keyfile))
    assert "needs a restart" not in str(service.log)


def test_a_broken_certificate_exits_with_2(start: Start, pki: Pki, tmp_path: Path) -> None:
    install(tmp_path, (pki.certfile, pki.certfile))
    service = start(config=HTTPS, bind=False)
    assert service.wait() == 2
    service.log.wait('asgiri.yaml:4: listen\\[0\\].tls.keyfile: "key.pem" has no private key in it')
