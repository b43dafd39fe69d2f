"""Who has an address that is taken: the pid and the name, where the kernel lets us see. Elsewhere nobody is found."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"  # TCP_LISTEN of proc_net_tcp
_PATIENCE: Final = 1.0  # seconds to look through all processes
_PEERCRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")


def holder_of_port(host: str, port: int) -> str:
    """``pid 4711 (nginx)``: who listens on that port of that address, or of all; empty when it cannot be seen."""
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    inodes = {inode for at, inode in _listening(port) if _collide(at, address)}
    found = [pid for pid in _processes_with(inodes) if pid != os.getpid()] if inodes else []
    return in_words(min(found)) if found else ""  # of a master and its workers, most likely the master


def holder_of_peer(sock: socket.socket) -> str:
    """The same of whoever listens at the other end of a connected unix socket (unix(7), SO_PEERCRED)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return ""
    try:
        pid = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))[0]
    except OSError:
        return ""
    return in_words(pid) if pid > 0 else ""  # 0: a process of another namespace


def in_words(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text("utf-8", "backslashreplace").strip()
    except OSError:
        return f"pid {pid}"
    return f"pid {pid} ({name})"


def _collide(one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address) -> bool:
    return one == other or one.is_unspecified or other.is_unspecified


def _listening(port: int) -> Iterator[tuple[IPv4Address | IPv6Address, str]]:
    """Address and inode of each TCP socket that listens on the port (proc(5))."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text("ascii", "replace").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            host, _, at = fields[1].partition(":")
            if fields[3] == _LISTEN and int(at, 16) == port:
                # Words of four bytes, each as this machine has it.
                words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
                raw = struct.pack(f"={len(words)}I", *words)
                yield (IPv4Address(raw) if table == "tcp" else IPv6Address(raw)), fields[9]


def _processes_with(inodes: set[str]) -> Iterator[int]:
    """The processes that have one of these sockets open, as far as we may look."""
    deadline = time.monotonic() + _PATIENCE
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if time.monotonic() > deadline:
                return
            if name.isdigit() and _has_one(name, inodes):
                yield int(name)


def _has_one(pid: str, inodes: set[str]) -> bool:
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # it was closed meanwhile
                found = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{fd}"))
                if found and found[1] in inodes:
                    return True
    except OSError:  # it has ended, or is none of our business
        pass
    return False
