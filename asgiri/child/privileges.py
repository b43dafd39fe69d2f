"""The user that a child works as: found by the config's words, and become for good.

What takes root (binding, opening logs, reading keys) comes before :func:`drop`, the application comes after it.
"""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from asgiri.child.ties import tie_to_master
from asgiri.config.nodes import printable
from asgiri.config.schema import Process
from asgiri.errors import AsgiriError, ConfigError, Problem
from asgiri.link import Boot

# The largest id that chown(2) and setresuid(2) do not take for "leave it as it is".
MOST_ID: Final = 2**32 - 2

# Lines of /proc/self/status: what the process may do as it is, and what it could give itself (capabilities(7)).
_CAPABILITIES: Final = (b"CapEff:", b"CapPrm:")


class Identity(Struct, frozen=True):
    """Whom to become. ``groups`` are all of its groups, ``group`` among them.

    ``name`` is the number of a user that has no entry in passwd(5), and ``home`` then the root directory.
    """

    name: str
    user: int
    group: int
    groups: tuple[int, ...]
    home: str


def resolve(process: Process) -> Identity | None:
    """Whom the config's ``process.user`` and ``process.group`` name; None when that is who we are already.

    Without ``user`` it is ours, without ``group`` it is the user's own. Raises ConfigError when there is no such user
    or group, and when another one than ours is wanted by anybody but root.
    """
    if process.user is None and process.group is None:
        return None
    user = os.geteuid() if process.user is None else _user(process.user)
    entry = _entry(user)
    if process.group is not None:
        group = _group(process.group)
    elif entry is not None:
        group = entry.pw_gid
    else:
        what = f"user {user} has no entry in the user database that would tell its group: name process.group too"
        raise _refusal("process.user", what)
    ours = os.geteuid()
    if user == ours and (process.group is None or group == os.getegid()):
        return None
    if ours != 0:
        key = "process.group" if user == ours else "process.user"
        what = f"workers cannot be {getattr(process, key[8:])}: only a master that starts as root can have others"
        raise _refusal(key, f"{what}, and this one is {name_of(ours)}")
    if entry is None:
        return Identity(str(user), user, group, (group,), "/")
    groups = tuple(os.getgrouplist(entry.pw_name, group))
    return Identity(entry.pw_name, user, group, groups, entry.pw_dir)


def become(boot: Boot) -> None:
    """In a child: be whom the config wants. ConfigError, or AsgiriError when that fails or could be undone."""
    identity = resolve(boot.config.process)
    if identity is not None:
        drop(identity)
        tie_to_master(boot.master_pid)  # a change of credentials has cut the kernel's tie (PR_SET_PDEATHSIG)


def drop(identity: Identity) -> None:
    """Become ``identity``, with its groups, and set HOME, USER and LOGNAME.

    AsgiriError when the kernel refuses, or when the process could become root again.
    """
    user, group = identity.user, identity.group
    try:
        os.setgroups(identity.groups)
        if sys.platform == "linux":
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        else:  # for root, these set the saved ids too
            os.setgid(group)
            os.setuid(user)
    except OSError as error:
        raise AsgiriError(f"cannot become user {identity.name} (uid {user}, gid {group}): {error.strerror}") from None
    way = way_back(identity)
    if way:
        raise AsgiriError(f"as user {identity.name} (uid {user}, gid {group}) it could become root again: {way}")
    os.environ.update(HOME=identity.home, USER=identity.name, LOGNAME=identity.name)


def way_back(identity: Identity) -> str:
    """How the process could become root again, now that it should be ``identity``; empty when it cannot.

    It is tried, and not concluded: security modules, user namespaces and securebits have their say in it.
    """
    user, group = identity.user, identity.group
    if {os.getuid(), os.geteuid()} != {user} or {os.getgid(), os.getegid()} != {group}:
        return "it still is somebody else"
    if user == 0:  # root is what the config wants
        return ""
    ways: list[tuple[str, Callable[[], None]]] = [
        ("setuid(0)", lambda: os.setuid(0)),
        ("seteuid(0)", lambda: os.seteuid(0)),
        ("setgroups([0])", lambda: os.setgroups([0])),
    ]
    if group != 0:
        ways += [("setgid(0)", lambda: os.setgid(0)), ("setegid(0)", lambda: os.setegid(0))]
    for name, way in ways:
        try:
            way()
        except OSError:
            continue
        return f"{name} is allowed"
    return "" if sys.platform != "linux" else _capabilities()


def _capabilities() -> str:
    """What of root's power is left to this process, in words; empty when it is nothing."""
    with open("/proc/self/status", "rb") as status:  # bytes: a codec might have to be imported, and be root's alone
        fields = [line.split() for line in status if line.startswith(_CAPABILITIES)]
    left = [f"{name.decode()} {value.decode()}" for name, value in fields if int(value, 16)]
    return f"capabilities are left ({', '.join(left)})" if left else ""


def name_of(user: int) -> str:
    """A user's name, or "uid 1234" when it has none."""
    entry = _entry(user)
    return entry.pw_name if entry is not None else f"uid {user}"


def _entry(user: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(user)
    except KeyError:
        return None


def _user(text: str) -> int:
    if text.isdecimal():
        return _number("process.user", text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):  # ValueError: a NUL in it
        raise _refusal("process.user", f'there is no user "{printable(text)}"') from None


def _group(text: str) -> int:
    if text.isdecimal():
        return _number("process.group", text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise _refusal("process.group", f'there is no group "{printable(text)}"') from None


def _number(key: str, text: str) -> int:
    if len(text) > len(str(MOST_ID)) or int(text) > MOST_ID:
        raise _refusal(key, f"{text[:20]} is larger than any id ({MOST_ID})")
    return int(text)


def _refusal(key: str, what: str) -> ConfigError:
    return ConfigError([Problem("", key, what)])
