"""Keys that name somebody outside: proxies, hosts, fields, and where metrics and log lines go."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from asgiri.cli.check import Findings, check_proxies, check_system_logs
from asgiri.config.load import load
from asgiri.config.schema import AccessLog, Config, Log, Proxy
from asgiri.errors import ConfigError
from asgiri.log_target import Syslog, is_path, is_syslog, parse_syslog
from asgiri.proto.trust import Trusted

Problems = Callable[[str], list[str]]

PEER = 'expected an address, a network such as 10.0.0.0/8, "unix" or "*"'
HOST = "expected a host name, *.example.org, an IPv4 address or an IPv6 one in brackets"
RECEIVER = "expected HOST:PORT, [V6]:PORT or unix:PATH"
SYSLOG = "expected syslog:, syslog:/PATH or syslog:HOST:PORT"


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Problems:
    """What is wrong with the text of ./asgiri.yaml, without the name of the file."""
    monkeypatch.chdir(tmp_path)

    def lines(text: str) -> list[str]:
        Path("asgiri.yaml").write_text(text, "utf-8")
        try:
            load(None, {})
        except ConfigError as error:
            return [str(problem).removeprefix("asgiri.yaml:") for problem in error.problems]
        return []

    return lines


GOOD_PEERS = ("127.0.0.1", "10.0.0.0/8", "10.0.0.0/255.0.0.0", "::1", "fd00::/8", "unix", "*", "0.0.0.0/0", "::/0")


@pytest.mark.parametrize("entry", GOOD_PEERS)
def test_a_peer_that_is_trusted(problems: Problems, entry: str) -> None:
    assert problems(f"proxy: {{trusted: ['{entry}']}}") == []
    assert Trusted([entry])


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("10.0.0.1/8", f'{PEER}, got "10.0.0.1/8"; did you mean "10.0.0.0/8"?'),
        ("fd00::1/8", f'{PEER}, got "fd00::1/8"; did you mean "fd00::/8"?'),
        ("10.0.0.0/33", f'{PEER}, got "10.0.0.0/33"'),
        ("010.0.0.1", f'{PEER}, got "010.0.0.1"'),
        ("10.0.0", f'{PEER}, got "10.0.0"'),
        ("", f'{PEER}, got ""'),
        ("proxy.internal", f'{PEER}, got "proxy.internal"; names are not looked up'),
        ("[::1]", f'{PEER}, got "[::1]"; did you mean "::1"?'),
        ("10.0.0.1:80", f'{PEER}, got "10.0.0.1:80"'),
        ("unix:/run/a", f'{PEER}, got "unix:/run/a"; "unix" stands for every peer on a unix socket'),
        ("fe80::1%eth0", f'{PEER}, got "fe80::1%eth0"; leave the interface (%...) out'),
        ("::ffff:10.0.0.1", 'an IPv4 peer is known by its own address; did you mean "10.0.0.1"?'),
        ("::ffff:10.0.0.0/104", 'an IPv4 peer is known by its own address; did you mean "10.0.0.0/8"?'),
    ],
)
def test_a_peer_that_is_none(problems: Problems, entry: str, error: str) -> None:
    assert problems(f"proxy:\n  trusted: [unix, '{entry}']") == [f"2:19: proxy.trusted[1]: {error}"]


@pytest.mark.parametrize(
    ("bind", "trusted", "missing"),
    [
        ("a:1", "[]", "proxy.trusted (asgiri.yaml:2) has none of them; put the addresses of the proxies there"),
        ("a:1", "[unix]", "proxy.trusted (asgiri.yaml:2) has none of them; put the addresses of the proxies there"),
        ("unix:a", "['::1']", 'proxy.trusted (asgiri.yaml:2) has none of them; put "unix" there'),
        ("fd:7", "[]", "proxy.trusted (asgiri.yaml:2) has none of them; put the proxies there"),
    ],
)
def test_a_listener_that_nobody_could_connect_to(problems: Problems, bind: str, trusted: str, missing: str) -> None:
    text = f"listen: [{{proxy_protocol: v2, bind: '{bind}'}}]\nproxy: {{trusted: {trusted}}}"
    what = f"nobody could connect to {bind}: only trusted peers may, and"
    assert problems(text) == [f"1:27: listen[0].proxy_protocol: {what} {missing}"]


@pytest.mark.parametrize(
    ("bind", "trusted"), [("a:1", "[10.0.0.1]"), ("a:1", "['*']"), ("unix:a", "[unix]"), ("unix:a", "['*']")]
)
def test_a_listener_that_proxies_can_connect_to(problems: Problems, bind: str, trusted: str) -> None:
    assert problems(f"listen: [{{proxy_protocol: any, bind: '{bind}'}}]\nproxy: {{trusted: {trusted}}}") == []


def test_without_a_word_on_proxies_the_default_is_named(problems: Problems) -> None:
    [error] = problems("listen: [{bind: 'a:1', proxy_protocol: v1}]")
    assert "proxy.trusted (the default) has none of them" in error


def test_fields_that_are_taken_from_nobody_are_worth_a_warning() -> None:
    findings = Findings({"proxy.headers": "asgiri.yaml:3"})
    check_proxies(Config(proxy=Proxy(headers="forwarded")), findings)
    what = "these fields are taken from no peer, and stripped from all requests: proxy.trusted is empty"
    assert [str(warning) for warning in findings.warnings] == [f"asgiri.yaml:3: proxy.headers: {what}"]
    findings = Findings({})
    check_proxies(Config(proxy=Proxy(headers="forwarded", trusted=("unix",))), findings)
    check_proxies(Config(), findings)
    assert not findings.warnings


@pytest.mark.parametrize(
    "entry", ["example.org", "*.example.org", "localhost", "a_b.c", "127.0.0.1", "[::1]", "XN--A.b"]
)
def test_a_host_that_is_allowed(problems: Problems, entry: str) -> None:
    assert problems(f"allowed_hosts: ['{entry}']") == []


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("example.org:80", f'{HOST}, got "example.org:80"; ports are not looked at: did you mean "example.org"?'),
        ("[::1]:80", f'{HOST}, got "[::1]:80"; ports are not looked at: did you mean "[::1]"?'),
        ("::1", f'{HOST}, got "::1"; did you mean "[::1]"?'),
        ("*", f'{HOST}, got "*"; all hosts are allowed where the list is empty'),
        (".example.org", f'{HOST}, got ".example.org"; did you mean "*.example.org"?'),
        ("example.org.", f'{HOST}, got "example.org."; did you mean "example.org"?'),
        ("https://example.org", f'{HOST}, got "https://example.org"; without a scheme'),
        ("a.*.org", f'{HOST}, got "a.*.org"'),
        ("müller.de", f'{HOST}, got "müller.de"; beyond ASCII, as DNS has it (xn--...)'),
        ("[::x]", 'expected an IPv6 address in the brackets, got "[::x]"'),
        ("", f'{HOST}, got ""'),
    ],
)
def test_a_host_that_is_none(problems: Problems, entry: str, error: str) -> None:
    assert problems(f"allowed_hosts: ['{entry}']") == [f"1:17: allowed_hosts[0]: {error}"]


def test_a_host_that_is_there_twice(problems: Problems) -> None:
    assert problems("allowed_hosts: [a.b, A.b]") == [
        '1:22: allowed_hosts[1]: "A.b" and "a.b" are the same host',
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{header: 'X Y'}", 'header: expected the name of a header field, a token of RFC 9110, got "X Y"'),
        ("{header: ''}", 'header: expected the name of a header field, a token of RFC 9110, got ""'),
        ("{header: TE}", "header: the field TE says what the message is, and cannot name a request"),
        ("{header: Host}", "header: the field Host says what the message is, and cannot name a request"),
        ("{header: Forwarded}", "header: the field Forwarded says who the client is, and cannot name a request"),
        (
            "{header: X-Forwarded-For}",
            "header: the field X-Forwarded-For says who the client is, and cannot name a request",
        ),
        (
            "{answer: true, header: null}",
            "answer: there is no field to send it in: request_id.header (asgiri.yaml:1) is null",
        ),
    ],
)
def test_a_request_id_that_cannot_be(problems: Problems, text: str, error: str) -> None:
    [found] = problems(f"request_id: {text}")
    assert found.partition("request_id.")[2] == error


@pytest.mark.parametrize("text", ["{header: null}", "{header: x-trace, answer: true}", "{answer: true}"])
def test_a_request_id_that_can_be(problems: Problems, text: str) -> None:
    assert problems(f"request_id: {text}") == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{address: localhost}", f'address: {RECEIVER}, got "localhost"'),
        ("{address: 'fd:3'}", f'address: {RECEIVER}, got "fd:3"'),
        ("{address: 'systemd:a'}", f'address: {RECEIVER}, got "systemd:a"'),
        ("{address: 'a:0'}", 'address: expected a port from 1 to 65535, got "0"'),
        ("{address: 'a:x'}", 'address: expected a port from 0 to 65535, got "x"'),
        ("{address: 'unix:'}", 'address: expected a path after "unix:"'),
        ("{address: 'a:1', prefix: 'a:b'}", 'prefix: expected letters, digits, ".", "_" and "-", got "a:b"'),
        (
            "{address: 'a:1', interval: 0}",
            "interval: expected 100ms or more, got 0s; without an address nothing is sent",
        ),
    ],
)
def test_a_receiver_of_metrics_that_cannot_be(problems: Problems, text: str, error: str) -> None:
    [found] = problems(f"metrics: {{statsd: {text}}}")
    assert found.partition("metrics.statsd.")[2] == error


def test_metrics_that_are_pushed_are_counted_first(problems: Problems) -> None:
    off = "metrics.enabled (asgiri.yaml:1) is false"
    assert problems("metrics: {enabled: false, statsd: {address: 'a:1'}}") == [
        f"1:45: metrics.statsd.address: there is nothing to send: {off}",
    ]
    assert problems("metrics: {enabled: false}\n") == problems("metrics: {statsd: {address: 'unix:/a'}}") == []


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("syslog", Syslog(path="/dev/log")),
        ("syslog:", Syslog(path="/dev/log")),
        ("syslog:/run/log", Syslog(path="/run/log")),
        ("syslog:192.0.2.1:514", Syslog(host="192.0.2.1", port=514)),
        ("syslog:logs.internal:6514", Syslog(host="logs.internal", port=6514)),
        ("syslog:[2001:db8::1]:514", Syslog(host="2001:db8::1", port=514)),
    ],
)
def test_a_system_log(problems: Problems, target: str, found: Syslog) -> None:
    assert is_syslog(target)
    assert not is_path(target)
    assert parse_syslog(target) == found
    assert problems(f"log: {{file: '{target}', access: {{file: '{target}'}}}}") == []


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("syslog:run/log", f'{SYSLOG}, got "syslog:run/log"; the path of a socket is absolute'),
        ("syslog:host", f'{SYSLOG}, got "syslog:host"'),
        ("syslog:::1:514", f'{SYSLOG}, got "syslog:::1:514"; an IPv6 address stands in brackets'),
        ("syslog:host:0", 'expected a port from 1 to 65535, got "0"'),
        ("syslog:host:99999", 'expected a port from 1 to 65535, got "99999"'),
        (f"syslog:/{'a' * 107}", "expected a socket path of 107 bytes at most, got 108 bytes"),
    ],
)
def test_a_system_log_that_is_none(problems: Problems, target: str, error: str) -> None:
    assert problems(f"log: {{access: {{file: '{target}'}}}}") == [f"1:22: log.access.file: {error}"]


def test_a_system_log_that_is_not_there_is_worth_a_warning(tmp_path: Path) -> None:
    target = f"syslog:{tmp_path}/log"
    findings = Findings({})
    check_system_logs(Config(log=Log(file=target, access=AccessLog(file=target))), findings)
    why = f'there is no system log at "{tmp_path}/log": lines are lost until there is one'
    assert [str(warning) for warning in findings.warnings] == [f"log.file: {why}", f"log.access.file: {why}"]
    findings = Findings({})
    check_system_logs(Config(log=Log(access=AccessLog(file=target, enabled=False))), findings)
    check_system_logs(Config(log=Log(file="syslog:192.0.2.1:514")), findings)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{tmp_path}/log")
        check_system_logs(Config(log=Log(file=target)), findings)
    assert not findings.warnings


def test_a_file_may_be_called_syslog() -> None:
    assert is_path("./syslog")
    assert is_path("/var/log/syslog")
    assert is_path("syslogs")
    assert not is_path("-")
