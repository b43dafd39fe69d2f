"""A bound and listening socket, and the config entry that it came from."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Self

from asgiri.config.schema import Listen

logger = logging.getLogger("asgiri.sockets")

# Device and inode of a socket's file: it is still the one that was bound when these are the same.
FileId = tuple[int, int]


class Listener:
    """A bound and listening socket, and the config entry that it is bound as. Who made it closes it.

    ``name`` is the FileDescriptorName of a socket that systemd has bound. The file of a unix socket goes with it, where
    it was bound here; for one that somebody has passed on see :meth:`passed_on`.
    """

    def __init__(self, listen: Listen, sock: socket.socket) -> None:
        self.listen = listen
        self.sock = sock
        self.name = ""
        address = listen.address
        self._path = address.path if address.kind == "unix" and not address.is_abstract else ""
        self.file: FileId | None = identity(self._path, os.lstat) if self._path else None  # None: no file is ours
        self._owns_file = self.file is not None

    @classmethod
    def passed_on(cls, listen: Listen, sock: socket.socket, name: str, file: FileId | None) -> Self:
        """One that somebody else has bound, who owns its file until :meth:`own`; None: for good, as systemd does."""
        one = cls(listen, sock)
        one.name = name
        one.file = file if one._path else None
        one._owns_file = False
        return one

    @property
    def is_unix(self) -> bool:
        return self.sock.family == socket.AF_UNIX

    @property
    def url(self) -> str:
        """Where clients find it: ``http://127.0.0.1:8000``, ``https://[::1]:8443`` or ``unix:/run/app.sock``."""
        name = self.sock.getsockname()
        if self.is_unix:
            text = os.fsdecode(name)
            return f"unix:@{text[1:]}" if text.startswith("\0") else f"unix:{text}"
        host, port = name[:2]
        scheme = "http" if self.listen.tls is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def is_lost(self) -> bool:
        """The socket's file was removed or replaced: no client finds it any more."""
        return self.file is not None and identity(self._path) != self.file

    def disown(self) -> None:
        """Another process has the socket, too, and its file is that one's to remove."""
        self._owns_file = False

    def own(self) -> None:
        """The file is ours to remove, where it goes with the socket."""
        self._owns_file = self.file is not None

    def close(self) -> None:
        """Close the socket, and remove its file when it is still the one that was bound. One that stays is logged."""
        if self._owns_file and identity(self._path, os.lstat) == self.file:
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
            except OSError as error:  # others find it stale, and remove it
                logger.warning("the file of unix:%s cannot be removed: %s", self._path, error.strerror)
        self.sock.close()


def identity(path: str, look: Callable[[str], os.stat_result] = os.stat) -> FileId:
    """Device and inode of a file; zeros when it is gone."""
    try:
        found = look(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def require_stream(sock: socket.socket) -> None:
    """OSError when nobody can listen on a socket that was passed on: it is not TCP's, and no unix stream socket."""
    if sock.type != socket.SOCK_STREAM:
        raise OSError(errno.EINVAL, "it is no stream socket")
    if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise OSError(errno.EINVAL, "it is neither a TCP socket nor a unix socket")
