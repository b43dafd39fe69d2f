"""Sockets that the service manager keeps while no master runs: systemd's file descriptor store (sd_notify(3)).

It gives them back with the sockets of socket units, and all that it knows of one is a name: the address and the
identity of a socket's file are written there.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Final
from urllib.parse import quote, unquote

from asgiri.sockets.listener import FileId, Listener

_FIRST: Final = "asgiri-kept"  # the word by which a name is ours, and no FileDescriptorName=
_MOST: Final = 255  # characters in a name (FDNAME_MAX); no colon among them
_NUMBER: Final = re.compile(r"[0-9]{1,20}", re.ASCII)  # of 64 bits


def kept_name(listener: Listener) -> str:
    """What the manager keeps a socket as; empty where it is not to: a socket unit's, the parent's, one on any port.

    Nor one that is bound by a host's name: after a restart that may be another address.
    """
    address = listener.listen.address
    if listener.name or address.kind not in ("tcp", "unix") or address.is_any_port or address.is_by_name:
        return ""
    words = [_FIRST, quote(str(address), errors="surrogateescape")]
    if listener.file is not None:
        words += map(str, listener.file)
    name = ",".join(words)
    return name if len(name) <= _MOST else ""


def read_name(name: str) -> tuple[str, FileId | None] | None:
    """Address and file of a socket that was kept under this name; None for the name of a socket unit."""
    match name.split(","):
        case [first, address] if first == _FIRST:
            return unquote(address, errors="surrogateescape"), None
        case [first, address, *file] if first == _FIRST and len(file) == 2 and all(map(_NUMBER.fullmatch, file)):
            return unquote(address, errors="surrogateescape"), (int(file[0]), int(file[1]))
    return None


def is_at(sock: socket.socket, address: str) -> bool:
    """Whether a socket is bound to the address that its name says: who can have systemd keep one may say anything."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        path = os.fsdecode(name)
        return address == (f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}")
    host, _, port = address.rpartition(":")
    wanted = host.strip("[]").partition("%")[0]  # the interface of a link-local address is no part of its name
    return (name[0], str(name[1])) == (wanted, port) or (host == "localhost" and port == str(name[1]))
