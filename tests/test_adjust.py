"""What is changed of a socket that is bound, and what is left alone."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.adjust import adjust, check_access, take_over
from asgiri.sockets.bind import bind
from asgiri.sockets.listener import Listener


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    with contextlib.closing(bind(Listen(bind=f"unix:{tmp_path}/web.sock", mode=0o600, backlog=1))) as one:
        yield one


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def waiting(path: str) -> int:
    """How many connections may wait in a socket that nobody accepts from, up to ten."""
    with contextlib.ExitStack() as stack:
        for count in range(10):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(path)
            except BlockingIOError:
                return count
        return 10


def test_the_backlog(listener: Listener) -> None:
    path = listener.listen.address.path
    few = waiting(path)
    assert few < 5
    while True:  # those that have gone still wait
        try:
            listener.sock.accept()[0].close()
        except BlockingIOError:
            break
    adjust(listener, replace(listener.listen, backlog=100))
    assert waiting(path) == 10
    assert listener.listen.backlog == 100


def test_what_is_named_no_more_is_as_a_bind_leaves_it(listener: Listener, tmp_path: Path) -> None:
    path = listener.listen.address.path
    group = os.getgroups()[0] if os.geteuid() else 12
    os.chown(tmp_path, -1, group)
    tmp_path.chmod(0o2700)  # files in it have its group
    before = os.umask(0o027)
    try:
        adjust(listener, replace(listener.listen, mode=0o666, owner=str(os.geteuid()), group=str(os.getegid())))
        assert (mode(path), os.stat(path).st_gid) == (0o666, os.getegid())
        adjust(listener, replace(listener.listen, mode=None, owner=None, group=None))
        made = os.stat(path)
    finally:
        os.umask(before)
    assert (stat.S_IMODE(made.st_mode), made.st_uid, made.st_gid) == (0o750, os.geteuid(), group)


def test_what_the_config_does_not_change_is_the_operators(listener: Listener) -> None:
    path = listener.listen.address.path
    os.chmod(path, 0o640)
    adjust(listener, replace(listener.listen, backlog=5))
    assert mode(path) == 0o640


def test_what_cannot_be_changed_is_tried_again(listener: Listener) -> None:
    wanted = replace(listener.listen, backlog=9, mode=0o666, owner="nobody-such")
    with pytest.raises(BindError, match='there is no user "nobody-such"'):
        check_access(wanted)
    with pytest.raises(
        BindError, match=r'web.sock stays as it was bound: listen.owner: there is no user "nobody-such"'
    ):
        adjust(listener, wanted)
    assert mode(listener.listen.address.path) == 0o600
    wanted = replace(wanted, owner=None)
    adjust(listener, wanted)
    assert (mode(listener.listen.address.path), listener.listen) == (0o666, wanted)


def test_a_file_of_another_is_left_alone(listener: Listener) -> None:
    path = Path(listener.listen.address.path)
    path.unlink()
    path.write_text("mine", "ascii")
    path.chmod(0o600)
    adjust(listener, replace(listener.listen, mode=0o666))
    assert mode(path) == 0o600


def test_a_socket_of_systemd_keeps_what_its_unit_says(listener: Listener) -> None:
    path = listener.listen.address.path
    wanted = replace(listener.listen, mode=0o666, backlog=100)
    theirs = Listener.passed_on(listener.listen, listener.sock.dup(), "web", None)
    with contextlib.closing(theirs):
        adjust(theirs, wanted)
        assert theirs.listen == wanted
        assert mode(path) == 0o600
        assert waiting(path) < 5


def test_an_heir_takes_over_what_its_config_says(listener: Listener) -> None:
    path = listener.listen.address.path
    wanted = Listen(bind=listener.listen.bind, backlog=100)
    for listen, found in ((wanted, 0o600), (replace(wanted, mode=0o666), 0o666)):
        with contextlib.closing(Listener.passed_on(listen, listener.sock.dup(), "", listener.file)) as heir:
            take_over(heir)
            assert heir.listen == listen
            assert mode(path) == found
    assert waiting(path) == 10
