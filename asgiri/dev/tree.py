"""What the watched folders have in them, and how that differs from what was there before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from asgiri.dev.filter import VENV_FILE, Filter

# Modification time in nanoseconds, size, inode: who writes the same text anew has saved.
Stamp = tuple[int, int, int]
# Device and inode: which folder it is, whatever it is called.
Ident = tuple[int, int]


class Tree:
    """Every file that matters, with its stamp, and every folder that is looked into.

    ``links`` are those files that are symbolic links, with what they lead to. A folder that links lead to is looked
    into by one name, its own if that is a watched folder's or below one.
    """

    def __init__(self, filter_: Filter) -> None:
        self._filter = filter_
        self._stamps: dict[str, Stamp] = {}
        self._has_looked = False
        self.folders: dict[str, Ident] = {}
        self.links: dict[str, str] = {}

    def look(self, since_ns: int = 0) -> list[str]:
        """Look at everything anew; the files that are not as before, those that are gone among them.

        At the first look nothing is known yet: then it is those that were changed, or came to be called so, after
        ``since_ns``, a time of the wall clock; 0: none.
        """
        before, self._stamps = self._stamps, {}
        self.folders, self.links = {}, {}
        for folder in self._filter.dirs:
            self._walk(folder)
        for file in self._filter.files:
            self._see(file)
        if not self._has_looked:
            self._has_looked = True
            return [path for path in self._stamps if changed_ns(path) >= since_ns] if since_ns else []
        return [path for path in {**before, **self._stamps} if before.get(path) != self._stamps.get(path)]

    def enter(self, folder: str) -> tuple[list[str], list[str]]:
        """A folder has come: the folders below it, itself included, and the files in them that are new."""
        is_below = os.path.dirname(folder) in self.folders and self._filter.enters(folder)
        if not is_below and folder not in self._filter.dirs:
            return [], []
        folders, stamps = self.folders, self._stamps
        # What it was before, if it was there, is not another name of what it is.
        self.folders = {path: ident for path, ident in folders.items() if not _is_within(path, folder)}
        self._stamps = {}
        self._walk(folder)
        found, self._stamps = self._stamps, {**stamps, **self._stamps}
        came = self.folders.keys() - folders.keys()
        self.folders = {**folders, **self.folders}
        return sorted(came), [path for path, one in found.items() if stamps.get(path) != one]

    def leave(self, folder: str) -> list[str]:
        """A folder has gone: the files that have gone with it."""
        self.folders = {path: ident for path, ident in self.folders.items() if not _is_within(path, folder)}
        gone = [path for path in self._stamps if _is_within(path, folder)]
        for path in gone:
            del self._stamps[path]
            self.links.pop(path, None)
        return gone

    def changed(self, path: str) -> bool:
        """Something has happened to a file: whether it matters, and is not as it was."""
        is_ours = os.path.dirname(path) in self.folders and self._filter.matters(path)
        if not is_ours and path not in self._filter.files:
            return False
        before = self._stamps.pop(path, None)
        self._see(path)
        return self._stamps.get(path) != before

    def _walk(self, top: str) -> None:
        waiting = [top]
        linked: list[str] = []
        while waiting:
            self._look_into(waiting.pop(), waiting, linked)
        # What is a folder by itself has been seen. Links may lead to such ones, and make a circle.
        while linked:
            folder = linked.pop()
            if _ident_of(folder) not in self.folders.values():
                self._look_into(folder, linked, linked)

    def _look_into(self, folder: str, waiting: list[str], linked: list[str]) -> None:
        """See the files in a folder; folders in it are put to those that wait, or are links."""
        ident = _ident_of(folder)
        entries = list(_entries(folder))
        if ident is None or (folder not in self._filter.dirs and any(entry.name == VENV_FILE for entry in entries)):
            return
        self.folders[folder] = ident
        for entry in entries:
            with suppress(OSError):
                if not entry.is_dir():
                    if self._filter.matters(entry.path):
                        self._see(entry.path)
                elif self._filter.enters(entry.path):
                    (linked if entry.is_symlink() else waiting).append(entry.path)

    def _see(self, path: str) -> None:
        self.links.pop(path, None)
        if stamp := stamp_of(path):
            self._stamps[path] = stamp
            if os.path.islink(path):
                self.links[path] = os.path.realpath(path)


def _is_within(path: str, folder: str) -> bool:
    """Whether it is that folder, or below it."""
    return path == folder or path.startswith(folder + "/")


def _ident_of(folder: str) -> Ident | None:
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing where it is gone, or none of our business."""
    with suppress(OSError), os.scandir(folder) as found:
        yield from found


def changed_ns(path: str) -> int:
    """When the file was last written, replaced or renamed, by the wall clock; 0 where it is gone."""
    try:
        return os.stat(path).st_ctime_ns
    except OSError:
        return 0


def stamp_of(path: str) -> Stamp | None:
    """None where there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino) if stat.S_ISREG(found.st_mode) else None
