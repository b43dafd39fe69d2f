"""Sockets that the service manager keeps while no master runs: systemd's file descriptor store (sd_notify(3)).

It gives them back with the sockets of socket units, and all that it knows of one is a name: the address and the
identity of a socket's file are written there.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from asgiri.sockets.listener import FileId, Listener

_FIRST: Final = "asgiri-kept"  # the word by which a name is ours, and no FileDescriptorName=
_MOST: Final = 255  # characters in a name (FDNAME_MAX); no colon among them


def kept_name(listener: Listener) -> str:
    """What the manager keeps a socket as; empty where it is not to: a socket unit's, the parent's, one on any port."""
    address = listener.listen.address
    if listener.name or address.kind not in ("tcp", "unix") or address.is_any_port:
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
        case [first, address, device, inode] if first == _FIRST and device.isdecimal() and inode.isdecimal():
            return unquote(address, errors="surrogateescape"), (int(device), int(inode))
    return None
