"""The watcher: a child that tells the master which files have changed, once for each save.

On Linux the kernel tells it (asgiri.dev.inotify). Elsewhere watchfiles does. Where neither can, or the file system does
not tell of changes that are made on another machine, it looks for itself twice a second.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import select
import time
from collections.abc import Iterable
from typing import Any, Final, Protocol

from setproctitle import setproctitle

from asgiri.child.logs import configure
from asgiri.child.ties import tie_to_master
from asgiri.config.nodes import printable
from asgiri.dev.filter import VENV_FILE, Filter, Gatherer
from asgiri.dev.inotify import Happened, Inotify
from asgiri.dev.stale import forget_compiled
from asgiri.dev.tree import Tree
from asgiri.errors import AsgiriError
from asgiri.link import Boot, Booted, BootFailed, Changed, Watch
from asgiri.supervisor.scoreboard import State

logger = logging.getLogger("asgiri.watcher")

POLL_SECONDS: Final = 0.5
# What mountinfo writes for a space, a tab, a newline, a backslash.
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
# So many files are named; the others are counted.
NAMED: Final = 3

# File systems that do not tell of what others do to them.
SILENT: Final = frozenset(
    {
        *("9p", "afs", "cifs", "drvfs", "fuse.grpcfuse", "fuse.osxfs", "fuse.sshfs", "lustre", "ncpfs", "nfs", "nfs4"),
        *("prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "fuse.vmhgfs-fuse"),
    }
)


class Source(Protocol):
    """Where the news comes from."""

    def fileno(self) -> int: ...

    def read(self) -> list[Happened]: ...

    def add(self, directory: str) -> None: ...

    def remove(self, directory: str) -> None: ...

    def close(self) -> None: ...


def main(boot: Boot) -> int:
    """Be the watcher; the exit status."""
    watch = boot.watch
    assert watch is not None
    tie_to_master(boot.master_pid)
    boot.slot.introduce(os.getpid(), boot.number, boot.generation)
    config = boot.config
    setproctitle(printable(f"{config.process.title}: watcher"))
    try:
        configure(config, "watcher")
    except AsgiriError as error:
        boot.link.report(BootFailed(str(error)))
        return error.exit_code
    watcher = Watcher(watch)
    boot.slot.state = State.SERVING
    boot.link.report(Booted())
    while True:
        due = watcher.due()
        timeout = None if due is None else max(0.0, due - time.monotonic())
        waited: list[Any] = [boot.link, *watcher.files()]
        readable, _, _ = select.select(waited, [], [], timeout)
        if boot.link in readable and boot.link.read() != []:  # the master is gone, or wants us to be
            return 0
        if changed := watcher.read(time.monotonic()):
            forget_compiled(changed)
            names = tuple(map(name_of, changed[:NAMED]))
            boot.link.report(Changed(names, len(changed)))


class Watcher:
    """Folders, and what is new in them. Reads the clock of whoever calls."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._filter = Filter(watch.dirs, watch.include, watch.exclude, watch.files)
        self._tree = Tree(self._filter)
        self._gatherer = Gatherer(watch.delay)
        self._poll_at: float | None = None
        self._is_away = False  # something is not there, and that alone is why it polls
        self._source: Source | None = None
        self._begin(watch.since_ns)

    def _begin(self, since_ns: int = 0) -> None:
        """Have the kernel tell from now on, or poll."""
        self._source, reason = source_of(self._watch)
        # The kernel tells from before the first look on: nothing falls between the two.
        self._note(self._tree.look(since_ns))
        if self._source is not None:
            reason = self._catch_up()
        if reason:
            self._begin_polling(reason)

    def files(self) -> list[Source]:
        """What to wait for."""
        return [] if self._source is None else [self._source]

    def due(self) -> float | None:
        """When to call :meth:`read` at the latest."""
        return min((at for at in (self._gatherer.due(), self._poll_at) if at is not None), default=None)

    def read(self, now: float) -> list[str]:
        """What has changed, when it is time to tell; else nothing yet."""
        if self._source is not None:
            for happened in self._source.read():
                if self._source is not None:  # else it looks for itself now, and has looked
                    self._hear(happened)
        if self._poll_at is not None and now >= self._poll_at:
            self._poll(now)
        due = self._gatherer.due()
        return self._gatherer.take() if due is not None and now >= due else []

    def _poll(self, now: float) -> None:
        self._poll_at = now + POLL_SECONDS
        if self._is_away and not missing(self._watch):
            logger.info("all that is watched is there again")
            self._poll_at = None
            self._begin()
        else:
            self._note(self._tree.look())

    def _hear(self, happened: Happened) -> None:
        path = happened.path
        if happened.lost:
            reason = self._catch_up()
        elif happened.gone and path in anchors(self._watch):
            self._leave(path)
            reason = self._catch_up()  # it may be there again already, and nobody would tell
        elif happened.came or (path not in self._tree.folders and os.path.isdir(path)):  # by a link, then
            reason = self._enter(path)
        elif happened.gone or path in self._tree.folders:
            self._leave(path)
            reason = ""
        else:
            reason = self._hear_of_file(path)
        if reason:
            self._begin_polling(reason)

    def _hear_of_file(self, path: str) -> str:
        links = self._tree.links
        by_link = [link for link, target in links.items() if target == path]
        self._note([one for one in (path, *by_link) if self._tree.changed(one)])
        folder = os.path.dirname(path)
        if os.path.basename(path) == VENV_FILE and folder in self._tree.folders and folder not in self._filter.dirs:
            self._leave(folder)
        return self._add([os.path.dirname(links[path])]) if path in links else ""

    def _enter(self, folder: str) -> str:
        """A folder has come: watch it, and those that are made in it meanwhile; why that cannot be, if so."""
        while True:
            fresh, files = self._tree.enter(folder)
            self._note(files)
            if not fresh:
                return self._add(self._linked())
            if reason := self._add(fresh):
                return reason

    def _leave(self, folder: str) -> None:
        """A folder has gone, or is none of our business any more."""
        if self._source is not None:
            for one in [one for one in self._tree.folders if one == folder or one.startswith(folder + "/")]:
                self._source.remove(one)
        gone = self._tree.leave(folder)
        self._note([path for path in gone if not os.path.exists(path)])

    def _catch_up(self) -> str:
        """Watch all that there is, and what is made meanwhile, and see what has changed; why that cannot be, if so."""
        self._note(self._tree.look())
        fresh = known = {*self._tree.folders, *anchors(self._watch)}
        while fresh:
            if reason := self._add(fresh):
                return reason
            self._note(self._tree.look())
            fresh = {*self._tree.folders, *self._linked()} - known
            known = known | fresh
        return missing(self._watch)

    def _linked(self) -> set[str]:
        """The folders of the files that links lead to: those are written there."""
        return set(map(os.path.dirname, self._tree.links.values()))

    def _note(self, paths: Iterable[str]) -> None:
        now = time.monotonic()
        for path in paths:
            self._gatherer.note(path, now, is_gone=not os.path.exists(path))

    def _add(self, folders: Iterable[str]) -> str:
        """Watch more folders; why that cannot be, if so."""
        assert self._source is not None
        for folder in sorted(folders):
            try:
                self._source.add(folder)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
                    continue  # it has gone again, or is none of our business
                return f"no more folders can be watched ({error.strerror}; see fs.inotify.max_user_watches)"
        return ""

    def _begin_polling(self, reason: str) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None
        logger.info("polling every %g s: %s", POLL_SECONDS, reason)
        self._is_away = bool(missing(self._watch))
        self._poll_at = time.monotonic() + POLL_SECONDS
        self._note(self._tree.look())


def anchors(watch: Watch) -> set[str]:
    """The folders that are watched whatever is in them."""
    return {*watch.dirs, *map(os.path.dirname, watch.files)}


def missing(watch: Watch) -> str:
    """Which of them is not there, in words; empty: all are."""
    gone = [folder for folder in sorted(anchors(watch)) if not os.path.isdir(folder)]
    return f"{name_of(gone[0])} is not there" if gone else ""


def source_of(watch: Watch) -> tuple[Source | None, str]:
    """Where news come from, the kernel or watchfiles; or why nobody can tell, and we have to look."""
    if reason := polls(watch) or missing(watch):
        return None, reason
    try:
        return Inotify(), ""
    except OSError as error:
        if error.errno != errno.ENOSYS:
            return None, f"the system cannot tell of changes ({error.strerror})"
    from asgiri.dev.elsewhere import Watchfiles

    return Watchfiles(watch.dirs), ""


def polls(watch: Watch) -> str:
    """Why to poll from the start; empty: there is no reason to."""
    if watch.polling is not None:
        return "reload.polling says so" if watch.polling else ""
    for folder in watch.dirs:
        if (kind := file_system_of(folder)) in SILENT:
            return f"{name_of(folder)} is on {kind}, which does not tell of all changes"
    return ""


def file_system_of(path: str) -> str:
    """The type of the file system that a path is on (proc_pid_mountinfo(5)); empty where that cannot be seen."""
    found = ("", "")
    path = os.path.realpath(path)
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = _ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields.split()[4])
        below = path == point or path.startswith(point.rstrip("/") + "/")
        if below and len(point) >= len(found[0]):  # of two mounts on one point, the later one is seen
            found = (point, rest.split()[0])
    return found[1]


def name_of(path: str) -> str:
    """A path as a person would name it."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):
        return path
    return path if relative.startswith("..") else relative
