"""The files that an application wants sent: by path or by descriptor, checked before a byte of them is on the wire."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asgiri.types import Message


class FilePart:
    """``size`` bytes of the open regular file ``fd``, from ``offset`` on."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self.fd = fd
        self.offset = offset
        self.size = size

    def advance(self) -> None:
        """The part will be sent: move the file's position behind it where the part began there."""


@contextmanager
def opened(path: str) -> Iterator[FilePart]:
    """The whole of a regular file, open for the time of the block. OSError when it cannot be had."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO without a writer must not stop the loop
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        yield FilePart(fd, 0, status.st_size)
    finally:
        os.close(fd)


class FileSlice(FilePart):
    """What a zerocopysend message asks for.

    ``file`` is a descriptor or an object with one, open for reading bytes; it stays its owner's. Without an offset
    the part begins at the file's position, without a count it goes on to the end; like sendfile(2) it ends with the
    file at the latest. Raises TypeError and ValueError for what is no such file, offset or count.
    """

    def __init__(self, message: Message) -> None:
        file = message.get("file")
        fd = descriptor_of(file)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise TypeError("file: expected a regular file: nothing else has bytes at an offset")
        offset = number(message, "offset")
        count = number(message, "count")
        self._moves = file if offset is None else None
        start = position_of(file, fd) if offset is None else offset
        size = max(0, status.st_size - start)
        super().__init__(fd, start, size if count is None else min(size, count))

    def advance(self) -> None:
        if self._moves is None:
            return
        end = self.offset + self.size
        if hasattr(self._moves, "seek"):
            self._moves.seek(end)
        else:
            os.lseek(self.fd, end, os.SEEK_SET)


def position_of(file: Any, fd: int) -> int:
    """Where the next read begins: a buffered reader's descriptor may be far ahead of it."""
    position = file.tell() if hasattr(file, "tell") else os.lseek(fd, 0, os.SEEK_CUR)
    if not isinstance(position, int):
        raise TypeError(f"file: expected an ordinary file, got {type(file).__name__}: name an offset")
    return position


def descriptor_of(file: Any) -> int:
    if isinstance(file, int) and not isinstance(file, bool):
        return file
    if hasattr(file, "encoding"):  # what a file is wrapped in passes this on, the class tells nothing
        raise TypeError("file: expected one opened for bytes, got one for text: its positions are no offsets")
    try:
        fd = file.fileno()
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        raise TypeError(f"file: expected a file with a descriptor, got {type(file).__name__}") from None
    if not isinstance(fd, int):
        raise TypeError(f"file: expected a file with a descriptor, got {type(file).__name__}")
    return fd


def number(message: Message, key: str) -> int | None:
    value = message.get(key)
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(f"{key}: expected an int, got {value!r}")
    if value < 0:
        raise ValueError(f"{key}: expected 0 or more, got {value}")
    return value
