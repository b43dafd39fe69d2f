"""A bound and listening socket, and the config entry that it came from."""

from __future__ import annotations

import os
import socket

from msgspec.structs import replace

from asgiri.config.schema import Listen


class Listener:
    """A bound and listening socket, and the config entry it came from. Who made it closes it.

    ``has_file``: the file of a unix socket goes with it. Somebody else's, as systemd's, is left alone.
    """

    def __init__(self, listen: Listen, sock: socket.socket, *, has_file: bool = True) -> None:
        self.listen = listen
        self.sock = sock
        address = listen.address
        path = address.path if has_file and address.kind == "unix" and not address.is_abstract else ""
        self._file = (path, *identity(path)) if path else None  # what was bound: path, device, inode
        self._owns_file = bool(path)

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
    def has_file(self) -> bool:
        """There is a file that one of its owners has to remove."""
        return self._file is not None

    @property
    def is_lost(self) -> bool:
        """The socket's file was removed or replaced: no client finds it any more."""
        return self._file is not None and identity(self._file[0]) != self._file[1:]

    def disown(self) -> None:
        """Another process has the socket, too, and its file is that one's to remove."""
        self._owns_file = False

    def own(self) -> None:
        """The file is ours to remove."""
        self._owns_file = self._file is not None

    def close(self) -> None:
        """Close the socket, and remove its file when it is still the one that was bound."""
        if self._file is not None and self._owns_file and not self.is_lost:
            os.unlink(self._file[0])
        self.sock.close()


def identity(path: str) -> tuple[int, int]:
    """Device and inode of a file; zeros when it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def binds_alike(one: Listen, other: Listen) -> bool:
    """Whether two entries bind the same socket the same way, whatever is spoken on it."""
    return replace(one, tls=None) == replace(other, tls=None)
