"""The control socket: real clients against a server in a selector that the test turns."""

from __future__ import annotations

import json
import os
import selectors
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgiri.errors import BindError, ExitCode
from asgiri.supervisor.control import CONNECTIONS_MOST, PATIENCE, Call, ControlServer, open_control
from asgiri.supervisor.messages import Event, Stop
from asgiri.supervisor.runtime import NoRuntimeDirectoryError, Runtime, sockets_in
from asgiri.supervisor.verbs import (
    LINE_MOST,
    VERBS,
    AskDrain,
    AskLoglevel,
    AskRecycle,
    AskReload,
    AskReopen,
    AskScale,
    AskStacks,
    AskStatus,
    AskStop,
    BadRequestError,
    Request,
    ServiceStatus,
    WorkerStatus,
    decode,
    encode,
)

STATUS = ServiceStatus(version="0.1.0", pid=1, app="m:app", state="running", listeners=["http://127.0.0.1:8000"])


class World:
    """A server, the loop of a master that does nothing else, and what was asked of it."""

    def __init__(self, path: Path, answer: Callable[[Request, Call], Iterable[Event]] | None = None) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.asked: list[Request] = []
        self.calls: list[Call] = []
        self.events: list[Event] = []
        self.server = ControlServer(str(path), self.selector, answer or self.answer)

    def answer(self, request: Request, call: Call) -> list[Event]:
        self.asked.append(request)
        match request:
            case AskReload(wait=True):
                self.calls.append(call)
            case AskStatus():
                call.reply(STATUS)
            case AskStop():
                call.reply({})
                return [Stop()]
            case _:
                call.reply({})
        return []

    def turn(self, turns: int = 1) -> None:
        for _ in range(turns):
            for key, _events in self.selector.select(0):
                self.events += key.data()

    def until_quiet(self) -> int:
        """Turn the loop until nothing is left to do; how many turns that took."""
        for turns in range(10_000):
            if not (ready := self.selector.select(0)):
                return turns
            for key, _events in ready:
                self.events += key.data()
        pytest.fail("the loop spins")

    def client(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(10)
        client.connect(str(self.path))
        return client

    @property
    def registered(self) -> int:
        """Clients that the selector knows."""
        return len(self.selector.get_map()) - 1

    def say(self, *lines: bytes) -> list[Any]:
        """What a client that sends these lines gets in all."""
        with self.client() as client:
            client.sendall(b"".join(line + b"\n" for line in lines))
            client.shutdown(socket.SHUT_WR)
            self.until_quiet()
            return answers(client)

    def close(self) -> None:
        self.server.close()
        self.selector.close()


def turn(selector: selectors.BaseSelector) -> None:
    """Once through what is ready now, and what comes of that."""
    while ready := selector.select(0):
        for key, _events in ready:
            list(key.data())


def replying(result: object) -> Callable[[Request, Call], Iterable[Event]]:
    """An answer of always the same."""

    def answer(_request: Request, call: Call) -> Iterable[Event]:
        call.reply(result)
        return ()

    return answer


def answers(client: socket.socket) -> list[Any]:
    """The lines that have come to a client, as far as the server has closed or said them."""
    data = b""
    client.setblocking(False)
    with suppress(BlockingIOError, ConnectionResetError):
        while chunk := client.recv(1 << 16):
            data += chunk
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "c.sock")
    yield world
    world.close()
    assert not list(tmp_path.iterdir())


# Verbs


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b'{"verb": "status"}', AskStatus()),
        (b'{"verb": "reload"}', AskReload()),
        (b'{"verb": "reload", "wait": true}', AskReload(wait=True)),
        (b'{"count": 3, "verb": "scale"}', AskScale(3)),
        (b'{"verb": "recycle"}', AskRecycle()),
        (b'{"verb": "drain"}', AskDrain()),
        (b'{"verb": "drain", "off": true}', AskDrain(off=True)),
        (b' {"verb": "stop"}\r', AskStop()),
        (b'{"verb": "recycle", "wait": true}', AskRecycle(wait=True)),
        (b'{"verb": "stacks"}', AskStacks()),
        (b'{"verb": "stacks", "worker": 2}', AskStacks(2)),
        (b'{"verb": "reopen"}', AskReopen()),
        (b'{"verb": "loglevel"}', AskLoglevel()),
        (b'{"verb": "loglevel", "level": "debug"}', AskLoglevel("debug")),
        (b'{"verb": "loglevel", "reset": true}', AskLoglevel(reset=True)),
    ],
)
def test_a_line_is_decoded_to_its_request(line: bytes, request_: Request) -> None:
    assert decode(line) == request_


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"verb": "stauts"}', 'unknown verb "stauts"; did you mean "status"?'),
        (b'{"verb": "\\u001b[31m"}', 'unknown verb "\\x1b[31m"'),
        (b'{"verb": 3}', "Expected `str`"),
        (b"{}", "required field `verb`"),
        (b"[]", "Expected `object`"),
        (b'{"verb": "scale"}', "required field `count`"),
        (b'{"verb": "scale", "count": "4"}', "Expected `int`"),
        (b'{"verb": "scale", "count": 0}', ">= 1"),
        (b'{"verb": "scale", "count": 1000000}', "<= 1024"),
        (b'{"verb": "reload", "wait": 1}', "Expected `bool`"),
        (b'{"verb": "stop", "now": true}', "unknown field `now`"),
        (b'{"verb": "stacks", "worker": "1"}', "Expected `int | null`"),
        (b'{"verb": "stacks", "worker": 1e400}', "not understood"),
        (b'{"verb": "stacks", "worker": 1.5}', "Expected `int | null`"),
        (b'{"verb": "loglevel", "level": 10}', "Expected `str | null`"),
        (b'{"verb": "loglevel", "reset": "yes"}', "Expected `bool`"),
        (b'{"verb": "reopen", "file": "/etc/passwd"}', "unknown field `file`"),
        (b"GET / HTTP/1.1\r", "not understood"),
        (b"\xff\xfe", "not understood"),
        (b'{"verb": "\xff"}', "not understood"),
        (b'{"verb": "scale", "count": ' + b"[" * 60_000, "not understood"),
        (b'{"z": ' + b"[" * 60_000, "not understood"),
    ],
)
def test_what_is_no_request_is_told_what_is_wrong(line: bytes, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        decode(line)
    assert words in str(caught.value)


def test_every_verb_is_in_the_list() -> None:
    for verb in VERBS:
        line = json.dumps({"verb": verb, **({"count": 1} if verb == "scale" else {})}).encode()
        assert json.loads(msgspec.json.encode(decode(line)))["verb"] == verb


def test_an_answer_may_have_lone_surrogates() -> None:
    assert encode({"a": "x\udc80y"}) == b'{"a": "x?y"}\n'


# Conversations


def test_a_status_is_answered(world: World) -> None:
    worker = WorkerStatus(number=1, generation=1, pid=2, state="serving", age=1.5)
    status = ServiceStatus(version="1", pid=1, app="a:b", state="running", workers=[worker])
    world.server.answer = replying(status)
    [answer] = world.say(b'{"verb": "status"}')
    assert answer["ok"] is True
    assert answer["result"]["workers"][0]["state"] == "serving"
    assert answer["result"]["requests_per_second"] == 0.0


def test_events_go_to_the_master(world: World) -> None:
    assert world.say(b'{"verb": "stop"}') == [{"ok": True, "result": {}}]
    assert world.events == [Stop()]


def test_what_an_answer_tells_is_of_after_the_event_of_the_one_before(world: World) -> None:
    count = 1

    def answer(request: Request, call: Call) -> Iterator[Event]:
        nonlocal count
        call.reply(count)
        if isinstance(request, AskScale):
            yield Stop()  # a master feeds it here
            count = request.count

    world.server.answer = answer
    lines = world.say(b'{"verb": "status"}', b'{"verb": "scale", "count": 5}', b'{"verb": "status"}')
    assert [line["result"] for line in lines] == [1, 1, 5]


def test_a_bad_line_does_not_end_the_conversation(world: World) -> None:
    first, second, third = world.say(b"nonsense", b"", b'{"verb": "x"}', b'{"verb": "recycle"}')
    assert first["ok"] is second["ok"] is False
    assert third["ok"] is True
    assert world.asked == [AskRecycle()]


def test_a_request_cut_in_pieces(world: World) -> None:
    with world.client() as client:
        for byte in b'{"verb": "recycle"}\n':
            assert world.asked == []
            client.sendall(bytes([byte]))
            world.until_quiet()
        assert world.asked == [AskRecycle()]
        assert answers(client) == [{"ok": True, "result": {}}]
        assert not is_closed(client)


def test_an_answer_may_come_later_and_the_next_request_waits_for_it(world: World) -> None:
    with world.client() as client:
        client.sendall(b'{"verb": "reload", "wait": true}\n{"verb": "recycle"}\n')
        world.until_quiet()
        assert answers(client) == []
        assert world.asked == [AskReload(wait=True)]
        world.calls[0].fail("the app is broken", "Traceback ...")
        assert answers(client) == [{"ok": False, "error": "the app is broken", "trace": "Traceback ..."}]
        world.until_quiet()
        assert answers(client) == [{"ok": True, "result": {}}]
        world.calls[0].reply("again")
        assert answers(client) == []


def test_a_half_closed_client_gets_its_later_answer_and_is_closed(world: World) -> None:
    with world.client() as client:
        client.sendall(b'{"verb": "reload", "wait": true}\n')
        client.shutdown(socket.SHUT_WR)
        world.until_quiet()
        world.server.sweep(0.0)
        assert world.registered == 0  # nothing to look for
        world.calls[0].reply({"generation": 2})
        world.until_quiet()
        assert answers(client) == [{"ok": True, "result": {"generation": 2}}]
        assert is_closed(client)


@pytest.mark.parametrize("extra", [b"", b"x" * LINE_MOST * 2])
def test_the_answer_to_a_client_that_has_gone_is_swallowed(world: World, extra: bytes) -> None:
    client = world.client()
    client.setblocking(False)
    client.send(b'{"verb": "reload", "wait": true}\n')
    world.until_quiet()
    with suppress(BlockingIOError):
        client.send(extra)
    world.until_quiet()
    client.close()
    world.until_quiet()
    world.server.sweep(0.0)
    assert not world.server._connections
    world.calls[0].reply({})
    assert world.registered == 0


def test_who_asks_is_known(world: World) -> None:
    with world.client() as client:
        client.sendall(b'{"verb": "reload", "wait": true}\n')
        world.until_quiet()
        assert world.calls[0].who == f"pid {os.getpid()}, uid {os.getuid()}"


def test_close_tells_those_who_wait(world: World) -> None:
    with world.client() as waiting, world.client() as idle:
        waiting.sendall(b'{"verb": "reload", "wait": true}\n')
        world.until_quiet()
        world.server.close()
        assert answers(waiting) == [{"ok": False, "error": "the service has stopped"}]
        assert is_closed(waiting)
        assert is_closed(idle)
        assert not world.path.exists()


# Clients that mean no good


def test_a_line_that_is_too_long_is_refused(world: World) -> None:
    with world.client() as client:
        client.setblocking(False)
        sent = 0
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while sent < 4 * LINE_MOST:
                sent += client.send(b" " * 8192)
                world.turn()
        world.until_quiet()
        assert sent < 2 * LINE_MOST + (1 << 18)
        [answer] = answers(client)
        assert "longer than 65536 bytes" in answer["error"]
        assert is_closed(client)


def test_a_line_may_be_as_long_as_it_may_be(world: World) -> None:
    line = b'{"verb": "recycle"}'
    assert world.say(line.ljust(LINE_MOST - 1)) == [{"ok": True, "result": {}}]
    [answer] = world.say(line.ljust(LINE_MOST))
    assert not answer["ok"]


def test_half_a_line_is_no_request(world: World) -> None:
    with world.client() as client:
        client.sendall(b'{"verb": "stop"}')
        client.shutdown(socket.SHUT_WR)
        world.until_quiet()
        assert "newline" in answers(client)[0]["error"]
    assert world.asked == []


@pytest.mark.parametrize("said", [b"", b'{"verb":', b"\n\n"])
def test_idle_clients_and_half_lines_have_a_deadline(world: World, said: bytes) -> None:
    with world.client() as client:
        client.sendall(said)
        world.until_quiet()
        world.server.sweep(100.0)
        client.sendall(said)  # dripping does not renew it
        world.until_quiet()
        world.server.sweep(100.0 + PATIENCE - 1)
        assert not is_closed(client)
        world.server.sweep(100.0 + PATIENCE)
        assert "10 seconds" in answers(client)[0]["error"]
        assert is_closed(client)


def test_a_request_renews_the_deadline(world: World) -> None:
    with world.client() as client:
        world.until_quiet()
        world.server.sweep(0.0)
        client.sendall(b'{"verb": "recycle"}\n')
        world.until_quiet()
        world.server.sweep(PATIENCE)
        assert answers(client) == [{"ok": True, "result": {}}]
        assert not is_closed(client)


def test_a_call_has_no_deadline(world: World) -> None:
    with world.client() as client:
        client.sendall(b'{"verb": "reload", "wait": true}\n')
        world.until_quiet()
        for now in range(0, 1000, 10):
            world.server.sweep(float(now))
        world.calls[0].reply({})
        assert answers(client) == [{"ok": True, "result": {}}]


def test_a_client_that_does_not_read_waits_alone_and_is_closed(world: World) -> None:
    world.server.answer = replying("x" * (4 << 20))
    with world.client() as client:
        client.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while sent < 1 << 22:
                sent += client.send(b'{"verb": "status"}\n' * 100)
                world.turn()
        world.until_quiet()  # and does not spin
        [connection] = world.server._connections
        assert len(connection._read) < 2 * LINE_MOST
        world.server.sweep(0.0)
        with world.client() as other:
            other.sendall(b"nonsense\n")
            world.until_quiet()
            assert not answers(other)[0]["ok"]
        world.until_quiet()
        world.server.sweep(PATIENCE)
        assert world.registered == 0


def test_a_large_answer_arrives_whole(world: World) -> None:
    world.server.answer = replying("x" * (4 << 20))
    with world.client() as client:
        client.sendall(b'{"verb": "status"}\n')
        client.setblocking(False)
        data = b""
        while not data.endswith(b"\n"):
            world.turn()
            with suppress(BlockingIOError):
                data += client.recv(1 << 20)
        assert len(json.loads(data)["result"]) == 4 << 20


def test_many_requests_at_once_are_answered_in_turns(world: World) -> None:
    with world.client() as many, world.client() as one:
        many.sendall(b'{"verb": "recycle"}\n' * 50)
        one.sendall(b'{"verb": "status"}\n')
        world.turn(3)
        assert world.asked.index(AskStatus()) <= 2
        assert world.until_quiet() > 40
        assert len(answers(many)) == 50


def test_requests_that_come_faster_than_they_are_answered_wait_outside(world: World) -> None:
    with world.client() as client:
        client.setblocking(False)
        for _ in range(50):
            with suppress(BlockingIOError):
                client.send(b'{"verb": "recycle"}\n' * 800)
            world.turn()
            answers(client)
        [connection] = world.server._connections
        assert 0 < len(connection._read) < 2 * LINE_MOST
    world.until_quiet()
    assert world.registered == 0


def test_only_so_many_clients(world: World) -> None:
    clients = [world.client() for _ in range(20)]
    world.until_quiet()
    clients += [world.client() for _ in range(20)]
    world.until_quiet()
    assert world.registered == CONNECTIONS_MOST
    assert "too busy" in answers(clients[-1])[0]["error"]
    assert is_closed(clients[-1])
    clients.pop(0).close()
    world.until_quiet()
    with world.client() as late:
        late.sendall(b'{"verb": "recycle"}\n')
        world.until_quiet()
        assert answers(late)[0]["ok"]
    for client in clients:
        client.close()
    world.until_quiet()
    assert world.registered == 0


LINES = [b'{"verb": "recycle"}', b'{"verb": "status"}', b'{"verb": "scale", "count": 2}', b"", b"{}", b"\x00\xff" * 40]


@settings(max_examples=60, deadline=None)
@example(pieces=[b"[" * 70_000], end=True)
@given(
    pieces=st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(LINES).map(lambda line: line + b"\n"))),
    end=st.booleans(),
)
def test_garbage_cut_anywhere(fuzzed: World, pieces: list[bytes], end: bool) -> None:
    good = sum(line.strip() in LINES[:3] for line in b"".join(pieces).split(b"\n")[:-1])
    fuzzed.asked.clear()
    with fuzzed.client() as client:
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                client.sendall(piece)
                fuzzed.turn()
        if end:
            client.shutdown(socket.SHUT_WR)
        fuzzed.until_quiet()
        came = answers(client)
        assert len(fuzzed.asked) == good == sum(answer["ok"] for answer in came)
        assert is_closed(client) or not end
    fuzzed.until_quiet()
    assert fuzzed.registered == 0


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("fuzz") / "c.sock")
    yield world
    world.close()


def test_no_descriptor_left_waits_for_the_sweep(world: World) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with world.client() as client:
        with os.scandir("/proc/self/fd") as entries:
            used = max(int(entry.name) for entry in entries) + 1
        fillers = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        try:
            with suppress(OSError):
                while True:
                    fillers.append(os.open(os.devnull, os.O_RDONLY))
            world.until_quiet()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)
        assert world.until_quiet() == 0
        world.server.sweep(0.0)
        client.sendall(b'{"verb": "recycle"}\n')
        world.until_quiet()
        assert answers(client)[0]["ok"]


# Who may


@contextmanager
def child(body: Callable[[], None]) -> Iterator[None]:
    """A forked child that runs the body; it must end well."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    try:
        yield
    finally:
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
def test_another_user_is_refused_whatever_the_mode_of_the_file() -> None:
    import tempfile

    nobody = 65534
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        world = World(Path(directory, "c.sock"))
        read, write = os.pipe()

        def connect() -> None:
            os.setgroups([])
            os.setgid(nobody)
            os.setuid(nobody)
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(world.path))
                except PermissionError:
                    os.write(write, b"EACCES")
                    return
                client.settimeout(10)
                data = client.recv(1000)
                os.write(write, data + b"|" + client.recv(1000))

        with child(connect):
            assert os.read(read, 1000) == b"EACCES"
        os.chmod(world.path, 0o777)
        with child(connect):
            while not world.selector.select(10):
                pass
            world.until_quiet()
            answer, _, rest = os.read(read, 1000).partition(b"|")
            assert "not uid 65534" in json.loads(answer)["error"]
            assert rest == b""
        assert world.registered == 0
        world.close()
        os.close(read)
        os.close(write)


def test_the_file_is_nobody_elses_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        world = World(tmp_path / "c.sock")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o600
    world.close()


# The file


def test_a_stale_file_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    world = World(path)
    with pytest.raises(BindError, match=rf"c\.sock: a live server listens there, pid {os.getpid()}") as caught:
        World(path)
    assert caught.value.exit_code == ExitCode.BIND
    assert os.listdir(tmp_path) == ["c.sock"]
    world.until_quiet()
    world.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("replace", [False, True])
def test_what_is_no_socket_stays(tmp_path: Path, make: Callable[[Path], object], replace: bool) -> None:
    path = tmp_path / "c.sock"
    make(path)
    with selectors.DefaultSelector() as selector, pytest.raises(BindError, match="no socket is in the way"):
        ControlServer(str(path), selector, lambda _request, _call: (), replace=replace)
    assert os.listdir(tmp_path) == ["c.sock"]


@pytest.mark.parametrize(
    ("path", "why"), [("gone/c.sock", "No such file or directory"), ("x" * 120, "path too long"), ("a\0b", "null")]
)
def test_a_place_that_cannot_be_had(tmp_path: Path, path: str, why: str) -> None:
    with selectors.DefaultSelector() as selector, pytest.raises(BindError, match=why):
        ControlServer(str(tmp_path / path), selector, lambda _request, _call: ())


def test_a_new_master_takes_the_path_over_and_the_old_one_leaves_it(tmp_path: Path) -> None:
    old = World(tmp_path / "c.sock")
    with selectors.DefaultSelector() as selector, old.client() as early:
        new = ControlServer(str(old.path), selector, old.answer, replace=True)
        early.sendall(b'{"verb": "recycle"}\n')
        old.until_quiet()
        assert answers(early)[0]["ok"]  # who was there is still served
        old.close()
        with old.client():
            assert selector.select(0)  # the new one has it
        new.close()
    assert not os.listdir(tmp_path)


def test_disowned_the_file_stays(tmp_path: Path) -> None:
    world = World(tmp_path / "c.sock")
    world.server.disown()
    world.close()
    assert world.path.exists()


def test_disowned_a_path_of_its_own_goes_and_who_is_there_stays(tmp_path: Path) -> None:
    with selectors.DefaultSelector() as selector:
        server = open_control(None, runtime(tmp_path), selector, replying({}))
        assert server is not None
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(server.path)
            turn(selector)
            server.disown()
            assert not os.path.exists(server.path)
            server.sweep(0.0)
            client.sendall(b'{"verb": "stop"}\n')
            turn(selector)
            assert answers(client) == [{"ok": True, "result": {}}]
            server.close()
            assert is_closed(client)
        assert not selector.get_map()


def test_a_file_that_somebody_removes_comes_back(world: World) -> None:
    with world.client() as early:
        world.until_quiet()
        world.path.unlink()
        world.server.sweep(0.0)
        assert stat.S_IMODE(world.path.stat().st_mode) == 0o600
        assert world.say(b'{"verb": "recycle"}') == [{"ok": True, "result": {}}]
        early.sendall(b'{"verb": "status"}\n')
        world.until_quiet()
        assert answers(early)[0]["ok"]


def test_a_directory_that_somebody_removes_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "d").mkdir()
    world = World(tmp_path / "d/c.sock")
    world.path.unlink()
    (tmp_path / "d").rmdir()
    world.server.sweep(0.0)
    world.server.sweep(1.0)
    assert caplog.text.count("the file of the control socket is gone") == 1
    world.close()


def test_a_child_lets_go_and_the_master_goes_on(world: World) -> None:
    with world.client() as client:
        world.until_quiet()
        with child(world.server.close_in_child):
            pass
        client.sendall(b'{"verb": "recycle"}\n')
        world.until_quiet()
        assert answers(client)[0]["ok"]
        assert world.path.exists()


def test_close_in_a_child_lets_go_of_every_descriptor(world: World) -> None:
    with world.client():
        world.until_quiet()

        def check() -> None:
            before = len(os.listdir("/proc/self/fd"))
            world.server.close_in_child()
            assert len(os.listdir("/proc/self/fd")) == before - 2

        with child(check):
            pass


def test_the_sweep_keeps_the_file_young(world: World) -> None:
    os.utime(world.path, (0, 0))
    world.server.sweep(10_000.0)
    assert world.path.stat().st_mtime > 0


# Where it is


def runtime(tmp_path: Path, uid: int = os.geteuid(), **environ: str) -> Runtime:
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return Runtime(environ, uid, run=tmp_path / "run", users=tmp_path / "run/user", tmp=tmp_path / "tmp")


def test_systemds_directory_first(tmp_path: Path) -> None:
    where = runtime(tmp_path, RUNTIME_DIRECTORY="/run/one:/run/two", XDG_RUNTIME_DIR=str(tmp_path))
    assert where.socket_path(7) == Path("/run/one/7.sock")


def test_then_the_users(tmp_path: Path) -> None:
    where = runtime(tmp_path, RUNTIME_DIRECTORY="", XDG_RUNTIME_DIR=str(tmp_path))
    assert where.socket_path(7) == tmp_path / "asgiri/7.sock"
    assert stat.S_IMODE((tmp_path / "asgiri").stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to make what belongs to others")
def test_not_the_directory_of_another_user(tmp_path: Path) -> None:
    """As su and sudo -E leave it."""
    (tmp_path / "1000").mkdir()
    os.chown(tmp_path / "1000", 1000, 1000)
    assert runtime(tmp_path, XDG_RUNTIME_DIR=str(tmp_path / "1000")).socket_path(7) == tmp_path / "run/asgiri/7.sock"


@pytest.mark.skipif(os.geteuid() != 0, reason="the directories of root")
def test_then_roots_and_then_tmp(tmp_path: Path) -> None:
    where = runtime(tmp_path)
    assert where.socket_path(7) == tmp_path / "run/asgiri/7.sock"
    (tmp_path / "run/asgiri").rmdir()
    (tmp_path / "run").rmdir()
    assert where.socket_path(7) == tmp_path / "tmp/asgiri-0/7.sock"


def test_tmp_is_for_whoever_has_nothing_else(tmp_path: Path) -> None:
    uid = os.geteuid()
    where = runtime(tmp_path)
    (tmp_path / "run").rmdir()
    assert where.socket_path(7) == tmp_path / f"tmp/asgiri-{uid}/7.sock"
    assert stat.S_IMODE((tmp_path / f"tmp/asgiri-{uid}").stat().st_mode) == 0o700
    assert where.socket_path(8) == tmp_path / f"tmp/asgiri-{uid}/8.sock"


def linked(path: Path) -> None:
    (path.parent / "elsewhere").mkdir()
    path.symlink_to("elsewhere")


def open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def anothers(path: Path) -> None:
    path.mkdir()
    os.chown(path, 1234, -1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (linked, "it is a link"),
        (Path.touch, "it is no directory"),
        (open_to_all, r"others may write there \(mode 0777\)"),
        pytest.param(
            anothers,
            "it belongs to uid 1234",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="takes root to make what belongs to others"),
        ),
    ],
)
def test_a_directory_that_is_not_ours_is_refused(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    uid = os.geteuid()
    where = runtime(tmp_path)
    (tmp_path / "run").rmdir()
    make(tmp_path / f"tmp/asgiri-{uid}")
    with pytest.raises(NoRuntimeDirectoryError, match=rf"tmp/asgiri-{uid}: {why}"):
        where.socket_path(7)


def test_sockets_are_found_wherever_they_can_be(tmp_path: Path) -> None:
    where = runtime(tmp_path, XDG_RUNTIME_DIR=str(tmp_path / "x"))
    (tmp_path / "x").mkdir()
    for name in ("run/asgiri/7.sock", "run/asgiri/shop/8.sock", "x/asgiri/9.sock", "run/asgiri/app.sock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found, unseen = sockets_in(where.searched())
    assert sorted(path.name for path in found) == ["7.sock", "8.sock", "9.sock"]
    assert unseen == []
    assert runtime(tmp_path, RUNTIME_DIRECTORY="/run/shop").searched() == [Path("/run/shop")]


def test_without_a_place_the_master_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    where = Runtime({}, os.geteuid(), run=tmp_path / "no", users=tmp_path / "no", tmp=tmp_path / "no")
    with selectors.DefaultSelector() as selector, caplog.at_level("INFO", "asgiri"):
        assert open_control(None, where, selector, lambda _request, _call: ()) is None
        assert not selector.get_map()
    [record] = caplog.records
    assert record.levelname == "INFO"
    assert "no control socket" in record.getMessage()
    assert "No such file" in record.getMessage()


def test_one_that_the_config_names_must_be_had(tmp_path: Path) -> None:
    with selectors.DefaultSelector() as selector, pytest.raises(BindError):
        open_control(str(tmp_path / "no/c.sock"), runtime(tmp_path), selector, lambda _request, _call: ())


def test_dead_masters_sockets_are_cleaned_away(tmp_path: Path) -> None:
    where = runtime(tmp_path)
    directory = where.socket_path(1).parent
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as live:
        dead.bind(str(directory / "99.sock"))
        live.bind(str(directory / "98.sock"))
        live.listen()
        dead.close()
        with selectors.DefaultSelector() as selector:
            server = open_control(None, where, selector, lambda _request, _call: ())
            assert server is not None
            assert sorted(os.listdir(directory)) == sorted(["98.sock", f"{os.getpid()}.sock"])
            server.close()
