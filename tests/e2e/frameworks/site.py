"""An application of a framework, served by a real master over HTTP/1.1 and, behind TLS, HTTP/2; and its clients."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.service import Service, eventually
from tests.pki import Pki

PREFIX = "/shop"  # the service's root_path
PATIENCE = 20.0
FILE_SIZE = 300_000

# What each service is served with: all engines once, and both loops.
ENGINES = {
    "fast": "http1: {engine: httptools}\nhttp2: {engine: native}\nwebsocket: {engine: native}\nloop: uvloop\n",
    "reference": "http1: {engine: h11}\nhttp2: {engine: h2}\nwebsocket: {engine: wsproto}\nloop: asyncio\n",
}

CONFIG = """
app: tests.e2e.frameworks.apps.{framework}_app:app
root_path: {prefix}
workers: {{drain_timeout: 5s}}
listen:
  - bind: 127.0.0.1:0
    http: [http/1.1]
  - bind: 127.0.0.1:0
    tls: {{certfile: {certfile}, keyfile: {keyfile}}}
"""


@dataclass(frozen=True)
class Framework:
    """What differs between the frameworks, where it is theirs to choose."""

    name: str
    modules: tuple[str, ...]  # that it needs
    websockets: bool = True
    lifespan: bool = True
    close_code: bool = True  # the application is told the code that a client closes a WebSocket with
    unknown_length: bool = True  # it can read a body whose length is not told
    told: bool = True  # it hears that a client has left, and of a send that fails
    logs: bool = True  # its tracebacks go to stderr
    file: str = "http.response.body"  # the message that a file is sent with; "": it is not looked at


# Those whose own behaviours have tests of their own; Django is one of the table, too.
STARLETTE = Framework("starlette_own", ("fastapi",), lifespan=False)
DJANGO = Framework("django", ("django", "channels"), lifespan=False)

FRAMEWORKS = [
    Framework("starlette", ("starlette",), file="http.response.pathsend"),
    Framework("fastapi", ("fastapi",), file="http.response.pathsend"),
    DJANGO,
    Framework("quart", ("quart",), close_code=False),
    Framework("litestar", ("litestar",)),
    Framework("blacksheep", ("blacksheep",)),
    Framework("asgi2", (), lifespan=False, file="http.response.zerocopysend"),
    Framework("flask", ("flask", "a2wsgi"), websockets=False, lifespan=False, file=""),
    # Its threads wait for ever once a client has gone, and its wsgi.errors is stdout: not so asgiri's own interface.
    Framework(
        "a2wsgi", ("flask", "a2wsgi"), websockets=False, lifespan=False, unknown_length=False, told=False, logs=False
    ),
]


class Site:
    """One service. ``clients`` speak HTTP/1.1 and HTTP/2 ("1.1" and "2"), and keep their connections."""

    def __init__(self, framework: Framework, engines: str, directory: Path, pki: Pki, more: str = "") -> None:
        self.framework = framework
        self.engines = engines
        self.directory = directory
        self.pki = pki
        self.file = directory / "file.bin"
        self.file.write_bytes(bytes(range(256)) * (FILE_SIZE // 256) + b"end")
        config = CONFIG.format(framework=framework.name, prefix=PREFIX, certfile=pki.certfile, keyfile=pki.keyfile)
        (directory / "asgiri.yaml").write_text(config + ENGINES[engines] + more, "utf-8")
        env = {"FRAMEWORKS_FILE": str(self.file)}
        self.service = Service(directory, env=env)
        self.expected: list[str] = []  # patterns of warnings and errors in the log that are as they should be
        self._closing = contextlib.ExitStack()
        try:
            self.service.ready()
            plain = self.service.log.wait(r"listening on http://127.0.0.1:(\d+)")[1]
            secure = self.service.log.wait(r"listening on https://127.0.0.1:(\d+)")[1]
        except AssertionError:
            self.service.close()
            raise
        self.ports = {"1.1": int(plain), "2": int(secure)}
        self.clients = {version: self._closing.enter_context(self.client(version)) for version in self.ports}

    def client(self, version: str) -> httpx.Client:
        """Another client, with connections of its own."""
        return httpx.Client(**self._options(version))

    def async_client(self, version: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._options(version))

    def _options(self, version: str) -> dict[str, Any]:
        return {
            "base_url": self.url(version),
            "http1": version == "1.1",
            "http2": version == "2",
            "verify": self.tls(version) or False,
            "timeout": PATIENCE,
            "trust_env": False,
        }

    def tls(self, version: str) -> ssl.SSLContext | None:
        return self.pki.client(alpn=("h2",)) if version == "2" else None

    def url(self, version: str) -> str:
        return f"{'http' if version == '1.1' else 'https'}://localhost:{self.ports[version]}"

    def key(self) -> str:
        """A name that no other test uses."""
        return uuid.uuid4().hex

    def expect(self, pattern: str) -> None:
        """Such a warning or error in the log is right."""
        self.expected.append(pattern)

    def close(self) -> None:
        """End it, and see that all was in order: the exit code, the log, and what the shutdown has left."""
        self._closing.close()
        process = self.service.process
        self.service.close()
        log = str(self.service.log)
        assert process.returncode == 0, log
        lines = [line for line in log.splitlines() if re.search(r"\d (WARN|ERROR|CRIT)", line)]
        unexpected = [line for line in lines if not any(re.search(pattern, line) for pattern in self.expected)]
        assert not unexpected, "\n".join(unexpected) + "\n\nof\n" + log
        if self.framework.lifespan:
            assert (self.directory / "stopped").read_text("utf-8") == "by the shutdown"


class Visitor:
    """A client of a site that speaks one version of HTTP."""

    def __init__(self, site: Site, version: str) -> None:
        self.site = site
        self.version = version
        self.http = site.clients[version]

    def get(self, path: str, **more: Any) -> httpx.Response:
        answer = self.http.get(path, **more)
        assert answer.http_version == ("HTTP/2" if self.version == "2" else "HTTP/1.1")
        return answer

    def json(self, path: str, **more: Any) -> Any:
        answer = self.get(path, **more)
        assert answer.status_code == 200, (answer, answer.text)
        return answer.json()

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.http.post(path, **more)

    def open_gate(self, key: str) -> None:
        assert self.post(f"/gates/{key}").status_code == 204

    def notes(self, key: str) -> list[str]:
        found: list[str] = self.json(f"/notes/{key}")
        return found

    def noted(self, key: str, *expected: str) -> None:
        """Wait until these are the notes under ``key``."""
        self.noted_one_of(key, [*expected])

    def noted_one_of(self, key: str, *expected: list[str]) -> None:
        """Wait until the notes under ``key`` are one of these."""
        found: list[str] = []

        def there() -> bool:
            found[:] = self.notes(key)
            return found in expected

        assert eventually(there), found


def answered(site: Site, *lines: str, body: bytes = b"", until: str = "\r\n\r\n") -> Iterator[bytes]:
    """What comes on a new connection of HTTP/1.1 up to ``until``, and, once the body is sent, the rest."""
    with socket.create_connection(("localhost", site.ports["1.1"]), timeout=PATIENCE) as sock:
        sock.sendall("\r\n".join([*lines, "Host: localhost", "Connection: close", "\r\n"]).encode())
        data = b""
        while until.encode() not in data:
            piece = sock.recv(65536)
            assert piece, data
            data += piece
        yield data
        sock.sendall(body)
        data = b""
        while piece := sock.recv(65536):
            data += piece
        yield data


@dataclass(frozen=True)
class _Bound:
    port: int

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self.port


class Door:
    """A port of a site, as the clients of WebSockets want it."""

    def __init__(self, port: int) -> None:
        self.sockets: Sequence[_Bound] = [_Bound(port)]
