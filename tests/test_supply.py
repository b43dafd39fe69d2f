"""Sockets that were passed on: by systemd's rules, by another master, and who has an address that is taken."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.bind import bind, open_listener
from asgiri.sockets.listener import Listener
from asgiri.sockets.supply import Passed, Supply, hand_over
from tests.e2e.service import ROOT

NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def listening(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else "")
    sock.listen()
    return sock


@pytest.fixture
def supply() -> Iterator[Supply]:
    """Sockets of systemd: two called web, one called api, one without a name."""
    with contextlib.closing(Supply(Passed(listening(), name=name) for name in ("web", "api", "web", "unknown"))) as one:
        yield one


def taken(supply: Supply, *listens: Listen) -> list[list[str]]:
    """The names that each entry gets, in their order."""
    supply.reserve(listens)
    found = []
    for listen in listens:
        passed = supply.take(listen)
        found.append([one.name for one in passed])
        for one in passed:
            one.sock.close()
    return found


@pytest.mark.parametrize(
    ("listens", "expected", "left"),
    [
        ([Listen(bind="systemd")], [["web", "api", "web", "unknown"]], 0),
        ([Listen(bind="systemd:web")], [["web", "web"]], 2),
        ([Listen(bind="systemd"), Listen(bind="systemd:api")], [["web", "web", "unknown"], ["api"]], 0),
        ([Listen(bind="127.0.0.1:80", name="api"), Listen(bind="systemd")], [["api"], ["web", "web", "unknown"]], 0),
        ([Listen(bind="127.0.0.1:80")], [[]], 4),
        ([Listen(bind="127.0.0.1:80", name="other")], [[]], 4),
    ],
)
def test_what_an_entry_gets_of_systemds(
    supply: Supply, listens: list[Listen], expected: list[list[str]], left: int
) -> None:
    assert taken(supply, *listens) == expected
    assert len(supply.left()) == left


def test_what_only_systemd_can_give_and_has_not(supply: Supply) -> None:
    with pytest.raises(BindError, match=r"cannot listen on systemd:admin: .*left are: api, unknown, web"):
        open_listener(Listen(bind="systemd:admin"), supply)
    with pytest.raises(BindError, match=r"passed no socket \(by LISTEN_FDS\)"):
        open_listener(Listen(bind="systemd"), Supply())
    with pytest.raises(BindError, match=r"passed no socket"):
        bind(Listen(bind="systemd"))


def test_a_name_that_systemd_does_not_know_is_bound_as_usual(supply: Supply) -> None:
    [listener] = open_listener(Listen(bind="127.0.0.1:0", name="other"), supply)
    with contextlib.closing(listener):
        assert listener.sock.getsockname()[1] > 0


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"LISTEN_FDS": "x"}, 'LISTEN_FDS: expected a number of sockets, got "x"'),
        ({"LISTEN_FDS": "-1"}, 'LISTEN_FDS: expected a number of sockets, got "-1"'),
        ({"LISTEN_FDS": "99999999999999999999"}, "LISTEN_FDS: expected a number of sockets"),
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES: there are 2 names for 1 sockets"),
    ],
)
def test_variables_that_are_no_sense(environ: dict[str, str], error: str) -> None:
    given = {"LISTEN_PID": str(os.getpid()), **environ}
    with pytest.raises(BindError, match=re.escape(error)):
        Supply.from_systemd(given, os.getpid())
    assert given == {}


def test_variables_of_another_process_are_not_for_us_nor_for_the_workers() -> None:
    given = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "HOME": "/"}
    assert Supply.from_systemd(given, os.getpid()).left() == []
    assert given == {"HOME": "/"}


RECEIVER = """
import os, sys
from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.bind import open_listener
from asgiri.sockets.supply import Supply
os.environ["LISTEN_PID"] = str(os.getpid())
try:
    supply = Supply.from_systemd(os.environ, os.getpid())
    found = open_listener(Listen(bind="systemd"), supply)
except BindError as error:
    sys.exit(str(error))
print(*[(one.url, one.sock.get_inheritable(), one.sock.getblocking()) for one in found])
print([name for name in os.environ if name.startswith("LISTEN_")])
"""


def receive(*passed: socket.socket | int) -> tuple[str, str]:
    """What a process says that finds these as its descriptors from 3 on."""
    sources = [one if isinstance(one, int) else one.fileno() for one in passed]
    moved = [os.dup(source) for source in sources]
    code = "".join(f"os.dup2({fd}, {3 + index});" for index, fd in enumerate(moved))
    launch = f"import os, sys; {code} os.execv(sys.executable, [sys.executable, '-c', {RECEIVER!r}])"
    try:
        done = subprocess.run(
            [sys.executable, "-c", launch],
            env={"PYTHONPATH": str(ROOT), "LISTEN_FDS": str(len(passed))},
            pass_fds=moved,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        for fd in moved:
            os.close(fd)
    return done.stdout, done.stderr


def test_systemds_sockets_are_taken_from_3_on() -> None:
    with listening() as first, socket.socket() as second:
        second.bind(("127.0.0.1", 0))  # bound and not listening: it is made to
        said, wrong = receive(first, second)
        ports = [sock.getsockname()[1] for sock in (first, second)]
        with socket.create_connection(("127.0.0.1", ports[1]), timeout=10):
            pass
    assert not wrong
    assert said.splitlines()[0] == " ".join(f"('http://127.0.0.1:{port}', False, False)" for port in ports)
    assert said.splitlines()[1] == "[]"


def test_what_is_no_stream_socket_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        assert "LISTEN_FDS: descriptor 3 cannot be listened on: it is no stream socket" in receive(datagram)[1]
    with open(os.devnull, "rb") as file:
        assert "LISTEN_FDS: descriptor 3 is no socket" in receive(file.fileno())[1]


# Another master


def test_an_heir_gets_each_socket_once_and_its_file_when_it_is_the_master(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    old = [bind(Listen(bind=text)) for text in ("127.0.0.1:0", f"unix:{path}", "127.0.0.1:0")]
    ports = [old[0].sock.getsockname()[1], old[2].sock.getsockname()[1]]
    text, fds = hand_over(old)
    assert fds == [one.sock.fileno() for one in old]
    entries = json.loads(text)
    for entry in entries:  # as exec leaves them: open, and inheritable
        entry["fd"] = os.dup(entry["fd"])
    supply = Supply.from_master(json.dumps(entries))
    new: list[Listener] = []
    for listener in old:
        new += open_listener(listener.listen, supply)
    assert [one.sock.getsockname()[1] for one in (new[0], new[2])] == ports
    assert supply.left() == []
    new[1].close()  # one that failed before it was the master
    assert os.path.exists(path)
    again = Listener(old[1].listen, old[1].sock.dup())
    again.disown()
    old[1].disown()
    old[1].close()
    assert os.path.exists(path)
    again.own()
    again.close()
    assert not os.path.exists(path)
    for listener in (old[0], old[2], new[0], new[2]):
        listener.close()


def test_the_file_of_systemds_socket_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    listen = Listen(bind=f"unix:{path}", name="web")
    theirs = bind(Listen(bind=f"unix:{path}"))
    [ours] = open_listener(listen, Supply([Passed(theirs.sock.dup(), name="web")]))
    assert not ours.is_lost
    assert json.loads(hand_over([ours])[0])[0]["file"] is False
    ours.own()
    ours.close()
    assert os.path.exists(path)
    theirs.close()


@pytest.mark.parametrize("text", ["", "{}", "[{}]", "[1]", '[{"fd": "x", "address": "", "file": true}]'])
def test_what_no_master_says(text: str) -> None:
    if text == "{}":
        assert Supply.from_master(text).left() == []
        return
    with pytest.raises(BindError, match="what the old master handed over is not understood"):
        Supply.from_master(text)


# Abstract


def test_an_abstract_socket_has_no_file_and_one_owner() -> None:
    name = f"@asgiri-{os.getpid()}"
    with contextlib.closing(bind(Listen(bind=f"unix:{name}"))) as listener:
        assert listener.url == f"unix:{name}"
        assert not listener.has_file
        assert not listener.is_lost
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + name[1:])
        with pytest.raises(BindError, match=f"cannot bind unix:{name}: the address is in use"):
            bind(Listen(bind=f"unix:{name}"))
    bind(Listen(bind=f"unix:{name}")).close()


# Who has it

HOLDER = """
import socket, sys, time
sock = socket.socket({family})
sock.bind({address!r})
sock.listen()
print("listening", *([sock.getsockname()[1]] if {family} == socket.AF_INET else []), flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holding(family: str, address: object) -> Iterator[tuple[int, str]]:
    """Another process that listens: its pid, and what it says."""
    code = HOLDER.format(family=f"socket.{family}", address=address)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.pid, process.stdout.readline()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()


@pytest.mark.parametrize(("host", "ours"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("", "127.0.0.1")])
def test_who_has_the_port(host: str, ours: str) -> None:
    with holding("AF_INET", (host, 0)) as (pid, said):
        port = int(said.split()[1])
        with pytest.raises(BindError) as caught:
            bind(Listen(bind=f"{ours}:{port}"))
    assert re.fullmatch(
        rf"cannot bind {re.escape(ours)}:{port}: the address is in use by pid {pid} \(python[\d.]*\)", str(caught.value)
    )


def test_who_has_the_socket_file(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    with holding("AF_UNIX", path) as (pid, _), pytest.raises(BindError) as caught:
        bind(Listen(bind=f"unix:{path}"))
    assert re.search(rf"a live server is listening there, pid {pid} \(python[\d.]*\)", str(caught.value))
    bind(Listen(bind=f"unix:{path}")).close()  # stale by now


def test_a_link_is_no_stale_socket(tmp_path: Path) -> None:
    os.symlink(tmp_path / "nowhere", tmp_path / "web.sock")
    with pytest.raises(BindError, match="a file that is no socket is in the way"):
        bind(Listen(bind=f"unix:{tmp_path}/web.sock"))


RACE = """
import sys
from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.bind import bind
for _ in sys.stdin:
    try:
        listener = bind(Listen(bind="unix:web.sock"))
    except BindError:
        listener = None
    print("bound" if listener else "refused", flush=True)
    sys.stdin.readline()
    if listener:
        kept = not listener.is_lost
        listener.close()
        print("kept" if kept else "lost", flush=True)
"""


def test_of_masters_that_start_at_once_on_a_stale_socket_one_has_it(tmp_path: Path) -> None:
    with contextlib.ExitStack() as ended:
        racers = [ended.enter_context(racer(tmp_path)) for _ in range(4)]
        for _ in range(120):  # rounds, in each of which they may or may not get into each other's way
            with socket.socket(socket.AF_UNIX) as stale:
                stale.bind(str(tmp_path / "web.sock"))
            for words, _ in racers:
                words.write("go\n")
                words.flush()
            said = [answers.readline().strip() for _, answers in racers]
            assert sorted(said) == ["bound", "refused", "refused", "refused"]
            for words, _ in racers:
                words.write("end\n")
                words.flush()
            assert racers[said.index("bound")][1].readline() == "kept\n"


@contextlib.contextmanager
def racer(directory: Path) -> Iterator[tuple[TextIO, TextIO]]:
    """A process that binds when it is told to: what it hears, and what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", RACE],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdin, process.stdout
    finally:
        process.communicate(timeout=10)
