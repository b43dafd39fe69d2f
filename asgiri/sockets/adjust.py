"""What can be changed of a socket that is bound: how many may wait in it, and who may use its file."""

from __future__ import annotations

import os
import stat

from msgspec.structs import replace

from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.bind import group_id, user_id
from asgiri.sockets.listener import Listener, identity


def check_access(listen: Listen) -> None:
    """BindError when there is no such owner or group as the entry names."""
    user_id(listen.owner)
    group_id(listen.group)


def adjust(listener: Listener, listen: Listen) -> None:
    """Have a listener be as ``listen`` says, an entry of the same address. BindError when it cannot be.

    What systemd has bound keeps the backlog and the file that its unit gives it.
    """
    old = listener.listen
    listener.listen = listen
    try:
        if listen.backlog != old.backlog and not listener.name:
            listener.sock.listen(listen.backlog)
        if listener.file is not None and identity(listen.address.path, os.lstat) == listener.file:
            _change_access(listen.address.path, old, listen)
    except (OSError, BindError) as error:
        # What was not done is to be done by another reload.
        kept = {name: getattr(old, name) for name in ("backlog", "mode", "owner", "group")}
        listener.listen = replace(listen, **kept)
        why = error.strerror if isinstance(error, OSError) else error
        raise BindError(f"{listener.url} stays as it was bound: {why}") from error


def take_over(listener: Listener) -> None:
    """The same for one that another master has bound and handed over: what its entry says; the rest is not known."""
    listen = listener.listen
    listener.listen = replace(listen, backlog=0, mode=None, owner=None, group=None)
    adjust(listener, listen)


def _change_access(path: str, old: Listen, new: Listen) -> None:
    """Give the file what is new; what is not named any more as a bind would have left it."""
    owner = group = -1
    if new.owner != old.owner:
        owner = os.geteuid() if new.owner is None else user_id(new.owner)
    if new.group != old.group:
        group = _inherited_group(path) if new.group is None else group_id(new.group)
    if (owner, group) != (-1, -1):
        os.chown(path, owner, group)
    if new.mode != old.mode:
        os.chmod(path, 0o777 & ~_umask() if new.mode is None else new.mode)


def _inherited_group(path: str) -> int:
    """The group that a new file in the directory of ``path`` has (open(2), the set-group-ID bit)."""
    directory = os.stat(os.path.dirname(path) or os.curdir)
    return directory.st_gid if directory.st_mode & stat.S_ISGID else os.getegid()


def _umask() -> int:
    umask = os.umask(0o077)  # it cannot be asked for without being set
    os.umask(umask)
    return umask
