"""A child's stacks: a file in memory that it writes them to on a signal, and that the master reads."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
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
MOST: Final = 256 << 10
# What a child writes last, as asgiri.child.stacks has it.
END: Final = b"\0"


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

    def ask(self, pid: int) -> bool:
        """Have the child write them. They are whole a moment later; how long a moment, nobody can say.

        False when the signal would end it: the application has taken the handler away.
        """
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)  # the child's descriptor is of the same open file, and has no other place
        if would_end(pid):
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, ASK)
        return True

    @property
    def is_whole(self) -> bool:
        """The child has written all there is."""
        size = os.fstat(self._fd).st_size
        return size > 0 and os.pread(self._fd, 1, size - 1) == END

    def read(self, most: int = MOST) -> str:
        """What has been written since they were asked for, up to so many bytes."""
        text = os.pread(self._fd, most, 0).replace(END, b"").decode("utf-8", "backslashreplace")
        return without_master(text).rstrip("\n")

    def close(self) -> None:
        os.close(self._fd)


def would_end(pid: int) -> bool:
    """Whether :data:`ASK` has its default effect there (proc(5): SigCgt, SigIgn). Not known where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in fields if line.startswith((b"SigCgt:", b"SigIgn:"))]
    return bool(masks) and not any(mask >> (ASK - 1) & 1 for mask in masks)


def without_master(text: str) -> str:
    """``text`` without the frames of the master: the last of the main thread, which say nothing about the child."""
    kept: list[str] = []
    ours = False
    for line in text.splitlines():
        ours = line.startswith("  ") and (ours or line.startswith(_OURS))
        if not ours:
            kept.append(line)
    return "\n".join(kept)
