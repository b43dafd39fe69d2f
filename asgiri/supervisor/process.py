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
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


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


@contextmanager
def pidfile(path: str | None) -> Iterator[None]:
    """Keep this process's id in a file, and remove the file afterwards if it is still ours.

    ConfigError when it cannot be written.
    """
    if path is None:
        yield
        return
    file = Path(path)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        fresh.write_text(f"{os.getpid()}\n", encoding="ascii")
        fresh.replace(file)  # whoever reads it sees a whole number
    except OSError as error:
        what = f'cannot write "{path}": {error.strerror}'
        raise ConfigError([Problem("", "process.pidfile", what)]) from error
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            if int(file.read_text(encoding="ascii")) == os.getpid():
                file.unlink()
