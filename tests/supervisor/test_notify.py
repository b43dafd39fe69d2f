"""sd_notify(3), against a socket as systemd has one."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from asgiri.supervisor.notify import Notifier


class Manager:
    """The service manager's end; ``address`` is what NOTIFY_SOCKET says."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.bind()

    def bind(self) -> None:
        self.socket.bind("\0" + self.address[1:] if self.address[0] == "@" else self.address)

    def notifier(self, **more: str) -> Notifier:
        return Notifier.from_environ({"NOTIFY_SOCKET": self.address, **more})

    def heard(self) -> list[str]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.socket.recv(4096).decode())
        return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = f"{directory}/notify"
        manager = Manager(path if request.param == "path" else f"@{path}")
        yield manager
        manager.socket.close()


def test_messages_have_the_words_of_sd_notify(manager: Manager) -> None:
    notifier = manager.notifier()
    notifier.ready("2 workers")
    notifier.status("2 workers, 10 requests/s")
    notifier.stopping()
    notifier.extend(12.5)
    notifier.alive()
    notifier.main_pid(4711)
    assert manager.heard() == [
        "READY=1\nSTATUS=2 workers",
        "STATUS=2 workers, 10 requests/s",
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=12500000",
        "WATCHDOG=1",
        "MAINPID=4711",
    ]
    notifier.close()
    notifier.ready("closed")
    assert manager.heard() == []


def test_the_last_word_waits_for_a_manager_that_is_busy(manager: Manager) -> None:
    """Else a new master would not be known for one, and systemd would end it with the old one."""
    notifier = manager.notifier()
    for _ in range(10_000):  # as many as the manager's queue has room for, and more
        notifier.alive()
    notifier.main_pid(4711)
    busy = threading.Thread(target=notifier.finish)
    busy.start()
    found: list[str] = []
    while busy.is_alive():
        found += manager.heard()
    busy.join()
    assert [*found, *manager.heard()][-1] == "MAINPID=4711"


def test_a_manager_that_does_not_read_holds_up_the_last_word_for_a_second(manager: Manager) -> None:
    notifier = manager.notifier()
    for _ in range(10_000):
        notifier.alive()
    notifier.main_pid(4711)
    began = time.monotonic()
    notifier.finish()
    assert time.monotonic() - began < 10
    assert "MAINPID=4711" not in manager.heard()


def test_a_reload_has_its_time(manager: Manager) -> None:
    notifier = manager.notifier()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    [message] = manager.heard()
    first, second = message.split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.close()


def test_a_status_is_one_line_and_not_too_long(manager: Manager) -> None:
    notifier = manager.notifier()
    notifier.status("one\nWATCHDOG=trigger\x00\udc80")
    notifier.status("é" * 5000)
    first, second = manager.heard()
    assert first == "STATUS=one\\nWATCHDOG=trigger\\x00\\udc80"
    assert len(second.encode()) < 4096
    notifier.close()


def test_the_variables_are_taken_away() -> None:
    environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Notifier.from_environ(environ).close()
    assert environ == {"PATH": "/bin"}


def test_without_a_manager_nothing_is_done() -> None:
    environ = {"WATCHDOG_USEC": "1000000"}
    notifier = Notifier.from_environ(environ)
    notifier.ready("x")
    notifier.reloading()
    notifier.stopping()
    notifier.status("x")
    notifier.extend(1)
    notifier.alive()
    notifier.main_pid(1)
    notifier.close()
    assert notifier.watchdog is None
    assert notifier.environ() == environ == {}


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_ours_or_none(manager: Manager, variables: dict[str, str], seconds: float | None) -> None:
    notifier = manager.notifier(**variables)
    assert notifier.watchdog == seconds
    notifier.close()


@pytest.mark.parametrize("value", ["0", "-5", "soon", "1e6", "9" * 5000, "٣"])
def test_a_watchdog_that_is_no_number_is_told(manager: Manager, value: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = manager.notifier(WATCHDOG_USEC=value)
    assert notifier.watchdog is None
    assert "WATCHDOG_USEC is ignored" in caplog.text
    notifier.close()


@pytest.mark.parametrize("address", ["relative", "@", "vsock:2:1234", "/"])
def test_an_address_that_is_none_is_told(address: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    notifier.ready("x")
    assert "NOTIFY_SOCKET is not understood" in caplog.text
    assert len(caplog.records) == 1


def test_who_takes_over_has_the_same_manager(manager: Manager) -> None:
    old = manager.notifier(WATCHDOG_USEC="2500000", WATCHDOG_PID=str(os.getpid()))
    variables = old.environ()
    assert variables == {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2500000"}
    new = Notifier.from_environ({**variables, "WATCHDOG_PID": str(os.getpid())})
    assert new.watchdog == 2.5
    new.ready("new")
    assert manager.heard() == ["READY=1\nSTATUS=new"]
    old.close()
    new.close()


def test_anothers_watchdog_is_not_passed_on(manager: Manager) -> None:
    notifier = manager.notifier(WATCHDOG_USEC="2500000", WATCHDOG_PID="1")
    assert notifier.environ() == {"NOTIFY_SOCKET": manager.address}
    notifier.close()


def test_a_manager_that_is_gone_fails_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        notifier = Notifier.from_environ({"NOTIFY_SOCKET": f"{directory}/notify"})
        with caplog.at_level("INFO", "asgiri"):
            for _ in range(3):
                notifier.alive()
                notifier.status("lost")
            notifier.ready("first")
            notifier.stopping()
            [record] = caplog.records
            assert record.levelname == "WARNING"
            assert "No such file or directory" in record.getMessage()
            manager = Manager(f"{directory}/notify")
            notifier.alive()
        assert manager.heard() == ["READY=1\nSTATUS=first", "STOPPING=1", "WATCHDOG=1"]
        assert "told again" in caplog.records[1].getMessage()
        manager.socket.close()
        notifier.close()


def test_a_manager_that_does_not_read_holds_nobody_up(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    notifier = manager.notifier()
    for _ in range(5000):
        notifier.status("x" * 900)
    assert caplog.text.count("it does not read") == 1
    for pid in range(20):
        notifier.main_pid(pid)  # none of these is lost, but there are not more than so many
    kept = [message for message in manager.heard() if not message.startswith("STATUS")]
    notifier.alive()
    kept += manager.heard()
    assert kept == [*(f"MAINPID={pid}" for pid in range(12, 20)), "WATCHDOG=1"]
    notifier.close()


def test_a_path_that_is_too_long_fails_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": str(tmp_path / ("x" * 120))})
    notifier.alive()
    assert "too long" in caplog.text
    notifier.close()


# Sockets that it keeps


def test_sockets_go_along_and_wait_their_turn(manager: Manager) -> None:
    notifier = manager.notifier(FDSTORE="4")
    assert notifier.room == 4
    assert notifier.environ() == {"NOTIFY_SOCKET": manager.address, "FDSTORE": "4"}
    with socket.socket() as kept, socket.socket() as closed:
        manager.socket.close()
        notifier.keep("a", kept)
        notifier.keep("b", closed)
        closed.close()
        notifier.forget("c")
        with suppress(FileNotFoundError):
            os.unlink(manager.address)
        manager.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.socket.setblocking(False)
        manager.bind()
        notifier.stopping()
        data, ancillary, *_ = manager.socket.recvmsg(4096, socket.CMSG_SPACE(4))
        [(_, kind, fd)] = ancillary
        assert (data, kind) == (b"FDSTORE=1\nFDNAME=a", socket.SCM_RIGHTS)
        with socket.socket(fileno=int.from_bytes(fd, sys.byteorder)) as got:
            assert os.path.sameopenfile(got.fileno(), kept.fileno())
        assert manager.heard() == ["FDSTOREREMOVE=1\nFDNAME=c", "STOPPING=1"]  # what was closed meanwhile is not missed
    notifier.close()
    assert notifier.room == 0


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "9" * 30])
def test_room_that_is_no_number_is_told(manager: Manager, value: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = manager.notifier(FDSTORE=value)
    assert notifier.room == 0
    notifier.close()
    assert "FDSTORE is ignored: expected a number of descriptors" in caplog.text


def test_without_a_manager_there_is_no_room() -> None:
    environ = {"FDSTORE": "4"}
    assert Notifier.from_environ(environ).room == 0
    assert environ == {}
