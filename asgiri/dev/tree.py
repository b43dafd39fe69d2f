"""What the watched folders have in them, and how that differs from what was there before."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from asgiri.dev.filter import VENV_FILE, Filter

# Modification time in nanoseconds, size, inode: who writes the same text anew has saved.
Stamp = tuple[int, int, int]


class Tree:
    """Every file that matters, with its stamp, and every folder that is looked into."""

    def __init__(self, filter_: Filter) -> None:
        self._filter = filter_
        self._stamps: dict[str, Stamp] = {}
        self.folders: set[str] = set()

    def look(self, since_ns: int = 0) -> list[str]:
        """Look at everything anew; the files that are not as before, those that are gone among them.

        At the first look nothing is known yet: then it is those that were changed, or came to be called so, after
        ``since_ns``, a time of the wall clock; 0: none.
        """
        first = not self._stamps and not self.folders
        before, self._stamps = self._stamps, {}
        self.folders = set()
        for folder in self._filter.dirs:
            self._walk(folder)
        for file in self._filter.files:
            self._see(file)
        if first:
            return [path for path in self._stamps if changed_ns(path) >= since_ns] if since_ns else []
        return [path for path in {**before, **self._stamps} if before.get(path) != self._stamps.get(path)]

    def enter(self, folder: str) -> tuple[list[str], list[str]]:
        """A folder has come: the folders below it, itself included, and the files in them that are new."""
        if not (self._filter.enters(folder) or folder in self._filter.dirs):
            return [], []
        folders, stamps = self.folders, self._stamps
        self.folders, self._stamps = set(), {}
        self._walk(folder)
        came, found = self.folders - folders, self._stamps
        self.folders, self._stamps = folders | came, {**stamps, **found}
        return sorted(came), [path for path, one in found.items() if stamps.get(path) != one]

    def leave(self, folder: str) -> list[str]:
        """A folder has gone: the files that have gone with it."""
        below = folder + "/"
        self.folders = {one for one in self.folders if one != folder and not one.startswith(below)}
        gone = [path for path in self._stamps if path.startswith(below)]
        for path in gone:
            del self._stamps[path]
        return gone

    def changed(self, path: str) -> bool:
        """Something has happened to a file: whether it matters, and is not as it was."""
        if not self._filter.matters(path):
            return False
        before = self._stamps.pop(path, None)
        self._see(path)
        return self._stamps.get(path) != before

    def _walk(self, top: str) -> None:
        waiting = [top]
        seen: set[tuple[int, int]] = set()  # links may make a circle
        while waiting:
            folder = waiting.pop()
            entries = list(_entries(folder))
            if folder != top and any(entry.name == VENV_FILE for entry in entries):
                continue
            self.folders.add(folder)
            for entry in entries:
                with suppress(OSError):
                    if not entry.is_dir():
                        if self._filter.matters(entry.path):
                            self._see(entry.path)
                    elif self._filter.enters(entry.path):
                        found = entry.stat()
                        if (found.st_dev, found.st_ino) not in seen:
                            seen.add((found.st_dev, found.st_ino))
                            waiting.append(entry.path)

    def _see(self, path: str) -> None:
        if stamp := stamp_of(path):
            self._stamps[path] = stamp


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
