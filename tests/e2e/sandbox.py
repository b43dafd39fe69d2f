"""The part of a unit's sandbox that is system calls, without systemd: `python sandbox.py UNIT COMMAND...`.

What SystemCallFilter=, MemoryDenyWriteExecute= and RestrictAddressFamilies= say becomes seccomp filters as systemd
makes them (systemd.exec(5)), by the libseccomp that systemd has; the names in a set are what systemd-analyze says.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
MASKED_EQUAL = 7
EQUAL = 4
FAMILIES = range(46)  # AF_MAX of Linux 6


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def library() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("seccomp")
    return None if name is None else ctypes.CDLL(name, use_errno=True)


def settings(path: Path) -> dict[str, list[str]]:
    """What a unit assigns, in order: an empty value takes back what stands before it (systemd.syntax(7))."""
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found[name] = [*found.get(name, []), value] if value else []
    return found


def system_calls(lines: Iterable[str]) -> set[str]:
    """The calls that the lines of SystemCallFilter= leave, the first of which allows some."""
    out = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    )
    sets: dict[str, list[str]] = {}
    for line in out.stdout.splitlines():
        if line.startswith("@"):
            current = sets[line.strip()] = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())

    def calls(word: str) -> Iterator[str]:
        if word not in sets:
            yield word
        for name in sets.get(word, []):
            yield from calls(name)

    left = set(calls("@default"))
    for line in lines:
        for word in line.removeprefix("~").split():
            left = left - set(calls(word)) if line.startswith("~") else left | set(calls(word))
    return left


class Filter:
    """A seccomp filter, with what is done where no rule says otherwise."""

    def __init__(self, seccomp: ctypes.CDLL, default: int) -> None:
        self._seccomp = seccomp
        seccomp.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(seccomp.seccomp_init(default))

    def rule(self, action: int, name: str, *compares: Compare) -> None:
        number = self._seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # another architecture's
            return
        array = (Compare * len(compares))(*compares)
        code = self._seccomp.seccomp_rule_add_array(self._context, action, number, len(compares), array)
        if code != 0:
            raise OSError(-code, f"{name}: {os.strerror(-code)}")

    def load(self) -> None:
        code = self._seccomp.seccomp_load(self._context)  # which sets no_new_privs, too
        if code != 0:
            raise OSError(-code, os.strerror(-code))


def apply(unit: dict[str, list[str]], seccomp: ctypes.CDLL) -> None:
    denied = Filter(seccomp, ALLOW)
    if unit["MemoryDenyWriteExecute"] == ["yes"]:
        both = mmap.PROT_WRITE | mmap.PROT_EXEC
        denied.rule(ERRNO | errno.EPERM, "mmap", Compare(2, MASKED_EQUAL, both, both))
        for name in ("mprotect", "pkey_mprotect"):
            denied.rule(ERRNO | errno.EPERM, name, Compare(2, MASKED_EQUAL, mmap.PROT_EXEC, mmap.PROT_EXEC))
    families = {getattr(socket, name) for line in unit["RestrictAddressFamilies"] for name in line.split()}
    for family in set(FAMILIES) - families:
        denied.rule(ERRNO | errno.EAFNOSUPPORT, "socket", Compare(0, EQUAL, family, 0))
    allowed = Filter(seccomp, ERRNO | getattr(errno, unit["SystemCallErrorNumber"][-1]))
    for name in system_calls(unit["SystemCallFilter"]):
        allowed.rule(ALLOW, name)
    denied.load()
    allowed.load()


if __name__ == "__main__":
    found = library()
    assert found is not None
    apply(settings(Path(sys.argv[1])), found)
    os.execvp(sys.argv[2], sys.argv[2:])
