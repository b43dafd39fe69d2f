"""Binding: addresses of the config to listening sockets, one owner each."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from asgiri.config.address import Address
from asgiri.config.nodes import printable
from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.holder import holder_of_abstract, holder_of_peer, holder_of_port
from asgiri.sockets.listener import Listener, require_stream
from asgiri.sockets.supply import Supply

# How long to wait for another master that binds in the same directory: a second.
LOCK_TRIES: Final = 100
LOCK_PAUSE: Final = 0.01

# The largest id that chown(2) does not take for "leave it as it is".
MOST_ID: Final = 2**32 - 2


def bind_all(listens: Iterable[Listen]) -> list[Listener]:
    """Bind every address; BindError when one cannot be had, and then none is kept."""
    bound: list[Listener] = []
    try:
        bound.extend(map(bind, listens))
    except BaseException:
        for listener in bound:
            listener.close()
        raise
    return bound


def open_listener(listen: Listen, supply: Supply) -> list[Listener]:
    """The listeners of one entry: what was passed on for it, or what is bound. BindError when neither can be had."""
    passed = [Listener.passed_on(listen, one.sock, one.name, one.file) for one in supply.take(listen)]
    if not passed and listen.address.kind == "systemd":
        raise BindError(f"cannot listen on {listen.address}: {supply.missing()}")
    return passed or [bind(listen)]


def bind(listen: Listen) -> Listener:
    """Bind the address and listen on it. BindError says which address, and what stands in the way."""
    address = listen.address
    try:
        match address.kind:
            case "tcp":
                sock = bind_tcp(address)
            case "unix":
                sock = bind_unix(address, listen)
            case "fd":
                sock = adopt(address.fd)
            case "systemd":
                raise BindError(f"cannot listen on {address}: {Supply().missing()}")
    except OSError as error:
        raise BindError(f"cannot bind {address}: {reason(error, address)}") from error
    try:
        start(sock, listen)  # again, for a file: no harm
    except OSError as error:
        sock.close()
        raise BindError(f"cannot listen on {address}: {reason(error, address)}") from error
    return Listener(listen, sock)


def start(sock: socket.socket, listen: Listen) -> None:
    sock.setblocking(False)
    sock.listen(listen.backlog)


def reason(error: OSError, address: Address | None = None) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"the address is in use by {holder_of(address) or 'another process'}"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case errno.EACCES:
            return "permission denied (ports below 1024 need privileges, a socket file a writable directory)"
    return error.strerror or str(error)


def holder_of(address: Address | None) -> str:
    """Who has an address that is taken, in words; empty when that cannot be seen."""
    if address is None:
        return ""
    if address.is_abstract:
        return holder_of_abstract(address.path[1:])
    if address.kind != "tcp":
        return ""
    try:
        host = str(resolve(address)[4][0])
    except OSError:
        return ""
    return holder_of_port(host, address.port)


def resolve(address: Address) -> Any:
    """The one entry of getaddrinfo(3) to bind."""
    host = address.host.encode("ascii")  # of a text, Python would look whether it is an internationalized name
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # Of a name with addresses of both families ("localhost") the IPv4 one, as 127.0.0.1 is the default.
    return min(found, key=lambda entry: entry[0] != socket.AF_INET)


def bind_tcp(address: Address) -> socket.socket:
    return bind_at(resolve(address))


def bind_at(entry: Any) -> socket.socket:
    """A socket that is bound to an entry of getaddrinfo(3), and does not listen yet."""
    family, kind, proto, _, where = entry
    sock = socket.socket(family, kind, proto)
    try:
        # A restarted server finds connections of its predecessor in TIME_WAIT, which is no reason to fail.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] means every address of both families; any other IPv6 address means itself.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if where[0] == "::" else 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_unix(address: Address, listen: Listen) -> socket.socket:
    if address.is_abstract:
        return bind_unix_name(address)
    with alone_in(os.path.dirname(address.path) or os.curdir):
        return bind_file(address.path, listen)


def bind_unix_name(address: Address) -> socket.socket:
    """A socket of the abstract namespace, which does not listen yet."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind("\0" + address.path[1:])
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def alone_in(directory: str) -> Iterator[None]:
    """Keep other masters that start at the same time from taking each other's fresh socket for a stale one.

    Who cannot be alone in time goes on all the same: it may be anybody who holds the lock.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # bind(2) will say it better
        yield
        return
    try:
        for _ in range(LOCK_TRIES):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(LOCK_PAUSE)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(fd)


def bind_file(path: str, listen: Listen) -> socket.socket:
    """Bind, and listen: a file of which nobody listens is a stale one to others."""
    remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # With a mode asked for, the file is nobody's between bind and chmod.
        before = os.umask(0o177) if listen.mode is not None else None
        try:
            sock.bind(path)
        finally:
            if before is not None:
                os.umask(before)
        try:
            set_access(path, listen)
            start(sock, listen)
        except BaseException:
            os.unlink(path)
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def set_access(path: str, listen: Listen) -> None:
    if listen.owner is not None or listen.group is not None:
        os.chown(path, user_id(listen.owner), group_id(listen.group))
    if listen.mode is not None:
        os.chmod(path, listen.mode)


def remove_stale(path: str) -> None:
    """Remove the socket file of a server that is gone; BindError when it is live, or is no socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"cannot bind unix:{path}: a file that is no socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a live server with a full backlog must not hold us up: that is EAGAIN
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except FileNotFoundError:  # its server has just gone, and taken it along
            return
        except BlockingIOError:
            pass
        except PermissionError:
            raise BindError(f"cannot bind unix:{path}: there is a socket that we may not connect to") from None
        holder = holder_of_peer(probe)
    raise BindError(f"cannot bind unix:{path}: a live server is listening there{holder and ', ' + holder}")


def user_id(name: str | None) -> int:
    """The number for chown(2); -1 leaves the user. BindError when there is none of that name."""
    if name is None:
        return -1
    try:
        return _number("listen.owner", name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):  # ValueError: a NUL in it
        raise BindError(f'listen.owner: there is no user "{printable(name)}"') from None


def group_id(name: str | None) -> int:
    if name is None:
        return -1
    try:
        return _number("listen.group", name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise BindError(f'listen.group: there is no group "{printable(name)}"') from None


def _number(key: str, text: str) -> int:
    if len(text) > len(str(MOST_ID)) or int(text) > MOST_ID:
        raise BindError(f"{key}: {text[:20]} is larger than any id ({MOST_ID})")
    return int(text)


def adopt(fd: int) -> socket.socket:
    """Take over a socket that the parent process has opened and passed on."""
    own = os.dup(fd)
    try:
        sock = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise
    try:
        require_stream(sock)
    except OSError:
        sock.close()
        raise
    return sock
