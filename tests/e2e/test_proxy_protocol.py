"""Real haproxy, nginx and curl that speak the PROXY protocol to a real service."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import APP_DIR, Start
from tests.e2e.proxies import free_port, haproxy, needs, nginx
from tests.e2e.service import PATIENCE, Service, eventually
from tests.pki import Pki

CONFIG = """
listen:
  - {{bind: "127.0.0.1:{one}", proxy_protocol: v1}}
  - {{bind: "127.0.0.1:{two}", proxy_protocol: v2}}
  - {{bind: "127.0.0.1:{tls}", proxy_protocol: any, tls: {{certfile: "{pki.certfile}", keyfile: "{pki.keyfile}"}}}}
  - {{bind: "unix:{unix_one}", proxy_protocol: v1}}
  - {{bind: "unix:{unix_two}", proxy_protocol: v2}}
proxy: {{trusted: [127.0.0.1, unix]}}
log: {{access: {{enabled: true}}}}
"""


@dataclass
class Places:
    """Where a service listens for proxies."""

    directory: Path
    pki: Pki
    one: int = field(default_factory=free_port)
    two: int = field(default_factory=free_port)
    tls: int = field(default_factory=free_port)

    @property
    def unix_one(self) -> Path:
        return self.directory / "v1"

    @property
    def unix_two(self) -> Path:
        return self.directory / "v2"


@pytest.fixture
def places(tmp_path: Path, pki: Pki) -> Places:
    return Places(tmp_path, pki)


def serve(start: Start, places: Places) -> Service:
    text = CONFIG.format(**vars(places), unix_one=places.unix_one, unix_two=places.unix_two)
    return start("--app-dir", str(APP_DIR), config=text, app="peers_app:app", bind=False).ready()


def ask(port: int, path: str = "/", tls: ssl.SSLContext | None = None) -> tuple[Any, list[Any]]:
    """What a service says behind a proxy on this port, and who we are to that proxy: [client, server]."""
    made = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        if tls is None
        else http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=tls)
    )
    try:
        made.request("GET", path)
        ends = [[*made.sock.getsockname()], [*made.sock.getpeername()]]
        response = made.getresponse()
        body = response.read()
        assert response.status == 200, (response.status, body)
        return json.loads(body), ends
    finally:
        made.close()


def seen(port: int, tls: ssl.SSLContext | None = None, scheme: str = "http") -> Any:
    """Ask, and see that the service knows us by our own address."""
    told, ends = ask(port, tls=tls)
    assert [told["client"], told["server"]] == ends
    assert told["scheme"] == scheme
    return told


HAPROXY = """
listen tcp_v1
    mode tcp
    bind 127.0.0.1:{front[0]}
    server a 127.0.0.1:{places.one} send-proxy check inter 100ms
listen tcp_v2
    mode tcp
    bind 127.0.0.1:{front[1]}
    server a 127.0.0.1:{places.two} send-proxy-v2 check check-send-proxy inter 100ms
listen passed_through
    mode tcp
    bind 127.0.0.1:{front[2]}
    server a 127.0.0.1:{places.tls} send-proxy-v2
listen to_unix
    mode tcp
    bind 127.0.0.1:{front[3]}
    server a unix@{places.unix_two} send-proxy-v2
listen http
    mode http
    option httpchk GET /health
    bind 127.0.0.1:{front[4]}
    server a 127.0.0.1:{places.two} send-proxy-v2 check check-send-proxy inter 100ms
listen tls_ended
    mode http
    unique-id-format id-%pid
    bind 127.0.0.1:{front[5]} ssl crt {places.pki.bundle} alpn http/1.1
    server a 127.0.0.1:{places.two} send-proxy-v2-ssl-cn proxy-v2-options ssl-cipher,authority,crc32c,unique-id
"""


def test_haproxy(start: Start, places: Places) -> None:
    needs("haproxy")
    service = serve(start, places)
    front = [free_port() for _ in range(6)]
    client = places.pki.client()
    with haproxy(HAPROXY.format(front=front, places=places), *front):
        for port in (front[0], front[1], front[3], front[4]):
            assert seen(port)["said"]["tls"] is None
        assert seen(front[2], client, "https")["tls"]
        h2 = subprocess.run(
            ["curl", "-sS", "--http2-prior-knowledge", f"http://127.0.0.1:{front[1]}/"], check=True, capture_output=True
        )
        assert json.loads(h2.stdout)["http_version"] == "2"
        told = seen(front[5], client, "https")
        assert (told["tls"], told["said"]["authority"]) == (False, "localhost")
        assert told["said"]["unique_id"].startswith("id-")
        assert told["said"]["tls"]["version"] == "TLSv1.3"
        assert told["said"]["tls"]["cipher"].startswith("TLS_")
        assert not told["said"]["tls"]["client_cert_shown"]
        # Health checks are the proxy's own: LOCAL.
        assert eventually(lambda: len(ask(front[1], "/checks")[0]) >= 3)
        for told in ask(front[1], "/checks")[0]:
            assert (told["client"][0], told["server"], told["said"]) == ("127.0.0.1", ["127.0.0.1", places.two], None)
        (host, port), _ = ask(front[4], "/logged")[1]  # it is up, after all these checks
    service.log.wait(rf"\b{host}:{port}\b.*GET /logged")
    assert "PROXY header" not in str(service.log)


STREAMS = """
stream {{
    server {{ listen 127.0.0.1:{front[0]}; proxy_pass 127.0.0.1:{places.one}; proxy_protocol on; }}
    server {{ listen 127.0.0.1:{front[1]}; proxy_pass 127.0.0.1:{places.tls}; proxy_protocol on; }}
    server {{ listen 127.0.0.1:{front[2]}; proxy_pass unix:{places.unix_one}; proxy_protocol on; }}
    server {{ listen 127.0.0.1:{front[3]}; proxy_pass 127.0.0.1:{places.two}; proxy_protocol on; }}
}}
"""


def needs_streams() -> None:
    """nginx can pass bytes on: that is a module of its own in Debian."""
    built = subprocess.run([needs("nginx"), "-V"], check=True, capture_output=True, text=True).stderr
    if "--with-stream" not in built.split() and not Path("/usr/lib/nginx/modules/ngx_stream_module.so").exists():
        assert not os.environ.get("CI"), "nginx's stream module is not installed"
        pytest.skip("nginx's stream module (libnginx-mod-stream) is not installed")


def test_nginx(start: Start, places: Places) -> None:
    needs_streams()
    service = serve(start, places)
    front = [free_port() for _ in range(4)]
    with nginx("", *front, streams=STREAMS.format(front=front, places=places)):
        for port in (front[0], front[2]):
            assert seen(port)["said"]["tls"] is None
        assert seen(front[1], places.pki.client(), "https")["tls"]
        with pytest.raises((OSError, http.client.HTTPException)):  # v1 where v2 is wanted
            ask(front[3])
    service.log.wait(r"without a good PROXY header are closed: 1, .* version 1 of the PROXY protocol is not taken here")


def test_curl(start: Start, places: Places) -> None:
    service = serve(start, places)

    def curl(*arguments: str) -> Any:
        command = ["curl", "-sS", "--haproxy-protocol", "--cacert", places.pki.ca_file, *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE).stdout)

    for told in (curl(f"http://127.0.0.1:{places.one}/"), curl(f"https://localhost:{places.tls}/")):
        assert (told["client"], told["server"][0]) == (told["said"]["proxy"], "127.0.0.1")
    told = curl("--unix-socket", str(places.unix_one), "http://localhost/")
    assert (told["client"], told["server"], told["said"]["proxy"]) == (None, [str(places.unix_one), None], None)
    bare = subprocess.run(
        ["curl", "-sS", f"http://127.0.0.1:{places.one}/"], check=False, capture_output=True, timeout=PATIENCE
    )
    assert bare.returncode in (52, 56), bare.stderr  # an empty reply, or a reset
    service.log.wait(r"without a good PROXY header are closed: 1, .* it begins with HTTP, and not with a PROXY header")
