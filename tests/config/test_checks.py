"""What keys say together: contradictions, and that both sides are named; and what somebody may have meant."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from asgiri.config import hints
from asgiri.config.address import parse_bind
from asgiri.config.hints import every_key
from asgiri.config.load import Setting, load
from asgiri.config.schema import Config, Listen
from asgiri.errors import BindError, ConfigError
from asgiri.sockets.bind import bind

Problems = Callable[..., list[str]]

RECYCLED = "workers are not recycled under"
CIPHERS = "listen[0].tls.ciphers"
TAKEN = "127.0.0.1:80 cannot be bound beside 0.0.0.0:80"


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problems:
    """The lines of the ConfigError that the text of ./asgiri.yaml makes; none when it is good."""
    monkeypatch.chdir(tmp_path)

    def lines(text: str, environ: dict[str, str] | None = None, *flags: Setting) -> list[str]:
        Path("asgiri.yaml").write_text(text, "utf-8")
        try:
            load(None, environ or {}, flags)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    return lines


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "workers: {max_requests: 5}\nreload: {enabled: true}",
            f"1:25: workers.max_requests: {RECYCLED} reload.enabled (asgiri.yaml:2): take one of the two out",
        ),
        (
            "listen:\n  - bind: a:1\n    tls: {certfile: c, min_version: '1.3', ciphers: ECDHE}",
            f"3:53: {CIPHERS}: they are for TLS 1.2, which listen[0].tls.min_version (asgiri.yaml:3) does not let in",
        ),
        (
            "listen: [{bind: '127.0.0.1:80'}]\nadmin: {bind: '127.0.0.1:80'}",
            "2:15: admin.bind: 127.0.0.1:80 is bound already, by listen[0].bind (asgiri.yaml:1)",
        ),
        (
            "admin: {bind: '127.0.0.1:8000'}",
            "1:15: admin.bind: 127.0.0.1:8000 is bound already, by listen[0].bind (the default)",
        ),
        (
            "listen: [{bind: '0.0.0.0:80'}, {bind: '127.0.0.1:80'}]",
            f"1:39: listen[1].bind: {TAKEN}, of listen[0].bind (asgiri.yaml:1): one has the other's port too",
        ),
        (
            "listen: [{bind: 'unix:a.sock'}, {bind: 'unix:./b/../a.sock'}]",
            '1:40: listen[1].bind: "./b/../a.sock" is the file of listen[0].bind (asgiri.yaml:1) already',
        ),
        (
            "listen: [{bind: 'unix:a.sock'}]\nadmin: {bind: 'unix:./a.sock'}",
            '2:15: admin.bind: "./a.sock" is the file of listen[0].bind (asgiri.yaml:1) already',
        ),
        (
            "admin: {bind: 'unix:/run/a.sock'}\ncontrol: {socket: /run/a.sock}",
            '2:19: control.socket: "/run/a.sock" is the file of admin.bind (asgiri.yaml:1) already',
        ),
        (
            "listen: [{bind: 'unix:/run/a.sock'}]\ncontrol: {socket: /run/a.sock}",
            '2:19: control.socket: "/run/a.sock" is the file of listen[0].bind (asgiri.yaml:1) already',
        ),
        (
            "log: {file: /run/a}\nprocess: {pidfile: /run//a}",
            '2:20: process.pidfile: "/run//a" is the file of log.file (asgiri.yaml:1) already',
        ),
        (
            "process: {pidfile: a, chdir: /run}\nlog: {file: /run/a}",
            '1:20: process.pidfile: "a" is the file of log.file (asgiri.yaml:2) already',
        ),
    ],
)
def test_a_contradiction_names_both_sides(problems: Problems, text: str, error: str) -> None:
    assert f"asgiri.yaml:{error}" in problems(text)


@pytest.mark.parametrize(
    "text",
    [
        "log: {file: /a, access: {file: /a}}",
        "log: {file: '-', access: {file: '-'}}",
        "listen: [{bind: '127.0.0.1:80'}, {bind: '127.0.0.2:80'}, {bind: '[::1]:80'}, {bind: '0.0.0.0:81'}]",
        "listen: [{bind: '0.0.0.0:80'}, {bind: '[::1]:80'}]",
        "listen: [{bind: '0.0.0.0:0'}, {bind: '127.0.0.1:0'}]",
        "listen: [{bind: 'unix:@a'}, {bind: 'unix:a'}]",
        "workers: {max_requests: 5}\nreload: {enabled: false}",
        "interface: wsgi\nlifespan: 'on'",
    ],
)
def test_what_is_no_contradiction(problems: Problems, text: str) -> None:
    assert problems(text) == []


def test_what_is_wrong_by_itself_contradicts_nothing(problems: Problems) -> None:
    [error] = problems("listen: [{bind: a}]\nadmin: {bind: '127.0.0.1:8000'}")
    assert "listen[0].bind" in error


def test_a_relative_path_is_one_with_its_absolute_spelling(problems: Problems, tmp_path: Path) -> None:
    (line,) = problems(f"log: {{file: a.log}}\nprocess: {{pidfile: {tmp_path}/a.log}}")
    assert "is the file of log.file (asgiri.yaml:1) already" in line


def test_what_is_guessed_is_there() -> None:
    known = {path for path, _ in every_key(Config)}
    assert not {path for meant in hints.ELSEWHERE.values() for path in meant.split()} - known - {"timeouts"}
    assert hints.ELSEWHERE.keys() & {path.rpartition(".")[2] for path in known} == {"header"}


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"worker_{number}: 1" for number in range(9_000)),
        "listen:\n" + "".join(f"- bind: unix:/a/{number}\n" for number in range(6_000)) + "- bind: unix:/a/1",
        "env:\n" + "".join(f"  A{number}: ${{X{number}}}\n" for number in range(9_000)),
    ],
    ids=["unknown keys", "listeners", "variables"],
)
def test_the_longest_refusal_is_quick(problems: Problems, text: str) -> None:
    begun = time.process_time()
    assert problems(text)
    assert time.process_time() - begun < 3.0  # measured: under one, on a machine that is not busy


def test_variables_and_flags_come_after_the_file(problems: Problems) -> None:
    flags = (Setting("--set", "nothing", "1"), Setting("--workers", "workers.count", "0"))
    found = problems("loop: x", {"ASGIRI_TIMEOUTS__WRITE": "x", "ASGIRI_X": "1"}, *flags)
    places = [line.partition(": ")[0] for line in found]
    assert places == ["asgiri.yaml:1:7", "ASGIRI_X", "ASGIRI_TIMEOUTS__WRITE", "--set", "--workers"]


def test_a_flag_is_named_as_the_other_side(problems: Problems) -> None:
    found = problems("workers: {max_requests: 5}", {}, Setting("--reload", "reload.enabled", True))
    assert any("under reload.enabled (--reload)" in line for line in found)


ADDRESSES = ("127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost", "[::1]", "[::]")


@pytest.mark.skipif(sys.platform != "linux", reason="how wildcards take part is Linux's here")
@pytest.mark.parametrize("first", ADDRESSES)
@pytest.mark.parametrize("second", ADDRESSES)
def test_addresses_exclude_each_other_as_the_kernel_has_it(first: str, second: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one, other = (f"{host}:{port}" for host in (first, second))
    with ExitStack() as stack:
        stack.callback(bind(Listen(bind=one)).close)
        try:
            stack.callback(bind(Listen(bind=other)).close)
            excluded = False
        except BindError:
            excluded = True
    assert parse_bind(one).excludes(parse_bind(other)) is excluded


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("keep_alive: 5s", 'unknown key "keep_alive"; did you mean "timeouts.keep_alive"?'),
        ("max-requests: 5", 'unknown key "max-requests"; did you mean "workers.max_requests"?'),
        ("bind: 0.0.0.0:80", 'unknown key "bind"; did you mean one of listen[].bind, admin.bind?'),
        ("port: 80", 'unknown key "port"; did you mean "listen[].bind"?'),
        ("certfile: a", 'unknown key "certfile"; did you mean "listen[].tls.certfile"?'),
        ("ssl_keyfile: a", 'unknown key "ssl_keyfile"; did you mean "listen[].tls.keyfile"?'),
        ("log_level: debug", 'unknown key "log_level"; did you mean "log.level"?'),
        ("timeout: 30", 'unknown key "timeout"; did you mean one of timeouts, workers.heartbeat_timeout?'),
        ("user: me", 'unknown key "user"; did you mean "process.user"?'),
        ("app-dir: me", 'unknown key "app-dir"; did you mean "app_dir"?'),
        ("nonsense: me", 'unknown key "nonsense"'),
        ("timeouts: {max_requests: 5}", 'timeouts: unknown key "max_requests"; did you mean "workers.max_requests"?'),
        ("reload: true", "reload: expected a mapping of keys, got true; did you mean {enabled: true}?"),
        ("workers: 4", "workers: expected a mapping of keys, got 4; did you mean {count: 4}?"),
        ("worker_class: sync", 'unknown key "worker_class"; did you mean "loop"?'),
        ("threads: 3", 'unknown key "threads"'),
        ("listen: a:80", 'listen: expected a list, got "a:80"; did you mean [{bind: "a:80"}]?'),
        ("listen: [a:80]", 'listen[0]: expected a mapping of keys, got "a:80"; did you mean {bind: "a:80"}?'),
        (
            "listen: [{bind: a:1, http: h2}]",
            'listen[0].http: expected a list, got "h2"; did you mean ["h2"]?',
        ),
    ],
)
def test_what_somebody_may_have_meant(problems: Problems, text: str, hint: str) -> None:
    assert [line.split(": ", 1)[1] for line in problems(text)] == [hint]


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("timeouts: {write: 30 sec}", "d, h, m, s, ms"),
        ("timeouts: {write: 1w}", "d, h, m, s, ms"),
        ("limits: {body_size: 64kb}", "B, KiB, MiB, GiB, TiB, KB, MB, GB, TB"),
        ("limits: {body_size: 5M}", "B, KiB, MiB, GiB, TiB, KB, MB, GB, TB"),
    ],
)
def test_a_wrong_unit_tells_the_right_ones(problems: Problems, text: str, units: str) -> None:
    (line,) = problems(text)
    assert line.endswith(f"; the units are {units}")
