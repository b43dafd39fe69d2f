"""The verdicts on requests that all engines share, by tables. What engines make of them is in test_requests.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec import rules
from asgiri.codec.rules import HttpLimits
from asgiri.errors import RemoteProtocolError
from asgiri.types import Headers

LIMITS = HttpLimits(body_size=8)
NO_LIMITS = HttpLimits(0, 0, 0, 0)


def status_of(check: Callable[..., object], *arguments: object) -> int | None:
    """The status that the verdict gives, None when it lets everything through."""
    try:
        check(*arguments)
    except RemoteProtocolError as refusal:
        return refusal.status
    return None


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
def test_a_target_has_path_query_and_authority(
    target: bytes, path: bytes, query: bytes, authority: bytes | None
) -> None:
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
    assert status_of(rules.split_target, method, target) == status


def test_the_asterisk_is_for_options() -> None:
    assert rules.split_target(b"OPTIONS", b"*") == (b"*", b"", None)


@settings(deadline=None)
@given(st.binary(max_size=30))
def test_any_target_is_split_or_refused(target: bytes) -> None:
    try:
        path, query, _ = rules.split_target(b"GET", target)
    except RemoteProtocolError:
        return
    assert path.startswith(b"/")
    assert b"?" not in path
    assert target.endswith(path + (b"?" + query if b"?" in target else b"")) or path == b"/"


# Four bytes are let through. (line, bytes known to be good, status)
@pytest.mark.parametrize(
    ("line", "searched", "status"),
    [
        (b"", 0, None),
        (b"abcd", 0, None),
        (b"abcd", 4, None),
        (b"\t \x21\x7e", 0, None),
        (b"\x80\xff", 0, None),
        (b"abcde", 0, 431),
        (b"abcde", 4, 431),
        (b"abc\x00", 0, 400),
        (b"abc\x00", 3, 400),
        (b"abc\x00efgh", 0, 400),
        (b"abcd\x00", 0, 431),
        (b"abcd\x00", 4, 431),
        (b"abcdefgh\x00", 0, 431),
        *[(bytes([char]), 0, 400) for char in (*range(9), *range(10, 32), 127)],
    ],
)
def test_a_line_has_its_limit_and_a_proper_end(line: bytes, searched: int, status: int | None) -> None:
    assert status_of(rules.check_line, line, 4, "too long", 431, searched) == status


@settings(deadline=None)
@given(st.binary(max_size=12), st.integers(0, 12))
def test_the_verdict_on_the_beginning_of_a_line_is_the_one_on_the_whole(line: bytes, size: int) -> None:
    begun = status_of(rules.check_line, line[:size], 6, "too long", 431)
    whole = status_of(rules.check_line, line, 6, "too long", 431)
    assert begun in (None, whole)
    if begun is None:
        assert status_of(rules.check_line, line, 6, "too long", 431, min(size, len(line))) == whole


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/1.1", None),
        (b"GET / HTTP/1.0", None),
        (b"GET / HTTP/1.7", None),
        (b"!#$%&'*+-.^_`|~0aZ \x80\"<>\\^`{|} HTTP/1.1", None),
        (b"GET / HTTP/0.9", 505),
        (b"GET / HTTP/2.0", 505),
        (b"", 400),
        (b"GET /", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET\t/ HTTP/1.1", 400),
        (b"G\xe9T / HTTP/1.1", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/1.1\n", 400),
    ],
)
def test_a_request_line_is_good_or_refused(line: bytes, status: int | None) -> None:
    assert status_of(rules.check_request_line, line) == status


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"a:", None),
        (b"A-b_c.1: \t v\xe9 \t", None),
        (b"a: b:c", None),
        (b"", 400),
        (b"a", 400),
        (b":", 400),
        (b": a", 400),
        (b"a : b", 400),
        (b" a: b", 400),
        (b"a\xe9: b", 400),
        (b"a: b\r", 400),
        (b"a: b\n", 400),
        (b"a: \x00", 400),
    ],
)
def test_a_field_line_is_good_or_400(line: bytes, status: int | None) -> None:
    assert status_of(rules.check_field_line, line) == status


@settings(deadline=None)
@given(st.binary(max_size=20) | st.text("aA:= \t;1", max_size=12).map(str.encode))
def test_a_head_is_what_its_lines_are(line: bytes) -> None:
    """The pattern of a whole head and those of its lines let the same through."""
    match = rules.HEAD.fullmatch(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n")
    lines = line.split(b"\r\n") if line else [line]
    if line:
        assert (match is not None) is all(status_of(rules.check_field_line, line) is None for line in lines)
    head = rules.HEAD.fullmatch(line + b"\r\n\r\n")
    assert (head is not None) is (rules.REQUEST_LINE.fullmatch(line) is not None)


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
def test_a_version_that_is_not_spoken_is_505(version: bytes, spoken: str | None) -> None:
    if spoken is not None:
        assert rules.check_version(version) == spoken
    else:
        assert status_of(rules.check_version, version) == 505


@pytest.mark.parametrize(
    ("version", "hosts", "good"),
    [
        ("1.1", [], False),
        ("1.0", [], True),
        ("1.1", [b"a", b"a"], False),
        ("1.0", [b"a", b"b"], False),
        ("1.0", [b"a/"], False),
        *[
            ("1.1", [host], True)
            for host in b" a A.b-c_d a: a:80 127.0.0.1:1 [::1] [fe80::1]:1 %C3%A9 a~!$&'()*+,;=".split(b" ")
        ],
        *[
            ("1.1", [host], False)
            for host in rb"a/ /a u@a a?b a#b a:b a:1:2 ::1 [::1 [::1]a [] a\b <a> http://a".split(b" ")
        ],
        *[("1.1", [host], False) for host in (b" ", b"a b", b"\xc3\xa9", b'"a"', b"a\n", b"a\x00")],
    ],
)
def test_there_is_one_host_and_it_is_a_good_one(version: str, hosts: list[bytes], good: bool) -> None:
    assert status_of(rules.check_host, version, hosts) == (None if good else 400)
    if len(hosts) == 1:
        assert rules.is_host(hosts[0]) is rules.is_known_host(hosts[0]) is good


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        (b"", []),
        (b"A: b\r\n", [(b"a", b"b")]),
        (b"A:\r\nB:\tc : d\t \r\na:b\r\n", [(b"a", b""), (b"b", b"c : d"), (b"a", b"b")]),
        (b"X: \x85 \xa0\r\n", [(b"x", b"\x85 \xa0")]),
    ],
)
def test_fields_of_their_lines(fields: bytes, headers: Headers) -> None:
    assert rules.split_fields(fields) == headers


# (version, field lines, the body's size, None for a chunked one, or the status)
@pytest.mark.parametrize(
    ("version", "lines", "size", "status"),
    [
        ("1.1", [], 0, None),
        ("1.1", [b"X: Content-Length: 5"], 0, None),
        ("1.1", [b"XContent-Length: 5", b"Content-Length-X: 5"], 0, None),
        ("1.1", [b"Content-Length: 0"], 0, None),
        ("1.1", [b"Host: a", b"content-length:\t8 ", b"X: 1"], 8, None),
        ("1.1", [b"Content-Length: 008"], 8, None),
        ("1.1", [b"Content-Length: 9"], 0, 413),
        ("1.1", [b"Content-Length: " + b"0" * 18], 0, None),
        ("1.1", [b"Content-Length: " + b"0" * 19], 0, 413),
        ("1.1", [b"Content-Length: " + b"9" * 5000], 0, 413),
        ("1.1", [b"Content-Length:"], 0, 400),
        ("1.1", [b"Content-Length: +8"], 0, 400),
        ("1.1", [b"Content-Length: 8", b"Content-Length: 8"], 0, 400),
        ("1.1", [b"Content-Length: 8, 8"], 0, 400),
        ("1.1", [b"TRANSFER-ENCODING:Chunked"], None, None),
        ("1.1", [b"Transfer-Encoding: chunked", b"Content-Length: 0"], 0, 400),
        ("1.1", [b"Content-Length: x", b"Transfer-Encoding: chunked"], 0, 400),
        ("1.1", [b"Transfer-Encoding: gzip, chunked"], 0, 501),
        ("1.1", [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"], 0, 501),
        ("1.1", [b"Transfer-Encoding:"], 0, 400),
        ("1.0", [b"Content-Length: 1"], 1, None),
        ("1.0", [b"Transfer-Encoding: chunked"], 0, 400),
        ("1.0", [b"Transfer-Encoding: chunked", b"Content-Length: 1"], 0, 400),
    ],
)
def test_the_framing_of_a_body_is_certain_or_refused(
    version: str, lines: list[bytes], size: int | None, status: int | None
) -> None:
    fields = b"".join(line + b"\r\n" for line in lines)
    if status is None:
        assert rules.check_framing(version, fields, LIMITS) == size
    else:
        assert status_of(rules.check_framing, version, fields, LIMITS) == status


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([b"chunked"], None),
        ([b" CHUNKED\t"], None),
        ([b"gzip, chunked"], 501),
        ([b"gzip", b"chunked"], 501),
        ([b""], 400),
        ([b"chunked,"], 400),
        ([b",chunked"], 400),
        ([b"gzip,,chunked"], 400),
        ([b"chunked", b"chunked"], 400),
        ([b"chunked, gzip"], 400),
        ([b"chunked, gzip, chunked"], 400),
        ([b"identity"], 400),
        ([b"\x0bchunked"], 400),
        ([b'"chunked"'], 400),
    ],
)
def test_chunked_is_the_only_transfer_coding(values: list[bytes], status: int | None) -> None:
    assert status_of(rules.check_codings, values) == status


@pytest.mark.parametrize(
    ("values", "members"),
    [
        ([], []),
        ([b""], [b""]),
        ([b"A,\tb ,,c d"], [b"a", b"b", b"", b"c d"]),
        ([b"a", b"b, C"], [b"a", b"b", b"c"]),
    ],
)
def test_a_list_is_split_at_its_commas(values: list[bytes], members: list[bytes]) -> None:
    assert rules.listed(values) == members


@pytest.mark.parametrize(
    ("says", "option"),
    [(rules.says_close, b"close"), (rules.says_upgrade, b"upgrade"), (rules.says_continue, b"100-continue")],
)
def test_an_option_is_a_whole_member_of_a_list(says: Callable[[list[bytes]], bool], option: bytes) -> None:
    for values in ([option], [option.upper()], [b"x, " + option], [b"x", option], [b"," + option + b"\t,"]):
        assert says(values)
    for values in ([], [b""], [b"x"], [option + b"x"], [b"x" + option], [b'"' + option + b'"'], [option + b";q=1"]):
        assert not says(values)


# (line, size, bytes of extensions), and size None for what is refused
@pytest.mark.parametrize(
    ("line", "size", "extensions"),
    [
        (b"0", 0, 0),
        (b"aF", 0xAF, 0),
        (b"0" * 16, 0, 0),
        (b"f" * 16, (1 << 64) - 1, 0),
        (b"1;a", 1, 2),
        (b'1 ; a = "b;\\"\xff" ;c', 1, 17),
        *[
            (line, None, 0)
            for line in (b"", b"g", b"0" * 17, b"-1", b" 1", b"1 ", b"1;", b"1;a ", b"1;a=", b"1;a;", b"1;;a")
        ],
        *[
            (line, None, 0)
            for line in (b"1a;=b", b'1;a="', b'1;a="b', b'1;a="b\\"', b'1;a="b"c', b"1;a b", b"1\n", b"1;\x00")
        ],
    ],
)
def test_a_chunk_line_is_a_size_and_extensions_or_400(line: bytes, size: int | None, extensions: int) -> None:
    if size is not None:
        assert rules.check_chunk_line(line) == (size, extensions)
    else:
        assert status_of(rules.check_chunk_line, line) == 400
    plain = rules.CHUNK_SIZE.fullmatch(line + b"\r\n")
    assert (plain is not None) is (size is not None and not extensions)


@pytest.mark.parametrize(("size", "limit", "status"), [(8, 8, None), (9, 8, 413), (1 << 70, 0, None), (0, 8, None)])
def test_a_body_over_its_limit_is_413(size: int, limit: int, status: int | None) -> None:
    assert status_of(rules.check_body, size, HttpLimits(body_size=limit)) == status


def test_trailers_that_are_known() -> None:
    kept: Headers = [(b"x", b"1"), (b"etag", b'"a"'), (b"x", b"2")]
    forbidden = [(name, b"1") for name in rules.NO_TRAILERS]
    assert rules.known_trailers([kept[0], *forbidden, *kept[1:]]) == kept
    for name in (
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"authorization",
        b"content-type",
        b"trailer",
        b"te",
    ):
        assert name in rules.NO_TRAILERS


def test_a_body_without_a_limit() -> None:
    assert rules.check_framing("1.1", b"Content-Length: %d\r\n" % (1 << 59), NO_LIMITS) == 1 << 59


def test_the_authority_takes_the_place_of_every_host() -> None:
    headers: Headers = [(b"x", b"1"), (b"host", b"b"), (b"y", b"2")]
    assert rules.with_authority(headers, b"a:1") == [(b"host", b"a:1"), (b"x", b"1"), (b"y", b"2")]
    assert rules.with_authority([], b"a") == [(b"host", b"a")]
