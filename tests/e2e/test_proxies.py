"""Real proxies in front: what the application learns of the client, and what a client can make it believe."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets.asyncio.client

from tests.e2e.conftest import APP_DIR, Start
from tests.e2e.proxies import free_port, haproxy, needs, nginx
from tests.e2e.service import PATIENCE
from tests.pki import Pki

# One location takes a prefix off and says so; both append to what the client has sent.
NGINX = """
upstream app {{ server {upstream}; }}
server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {certfile};
    ssl_certificate_key {keyfile};
    proxy_http_version 1.1;
    proxy_set_header Host $host:$server_port;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header X-Request-ID $request_id;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host shop.example.org;
    proxy_set_header X-Forwarded-Prefix "";
    location / {{ proxy_pass http://app; }}
    location /shop/ {{
        proxy_set_header X-Request-ID $request_id;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host shop.example.org;
        proxy_set_header X-Forwarded-Prefix /shop;
        proxy_pass http://app/;
    }}
}}
"""

HAPROXY = """
frontend outside
    bind 127.0.0.1:{port} ssl crt {bundle} alpn h2,http/1.1
    http-request set-header Forwarded "%[req.fhdr(Forwarded)], for=%[src];proto=https;host=shop.example.org" if {{ req.hdr(Forwarded) -m found }}
    http-request set-header Forwarded "for=%[src];proto=https;host=shop.example.org" unless {{ req.hdr(Forwarded) -m found }}
    http-request set-header X-Request-ID %[uuid()]
    default_backend app
backend app
    server app {upstream}
"""  # noqa: E501 - a line of haproxy's cannot be folded


OUTSIDE = "127.0.0.2"  # a client's address, of which the proxies know nothing


class Front:
    """A proxy at a port, and what an outside client sees through it."""

    def __init__(self, port: int, ca_file: str) -> None:
        self.port = port
        self._ca_file = ca_file
        self._tls = ssl.create_default_context(cafile=ca_file)

    def get(self, path: str = "/a", source: str = OUTSIDE, **fields: str) -> dict[str, Any]:
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self._tls, timeout=PATIENCE, source_address=(source, 0)
        )
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, (answer.status, body)
            return seen(body)
        finally:
            connection.close()

    def get_http2(self, path: str = "/a") -> dict[str, Any]:
        command = [
            needs("curl"),
            "--http2",
            "-sS",
            "--interface",
            OUTSIDE,
            "--cacert",
            self._ca_file,
            "-w",
            "%{stderr}%{http_version}",
        ]
        done = subprocess.run(
            [*command, f"https://localhost:{self.port}{path}"], check=True, capture_output=True, timeout=PATIENCE
        )
        assert done.stderr == b"2"
        return seen(done.stdout)

    def websocket(self) -> dict[str, Any]:
        async def talk() -> dict[str, Any]:
            url = f"wss://127.0.0.1:{self.port}/ws"
            async with (
                asyncio.timeout(PATIENCE),
                websockets.asyncio.client.connect(url, ssl=self._tls, proxy=None, local_addr=(OUTSIDE, 0)) as peer,
            ):
                return seen(await peer.recv())

        return asyncio.run(talk())


def seen(body: str | bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(body)
    return told


@contextmanager
def behind(proxy: str, start: Start, tmp_path: Path, unix: bool) -> Iterator[Front]:
    """The application behind this proxy, which speaks to it by TCP or a unix socket."""
    pki = Pki(tmp_path)
    dialect = "x-forwarded" if proxy == "nginx" else "forwarded"
    path = tmp_path / "app.sock"
    service = start(
        *("--bind", f"unix:{path}" if unix else "127.0.0.1:0", "--app-dir", str(APP_DIR), "--no-access-log"),
        config=f"proxy: {{trusted: [{'unix' if unix else '127.0.0.1'}, 10.0.0.0/8], headers: {dialect}}}\n"
        "allowed_hosts: [shop.example.org]\n",
        app="edge_app:app",
        bind=False,
    ).ready()
    port = free_port()
    if proxy == "nginx":
        upstream = f"unix:{path}" if unix else f"127.0.0.1:{service.port}"
        text = NGINX.format(port=port, upstream=upstream, certfile=pki.certfile, keyfile=pki.keyfile)
        running = nginx(text, port)
    else:
        upstream = f"unix@{path}" if unix else f"127.0.0.1:{service.port}"
        running = haproxy(HAPROXY.format(port=port, upstream=upstream, bundle=pki.bundle), port)
    with running:
        yield Front(port, pki.ca_file)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_behind_a_real_proxy(proxy: str, unix: bool, start: Start, tmp_path: Path) -> None:
    needs(proxy)
    forged = ("X_Forwarded_For", "6.6.6.6") if proxy == "nginx" else ("Forwarded", 'for="6.6.6.6";host=evil')
    other = ("Forwarded", "for=7.7.7.7") if proxy == "nginx" else ("X_Forwarded_For", "7.7.7.7")
    with behind(proxy, start, tmp_path, unix) as front:
        for told in (front.get(), front.get_http2(), front.get(**dict([forged, other]))):
            assert (told["scheme"], told["client"], told["path"]) == ("https", [OUTSIDE, 0], "/a")
            assert told["server"] == ["shop.example.org", 443]
            assert told["headers"]["host"] == "shop.example.org"
            assert other[0].replace("_", "-").lower() not in told["headers"]
        told = front.websocket()
        assert (told["type"], told["scheme"], told["client"]) == ("websocket", "wss", [OUTSIDE, 0])
        named = front.get(X_Request_ID="chosen-by-the-client")
        assert len(named["id"]) == len(told["id"]) == (32 if proxy == "nginx" else 36), "the proxy's own request ids"
        if proxy == "nginx":
            told = front.get("/shop/cart")
            assert (told["root_path"], told["path"]) == ("/shop", "/shop/cart")


def test_the_client_behind_two_proxies(start: Start, tmp_path: Path) -> None:
    """The outer one has told of somebody; whoever forges more stands left of that."""
    needs("nginx")
    with behind("nginx", start, tmp_path, unix=False) as front:
        chain = "6.6.6.6, 203.0.113.7, 10.9.9.9"
        outer = front.get(source="127.0.0.1", X_Forwarded_For=chain, X_Forwarded_Prefix="/evil")
        forger = front.get(X_Forwarded_For=chain)
    assert outer["client"] == ["203.0.113.7", 0]
    assert outer["root_path"] == ""
    assert forger["client"] == [OUTSIDE, 0]


def test_forged_fields_of_an_untrusted_peer(start: Start) -> None:
    service = start(
        *("--app-dir", str(APP_DIR), "--no-access-log"),
        config="proxy: {trusted: [192.0.2.1], headers: forwarded}\nlisten: [{bind: '127.0.0.1:0'}]\n",
        app="edge_app:app",
        bind=False,
    ).ready()
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    forged = {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6;host=evil", "X-Request-ID": "forged"}
    try:
        connection.request("GET", "/a", headers=forged)
        told = seen(connection.getresponse().read())
    finally:
        connection.close()
    assert told["client"][0] == "127.0.0.1"
    assert told["id"] != "forged"
    assert not {name.lower() for name in forged} & told["headers"].keys()
