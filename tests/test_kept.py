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
from asgiri.sockets.kept import kept_name, read_name
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
    assert kept_name(Listener.passed_on(Listen(bind="127.0.0.1:80", name="web"), sock, "web", None)) == ""


@pytest.mark.parametrize(
    "name", ["", "web", "asgiri.socket", "asgiri-kept", "asgiri-kept,a,b", "asgiri-kept,a,1,x", "asgiri-kept,a,1,2,3"]
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
