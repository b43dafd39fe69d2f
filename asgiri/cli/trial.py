"""Importing the application to see whether that works: in a process of its own, as a worker would, and within a time.

So whatever the application does when it is imported (threads, handlers of signals, an exit) it does to that process.
"""

from __future__ import annotations

import atexit
import importlib
import os
import select
import signal
import sys
import time
from math import inf
from traceback import format_exception
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from asgiri.errors import AppError, AsgiriError
from asgiri.tracebacks import describe
from asgiri.units import format_duration

if TYPE_CHECKING:
    from asgiri.config.schema import Config
    from asgiri.supervisor.stacks import Stacks

_LOOK: Final = 0.02  # seconds between two looks at a process, of which nothing else may tell that it has ended
_GRACE: Final = 1.0  # seconds for stacks to be written
_LEAVE: Final = 5.0  # and for the application's exit handlers

# Frames as faulthandler shows them, the innermost first: Python's imports, and ours, out of which it was forked.
_IMPORTS: Final = ('  File "<frozen importlib', f'  File "{os.path.dirname(importlib.__file__)}{os.sep}')
_OURS: Final = f'  File "{os.path.dirname(os.path.dirname(__file__))}{os.sep}'


class Outcome(msgspec.Struct, frozen=True):
    """What has come of it; nothing, where it worked. ``trace`` is for a person to read, and may be empty."""

    error: str = ""
    trace: str = ""
    warning: str = ""


def try_import(config: Config) -> Outcome:
    """Import the application of the config in a fork of this process, with the user and the environment of a worker.

    No bytecode is written next to its sources. It has ``workers.boot_timeout``, as in a worker.
    """
    from asgiri.link import flush_streams
    from asgiri.supervisor.children import in_words
    from asgiri.supervisor.stacks import Stacks

    flush_streams()  # what is in them would be printed twice
    ours, theirs = os.pipe()
    stacks = Stacks()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        _be_child(config, theirs, stacks.fileno(), parent)
    os.close(theirs)
    child = _Child(pid)
    limit = config.workers.boot_timeout
    doing = f"importing {config.target}"
    try:
        told = _hear(ours, child, time.monotonic() + limit if limit else inf)
        if told is not None:
            if not child.ends_by(time.monotonic() + _LEAVE):
                what = f"{doing} worked, but its exit handlers (atexit) were not done after {_LEAVE:g}s"
                return msgspec.structs.replace(told, warning=what)
            return told
        if child.status is not None:
            return Outcome(f"{doing} ended the process: it {in_words(child.status)}")
        return Outcome(f"{doing} was not done after {format_duration(limit)} (workers.boot_timeout)", _ask(pid, stacks))
    finally:
        child.end()
        os.close(ours)
        stacks.close()


class _Child:
    """A process of ours; ``status`` is what waitpid(2) has said of its end."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.status: int | None = None

    def has_ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is not None

    def ends_by(self, deadline: float) -> bool:
        """Wait until it has ended, at most until then (monotonic); whether it has."""
        while not self.has_ended():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK)
        return True

    def end(self) -> None:
        if not self.has_ended():
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _hear(pipe: int, child: _Child, deadline: float) -> Outcome | None:
    """What the child has told; None when it has ended without, or not told anything by the deadline.

    Processes that the application has started may hold the pipe open, and it may have closed it itself: the end of the
    pipe says nothing.
    """
    data = b""
    while not data.endswith(b"\n"):
        ended = child.has_ended()  # first: what it told before is in the pipe
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        if select.select([pipe], [], [], 0 if ended else min(_LOOK, left))[0]:
            more = os.read(pipe, 1 << 16)
            if not more:
                child.ends_by(deadline)
                return None
            data += more
        elif ended:
            return None
    return msgspec.json.decode(data, type=Outcome)


def _ask(pid: int, stacks: Stacks) -> str:
    """Where the process is stuck."""
    stacks.ask(pid)
    deadline = time.monotonic() + _GRACE
    text = ""
    while time.monotonic() < deadline and not (text and text == stacks.read()):  # until no more comes
        text = stacks.read()
        time.sleep(_LOOK)
    return without_ours(text)


def without_ours(text: str) -> str:
    """``text`` without the frames that import the application, and those below, which say nothing about it."""
    kept: list[str] = []
    ours = False
    for line in text.splitlines():
        ours = line.startswith("  ") and (ours or line.startswith(_OURS))
        if not ours and not line.startswith(_IMPORTS):
            kept.append(line)
    return "\n".join(kept)


def _be_child(config: Config, pipe: int, stacks: int, parent: int) -> NoReturn:
    """In the fork: import, tell, and end without unwinding the stack of who has forked."""
    status = 1
    try:
        atexit._clear()
        outcome = _import(config, stacks, parent)
        with open(pipe, "wb") as file:
            file.write(msgspec.json.encode(outcome) + b"\n")
        atexit._run_exitfuncs()
        status = 0
    finally:
        from asgiri.link import flush_streams

        flush_streams()
        os._exit(status)


def _import(config: Config, stacks: int, parent: int) -> Outcome:
    from asgiri.child.privileges import drop, resolve
    from asgiri.child.stacks import register
    from asgiri.child.ties import tie_to_master
    from asgiri.loader import load_app
    from asgiri.worker.main import read_environment

    try:
        sys.dont_write_bytecode = True
        register(stacks)
        variables = read_environment(config)
        identity = resolve(config.process)
        if identity is not None:
            drop(identity)
        tie_to_master(parent, signal.SIGKILL)  # after the change of credentials, which would cut it
        os.environ.update(variables)
        load_app(config.target, app_dir=config.app_dir, factory=config.factory, interface=config.interface)
    except AppError as error:
        return Outcome(str(error), error.trace)
    except AsgiriError as error:
        return Outcome(str(error))
    except BaseException as error:  # the application may raise KeyboardInterrupt and what else is no Exception
        return Outcome(f"importing {config.target} crashed: {describe(error)}", "".join(format_exception(error)))
    return Outcome()
