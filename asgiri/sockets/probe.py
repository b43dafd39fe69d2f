"""Whether an address could be bound, without being in anybody's way: nobody listens on what is bound here for a moment,
so that no client gets in, and no file is made or removed.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from ipaddress import ip_address
from threading import Thread
from typing import Any, Final

from asgiri.config.address import Address
from asgiri.errors import AsgiriError, BindError
from asgiri.sockets.bind import adopt, bind_at, bind_unix_name, reason, resolve
from asgiri.sockets.holder import holders_of_port, pid_of_abstract, pid_of_peer

# Seconds for all names together. getaddrinfo(3) itself may take minutes, and knows no deadline.
PATIENCE: Final = 5.0


class InUseError(BindError):
    """Somebody listens there: the process ``pid``, or 0 when it cannot be seen.

    ``exactly`` there, or on an address that means this one too, or is meant by it: 0.0.0.0 and 127.0.0.1.
    """

    def __init__(self, pid: int, exactly: bool = True) -> None:
        super().__init__("the address is in use")
        self.pid = pid
        self.exactly = exactly


class UnknownYetError(AsgiriError):
    """It cannot be known from here, which says why."""


class Names:
    """The addresses of host names, all asked for at once, in threads that nobody waits for longer than ``patience``."""

    def __init__(
        self, addresses: Iterable[Address], patience: float = PATIENCE, lookup: Callable[[Address], Any] = resolve
    ) -> None:
        self._lookup = lookup
        self._found: dict[Address, Any] = {}  # an entry of getaddrinfo(3), or the error
        self._patience = patience
        self._deadline = time.monotonic() + patience
        self._threads: dict[Address, Thread] = {}
        for address in addresses:
            if address.kind == "tcp" and not _is_number(address.host) and address not in self._threads:
                self._threads[address] = thread = Thread(target=self._look_up, args=(address,), daemon=True)
                thread.start()

    def find(self, address: Address) -> Any:
        """The entry of getaddrinfo(3) to bind. BindError without one, OSError as it has it."""
        if (thread := self._threads.get(address)) is None:
            return self._lookup(address)
        thread.join(max(0.0, self._deadline - time.monotonic()))
        found = self._found.get(address)
        if found is None:
            raise BindError(f"the name {address.host} was not resolved within {self._patience:g}s")
        if isinstance(found, OSError):
            raise found
        return found

    def _look_up(self, address: Address) -> None:
        try:
            self._found[address] = self._lookup(address)
        except OSError as error:
            self._found[address] = error


def _is_number(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def probe(address: Address, names: Names) -> None:
    """Nothing, when the address could be bound. BindError says why not, which is InUseError where somebody listens.

    UnknownYetError for a descriptor that is not here to be looked at.
    """
    try:
        if address.kind == "tcp":
            _probe_tcp(address, names)
        elif address.kind == "fd":
            _probe_descriptor(address.fd)
        elif address.is_abstract:
            _probe_abstract(address)
        else:
            probe_file(address.path)
    except OSError as error:
        raise BindError(reason(error)) from error


def _probe_tcp(address: Address, names: Names) -> None:
    entry = names.find(address)
    try:
        bind_at(entry).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise InUseError(*holders_of_port(str(entry[4][0]), address.port)) from error


def _probe_abstract(address: Address) -> None:
    try:
        bind_unix_name(address).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise InUseError(pid_of_abstract(address.path[1:])) from error


def probe_file(path: str) -> None:
    """The same for a unix socket with a file: of one that nobody listens on any more, that it could be replaced."""
    if why := why_not_at(path):
        raise BindError(why)
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f'"{path}" is a file that is no socket, and is in the way')
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):  # stale, or gone meanwhile
            return
        except (BlockingIOError, PermissionError) as error:  # its backlog is full; it is somebody else's
            raise InUseError(0) from error
        raise InUseError(pid_of_peer(client))


def why_not_at(path: str) -> str:
    """Why this process could not make or replace the file ``path``; empty when it could, as far as can be seen."""
    directory = os.path.dirname(path) or os.curdir
    try:
        place = os.stat(directory)
        found = os.lstat(path)
    except FileNotFoundError:
        if not os.path.isdir(directory):
            return f'there is no directory "{directory}"'
        found = None
    except NotADirectoryError:
        return f'"{directory}" is no directory'
    if not _may_write(directory):
        return f'nothing can be made in "{directory}": permission denied'
    if found is not None and place.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid, place.st_uid):
        return f'"{path}" is another user\'s (uid {found.st_uid}), and only that one may replace it in "{directory}"'
    return ""


def _may_write(directory: str) -> bool:
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _probe_descriptor(fd: int) -> None:
    """Only who is started by the one that passes it on has it. What is open here may be something else by accident."""
    later = "it can be checked only where it is passed on"
    try:
        sock = adopt(fd)
    except OSError as error:
        what = (
            "is not open here" if error.errno == errno.EBADF else f"is here no socket to listen on ({error.strerror})"
        )
        raise UnknownYetError(f"descriptor {fd} {what}: {later}") from error
    with closing(sock):
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise UnknownYetError(f"descriptor {fd} is here a socket that does not listen: {later}")
