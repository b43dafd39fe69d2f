"""Upgrade: a new master, by exec in a forked child, on the sockets of the one that runs.

They talk over a socket pair; its end of file is the death of the other side.

    the master that runs                                   its heir

    STARTED   it has been forked                           boots; what it opens by itself it does not show yet
       | READY\n                              <-           all its workers are ready
    HANDED    it is the master now: files of sockets,
              pid file, MAINPID
       | YOURS\n                              ->           it owns them, and says READY=1 itself
              drains, and exits with 0

The heir fails, exits or is too slow: nothing has changed. The master that runs dies before YOURS: the end of file says
the same. What is stopped before HANDED stops the other as well: a TERM ends the service, not half of it.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Final, NoReturn, Self

from msgspec import Struct

from asgiri.errors import ConfigError, Problem
from asgiri.sockets.listener import Listener
from asgiri.sockets.supply import Supply, hand_over

# Not ASGIRI_...: that would be a key of the file.
VARIABLE: Final = "_ASGIRI_HEIR"
# What an heir is not to find as this master did: it gets its own word for each.
GIVEN: Final = (
    VARIABLE,
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "FDSTORE",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
)
READY: Final = b"READY\n"
YOURS: Final = b"YOURS\n"

SLACK: Final = 30.0  # seconds beside boot_timeout that an heir has until it is ready
GRACE: Final = 10.0  # seconds from TERM to KILL, for one that is given up


class Stage(Enum):
    STARTED = auto()
    GIVEN_UP = auto()  # TERM was sent
    KILLED = auto()  # KILL was sent
    HANDED = auto()


class Recipe(Struct, frozen=True):
    """How this master was started, for its heir to be started so: taken before anything has changed it.

    ``directory`` is empty where it was removed before: then an heir starts where its master is.
    """

    arguments: tuple[str, ...]
    directory: str
    environ: dict[str, str]
    umask: int

    @classmethod
    def taken(cls, environ: MutableMapping[str, str]) -> Self:
        given = {name: value for name, value in environ.items() if name not in GIVEN}
        try:
            directory = os.getcwd()
        except OSError:
            directory = ""
        umask = os.umask(0o077)  # it cannot be asked for without being set
        os.umask(umask)
        return cls((sys.executable, *sys.orig_argv[1:]), directory, given, umask)


class Upgrade:
    """The side of the master that runs: one attempt. Times are monotonic seconds."""

    def __init__(self, pid: int, channel: socket.socket, deadline: float | None) -> None:
        self.pid = pid
        self.stage = Stage.STARTED
        self.deadline = deadline
        self._channel = channel
        channel.setblocking(False)

    def fileno(self) -> int:
        return self._channel.fileno()

    def is_ready(self) -> bool | None:
        """What the channel says: True, it is ready; False, nothing yet; None, it has gone, whatever it said before."""
        try:
            if self._channel.recv(len(READY)) != READY:
                return None
        except BlockingIOError:
            return False
        except OSError:
            return None
        try:
            self._channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return None  # there is nothing more to say: this is the end of file

    def hand(self) -> None:
        """It is the master now."""
        self.stage = Stage.HANDED
        self.deadline = None
        with suppress(OSError):  # it has gone meanwhile
            self._channel.send(YOURS)

    def is_gone(self, now: float) -> None:
        """It says nothing any more: its exit, which tells the rest, is due."""
        if self.stage is Stage.STARTED:
            self.deadline = min(self.deadline or math.inf, now + GRACE)

    def give_up(self, now: float) -> None:
        """Have it end; what is over its time a second time is killed."""
        if self.stage is Stage.STARTED:
            self.stage = Stage.GIVEN_UP
            self.deadline = now + GRACE
            os.kill(self.pid, signal.SIGTERM)
        elif self.stage is Stage.GIVEN_UP:
            self.stage = Stage.KILLED
            self.deadline = None
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        self._channel.close()


def launch(
    recipe: Recipe,
    listeners: Sequence[Listener],
    notify: dict[str, str],
    in_child: Callable[[], None],
    deadline: float | None,
) -> Upgrade:
    """Fork, and exec the program anew in the child. OSError when there is no process to be had.

    ``notify`` are the variables of the service manager; ``in_child`` is called before the exec.
    """
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        _become(recipe, listeners, notify, in_child, theirs)
    theirs.close()
    return Upgrade(pid, ours, deadline)


def _become(
    recipe: Recipe,
    listeners: Sequence[Listener],
    notify: dict[str, str],
    in_child: Callable[[], None],
    channel: socket.socket,
) -> NoReturn:
    try:
        in_child()
        handed, descriptors = hand_over(listeners)
        for descriptor in (*descriptors, channel.fileno()):
            os.set_inheritable(descriptor, True)
        if "WATCHDOG_USEC" in notify:
            notify["WATCHDOG_PID"] = str(os.getpid())
        said = json.dumps({"channel": channel.fileno(), "listeners": handed})
        os.umask(recipe.umask)
        if recipe.directory:
            os.chdir(recipe.directory)
        os.execve(recipe.arguments[0], recipe.arguments, {**recipe.environ, **notify, VARIABLE: said})
    except BaseException as error:
        with suppress(BaseException):
            os.write(2, f"asgiri: the upgrade cannot start {recipe.arguments[0]}: {error}\n".encode())
    finally:
        os._exit(127)


class Heir:
    """The new master's side: what it has been given, and the word that it is ready."""

    def __init__(self, channel: socket.socket, listeners: str) -> None:
        self.listeners = listeners  # for Supply.from_master
        self._channel = channel

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str]) -> Self | None:
        """What the variable says, which is taken away; None when there is none, ConfigError when it is no sense."""
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            said = json.loads(text)
            channel = socket.socket(fileno=said["channel"])
            channel.set_inheritable(False)
            channel.setblocking(False)
            return cls(channel, said["listeners"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            what = f"this is for asgiri itself to set, and wrong: {error}"
            raise ConfigError([Problem(VARIABLE, "", what)]) from None

    def supply(self) -> Supply:
        return Supply.from_master(self.listeners)

    def fileno(self) -> int:
        return self._channel.fileno()

    def tell_ready(self) -> None:
        with suppress(OSError):  # the old master has gone: then its end of file is there to be read
            self._channel.send(READY)

    def is_master(self) -> bool:
        """Whether the old master has handed over, or has gone."""
        try:
            self._channel.recv(64)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        self._channel.close()
