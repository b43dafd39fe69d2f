"""Requests whose header fields came before: each is read as if it were the first, whatever was between them."""

from __future__ import annotations

import asyncio

import pytest

from asgiri.codec.engines import http1_engine
from asgiri.codec.framing import LONG_LINE, MOST_KNOWN
from asgiri.codec.rules import HttpLimits
from asgiri.proto.http11 import Http11Connection
from asgiri.types import Receive, Scope, Send
from tests.proto.fakes import FakeTransport, Held, Peer, echo, in_loop, read_body, reply, request, settle

pytestmark = pytest.mark.usefixtures("each_engine")

FIELDS = ["Accept: */*", "User-Agent: test", "X-Twice: 1", "X-Twice: 2"]


class Keeps:
    """Keeps each request, and answers with its body."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        self.bodies.append(await read_body(receive))
        await reply(send, scope["method"].encode())


def fields_of(*fields: str) -> list[tuple[bytes, bytes]]:
    pairs = [field.split(": ") for field in ["Host: asgiri.test", *fields]]
    return [(name.lower().encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "pipelined"])
@in_loop
async def test_the_same_fields_and_other_request_lines(together: bool) -> None:
    app = Keeps()
    peer = Peer(app)
    asked = [
        request("/", *FIELDS),
        request("/a?b=c%20d?e", *FIELDS),
        request("/%C3%A9", *FIELDS, method="HEAD"),
        request("/empty", *FIELDS, method="POST"),
        request("/full", *FIELDS, method="POST", body=b"body"),
        request("/odd", *FIELDS, method="M-SEARCH"),
        request("/chunks", *FIELDS, "Transfer-Encoding: chunked", method="PUT") + b"4\r\nbody\r\n0\r\n\r\n",
        request("/" + "x" * LONG_LINE, *FIELDS),
        request("http://other.test/absolute", *FIELDS),
        request("/", "Accept: text/plain"),
        request("/", *FIELDS),
        request("/", *FIELDS, version="1.2"),
        request("*", *FIELDS, method="OPTIONS"),
        request("/last", *FIELDS),
    ]
    if together:
        peer.feed(b"".join(asked))
        for _ in range(4):
            await settle()
    else:
        for data in asked:
            peer.feed(data)
            await settle()
    assert [scope["method"] for scope in app.scopes] == [
        *("GET", "GET", "HEAD", "POST", "POST", "M-SEARCH", "PUT", "GET", "GET", "GET", "GET", "GET", "OPTIONS", "GET")
    ]
    assert [scope["path"] for scope in app.scopes[:4]] == ["/", "/a", "/é", "/empty"]
    assert app.scopes[1]["raw_path"] == b"/a"
    assert app.scopes[1]["query_string"] == b"b=c%20d?e"
    assert app.scopes[2]["query_string"] == b""
    assert app.scopes[-1]["path"] == "/last"
    assert app.bodies[4] == app.bodies[6] == b"body"
    assert [body for number, body in enumerate(app.bodies) if number not in (4, 6)] == [b""] * 12
    plain = fields_of(*FIELDS)
    for number in (0, 1, 2, 3, 5, 7, 10, 11, 12, 13):
        assert app.scopes[number]["headers"] == plain
    assert app.scopes[8]["headers"][0] == (b"host", b"other.test")
    assert app.scopes[9]["headers"] == fields_of("Accept: text/plain")
    assert {scope["http_version"] for scope in app.scopes} == {"1.1"}
    head = peer.sent().split(b"HTTP/1.1 200 OK")[3]
    assert head.endswith(b"\r\n\r\n"), "the answer to HEAD behind a GET has no content"
    await peer.end()


@in_loop
async def test_close_is_not_forgotten_and_not_remembered() -> None:
    peer = Peer(echo)
    peer.feed(request("/", *FIELDS))
    await settle()
    peer.feed(request("/", *FIELDS))
    await settle()
    peer.feed(request("/", *FIELDS, "Connection: close"))
    await settle()
    assert [answer.closes for answer in peer.answers] == [False, False, True]
    assert peer.transport.is_closing()
    await peer.end()


@in_loop
async def test_keep_alive_is_no_close() -> None:
    peer = Peer(echo)
    for _ in range(3):
        peer.feed(request("/", "Connection: keep-alive"))
        await settle()
    assert [answer.closes for answer in peer.answers] == [False] * 3
    await peer.end()


@in_loop
async def test_draining_closes_a_known_one_too() -> None:
    peer = Peer(echo)
    for draining in (False, False, True):
        peer.shared.draining = draining
        peer.feed(request("/", *FIELDS))
        await settle()
    assert [answer.closes for answer in peer.answers] == [False, False, True]
    await peer.end()


@pytest.mark.parametrize("size", [40, 41])
@in_loop
async def test_the_limit_of_the_request_line(size: int) -> None:
    peer = Peer(echo, limits=HttpLimits(request_line=40))
    peer.feed(request("/"))
    await settle()
    peer.feed(request("/" + "x" * (size - len("GET / HTTP/1.1"))))
    await settle()
    assert peer.statuses == [200, 200 if size == 40 else 414]
    await peer.end()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /a b HTTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET /\n HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nContent-Length : 3", 400),
        (b"GET / HTTP/1.1\r\n folded: 1", 400),
        (b"CONNECT /a HTTP/1.1", 501),
        (b"GET * HTTP/1.1", 400),
        (b"", 200),
    ],
)
@in_loop
async def test_a_bad_line_with_known_fields(line: bytes, status: int) -> None:
    peer = Peer(echo)
    known = request("/", *FIELDS).partition(b"\r\n")[2]
    peer.feed(b"GET / HTTP/1.1\r\n" + known)
    await settle()
    peer.feed(line + b"\r\n" + known if line else b"\r\n\r\nGET / HTTP/1.1\r\n" + known)
    await settle()
    assert peer.statuses == [200, status]
    await peer.end()


@in_loop
async def test_fields_in_front_of_known_ones_are_seen() -> None:
    app = Keeps()
    peer = Peer(app)
    known = request("/", *FIELDS).partition(b"\r\n")[2]
    peer.feed(b"GET / HTTP/1.1\r\n" + known)
    await settle()
    peer.feed(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n" + known)
    peer.feed(b"abc")
    await settle()
    assert app.bodies == [b"", b"abc"]
    assert app.scopes[1]["headers"] == [(b"content-length", b"3"), *fields_of(*FIELDS)]
    await peer.end()


@in_loop
async def test_a_known_head_in_two_pieces() -> None:
    app = Keeps()
    peer = Peer(app)
    data = request("/a", *FIELDS)
    for cut in range(1, len(data)):
        peer.feed(data)
        await settle()
        peer.feed(data[:cut])
        await settle()
        peer.feed(data[cut:])
        await settle()
    assert len(app.scopes) == 2 * (len(data) - 1)
    assert all(scope["headers"] == fields_of(*FIELDS) and scope["path"] == "/a" for scope in app.scopes)
    await peer.end()


@in_loop
async def test_content_that_ends_like_a_known_head() -> None:
    """Within a body no head is looked for."""
    app = Keeps()
    peer = Peer(app)
    data = request("/a", *FIELDS)
    peer.feed(data)
    await settle()
    peer.feed(request("/b", f"Content-Length: {len(data)}", method="POST"))
    await settle()
    peer.feed(data)
    await settle()
    assert app.bodies == [b"", data]
    await peer.end()


@in_loop
async def test_two_connections_do_not_mix() -> None:
    app = Keeps()
    peer = Peer(app)
    other = Http11Connection(peer.shared)
    transport = FakeTransport(asyncio.get_running_loop(), other)
    other.connection_made(transport)
    for _ in range(3):
        peer.feed(request("/", "X-Secret: one"))
        other.data_received(request("/", "X-Secret: two"))
        await settle()
    seen = [dict(scope["headers"])[b"x-secret"] for scope in app.scopes]
    assert sorted(seen) == [b"one"] * 3 + [b"two"] * 3
    for scope in app.scopes:
        scope["headers"].clear()
    transport.lose()
    await peer.end()


@in_loop
async def test_no_request_sees_what_an_app_did_to_the_scope_of_another() -> None:
    app = Held()
    peer = Peer(app)
    peer.shared.context.state = {"db": 1}
    for number in range(4):
        app.release("/")
        peer.feed(request("/", *FIELDS))
        await settle()
        scope = app.scopes[-1]
        assert scope["headers"] == fields_of(*FIELDS)
        assert scope["state"].pop("request_id").startswith("1-")
        assert scope["state"] == {"db": 1}
        assert set(scope["asgi"]) == {"version", "spec_version"}
        assert "mine" not in scope["extensions"]
        assert "mine" not in scope
        scope["headers"].append((b"mine", b"%d" % number))
        scope["headers"][0] = (b"host", b"forged")
        for changed in (scope, scope["state"], scope["asgi"], scope["extensions"]):
            changed["mine"] = number
    for key in ("headers", "state", "asgi", "extensions"):
        assert len({id(scope[key]) for scope in app.scopes}) == 4
    await peer.end()


@pytest.mark.parametrize("engine", ["h11", "httptools"])
def test_what_a_connection_remembers_is_bounded(engine: str) -> None:
    codec = http1_engine(engine)(HttpLimits(header_count=0, header_size=0))
    codec.receive(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * MOST_KNOWN + b"\r\n\r\n")
    assert not codec._known
    assert not codec._known_fields
