"""Who a worker is to be, that it becomes that for good, and that it does not serve where it could be undone."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from asgiri.child.privileges import Identity, resolve, way_back
from asgiri.config.schema import Process
from asgiri.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
NOBODY = pwd.getpwnam("nobody")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def free_id() -> int:
    """A user's number that nobody has."""
    return next(number for number in range(54321, 60000) if number not in {entry.pw_uid for entry in pwd.getpwall()})


@as_root
def test_a_user_by_name_and_by_number() -> None:
    found = resolve(Process(user="nobody"))
    assert found == Identity("nobody", NOBODY.pw_uid, NOBODY.pw_gid, found.groups if found else (), NOBODY.pw_dir)
    assert found.groups == tuple(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert resolve(Process(user=str(NOBODY.pw_uid))) == found


@as_root
def test_a_group_of_its_own() -> None:
    daemon = grp.getgrnam("daemon").gr_gid
    found = resolve(Process(user="nobody", group="daemon"))
    assert found is not None
    assert (found.user, found.group) == (NOBODY.pw_uid, daemon)
    assert daemon in found.groups
    assert resolve(Process(user="nobody", group=str(daemon))) == found
    alone = resolve(Process(group="daemon"))
    assert alone is not None
    assert (alone.name, alone.user, alone.group) == ("root", 0, daemon)


@as_root
def test_a_number_that_nobody_has() -> None:
    number = str(free_id())
    assert resolve(Process(user=number, group="7")) == Identity(number, int(number), 7, (7,), "/")
    with pytest.raises(ConfigError, match=f"process.user: user {number} has no entry .*: name process.group too"):
        resolve(Process(user=number))


@pytest.mark.parametrize(
    ("process", "what"),
    [
        (Process(user="nosuchuser"), 'process.user: there is no user "nosuchuser"'),
        (Process(user=""), 'process.user: there is no user ""'),
        (Process(user="no\0body"), r'process.user: there is no user "no\x00body"'),
        (Process(user="-1"), 'process.user: there is no user "-1"'),
        (Process(group="nosuchgroup"), 'process.group: there is no group "nosuchgroup"'),
        (Process(user="4294967295"), "process.user: 4294967295 is larger than any id (4294967294)"),
        (Process(group="9" * 30), f"process.group: {'9' * 20} is larger than any id (4294967294)"),
    ],
)
def test_nobody_of_that_name(process: Process, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(process)
    assert str(caught.value) == what


def test_what_we_are_already_is_nothing_to_do() -> None:
    user, group = str(os.geteuid()), str(os.getegid())
    assert resolve(Process()) is None
    assert resolve(Process(user=user)) is None
    assert resolve(Process(user=user, group=group)) is None
    assert resolve(Process(group=group)) is None


BEGIN = """
import ctypes, os, sys
from asgiri.child.privileges import Identity, drop, resolve
from asgiri.config.schema import Process
from asgiri.errors import AsgiriError
libc = ctypes.CDLL(None)
PR_SET_KEEPCAPS, PR_SET_SECUREBITS, NO_SETUID_FIXUP = 8, 28, 1 << 2
def become(**process):
    try:
        drop(resolve(Process(**process)))
    except AsgiriError as error:
        print(error)
"""


def said(code: str) -> list[str]:
    """The lines that a process of this code prints; the interpreter may be for root's eyes only, so import first."""
    command = [sys.executable, "-W", "error", "-c", BEGIN + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@as_root
def test_it_is_somebody_else_then() -> None:
    code = """
os.setgroups([0, 1, 2])
become(user="nobody")
print(os.getresuid(), os.getresgid(), os.getgroups())
print(os.environ["HOME"], os.environ["USER"], os.environ["LOGNAME"])
with open("/proc/self/status", "rb") as status:
    print({int(line.split()[1], 16) for line in status if line.startswith((b"CapEff", b"CapPrm"))})
"""
    user, group = NOBODY.pw_uid, NOBODY.pw_gid
    assert said(code) == [
        f"({user}, {user}, {user}) ({group}, {group}, {group}) {os.getgrouplist('nobody', group)}",
        f"{NOBODY.pw_dir} nobody nobody",
        "{0}",
    ]


@as_root
@pytest.mark.parametrize(
    ("hole", "what"),
    [
        ("real = os.setresuid; os.setresuid = lambda r, e, s: real(r, e, 0)", "setuid(0) is allowed"),
        ("os.setresuid = lambda r, e, s: None", "it still is somebody else"),
        ("real = os.setresgid; os.setresgid = lambda r, e, s: real(r, e, 0)", "setgid(0) is allowed"),
        ("libc.prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0)", "setuid(0) is allowed"),
        ("libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)", "capabilities are left (CapPrm: "),
    ],
)
def test_who_could_become_root_again_does_not_serve(hole: str, what: str) -> None:
    [line] = said(f"{hole}\nbecome(user='nobody')")
    begin = f"as user nobody (uid {NOBODY.pw_uid}, gid {NOBODY.pw_gid}) it could become root again: "
    assert line.startswith(begin + what), line


@as_root
def test_what_the_kernel_refuses_is_told() -> None:
    [line] = said("os.setuid(65534)\ntry: drop(Identity('daemon', 1, 1, (1,), '/'))\nexcept AsgiriError as e: print(e)")
    assert line == "cannot become user daemon (uid 1, gid 1): Operation not permitted"


@as_root
def test_only_root_can_have_other_workers() -> None:
    code = """
os.setgroups([]), os.setresgid(65534, 65534, 65534), os.setresuid(65534, 65534, 65534)
for process in ({"user": "root"}, {"user": "65534", "group": "0"}, {"user": "65534"}, {"group": "65534"}):
    try:
        print(resolve(Process(**process)))
    except AsgiriError as error:
        print(error)
"""
    name = pwd.getpwuid(65534).pw_name
    end = f": only a master that starts as root can have others, and this one is {name}"
    assert said(code) == [
        f"process.user: workers cannot be root{end}",
        f"process.group: workers cannot be 0{end}",
        "None",
        "None",
    ]


@as_root
def test_root_itself_is_no_hole_where_it_is_wanted() -> None:
    identity = Identity("root", 0, os.getgid(), (os.getgid(),), "/root")
    assert way_back(identity) == ""
