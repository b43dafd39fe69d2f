"""What the config's ``process`` section asks of the master's process: directory, umask, pid file, title."""

from __future__ import annotations

import os
from contextlib import suppress
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
    setproctitle(printable(f"{prefix}: {role} [{app}]"))


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

    def remove(self) -> None:
        """Remove it, if it is still ours: another master may have written its own."""
        if self._file is not None:
            with suppress(OSError, ValueError):
                if int(self._file.read_text(encoding="ascii")) == os.getpid():
                    self._file.unlink()
