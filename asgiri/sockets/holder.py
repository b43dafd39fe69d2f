"""Who has an address that is taken: the pid and the name, where the kernel lets us see. Elsewhere nobody is found."""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import islice
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"  # TCP_LISTEN of proc_net_tcp
_PATIENCE: Final = 1.0  # seconds to look through all processes
_DESCRIPTORS: Final = 20_000  # to look at in each
_PEERCRED: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")

Place = IPv4Address | IPv6Address


def holder_of_port(host: str, port: int) -> str:
    """``pid 4711 (nginx)``: who listens on that port of that address, or of all; empty when it cannot be seen."""
    taken = _taken(host, port)
    if ours := _has_one("self", taken):
        at = taken[ours]
        return f"this service itself, for {f'[{at}]' if at.version == 6 else at}:{port}"
    return in_words(pid) if (pid := _first_with(taken)) else ""


def holders_of_port(host: str, port: int) -> tuple[int, bool]:
    """Its process id, 0 when it cannot be seen; and whether that very address is taken, or one that means it.

    Where more than one is taken, the process is that of one of them.
    """
    taken = _taken(host, port)
    return _first_with(taken), str(ip_address(host)) in map(str, taken.values())


def holder_of_abstract(name: str) -> str:
    """The same of an abstract unix socket; ``name`` is without its @."""
    return in_words(pid) if (pid := pid_of_abstract(name)) else ""


def pid_of_abstract(name: str) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect("\0" + name)
        except OSError:  # it is bound only, of another type, or has no room for us
            return 0
        return pid_of_peer(probe)


def holder_of_peer(sock: socket.socket) -> str:
    """The same of whoever listens at the other end of a connected unix socket."""
    return in_words(pid) if (pid := pid_of_peer(sock)) else ""


def pid_of_peer(sock: socket.socket) -> int:
    """The same, as a process id (unix(7), SO_PEERCRED)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0
    try:
        pid: int = _PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))[0]
    except OSError:
        return 0
    # 0: a process of another namespace. And who made it listen may have gone, and left it to an heir.
    return pid if pid > 0 and os.path.exists(f"/proc/{pid}") else 0


def title_of(pid: int) -> str:
    """What a process is called in ps; empty when it has ended, or is a thread of the kernel."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return ""
    return words.decode("utf-8", "backslashreplace").strip()


def in_words(pid: int) -> str:
    if pid == os.getpid():
        return "this service itself"
    try:
        name = Path(f"/proc/{pid}/comm").read_text("utf-8", "backslashreplace").strip()
    except OSError:
        return f"pid {pid}"
    return f"pid {pid} ({''.join(letter if letter.isprintable() else '?' for letter in name)})"


def _parent(pid: int) -> int:
    """Its parent; 0 when it has ended (proc(5), stat: the name, in parentheses, may hold anything)."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _collide(one: Place, other: Place) -> bool:
    """Whether two sockets cannot listen there both: :: may mean IPv4's addresses as well."""
    if one.version == other.version:
        return one == other or one.is_unspecified or other.is_unspecified
    return (one if one.version == 6 else other).is_unspecified


def _taken(host: str, port: int) -> dict[str, Place]:
    """Inode and address of the sockets that listen on that port, such that nobody else can on that address."""
    try:
        address = ip_address(host)
    except ValueError:
        return {}
    return {inode: at for at, inode in _listening(port) if _collide(at, address)}


def _first_with(inodes: Collection[str]) -> int:
    """The process that has one of these sockets, a master before its workers; 0 when none can be seen."""
    found = set(_processes_with(inodes)) if inodes else set()
    return min(found, key=lambda pid: (_parent(pid) in found, pid)) if found else 0


def _listening(port: int) -> Iterator[tuple[Place, str]]:
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


def _processes_with(inodes: Collection[str]) -> Iterator[int]:
    """The processes that have one of these sockets open, as far as we may look."""
    deadline = time.monotonic() + _PATIENCE
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if time.monotonic() > deadline:
                return
            if name.isdigit() and _has_one(name, inodes):
                yield int(name)


def _has_one(pid: str, inodes: Collection[str]) -> str:
    """The inode of one of these sockets that the process has open; empty when it has none."""
    try:
        for fd in islice(os.listdir(f"/proc/{pid}/fd"), _DESCRIPTORS):
            with suppress(OSError):  # it was closed meanwhile
                found = _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{fd}"))
                if found and found[1] in inodes:
                    return found[1]
    except OSError:  # it has ended, or is none of our business
        pass
    return ""
