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
from typing import IO

import pytest
from msgspec.structs import replace

from asgiri.config.load import Loaded
from asgiri.config.schema import Config, Listen, Workers
from asgiri.equip import listens_of
from asgiri.errors import BindError
from asgiri.sockets.bind import bind, open_listener
from asgiri.sockets.holder import holder_of_port
from asgiri.sockets.listener import Listener
from asgiri.sockets.supply import Passed, Supply, hand_over
from asgiri.supervisor.plans import Plans
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
    with pytest.raises(BindError, match=r"no socket was passed for it \(LISTEN_FDS\)"):
        open_listener(Listen(bind="systemd"), Supply())
    with pytest.raises(BindError, match="no socket was passed"):
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
        ({"LISTEN_FDS": "1", "LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES: expected a name for each of 1 sockets, got 2"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a"}, "LISTEN_FDNAMES: expected a name for each of 2 sockets, got 1"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "me"}, 'LISTEN_PID: expected a process id, got "me"'),
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
for one in found:
    one.close()
"""


def receive(*passed: socket.socket | int) -> tuple[str, str]:
    """What a process says that finds these as its descriptors from 3 on."""
    sources = [one if isinstance(one, int) else one.fileno() for one in passed]
    moved = [os.dup(source) for source in sources]
    code = "".join(f"os.dup2({fd}, {3 + index});" for index, fd in enumerate(moved))
    launch = f"import os, sys; {code} os.execv(sys.executable, [sys.executable, '-W', 'error', '-c', {RECEIVER!r}])"
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
    with open(os.devnull, "rb") as file, listening() as good:
        wrong = receive(good, file.fileno())[1]  # and the good one is closed: a warning would be an error
    assert wrong == "LISTEN_FDS: descriptor 4 is no socket: Socket operation on non-socket\n"


def test_a_socket_that_listens_already_keeps_its_backlog() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as given:
        said, wrong = receive(given)
        assert not wrong
        assert f":{given.getsockname()[1]}'" in said
        # tcp(7): of a listening socket, tcpi_sacked is the backlog.
        info = given.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert int.from_bytes(info[28:32], sys.byteorder) == 7


# Another master


def heir(*listeners: Listener) -> Supply:
    """What the next master has of these."""
    entries = json.loads(hand_over(listeners)[0])
    for entry in entries:  # as exec leaves them: open, and inheritable
        entry["fd"] = os.dup(entry["fd"])
    return Supply.from_master(json.dumps(entries))


def test_an_heir_gets_each_socket_once_and_its_file_when_it_is_the_master(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    old = [bind(Listen(bind=text)) for text in ("127.0.0.1:0", f"unix:{path}", "127.0.0.1:0")]
    ports = [old[0].sock.getsockname()[1], old[2].sock.getsockname()[1]]
    assert hand_over(old)[1] == [one.sock.fileno() for one in old]
    supply = heir(*old)
    new: list[Listener] = []
    for listener in old:
        new += open_listener(listener.listen, supply)
    assert [one.sock.getsockname()[1] for one in (new[0], new[2])] == ports
    assert supply.left() == []
    new[1].close()  # one that failed before it was the master
    assert os.path.exists(path)
    [again] = open_listener(old[1].listen, heir(old[1]))
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
    assert json.loads(hand_over([ours])[0])[0]["file"] is None
    ours.own()
    ours.close()
    assert os.path.exists(path)
    theirs.close()


def test_an_heir_sees_that_a_file_was_replaced_before_it_came(tmp_path: Path) -> None:
    listen = Listen(bind=f"unix:{tmp_path}/web.sock")
    old = bind(listen)
    (tmp_path / "web.sock").rename(tmp_path / "away")
    with contextlib.closing(bind(listen)):
        [new] = open_listener(listen, heir(old))
        assert new.is_lost
        new.own()
        new.close()
        assert (tmp_path / "web.sock").exists()
        old.close()


def test_an_heir_may_name_systemds_sockets_otherwise() -> None:
    supply = Supply(Passed(listening(), name=name) for name in ("web", "api", "extra"))
    before = [Listen(bind="systemd"), Listen(bind="127.0.0.1:80", name="api")]
    supply.reserve(before)
    old = [one for listen in before for one in open_listener(listen, supply)]
    after = [Listen(bind="systemd"), Listen(bind="systemd:web"), Listen(bind="systemd:api")]
    supply = heir(*old)
    supply.reserve(after)
    new = [open_listener(listen, supply) for listen in after]
    assert [[one.name for one in listeners] for listeners in new] == [["extra"], ["web"], ["api"]]
    for one in (*old, *(one for listeners in new for one in listeners)):
        one.close()


def test_an_heir_keeps_the_socket_of_an_address_for_that_address() -> None:
    """The entry has lost its name, and another takes all that nobody names."""
    [old] = open_listener(Listen(bind="127.0.0.1:80", name="api"), Supply([Passed(listening(), name="api")]))
    supply = heir(old)
    after = [Listen(bind="systemd"), Listen(bind="127.0.0.1:80")]
    supply.reserve(after)
    assert supply.take(after[0]) == []
    [new] = open_listener(after[1], supply)
    assert new.sock.getsockname() == old.sock.getsockname()
    old.close()
    new.close()


# Entries with several sockets


def loaded(config: Config) -> Loaded:
    return Loaded(config, None, {}, {})


@pytest.mark.parametrize("entry", [Listen(bind="systemd:web"), Listen(bind="127.0.0.1:80", name="web")])
def test_an_entry_keeps_all_its_sockets_in_a_reload_and_in_an_upgrade(entry: Listen) -> None:
    supply = Supply(Passed(listening(), name=name) for name in ("web", "admin", "web"))
    config = Config(listen=(entry, Listen(bind="127.0.0.1:0"), Listen(bind="127.0.0.1:0")))
    config = replace(config, admin=replace(config.admin, bind="systemd:admin"))
    old, new = Plans(loaded(config)), Plans(loaded(config))
    old.open(supply)
    before = old.listeners
    assert [one.name for one in before] == ["web", "web", "", "", "admin"]
    old.submit(loaded(replace(config, workers=Workers(count=2))), 1)
    assert old.begin(2).all_listeners == before
    new.open(heir(*before))
    names = [[one.sock.getsockname() for one in plans.listeners] for plans in (old, new)]
    assert names[0] == names[1]
    old.close()
    new.close()


def test_a_socket_that_the_admin_has_by_name_is_not_for_those_that_take_any() -> None:
    config = Config(listen=(Listen(bind="systemd"),))
    plans = Plans(loaded(replace(config, admin=replace(config.admin, bind="systemd:admin"))))
    plans.open(Supply(Passed(listening(), name=name) for name in ("admin", "web")))
    assert [one.name for one in plans.listeners] == ["web", "admin"]
    plans.close()


def test_when_nobody_accepts_any_more_a_reload_that_waited_holds_no_socket_open() -> None:
    """Or who connects while the last requests are finished waits in its queue, and is not refused."""
    config = Config(listen=(Listen(bind="127.0.0.1:0"),))
    plans = Plans(loaded(replace(config, admin=replace(config.admin, bind=f"unix:@asgiri-{os.getpid()}-stop"))))
    plans.open(Supply())
    [workers, admin] = plans.listeners
    plans.submit(loaded(replace(config, workers=Workers(count=2))), 1)
    plans.stop_listening()
    assert (workers.sock.fileno(), plans.listeners) == (-1, [admin])
    plans.close()


def test_what_only_an_old_admin_child_needs_keeps_no_socket_of_the_workers() -> None:
    def config(path: str) -> Config:
        named = replace(Config(), listen=(Listen(bind=f"unix:@asgiri-{os.getpid()}-{path}"),))
        return replace(named, admin=replace(named.admin, bind=f"unix:@asgiri-{os.getpid()}-admin-{path}"))

    plans = Plans(loaded(config("old")))
    plans.open(Supply())
    [workers, admin] = plans.listeners
    plans.submit(loaded(config("new")), 1)
    new = plans.begin(2).all_listeners
    plans.drop_older(2, {1, 2})
    assert (workers.sock.fileno(), plans.listeners) == (-1, [admin, *new])
    plans.drop_older(2, {2})
    assert (admin.sock.fileno(), plans.listeners) == (-1, new)
    plans.close()


def test_a_stop_closes_what_a_reload_that_waits_would_keep() -> None:
    """Else the master's copy is open for as long as the drain takes, and clients wait where nobody accepts."""
    config = Config(listen=(Listen(bind="127.0.0.1:0"),))
    config = replace(config, admin=replace(config.admin, bind=f"unix:@asgiri-{os.getpid()}-stop"))
    plans = Plans(loaded(config))
    plans.open(Supply())
    [workers, admin] = plans.listeners
    plans.submit(loaded(config), 1)
    plans.stop_listening()
    assert (workers.sock.fileno(), plans.listeners) == (-1, [admin])
    plans.close()


def test_a_start_that_fails_leaves_nothing_open() -> None:
    before = os.listdir("/proc/self/fd")
    plans = Plans(loaded(Config(listen=(Listen(bind="systemd:web"), Listen(bind="systemd:shop")))))
    with pytest.raises(BindError, match="systemd:shop: no socket was passed for it; left are: api"):
        plans.open(Supply(Passed(listening(), name=name) for name in ("web", "api")))
    assert os.listdir("/proc/self/fd") == before


def test_what_a_reload_says_of_an_entry_is_said_of_all_its_sockets() -> None:
    entry = Listen(bind="systemd:web")
    listeners = open_listener(entry, Supply(Passed(listening(), name="web") for _ in range(3)))
    other = bind(Listen(bind="127.0.0.1:0"))
    third = bind(Listen(bind="127.0.0.1:0"))
    fresh = (Listen(bind="127.0.0.1:0", http=("h2",)), replace(entry, http=("http/1.1",)), Listen(bind="127.0.0.1:0"))
    said = listens_of(Config(listen=fresh), [*listeners, other, third], tls=None, http=())
    assert [one.http for one in said] == [*[("http/1.1",)] * 3, ("h2",), ("h2", "http/1.1")]
    for one in (*listeners, other, third):
        one.close()


def test_a_descriptor_of_systemds_may_be_named_by_its_number() -> None:
    passed = [Passed(listening(), name="unknown") for _ in range(2)]
    supply = Supply(passed)
    entry = Listen(bind=f"fd:{passed[1].sock.fileno()}")
    [listener] = open_listener(entry, supply)
    assert listener.sock is passed[1].sock
    assert len(supply.left()) == 1
    supply.close()
    [again] = open_listener(entry, heir(listener))
    again.close()
    listener.close()


@pytest.mark.parametrize("text", ["", "{}", "[{}]", "[1]", '[{"fd": "x", "address": "", "file": true}]'])
def test_what_no_master_says(text: str) -> None:
    with pytest.raises(BindError, match="what the old master handed over is not understood"):
        Supply.from_master(text)


# Abstract


def test_an_abstract_socket_has_no_file_and_one_owner() -> None:
    name = f"@asgiri-{os.getpid()}"
    with contextlib.closing(bind(Listen(bind=f"unix:{name}"))) as listener:
        assert listener.url == f"unix:{name}"
        assert listener.file is None
        assert not listener.is_lost
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + name[1:])
        with pytest.raises(BindError, match=f"unix:{name}: the address is in use by this service itself"):
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


def test_a_holder_is_named_where_both_cannot_listen_alone() -> None:
    with holding("AF_INET", ("127.0.0.1", 0)) as (_, said):
        port = int(said.split()[1])
        assert holder_of_port("127.0.0.1", port) == holder_of_port("::", port) != ""
        assert (
            holder_of_port("::1", port) == holder_of_port("127.0.0.2", port) == holder_of_port("localhost", port) == ""
        )


def test_of_a_master_and_its_workers_the_master_is_the_holder() -> None:
    code = HOLDER.format(family="socket.AF_INET", address=("127.0.0.1", 0)).replace(
        "time.sleep", "__import__('os').fork(); time.sleep"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    port = int(process.stdout.readline().split()[1])
    try:
        assert holder_of_port("0.0.0.0", port).startswith(f"pid {process.pid} (")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stdout.close()


def test_nobody_is_named_who_has_left_the_socket_to_others(tmp_path: Path) -> None:
    path = str(tmp_path / "web.sock")
    with socket.socket(socket.AF_UNIX) as left:
        code = f"import socket; s = socket.socket(fileno={left.fileno()}); s.bind({path!r}); s.listen(); s.detach()"
        subprocess.run([sys.executable, "-c", code], pass_fds=[left.fileno()], check=True, timeout=30)
        with pytest.raises(BindError, match=r"a live server is listening there$"):
            bind(Listen(bind=f"unix:{path}"))


def test_who_has_the_abstract_name() -> None:
    name = f"asgiri-{os.getpid()}-held"
    with holding("AF_UNIX", "\0" + name) as (pid, _), pytest.raises(BindError) as caught:
        bind(Listen(bind=f"unix:@{name}"))
    assert re.search(rf"the address is in use by pid {pid} \(python[\d.]*\)$", str(caught.value))


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
def racer(directory: Path) -> Iterator[tuple[IO[str], IO[str]]]:
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
