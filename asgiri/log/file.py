"""A log's file: a descriptor that appends, that can be opened anew, and at which nobody waits for ever."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from asgiri.log_target import STDERR, is_path

_STDERR_FD = 2

# When there is room for one write, other processes may be quicker to take it; so often we wait for the next.
_TRIES = 3

# Bytes that a pipe takes whole or not at all, so that processes do not mix their lines (POSIX write(2)).
_PIPE_WRITE: Final = select.PIPE_BUF


class LogFile:
    """An open log file. ``name`` is a path, or "-" for stderr. Making one raises OSError when it cannot be opened."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._fd = _open_stderr() if name == STDERR else _open(name)
        self._news = select.poll()
        self._news.register(self._fd, select.POLLOUT)
        self._look()

    def _look(self) -> None:
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._may_block = not self._regular and os.get_blocking(self._fd)

    @property
    def whole(self) -> int | None:
        """How many bytes of one write stay together whatever other processes write; None: any number."""
        return None if self._regular else _PIPE_WRITE

    def write(self, data: bytes, patience: float = 0.0) -> int:
        """Write once; how many bytes of ``data`` the file took.

        A reader that does not read (a pipe, a terminal) is waited for ``patience`` seconds; then BlockingIOError is
        raised, and OSError for whatever else is wrong.
        """
        for _ in range(_TRIES):
            if self._may_block and not self._takes_more(patience):
                break
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                if not patience or not self._takes_more(patience):
                    break
        raise BlockingIOError(errno.EAGAIN, "its reader does not read")

    def _takes_more(self, patience: float) -> bool:
        """Whether a write will not wait, now or within ``patience`` seconds; so too where it will fail."""
        return bool(self._news.poll(patience * 1000))

    def reopen(self) -> None:
        """Go on in the file that has the name now, under the same descriptor; on OSError nothing changes."""
        if self.name == STDERR:
            return
        fresh = _open(self.name)
        try:
            os.dup2(fresh, self._fd, inheritable=False)
        finally:
            os.close(fresh)
        self._look()

    def close(self) -> None:
        """Close the file. Writing raises OSError from then on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def check_writable(name: str) -> None:
    """Raise OSError when the file cannot be appended to, or made. Opens nothing: a FIFO's reader would see it end."""
    if not is_path(name):
        return
    try:
        kind = os.stat(name).st_mode
    except FileNotFoundError:
        folder = os.path.dirname(name) or os.curdir
        if not name or not os.path.isdir(folder):
            raise
        allowed = os.access(folder, os.W_OK | os.X_OK)
    else:
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        allowed = os.access(name, os.W_OK)
    if not allowed:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def is_journal(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether stderr is the journal's: systemd.exec(5), JOURNAL_STREAM, names the socket that it has connected."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdecimal() and inode.isdecimal()):
        return False
    try:
        found = os.fstat(_STDERR_FD)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (int(device), int(inode))


def _open(name: str) -> int:
    """A descriptor that appends to the file, made if it is not there; other programs do not inherit it."""
    flags = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return os.open(name, os.O_WRONLY | flags, 0o640)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        # A FIFO that nobody reads yet. Opened like this (POSIX leaves it open) it keeps what comes until somebody does.
        return os.open(name, os.O_RDWR | flags, 0o640)


def _open_stderr() -> int:
    """A descriptor of our own: when an app closes 2, a connection may get that number, and must not get our lines.

    That of a pipe never waits, which can be had only by opening it once more: the flag on 2 itself would be everybody's
    who shares it. Where it is another user's pipe, and for all else, a copy of 2 does.
    """
    if stat.S_ISFIFO(os.fstat(_STDERR_FD).st_mode):
        with suppress(OSError):
            return os.open(f"/dev/fd/{_STDERR_FD}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
    return os.dup(_STDERR_FD)
