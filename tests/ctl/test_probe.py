"""The probe: what a HEALTHCHECK is told of listeners that live, do not, or are none."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from asgiri.ctl import probe
from asgiri.ctl.probe import ADMIN_VARIABLE, ProbeError, admin_bind, main

Serve = Callable[[socket.socket, bytes], None]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Have a bound socket answer one connection, with these bytes, once a whole head has come."""
    threads: list[tuple[threading.Thread, socket.socket]] = []

    def begin(sock: socket.socket, answer: bytes) -> None:
        def once() -> None:
            connection = sock.accept()[0]
            with connection:
                asked = b""
                while not asked.endswith(b"\r\n\r\n"):
                    asked += connection.recv(1024)
                assert asked.startswith(b"GET /livez HTTP/1.1\r\nHost: ")
                with suppress(BrokenPipeError, ConnectionResetError):  # the first line is all that is read
                    for index in range(len(answer)):
                        connection.sendall(answer[index : index + 1])

        sock.listen()
        thread = threading.Thread(target=once)
        thread.start()
        threads.append((thread, sock))

    yield begin
    for thread, sock in threads:
        thread.join(10)
        sock.close()


def bound(host: str = "127.0.0.1") -> tuple[socket.socket, int]:
    sock = socket.create_server((host, 0))
    return sock, sock.getsockname()[1]


@pytest.mark.parametrize("text", ["127.0.0.1:{}", "0.0.0.0:{}", "localhost:{}", ":{}", "{}"])
def test_who_lives(serve: Serve, text: str) -> None:
    sock, port = bound()
    serve(sock, b"HTTP/1.1 200 OK\r\n\r\n")
    assert main([text.format(port)]) == 0


@pytest.mark.parametrize("path", ["admin.sock", "@"])
def test_who_lives_at_a_unix_socket(serve: Serve, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    name = f"@{tmp_path}" if path == "@" else path
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(name.replace("@", "\0", 1))
    serve(sock, b"HTTP/1.1 200 OK\r\n\r\n")
    assert main([f"unix:{name}"]) == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "/livez at .* says 503 Service Unavailable"),
        (b"HTTP/1.1 200", ""),
        (b"", "is no admin listener of asgiri: ''"),
        (b"\xff\x00SSH-2.0\r\n", "is no admin listener"),
    ],
)
def test_what_answers_counts(serve: Serve, capsys: pytest.CaptureFixture[str], answer: bytes, said: str) -> None:
    sock, port = bound()
    serve(sock, answer)
    code = main([str(port)])
    out = capsys.readouterr().out
    assert code == (1 if said else 0), out
    assert re.search(said, out)


def test_who_is_not_there_does_not_live(capsys: pytest.CaptureFixture[str]) -> None:
    sock, port = bound()
    sock.close()
    assert main([f"127.0.0.1:{port}"]) == 1
    assert "cannot be asked: Connection refused" in capsys.readouterr().out


def test_who_does_not_answer_does_not_live(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(probe, "PATIENCE", 0.05)
    sock, port = bound()
    with sock:
        assert main([f"127.0.0.1:{port}"]) == 1
    assert "does not answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "web", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:99999", "unix:/nowhere", "unix:\0a"]
)
def test_no_address(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([text]) == 1
    assert capsys.readouterr().out.count("\n") == 1


def test_where_it_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "asgiri.yaml"
    file.write_text("admin: {bind: '0.0.0.0:${ADMIN_PORT:-9000}'}", "utf-8")
    environ = {"ASGIRI_CONFIG": str(file)}
    assert admin_bind(environ) == "0.0.0.0:9000"
    assert admin_bind({**environ, "ADMIN_PORT": "9001"}) == "0.0.0.0:9001"
    assert admin_bind({**environ, ADMIN_VARIABLE: "unix:/run/a"}) == "unix:/run/a"
    file.write_text("workers: {count: 2}", "utf-8")
    with pytest.raises(ProbeError, match=r"no admin\.bind is configured"):
        admin_bind(environ)
