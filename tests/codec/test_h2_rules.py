"""Header lists of HTTP/2, and what the rules make of them: the verdicts that both engines share."""

from __future__ import annotations

import pytest

from asgiri.codec import h2_rules
from asgiri.codec.events import Request
from asgiri.codec.h2_rules import answer_fields, answer_trailers, priority_of, request_of, trailers_of
from asgiri.codec.h2_wire import ErrorCode, Http2Options, StreamFault
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError, RemoteProtocolError
from asgiri.types import Headers

OPTIONS = Http2Options()
METHOD, SCHEME, PATH, AUTHORITY = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/a?b"),
    (b":authority", b"example.org"),
)
GET = [METHOD, SCHEME, PATH, AUTHORITY]
HOST = (b"host", b"example.org")
CONNECT = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), SCHEME, (b":path", b"/chat"), AUTHORITY]


def asked(fields: Headers, end_stream: bool = True, options: Http2Options = OPTIONS) -> Request:
    return request_of(1, fields, end_stream, options)


def but(name: bytes, value: bytes | None) -> Headers:
    """A request with another value for one of its fields, or without it."""
    return [(key, value if key == name else old) for key, old in GET if key != name or value is not None]  # type: ignore[misc]


def test_a_request_is_made_of_its_pseudo_fields() -> None:
    assert asked([*GET, (b"accept", b"*/*")]) == Request(
        1, "GET", b"/a?b", b"/a", b"b", [HOST, (b"accept", b"*/*")], "2", True
    )


GOOD: dict[str, tuple[Headers, Headers]] = {
    "pseudo-fields in another order": ([AUTHORITY, PATH, METHOD, SCHEME], [HOST]),
    "Host instead of :authority": ([*GET[:3], (b"a", b"b"), HOST], [HOST, (b"a", b"b")]),
    "Host that agrees": ([*GET, (b"a", b"b"), (b"host", b"EXAMPLE.org")], [HOST, (b"a", b"b")]),
    "a port": (but(b":authority", b"[::1]:8000"), [(b"host", b"[::1]:8000")]),
    "another scheme": (but(b":scheme", b"coap+tcp"), [HOST]),
    "te": ([*GET, (b"te", b"trailers")], [HOST, (b"te", b"trailers")]),
    "a value beyond ASCII": ([*GET, (b"a", b"\xff\x80")], [HOST, (b"a", b"\xff\x80")]),
    "an empty value": ([*GET, (b"a", b"")], [HOST, (b"a", b"")]),
    "blanks within a value": ([*GET, (b"a", b"b \t c")], [HOST, (b"a", b"b \t c")]),
    "crumbs of a cookie": (
        [*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b"c=3")],
        [HOST, (b"cookie", b"a=1; b=2; c=3"), (b"x", b"y")],
    ),
    "one cookie": ([*GET, (b"cookie", b"a=1")], [HOST, (b"cookie", b"a=1")]),
    "the same field twice": ([*GET, (b"x", b"1"), (b"x", b"2")], [HOST, (b"x", b"1"), (b"x", b"2")]),
    "a length of nothing": ([*GET, (b"content-length", b"0")], [HOST, (b"content-length", b"0")]),
}


@pytest.mark.parametrize(("fields", "headers"), GOOD.values(), ids=GOOD)
def test_what_is_let_through(fields: Headers, headers: Headers) -> None:
    for _ in range(2):  # the second time, fields are known
        assert asked(fields).headers == headers


TARGETS = [b"/", b"/a?", b"/?a?b", b"//x", b"/#a", b"/\xc3\xa9", b"/%zz"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_split_at_its_first_question_mark(target: bytes) -> None:
    request = asked(but(b":path", target))
    path, _, query = target.partition(b"?")
    assert (request.target, request.path, request.query) == (target, path, query)


def test_the_asterisk_is_for_options() -> None:
    request = asked([(b":method", b"OPTIONS"), SCHEME, (b":path", b"*"), AUTHORITY])
    assert (request.path, request.query) == (b"*", b"")
    with pytest.raises(StreamFault):
        asked(but(b":path", b"*"))


MALFORMED: dict[str, Headers] = {
    "nothing": [],
    "no pseudo-field": [HOST],
    **{f"no {name.decode()}": but(name, None) for name, _ in GET},
    **{f"empty {name.decode()}": but(name, b"") for name, _ in GET},
    **{f"{name.decode()} twice": [(name, value), *GET] for name, value in GET},
    "an unknown pseudo-field": [*GET, (b":status", b"200")],
    "an empty name": [*GET, (b"", b"x")],
    "a lone colon": [*GET, (b":", b"x")],
    "a pseudo-field behind a field": [*GET[:3], HOST, AUTHORITY],
    "a method that is no token": but(b":method", b"GE T"),
    "a scheme that is none": but(b":scheme", b"1http"),
    **{
        f"a path {path!r}": but(b":path", path)
        for path in (b"a", b"http://example.org/", b"/a b", b"/a\r\n", b"/\0", b"/\x7f", b" /", b"?a", b"**")
    },
    **{
        f"an authority {name!r}": but(b":authority", name)
        for name in (b"user@example.org", b"a b", b"a/b", b"a\0", b"a,b c", b"[::1")
    },
    "an authority with another Host": [*GET, (b"host", b"example.com")],
    "Host twice": [*GET, HOST, HOST],
    "an empty Host alone": [*GET[:3], (b"host", b"")],
    "an empty Host besides": [*GET, (b"host", b"")],
    "upper case": [*GET, (b"Accept", b"*/*")],
    **{
        f"a name {name!r}": [*GET, (name, b"x")] for name in (b"a b", b"a:", b"a\0", b"a\r", b"a\x7f", b"a\xff", b"(a)")
    },
    **{
        f"a value {value!r}": [*GET, (b"a", value)]
        for value in (b"a\rb", b"a\nb", b"a\0b", b"\x01", b"\x7f", b" a", b"a ", b"\ta", b"a\t", b" ")
    },
    **{
        f"{name.decode()}": [*GET, (name, b"x")]
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    },
    "te with more": [*GET, (b"te", b"trailers, deflate")],
    "te without": [*GET, (b"te", b"gzip")],
    **{
        f"a length {value!r}": [*GET, (b"content-length", value)]
        for value in (b"", b"x", b"-1", b"+1", b"1,1", b"0x1", b"1.0")
    },
    "a length twice": [*GET, (b"content-length", b"0"), (b"content-length", b"0")],
    "a length and no body": [*GET, (b"content-length", b"1")],
    "a protocol without CONNECT": [*GET, (b":protocol", b"websocket")],
    "a protocol that is no token": [(b":method", b"CONNECT"), (b":protocol", b"a b"), SCHEME, PATH, AUTHORITY],
    "an extended CONNECT without a path": [*CONNECT[:3], AUTHORITY],
    "an extended CONNECT without a scheme": [*CONNECT[:2], PATH, AUTHORITY],
    "a CONNECT with a path": [(b":method", b"CONNECT"), PATH, AUTHORITY],
    "a CONNECT without an authority": [(b":method", b"CONNECT")],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed(fields: Headers) -> None:
    for _ in range(2):
        with pytest.raises(StreamFault) as caught:
            asked(fields)
        assert caught.value.code is ErrorCode.PROTOCOL_ERROR


def test_a_connect_is_refused_and_an_extended_one_is_not() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        asked([(b":method", b"CONNECT"), AUTHORITY])
    assert caught.value.status == 501
    request = asked(CONNECT, end_stream=False)
    assert (request.method, request.protocol, request.path) == ("CONNECT", b"websocket", b"/chat")
    with pytest.raises(StreamFault):  # RFC 8441 section 3: not before we say that we can
        asked(CONNECT, options=Http2Options(connect_protocol=False))


def limits(**most: int) -> Http2Options:
    return Http2Options(limits=HttpLimits(**most))


X = (b"x", b"y" * 10)
COOKIES = [(b"cookie", b"a=%d" % place) for place in range(5)]
REFUSED: dict[str, tuple[int, Headers, Http2Options]] = {
    "too many fields": (431, [*GET, *[X] * 4], limits(header_count=4)),
    "too many crumbs": (431, [*GET, *COOKIES], limits(header_count=5)),
    "too much in fields": (431, [*GET, *[X] * 4], limits(header_size=15 + 19 + 4 * 15 - 15 - 1)),
    "a list too large": (431, [*GET, *[X] * 4], Http2Options(max_header_list=300)),
    "a list too large that is malformed": (431, [(b"A", b"\0" * 300)], Http2Options(max_header_list=300)),
    "a list without a limit of its own": (
        431,
        [*GET, (b"x", b"y" * (1 << 20))],
        Http2Options(limits(header_size=0).limits, max_header_list=0),
    ),
    "a line too long": (414, GET, limits(request_line=6)),
    "a body too large": (413, [*GET, (b"content-length", b"11")], limits(body_size=10)),
    "a body far too large": (413, [*GET, (b"content-length", b"1" * 19)], limits()),
}


@pytest.mark.parametrize(("status", "fields", "options"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(status: int, fields: Headers, options: Http2Options) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        asked(fields, False, options)
    assert caught.value.status == status


EXACT: dict[str, tuple[Headers, Http2Options]] = {
    "fields": ([*GET, *[X] * 4], limits(header_count=5)),
    "a size": ([*GET, *[X] * 4], limits(header_size=len(b":authority: example.org\r\n") + 4 * 15)),
    "a list": ([*GET, *[X] * 4], Http2Options(max_header_list=h2_rules.list_size([*GET, *[X] * 4]))),
    "a line": (GET, limits(request_line=7)),
    "a body": ([*GET, (b"content-length", b"10")], limits(body_size=10)),
    "no limits": ([*GET, *[X] * 200], limits(header_count=0, header_size=0, request_line=0)),
}


@pytest.mark.parametrize(("fields", "options"), EXACT.values(), ids=EXACT)
def test_what_just_fits(fields: Headers, options: Http2Options) -> None:
    asked(fields, False, options)


def test_the_size_of_a_list_is_the_rfcs() -> None:
    """RFC 7541 section 4.1."""
    assert h2_rules.list_size([(b"custom-key", b"custom-header")]) == 55


def test_a_body_that_waits_for_a_100() -> None:
    fields = [*GET, (b"expect", b"100-Continue")]
    assert asked(fields, end_stream=False).expect_continue
    assert not asked(fields).expect_continue
    assert not asked([*GET, (b"expect", b"x")], end_stream=False).expect_continue


def test_the_length_that_a_request_promises() -> None:
    assert h2_rules.body_length(asked([*GET, (b"content-length", b"010")], False)) == 10
    assert h2_rules.body_length(asked(GET, False)) is None


def test_secrets_are_not_kept_and_fields_do_not_gather() -> None:
    asked([*GET, (b"authorization", b"a secret"), (b"cookie", b"another")])
    assert not {b"a secret", b"another"} & {value for _, value in h2_rules.PLAIN}
    for place in range(h2_rules.MOST_PLAIN + 10):
        asked([*GET, (b"x", b"%d" % place)])
    asked([*GET, (b"x", b"y" * 300)])
    assert len(h2_rules.PLAIN) <= h2_rules.MOST_PLAIN
    assert (b"x", b"y" * 300) not in h2_rules.PLAIN


# Trailers


def test_trailers_lose_what_may_not_be_in_them() -> None:
    fields = [(b"x", b"y"), (b"content-length", b"5"), (b"host", b"a"), (b"cookie", b"a")]
    assert trailers_of(fields, OPTIONS) == [(b"x", b"y")]
    with pytest.raises(RemoteProtocolError):
        trailers_of([X] * 6, limits(header_count=5))


@pytest.mark.parametrize("field", [(b":path", b"/"), (b"X", b"y"), (b"x", b"y\0"), (b"connection", b"x")])
def test_trailers_that_are_malformed(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(StreamFault):
        trailers_of([field], OPTIONS)


# Priorities

PRIORITIES = {
    b"": (3, False),
    b"u=0": (0, False),
    b"u=7, i": (7, True),
    b"i": (3, True),
    b"i=?1": (3, True),
    b"i=?0": (3, False),
    b"u=5,i;x=y": (5, True),
    b"u=8": (3, False),
    b"u=-1": (3, False),
    b"u": (3, False),
    b"u=?1": (3, False),
    b"i=5": (3, False),
    b"x=1, u=2": (2, False),
    b"u=1, u=2": (2, False),
    b"\xff\0,,": (3, False),
}


@pytest.mark.parametrize(("value", "priority"), PRIORITIES.items())
def test_a_priority_is_read_and_what_is_none_is_the_default(value: bytes, priority: tuple[int, bool]) -> None:
    assert priority_of(value) == priority


def test_who_knows_no_priorities_takes_turns() -> None:
    assert h2_rules.priority_in([HOST]) == (3, True)
    assert h2_rules.priority_in([HOST, (b"priority", b"u=1")]) == (1, False)


# Answers


def test_the_fields_of_answers() -> None:
    headers = [(b"X", b" y "), (b"Connection", b"close"), (b"transfer-encoding", b"gzip"), (b"content-length", b"1")]
    assert answer_fields(200, headers) == [(b"x", b"y"), (b"content-length", b"1")]
    assert answer_fields(204, headers) == answer_fields(103, headers) == [(b"x", b"y")]
    assert answer_trailers([(b"X", b" y ")]) == [(b"x", b"y")]
    for wrong in (
        [(b"x", b"\n")],
        [(b"content-length", b"x")],
        [(b"content-length", b"1")] * 2,
        [(b":status", b"200")],
    ):
        with pytest.raises(LocalProtocolError):
            answer_fields(200, wrong)
    with pytest.raises(LocalProtocolError):
        answer_trailers([(b"content-length", b"1")])


@pytest.mark.parametrize("status", [99, 101, 200])
def test_what_is_no_interim_answer(status: int) -> None:
    h2_rules.check_informational(103)
    with pytest.raises(LocalProtocolError):
        h2_rules.check_informational(status)
