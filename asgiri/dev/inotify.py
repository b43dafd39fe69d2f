"""inotify(7), by ctypes: what happens in directories, told when it happens.

watchfiles looks every few milliseconds whether there is anything, and knows of a write from its first byte on; the
kernel tells when a file that was written is closed, which is when its code can be imported. So a save is known at once,
and nobody polls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import Final, NamedTuple

# linux/inotify.h
_CLOSE_WRITE: Final = 0x00000008
_MOVED_FROM: Final = 0x00000040
_MOVED_TO: Final = 0x00000080
_CREATE: Final = 0x00000100
_DELETE: Final = 0x00000200
_DELETE_SELF: Final = 0x00000400
_MOVE_SELF: Final = 0x00000800
_Q_OVERFLOW: Final = 0x00004000
_IGNORED: Final = 0x00008000
_ONLYDIR: Final = 0x01000000
_ISDIR: Final = 0x40000000
_WANTED: Final = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR

_EVENT: Final = struct.Struct("iIII")  # struct inotify_event, without its name
_READ: Final = 256 << 10


class Happened(NamedTuple):
    """Something that happened to ``path``, or in the watched directory itself.

    ``came``: a directory is there that was not. ``gone``: a watched directory is not there any more, under that name.
    ``lost``: more has happened than the kernel could keep; look for yourself.
    """

    path: str
    came: bool = False
    gone: bool = False
    lost: bool = False


class Inotify:
    """Watches directories, each for what is directly in it. OSError where the kernel has none to give."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._paths: dict[int, str] = {}  # by watch descriptor
        self._watches: dict[str, int] = {}

    def fileno(self) -> int:
        return self._fd

    def __len__(self) -> int:
        return len(self._watches)

    def __contains__(self, directory: str) -> bool:
        return directory in self._watches

    def add(self, directory: str) -> None:
        """Watch one more. OSError: it is not there, is no directory, or the limit is reached (ENOSPC).

        One that is watched already, by another name, is told of by that one.
        """
        watch = self._call("inotify_add_watch", self._fd, os.fsencode(directory), _WANTED)
        if self._paths.setdefault(watch, directory) == directory:
            self._watches[directory] = watch

    def remove(self, directory: str) -> None:
        """Watch it no more, whether it is still there or not."""
        watch = self._watches.pop(directory, None)
        if watch is not None:
            self._paths.pop(watch, None)
            self._libc.inotify_rm_watch(self._fd, watch)  # it may be gone already

    def read(self) -> list[Happened]:
        """What has happened since the last time; empty when nothing has."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return []
        found: list[Happened] = []
        at = 0
        while at < len(data):
            watch, mask, _cookie, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = os.fsdecode(data[at : at + size].rstrip(b"\0"))
            at += size
            found += self._told(watch, mask, name)
        return found

    def _told(self, watch: int, mask: int, name: str) -> list[Happened]:
        if mask & _Q_OVERFLOW:
            return [Happened("", lost=True)]
        directory = self._paths.get(watch)
        if directory is None:  # it was removed meanwhile
            return []
        if mask & (_IGNORED | _DELETE_SELF | _MOVE_SELF):
            self.remove(directory)
            return [Happened(directory, gone=True)]
        path = os.path.join(directory, name)
        if mask & _ISDIR:
            return [Happened(path, came=bool(mask & (_CREATE | _MOVED_TO)), gone=bool(mask & (_DELETE | _MOVED_FROM)))]
        # A file that was only created is about to be written, and closed.
        return [] if mask & _CREATE and not _is_link(path) else [Happened(path)]

    def close(self) -> None:
        os.close(self._fd)

    def _call(self, name: str, *arguments: object) -> int:
        try:
            call = getattr(self._libc, name)
        except AttributeError:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
        result: int = call(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def _is_link(path: str) -> bool:
    """Whether a name was given to what was there: link(2) and symlink(2) close nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISLNK(found.st_mode) or found.st_nlink > 1
