"""Where the control socket is when the config does not say: ``PID.sock`` in the first of these that can be had.

1. $RUNTIME_DIRECTORY: systemd's, of RuntimeDirectory= (systemd.exec(5)); the first where there are several
2. $XDG_RUNTIME_DIR/asgiri, where that directory is the user's own (XDG Base Directory Specification)
3. /run/asgiri, for root
4. /tmp/asgiri-UID
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_SOCKET = re.compile(r"[1-9][0-9]{0,9}\.sock", re.ASCII)


class NoRuntimeDirectoryError(Exception):
    """There is no directory for the socket; says of each that was tried why not."""


@dataclass(frozen=True, slots=True)
class Runtime:
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
        """All directories in which a socket that this user may use can be, whatever started its master."""
        given = [given] if (given := self._given()) else []
        others = [self.users / str(self.uid) / "asgiri", self.run / "asgiri"]
        return list(dict.fromkeys([*given, *self._own(), *others]))

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
