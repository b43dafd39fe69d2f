"""What the connection tells the access log: one line for every exchange, with what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import pytest

from asgiri.codec.rules import HttpLimits
from asgiri.log.access import AccessLog, Outlet
from asgiri.log.file import LogFile
from asgiri.log.layout import Layout, Source
from asgiri.proto.connection import HIGH_WATER, TimeLimits
from asgiri.proto.exchange import PEER_LEFT
from asgiri.proto.http11_life import State
from asgiri.server import Server
from asgiri.types import Headers, Message, Receive, Scope, Send
from tests.proto.fakes import ByHand, Held, Peer, echo, hello, in_loop, reply, request, settle, until
from tests.serving import MIB, config, connected, on_both_loops

pytestmark = pytest.mark.usefixtures("each_engine")

App = Callable[[Scope, Receive, Send], Awaitable[None]]
CHUNKED = "Transfer-Encoding: chunked"


@dataclass
class Line:
    method: str
    target: bytes
    version: str
    headers: Headers
    status: int
    size: int
    seconds: float
    request_id: str

    @property
    def short(self) -> tuple[str, bytes, int, int]:
        return self.method, self.target, self.status, self.size


class Lines:
    """Keeps what it is told."""

    picks = False

    def __init__(self) -> None:
        self.all: list[Line] = []

    def record(
        self,
        client: str,
        method: str,
        target: bytes,
        version: str,
        headers: Headers,
        status: int,
        size: int,
        began: float,
        connection: int,
        request: int,
        request_id: str,
    ) -> None:
        assert client == "192.0.2.7:40000"
        assert type(status) is int or status in set(range(100, 600))
        self.all.append(
            Line(
                method,
                target,
                version,
                list(headers),
                int(status),
                size,
                perf_counter() - began,
                request_id,
            )
        )

    @property
    def short(self) -> list[tuple[str, bytes, int, int]]:
        return [line.short for line in self.all]


def start(*headers: tuple[bytes, bytes], status: int = 200, trailers: bool = False) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers), "trailers": trailers}


def body(data: bytes = b"", more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def says(*messages: Message) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


async def fails_before(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("before the start")


async def fails_later(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"some", more=True))
    raise ValueError("behind the start")


async def fails_between(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    raise ValueError("before the first piece")


ANY = -1  # as many as the answer has
ERROR = b"500 Internal Server Error\n"
EXCHANGES: list[tuple[str, App, bytes, list[tuple[str, bytes, int, int]]]] = [
    ("plain", hello, request("/abc"), [("GET", b"/abc", 200, 4)]),
    ("with a query", hello, request("/abc?d=e%20f"), [("GET", b"/abc?d=e%20f", 200, 4)]),
    ("HEAD", hello, request("/abc", method="HEAD"), [("HEAD", b"/abc", 200, 0)]),
    ("304", says(start(status=304), body()), request("/"), [("GET", b"/", 304, 0)]),
    ("204 with a body", says(start(status=204), body(b"x")), request("/"), [("GET", b"/", 204, 0)]),
    ("empty", says(start(), body()), request("/"), [("GET", b"/", 200, 0)]),
    ("stream", says(start(), body(b"ab", True), body(b"c", True), body()), request("/"), [("GET", b"/", 200, 3)]),
    (
        "stream to HTTP/1.0",
        says(start(), body(b"ab", True), body()),
        request("/", version="1.0"),
        [("GET", b"/", 200, 2)],
    ),
    (
        "stream to HEAD",
        says(start(), body(b"ab", True), body(b"c")),
        request("/", method="HEAD"),
        [("HEAD", b"/", 200, 0)],
    ),
    (
        "trailers",
        says(start(trailers=True), body(b"abc"), {"type": "http.response.trailers", "headers": [(b"x-y", b"z")]}),
        request("/", "TE: trailers"),
        [("GET", b"/", 200, 3)],
    ),
    (
        "early hint",
        says({"type": "http.response.early_hint", "links": [b"</a>"]}, start(), body(b"abc")),
        request("/"),
        [("GET", b"/", 200, 3)],
    ),
    ("body", echo, request("/", method="POST", body=b"abcde"), [("POST", b"/", 200, 5)]),
    ("body unread", hello, request("/abc", method="POST", body=b"x" * 9), [("POST", b"/abc", 200, 4)]),
    ("chunks", echo, request("/", CHUNKED, method="POST") + b"3\r\nabc\r\n0\r\n\r\n", [("POST", b"/", 200, 3)]),
    ("an app that fails first", fails_before, request("/"), [("GET", b"/", 500, len(ERROR))]),
    ("an app that fails between", fails_between, request("/"), [("GET", b"/", 500, len(ERROR))]),
    ("an app that fails later", fails_later, request("/"), [("GET", b"/", 200, 4)]),
    (
        "pipelined",
        hello,
        request("/a") + request("/bc", method="HEAD") + request("/d", method="POST", body=b"x") + request("/ef"),
        [("GET", b"/a", 200, 2), ("HEAD", b"/bc", 200, 0), ("POST", b"/d", 200, 2), ("GET", b"/ef", 200, 3)],
    ),
    ("behind a close", hello, request("/a", "Connection: close") + request("/b"), [("GET", b"/a", 200, 2)]),
    (
        "malformed behind a good one",
        hello,
        request("/a") + b"GARBAGE\r\n\r\n",
        [("GET", b"/a", 200, 2), ("", b"", 400, ANY)],
    ),
    ("an unknown version", hello, b"GET / HTTP/2.7\r\nHost: a\r\n\r\n", [("", b"", 505, ANY)]),
    ("too long a line", hello, request("/" + "x" * 9000), [("", b"", 414, ANY)]),
    (
        "an upgrade that is not done",
        hello,
        request("/a", "Connection: upgrade", "Upgrade: websocket"),
        [("GET", b"/a", 200, 2)],
    ),
]


@pytest.mark.parametrize(("app", "data", "expected"), [row[1:] for row in EXCHANGES], ids=[row[0] for row in EXCHANGES])
@in_loop
async def test_one_line_an_exchange(app: App, data: bytes, expected: list[tuple[str, bytes, int, int]]) -> None:
    lines = Lines()
    peer = Peer(app, access_log=lines)
    peer.feed(data)
    await settle()
    await settle()
    told = lines.short
    if expected[-1][3] == ANY:
        expected = [*expected[:-1], (*expected[-1][:3], len(peer.answers[-1].body))]
    assert told == expected
    assert all(line.seconds > 0 for line in lines.all)
    assert [line.request_id for line in lines.all] == [f"1-{number + 1}" for number in range(len(expected))]
    await peer.end()
    assert len(lines.all) == len(expected), "the end of the connection adds none"


@in_loop
async def test_protocol_and_fields() -> None:
    lines = Lines()
    peer = Peer(hello, access_log=lines)
    peer.feed(request("/", "User-Agent: a") + request("/", "User-Agent: b", version="1.0"))
    await settle()
    assert [line.version for line in lines.all] == ["HTTP/1.1", "HTTP/1.0"]
    assert [dict(line.headers)[b"user-agent"] for line in lines.all] == [b"a", b"b"]
    await peer.end()


@in_loop
async def test_a_body_that_is_thrown_away_adds_no_line() -> None:
    lines = Lines()
    peer = Peer(hello, access_log=lines)
    peer.feed(request("/a", "Content-Length: 10", method="POST"))
    await settle()
    assert lines.short == [("POST", b"/a", 200, 2)]
    peer.feed(b"0123456789" + request("/b"))
    await settle()
    assert [line.request_id for line in lines.all] == ["1-1", "1-2"]
    await peer.end()
    assert len(lines.all) == 2


@in_loop
async def test_over_the_limit_of_requests() -> None:
    lines = Lines()
    app = Held()
    peer = Peer(app, access_log=lines, requests=1)
    peer.shared.sessions.add(object())  # type: ignore[arg-type]
    peer.feed(request("/a"))
    await settle()
    assert [line[:3] for line in lines.short] == [("GET", b"/a", 503)]
    assert lines.all[0].size == len(peer.answers[0].body)
    peer.shared.sessions.clear()
    await peer.end()
    assert len(lines.all) == 1


@pytest.mark.parametrize(
    ("data", "times", "method", "status"),
    [
        (b"GET / HTTP", TimeLimits(request_head=5), "", 408),
        (request("/", "Content-Length: 9", method="PUT"), TimeLimits(request_body=5), "PUT", 408),
        (request("/"), TimeLimits(request=5), "GET", 503),
    ],
    ids=["head", "body", "request"],
)
@in_loop
async def test_a_request_that_times_out_is_one_line(data: bytes, times: TimeLimits, method: str, status: int) -> None:
    lines = Lines()
    app = ByHand()
    peer = Peer(app, access_log=lines, times=times)
    peer.feed(data)
    await settle()
    assert not lines.all
    peer.passes(3)
    peer.passes(3)
    await settle()
    [line] = lines.all
    assert (line.method, line.status, line.size) == (method, status, len(peer.answers[0].body))
    for call in app.calls:
        call.finish()
    await peer.end()
    assert len(lines.all) == 1


@in_loop
async def test_a_timeout_in_the_middle_of_the_answer() -> None:
    lines = Lines()
    app = ByHand()
    peer = Peer(app, access_log=lines, times=TimeLimits(request=5))
    peer.feed(request("/"))
    call = await app.next()
    await call.start()
    await call.body(b"some")
    peer.passes(3)
    peer.passes(3)
    await settle()
    assert lines.short == [("GET", b"/", 200, 4)]
    await peer.end()
    assert len(lines.all) == 1


@pytest.mark.parametrize("framing", ["Content-Length: 11", CHUNKED])
@in_loop
async def test_too_large_a_body(framing: str) -> None:
    lines = Lines()
    peer = Peer(echo, access_log=lines, limits=HttpLimits(body_size=10))
    peer.feed(request("/", framing, method="POST"))
    if framing == CHUNKED:
        peer.feed(b"b\r\n")
    await settle()
    [line] = lines.all
    assert (line.status, line.size) == (413, len(peer.answers[0].body))
    await peer.end()
    assert len(lines.all) == 1


@in_loop
async def test_a_peer_that_leaves_before_the_answer() -> None:
    lines = Lines()
    app = Held()
    peer = Peer(app, access_log=lines)
    peer.feed(request("/a") + request("/b"))
    await settle()
    peer.transport.lose()
    app.release("/a")
    await settle()
    assert lines.short == [("GET", b"/a", PEER_LEFT, 0)], "what never began has no line"
    await peer.end()
    assert len(lines.all) == 1


@in_loop
async def test_a_peer_that_leaves_with_its_body_half_sent() -> None:
    lines = Lines()
    peer = Peer(echo, access_log=lines)
    peer.feed(request("/a", "Content-Length: 10", method="POST") + b"123")
    await settle()
    peer.eof()
    await settle()
    assert lines.short == [("POST", b"/a", PEER_LEFT, 0)]
    await peer.end()
    assert len(lines.all) == 1


@in_loop
async def test_a_head_that_is_held_back_is_no_answer_yet() -> None:
    lines = Lines()
    app = ByHand()
    peer = Peer(app, access_log=lines)
    peer.feed(request("/a"))
    call = await app.next()
    await call.start()
    peer.transport.lose()
    await settle()
    assert lines.short == [("GET", b"/a", PEER_LEFT, 0)]
    call.finish()
    await peer.end()


@in_loop
async def test_a_peer_that_leaves_in_the_middle_of_the_answer() -> None:
    lines = Lines()
    app = ByHand()
    peer = Peer(app, access_log=lines)
    peer.feed(request("/a"))
    call = await app.next()
    await call.start(206)
    await call.body(b"some")
    await call.body(b"more")
    assert not lines.all
    peer.transport.lose()
    await settle()
    assert lines.short == [("GET", b"/a", 206, 8)]
    call.finish()
    await peer.end()
    assert len(lines.all) == 1


@in_loop
async def test_an_idle_connection_ends_without_a_line() -> None:
    lines = Lines()
    peer = Peer(hello, access_log=lines)
    peer.feed(request("/a"))
    await settle()
    peer.eof()
    await peer.end()
    assert len(lines.all) == 1


@in_loop
async def test_a_server_that_is_cut_has_answered_nothing() -> None:
    lines = Lines()
    app = ByHand()
    peer = Peer(app, access_log=lines)
    peer.feed(request("/a"))
    call = await app.next()
    peer.connection.abort()
    await call.reply(b"too late")
    await settle()
    assert lines.short == [("GET", b"/a", PEER_LEFT, 0)], "nothing of the answer was sent"
    await peer.end()


@in_loop
async def test_an_answer_in_pieces_that_comes_after_the_cut() -> None:
    lines = Lines()
    app = ByHand()
    peer = Peer(app, access_log=lines)
    peer.feed(request("/a"))
    call = await app.next()
    peer.connection.abort()
    await call.start()
    with pytest.raises(OSError, match="disconnected"):
        await call.body(b"too late")
    assert lines.short == [("GET", b"/a", PEER_LEFT, 0)]
    call.finish()
    await peer.end()
    assert len(lines.all) == 1


@in_loop
async def test_the_log_of_the_app_names_the_same_request(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    peer = Peer(fails_before, access_log=lines)
    with caplog.at_level(logging.ERROR):
        peer.feed(request("/a") + request("/b", method="POST", body=b"x") + request("/c"))
        await settle()
        await settle()
    assert len(lines.all) == len(caplog.records) == 3
    for line, record in zip(lines.all, caplog.records, strict=True):
        assert f"request {line.request_id})" in record.getMessage()
    await peer.end()


@in_loop
async def test_off_nothing_is_kept() -> None:
    app = ByHand()
    peer = Peer(app)
    peer.feed(request("/a"))
    call = await app.next()
    assert peer.connection._request is None
    await call.reply()
    assert peer.connection._request is None
    await peer.end()


@in_loop
async def test_on_nothing_is_kept_of_what_is_over() -> None:
    lines = Lines()
    peer = Peer(hello, access_log=lines)
    peer.feed(request("/a"))
    await settle()
    assert peer.state() is State.IDLE
    assert peer.connection._request is None
    await peer.end()


# Files


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(bytes(300_000))
    return file


def files(path: Path) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        if scope["path"] == "/whole":
            await send({"type": "http.response.pathsend", "path": str(path)})
            return
        with path.open("rb") as file:
            for more in (True, False):
                part = {"offset": 5, "count": 1000, "more_body": more}
                await send({"type": "http.response.zerocopysend", "file": file, **part})

    return app


@in_loop
async def test_a_file_is_one_line_with_its_bytes(path: Path) -> None:
    lines = Lines()
    peer = Peer(files(path), access_log=lines)
    peer.feed(request("/whole") + request("/parts") + request("/whole", method="HEAD"))
    async with asyncio.timeout(20):
        while len(lines.all) < 3:
            await asyncio.sleep(0.001)
    assert lines.short == [
        ("GET", b"/whole", 200, 300_000),
        ("GET", b"/parts", 200, 2000),
        ("HEAD", b"/whole", 200, 0),
    ]
    await peer.end()


@in_loop
async def test_a_file_that_is_cut_counts_what_was_sent(path: Path) -> None:
    lines = Lines()
    peer = Peer(files(path), access_log=lines)
    peer.transport.stalled = True
    peer.feed(request("/whole"))
    async with asyncio.timeout(20):
        while peer.transport.waiting < HIGH_WATER:
            await asyncio.sleep(0.001)
    sent = len(peer.transport.sent.partition(b"\r\n\r\n")[2])
    assert 0 < sent < 300_000
    peer.transport.lose()
    await settle()
    assert lines.short == [("GET", b"/whole", 200, sent)]
    await peer.end()
    assert len(lines.all) == 1


@in_loop
async def test_a_file_that_became_shorter_counts_what_was_sent(path: Path) -> None:
    lines = Lines()
    peer = Peer(files(path), access_log=lines)
    peer.transport.stalled = True
    peer.feed(request("/whole"))
    async with asyncio.timeout(20):
        while peer.transport.waiting < HIGH_WATER:
            await asyncio.sleep(0.001)
    sent = len(peer.transport.sent.partition(b"\r\n\r\n")[2])
    path.write_bytes(b"")
    peer.transport.peer_reads(1 << 20)
    async with asyncio.timeout(20):
        while not lines.all:
            await asyncio.sleep(0.001)
    assert lines.short == [("GET", b"/whole", 200, sent)]
    await peer.end()


class Told(Lines):
    """For connections whose peer has an address of its own."""

    def record(self, client: str, *values: object) -> None:
        super().record("192.0.2.7:40000", *values)  # type: ignore[arg-type]


@on_both_loops
async def test_a_client_that_resets_in_the_middle_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(64 * MIB)
    lines = Told()
    server = Server(files(file), config=config(), access_log=lines)
    async with server, connected(server) as client:
        client.send(request("/whole"))
        await client.some(b"\r\n\r\n")
        client.reset()
        await until(lambda: lines.all)
        [line] = lines.all
        assert line.status == 200
        assert 0 < line.size < 64 * MIB


# The log itself


@pytest.mark.parametrize(
    "change",
    [
        lambda headers: headers.append((b"one", b"two", b"three")),
        lambda headers: headers.append("text"),
        lambda headers: headers.clear(),
        lambda headers: headers.insert(0, (b"user-agent", "forged")),
    ],
    ids=["a triple", "a text", "cleared", "forged"],
)
@in_loop
async def test_an_app_that_changes_its_scope_changes_no_line(
    tmp_path: Path, change: Callable[[list[object]], None]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        change(scope["headers"])
        await reply(send)

    file = tmp_path / "access.log"
    source = Source(1, 1, 4242, "cafe")
    log = AccessLog(Layout("combined", source), Outlet(LogFile(str(file))), asyncio.get_running_loop().call_later)
    peer = Peer(app, access_log=log)
    peer.feed(request("/a", "User-Agent: honest") + request("/b", "User-Agent: honest"))
    await settle()
    await settle()
    assert peer.statuses == [200, 200]
    assert peer.state() is State.IDLE
    await peer.end()
    log.close()
    assert file.read_text().count('"-" "honest"\n') == 2


@in_loop
async def test_a_request_that_never_became_one_as_a_line(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    source = Source(1, 1, 4242, "cafe")
    log = AccessLog(Layout("common", source), Outlet(LogFile(str(file))), asyncio.get_running_loop().call_later)
    peer = Peer(hello, access_log=log)
    peer.feed(b"GET /\x00\r\n\r\n")
    await settle()
    size = len(peer.answers[0].body)
    await peer.end()
    log.close()
    assert file.read_text().endswith(f'"- - HTTP/1.1" 400 {size}\n')
