"""asgirictl, against a control server that answers as it is told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asgiri.ctl import find
from asgiri.ctl.command import command
from asgiri.ctl.find import SOCKET_VARIABLE, configured_socket, find_socket
from asgiri.ctl.show import describe, span
from asgiri.ctl.talk import CtlError, connect, exchange, talk
from asgiri.supervisor.runtime import Runtime
from asgiri.supervisor.verbs import (
    VERBS,
    AskScale,
    AskStacks,
    AskStatus,
)
from tests.ctl.fake import Fake
from tests.e2e.service import ROOT, eventually


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    fake = Fake(tmp_path / "c.sock")
    yield fake
    fake.close()


def asgirictl(*args: str) -> Result:
    return CliRunner().invoke(command, args)


def ask(fake: Fake, *args: str) -> Result:
    return asgirictl("--socket", str(fake.path), *args)


# Verbs


def test_status_is_a_table(fake: Fake) -> None:
    result = ask(fake, "status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "shop:app: running, up 2h3m, asgiri 0.1.0, pid 4711",
        "1 of 2 workers serving, generation 3, 12.3 requests/s",
        "listening on http://127.0.0.1:8000",
        "listening on unix:/run/shop.sock",
        "",
        "worker  gen   pid    state   age   memory  connections  in flight  served  req/s",
        "     1    3  4720  serving  1m1s  50.0MiB            0          0    1234   12.3",
        "     2    3  4721  booting    0s   0.0MiB            0          0       0    0.0",
    ]


@pytest.mark.parametrize("args", [("--json", "status"), ("status", "--json")])
def test_json_is_what_the_service_says(fake: Fake, args: tuple[str, ...]) -> None:
    fake.replies[AskStatus] = {"later": "releases", "say": ["more\udc80"]}
    result = ask(fake, *args)
    assert json.loads(result.stdout) == {"later": "releases", "say": ["more?"]}


def test_a_status_of_another_release(fake: Fake) -> None:
    assert "m:a: running" in describe({"version": "9", "pid": 1, "app": "m:a", "state": "running", "new": 1})
    fake.replies[AskStatus] = {"pid": "x"}
    result = ask(fake, "status")
    assert result.exit_code == 1
    assert "--json shows it" in result.stderr


def test_a_status_cannot_steer_the_terminal(fake: Fake) -> None:
    fake.replies[AskStatus] = {"version": "1", "pid": 1, "app": "\x1b[31mred", "state": "running"}
    assert "\\x1b[31mred: running" in ask(fake, "status").stdout


def test_draining_is_told(fake: Fake) -> None:
    fake.replies[AskStatus] = {"version": "1", "pid": 1, "app": "a", "state": "running", "draining": True}
    assert "running, draining (/readyz says 503)" in ask(fake, "status").stdout


@pytest.mark.parametrize(
    ("args", "request_", "words"),
    [
        (("reload",), {"verb": "reload", "wait": False}, "reloading"),
        (("reload", "--wait"), {"verb": "reload", "wait": True}, "reloaded: generation 4 serves"),
        (("scale", "4"), {"verb": "scale", "count": 4}, "scaling to 4 workers"),
        (("scale", "1"), {"verb": "scale", "count": 1}, "scaling to 1 worker"),
        (("recycle",), {"verb": "recycle", "wait": False}, "recycling"),
        (("recycle", "--wait", "--timeout", "1m"), {"verb": "recycle", "wait": True}, "recycled: 1 worker replaced\n"),
        (("stacks",), {"verb": "stacks", "worker": None}, "worker 1 gen 3 (pid 4720)\n\nThread"),
        (("stacks", "2"), {"verb": "stacks", "worker": 2}, "worker 1 gen 3"),
        (("reopen",), {"verb": "reopen"}, "log files are reopened"),
        (
            ("loglevel",),
            {"verb": "loglevel", "level": None, "reset": False},
            "log level debug; that of the config is info",
        ),
        (("loglevel", "debug"), {"verb": "loglevel", "level": "debug", "reset": False}, "log level debug"),
        (("loglevel", "--reset"), {"verb": "loglevel", "level": None, "reset": True}, "log level"),
        (("drain",), {"verb": "drain", "off": False}, "/readyz says 503"),
        (("drain", "--off"), {"verb": "drain", "off": True}, "how the workers are again"),
        (("stop",), {"verb": "stop"}, "stopping"),
    ],
)
def test_each_verb_asks_for_what_its_arguments_say(
    fake: Fake, args: tuple[str, ...], request_: dict[str, object], words: str
) -> None:
    result = ask(fake, *args)
    assert result.exit_code == 0, result.output
    assert words in result.stdout
    [asked] = fake.asked
    assert {
        "verb": asked.__struct_config__.tag,
        **{name: getattr(asked, name) for name in asked.__struct_fields__},
    } == (request_)


def test_a_no_goes_to_stderr_with_the_traceback(fake: Fake) -> None:
    fake.failure = ("the reload failed: no module named x", 'Traceback:\n  File "a.py"\n')
    result = ask(fake, "reload", "--wait")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == 'asgirictl: the reload failed: no module named x\nTraceback:\n  File "a.py"\n'


def test_with_json_a_no_is_an_object(fake: Fake, tmp_path: Path) -> None:
    fake.failure = ("the reload failed: no module named x", "Traceback: ...")
    result = ask(fake, "reload", "--wait", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    assert json.loads(result.stdout) == {
        "ok": False,
        "error": "the reload failed: no module named x",
        "trace": "Traceback: ...",
    }
    nobody = asgirictl("--json", "--socket", str(tmp_path / "none.sock"), "stacks")
    assert (nobody.exit_code, nobody.stderr) == (1, "")
    answer = json.loads(nobody.stdout)
    assert answer.keys() == {"ok", "error"}
    assert "there is no such file" in answer["error"]


@pytest.mark.parametrize("verb", ["reload", "recycle"])
def test_what_takes_too_long_is_told_and_goes_on(fake: Fake, verb: str) -> None:
    fake.silent = True
    result = ask(fake, verb, "--wait", "--timeout", "50ms")
    assert result.exit_code == 1
    words = f"asgirictl: the {verb} is not complete after 50ms; it goes on, see asgirictl status\n"
    assert result.stderr == words


@pytest.mark.parametrize("told", [{}, {"workers": 3}, {"workers": [{"number": 1}]}, []])
def test_stacks_that_are_not_understood(fake: Fake, told: object) -> None:
    fake.replies[AskStacks] = told
    result = ask(fake, "stacks")
    assert result.exit_code == 1
    assert "--json shows them" in result.stderr


def test_what_is_wrong_and_what_was_measured_are_told(fake: Fake) -> None:
    recent = {"seconds": 10.0, "duration": {"count": 3, "p50": 0.0001, "p90": 0.0123, "p99": 2.5}, "more": 1}
    service = {
        "version": "1",
        "pid": 1,
        "app": "a",
        "state": "running",
        "recent": recent,
        "wrong": ["\x1b[1m burns"],
    }
    fake.replies[AskStatus] = service
    lines = ask(fake, "status").stdout.splitlines()
    assert "requests: p50 0.100ms, p90 12.3ms, p99 2.50s (last 10s)" in lines
    assert "! \\x1b[1m burns" in lines


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("scale",),
        ("scale", "0"),
        ("scale", "x"),
        ("statu",),
        ("drain", "--of"),
        ("stacks", "0"),
        ("stacks", "one"),
        ("loglevel", "info", "--reset"),
        ("reload", "--timeout", "5s"),
        ("reload", "--wait", "--timeout", "soon"),
        ("recycle", "--wait", "--timeout", "0"),
        ("top", "--interval", "1ms"),
    ],
)
def test_bad_usage_exits_with_2(args: tuple[str, ...]) -> None:
    assert asgirictl(*args).exit_code == 2


def test_what_the_service_finds_wrong(fake: Fake) -> None:
    result = ask(fake, "scale", "1000000")
    assert result.exit_code == 1
    assert "<= 1024" in result.stderr


def test_help_names_every_verb_and_where_the_socket_is() -> None:
    text = asgirictl("--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    for word in (*VERBS, "top", SOCKET_VARIABLE):
        assert word in text


# Without a service


def test_a_missing_socket_is_told_in_one_line(tmp_path: Path) -> None:
    result = asgirictl("--socket", str(tmp_path / "c.sock"), "status")
    assert result.exit_code == 1
    assert "there is no such file" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_service_that_has_gone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "c.sock"))
    result = asgirictl("--socket", str(tmp_path / "c.sock"), "status")
    assert result.exit_code == 1
    assert "has gone" in result.stderr


@pytest.mark.parametrize("path", ["x" * 200, "a\0b"])
def test_a_path_that_is_none(path: str) -> None:
    result = asgirictl("--socket", path, "status")
    assert result.exit_code == 1
    assert "cannot talk to a service" in result.stderr


@contextmanager
def listener(path: Path, says: bytes | None) -> Iterator[None]:
    """Something that is no asgiri: says this and closes; None: says nothing and does not close."""
    with socket.socket(socket.AF_UNIX) as sock, ExitStack() as kept:
        sock.bind(str(path))
        sock.listen()

        def run() -> None:
            client, _ = sock.accept()
            if says is None:
                kept.callback(client.close)
                return
            with client:
                client.recv(1000)
                client.sendall(says)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"", "has gone before it answered"),
        (b'{"ok": true, "resu', "has gone before it answered"),
        (b"HTTP/1.1 400 Bad Request\r\n", "is no asgiri"),
        (b"[]\n", "is no asgiri"),
        (b"3\n", "is no asgiri"),
        (b"[" * 60_000 + b"\n", "is no asgiri"),
        (b"\xff\n", "is no asgiri"),
    ],
)
def test_a_strange_answer_is_an_error_and_no_traceback(tmp_path: Path, says: bytes, words: str) -> None:
    with listener(tmp_path / "c.sock", says):
        result = asgirictl("--socket", str(tmp_path / "c.sock"), "status")
    assert result.exit_code == 1
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_service_that_does_not_answer(tmp_path: Path) -> None:
    with listener(tmp_path / "c.sock", None), pytest.raises(CtlError, match="does not answer"):
        talk(str(tmp_path / "c.sock"), {"verb": "status"}, 0.05)


def test_one_client_too_many_is_told_so(fake: Fake) -> None:
    clients = [connect(str(fake.path), 10.0) for _ in range(32)]
    result = ask(fake, "status")
    assert result.exit_code == 1
    assert "too busy" in result.stderr
    for client in clients:
        client.close()


def test_who_is_turned_away_before_he_has_asked_hears_why() -> None:
    client, server = socket.socketpair()
    server.sendall(b'{"ok": false}\n')
    server.close()
    with client:
        assert exchange(client, b"{}\n") == b'{"ok": false}\n'


def test_a_service_that_stops_while_it_is_waited_for(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "c.sock")
    fake.silent = True

    def close() -> None:
        assert eventually(lambda: fake.asked)
        fake.close()

    thread = threading.Thread(target=close)
    thread.start()
    result = ask(fake, "reload", "--wait")
    thread.join()
    assert result.exit_code == 1
    assert result.stderr == "asgirictl: the service has stopped\n"


@pytest.fixture
def outside(fake: Fake) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """asgirictl as a process of its own."""
    with ExitStack() as started:

        def begin(*args: str) -> subprocess.Popen[str]:
            return started.enter_context(
                subprocess.Popen(
                    [sys.executable, "-W", "error", "-m", "asgiri.ctl", "--socket", str(fake.path), *args],
                    cwd=ROOT,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )

        yield begin


def test_a_ctrl_c_is_quiet(fake: Fake, outside: Callable[..., subprocess.Popen[str]]) -> None:
    fake.silent = True
    process = outside("reload", "--wait")
    assert eventually(lambda: fake.asked)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == -signal.SIGINT


def test_the_program_asks_and_exits_with_0(fake: Fake, outside: Callable[..., subprocess.Popen[str]]) -> None:
    process = outside("scale", "3")
    assert process.communicate(timeout=20) == ("scaling to 3 workers\n", "")
    assert process.returncode == 0
    assert fake.asked == [AskScale(3)]


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
def test_a_socket_of_somebody_else_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another user, on the file and on the directory."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "run/asgiri").mkdir(parents=True)
        fake = Fake(directory / "run/asgiri/1.sock")
        try:
            said = []
            for mode in (0o755, 0o700):
                (directory / "run/asgiri").chmod(mode)
                said.append(as_nobody(lambda: find_socket(None, {}, runtime(directory, 65534))))
            said.append(as_nobody(lambda: talk(str(fake.path), {"verb": "status"}, 10.0)))
        finally:
            fake.close()
    for words in said:
        assert "no permission, try as root" in words
        assert "run/asgiri" in words


def as_nobody(body: Callable[[], object]) -> str:
    """What the CtlError says that the body raises in a process of nobody's."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            body()
        except CtlError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as file:
        words = file.read()
    os.waitpid(pid, 0)
    return words


# Where it looks


def runtime(directory: Path, uid: int = os.geteuid()) -> Runtime:
    return Runtime({}, uid, run=directory / "run", users=directory / "run/user", tmp=directory / "tmp")


def test_the_flag_goes_over_the_variable_and_that_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "asgiri.yaml"
    config.write_text("control: {socket: /run/of/file}\nbroken: true\n", "utf-8")
    environ = {"ASGIRI_CONFIG": str(config), "ASGIRI_CONTROL__SOCKET": "/run/of/variable"}
    assert find_socket("/run/of/flag", environ, runtime(tmp_path)) == "/run/of/flag"
    assert find_socket(None, environ, runtime(tmp_path)) == "/run/of/variable"
    environ["ASGIRI_CONTROL__SOCKET"] = ""
    assert find_socket(None, environ, runtime(tmp_path)) == "/run/of/file"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("control: {socket: c.sock}", "c.sock"),
        ("control: {socket: c.sock}\nprocess: {chdir: /srv/shop}", "/srv/shop/c.sock"),
        ("control: {socket: /run/c.sock}\nprocess: {chdir: /srv/shop}", "/run/c.sock"),
        ("control: {socket: null}", ""),
        ("control: null", ""),
        ("control: [a]", ""),
        ("control: {socket: {a: b}}", ""),
        ("app: a:b", ""),
        ("", ""),
        ("just a text", ""),
    ],
)
def test_the_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asgiri.yaml").write_text(text, "utf-8")
    assert (configured_socket({}) or "") == path


@pytest.mark.parametrize("text", ["control: [", None])
def test_a_file_that_cannot_be_read_is_told_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    config = tmp_path / "some.yaml"
    if text is not None:
        config.write_text(text, "utf-8")
    assert not configured_socket({"ASGIRI_CONFIG": str(config)})
    assert "some.yaml" in capsys.readouterr().err


def test_none_is_found(tmp_path: Path) -> None:
    with pytest.raises(CtlError, match=r"no service is found; --socket .*run/asgiri"):
        find_socket(None, {}, runtime(tmp_path))


def test_the_only_one_is_found_and_the_dead_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "GLANCE", 0.2)
    places = runtime(tmp_path)
    (tmp_path / "run/asgiri").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "run/asgiri/7.sock"))
    fake = Fake(tmp_path / "run/asgiri/8.sock")
    try:
        assert find_socket(None, {}, places) == str(fake.path)
        (tmp_path / "run/asgiri/shop").mkdir()
        other = Fake(tmp_path / "run/asgiri/shop/9.sock")
        other.silent = True
        try:
            with pytest.raises(CtlError) as caught:
                find_socket(None, {}, places)
        finally:
            other.close()
    finally:
        fake.close()
    first, second, third = str(caught.value).splitlines()
    assert first == "2 services run here; say which one by --socket PATH:"
    assert second == f"  {fake.path}: pid 4711, shop:app, running"
    assert third == f"  {other.path}: it does not say what it is"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.9, "59s"), (61, "1m1s"), (3599, "59m59s"), (3661, "1h1m"), (90061, "1d1h")],
)
def test_a_span_is_told_in_two_units_at_most(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_the_mode_of_the_fake_is_that_of_the_real(fake: Fake) -> None:
    assert stat.S_IMODE(fake.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["status", "--help"], ["status"]])
def test_what_cannot_be_written_is_an_error_and_no_traceback(fake: Fake, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "asgiri.ctl", "--socket", str(fake.path), *arguments],
            env={"PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    error = b"asgirictl: cannot write to the standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, error)
