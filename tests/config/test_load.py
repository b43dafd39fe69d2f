"""Loading: what is read as what, what goes over what, and the exact words of every refusal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.config.load import Found, Loaded, Setting, find_file, load
from asgiri.config.schema import (
    AccessLog,
    Config,
    Http2,
    Limits,
    Listen,
    Log,
    Process,
    RespawnBackoff,
    SniPair,
    Timeouts,
    Tls,
    Workers,
)
from asgiri.config.settings import variables
from asgiri.errors import ConfigError, Problem

DURATION = 'expected a duration such as "30s", "5m", "1h30m" or a number of seconds'
SIZE = 'expected a size such as "64KiB", "16MiB" or a number of bytes'
COUNT = 'expected a number of 1 or more or "auto"'
BIND = "expected HOST:PORT, [V6]:PORT, unix:PATH, fd:N or systemd[:NAME]"
LOOP = 'expected "auto", "uvloop" or "asyncio"'
NO_MAPPING = "expected a mapping of keys, got 5; did you mean {count: 5}?"
QUOTES = "a text that looks like this stands in quotes"
NO_NAME = "is no name of a server: expected example.org or *.example.org"
OUT_OF_RANGE = " not valid YAML: a character escape or version number is out of range"

Environ = dict[str, str]
Load = Callable[..., Loaded]
Problems = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], None]:
    """Writes ./asgiri.yaml."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str | bytes) -> None:
        Path("asgiri.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())

    return write_file


@pytest.fixture
def loaded(write: Callable[[str | bytes], None]) -> Load:
    """Loads ./asgiri.yaml with the given text."""

    def load_text(text: str | bytes = "", environ: Environ | None = None, flags: Sequence[Setting] = ()) -> Loaded:
        write(text)
        return load(None, environ or {}, flags)

    return load_text


@pytest.fixture
def problems(loaded: Load) -> Callable[..., list[str]]:
    """The lines of the ConfigError that the given text, environment and flags make."""

    def lines(*arguments: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(*arguments)
        return [str(problem) for problem in caught.value.problems]

    return lines


# What is read.


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# nothing\n", "---\n", "{}", "null", "~", "\ufeff", "workers:\nlisten:\nenv:"]
)
def test_an_empty_file_is_the_default_config(loaded: Load, text: str) -> None:
    found = loaded(text)
    assert found == Loaded(Config(), Found(Path("asgiri.yaml")), {}, {})


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("app: a.b:c", Config(app="a.b:c")),
        ("app: null", Config()),
        ('app: ""', Config(app="")),
        ("app_dir: 1.20", Config(app_dir="1.20")),
        ("app_dir: 0x1F", Config(app_dir="0x1F")),
        ("app_dir: 2026-11-23", Config(app_dir="2026-11-23")),
        ('app_dir: "null"', Config(app_dir="null")),
        ("app_dir: no", Config(app_dir="no")),
        ("app_dir: |\n  a\n", Config(app_dir="a\n")),
        ("factory: true", Config(factory=True)),
        ("factory: YES", Config(factory=True)),
        ("factory: on", Config(factory=True)),
        ('factory: "true"', Config(factory=True)),
        ("date_header: off", Config(date_header=False)),
        ("date_header: No", Config(date_header=False)),
        ("lifespan: off", Config(lifespan="off")),
        ("lifespan: on", Config(lifespan="on")),
        ("workers: {count: 4}", Config(workers=Workers(count=4))),
        ("workers: {count: auto}", Config(workers=Workers(count="auto"))),
        ("timeouts: {write: 90}", Config(timeouts=Timeouts(write=90.0))),
        ("timeouts: {write: 1m30s}", Config(timeouts=Timeouts(write=90.0))),
        ("timeouts: {write: 0}", Config(timeouts=Timeouts(write=0.0))),
        ("workers: {respawn_backoff: {first: 1s}}", Config(workers=Workers(respawn_backoff=RespawnBackoff(first=1.0)))),
        ("process: {umask: 027}", Config(process=Process(umask=0o27))),
        ('process: {umask: "0o077"}', Config(process=Process(umask=0o77))),
        ("process: {umask: 0}", Config(process=Process(umask=0))),
        ("env: {A: 1, B: '', C: x}", Config(env={"A": "1", "B": "", "C": "x"})),
        ("env: {1: x, on: y, null: z}", Config(env={"1": "x", "on": "y", "null": "z"})),
        ("response_headers: {X-A: a b}", Config(response_headers={"X-A": "a b"})),
        ("log: {access: {enabled: false}}", Config(log=Log(access=AccessLog(enabled=False)))),
        ("log: {access: {format: combined}}", Config(log=Log(access=AccessLog(format="combined")))),
        ("log: {access: {format: '{{{status}'}}", Config(log=Log(access=AccessLog(format="{{{status}")))),
        ("listen: [{bind: '[::1]:80', backlog: 1}]", Config(listen=(Listen(bind="[::1]:80", backlog=1),))),
        (
            "listen: [{bind: 'unix:a', mode: 0660, owner: 0}]",
            Config(listen=(Listen(bind="unix:a", mode=0o660, owner="0"),)),
        ),
        ("listen: [{bind: a:0}, {bind: a:0}]", Config(listen=(Listen(bind="a:0"), Listen(bind="a:0")))),
        ("listen: [{bind: a:1, tls: null, name: null}]", Config(listen=(Listen(bind="a:1"),))),
        ("interface: wsgi", Config(interface="wsgi")),
        ("limits: {requests: 9}", Config(limits=Limits(requests=9))),
        ("limits: {connections: 9}", Config(limits=Limits(connections=9))),
        ("timeouts: {tls_handshake: 1m}", Config(timeouts=Timeouts(tls_handshake=60.0))),
        ("listen: [{bind: a:1, tls: {certfile: b}}]", Config(listen=(Listen(bind="a:1", tls=Tls(certfile="b")),))),
        (
            "listen: [{bind: a:1, tls: {certfile: b, sni: {}, watch: false, client_certs: optional, client_ca: c}}]",
            Config(
                listen=(Listen(bind="a:1", tls=Tls(certfile="b", watch=False, client_certs="optional", client_ca="c")),)
            ),
        ),
        ("listen: [{bind: a:1}]", Config(listen=(Listen(bind="a:1", http=("h2", "http/1.1")),))),
        (
            "listen: [{bind: a:1, http: [http/1.1, h2], proxy_protocol: off}]",
            Config(listen=(Listen(bind="a:1", http=("http/1.1", "h2")),)),
        ),
        (
            (
                "http2: {engine: h2, max_concurrent_streams: 1, initial_window: 1KiB, max_frame_size: 16777215,"
                " max_header_list: 0, h2c_upgrade: on}"
            ),
            Config(
                http2=Http2(
                    engine="h2",
                    max_concurrent_streams=1,
                    initial_window=1024,
                    max_frame_size=16777215,
                    max_header_list=0,
                    h2c_upgrade=True,
                )
            ),
        ),
        (
            (
                "listen: [{bind: a:1, tls: {certfile: b, sni: {"
                "A.example: {certfile: c, keyfile: d}, '*.xn--bcher-kva.example': {certfile: e, keyfile: f}}}}]"
            ),
            Config(
                listen=(
                    Listen(
                        bind="a:1",
                        tls=Tls(
                            certfile="b",
                            sni={
                                "A.example": SniPair(certfile="c", keyfile="d"),
                                "*.xn--bcher-kva.example": SniPair(certfile="e", keyfile="f"),
                            },
                        ),
                    ),
                )
            ),
        ),
    ],
)
def test_values_are_read_by_the_type_that_the_schema_wants(loaded: Load, text: str, config: Config) -> None:
    assert loaded(text).config == config


@pytest.mark.parametrize(
    "text",
    [
        "listen: [{bind: a:1, http: [http/1.1], proxy_protocol: off}]",
        "workers: {heartbeat_timeout: 0, drain_delay: 0s, max_requests: 0, max_memory: 0}",
        "http1: {engine: h11}",
        "proxy: {trusted: [], headers: none}",
        "reload: {enabled: false}",
        "admin: {bind: null}",
        "control: {socket: ~}",
        "process: {user: null, group: null}",
        "admin:\nreload: {}",
    ],
)
def test_what_does_not_exist_yet_may_be_turned_off(loaded: Load, text: str) -> None:
    loaded(text)


def test_origins_name_the_place_of_every_key_that_was_given(loaded: Load) -> None:
    text = "app: a:b\nworkers:\n  count: 2\n  boot_timeout: 1s\nlisten:\n  - bind: a:1\nenv:\n  A: b\n"
    environ = {"ASGIRI_TIMEOUTS__WRITE": "3s", "WEB_CONCURRENCY": "3"}
    flags = [Setting("--loop", "loop", "asyncio")]
    assert loaded(text, environ, flags).origins == {
        "app": "asgiri.yaml:1",
        "workers.count": "WEB_CONCURRENCY",
        "workers.boot_timeout": "asgiri.yaml:4",
        "listen": "asgiri.yaml:6",
        "listen[0].bind": "asgiri.yaml:6",
        "env": "asgiri.yaml:8",
        "env.A": "asgiri.yaml:8",
        "timeouts.write": "ASGIRI_TIMEOUTS__WRITE",
        "loop": "--loop",
    }


# What is refused in a file, in these words.


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("workers: {count: two}", f'1:18: workers.count: {COUNT}, got "two"'),
        ("workers: {count: 0}", f"1:18: workers.count: {COUNT}, got 0"),
        ("workers: {count: 010}", f"1:18: workers.count: {COUNT}, got 010"),
        ("workers: {count: 1.5}", f"1:18: workers.count: {COUNT}, got 1.5"),
        ("workers: {count: }", f"1:17: workers.count: {COUNT}, got null"),
        ("workers: {count: true}", f"1:18: workers.count: {COUNT}, got true"),
        ("workers: {count: [1]}", f"1:18: workers.count: {COUNT}, got a list"),
        ("workers: 5", f"1:10: workers: {NO_MAPPING}"),
        ("wrokers: {}", '1:1: unknown key "wrokers"; did you mean "workers"?'),
        ("workers:\n  cuont: 1", '2:3: workers: unknown key "cuont"; did you mean "count"?'),
        ("xyzzy: 1", '1:1: unknown key "xyzzy"'),
        ("factory: maybe", '1:10: factory: expected true or false, got "maybe"'),
        ("loop: off", f'1:7: loop: {LOOP}, got "off"'),
        ("root_path: true", f"1:12: root_path: expected a text, got true; {QUOTES}"),
        ("root_path: {}", "1:12: root_path: expected a text, got a mapping"),
        ('app_dir: "a\\0b"', "1:10: app_dir: expected a text, got a text with a NUL or a lone surrogate"),
        ('app_dir: "\\ud800"', "1:10: app_dir: expected a text, got a text with a NUL or a lone surrogate"),
        ("timeouts: {write: -1}", f'1:19: timeouts.write: {DURATION}, got "-1"'),
        ("timeouts: {write: true}", f"1:19: timeouts.write: {DURATION}, got true"),
        (
            "limits: {body_size: 1.1KiB}",
            f'1:21: limits.body_size: {SIZE}, got "1.1KiB", which is no whole number of bytes',
        ),
        ("limits: {header_count: -1}", "1:24: limits.header_count: expected a number of 0 or more, got -1"),
        ("listen: a:1", '1:9: listen: expected a list, got "a:1"; did you mean [{bind: "a:1"}]?'),
        ("listen: {bind: a:1}", '1:9: listen: expected a list, got a mapping; each entry of a list begins with "- "'),
        ("reload: {include: x}", '1:19: reload.include: expected a list, got "x"; did you mean ["x"]?'),
        ("listen: []", "1:9: listen: expected a list with at least one entry, got an empty one"),
        ("listen: [a:1]", '1:10: listen[0]: expected a mapping of keys, got "a:1"; did you mean {bind: "a:1"}?'),
        ("listen: [null]", "1:10: listen[0]: expected a mapping of keys, got null"),
        ("listen: [{}]", '1:10: listen[0]: the key "bind" is missing'),
        ("listen: [{bind: a}]", f'1:17: listen[0].bind: {BIND}, got "a"'),
        ("listen: [{bind: a:1, backlog: 0}]", "1:31: listen[0].backlog: expected a number from 1 to 65535, got 0"),
        (
            "listen: [{bind: a:1, http: []}]",
            "1:28: listen[0].http: expected a list with at least one entry, got an empty one",
        ),
        ("listen: [{bind: 'unix:a', mode: 8}]", '1:33: listen[0].mode: expected an octal mode such as "0660", got "8"'),
        (
            "listen: [{bind: a:1, mode: 0660}]",
            "1:28: listen[0].mode: only a unix socket with a file has one, and a:1 is none",
        ),
        (
            "listen: [{bind: 'unix:@a', mode: 0660}]",
            "1:34: listen[0].mode: only a unix socket with a file has one, and unix:@a is none",
        ),
        (
            "listen: [{bind: 'systemd:a', name: b}]",
            '1:36: listen[0].name: bind takes the sockets named "a" already',
        ),
        (
            "listen: [{bind: a:1, name: b}, {bind: 'systemd:b'}]",
            '1:39: listen[1].bind: the sockets named "b" are those of listen[0] already',
        ),
        (
            "listen: [{bind: systemd, name: b}, {bind: a:1, name: b}]",
            '1:54: listen[1].name: the sockets named "b" are those of listen[0] already',
        ),
        (
            "listen: [{bind: a:1, name: 'a:b'}]",
            '1:28: listen[0].name: expected a FileDescriptorName, without a colon and at most 255 long, got "a:b"',
        ),
        (
            "listen: [{bind: 'fd:3', owner: x}]",
            "1:32: listen[0].owner: only a unix socket with a file has one, and fd:3 is none",
        ),
        ("listen: [{bind: a:1, tls: {}}]", '1:27: listen[0].tls: the key "certfile" is missing'),
        (
            "listen: [{bind: a:1, tls: {certfile: b, min_version: 1.1}}]",
            '1:54: listen[0].tls.min_version: expected "1.2" or "1.3", got 1.1',
        ),
        (
            "listen: [{bind: a:1, tls: {certfile: b, client_ca: c}}]",
            "1:52: listen[0].tls.client_ca: nobody is asked for a certificate: client_certs is none",
        ),
        (
            "listen: [{bind: a:1, tls: {certfile: b, client_certs: required}}]",
            "1:55: listen[0].tls.client_certs: this needs client_ca, the authorities that the certificates come from",
        ),
        (
            "listen:\n- bind: LOCALHOST:1\n- bind: localhost:01",
            "3:9: listen[1].bind: localhost:1 is bound already, by listen[0].bind (asgiri.yaml:2)",
        ),
        (
            "workers: {respawn_backoff: {first: 1m, most: 2s}}",
            "1:36: workers.respawn_backoff.first: first (1m) is longer than most (2s)",
        ),
        (
            "workers: {respawn_backoff: {most: 50ms}}",
            "1:35: workers.respawn_backoff.most: first (100ms) is longer than most (50ms)",
        ),
        ("listen: [{bind: a:1, http: [h2, h2]}]", "1:28: listen[0].http: h2 is there twice"),
        ("listen: [{bind: a:1, http: [h3]}]", '1:29: listen[0].http[0]: expected "h2" or "http/1.1", got "h3"'),
        (
            "http2: {max_concurrent_streams: 0}",
            "1:33: http2.max_concurrent_streams: expected a number from 1 to 2147483647, got 0",
        ),
        ("http2: {initial_window: 0}", "1:25: http2.initial_window: expected 1KiB to 2147483647 bytes, got 0"),
        ("http2: {initial_window: 2GiB}", "1:25: http2.initial_window: expected 1KiB to 2147483647 bytes, got 2GiB"),
        ("http2: {max_frame_size: 1KiB}", "1:25: http2.max_frame_size: expected 16KiB to 16777215 bytes, got 1KiB"),
        ("http2: {max_frame_size: 16MiB}", "1:25: http2.max_frame_size: expected 16KiB to 16777215 bytes, got 16MiB"),
        *[
            (
                f"listen: [{{bind: a:1, tls: {{certfile: x, sni: {{'{name}': {{certfile: y, keyfile: z}}}}}}}}]",
                f'1:46: listen[0].tls.sni: "{name}" {NO_NAME}{more}',
            )
            for name, more in (
                ("", ""),
                ("*", ""),
                ("a.*", ""),
                ("*a.example", ""),
                ("example.org.", ""),
                ("a b", ""),
                ("[::1]", ""),
                ("bücher.example", "; beyond ASCII, as DNS has it (xn--...)"),
            )
        ],
        (
            (
                "listen: [{bind: a:1, tls: {certfile: x, sni: {"
                "a: {certfile: y, keyfile: z}, A: {certfile: y, keyfile: z}}}}]"
            ),
            '1:46: listen[0].tls.sni: "A" and "a" are the same name',
        ),
        (
            "listen: [{bind: a:1, tls: {certfile: x, sni: {a: {certfile: y}}}}]",
            '1:50: listen[0].tls.sni.a: the key "keyfile" is missing',
        ),
        ("process: {umask: 8}", '1:18: process.umask: expected an octal mode such as "0660", got "8"'),
        ("env: [a]", "1:6: env: expected a mapping of names to values, got a list"),
        ("env: {A: null}", f"1:10: env.A: expected a text, got null; {QUOTES}"),
        ("env: {a=b: c}", "1:12: env.a=b: expected the name of a variable, which is not empty and has no ="),
        ('env: {"a\\0": c}', "1:7: env: expected a name, got a text with a NUL or a lone surrogate"),
        (
            "response_headers: {a b: c}",
            "1:25: response_headers.a b: expected the name of a header field, a token of RFC 9110",
        ),
        (
            'response_headers: {a: "b\\nc"}',
            "1:23: response_headers.a: expected a field value, Latin-1 without control characters or outer blanks",
        ),
        (
            "response_headers: {X-A: b, x-a: c}",
            '1:33: response_headers.x-a: "x-a" and "X-A" are the same field',
        ),
        (
            "response_headers: {Content-Length: 1}",
            "1:36: response_headers.Content-Length: this field frames the message, and is the server's own",
        ),
        (
            "log: {access: {format: txt}}",
            '1:24: log.access.format: neither format nor template with a {placeholder}: "txt"; did you mean "text"?',
        ),
        (
            "log: {access: {format: '{statsu} {path}'}}",
            '1:24: log.access.format: unknown placeholder "statsu"; did you mean "status"?',
        ),
        (
            "log: {access: {format: 'a } b'}}",
            '1:24: log.access.format: a single "}": a brace that stands for itself is doubled',
        ),
        ('"a\\nb\\e": 1', r'1:1: unknown key "a\nb\x1b"'),
    ],
)
def test_a_wrong_value(problems: Problems, text: str, error: str) -> None:
    assert problems(text) == [f"asgiri.yaml:{error}"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("- 1", "1:1: expected a mapping of keys at the top, got a list"),
        ("hello", '1:1: expected a mapping of keys at the top, got "hello"'),
        ("app: a:b\n---\napp: c:d", "2:1: expected one document, found a second"),
        ("app: &x a", "1:6: anchors and aliases (& and *) are not supported"),
        ("app: *x", "1:6: anchors and aliases (& and *) are not supported"),
        ("app: !!str a", "1:6: tags (!) are not supported"),
        ("app: !!python/object/apply:os.abort []", "1:6: tags (!) are not supported"),
        ("<<: {app: a}", "1:1: merge keys (<<) are not supported"),
        ("? [a]\n: 1", "1:3: expected a text as the key, got a list"),
        ("a: " + "[" * 20 + "]" * 20, "1:20: nested more than 16 levels deep"),
        ("[" * 100_000, "1:18: nested more than 16 levels deep"),
        ("- \n" * 30_000, "20000:2: more than 20000 values"),
        (
            "app: a: b",
            (
                "1:7: not valid YAML: mapping values are not allowed here; look at the indentation, "
                'and for a colon without a blank above; a text with ": " in it stands in quotes'
            ),
        ),
        (
            "app: @a",
            (
                "1:6: not valid YAML: found character '@' that cannot start any token; a text that begins with it"
                " stands in quotes"
            ),
        ),
        (
            "listen:\n  - bind: a:1\n    name: b\n   http: [h2]",
            (
                "4:4: not valid YAML: expected <block end>, but found '<block mapping start>' (while parsing a block"
                " collection that begins on line 2); what belongs together is indented alike"
            ),
        ),
        (
            "listen:\n  - bind: [::]:8000",
            (
                "2:12: not valid YAML: expected the node content, but found ':'; a text that begins with a bracket"
                " stands in quotes"
            ),
        ),
        (
            "reload: {include: [*.py]}",
            (
                "1:21: not valid YAML: expected alphabetic or numeric character, but found '.'; a text that begins with"
                " * or & stands in quotes"
            ),
        ),
        (
            "app: 'it's'",
            (
                "1:10: not valid YAML: expected <block end>, but found '<scalar>'; nothing stands behind a closing"
                " quote or bracket; quotes go around a whole text"
            ),
        ),
        (
            "app: [a,\n b",
            (
                "2:3: not valid YAML: expected ',' or ']', but got '<stream end>'"
                " (while parsing a flow sequence that begins on line 1)"
            ),
        ),
        (
            'app: "a\n',
            (
                "2:1: not valid YAML: found unexpected end of stream"
                " (while scanning a quoted scalar that begins on line 1)"
            ),
        ),
        ("workers:\n\tcount: 1", "2:1: a tab cannot indent; use spaces"),
        ("workers:\n  \tcount: 1", "2:3: a tab cannot indent; use spaces"),
        ("app: a\nloop: \x07", "2:7: not valid YAML: character U+0007"),
        (b"app: a\nloop: \xff", "2:7: not UTF-8: byte 0xff"),
        ("app: a".encode("utf-16"), "1:1: not UTF-8: byte 0xff, as of UTF-16; save it as UTF-8"),
        ('app: "\\UFFFFFFFF"', OUT_OF_RANGE),
        ("%YAML 1." + "9" * 5000 + "\n---\n", OUT_OF_RANGE),
    ],
)
def test_what_is_not_the_plain_part_of_yaml(problems: Problems, text: str | bytes, error: str) -> None:
    assert problems(text) == [f"asgiri.yaml:{error}"]


def test_a_file_over_one_mebibyte_is_not_read(problems: Problems) -> None:
    assert problems("#" * (1 << 20) + "\n") == ['asgiri.yaml: "asgiri.yaml" is larger than 1MiB']


def test_a_key_given_twice(problems: Problems) -> None:
    text = "workers:\n  count: 1\n  count: 2\n  boot_timeout: 1s\n"
    assert problems(text) == ["asgiri.yaml:3:3: workers.count: given twice; the first is on line 2"]


def test_all_problems_are_told_at_once_in_the_order_of_the_file_then_environment_then_flags(problems: Problems) -> None:
    text = "workers:\n  count: two\n  count: 3\nwrokers: 1\nlisten:\n  - {bind: a, backlog: 0}\ntimeouts: {write: x}\n"
    environ = {"ASGIRI_LOOP": "x", "ASGIRI_WORKER__COUNT": "2"}
    flags = [Setting("--lifespan", "lifespan", "x"), Setting("--set", "wrokers.count", "4")]
    assert problems(text, environ, flags) == [
        f'asgiri.yaml:2:10: workers.count: {COUNT}, got "two"',
        "asgiri.yaml:3:3: workers.count: given twice; the first is on line 2",
        'asgiri.yaml:4:1: unknown key "wrokers"; did you mean "workers"?',
        f'asgiri.yaml:6:12: listen[0].bind: {BIND}, got "a"',
        "asgiri.yaml:6:24: listen[0].backlog: expected a number from 1 to 65535, got 0",
        f'asgiri.yaml:7:19: timeouts.write: {DURATION}, got "x"',
        'ASGIRI_WORKER__COUNT: no such variable; did you mean "ASGIRI_WORKERS__COUNT"?',
        f'ASGIRI_LOOP: loop: {LOOP}, got "x"',
        '--set: unknown key "wrokers.count"; did you mean "workers.count"?',
        '--lifespan: lifespan: expected "auto", "on" or "off", got "x"',
    ]


def test_a_message_is_a_line_whatever_the_file_holds(problems: Problems) -> None:
    (line,) = problems(f"loop: {'x' * 100_000}")
    assert len(line) < 400


# What goes over what.


@pytest.mark.parametrize(
    ("environ", "flags", "count"),
    [
        ({}, [], 2),
        ({"WEB_CONCURRENCY": "3"}, [], 3),
        ({"WEB_CONCURRENCY": ""}, [], 2),
        ({"WEB_CONCURRENCY": "3", "ASGIRI_WORKERS__COUNT": "4"}, [], 4),
        ({"ASGIRI_WORKERS": "{count: 5}"}, [], 5),
        ({"ASGIRI_WORKERS": "{count: 5}", "ASGIRI_WORKERS__COUNT": "4"}, [], 4),
        ({"WEB_CONCURRENCY": "3"}, [Setting("--workers", "workers.count", "auto")], "auto"),
        ({}, [Setting("--set", "workers.count", "6"), Setting("--set", "workers.count", "7")], 7),
    ],
)
def test_flags_go_over_environment_over_file(
    loaded: Load, environ: Environ, flags: list[Setting], count: int | str
) -> None:
    workers = loaded("workers: {count: 2, boot_timeout: 1s}", environ, flags).config.workers
    assert workers.count == count
    assert workers.boot_timeout == 1.0


@pytest.mark.parametrize(
    ("environ", "flags", "binds"),
    [
        ({}, [], ["a:1", "a:2"]),
        ({"PORT": "80"}, [], ["0.0.0.0:80"]),
        ({"PORT": ""}, [], ["a:1", "a:2"]),
        ({"PORT": "80", "ASGIRI_LISTEN": "[{bind: b:1}]"}, [], ["b:1"]),
        (
            {"PORT": "80", "ASGIRI_LISTEN": "[{bind: b:1}]"},
            [Setting("--bind", "listen", ("c:1", "unix:x"))],
            ["c:1", "unix:x"],
        ),
        ({"PORT": "x"}, [Setting("--bind", "listen", ("c:1",))], ["c:1"]),
    ],
)
def test_the_listeners_of_flag_environment_and_port(
    loaded: Load, environ: Environ, flags: list[Setting], binds: list[str]
) -> None:
    listen = loaded("listen: [{bind: a:1, backlog: 5}, {bind: a:2}]", environ, flags).config.listen
    assert [listener.bind for listener in listen] == binds


@pytest.mark.parametrize(
    ("environ", "config"),
    [
        ({"ASGIRI_APP": "a:b"}, Config(app="a:b")),
        ({"ASGIRI_APP": ""}, Config(app="file:app")),
        ({"ASGIRI_APP": "null"}, Config()),
        ({"ASGIRI_APP_DIR": "true"}, Config(app="file:app", app_dir="true")),
        ({"ASGIRI_FACTORY": "1"}, Config(app="file:app", factory=True)),
        ({"ASGIRI_ENV": "{A: b}"}, Config(app="file:app", env={"A": "b"})),
        ({"ASGIRI_LOG__FORMAT": "json"}, Config(app="file:app", log=Log(format="json"))),
        ({"ASGIRI_PROCESS__UMASK": "027"}, Config(app="file:app", process=Process(umask=0o27))),
        ({"ASGIRIX": "x", "HOME": "/"}, Config(app="file:app")),
    ],
)
def test_environment_variables_set_their_keys(loaded: Load, environ: Environ, config: Config) -> None:
    assert loaded("app: file:app", environ).config == config


def test_there_is_a_variable_for_every_key() -> None:
    names = variables()
    assert names["ASGIRI_WORKERS__RESPAWN_BACKOFF__FIRST"] == "workers.respawn_backoff.first"
    assert names["ASGIRI_LISTEN"] == "listen"


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"WEB_CONCURRENCY": "x"}, f'WEB_CONCURRENCY: workers.count: {COUNT}, got "x"'),
        ({"PORT": "http"}, 'PORT: listen[0].bind: expected a port from 0 to 65535, got "http"'),
        ({"ASGIRI_ENV": "{A: b"}, "ASGIRI_ENV: env: not valid YAML: expected ',' or '}', but got '<stream end>'"),
        ({"ASGIRI_ENV": "{A: b, A: c}"}, "ASGIRI_ENV: env.A: given twice"),
        (
            {"ASGIRI_LISTEN": "[{bind: a:1, proxy_protocol: v3}]"},
            'ASGIRI_LISTEN: listen[0].proxy_protocol: expected "off", "v1", "v2" or "any", got "v3"',
        ),
        ({"ASGIRI_WORKERS": "{cuont: 1}"}, 'ASGIRI_WORKERS: workers: unknown key "cuont"; did you mean "count"?'),
        (
            {"ASGIRI_WORKERS": "5"},
            f"ASGIRI_WORKERS: workers: {NO_MAPPING}",
        ),
        ({"ASGIRI_CONFIGS": "x"}, 'ASGIRI_CONFIGS: no such variable; did you mean "ASGIRI_CONFIG"?'),
        ({"ASGIRI_XYZZY__X": "x"}, "ASGIRI_XYZZY__X: no such variable"),
        ({"ASGIRI_Loop": "x"}, 'ASGIRI_Loop: no such variable; did you mean "ASGIRI_LOOP"?'),
        ({"ASGIRI_UDS": "x"}, 'ASGIRI_UDS: no such variable; did you mean "listen[].bind"?'),
        ({"ASGIRI_ENV__A": "x"}, "ASGIRI_ENV__A: no such variable; ASGIRI_ENV is for the whole map, as YAML"),
        (
            {"ASGIRI_LISTEN__0__BIND": "a:1"},
            "ASGIRI_LISTEN__0__BIND: no such variable; ASGIRI_LISTEN is for the whole list, as YAML",
        ),
    ],
)
def test_an_error_in_the_environment_names_the_variable(problems: Problems, environ: Environ, error: str) -> None:
    assert problems("", environ) == [error]


# What is there in every pod beside a Service of the name "asgiri", with a port named http; and of "asgiri-admin".
OF_SERVICES = {
    "ASGIRI_SERVICE_HOST": "10.0.0.11",
    "ASGIRI_SERVICE_PORT": "80",
    "ASGIRI_SERVICE_PORT_HTTP": "80",
    "ASGIRI_PORT": "tcp://10.0.0.11:80",
    "ASGIRI_PORT_80_TCP": "tcp://10.0.0.11:80",
    "ASGIRI_PORT_80_TCP_PROTO": "tcp",
    "ASGIRI_PORT_80_TCP_PORT": "80",
    "ASGIRI_PORT_80_TCP_ADDR": "10.0.0.11",
    "ASGIRI_ADMIN_SERVICE_HOST": "10.0.0.12",
    "ASGIRI_ADMIN_SERVICE_PORT": "9000",
    "ASGIRI_ADMIN_PORT": "tcp://10.0.0.12:9000",
    "ASGIRI_ADMIN_PORT_9000_TCP": "tcp://10.0.0.12:9000",
}


def test_variables_that_others_set_are_not_ours(loaded: Load) -> None:
    assert loaded("", {**OF_SERVICES, "ASGIRI_COMPILE": "0"}).config == Config()


def test_a_service_beside_does_not_hide_a_wrong_variable(problems: Problems) -> None:
    assert problems("", {**OF_SERVICES, "ASGIRI_PORTS": "1", "ASGIRI_LOPP": "x"}) == [
        'ASGIRI_LOPP: no such variable; did you mean "ASGIRI_LOOP"?',
        "ASGIRI_PORTS: no such variable",
    ]
    assert problems("", {"ASGIRI_PORT": "80"}) == ['ASGIRI_PORT: no such variable; did you mean "PORT"?']


def test_the_path_of_nothing_is_no_file() -> None:
    with pytest.raises(ConfigError, match=r"^--config: expected the path of a file, got nothing$"):
        load("", {})


@pytest.mark.parametrize(
    ("setting", "config"),
    [
        (Setting("--factory", "factory", True), Config(factory=True)),
        (Setting("--no-date", "date_header", False), Config(date_header=False)),
        (Setting("--root-path", "root_path", ""), Config()),
        (Setting("--set", "app", "null"), Config()),
        (Setting("--set", "env.A.b", "true"), Config(app="a:b", env={"X": "1", "A.b": "true"}, root_path="/x")),
        (Setting("--set", "env", "{A: b}"), Config(app="a:b", env={"A": "b"}, root_path="/x")),
        (Setting("--set", "timeouts", "{write: 3}"), Config(timeouts=Timeouts(write=3.0))),
    ],
)
def test_a_flag_sets_its_key(loaded: Load, setting: Setting, config: Config) -> None:
    text = "app: a:b\nroot_path: /x\nenv: {X: 1}"
    changed = setting.path.partition(".")[0]
    assert getattr(loaded(text, {}, [setting]).config, changed) == getattr(config, changed)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        (Setting("--workers", "workers.count", "x"), f'--workers: workers.count: {COUNT}, got "x"'),
        (Setting("--bind", "listen", ("a:1", "b")), f'--bind: listen[1].bind: {BIND}, got "b"'),
        (
            Setting("--bind", "listen", ("a:1", "a:1")),
            "--bind: listen[1].bind: a:1 is bound already, by listen[0].bind (--bind)",
        ),
        (Setting("--admin", "admin.bind", "a"), f'--admin: admin.bind: {BIND}, got "a"'),
        (Setting("--set", "listen[0].bind", "a:1"), '--set: unknown key "listen[0].bind"; did you mean "listen"?'),
        (Setting("--set", "app.x", "a:1"), '--set: unknown key "app.x"; did you mean "app"?'),
        (Setting("--set", "", "a:1"), '--set: unknown key ""'),
    ],
)
def test_an_error_in_a_flag_names_the_flag(problems: Problems, setting: Setting, error: str) -> None:
    assert problems("", {}, [setting]) == [error]


def test_a_flag_below_a_section_that_is_wrong_in_the_file_does_not_hide_that(problems: Problems) -> None:
    flags = [Setting("--workers", "workers.count", "2")]
    assert problems("workers: 5", {}, flags) == [f"asgiri.yaml:1:10: workers: {NO_MAPPING}"]


# Which file.


def test_which_file_is_read(tmp_path: Path) -> None:
    here, system = tmp_path / "here.yaml", tmp_path / "system.yaml"
    environ = {"ASGIRI_CONFIG": "from-environment"}
    assert find_file(None, {}, [here, system]) is None
    system.touch()
    assert find_file(None, {}, [here, system]) == Found(system)
    here.touch()
    assert find_file(None, {}, [here, system]) == Found(here)
    assert find_file(None, {"ASGIRI_CONFIG": ""}, [here, system]) == Found(here)
    assert find_file(None, environ, [here]) == Found(Path("from-environment"), "ASGIRI_CONFIG")
    assert find_file("from-flag", environ, [here]) == Found(Path("from-flag"), "--config")


def test_a_file_that_was_asked_for_and_is_missing_is_the_fault_of_who_asked(problems: Problems, tmp_path: Path) -> None:
    assert problems("", {"ASGIRI_CONFIG": "x.yaml"}) == [
        f'ASGIRI_CONFIG: cannot read "x.yaml": No such file or directory; looked in {Path.cwd()}'
    ]
    with pytest.raises(ConfigError) as caught:
        load(str(tmp_path), {"ASGIRI_CONFIG": "x.yaml", "ASGIRI_LOOP": "x"})
    assert str(caught.value).splitlines() == [
        f'ASGIRI_LOOP: loop: {LOOP}, got "x"',
        f'--config: cannot read "{tmp_path}": Is a directory',
    ]


# Whatever it is given, it answers, and soon.


YAML_MARKS = [
    ": ",
    "\n",
    "  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    '"',
    "'",
    "|",
    "&a ",
    "*a",
    "!!str ",
    "? ",
    "#",
    "\t",
    "\\",
]
YAML_WORDS = ["workers", "count", "listen", "bind", "a:80", "unix:x", "env", "null", "true", "1", "10s", "tls", "auto"]
YAML_PIECES = st.sampled_from([*YAML_MARKS, *YAML_WORDS, "%YAML 1.2\n", "---\n"])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load") / "any.yaml"


def load_any(file: Path, environ: Environ) -> tuple[Config, list[Problem]]:
    """The config and no problems, or the default config and the problems."""
    try:
        return load(str(file), environ).config, []
    except ConfigError as error:
        return Config(), error.problems


@settings(deadline=None)  # a disk may take its time
@given(data=st.text().map(str.encode) | st.binary() | st.lists(YAML_PIECES).map("".join).map(str.encode))
def test_any_file_is_a_config_or_a_config_error(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    config, problems = load_any(file, {})
    assert all("\n" not in str(problem) for problem in problems)
    assert msgspec.convert(msgspec.to_builtins(config), Config) == config


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(variables())),
    value=st.text(st.characters(exclude_characters="\0")) | st.lists(YAML_PIECES).map("".join),
)
def test_any_variable_is_a_config_or_a_config_error(file: Path, name: str, value: str) -> None:
    file.write_bytes(b"")
    _, problems = load_any(file, {name: value})
    assert all(problem.where == name for problem in problems)


@pytest.mark.parametrize(
    "text",
    ["a: 1\n" * 200_000, "- " * 500_000, "a: " + "x " * 500_000, f"env: {{{'a: 1, ' * 170_000}}}", "? " * 500_000],
    ids=["keys", "lists", "words", "pairs", "question marks"],
)
def test_a_large_file_is_refused_quickly(problems: Problems, text: str) -> None:
    started = time.monotonic()
    assert problems(text)
    assert time.monotonic() - started < 20  # seconds; some two on a usual machine
