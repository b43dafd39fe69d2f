"""What the config's ``process`` section asks of the master's process: directory, umask, pid file, title."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from setproctitle import setproctitle

from asgiri.config.nodes import printable
from asgiri.config.schema import Process
from asgiri.errors import ConfigError, Problem


def fill_standard_streams() -> None:
    """Point descriptors 0, 1 and 2 to /dev/null where they are closed: no socket of ours may become one of them."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # It takes the lowest number that is free. Programs that are executed are to have it, as they expect.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def apply_process(process: Process) -> None:
    """Change directory and set the umask. ConfigError when the directory cannot be entered."""
    if process.chdir is not None:
        try:
            os.chdir(process.chdir)
        except OSError as error:
            what = f"cannot enter {process.chdir}: {error.strerror}"
            raise ConfigError([Problem("", "process.chdir", what)]) from error
    if process.umask is not None:
        os.umask(process.umask)


def title(prefix: str, role: str, app: str) -> None:
    """Set the process title: ``asgiri: master [module:app]``."""
    setproctitle(title_text(prefix, role, app))


def title_text(prefix: str, role: str, app: str) -> str:
    return printable(f"{prefix}: {role} [{app}]")


class PidFile:
    """Keeps this process's id in a file; None is no file."""

    def __init__(self, path: str | None) -> None:
        self._file = None if path is None else Path(path).absolute()

    def write(self) -> None:
        """ConfigError when it cannot be written. Whoever reads it meanwhile sees a whole number, old or new."""
        if self._file is None:
            return
        fresh = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        try:
            with suppress(FileNotFoundError):
                fresh.unlink()  # of a process that had this id before
            with fresh.open("x", encoding="ascii") as file:  # follows no link that somebody has put there
                file.write(f"{os.getpid()}\n")
            fresh.replace(self._file)
        except OSError as error:
            with suppress(OSError):
                fresh.unlink()
            what = f'cannot write "{printable(str(self._file))}": {error.strerror}'
            raise ConfigError([Problem("", "process.pidfile", what)]) from error

    def why_not(self) -> str:
        """Why it could not be written; empty when it could, as far as can be seen."""
        from asgiri.sockets.probe import why_not_at  # a start just tries

        if self._file is None:
            return ""
        path = printable(str(self._file))
        return f'"{path}" is a directory' if self._file.is_dir() else why_not_at(str(self._file))

    def is_same(self, other: PidFile) -> bool:
        """Whether both are one file, by whatever path; or none."""
        if self._file is None or other._file is None:
            return self._file is other._file
        try:
            return self._file == other._file or self._file.samefile(other._file)
        except OSError:
            return False

    def remove(self) -> None:
        """Remove it, if it is still ours: another master may have written its own."""
        if self._file is not None:
            with suppress(OSError, ValueError):
                if int(self._file.read_text(encoding="ascii")) == os.getpid():
                    self._file.unlink()


class Standing:
    """What the master itself has of the ``process`` section, and of what a reload changes in it.

    ``umask`` is the one that was inherited: a config without one goes back to it.
    """

    def __init__(self, process: Process, umask: int) -> None:
        self._pidfile = PidFile(process.pidfile)
        self._umask = umask

    def show(self) -> None:
        """Write the pid file. ConfigError when it cannot be written."""
        self._pidfile.write()

    def refuse(self, process: Process, where: str) -> None:
        """ConfigError, before anything is changed, when :meth:`take` could not have the pid file, as was said there."""
        fresh = PidFile(process.pidfile)
        if not fresh.is_same(self._pidfile) and (why := fresh.why_not()):
            raise ConfigError([Problem(where, "process.pidfile", why)])

    def take(self, process: Process) -> None:
        """Have the umask and the pid file of a config that was committed. ConfigError: the old pid file stays."""
        os.umask(self._umask_of(process))
        fresh = PidFile(process.pidfile)
        if fresh.is_same(self._pidfile):
            return
        fresh.write()
        if not fresh.is_same(self._pidfile):  # now that it is there
            self._pidfile.remove()
        self._pidfile = fresh

    @contextmanager
    def as_of(self, process: Process) -> Iterator[None]:
        """With the umask of a config that is not committed yet, for what is made for it: its sockets, its workers."""
        before = os.umask(self._umask_of(process))
        try:
            yield
        finally:
            os.umask(before)

    def disown(self) -> None:
        """Another master is about to write its own: the file is there all along, and only ours is ever removed."""
        self._pidfile = PidFile(None)

    def leave(self) -> None:
        self._pidfile.remove()

    def _umask_of(self, process: Process) -> int:
        return self._umask if process.umask is None else process.umask
