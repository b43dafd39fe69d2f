"""The script's way into a page: which answers take it, where it goes, and what becomes of the head."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import pytest

from asgiri.dev.insert import Insertion, Phase, PolicyError, nonce_of, takes_tag
from asgiri.types import Message

SRC = "/.asgiri/reload.js"
TAG = b'<script src="/.asgiri/reload.js" data-at="1" defer></script>\n'
HTML = (b"content-type", b"text/html; charset=utf-8")


def start(*fields: Any, status: object = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [*fields]}


def body(data: object, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def through(*messages: Message) -> list[Message]:
    insertion = Insertion(SRC, "1")
    return [given for message in messages for given in insertion.take(message)]


def content(messages: Sequence[Message]) -> bytes:
    return b"".join(message["body"] for message in messages if message["type"] == "http.response.body")


# What a page ends with, with # where the tag goes.
PAGES = [
    b"#",
    b"a#",
    b"<p>a</p>#",
    b"<body>a#</body>",
    b"<body>a#</body></html>",
    b"<body>a#</body>\n</html>\n",
    b"<BODY>a#</BODY\n>\r\n\t</HTML >\n\n",
    b"<body>a#</body></html",
    b"<body>a#</body><",
    b"<body>a</body#",
    b"<body>a<#",
    b"<body>a</bod#",
    b"a</body>b#</body>",
    b"<script>const end = '</body></html>';</script>#</body></html>",
    b"<script>const end = '</body></html>';#",
    b"a</body><!-- by a cache -->#",
    b"a</body></html>b#",
    b"a</body></head>#",
    b"a</bodyguard>#",
    b"<<<</</b</bo#</body>",
    b"</body></body#",
    b"#</body>" + b" " * 200,
    b"</body>" + b" " * 300 + b"#",
]


@pytest.mark.parametrize("page", PAGES)
def test_the_tag_goes_in_once_wherever_the_page_is_cut(page: bytes) -> None:
    plain, expected = page.replace(b"#", b""), page.replace(b"#", TAG)
    for cut in range(len(plain) + 1):
        for length in ((), ((b"content-length", b"%d" % len(plain)),)):
            head, *rest = through(start(HTML, *length), body(plain[:cut], True), body(plain[cut:]))
            assert content(rest) == expected, cut
            if length:
                assert head["headers"][1] == (b"content-length", b"%d" % len(expected))
            assert [message["more_body"] for message in rest] == [True, False]
    [_, whole] = through(start(HTML), body(plain))
    assert whole["body"] == expected
    _, *pieces = through(start(HTML), *[body(bytes([byte]), True) for byte in plain], body(b""))
    assert content(pieces) == expected


def test_what_streams_goes_on_streaming() -> None:
    """Nothing is kept back but what may be the end of the page."""
    insertion = Insertion(SRC, "1")
    assert insertion.take(start(HTML)) == ()
    head, first = insertion.take(body(b"<body><p>one</p>", True))
    assert (head, first) == (start(HTML), body(b"<body><p>one</p>", True))
    for piece, given in [(b"two", b"two"), (b"<", b""), (b"p>three", b"<p>three"), (b"</body> ", b""), (b"", b"")]:
        assert insertion.take(body(piece, True)) == (body(given, True),)
    assert insertion.take(body(b"four", True)) == (body(b"</body> four", True),)
    assert insertion.take(body(b"</body>")) == (body(TAG + b"</body>"),)


@pytest.mark.parametrize("data", [bytearray(b"a"), memoryview(b"a")])
def test_content_is_any_bytes(data: object) -> None:
    assert content(through(start(HTML), body(data))) == b"a" + TAG
    assert content(through(start(HTML), {"type": "http.response.body"})) == TAG


LEFT_ALONE: list[list[Message]] = [
    [start((b"content-type", b"application/json")), body(b"{}")],
    [start(), body(b"<body></body>")],
    [start(HTML, (b"content-encoding", b"gzip")), body(b"\x1f\x8b", True), body(b"")],
    [start(HTML, status=204), body(b"")],
    [start(HTML, status=304), body(b"")],
    [start(HTML, status=206), body(b"a")],
    [start(HTML, status=302), body(b"a")],
    [start(HTML), {"type": "http.response.pathsend", "path": "/x.html"}],
    [start(HTML, (b"content-length", b"5")), {"type": "http.response.zerocopysend", "file": 3, "count": 5}],
    [start(HTML), {"type": "http.response.zerocopysend", "file": 3, "more_body": True}, body(b"</body>")],
    [body(b"too early")],
    [start(HTML), body("text")],
    [start(HTML, (b"content-length", b"1"), (b"content-length", b"1")), body(b"a")],
    [start(HTML, (b"content-length", b"a")), body(b"a")],
    [start(("content-type", "text/html")), body(b"a")],
    [{"type": "http.response.start", "status": 200, "headers": [b"ab", 7]}, body(b"a")],
    [start(HTML, status="200"), body(b"a")],
    [start(HTML), start(HTML), body(b"a")],
    [{"type": "http.response.start"}, body(b"a")],
    [{"type": "http.response.start", "status": 200, "headers": 7}, body(b"a")],
    [{"type": "no.such.thing"}, {}],
]


@pytest.mark.parametrize("messages", LEFT_ALONE)
def test_other_answers_are_left_alone(messages: list[Message]) -> None:
    """Those that make no sense as well: the server says what is wrong with them."""
    assert through(*messages) == messages


def test_a_file_in_the_middle_of_a_page() -> None:
    file: Message = {"type": "http.response.zerocopysend", "file": 3, "more_body": True}
    messages = through(start(HTML, (b"content-length", b"20")), body(b"a</body>", True), file, body(b"b"))
    assert messages[0]["headers"][1] == (b"content-length", b"%d" % (20 + len(TAG)))
    assert messages[1:] == [body(b"a", True), body(b"</body>", True), file, body(b"b" + TAG)]
    last: Message = {"type": "http.response.zerocopysend", "file": 3}
    messages = through(start(HTML), body(b"a", True), last)
    assert messages[1:] == [
        body(b"a", True),
        {**last, "more_body": True},
        {"type": "http.response.body", "body": TAG},
    ]


def test_hints_and_trailers_pass() -> None:
    hint: Message = {"type": "http.response.early_hint", "links": [b"</a>"]}
    trailers: Message = {"type": "http.response.trailers", "headers": []}
    head = {**start(HTML), "trailers": True}
    assert through(hint, head, hint, body(b"a"), trailers) == [hint, hint, head, body(b"a" + TAG), trailers]


def test_what_the_page_is_compared_by_goes() -> None:
    fields = [HTML, (b"ETag", b'"1"'), (b"Last-Modified", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"x-a", b"1")]
    head, _ = through(start(*fields), body(b"a"))
    assert head["headers"] == [HTML, (b"x-a", b"1")]


def test_headers_may_be_whatever_can_be_read_once() -> None:
    head = {"type": "http.response.start", "status": HTTPStatus.OK, "headers": iter([HTML])}
    assert through(head, body(b"a")) == [start(HTML, status=200), body(b"a" + TAG)]
    plain = {"type": "http.response.start", "status": 200, "headers": iter([(b"content-type", b"image/png")])}
    assert through(plain, body(b"a")) == [start((b"content-type", b"image/png")), body(b"a")]


def test_the_tag_is_escaped() -> None:
    insertion = Insertion('/"><b>/reload.js', '"&')
    insertion.take(start(HTML))
    _, message = insertion.take(body(b""))
    assert b'src="/&quot;&gt;&lt;b&gt;/reload.js" data-at="&quot;&amp;"' in message["body"]


@pytest.mark.parametrize(
    ("kind", "takes"),
    [
        ("text/html", True),
        ("Text/HTML;charset=UTF-8", True),
        ("text/html ; charset=iso-8859-1", True),
        ('text/html; charset="utf-16"', False),
        ("text/html;charset=UTF-16LE", False),
        ("text/htmlx", False),
        ("application/xhtml+xml", False),
        ("text/plain", False),
    ],
)
def test_which_types_are_pages(kind: str, takes: bool) -> None:
    assert takes_tag(200, [(b"content-type", kind.encode())]) is takes


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("cache-control", "no-cache, no-transform", False),
        ("cache-control", "no-cache", True),
        ("content-disposition", 'attachment; filename="a.html"', False),
        ("content-disposition", "inline", True),
        ("content-digest", "sha-256=:x:", False),
        ("repr-digest", "sha-256=:x:", False),
        ("digest", "sha-256=x", False),
        ("content-md5", "x", False),
        ("content-range", "bytes 0-1/2", False),
        ("content-encoding", "br", False),
        ("etag", '"1"', True),
    ],
)
def test_which_fields_keep_it_out(name: str, value: str, takes: bool) -> None:
    assert takes_tag(200, [HTML, (name.encode(), value.encode())]) is takes


@pytest.mark.parametrize("status", [200, 201, 404, 500, HTTPStatus.NOT_FOUND])
def test_pages_of_errors_take_it_too(status: int) -> None:
    assert takes_tag(status, [HTML])


# Content-Security-Policy -> the nonce; None: refused.
POLICIES = [
    ([], ""),
    ([""], ""),
    (["script-src 'self'"], ""),
    (["default-src 'self'"], ""),
    (["default-src 'none'; script-src 'SELF'; connect-src 'self'"], ""),
    (["img-src 'none'"], ""),
    (["script-src *"], ""),
    (["script-src-elem 'self'; script-src 'none'"], ""),
    (["script-src 'self'; script-src 'none'"], ""),
    (["SCRIPT-SRC 'self'"], ""),
    (["sandbox allow-scripts; script-src 'self'"], ""),
    (["script-src 'nonce-a+b/='"], "a+b/="),
    (["script-src 'strict-dynamic' 'nonce-ab' 'self'"], "ab"),
    (["script-src 'self'", "script-src 'nonce-ab'"], "ab"),
    (["style-src 'nonce-ab'; script-src 'self'"], ""),
    (["default-src 'none'"], None),
    (["script-src 'none'"], None),
    (["script-src 'unsafe-inline' https://a.example"], None),
    (["script-src 'self'; connect-src https://a.example"], None),
    (["default-src 'none'; script-src 'self'"], None),
    (["script-src 'strict-dynamic' 'self'"], None),
    (["script-src 'self'", "script-src 'none'"], None),
    (["script-src 'self', script-src 'none'"], None),
    (["sandbox"], None),
]


@pytest.mark.parametrize(("policies", "nonce"), POLICIES)
def test_a_policy_may_let_it_run(policies: list[str], nonce: str | None) -> None:
    fields = [HTML, *((b"content-security-policy", policy.encode()) for policy in policies)]
    insertion = Insertion(SRC, "1")
    if nonce is None:
        with pytest.raises(PolicyError):
            insertion.take(start(*fields))
        assert insertion.phase is Phase.PLAIN
        return
    assert nonce_of(fields) == nonce
    insertion.take(start(*fields))
    _, message = insertion.take(body(b""))
    assert (f' nonce="{nonce}"'.encode() in message["body"]) is bool(nonce)
