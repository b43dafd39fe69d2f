"""The files of a listener's TLS in memory: which belong together, their contents, and paths to these for OpenSSL.

What a context is made of is what has been read, once: a file may be replaced between two looks at it, and a worker may
not read it at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from msgspec import Struct

from asgiri.config.schema import Tls
from asgiri.errors import ConfigError, Problem

# A real file of this kind is a few KiB; the limit keeps a wrong path (a disk image) from being read whole.
FILE_MOST: Final = 1 << 20

CLIENT_CA: Final = ".client_ca"  # the place of the clients' authorities

Contents = dict[str, bytes]  # by path
Material = dict[str, Contents]  # by the place of the part that they belong to: all of a section


class Part(Struct, frozen=True):
    """Files of a section that are good, or not, together: a pair with its password, or the clients' authorities.

    ``place`` is below the section's key: "" for its own pair, ``.sni.NAME``, or ``.client_ca``. ``files`` are
    (key below the section, path).
    """

    place: str
    files: tuple[tuple[str, str], ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for _, path in self.files))


def parts_of(tls: Tls) -> list[Part]:
    """The parts of a section, in the order of its keys; authorities only where they are asked for."""
    password = () if tls.password_file is None else ((".password_file", tls.password_file),)
    keyfile = () if tls.keyfile is None else ((".keyfile", tls.keyfile),)
    found = [Part("", ((".certfile", tls.certfile), *keyfile, *password))]
    for name, pair in tls.sni.items():
        place = f".sni.{name}"
        files = ((f"{place}.certfile", pair.certfile), (f"{place}.keyfile", pair.keyfile), *password)
        found.append(Part(place, files))
    if tls.client_ca is not None and tls.client_certs != "none":
        found.append(Part(CLIENT_CA, ((".client_ca", tls.client_ca),)))
    return found


def read_part(part: Part, key: str) -> Contents:
    """What is in the files of a part now. ConfigError, whose keys begin with ``key``, when one cannot be read."""
    return {path: read_file(path, f"{key}{name}") for name, path in part.files}


def read_file(path: str | os.PathLike[str], key: str) -> bytes:
    """What is in a file; a pipe that nobody writes to is an empty one. ConfigError, at ``key``, when it is too much."""
    name = os.fspath(path)
    data = b""
    try:
        with open(path, "rb", buffering=0, opener=_open) as file:
            while len(data) <= FILE_MOST and (piece := file.read(FILE_MOST + 1 - len(data))):
                data += piece
    except OSError as error:
        raise ConfigError([Problem("", key, f'cannot read "{name}": {error.strerror}')]) from None
    if len(data) > FILE_MOST:
        raise ConfigError([Problem("", key, f'"{name}" is larger than 1MiB')])
    return data


def _open(path: str, flags: int) -> int:
    """Without waiting for who writes to a pipe: the master has other things to do."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def paths_to(*contents: bytes) -> Iterator[list[str]]:
    """A path to each of these, for OpenSSL, that nobody else has; gone at the end. OSError when there is no room."""
    with ExitStack() as stack:
        yield [stack.enter_context(_path_to(data)) for data in contents]


@contextmanager
def _path_to(data: bytes) -> Iterator[str]:
    fd, path = _in_memory() or _on_disk()
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        yield path
    finally:
        os.close(fd)
        if not path.startswith("/proc/"):
            os.unlink(path)


def _in_memory() -> tuple[int, str] | None:
    """A file in memory, by its descriptor in /proc; None where there is no such thing."""
    if sys.platform == "linux":
        with suppress(OSError):  # a kernel, or a filter on it, that has none
            fd = os.memfd_create("asgiri-tls", os.MFD_CLOEXEC)
            path = f"/proc/self/fd/{fd}"
            if os.access(path, os.R_OK):
                return fd, path
            os.close(fd)
    return None


def _on_disk() -> tuple[int, str]:
    """A file that only its owner may read."""
    import tempfile  # which costs a megabyte

    return tempfile.mkstemp(prefix="asgiri-")
