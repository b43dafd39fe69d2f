"""Rows about what a request may look like: header lists (RFC 9113 sections 8.2 and 8.3), bodies, trailers, limits."""

from __future__ import annotations

from typing import Any

from asgiri.codec.events import Body, End, Refused, Reset
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.types import Headers
from tests.codec.h2_rows import SMALL, Row, reset, row
from tests.codec.h2_wire_tools import (
    GET,
    HOST_A,
    NO_ERROR,
    POST,
    PROTOCOL_ERROR,
    Data,
    Rst,
    answered,
    answers,
    data,
    head,
    post,
    request,
    rst,
    sends_body,
    sends_head,
    window,
)

METHOD, SCHEME, AUTHORITY, PATH = GET
X = (b"x", b"y")


def taken(name: str, fields: Headers, why: str = "", **more: Any) -> Row:
    return row(name, head(1, fields), events=[request(**more)], why=why)


def malformed(name: str, fields: Headers, why: str = "", options: Http2Options | None = None) -> Row:
    """Section 8.1.1: a stream error of type PROTOCOL_ERROR, and nobody is told."""
    return reset(name, PROTOCOL_ERROR, head(1, fields), options=options, why=why)


def with_field(name: bytes, value: bytes) -> Headers:
    return [*GET, (name, value)]


PSEUDO = [
    taken("pseudo-header fields in another order", [PATH, AUTHORITY, SCHEME, METHOD]),
    taken("a request of https", [METHOD, (b":scheme", b"https"), AUTHORITY, PATH]),
    taken("another scheme", [METHOD, (b":scheme", b"coap+tcp"), AUTHORITY, PATH],
          why="section 8.3.1: it is not limited to http and https"),
    malformed("a scheme that is none", [METHOD, (b":scheme", b"ht tp"), AUTHORITY, PATH]),
    *(malformed(f"{name.decode()} is missing", [field for field in GET if field[0] != name])
      for name in (b":method", b":scheme", b":path")),
    *(malformed(f"{name.decode()} is empty", [(key, b"" if key == name else value) for key, value in GET])
      for name in (b":method", b":scheme", b":path", b":authority")),
    *(malformed(f"{name.decode()} is there twice", [*GET, (name, value)]) for name, value in GET),
    *(malformed(f"{name.decode()} behind a field", [*(field for field in GET if field[0] != name), X, (name, value)])
      for name, value in GET),
    malformed("an unknown pseudo-header field", [*GET, (b":user", b"me")]),
    malformed("the :status of an answer", [*GET, (b":status", b"200")]),
    malformed("a pseudo-header field without a name", [*GET, (b":", b"x")]),
    malformed("a pseudo-header field in capitals", [(b":Method", b"GET"), *GET[1:]]),
    malformed("no fields at all", []),
    malformed("an unknown pseudo-header field behind a field", [*GET, X, (b":user", b"me")]),
    *(
        taken(f"the method {method}", [(b":method", method.encode()), *GET[1:]], method=method)
        for method in ("HEAD", "DELETE", "get", "M-SEARCH", "!#$%&'*+-.^_`|~9")
    ),
    *(malformed(f"the method {method!r}", [(b":method", method), *GET[1:]]) for method in (b"GE T", b"G:T", b"G\xc9T")),
]  # fmt: skip

TARGETS = [
    *(
        taken(f"the path {target!r}", [*GET[:3], (b":path", target)], target=target)
        for target in (b"/", b"//", b"/a?b", b"/?", b"/a?b?c", b"/%2F", b"/a;b#c", b"/\xc3\xa9", b"/http://b/")
    ),
    *(
        malformed(f"the path {target!r}", [*GET[:3], (b":path", target)])
        for target in (b"a", b"?a", b"http://a/", b"*", b"/a b", b"/\t", b"/\r\n", b"/\x00", b"/\x7f", b" /", b"*/")
    ),
    row("OPTIONS *", head(1, [(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")]),
        events=[request(method="OPTIONS", target=b"*")]),
    malformed("OPTIONS without a path", [(b":method", b"OPTIONS"), SCHEME, AUTHORITY]),
]  # fmt: skip

WEBSOCKET: Headers = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]]
CONNECT: Headers = [(b":method", b"CONNECT"), AUTHORITY]
CONNECTS = [
    row("CONNECT", head(1, CONNECT, False), events=[Refused(1, 501, "")]),
    row("CONNECT that ends", head(1, CONNECT), events=[Refused(1, 501, "")]),
    malformed("CONNECT with a scheme and a path", [(b":method", b"CONNECT"), *GET[1:]]),
    malformed("CONNECT without an authority", [(b":method", b"CONNECT"), X]),
    row("extended CONNECT", head(1, WEBSOCKET, False) + data(1, b"x"),
        events=[request(method="CONNECT", end_stream=False, protocol=b"websocket"), Body(1, b"x")]),
    row("extended CONNECT that ends", head(1, WEBSOCKET), events=[request(method="CONNECT", protocol=b"websocket")]),
    row("extended CONNECT, both ways, ended by us first", head(1, WEBSOCKET, False) + data(1, b"x"), sends_head(1),
        sends_body(1, b"y", False), sends_body(1, b"z"), data(1, b"w") + data(1, b"", True),
        events=[request(method="CONNECT", end_stream=False, protocol=b"websocket"), Body(1, b"xw"), End(1, [])],
        sent=[answered(1, 200), Data(1, b"yz", True)],
        why="section 8.5: the halves of a tunnel end each by itself, so it is not reset as other early answers are"),
    row("extended CONNECT, reset behind our end", head(1, WEBSOCKET, False), answers(1), rst(1, NO_ERROR),
        events=[request(method="CONNECT", end_stream=False, protocol=b"websocket"),
                Reset(1, "", NO_ERROR)],
        sent=[answered(1, 200), Data(1, b"ok", True)]),
    reset("extended CONNECT with trailers", PROTOCOL_ERROR, head(1, WEBSOCKET, False) + head(1, [X]),
          events=[request(method="CONNECT", end_stream=False, protocol=b"websocket")],
          why="section 8.5: a tunnel has DATA, and no HEADERS"),
    row("extended CONNECT is not bound by limits.body_size", head(1, WEBSOCKET, False) + data(1, b"123456789"),
        events=[request(method="CONNECT", end_stream=False, protocol=b"websocket"), Body(1, b"123456789")],
        options=SMALL),
    malformed("extended CONNECT that was not announced", WEBSOCKET, options=Http2Options(connect_protocol=False),
              why="RFC 8441 section 4: :protocol is unknown then"),
    malformed(":protocol with GET", [*GET, (b":protocol", b"websocket")]),
    malformed("an empty :protocol", [(b":method", b"CONNECT"), (b":protocol", b""), *GET[1:]]),
    malformed("a :protocol that is no token", [(b":method", b"CONNECT"), (b":protocol", b"web socket"), *GET[1:]]),
    malformed("extended CONNECT without a path", [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:3]]),
    malformed("extended CONNECT without a scheme", [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[2:]]),
]  # fmt: skip

NO_AUTHORITY = [METHOD, SCHEME, PATH]
HOSTS = [
    taken("Host in place of :authority", [*NO_AUTHORITY, (b"host", b"a")]),
    taken("Host behind other fields", [*NO_AUTHORITY, X, (b"host", b"a")], headers=[*HOST_A, X],
          why="one order for both ways to say it"),
    taken("Host and :authority the same", [*GET, X, (b"host", b"a")], headers=[*HOST_A, X]),
    taken("Host and :authority in different case", [*GET, (b"host", b"A")],
          why="RFC 3986 section 3.2.2: the same host"),
    malformed("Host and :authority of two hosts", [*GET, (b"host", b"b")],
              why="section 8.3.1 lets a server say that it is malformed; two parties would route it in two ways"),
    malformed("neither Host nor :authority", NO_AUTHORITY,
              why="section 8.3.1: https and http have one, and the application is told a Host always"),
    malformed("an empty Host", [*NO_AUTHORITY, (b"host", b"")]),
    malformed("Host twice", [*NO_AUTHORITY, (b"host", b"a"), (b"host", b"a")]),
    malformed("Host twice and :authority", [*GET, (b"host", b"a"), (b"host", b"a")]),
    malformed("userinfo in the :authority", [METHOD, SCHEME, (b":authority", b"me@a"), PATH]),
    malformed("a path in the :authority", [METHOD, SCHEME, (b":authority", b"a/b"), PATH]),
    malformed("a blank in the :authority", [METHOD, SCHEME, (b":authority", b"a b"), PATH]),
    malformed("CRLF in the :authority", [METHOD, SCHEME, (b":authority", b"a\r\nb: c"), PATH]),
    *(
        taken(f"the authority {host!r}", [METHOD, SCHEME, (b":authority", host), PATH], headers=[(b"host", host)])
        for host in (b"a:80", b"[::1]:443", b"127.0.0.1", b"a.b.c.", b"xn--4ca")
    ),
]  # fmt: skip

FIELDS = [
    taken("a field", [*GET, X], headers=[*HOST_A, X]),
    taken("a field twice", [*GET, X, X], headers=[*HOST_A, X, X]),
    taken("an empty value", with_field(b"x", b""), headers=[*HOST_A, (b"x", b"")]),
    taken("a tab and a blank in a value", with_field(b"x", b"a \tb"), headers=[*HOST_A, (b"x", b"a \tb")]),
    taken("bytes beyond ASCII in a value", with_field(b"x", b"\xff\x80"), headers=[*HOST_A, (b"x", b"\xff\x80")]),
    taken("a name of all that a token may hold", with_field(b"!#$%&'*+-.^_`|~9a", b"x"),
          headers=[*HOST_A, (b"!#$%&'*+-.^_`|~9a", b"x")]),
    *(malformed(f"the name {name!r}", with_field(name, b"x"))
      for name in (b"", b"X", b"xY", b"x y", b"x:y", b"x\r\n", b"x\x00", b"x\xe9", b" x", b"x ", b"x\x7f", b"(x)")),
    *(malformed(f"the value {value!r}", with_field(b"x", value))
      for value in (b"\r", b"a\r\nb", b"\n", b"a\x00b", b" a", b"a ", b"\ta", b"a\t", b" ", b"\x01", b"\x7f", b"\x0b")),
    *(malformed(f"the field {name.decode()}: {value.decode()}", with_field(name, value))
      for name, value in [
          (b"connection", b"close"), (b"connection", b"keep-alive"), (b"keep-alive", b"5"), (b"upgrade", b"h2c"),
          (b"proxy-connection", b"keep-alive"), (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity"),
          (b"te", b"gzip"), (b"te", b"trailers, gzip"), (b"te", b""),
      ]),
    taken("te: trailers", with_field(b"te", b"trailers"), headers=[*HOST_A, (b"te", b"trailers")]),
    taken("te: Trailers", with_field(b"te", b"Trailers"), headers=[*HOST_A, (b"te", b"Trailers")]),
    taken("one cookie", with_field(b"cookie", b"a=b; c=d"), headers=[*HOST_A, (b"cookie", b"a=b; c=d")]),
    taken("crumbs of a cookie", [*GET, (b"cookie", b"a=b"), X, (b"cookie", b"c=d"), (b"cookie", b"e=f")],
          headers=[*HOST_A, (b"cookie", b"a=b; c=d; e=f"), X], why="section 8.2.3"),
    malformed("a crumb with a line's end", [*GET, (b"cookie", b"a=b"), (b"cookie", b"c\r\nd: e")]),
    taken("an authorization", with_field(b"authorization", b"Basic YTpi"),
          headers=[*HOST_A, (b"authorization", b"Basic YTpi")]),
    taken("priority", with_field(b"priority", b"u=1, i"), headers=[*HOST_A, (b"priority", b"u=1, i")]),
    taken("priority that is none", with_field(b"priority", b"=;"), headers=[*HOST_A, (b"priority", b"=;")]),
    taken("expect of a request without a body", with_field(b"expect", b"100-continue"),
          headers=[*HOST_A, (b"expect", b"100-continue")]),
    row("expect of a request with a body", head(1, [*POST, (b"expect", b"100-Continue")], False),
        events=[post(headers=[*HOST_A, (b"expect", b"100-Continue")], expect_continue=True)]),
    row("another expectation", head(1, [*POST, (b"expect", b"x")], False),
        events=[post(headers=[*HOST_A, (b"expect", b"x")])]),
    row("the same bad fields twice, each on a stream of its own", head(1, [*GET, (b"x", b"\r")])
        + head(3, [*GET, (b"x", b"\r")]) + head(5, [*GET, X]),
        events=[request(5, headers=[*HOST_A, X])], sent=[Rst(1, PROTOCOL_ERROR), Rst(3, PROTOCOL_ERROR)],
        why="what was judged once is known, and what was refused is not"),
    row("the same good fields twice", head(1, [*GET, X]) + head(3, [*GET, X]) + head(5, [*GET, X, (b"y", b"z")]),
        events=[request(headers=[*HOST_A, X]), request(3, headers=[*HOST_A, X]),
                request(5, headers=[*HOST_A, X, (b"y", b"z")])]),
    row("the same fields and other paths", b"".join(
            head(n, [*GET[:3], (b":path", target), X])
            for n, target in [(1, b"/a"), (3, b"/b?c"), (5, b"/d e"), (7, b"/")]
        ), events=[
            request(1, target=b"/a", headers=[*HOST_A, X]), request(3, target=b"/b?c", headers=[*HOST_A, X]),
            request(7, headers=[*HOST_A, X]),
        ], sent=[Rst(5, PROTOCOL_ERROR)]),
]  # fmt: skip


def sized(value: bytes) -> Headers:
    return [*POST, (b"content-length", value)]


def upload(value: bytes, **more: Any) -> Any:
    return post(headers=[*HOST_A, (b"content-length", value)], **more)


LENGTHS = [
    row("a body of its length", head(1, sized(b"3"), False) + data(1, b"abc", True),
        events=[upload(b"3"), Body(1, b"abc"), End(1, [])]),
    row("a body of its length in pieces",
        head(1, sized(b"3"), False) + data(1, b"a") + data(1, b"bc") + data(1, b"", True),
        events=[upload(b"3"), Body(1, b"abc"), End(1, [])]),
    row("a body of its length and trailers", head(1, sized(b"1"), False) + data(1, b"a") + head(1, [X]),
        events=[upload(b"1"), Body(1, b"a"), End(1, [X])]),
    row("padding is not of the length", head(1, sized(b"3"), False) + data(1, b"abc", True, 100),
        events=[upload(b"3"), Body(1, b"abc"), End(1, [])]),
    row("a length of 0", head(1, sized(b"0")), events=[upload(b"0", end_stream=True)]),
    row("a length of 0 and empty DATA", head(1, sized(b"0"), False) + data(1, b"", True),
        events=[upload(b"0"), End(1, [])]),
    row("a length with zeros before it", head(1, sized(b"003"), False) + data(1, b"abc", True),
        events=[upload(b"003"), Body(1, b"abc"), End(1, [])]),
    reset("a body longer than its length", PROTOCOL_ERROR, head(1, sized(b"3"), False) + data(1, b"abcd"),
          events=[upload(b"3")], why="section 8.1.1; what came of it is not told"),
    reset("a body longer than its length, in the second piece", PROTOCOL_ERROR,
          head(1, sized(b"3"), False) + data(1, b"ab") + data(1, b"cd", True), events=[upload(b"3"), Body(1, b"ab")]),
    reset("a body shorter than its length", PROTOCOL_ERROR, head(1, sized(b"3"), False) + data(1, b"ab", True),
          events=[upload(b"3"), Body(1, b"ab")]),
    reset("a body without content and a length", PROTOCOL_ERROR, head(1, sized(b"3"), False) + data(1, b"", True),
          events=[upload(b"3")]),
    reset("a body shorter than its length, then trailers", PROTOCOL_ERROR,
          head(1, sized(b"3"), False) + data(1, b"ab") + head(1, [X]), events=[upload(b"3"), Body(1, b"ab")]),
    malformed("a length and no body", sized(b"3")),
    *(reset(f"the length {value!r}", PROTOCOL_ERROR, head(1, sized(value), False) + data(1, b"abc", True))
      for value in (b"x", b"", b"-3", b"+3", b"3,3", b"0x3", b"3.0", b"\xb3", b"3 3")),
    reset("two lengths", PROTOCOL_ERROR, head(1, [*sized(b"3"), (b"content-length", b"4")], False)),
    reset("the same length twice", PROTOCOL_ERROR, head(1, [*sized(b"3"), (b"content-length", b"3")], False),
          why="RFC 9110 section 8.6 would let it pass; refused on HTTP/1.1 too"),
    row("no length", head(1, POST, False) + data(1, b"abc", True), events=[post(), Body(1, b"abc"), End(1, [])]),
    row("a length that is awful", head(1, sized(b"9" * 19), False), events=[Refused(1, 413, "")]),
]  # fmt: skip

OPEN = head(1, POST, False)
TRAILERS = [
    row("trailers", OPEN + data(1, b"a") + head(1, [X, (b"z", b"")]),
        events=[post(), Body(1, b"a"), End(1, [X, (b"z", b"")])]),
    row("no fields in the trailers", OPEN + head(1, []), events=[post(), End(1, [])]),
    row("trailers that must be none are left out", OPEN + head(1, [(b"content-length", b"5"), X, (b"host", b"b"),
        (b"authorization", b"x"), (b"cookie", b"a=b")]), events=[post(), End(1, [X])],
        why="RFC 9110 section 6.5.1, as on HTTP/1.1"),
    *(reset(f"trailers with {name!r}: {value!r}", PROTOCOL_ERROR, OPEN + head(1, [X, (name, value)]), events=[post()])
      for name, value in [(b":path", b"/"), (b":status", b"200"), (b"Upper", b"x"), (b"x", b"\r\n"), (b"x", b" y"),
                          (b"connection", b"close"), (b"transfer-encoding", b"chunked")]),
    reset("trailers that begin with a pseudo-header field", PROTOCOL_ERROR, OPEN + head(1, GET), events=[post()]),
]  # fmt: skip


def limited(**limits: int) -> Http2Options:
    plenty = {"request_line": 0, "header_count": 0, "header_size": 0, "body_size": 0}
    return Http2Options(limits=HttpLimits(**(plenty | limits)))


LIMITS = [
    row("a path that fits", head(1, [*GET[:3], (b":path", b"/" + b"p" * 16)]),
        events=[request(target=b"/" + b"p" * 16)], options=SMALL),
    row("a path that is too long", head(1, [*GET[:3], (b":path", b"/" + b"p" * 17)]), events=[Refused(1, 414, "")],
        options=SMALL),
    row("a method that is too long", head(1, [(b":method", b"M" * 30), *GET[1:]]), events=[Refused(1, 414, "")],
        options=SMALL),
    row("as many fields as may be", head(1, [*GET, *[X] * 5]), events=[request(headers=[*HOST_A, *[X] * 5])],
        options=SMALL),
    row("too many fields", head(1, [*GET, *[X] * 6]), events=[Refused(1, 431, "")], options=SMALL),
    row("too many crumbs", head(1, [*GET, *[(b"cookie", b"a=b")] * 6]), events=[Refused(1, 431, "")], options=SMALL,
        why="they are counted one by one, for each is decoded and held"),
    row("a field that is too large", head(1, [*GET, (b"x", b"v" * 400)]), events=[Refused(1, 431, "")], options=SMALL),
    row("fields that are too large together", head(1, [*GET, *[(b"x", b"v" * 100)] * 4]), events=[Refused(1, 431, "")],
        options=SMALL),
    row("too many fields, malformed", head(1, [*GET, *[(b"X", b"y")] * 6]), events=[Refused(1, 431, "")], options=SMALL,
        why="how much of a list is looked at is not the peer's to choose: limits come first"),
    row("a header list at the limit", head(1, [*GET, (b"x", b"v" * (1000 - 33 - 42 - 43 - 43 - 38))]),
        events=[request(headers=[*HOST_A, (b"x", b"v" * (1000 - 33 - 42 - 43 - 43 - 38))])],
        options=Http2Options(max_header_list=1000)),
    row("a header list one byte over the limit", head(1, [*GET, (b"x", b"v" * (1001 - 33 - 42 - 43 - 43 - 38))]),
        events=[Refused(1, 431, "")], options=Http2Options(max_header_list=1000)),
    row("too large trailers", OPEN + head(1, [(b"x", b"v" * 500)]),
        events=[post(), Refused(1, 431, "")], options=SMALL),
    row("too many trailers", OPEN + head(1, [X] * 7), events=[post(), Refused(1, 431, "")], options=SMALL),
    row("a body that fits", OPEN + data(1, b"12345678", True), events=[post(), Body(1, b"12345678"), End(1, [])],
        options=SMALL),
    row("a length that fits", head(1, sized(b"8"), False) + data(1, b"12345678", True),
        events=[upload(b"8"), Body(1, b"12345678"), End(1, [])], options=SMALL),
    row("a length that is too large", head(1, sized(b"9"), False) + data(1, b"123456789", True),
        events=[Refused(1, 413, "")], options=SMALL),
    row("a body that grows too large", OPEN + data(1, b"12345") + data(1, b"6789") + data(1, b"0", True),
        events=[post(), Body(1, b"12345"), Refused(1, 413, "")], options=SMALL,
        why="the piece that goes over it is not told"),
    row("a body that grows too large with its end", OPEN + data(1, b"123456789", True),
        events=[post(), Refused(1, 413, "")], options=SMALL),
    row("a body that grows too large, then trailers", OPEN + data(1, b"123456789") + head(1, [X]),
        events=[post(), Refused(1, 413, "")], options=SMALL),
    row("a refused request is answered, and its body is not wanted",
        head(1, sized(b"9"), False), answers(1, 413, content=b"no"), data(1, b"123456789", True),
        events=[Refused(1, 413, "")], sent=[answered(1, 413), Data(1, b"no", True), Rst(1, NO_ERROR)], options=SMALL),
    row("a refused request whose body is whole is answered and not reset",
        head(1, sized(b"9"), False) + data(1, b"123456789", True), answers(1, 413, content=b"no"),
        events=[Refused(1, 413, "")], sent=[answered(1, 413), Data(1, b"no", True)], options=SMALL),
    row("a refused request without a body is answered and not reset",
        head(1, [*GET[:3], (b":path", b"/" + b"p" * 17)]), answers(1, 414, content=b"no"),
        events=[Refused(1, 414, "")], sent=[answered(1, 414), Data(1, b"no", True)], options=SMALL),
    row("a refused HEAD has no content",
        head(1, [(b":method", b"HEAD"), *GET[1:3], (b":path", b"/" + b"p" * 17)]), answers(1, 414, content=b"no"),
        events=[Refused(1, 414, "")], sent=[answered(1, 414, end=True)], options=SMALL),
    reset("a refused request: DATA behind its end", 5,
        head(1, sized(b"9"), False) + data(1, b"9", True) + data(1, b"9"),
          events=[Refused(1, 413, "")], options=SMALL),
    reset("a refused request: DATA over its window", 3,
          head(1, sized(b"9" * 19), False) + data(1, b"x" * 60) + data(1, b"x" * 41), events=[Refused(1, 413, "")],
          options=Http2Options(initial_window=100), why="nobody reads it, so its window stays as it is"),
    reset("a refused request: WINDOW_UPDATE of 0", PROTOCOL_ERROR, head(1, sized(b"9"), False) + window(1, 0),
          events=[Refused(1, 413, "")], options=SMALL),
    row("a refused request: RST_STREAM", head(1, sized(b"9"), False) + rst(1), answers(1, 413),
        events=[Refused(1, 413, ""), Reset(1, "", 8)], options=SMALL),
    row("a limit of 0 is none", head(1, [*GET[:3], (b":path", b"/" + b"p" * 9000), *[X] * 200]),
        events=[request(target=b"/" + b"p" * 9000, headers=[*HOST_A, *[X] * 200])], options=limited()),
]  # fmt: skip

ROWS = [*PSEUDO, *TARGETS, *CONNECTS, *HOSTS, *FIELDS, *LENGTHS, *TRAILERS, *LIMITS]
