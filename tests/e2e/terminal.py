"""A service on a terminal of its own, as a developer has it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.e2e.service import PATIENCE, ROOT, eventually, processes


class Terminal:
    """The other end of a pty, whose foreground process group is that of ``process``, a master."""

    def __init__(self, fd: int, process: subprocess.Popen[bytes]) -> None:
        self._fd = fd
        self.process = process
        self.text = ""

    @property
    def port(self) -> int:
        """Where it listens, once the terminal shows that."""
        self.wait("http://127.0.0.1:")
        return int("".join(ch for ch in self.text.partition("http://127.0.0.1:")[2][:5] if ch.isdecimal()))

    def wait(self, what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while what not in self.text:
            left = deadline - time.monotonic()
            assert left > 0, f"no {what!r} on the terminal:\n{self.text}"
            if select.select([self._fd], [], [], left)[0]:
                with suppress(OSError):
                    self.text += os.read(self._fd, 65536).decode()

    def type(self, line: str) -> None:
        os.write(self._fd, line.encode() + b"\n")

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def end(self) -> int:
        """The exit code; ``text`` is all that it has said."""
        code = self.process.wait(PATIENCE)
        with suppress(OSError):  # EIO: nobody has the terminal any more
            while select.select([self._fd], [], [], 0.0)[0] and (data := os.read(self._fd, 65536)):
                self.text += data.decode()
        return code


@contextmanager
def on_terminal(directory: Path, *args: str, env: dict[str, str] | None = None) -> Iterator[Terminal]:
    """``asgiri`` with these arguments, in ``directory``; it is gone at the end, with all of its processes."""
    ours, theirs = pty.openpty()
    # setsid(1) --ctty: the terminal's Ctrl-C reaches all of them, as at a shell's prompt.
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-W", "error", "-m", "asgiri", "--bind", "127.0.0.1:0", *args],
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "XDG_RUNTIME_DIR": str(directory),
            "TERM": "xterm",
            **(env or {}),
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    terminal = Terminal(ours, process)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE)
        os.close(ours)
    assert eventually(lambda: not processes(process.pid))
