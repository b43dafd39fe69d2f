"""The control socket's place: how it gets there, and where it is when the config does not say.

That is ``PID.sock`` in the first of these that can be had:

1. $RUNTIME_DIRECTORY: systemd's, of RuntimeDirectory= (systemd.exec(5)); the first where there are several
2. $XDG_RUNTIME_DIR/asgiri, where that directory is the user's own (XDG Base Directory Specification)
3. /run/asgiri, for root
4. /tmp/asgiri-UID
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from asgiri.config.nodes import printable
from asgiri.errors import BindError
from asgiri.sockets.bind import alone_in
from asgiri.sockets.listener import identity

_BACKLOG: Final = 32

_SOCKET = re.compile(r"[1-9][0-9]{0,9}\.sock", re.ASCII)


class NoRuntimeDirectoryError(Exception):
    """There is no directory for the socket; says of each that was tried why not."""


class Runtime(Struct, frozen=True):
    """The directories of one user. ``run``, ``users`` and ``tmp`` are where the system has /run, /run/user and /tmp."""

    environ: Mapping[str, str]
    uid: int
    run: Path = Path("/run")
    users: Path = Path("/run/user")
    tmp: Path = Path("/tmp")

    @classmethod
    def of_this_process(cls) -> Runtime:
        return cls(os.environ, os.geteuid())

    def socket_path(self, pid: int) -> Path:
        """Where the master ``pid`` has its socket, in a directory that is there now. Raises NoRuntimeDirectoryError."""
        if given := self._given():
            return given / f"{pid}.sock"  # systemd has made it, with the owner and the mode that the unit wants
        refusals = []
        for directory in self._own():
            if why := make_private(directory, self.uid):
                refusals.append(f"{directory}: {why}")
            else:
                return directory / f"{pid}.sock"
        raise NoRuntimeDirectoryError("; ".join(refusals))

    def searched(self) -> list[Path]:
        """The directories in which a socket that this user may use can be, whatever started its master.

        A command of a systemd unit (ExecReload=) means the service of that unit, and no other.
        """
        if given := self._given():
            return [given]
        others = [self.users / str(self.uid) / "asgiri", self.run / "asgiri"]
        return list(dict.fromkeys([*self._own(), *others]))

    def _given(self) -> Path | None:
        first = self.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
        return Path(first) if first.startswith("/") else None

    def _own(self) -> Iterator[Path]:
        """The directories that this user may make."""
        xdg = self.environ.get("XDG_RUNTIME_DIR", "")
        if xdg.startswith("/") and self._owns(xdg):  # su and sudo may leave that of another user
            yield Path(xdg, "asgiri")
        if self.uid == 0:
            yield self.run / "asgiri"
        yield self.tmp / f"asgiri-{self.uid}"

    def _owns(self, directory: str) -> bool:
        try:
            return os.stat(directory).st_uid == self.uid
        except OSError:
            return False


def make_private(directory: Path, uid: int) -> str:
    """See that the directory is there, the user's own and nobody else's to use; why it is not, or empty.

    Anybody can make a directory of that name in /tmp, and a link to where we would do harm.
    """
    try:
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            pass
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode):
            return "it is a link" if stat.S_ISLNK(found.st_mode) else "it is no directory"
        if found.st_uid != uid:
            return f"it belongs to uid {found.st_uid}, not to {uid}"
        if found.st_mode & 0o022:
            return f"others may write there (mode {stat.S_IMODE(found.st_mode):04o})"
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            return "it cannot be written"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def sockets_in(directories: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """The control sockets in these directories and right below, by name, and what could not be looked into.

    One below, because a service that systemd has many instances of has a directory for each: /run/asgiri/shop.
    """
    found: list[Path] = []
    unseen: list[str] = []
    for directory in directories:
        try:
            with os.scandir(directory) as entries:
                below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
        except OSError as error:
            unseen.append(f"{directory}: {error.strerror}")
            continue
        for place in (directory, *sorted(below)):
            found += _sockets(place)
    return found, unseen


def _sockets(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return sorted(Path(entry.path) for entry in entries if _SOCKET.fullmatch(entry.name))
    except OSError:
        return []


def publish(path: str, replace: bool) -> tuple[socket.socket, tuple[int, int]]:
    """A socket that listens at ``path``, nobody else's (0600) from the start, and the identity of its file. BindError.

    It listens under a name of its own first: whoever finds the path finds somebody there.
    """
    private = str(Path(path).parent / f".{os.getpid()}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with suppress(FileNotFoundError):
            os.unlink(private)  # of a process that had this id before
        before = os.umask(0o177)
        try:
            sock.bind(private)
        finally:
            os.umask(before)
        try:
            sock.listen(_BACKLOG)
            file = identity(private)
            with alone_in(os.path.dirname(path) or os.curdir):
                make_room(path, replace)
                put(private, path, replace)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(private)
    except (OSError, ValueError, BindError) as error:  # ValueError: a NUL in the path
        sock.close()
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BindError(f"cannot bind the control socket {printable(path)}: {why}") from error
    return sock, file


def put(private: str, path: str, replace: bool) -> None:
    """Give the file the name that clients look for."""
    if replace:
        os.rename(private, path)
        return
    try:
        os.link(private, path)  # which fails where another master was faster
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        os.rename(private, path)  # a file system without links


def make_room(path: str, replace: bool) -> None:
    """Remove the socket of a master that is gone. BindError when it is a live one's, or is no socket."""
    found = 0, 0
    with suppress(FileNotFoundError):
        file = os.lstat(path)
        found = file.st_dev, file.st_ino
        if not stat.S_ISSOCK(file.st_mode):
            raise BindError("a file that is no socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)  # also where nothing is: a path may be too long for a socket's
            pid, _ = peer(probe)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if identity(path) == found:
                os.unlink(path)
            return
        except BlockingIOError:  # its backlog is full
            pid = None
    if not replace:
        raise BindError("a live server listens there" + (f", pid {pid}" if pid else ""))


def clean(directory: Path) -> None:
    """Remove the sockets that masters have left here which had no time for it."""
    for path in sockets_in([directory])[0]:
        with suppress(BindError, OSError):
            make_room(str(path), replace=False)


def peer(sock: socket.socket) -> tuple[int, int] | tuple[None, None]:
    """Process and user at the other end, by the kernel; Nones where it does not tell: the file's mode decides then."""
    if sys.platform != "linux":
        return None, None
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid
