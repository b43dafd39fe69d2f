"""The ASGI extensions and the request limit, on the wire of an HTTP/1.1 connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from asgiri.asgi.scope import HTTP_EXTENSIONS
from asgiri.proto.connection import HIGH_WATER, LINGER_SECONDS, TimeLimits
from asgiri.proto.http11_life import State
from asgiri.types import Message, Receive, Scope, Send
from tests.proto.fakes import ByHand, Held, Peer, hello, in_loop, reply, request, settle, until

pytestmark = pytest.mark.usefixtures("each_engine")

TE = "TE: trailers"


def start(*headers: tuple[bytes, bytes], status: int = 200, trailers: bool = False) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), "trailers": trailers}


def body(data: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def trailers(*headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.trailers", "headers": list(headers)}


def hint(*links: bytes) -> Message:
    return {"type": "http.response.early_hint", "links": links}


def pathsend(path: Path) -> Message:
    return {"type": "http.response.pathsend", "path": str(path)}


def zerocopy(file: object, offset: int, count: int, more: bool) -> Message:
    part = {"offset": offset, "count": count, "more_body": more}
    return {"type": "http.response.zerocopysend", "file": file, **part}


def says(*messages: Message) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 2048)  # 512 KiB: several pieces, and more than may wait
    return file


@in_loop
async def test_the_scope_offers_what_the_connection_can_do() -> None:
    app = Held()
    peer = Peer(app)
    peer.feed(request("/"))
    await until(lambda: app.scopes)
    assert set(app.scopes[0]["extensions"]) == set(HTTP_EXTENSIONS)
    app.release("/")
    await peer.end()


# Trailers


@in_loop
async def test_trailers_are_behind_the_last_chunk() -> None:
    peer = Peer(says(start(trailers=True), body(b"hello"), trailers((b"x-sum", b"5"), (b"x-time", b"1"))))
    peer.feed(request("/", TE))
    await until(lambda: peer.state() is State.IDLE)
    head, _, rest = peer.sent().partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"content-length" not in head.lower()
    assert rest == b"5\r\nhello\r\n0\r\nx-sum: 5\r\nx-time: 1\r\n\r\n"
    peer.transport.writes.clear()
    peer.feed(request("/", TE))
    await until(lambda: peer.state() is State.IDLE)
    assert b"x-sum" in peer.sent(), "and the connection goes on"
    await peer.end()


@pytest.mark.parametrize(
    ("data", "head", "ends"),
    [
        (request("/"), start(trailers=True), b"5\r\nhello\r\n0\r\n\r\n"),
        (request("/", TE), start((b"content-length", b"5"), trailers=True), b"\r\n\r\nhello"),
        (request("/", TE, method="HEAD"), start(trailers=True), b"\r\n\r\n"),
        (request("/", TE), start(status=304, trailers=True), b"\r\n\r\n"),
        (request("/", TE, version="1.0"), start(trailers=True), b"\r\n\r\nhello"),
    ],
    ids=["not asked for", "content-length", "HEAD", "304", "HTTP/1.0"],
)
@in_loop
async def test_where_no_trailers_can_be_the_answer_ends_without(data: bytes, head: Message, ends: bytes) -> None:
    peer = Peer(says(head, body(b"hello"), trailers((b"x-sum", b"5"))))
    peer.feed(data)
    await until(lambda: peer.state() in (State.IDLE, State.CLOSED))
    assert peer.sent().endswith(ends)
    assert b"x-sum" not in peer.sent()
    await peer.end()


@pytest.mark.parametrize("name", [b"content-length", b"transfer-encoding", b"host", b"x y"])
@in_loop
async def test_trailers_that_may_not_be_cut_the_connection(name: bytes, caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer(says(start(trailers=True), body(b"hello"), trailers((name, b"5"))))
    peer.feed(request("/", TE))
    await until(lambda: peer.transport.is_lost())
    assert peer.transport.is_aborted()
    assert not peer.answers
    assert "RuntimeError" in caplog.text
    await peer.end()


@in_loop
async def test_announced_trailers_that_never_come_cut_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer(says(start(trailers=True), body(b"hello")))
    peer.feed(request("/", TE))
    await until(lambda: peer.transport.is_lost())
    assert peer.transport.is_aborted()
    assert not peer.answers
    assert "without completing" in caplog.text
    await peer.end()


# Early hints


@in_loop
async def test_early_hints_come_before_the_answer() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request())
    call = await app.next()
    await call.send(hint(b"</a.css>; rel=preload", b"</b.js>"))
    [head, rest] = peer.sent().split(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 103 Early Hints",
        b"link: </a.css>; rel=preload",
        b"link: </b.js>",
    ]
    assert not rest
    await call.send(hint(b"</c>"))
    await call.reply()
    assert [(answer.status, answer.interim) for answer in peer.answers] == [(200, (103, 103))]
    assert peer.state() is State.IDLE
    await peer.end()


@in_loop
async def test_http_1_0_gets_no_early_hints() -> None:
    peer = Peer(says(hint(b"</a>"), start(), body(b"hello")))
    peer.feed(request("/", version="1.0"))
    await until(lambda: peer.transport.is_lost())
    assert peer.sent().startswith(b"HTTP/1.1 200")
    assert [answer.interim for answer in peer.answers] == [()]
    await peer.end()


@in_loop
async def test_an_early_hint_is_not_the_100_that_the_peer_waits_for() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/", "Content-Length: 5", "Expect: 100-continue", method="POST"))
    call = await app.next()
    await call.send(hint(b"</a>"))
    peer.passes(100)
    assert peer.statuses == [], "the body is not late: nobody asked for it"
    asking = asyncio.ensure_future(call.receive())
    await until(lambda: b"100 Continue" in peer.sent())
    peer.feed(b"hello")
    assert (await asking)["body"] == b"hello"
    await call.reply()
    assert [(answer.status, answer.interim, answer.closes) for answer in peer.answers] == [(200, (103, 100), False)]
    await peer.end()


@in_loop
async def test_an_early_hint_that_cannot_be_sent_is_the_apps_fault(caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer(says(hint(b"</a>\r\nset-cookie: a=b")))
    peer.feed(request())
    await until(lambda: peer.answers)
    assert [(answer.status, answer.interim) for answer in peer.answers] == [(500, ())]
    assert b"set-cookie" not in peer.sent()
    assert "RuntimeError" in caplog.text
    await peer.end()


# Files, by reading them: this transport has no socket


@in_loop
async def test_a_path(path: Path) -> None:
    peer = Peer(says(start(), pathsend(path)))
    peer.feed(request() * 2)
    await until(peer.has_answered(2))
    for answer in peer.answers:
        assert answer.headers["content-length"] == str(512 << 10)
        assert answer.body == path.read_bytes()
    assert peer.state() is State.IDLE
    await peer.end()


@pytest.mark.parametrize(
    ("method", "status", "length"), [("HEAD", 200, "524288"), ("GET", 304, None), ("GET", 204, None)]
)
@in_loop
async def test_a_file_where_the_answer_may_have_no_content(
    method: str, status: int, length: str | None, path: Path
) -> None:
    peer = Peer(says(start(status=status), pathsend(path)))
    for _ in range(2):
        peer.transport.writes.clear()
        peer.feed(request(method=method))
        await until(lambda: peer.sent() and peer.state() is State.IDLE)
        head, _, rest = peer.sent().partition(b"\r\n\r\n")
        assert not rest
        fields = dict(line.lower().split(": ") for line in head.decode().split("\r\n")[1:])
        assert fields.get("content-length") == length
    await peer.end()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"300011")]])
@in_loop
async def test_stretches_between_pieces(headers: list[tuple[bytes, bytes]], version: str, path: Path) -> None:
    content = path.read_bytes()
    with path.open("rb") as file:
        messages = [
            start(*headers),
            zerocopy(file, 300_000, 100_000, True),
            body(b"hello", True),
            zerocopy(file, 0, 0, True),
            zerocopy(file.fileno(), 1, 200_000, True),
            body(b" world"),
        ]
        peer = Peer(says(*messages))
        peer.feed(request(version=version))
        await until(lambda: peer.answers or peer.transport.is_lost())
    [answer] = peer.answers
    assert answer.body == content[300_000:400_000] + b"hello" + content[1:200_001] + b" world"
    assert ("content-length" in answer.headers) is bool(headers)
    await peer.end()


@in_loop
async def test_a_stretch_as_the_last_piece_of_chunks(path: Path) -> None:
    with path.open("rb") as file:
        peer = Peer(says(start(), body(b"-", True), zerocopy(file, 0, 5, False)))
        peer.feed(request())
        await until(peer.has_answered(1))
    assert peer.answers[0].body == b"-\x00\x01\x02\x03\x04"
    assert peer.state() is State.IDLE
    await peer.end()


@in_loop
async def test_a_file_and_trailers(path: Path) -> None:
    peer = Peer(says(start(trailers=True), pathsend(path), trailers((b"x-sum", b"5"))))
    peer.feed(request("/", TE))
    await until(lambda: peer.state() is State.IDLE)
    assert peer.sent().endswith(b"\r\n0\r\nx-sum: 5\r\n\r\n")
    await peer.end()


@in_loop
async def test_what_is_read_of_a_file_waits_for_the_peer(path: Path) -> None:
    peer = Peer(says(start(), pathsend(path)))
    peer.transport.stalled = True
    peer.feed(request() * 2)
    most = 0
    while not peer.has_answered(2)():
        await asyncio.sleep(0.001)
        most = max(most, peer.transport.waiting)
        peer.transport.peer_reads(32 << 10)
    assert most < HIGH_WATER + (160 << 10)
    assert peer.answers[1].body == path.read_bytes()
    peer.transport.peer_reads(1 << 20)
    await peer.end()


@in_loop
async def test_a_peer_that_does_not_read_a_file_is_cut_off(path: Path) -> None:
    peer = Peer(says(start(), pathsend(path)))
    peer.transport.stalled = True
    peer.feed(request())
    await until(lambda: peer.transport.waiting > HIGH_WATER)
    peer.passes(1)
    peer.passes(59)
    assert not peer.transport.is_aborted()
    peer.passes(2)
    assert peer.transport.is_aborted()
    await until(lambda: not peer.shared.sessions)
    await peer.end()


@in_loop
async def test_a_request_over_its_time_is_cut_in_the_middle_of_a_file(path: Path) -> None:
    peer = Peer(says(start(), pathsend(path)), times=TimeLimits(request=5))
    peer.transport.stalled = True
    peer.feed(request())
    await until(lambda: peer.transport.waiting > HIGH_WATER)
    written = len(peer.sent())
    peer.passes(6)
    assert peer.transport.is_aborted()
    await until(lambda: not peer.shared.sessions)
    assert len(peer.sent()) == written, "no 503 in the middle of it"
    await peer.end()


@in_loop
async def test_a_body_that_is_late_cuts_and_writes_nothing_into_a_file(path: Path) -> None:
    peer = Peer(says(start(), pathsend(path)))
    peer.transport.stalled = True
    peer.feed(request("/", "Content-Length: 5", method="POST"))
    await until(lambda: peer.transport.waiting > HIGH_WATER)
    written = len(peer.sent())
    peer.transport.peer_reads(1)
    peer.passes(61)
    assert peer.transport.is_aborted()
    await until(lambda: not peer.shared.sessions)
    assert len(peer.sent()) == written
    await peer.end()


@in_loop
async def test_a_drain_waits_for_a_file(path: Path) -> None:
    peer = Peer(says(start(), pathsend(path)))
    peer.transport.stalled = True
    peer.feed(request())
    await until(lambda: peer.transport.waiting > HIGH_WATER)
    peer.shared.draining = True
    peer.connection.close_idle()
    assert not peer.transport.is_closing()
    peer.transport.stalled = False
    peer.transport.peer_reads(1 << 20)
    await until(lambda: peer.answers)
    assert peer.answers[0].body == path.read_bytes()
    await peer.end()


@in_loop
async def test_a_file_that_becomes_shorter_cuts_the_connection(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer(says(start(), pathsend(path)))
    peer.transport.stalled = True
    peer.feed(request())
    await until(lambda: peer.transport.waiting > HIGH_WATER)
    with path.open("r+b") as file:
        file.truncate(1000)
    peer.transport.stalled = False
    peer.transport.peer_reads(1 << 20)
    await until(lambda: peer.transport.is_lost())
    assert peer.transport.is_aborted()
    assert "truncated" in caplog.text
    assert caplog.text.count("ERROR") == 1
    await peer.end()


# The request limit


@in_loop
async def test_requests_over_the_limit_are_answered_at_once() -> None:
    app = Held()
    first, second = Peer(app, requests=1), Peer(app)
    second.shared.sessions = first.shared.sessions
    second.shared.requests = 1
    first.feed(request("/1"))
    await until(lambda: app.paths)
    second.feed(request("/2"))
    assert [(answer.status, answer.headers["retry-after"], answer.closes) for answer in second.answers] == [
        (503, "1", False)
    ]
    assert second.state() is State.IDLE
    app.release("/1")
    await until(first.has_answered(1))
    assert first.statuses == [200], "what runs is untouched"
    app.release("/3")
    second.feed(request("/3"))
    await until(second.has_answered(2))
    assert second.statuses == [503, 200]
    assert app.paths == ["/1", "/3"], "the refused one never reached the app"
    await first.end()
    await second.end()


async def busy(app: Held) -> Peer:
    """A peer of a server that has as many requests as it may."""
    holder = Peer(app)
    holder.feed(request("/held"))
    await until(lambda: app.paths)
    peer = Peer(app, requests=1)
    peer.shared.sessions = holder.shared.sessions
    return peer


async def free(app: Held, peer: Peer) -> None:
    app.release("/held")
    await until(lambda: not peer.shared.sessions)


@pytest.mark.parametrize(
    "data",
    [
        request("/2", method="POST", body=b"x" * 300),
        request("/2", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("cut", [1, 1000])
@in_loop
async def test_the_body_of_a_request_over_the_limit_is_discarded(data: bytes, cut: int) -> None:
    app = Held()
    peer = await busy(app)
    for index in range(0, len(data), cut):
        peer.feed(data[index : index + cut])
    assert peer.statuses == [503]
    assert peer.state() is State.IDLE
    await free(app, peer)
    app.release("/3")
    peer.feed(request("/3"))
    await until(peer.has_answered(2))
    assert peer.statuses == [503, 200]
    await peer.end()


@pytest.mark.parametrize(
    "data",
    [
        request("/2", "Content-Length: 5", "Expect: 100-continue", method="POST"),
        request("/2", "Connection: close"),
        request("/2", version="1.0"),
    ],
    ids=["continue", "close", "1.0"],
)
@in_loop
async def test_a_request_over_the_limit_may_be_the_last(data: bytes) -> None:
    app = Held()
    peer = await busy(app)
    peer.feed(data)
    assert [(answer.status, answer.interim, answer.closes) for answer in peer.answers] == [(503, (), True)]
    assert peer.state() in (State.LINGERING, State.CLOSED)
    peer.passes(LINGER_SECONDS + 1)
    await free(app, peer)
    await peer.end()


@in_loop
async def test_pipelined_requests_over_the_limit_are_answered_in_order() -> None:
    app = Held()
    peer = await busy(app)
    peer.feed(request("/2") * 40 + request("/3", method="HEAD") + request("/4"))
    await until(lambda: peer.sent().count(b"HTTP/1.1 503") == 42)
    assert peer.state() is State.IDLE
    await free(app, peer)
    await peer.end()


@in_loop
async def test_without_a_limit_any_number_of_requests_may_run() -> None:
    app = Held()
    peers = [Peer(app) for _ in range(30)]
    for number, peer in enumerate(peers):
        peer.shared.sessions = peers[0].shared.sessions
        peer.feed(request(f"/{number}"))
        app.release(f"/{number}")
    for peer in peers:
        await until(peer.has_answered(1))
        assert peer.statuses == [200]
    await settle()
    for peer in peers:
        await peer.end()


@in_loop
async def test_work_after_the_answer_counts() -> None:
    """The limit is there for what a worker has to do, and that is not over."""
    app = ByHand()
    peer = Peer(app, requests=1)
    peer.feed(request("/1"))
    call = await app.next()
    await reply(call.send)
    peer.feed(request("/2"))
    assert peer.statuses == [200, 503]
    call.finish()
    await settle()
    peer.feed(request("/3"))
    await (await app.next()).reply()
    assert peer.statuses == [200, 503, 200]
    await peer.end()


@in_loop
async def test_the_limit_is_a_number_that_may_run() -> None:
    peer = Peer(hello, requests=1)
    peer.feed(request() * 10)
    await until(peer.has_answered(10))
    assert peer.statuses == [200] * 10, "a pipeline has one at a time"
    await peer.end()
