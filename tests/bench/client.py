"""Our own side of a connection: a request whose answer is checked, and idle keep-alive connections."""

from __future__ import annotations

import hashlib
import http.client
import resource
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.process import Running

BOOT = 30.0  # seconds until a server that was started answers
TIMEOUT = 10.0  # seconds for one answer
SPARE_FILES = 200  # descriptors besides those of the idle connections
SOURCES = 4  # loopback addresses that the idle connections come from, so that ports do not run out


class ServerError(Exception):
    """A server did not start, or answered something else than it should."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a case asks for."""

    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    @property
    def closes(self) -> bool:
        """Whether the connection is to end with the answer."""
        return self.headers.get("Connection") == "close"


@dataclass(frozen=True, slots=True)
class Answer:
    """``tls`` is version and cipher, "" in plaintext; ``closes`` says whether the server ends the connection."""

    status: int
    body: bytes
    closes: bool
    tls: str = ""


def fetch(port: int, request: Request, certificate: Path | None = None) -> Answer:
    """One request on a connection of its own. Raises OSError, http.client.HTTPException."""
    connection: http.client.HTTPConnection
    if certificate is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    else:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=TIMEOUT, context=any_certificate("http/1.1")
        )
    try:
        connection.connect()
        tls = identify(connection.sock, certificate) if certificate else ""
        connection.request(request.method, request.path, request.body, dict(request.headers))
        with connection.getresponse() as response:
            body, closes = response.read(), response.will_close
            if not closes and request.closes:
                closes = connection.sock.recv(1) == b""  # it may close without saying so
            return Answer(response.status, body, closes, tls)
    finally:
        connection.close()


def any_certificate(protocol: str) -> ssl.SSLContext:
    """``protocol`` by ALPN; the certificate is compared by ``identify``."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


def identify(sock: socket.socket, certificate: Path) -> str:
    """TLS version and cipher, once the certificate is seen to be ours."""
    assert isinstance(sock, ssl.SSLSocket)
    expected = ssl.PEM_cert_to_DER_cert(certificate.read_text("ascii"))
    shown = sock.getpeercert(binary_form=True)
    if shown is None or hashlib.sha256(shown).digest() != hashlib.sha256(expected).digest():
        raise ServerError("showed another certificate")
    cipher = sock.cipher()
    return f"{sock.version()} {cipher[0] if cipher else '?'}"


def wait_for_answer(running: Running, ask: Callable[[], Answer]) -> Answer:
    """Ask until it answers. Raises ServerError with its last words when it ends or stays silent."""
    deadline = time.monotonic() + BOOT
    while True:
        try:
            return ask()
        except (OSError, http.client.HTTPException) as error:
            if running.ended:
                raise ServerError(f"did not start, {running.epitaph()}") from error
            if time.monotonic() > deadline:
                raise ServerError(f"did not answer within {BOOT:.0f} s ({error}): {running.tail()}") from error
        time.sleep(0.05)


def check(answer: Answer, body: bytes, *, closes: bool) -> None:
    """Raises ServerError unless this is the answer that the case expects."""
    if answer.status != 200:
        raise ServerError(f"answered {answer.status}")
    if answer.body != body:
        raise ServerError(f"answered {answer.body[:40]!r} ({len(answer.body)} bytes), not {body[:40]!r}")
    if answer.closes != closes:
        raise ServerError("kept the connection open" if closes else "closed the connection")


def allow_files(count: int) -> None:
    """Let this process, and the servers that it starts, have this many descriptors. Raises ServerError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE_FILES
    if soft >= needed or soft == resource.RLIM_INFINITY:
        return
    try:
        most = hard if hard == resource.RLIM_INFINITY else max(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    except (ValueError, OSError) as error:
        raise ServerError(f"{needed} descriptors are needed, and the limit is {hard}") from error


class IdleConnections:
    """``count`` connections that have each had one answer, and wait."""

    REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def __init__(self, port: int, count: int, body: bytes) -> None:
        self._sockets: list[socket.socket] = []
        try:
            for number in range(count):
                self._sockets.append(self._open(port, number, body))
        except BaseException:
            self.close()
            raise

    def _open(self, port: int, number: int, body: bytes) -> socket.socket:
        source = (f"127.0.0.{1 + number % SOURCES}", 0)
        sock = socket.create_connection(("127.0.0.1", port), TIMEOUT, source)
        try:
            sock.sendall(self.REQUEST)
            answer = b""
            while not answer.endswith(body):
                data = sock.recv(4096)
                if not data:
                    raise ServerError(f"closed idle connection {number}")
                answer += data
        except BaseException:
            sock.close()
            raise
        return sock

    def gone(self) -> int:
        """How many of them the server has closed or written to."""
        poll = select.poll()
        for sock in self._sockets:
            poll.register(sock, select.POLLIN | select.POLLHUP)
        return len(poll.poll(0))

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
