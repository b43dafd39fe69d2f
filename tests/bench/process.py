"""A server's processes: started on one core in a session of their own, ended by pid, and seen to be gone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench import system

GRACE = 15.0  # seconds between TERM and KILL
TAIL = 4  # lines of output that tell why something ended


class Running:
    """One server. ``output`` holds what it prints on stdout and stderr."""

    def __init__(self, command: Sequence[str], *, core: int, folder: Path, env: Mapping[str, str]) -> None:
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ended(self) -> bool:
        """Whether the first process has ended; it stays a zombie until ``stop``, so its pid stays its own."""
        if self._process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def epitaph(self) -> str:
        """How the first process ended, and its last words."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return "still runs"
        how = "with exit code" if found.si_code == os.CLD_EXITED else "by signal"
        return f"ended {how} {found.si_status}: {self.tail()}"

    def members(self) -> list[system.Process]:
        """The processes of the session that live, wherever in it they hang."""
        return [one for one in system.processes() if one.session == self.pid and one.state != "Z"]

    def cpu(self) -> float:
        """CPU seconds that all processes of the server have used."""
        return sum(one.cpu for one in self.members())

    def tail(self) -> str:
        """The last lines that it printed, on one line."""
        lines = [line.strip() for line in self.output.read_text("utf-8", "replace").splitlines()]
        return " / ".join([line for line in lines if line][-TAIL:]) or "no output"

    def stop(self) -> list[str]:
        """End it: TERM to the first process, KILL to what is left. Returns what was not as it should be."""
        problems = []
        if self._process.returncode is None:
            self._process.terminate()
            if not wait_until(lambda: self.ended, GRACE):
                problems.append(f"did not end within {GRACE:.0f} s of TERM")
                self._process.kill()
                wait_until(lambda: self.ended, GRACE)
            # The pid of the first process is still taken, so these can be nobody else's.
            if not wait_until(lambda: not self.members(), 2.0):
                problems.append("left processes behind")
                self._kill_members()
            self._process.wait(GRACE)
        return problems

    def _kill_members(self) -> None:
        for one in self.members():
            try:
                os.kill(one.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not wait_until(lambda: not self.members(), GRACE):
            raise RuntimeError(f"processes that cannot be ended: {self.members()}")


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Look often; False when it has not come true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
