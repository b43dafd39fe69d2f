"""Supply: sockets that need not be bound, because somebody has passed them on: systemd, or the master before this one.

systemd passes descriptors from 3 on, and says so in the environment (sd_listen_fds(3)): those of socket units, and
those that it has kept for us (:mod:`asgiri.sockets.kept`). A master that is upgraded passes its own, with the address
of each, to its heir.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.kept import is_at, read_name
from asgiri.sockets.listener import FileId, Listener, identity, require_stream

FIRST: Final = 3  # SD_LISTEN_FDS_START
UNNAMED: Final = "unknown"  # what systemd calls a socket without a FileDescriptorName
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
# More than any unit has sockets; a number beyond it is no number of sockets.
_MOST: Final = 10_000

T = TypeVar("T")


class Passed(Struct, frozen=True, eq=False):
    """A socket that was passed on: by systemd under a ``name``, by a master with its ``address``, or both in turn.

    ``file`` is that of a unix socket which goes with it. systemd's are systemd's own. ``kept`` is what systemd
    has called one that an earlier master gave it to keep.
    """

    sock: socket.socket
    name: str = ""
    address: str = ""
    file: FileId | None = None
    kept: str = ""

    def __str__(self) -> str:
        where = f"from systemd, named {self.name}"
        if self.address:
            where = f"{'kept by systemd' if self.kept else 'from the old master'}, {self.address}"
        return f"descriptor {self.sock.fileno()} {where}"

    @property
    def is_lost(self) -> bool:
        """It was kept, and its file was not, or it is bound to another address: no client finds it there."""
        if not self.kept:
            return False
        if not is_at(self.sock, self.address):
            return True
        return self.file is not None and identity(self.address.removeprefix("unix:")) != self.file


class Entry(msgspec.Struct, frozen=True):
    """What a master says of a socket that it hands over. Heirs may be of another release: new fields need a default."""

    address: str
    fd: int
    name: str = ""
    file: FileId | None = None


class Supply:
    """What was passed on, each to be taken once, by the entries of a config that :meth:`reserve` has been told of."""

    def __init__(self, passed: Iterable[Passed] = ()) -> None:
        self._passed = list(passed)
        self.kept = [one.kept for one in self._passed if one.kept]  # what systemd calls those that it keeps for us
        self._names: set[str] = set()  # and addresses: that entries ask for
        self._addresses: set[str] = set()

    @classmethod
    def from_systemd(cls, environ: MutableMapping[str, str], pid: int) -> Supply:
        """The sockets of socket units, and those that were kept, where the process ``pid`` was given some.

        The variables are taken away.

        BindError when they are no sense, or name what is no stream socket.
        """
        given = {name: environ.pop(name, "") for name in _VARIABLES}
        if not given["LISTEN_FDS"] or not given["LISTEN_PID"]:
            return cls()
        if number(given, "LISTEN_PID", "a process id") != pid:  # they were meant for another process
            return cls()
        count = number(given, "LISTEN_FDS", "a number of sockets", _MOST)
        names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else [UNNAMED] * count
        if len(names) != count:
            raise BindError(f"LISTEN_FDNAMES: expected a name for each of {count} sockets, got {len(names)}")

        def passed(index: int) -> Passed:
            fd = FIRST + index
            sock = adopt(fd, f"LISTEN_FDS: descriptor {fd}")
            name = names[index] or UNNAMED
            if (kept := read_name(name)) is None:
                return Passed(sock, name=name)
            return Passed(sock, address=kept[0], file=kept[1], kept=name)

        supply = cls(all_or_none(passed, range(count)))
        supply._drop_lost()
        return supply

    @classmethod
    def from_master(cls, entries: str) -> Supply:
        """What :func:`hand_over` has said. BindError when it is no sense."""
        try:
            found = msgspec.json.decode(entries, type=list[Entry])
        except msgspec.DecodeError as error:
            raise BindError(f"what the old master handed over is not understood: {error}") from error
        return cls(all_or_none(inherited, found))

    def _drop_lost(self) -> None:
        """Close what nobody can connect to. It is no news: a runtime directory goes with each stop, and its files."""
        lost = [one for one in self._passed if one.is_lost]
        self._passed = [one for one in self._passed if one not in lost]
        for one in lost:
            one.sock.close()

    def reserve(self, listens: Iterable[Listen]) -> None:
        """Keep the sockets that these entries ask for, by name or address, from the ones that take any."""
        listens = list(listens)
        self._names = {name for listen in listens if (name := name_of(listen))}
        self._addresses = {str(listen.address) for listen in listens}

    def take(self, listen: Listen) -> list[Passed]:
        """What is there for an entry of the config, which is that one's to close.

        ``systemd:NAME``, and any bind with a ``name``: all of that name. ``systemd``: all that no other entry names.
        """
        found = [one for one in self._passed if self._is_for(one, listen)]
        if listen.address.is_any_port:  # each of several entries has one
            found = found[:1]
        self._passed = [one for one in self._passed if one not in found]
        return found

    def _is_for(self, one: Passed, listen: Listen) -> bool:
        if one.address == str(listen.address):
            return True
        if one.address in self._addresses or not one.name:  # it is another entry's, or cannot be found by name
            return False
        if listen.address.kind == "fd":
            return one.sock.fileno() == listen.address.fd
        if wanted := name_of(listen):
            return one.name == wanted
        return listen.address.kind == "systemd" and one.name not in self._names

    def missing(self) -> str:
        """Why there is nothing for an entry that nobody can bind."""
        if not self._passed:
            return "no socket was passed for it (LISTEN_FDS) at the start; is asgiri started by its socket unit?"
        names = ", ".join(sorted({one.name or one.address for one in self._passed}))
        return f"no socket was passed for it; left are: {names}"

    def left(self) -> list[str]:
        """What nobody has taken, in words."""
        return [str(one) for one in self._passed]

    def left_files(self) -> list[tuple[str, FileId]]:
        """The files of the unix sockets that nobody has taken, and that are ours to remove: path, identity."""
        return [(one.address.removeprefix("unix:"), one.file) for one in self._passed if one.file is not None]

    def close(self) -> None:
        """Close what nobody has taken."""
        for one in self._passed:
            one.sock.close()
        self._passed = []


def number(given: dict[str, str], name: str, what: str, most: int = 2**31) -> int:
    """The number that a variable holds. BindError when it is none."""
    text = given[name]
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= most):
        raise BindError(f'{name}: expected {what}, got "{text}"')
    return int(text)


def name_of(listen: Listen) -> str:
    """The FileDescriptorName that an entry asks for; empty when it takes any, or binds."""
    return listen.address.name or listen.name or ""


def hand_over(listeners: Sequence[Listener]) -> tuple[str, list[int]]:
    """What an heir is told, and the descriptors that it must inherit."""
    entries = [Entry(address_of(one), one.sock.fileno(), one.name, one.file) for one in listeners]
    return msgspec.json.encode(entries).decode(), [entry.fd for entry in entries]


def address_of(listener: Listener) -> str:
    """What an heir is to find it by; empty where it is by systemd's names, as it was found here."""
    address = listener.listen.address
    return "" if address.kind == "systemd" else str(address)


def inherited(entry: Entry) -> Passed:
    return Passed(adopt(entry.fd, "the old master's socket"), entry.name, entry.address, entry.file)


def all_or_none(make: Callable[[T], Passed], sources: Iterable[T]) -> list[Passed]:
    """What is made of each; where one fails, those before it are closed."""
    made: list[Passed] = []
    try:
        made.extend(map(make, sources))
    except BaseException:
        for one in made:
            one.sock.close()
        raise
    return made


def adopt(fd: int, what: str) -> socket.socket:
    """The stream socket at a descriptor, not to be inherited any further, and listening. BindError when it is none."""
    try:
        sock = socket.socket(fileno=fd)
    except (OSError, ValueError) as error:  # ValueError: a negative one
        raise BindError(f"{what} is no socket: {getattr(error, 'strerror', None) or error}") from error
    try:
        require_stream(sock)
        os.set_inheritable(fd, False)
        sock.setblocking(False)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen()
    except OSError as error:
        sock.close()
        raise BindError(f"{what} cannot be listened on: {error.strerror}") from error
    return sock
