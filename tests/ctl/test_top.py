"""asgirictl top, on a real terminal, against a control server that answers as it is told to."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from asgiri.ctl import screen, terminal
from asgiri.ctl.command import command
from asgiri.ctl.top import EXTRA, View, plain
from asgiri.supervisor.verbs import AskStatus, Recent, ServiceStatus, Spread, WorkerStatus
from tests.ctl.fake import STATUS, Fake
from tests.e2e.service import ROOT, eventually
from tests.e2e.terminal import Terminal

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?25h\x1b[?1049l"
WITHOUT_RICH = "import sys; sys.modules['rich'] = None; from asgiri.ctl import main; main()"


class Screen(Terminal):
    """``asgirictl top`` on a terminal, whose modes before and after can be compared."""

    def __init__(self, fd: int, theirs: int, process: subprocess.Popen[bytes]) -> None:
        super().__init__(fd, process)
        self.theirs = theirs
        self.before = termios.tcgetattr(theirs)

    @property
    def is_as_before(self) -> bool:
        return bool(termios.tcgetattr(self.theirs) == self.before)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def next(self, what: str) -> None:
        """Wait for this from here on."""
        self.text = ""
        self.wait(what)


@contextmanager
def top(path: Path, *program: str, interval: str = "100ms") -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    how = program or ("-m", "asgiri.ctl")
    before = Screen(ours, theirs, None)  # type: ignore[arg-type]  # its modes, before anybody changes them
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-W", "error", *how, "--socket", str(path), "top", "--interval", interval],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    before.process = process
    try:
        yield before
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    fake = Fake(tmp_path / "7.sock")
    yield fake
    fake.close()


def test_a_new_size_is_followed_at_once(fake: Fake) -> None:
    with top(fake.path, interval="1h") as shown:
        shown.wait("q quits")
        shown.resize(40, 10)
        shown.next("shop:app: running, up 2h3m, asgiri 0.1.…")
        shown.press(b"q")
        assert shown.end() == 0


def test_it_is_live(fake: Fake) -> None:
    with top(fake.path) as shown:
        shown.wait("4720")
        assert ENTER in shown.text
        for word in ("shop:app: running", "1 of 2 workers serving", "0 in flight", "peak 12", "q quits"):
            assert word in shown.text
        fake.replies[AskStatus] = replace(STATUS, requests_per_second=777.0, wrong=["worker 2 gen 3 hangs"])
        shown.next("777.0 requests/s")
        shown.next("! worker 2 gen 3 hangs")
        assert not shown.is_as_before
        shown.press(b"q")
        assert shown.end() == 0
        assert shown.text.endswith(LEAVE)
        assert shown.is_as_before


@pytest.mark.parametrize(
    ("end", "code"),
    [(b"\x03", 0), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)],
)
def test_the_terminal_is_given_back_whatever_ends_it(fake: Fake, end: bytes | signal.Signals, code: int) -> None:
    with top(fake.path, interval="1h") as shown:
        shown.wait("q quits")
        if isinstance(end, bytes):
            shown.press(end)
        else:
            os.kill(shown.process.pid, end)
        assert shown.end() == code
        assert shown.text.endswith(LEAVE)
        assert shown.is_as_before


def test_a_terminal_that_is_hung_up_ends_it_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r+b", buffering=0) as file:
        monkeypatch.setattr(sys, "stdin", file)
        monkeypatch.setattr(sys, "stdout", file)
        with terminal.Terminal() as shown:
            os.close(ours)
            assert shown.size == (80, 24)
            shown.show(["whatever"])
            assert shown.wait(3600.0) is terminal.Key.QUIT


def test_a_ctrl_z_lends_the_terminal_to_the_shell(fake: Fake) -> None:
    with top(fake.path, interval="1h") as shown:
        shown.wait("q quits")
        shown.press(b"\x1a")
        assert eventually(lambda: state(shown.process.pid) == "T")
        assert shown.is_as_before
        os.kill(shown.process.pid, signal.SIGCONT)
        shown.next(ENTER)
        shown.wait("q quits")
        shown.press(b"q")
        assert shown.end() == 0
        assert shown.is_as_before


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]


def test_a_service_that_goes_and_comes_back(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "named.sock")
    with top(fake.path) as shown:
        shown.wait("4720")
        fake.close()
        shown.next("asking again, below is of ")
        shown.next("shop:app")  # which is still there
        fake = Fake(tmp_path / "named.sock")
        try:
            fake.replies[AskStatus] = replace(STATUS, pid=4800)
            shown.next("another master serves: pid 4800, asgiri 0.1.0; it was pid 4711")
        finally:
            fake.close()
        shown.press(b"q")
        assert shown.end() == 0


def test_without_rich_there_is_the_table_and_the_extra_is_named(fake: Fake) -> None:
    with top(fake.path, "-c", WITHOUT_RICH) as shown:
        shown.wait(EXTRA)
        assert "worker  gen   pid" in shown.text
        assert "4720" in shown.text
        shown.press(b"q")
        assert shown.end() == 0
        assert shown.is_as_before


def test_without_a_terminal_it_says_what_to_do(fake: Fake) -> None:
    told = CliRunner().invoke(command, ["--socket", str(fake.path), "top"])
    assert (told.exit_code, told.stdout) == (1, "")
    assert told.stderr == "asgirictl: top takes a terminal; asgirictl status says the same once\n"
    told = CliRunner().invoke(command, ["--socket", str(fake.path), "--json", "top"])
    assert told.exit_code == 1
    assert "--json status" in json.loads(told.stdout)["error"]


def test_without_a_service_the_terminal_is_left_alone(tmp_path: Path) -> None:
    with top(tmp_path / "none.sock") as shown:
        assert shown.end() == 1
        assert "there is no such file" in shown.text
        assert ENTER not in shown.text


# The picture


def view_of(service: ServiceStatus | None, **more: Any) -> View:
    view = View(lambda: "", None)
    view.service = service
    for name, value in more.items():
        setattr(view, name, value)
    return view


BUSY = replace(
    STATUS,
    recent=Recent(seconds=10.0, duration=Spread(9, 0.0002, 0.0345, 1.5), loop_lag=Spread(3, 0.001, 0.002, 0.003)),
    wrong=["\x1b[31mred", "x" * 300],
    workers=[WorkerStatus(number=n, generation=3, pid=n + 100, state="hung", age=5.0) for n in range(1, 60)],
)


@pytest.mark.parametrize("draw", [screen.draw, plain])
@pytest.mark.parametrize("columns", [1, 20, 80, 400])
@pytest.mark.parametrize("lines", [1, 2, 9, 24, 100])
def test_the_picture_fits_and_steers_nothing(draw: Any, columns: int, lines: int) -> None:
    from rich.text import Text

    for service in (None, STATUS, BUSY):
        picture = draw(view_of(service, trouble="gone\nfor good"), columns, lines)
        assert len(picture) <= lines
        for line in picture:
            assert "\x1b[31mred" not in line
            assert "\n" not in line
            assert Text.from_ansi(line).cell_len <= columns


def test_what_is_measured_is_told() -> None:
    for draw in (screen.draw, plain):
        text = "\n".join(draw(view_of(BUSY), 200, 100))
        for word in ("0.200ms", "34.5ms", "1.50s", "2.00ms", "last 10s", "159"):
            assert word in text
    assert "+49" in "\n".join(screen.draw(view_of(BUSY), 200, 22))
