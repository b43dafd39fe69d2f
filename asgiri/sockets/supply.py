"""Supply: sockets that need not be bound, because somebody has passed them on: systemd, or the master before this one.

systemd passes descriptors from 3 on, and says so in the environment (sd_listen_fds(3)). A master that is upgraded
passes its own, with the address of each, to its heir.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.listener import Listener

FIRST: Final = 3  # SD_LISTEN_FDS_START
UNNAMED: Final = "unknown"  # what systemd calls a socket without a FileDescriptorName
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
# More than any unit has sockets; a number beyond it is no number of sockets.
_MOST: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Passed:
    """A socket that was passed on: by systemd under a ``name``, or by a master with its ``address``.

    ``has_file``: the file of a unix socket goes with it. systemd's are systemd's own.
    """

    sock: socket.socket
    name: str = ""
    address: str = ""
    has_file: bool = False

    def __str__(self) -> str:
        where = f"from systemd, named {self.name}" if self.name else f"from the old master, {self.address}"
        return f"descriptor {self.sock.fileno()} {where}"


class Supply:
    """What was passed on, each to be taken once. ``claimed`` are the names that entries of the config ask for."""

    def __init__(self, passed: Iterable[Passed] = ()) -> None:
        self._passed = list(passed)
        self._claimed: set[str] = set()

    @classmethod
    def from_systemd(cls, environ: MutableMapping[str, str], pid: int) -> Supply:
        """The sockets of a socket unit, where the process ``pid`` was given some; the variables are taken away.

        BindError when they are no sense, or name what is no stream socket.
        """
        given = {name: environ.pop(name, "") for name in _VARIABLES}
        if not given["LISTEN_FDS"] or given["LISTEN_PID"] != str(pid):  # none, or they were meant for another process
            return cls()
        text = given["LISTEN_FDS"]
        if not (text.isascii() and text.isdigit() and int(text) <= _MOST):
            raise BindError(f'LISTEN_FDS: expected a number of sockets, got "{text}"')
        names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else []
        count = int(text)
        if len(names) > count:
            raise BindError(f"LISTEN_FDNAMES: there are {len(names)} names for {count} sockets")
        names += [UNNAMED] * (count - len(names))
        return cls(
            Passed(adopt(FIRST + index, f"LISTEN_FDS: descriptor {FIRST + index}"), name=name or UNNAMED)
            for index, name in enumerate(names)
        )

    @classmethod
    def from_master(cls, entries: str) -> Supply:
        """What :func:`hand_over` has said. BindError when it is no sense."""
        try:
            found = [
                Passed(
                    adopt(entry["fd"], "the old master's socket"), address=str(entry["address"]), has_file=entry["file"]
                )
                for entry in json.loads(entries)
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise BindError(f"what the old master handed over is not understood: {error}") from error
        return cls(found)

    def reserve(self, listens: Iterable[Listen]) -> None:
        """Keep the sockets that these entries ask for by name from the ones that take any."""
        self._claimed = {name for listen in listens if (name := name_of(listen))}

    def take(self, listen: Listen) -> list[Passed]:
        """What is there for an entry of the config, which is that one's to close.

        ``systemd:NAME``, and any bind with a ``name``: all of that name. ``systemd``: all that no other entry names.
        """
        found = [one for one in self._passed if self._is_for(one, listen)]
        if found and found[0].address and listen.address.kind != "systemd":
            found = found[:1]  # of several ports 0, each entry has one
        self._passed = [one for one in self._passed if one not in found]
        return found

    def _is_for(self, one: Passed, listen: Listen) -> bool:
        if one.address:
            return one.address == str(listen.address)
        if wanted := name_of(listen):
            return one.name == wanted
        return listen.address.kind == "systemd" and one.name not in self._claimed

    def missing(self) -> str:
        """Why there is nothing for an entry that nobody can bind."""
        if not self._passed:
            return "this process was passed no socket (by LISTEN_FDS); is it started by its socket unit?"
        names = ", ".join(sorted({one.name for one in self._passed if one.name}))
        return f"no socket was passed for it; left are: {names}"

    def left(self) -> list[str]:
        """What nobody has taken, in words."""
        return [str(one) for one in self._passed]

    def close(self) -> None:
        """Close what nobody has taken."""
        for one in self._passed:
            one.sock.close()
        self._passed = []


def name_of(listen: Listen) -> str:
    """The FileDescriptorName that an entry asks for; empty when it takes any, or binds."""
    return listen.address.name or listen.name or ""


def hand_over(listeners: Sequence[Listener]) -> tuple[str, list[int]]:
    """What an heir is told, and the descriptors that it must inherit."""
    entries = [{"address": str(one.listen.address), "fd": one.sock.fileno(), "file": one.has_file} for one in listeners]
    return json.dumps(entries), [one.sock.fileno() for one in listeners]


def adopt(fd: int, what: str) -> socket.socket:
    """The stream socket at a descriptor, not to be inherited any further, and listening. BindError when it is none."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise BindError(f"{what} is no socket: {error.strerror}") from error
    try:
        if sock.type != socket.SOCK_STREAM:
            raise OSError(errno.EINVAL, "it is no stream socket")
        os.set_inheritable(fd, False)
        sock.setblocking(False)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen()
    except OSError as error:
        sock.close()
        raise BindError(f"{what} cannot be listened on: {error.strerror}") from error
    return sock
