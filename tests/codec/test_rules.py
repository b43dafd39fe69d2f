"""The verdicts that all engines share, by tables. What the engines make of them is in test_http1.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.codec import rules
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError, RemoteProtocolError
from asgiri.types import Headers

LIMITS = HttpLimits(request_line=20, header_count=2, header_size=20, body_size=8)
NO_LIMITS = HttpLimits(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("target", "path", "query", "authority"),
    [
        (b"/", b"/", b"", None),
        (b"/a/b", b"/a/b", b"", None),
        (b"/a?", b"/a", b"", None),
        (b"/a?b?c", b"/a", b"b?c", None),
        (b"/?b=/c", b"/", b"b=/c", None),
        (b"//a", b"//a", b"", None),
        (b"/http://a/", b"/http://a/", b"", None),
        (b"/%2e%2E/%00", b"/%2e%2E/%00", b"", None),
        (b"http://a", b"/", b"", b"a"),
        (b"http://a/", b"/", b"", b"a"),
        (b"https://a:1/b?c", b"/b", b"c", b"a:1"),
        (b"HTTP://A?c/d", b"/", b"c/d", b"A"),
        (b"http://[::1]:8000/", b"/", b"", b"[::1]:8000"),
        (b"http://a//b", b"//b", b"", b"a"),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes, authority: bytes | None) -> None:
    assert rules.split_target(b"GET", target) == (path, query, authority)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        (b"CONNECT", b"a:443", 501),
        (b"CONNECT", b"/", 501),
        (b"GET", b"*", 400),
        (b"OPTIONS", b"**", 400),
        (b"GET", b"", 400),
        (b"GET", b"a", 400),
        (b"GET", b"?a", 400),
        (b"GET", b"a:80", 400),
        (b"GET", b"http:", 400),
        (b"GET", b"http:/a", 400),
        (b"GET", b"http://", 400),
        (b"GET", b"http:///a", 400),
        (b"GET", b"http://?a", 400),
        (b"GET", b"http://u@a/", 400),
        (b"GET", b"http://u:p@a/", 400),
        (b"GET", b"http://a:b/", 400),
        (b"GET", b"http://[::1/", 400),
        (b"GET", b'http://a"b/', 400),
        (b"GET", b"http://a#b", 400),
        (b"GET", b"ws://a/", 400),
    ],
)
def test_targets_that_are_refused(method: bytes, target: bytes, status: int) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        rules.split_target(method, target)
    assert refusal.value.status == status


def test_the_asterisk_is_for_options() -> None:
    assert rules.split_target(b"OPTIONS", b"*") == (b"*", b"", None)


@given(st.binary(max_size=30))
def test_any_target_is_split_or_refused(target: bytes) -> None:
    try:
        path, query, _ = rules.split_target(b"GET", target)
    except RemoteProtocolError:
        return
    assert path.startswith(b"/")
    assert b"?" not in path
    assert target.endswith(path + (b"?" + query if b"?" in target else b"")) or path == b"/"


# (line, fields, status or None): at the limit, and one beyond it. A field counts four bytes more than its text.
@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        (20, [], None),
        (21, [], 414),
        (0, [(b"a", b""), (b"b", b"")], None),
        (0, [(b"a", b""), (b"b", b""), (b"c", b"")], 431),
        (0, [(b"a", b"v" * 15)], None),
        (0, [(b"a", b"v" * 16)], 431),
        (0, [(b"a", b"v" * 5), (b"b", b"v" * 5)], None),
        (0, [(b"a", b"v" * 5), (b"b", b"v" * 6)], 431),
        (21, [(b"a", b"v" * 16)], 414),
        (0, [(b"a", b"\t \x21\x7e\x80\xff")], None),
        *[(0, [(b"a", bytes([char]))], 400) for char in (0, 1, 8, 10, 13, 31, 127)],
    ],
)
def test_heads(line: int, headers: Headers, status: int | None) -> None:
    if status is None:
        rules.check_head(LIMITS, line, headers)
        return
    with pytest.raises(RemoteProtocolError) as refusal:
        rules.check_head(LIMITS, line, headers)
    assert refusal.value.status == status
    if status != 400:
        rules.check_head(NO_LIMITS, line, headers)


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        (b"1.0", "1.0"),
        (b"1.1", "1.1"),
        (b"1.2", "1.1"),
        (b"1.9", "1.1"),
        (b"0.9", None),
        (b"2.0", None),
        (b"3.0", None),
    ],
)
def test_versions(version: bytes, spoken: str | None) -> None:
    if spoken is not None:
        assert rules.check_version(version) == spoken
        return
    with pytest.raises(RemoteProtocolError) as refusal:
        rules.check_version(version)
    assert refusal.value.status == 505


@pytest.mark.parametrize(
    ("version", "hosts", "good"),
    [
        ("1.1", [], False),
        ("1.0", [], True),
        ("1.1", [b"a", b"a"], False),
        ("1.0", [b"a", b"b"], False),
        *[
            ("1.1", [host], True)
            for host in b" a A.b-c_d a: a:80 127.0.0.1:1 [::1] [fe80::1]:1 %C3%A9 a~!$&'()*+,;=".split(b" ")
        ],
        *[
            ("1.1", [host], False)
            for host in rb"a/ /a u@a a?b a#b a:b a:1:2 ::1 [::1 [::1]a a\b <a> http://a".split(b" ")
        ],
        *[("1.1", [host], False) for host in (b" ", b"a b", b"\xc3\xa9", b'"a"', b"a\n")],
    ],
)
def test_hosts(version: str, hosts: list[bytes], good: bool) -> None:
    headers: Headers = [(b"x", b"1"), *((b"host", host) for host in hosts)]
    if good:
        rules.check_host(version, headers)
        return
    with pytest.raises(RemoteProtocolError) as refusal:
        rules.check_host(version, headers)
    assert refusal.value.status == 400


CHUNKED = (b"transfer-encoding", b"chunked")


def length(size: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % size)


@pytest.mark.parametrize(
    ("version", "headers", "verdict"),
    [
        ("1.1", [], False),
        ("1.1", [length(0)], False),
        ("1.1", [length(1)], True),
        ("1.1", [length(8)], True),
        ("1.1", [length(9)], 413),
        ("1.1", [CHUNKED], True),
        ("1.1", [CHUNKED, length(0)], 400),
        ("1.1", [length(1), CHUNKED], 400),
        ("1.0", [length(1)], True),
        ("1.0", [CHUNKED], 400),
        ("1.0", [CHUNKED, length(1)], 400),
    ],
)
def test_framing(version: str, headers: Headers, verdict: bool | int) -> None:
    if isinstance(verdict, bool):
        assert rules.check_framing(version, headers, LIMITS) is verdict
        return
    with pytest.raises(RemoteProtocolError) as refusal:
        rules.check_framing(version, headers, LIMITS)
    assert refusal.value.status == verdict


def test_a_body_without_a_limit() -> None:
    assert rules.check_framing("1.1", [length(1 << 60)], NO_LIMITS)


def test_the_authority_takes_the_place_of_every_host() -> None:
    headers: Headers = [(b"x", b"1"), (b"host", b"b"), (b"y", b"2")]
    assert rules.with_authority(headers, b"a:1") == [(b"host", b"a:1"), (b"x", b"1"), (b"y", b"2")]
    assert rules.with_authority([], b"a") == [(b"host", b"a")]


@pytest.mark.parametrize(
    ("method", "status", "has_body"),
    [
        ("GET", 200, True),
        ("GET", 404, True),
        ("GET", 205, True),
        ("GET", 103, False),
        ("GET", 204, False),
        ("GET", 304, False),
        ("HEAD", 200, False),
        ("HEAD", 500, False),
        ("", 400, True),
    ],
)
def test_which_answers_have_a_body(method: str, status: int, has_body: bool) -> None:
    assert rules.answer_has_body(method, status) is has_body


@pytest.mark.parametrize(
    ("status", "headers", "word"),
    [
        (99, [], "99"),
        (600, [], "600"),
        (-200, [], "-200"),
        *[(200, [(name, b"")], "token") for name in (b"", b"a b", b"a:", b"a\r\nb", b"a\x00", b"\xe9", b"a\n")],
        *[
            (200, [(b"a", value)], "control")
            for value in (b"\r", b"\n", b"a\r\nb: c", b"\x00", b"\x1b[0m", b"\x7f", b"a\n")
        ],
        (200, [(b"a", b""), (b"b\n", b"")], "token"),
    ],
)
def test_answers_that_must_not_go_out(status: int, headers: Headers, word: str) -> None:
    with pytest.raises(LocalProtocolError, match=word):
        rules.check_answer(status, headers)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (100, []),
        (599, []),
        (200, [(b"a", b"")]),
        (200, [(b"X-Y", b" \tcaf\xc3\xa9 \xff ")]),
        (200, [(b"!#$%&'*+-.^_`|~", b"1")]),
    ],
)
def test_answers_that_may(status: int, headers: Headers) -> None:
    rules.check_answer(status, headers)


@pytest.mark.parametrize(
    ("status", "headers", "fields"),
    [
        (200, [(b"a", b" \t1 2\t"), length(1), CHUNKED], [(b"a", b"1 2"), length(1), CHUNKED]),
        (304, [length(1)], [length(1)]),
        (204, [(b"a", b"1"), length(0), CHUNKED], [(b"a", b"1")]),
        (204, [(b"Content-Length", b"0")], []),
        (103, [(b"link", b" </a>"), length(0)], [(b"link", b"</a>")]),
    ],
)
def test_fields_as_they_go_out(status: int, headers: Headers, fields: Headers) -> None:
    assert rules.answer_fields(status, headers) == fields
