"""A child's stacks: a file in memory that it writes them to on a signal, and that the master reads."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Final

# The frames of the master, or of the zygote, out of which a child was forked.
_ROOM: Final = os.path.dirname(__file__)
_OURS: Final = (
    f'  File "{_ROOM}{os.sep}',
    f'  File "{os.path.join(os.path.dirname(_ROOM), "dev", "zygote.py")}"',
)

# What a child does on it: see asgiri.child.stacks.
ASK: Final = signal.SIGUSR2
# More than the stacks of a few hundred threads and tasks; a log is no place for more.
_MOST: Final = 256 << 10


class Stacks:
    """The file, made before the fork, so that both have it. OSError when there is no descriptor left."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._fd = os.memfd_create("asgiri-stacks")
        else:
            import tempfile  # which costs a megabyte

            with tempfile.TemporaryFile() as file:
                self._fd = os.dup(file.fileno())

    def fileno(self) -> int:
        return self._fd

    def ask(self, pid: int) -> None:
        """Have the child write them. They are whole a moment later; how long a moment, nobody can say."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)  # the child's descriptor is of the same open file, and has no other place
        with suppress(ProcessLookupError):
            os.kill(pid, ASK)

    def read(self) -> str:
        """What has been written since they were asked for."""
        text = os.pread(self._fd, _MOST, 0).decode("utf-8", "backslashreplace")
        return without_master(text).rstrip("\n")

    def close(self) -> None:
        os.close(self._fd)


def without_master(text: str) -> str:
    """``text`` without the frames of the master: the last of the main thread, which say nothing about the child."""
    kept: list[str] = []
    ours = False
    for line in text.splitlines():
        ours = line.startswith("  ") and (ours or line.startswith(_OURS))
        if not ours:
            kept.append(line)
    return "\n".join(kept)
