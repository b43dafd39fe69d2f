"""Sockets that the service manager keeps: what they are called, and what a name says of one that comes back."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from asgiri.config.schema import Listen
from asgiri.sockets.bind import bind, open_listener
from asgiri.sockets.kept import is_at, kept_name, read_name
from asgiri.sockets.listener import Listener
from asgiri.sockets.supply import Passed, Supply


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as one:
        yield one


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8000", "[::]:443", "unix:@asgiri", "unix:/run/a,b:c d%20.sock", "unix:/run/läden\udcff", "unix:rel"],
)
def test_a_name_says_the_address_and_systemd_takes_it(sock: socket.socket, address: str) -> None:
    listener = Listener(Listen(bind=address), sock)
    name = kept_name(listener)
    assert name.isascii()
    assert name.isprintable()
    assert ":" not in name
    file = (0, 0) if listener.file is not None else None  # there is no such file
    assert read_name(name) == (address, file)


def test_a_name_says_which_file_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(bind(Listen(bind="unix:web"))) as listener:
        found = os.stat("web")
        assert read_name(kept_name(listener)) == ("unix:web", (found.st_dev, found.st_ino))


def test_what_is_not_to_be_kept(sock: socket.socket) -> None:
    for address in ("systemd:web", "systemd", "fd:3", "127.0.0.1:0", f"unix:{'ä' * 50}"):
        assert kept_name(Listener(Listen(bind=address), sock)) == ""
    assert kept_name(Listener(Listen(bind="shop.example.org:80"), sock)) == ""  # another address tomorrow, maybe
    assert kept_name(Listener(Listen(bind="localhost:80"), sock)) != ""
    assert kept_name(Listener.passed_on(Listen(bind="127.0.0.1:80", name="web"), sock, "web", None)) == ""


@pytest.mark.parametrize(
    "name",
    ["", "web", "asgiri.socket", "asgiri-kept"]
    + [f"asgiri-kept,a,{rest}" for rest in ("b", "1,x", "1,2,3", "1,٣", f"1,{'9' * 5000}")],
)
def test_names_of_others(name: str) -> None:
    assert read_name(name) is None


def test_one_whose_file_has_gone_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sock: socket.socket
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = Listen(bind="unix:web")
    first = bind(entry)
    passed = Passed(first.sock, address="unix:web", file=first.file, kept=kept_name(first))
    before = passed.is_lost
    os.unlink("web")
    assert (before, passed.is_lost) == (False, True)
    supply = Supply([passed])
    supply._drop_lost()
    assert supply.kept == [passed.kept]  # it is still to be given up
    assert first.sock.fileno() == -1
    [second] = open_listener(entry, supply)
    assert second.sock is not first.sock
    second.close()


def test_a_name_that_says_another_address_than_the_socket_has_is_not_believed(tmp_path: Path) -> None:
    """And no file is removed by its word."""
    other = tmp_path / "file"
    other.touch()
    found = os.stat(other)
    for address in ("127.0.0.1:1", f"unix:{other}", "unix:\0", "unix:@a", "", "::", "localhost:1"):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            supply = Supply([Passed(sock, address=address, file=(found.st_dev, found.st_ino), kept="asgiri-kept,")])
            supply._drop_lost()
            assert (supply.left(), supply.left_files(), sock.fileno()) == ([], [], -1)


@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::]"])
def test_a_socket_is_at_the_address_that_it_was_bound_to(bound: str) -> None:
    with closing(bind(Listen(bind=f"{bound}:0"))) as listener:
        port = listener.sock.getsockname()[1]
        assert is_at(listener.sock, f"{bound}:{port}")
        assert not is_at(listener.sock, f"127.0.0.2:{port}")


def test_a_unix_socket_is_where_it_was_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("unix:web", f"unix:@asgiri-{os.getpid()}-kept"):
        with closing(bind(Listen(bind=address))) as listener:
            assert is_at(listener.sock, address)
            assert not is_at(listener.sock, f"{address}2")
