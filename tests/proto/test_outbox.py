"""Answers that leave together: none is lost, doubled, late, or out of its turn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from asgiri.proto.connection import HIGH_WATER, POSTED, TimeLimits
from asgiri.proto.http11 import Http11Connection
from asgiri.proto.http11_life import State
from asgiri.proto.outbox import AT_ONCE, FEW, LONELY_TURNS, MOST_WAIT, Outbox
from asgiri.server import Server
from asgiri.types import Receive, Scope, Send
from tests.pki import Pki
from tests.proto.fakes import (
    ByHand,
    FakeTransport,
    Peer,
    hello,
    in_loop,
    parse_answers,
    read_body,
    reply,
    request,
    settle,
    until,
)
from tests.serving import config, connected, on_both_loops, shared_of

pytestmark = pytest.mark.usefixtures("each_engine")


# The policy


class Loop:
    """What an outbox asks of a loop; and the time, which passes when it is told to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.now = 0.0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> int:
        """Run what was asked for; how much that was."""
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        return len(soon)


class Note:
    """A sender that counts, and may fail."""

    def __init__(self, error: BaseException | None = None, then: Callable[[], object] | None = None) -> None:
        self.pushed = 0
        self._error = error
        self._then = then

    def push(self) -> None:
        self.pushed += 1
        if self._then is not None:
            self._then()
        if self._error is not None:
            raise self._error


def outbox() -> tuple[Outbox, Loop]:
    loop = Loop()
    return Outbox(loop.call_soon, clock=lambda: loop.now), loop


def test_one_callback_a_turn_pushes_all_in_their_order() -> None:
    box, loop = outbox()
    order: list[int] = []
    for number in range(5):
        assert box.takes(Note(then=lambda number=number: order.append(number)))  # type: ignore[misc]
    assert not order
    assert loop.turn() == 1
    assert order == [0, 1, 2, 3, 4]
    assert loop.turn() == 0, "nothing waits, nothing is called"


def test_what_comes_while_all_is_let_go_leaves_in_the_next_turn() -> None:
    box, loop = outbox()
    late: list[str] = []
    box.takes(Note(then=lambda: box.takes(Note(then=lambda: late.append("late")))))
    assert loop.turn() == 1
    assert not late
    assert loop.turn() == 1
    assert late == ["late"]


def test_who_is_alone_for_some_turns_waits_no_more() -> None:
    box, loop = outbox()
    for _ in range(LONELY_TURNS):
        assert box.takes(Note())
        loop.turn()
    assert [box.takes(Note()) for _ in range(AT_ONCE)] == [False] * AT_ONCE
    assert loop.turn() == 0
    assert box.takes(Note()), "now and then it is looked again"


def test_company_makes_the_lonely_turns_count_anew() -> None:
    box, loop = outbox()
    for _ in range(3):
        for _ in range(LONELY_TURNS - 1):
            assert box.takes(Note())
            loop.turn()
        assert box.takes(Note())
        assert box.takes(Note())
        loop.turn()


def test_a_look_between_answers_that_leave_at_once_costs_lonely_turns_again() -> None:
    box, loop = outbox()
    for _ in range(2):
        for _ in range(LONELY_TURNS):
            assert box.takes(Note())
            loop.turn()
        for _ in range(AT_ONCE):
            assert not box.takes(Note())


@pytest.mark.parametrize("error", [RuntimeError("defect"), OSError(9, "bad"), SystemExit(1)])
def test_one_that_fails_takes_no_other_with_it(error: BaseException) -> None:
    box, loop = outbox()
    notes = [Note(), Note(error), Note(), Note(error), Note()]
    for note in notes:
        box.takes(note)
    for _ in range(2):  # each failure is heard of
        with pytest.raises(type(error)):
            loop.turn()
    loop.turn()
    assert [note.pushed for note in notes] == [1] * 5
    assert not loop.soon


def test_the_order_holds_when_one_fails_and_more_comes() -> None:
    box, loop = outbox()
    order: list[str] = []
    box.takes(Note(RuntimeError("defect"), then=lambda: box.takes(Note(then=lambda: order.append("new")))))
    box.takes(Note(then=lambda: order.append("old")))
    with contextlib.suppress(RuntimeError):
        loop.turn()
    loop.turn()
    loop.turn()
    assert order == ["old", "new"]


def test_no_answer_waits_for_applications_that_work_for_long() -> None:
    box, loop = outbox()
    first, second = Note(), Note()
    assert box.takes(first)
    loop.now += 1.1 * MOST_WAIT
    assert not box.takes(second)
    assert first.pushed == 1
    assert [box.takes(Note()) for _ in range(AT_ONCE)] == [False] * AT_ONCE
    assert loop.turn() == 1
    assert first.pushed == 1
    third = Note()
    assert box.takes(third), "now and then it is looked again"
    loop.turn()
    assert third.pushed == 1


def test_many_answers_leave_together_after_a_while_and_the_next_ones_again() -> None:
    box, loop = outbox()
    notes = [Note() for _ in range(FEW + 1)]
    for note in notes:
        assert box.takes(note)
        loop.now += 1.1 * MOST_WAIT / len(notes)
    assert not box.takes(Note())
    assert [note.pushed for note in notes] == [1] * len(notes)
    assert box.takes(late := Note())
    loop.turn()
    assert late.pushed == 1


# A connection, on a transport without a socket


def bodies(peer: Peer) -> list[bytes]:
    """What is on the wire, and not what waits."""
    return [answer.body for answer in parse_answers(peer.transport.sent)[0]]


async def sized(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with as many bytes as the path says, in one message."""
    del receive
    await reply(send, b"x" * int(scope["path"][1:]))


@in_loop
async def test_an_answer_leaves_by_itself() -> None:
    peer = Peer(hello)
    peer.feed(request("/a"))
    await settle()
    assert bodies(peer) == [b"/a"]
    await peer.end()


@in_loop
async def test_a_pipeline_waits_for_a_peer_that_does_not_read_although_its_first_answer_is_small() -> None:
    size = HIGH_WATER * 2
    peer = Peer(sized)
    peer.transport.stalled = True
    peer.feed(request("/1") + request(f"/{size}") * 12)
    await settle()
    assert len(peer.transport.sent) < 2 * size, "one large answer, and the next one waits"
    for _ in range(200):
        peer.transport.peer_reads(HIGH_WATER)
        await settle()
    assert [len(answer.body) for answer in peer.answers] == [1] + [size] * 12
    await peer.end()


@in_loop
async def test_what_waits_is_bounded() -> None:
    peer = Peer(sized)
    peer.feed(request(f"/{POSTED - 2000}") * 10)
    await settle()
    assert max(map(len, peer.transport.writes)) <= 2 * POSTED
    assert len(peer.answers) == 10
    await peer.end()


@in_loop
async def test_one_request_after_the_other_waits_for_a_peer_that_does_not_read() -> None:
    """A peer that sends and never reads gets no more than one answer over what may wait."""
    size = HIGH_WATER * 2
    peer = Peer(sized)
    peer.transport.stalled = True
    for _ in range(10):
        peer.feed(request(f"/{size}"))
        await settle()
    assert peer.transport.waiting < 2 * size
    for _ in range(200):
        peer.transport.peer_reads(HIGH_WATER)
        await settle()
    assert [len(answer.body) for answer in peer.answers] == [size] * 10
    assert peer.state() is State.IDLE
    await peer.end()


@in_loop
async def test_small_answers_that_nobody_reads_are_bounded_too() -> None:
    peer = Peer(sized)
    peer.transport.stalled = True
    for _ in range(100):
        if peer.transport.is_reading():
            peer.feed(request("/8000"))
        await settle()
    assert peer.transport.waiting < HIGH_WATER + 2 * POSTED
    for _ in range(200):
        peer.transport.peer_reads(HIGH_WATER)
        await settle()
    assert len(peer.answers) == 100
    await peer.end()


ENDINGS: list[tuple[str, bytes, int]] = [
    ("the peer says close", request("/a", "Connection: close"), 1),
    ("HTTP/1.0", request("/a", version="1.0"), 1),
    ("close behind a pipelined one", request("/a") + request("/a", "Connection: close"), 2),
    ("a malformed one behind it", request("/a") + b"GARBAGE\r\n\r\n", 2),
    ("a body nobody reads behind it", request("/a") + request("/a", method="POST", body=b"x" * 300), 2),
    ("a body with an error behind it", request("/a") + request("/a", "Transfer-Encoding: chunked") + b"no\r\n", 2),
]


@pytest.mark.parametrize(("data", "count"), [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS])
@in_loop
async def test_the_ends_of_a_connection(data: bytes, count: int) -> None:
    peer = Peer(hello)
    peer.feed(data)
    await settle()
    answers, rest = parse_answers(peer.transport.sent)
    assert [answer.body for answer in answers if answer.status == 200][:1] == [b"/a"]
    assert len(answers) == count
    assert not rest
    await peer.end()


async def with_an_answer_that_waits() -> Peer:
    peer = Peer(hello)
    peer.feed(request("/a"))
    if not peer.connection._unsent:  # Python 3.11 starts the app in the next turn
        await asyncio.sleep(0)
    assert peer.connection._unsent
    assert not peer.transport.writes
    return peer


SAME_TURN: dict[str, Callable[[Peer], None]] = {
    "end of file": lambda peer: peer.eof(),
    "keep-alive is over": lambda peer: peer.passes(80),
    "the drain's window is over": lambda peer: peer.connection.close_idle(),
    "the server is cut": lambda peer: peer.connection.abort(),
}


@pytest.mark.parametrize("act", SAME_TURN.values(), ids=SAME_TURN)
@in_loop
async def test_an_end_in_the_turn_of_the_answer(act: Callable[[Peer], None]) -> None:
    peer = await with_an_answer_that_waits()
    act(peer)
    await settle()
    assert bodies(peer) == [b"/a"]
    assert peer.transport.is_closing()
    await peer.end()


@in_loop
async def test_a_cut_whose_answer_still_waits_in_the_transport_is_a_reset() -> None:
    peer = await with_an_answer_that_waits()
    with socket.socket() as sock:
        peer.transport.carries(sock)
        peer.transport.stalled = True
        peer.connection.abort()
        lingers = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert struct.unpack("ii", lingers) == (1, 0), "the end of the connection must not look like that of the answer"
    await peer.end()


@in_loop
async def test_a_peer_that_is_gone_in_the_turn_of_the_answer() -> None:
    peer = await with_an_answer_that_waits()
    peer.transport.lose(ConnectionResetError(104, "reset"))
    await settle()
    assert not peer.transport.writes
    await peer.end()


@in_loop
async def test_what_follows_an_answer_that_waits_is_behind_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"f" * 1000)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        match path:
            case "/chunks":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"/chu", "more_body": True})
                await send({"type": "http.response.body", "body": b"nks", "more_body": False})
            case "/hint":
                await send({"type": "http.response.early_hint", "links": [b"</a>"]})
                await reply(send, b"/hint")
            case "/file":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.pathsend", "path": str(file)})
            case "/part":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"/pa", "more_body": True})
                with file.open("rb") as part:
                    await send({"type": "http.response.zerocopysend", "file": part, "count": 2})
            case "/upload":
                await read_body(receive)
                await reply(send, b"/upload")
            case _:
                await reply(send, path.encode())

    asked = ["/1", "/chunks", "/2", "/hint", "/3", "/file", "/4", "/part", "/5", "/6"]
    upload = request("/upload", "Expect: 100-continue", "Content-Length: 3", method="POST")
    peer = Peer(app)
    peer.feed(b"".join(map(request, asked)) + upload)
    async with asyncio.timeout(20):
        while b"100 Continue" not in peer.transport.sent:
            await asyncio.sleep(0.001)
    peer.feed(b"abc" + request("/7"))
    await until(lambda: len(bodies(peer)) == 12)
    expected = [path.encode() for path in asked]
    expected[5], expected[7] = b"f" * 1000, b"/paff"
    assert bodies(peer) == [*expected, b"/upload", b"/7"]
    assert [answer.interim for answer in peer.answers if answer.interim] == [(103,), (100,)]
    await peer.end()


@in_loop
async def test_a_transport_that_pauses_when_it_is_pushed_holds_the_next_ones_up() -> None:
    peer = Peer(sized)
    peer.transport.stalled = True
    peer.transport.waiting = HIGH_WATER
    peer.feed(request("/10"))
    await settle()
    peer.feed(request("/11") + request("/12"))
    await settle()
    waiting = peer.transport.waiting
    peer.transport.peer_reads(1 << 20)
    await settle()
    assert [len(answer.body) for answer in peer.answers] == [10, 11, 12]
    assert waiting < HIGH_WATER + 1000
    await peer.end()


@in_loop
async def test_the_write_timeout_counts_what_was_pushed() -> None:
    peer = Peer(sized, times=TimeLimits(write=10))
    peer.transport.stalled = True
    peer.feed(request("/100"))
    await settle()
    peer.passes(1)
    peer.passes(5)
    assert not peer.transport.is_aborted()
    peer.passes(6)
    peer.passes(6)
    assert peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_one_connection_that_cannot_be_written_to_holds_no_other_up() -> None:
    peer = Peer(hello)
    others = []
    for _ in range(2):
        connection = Http11Connection(peer.shared)
        transport = FakeTransport(asyncio.get_running_loop(), connection)
        connection.connection_made(transport)
        others.append((connection, transport))
    heard: list[BaseException | None] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: heard.append(context.get("exception")))
    others[0][1].half_closed = True  # which no defect of ours should leave open to writing
    others[0][0].data_received(request("/a"))
    others[1][0].data_received(request("/b"))
    peer.feed(request("/c"))
    await settle()
    loop.set_exception_handler(before)
    assert [type(error) for error in heard] == [RuntimeError]
    assert parse_answers(others[1][1].sent)[0][0].body == b"/b"
    assert bodies(peer) == [b"/c"]
    for _, transport in others:
        transport.lose()
    await peer.end()


@pytest.mark.parametrize("most", [1, 3])
@in_loop
async def test_the_last_request_of_a_connection(most: int) -> None:
    peer = Peer(hello, requests_per_connection=most)
    peer.feed(request("/a") * 5)
    await settle()
    assert bodies(peer) == [b"/a"] * most
    assert peer.state() is State.LINGERING or peer.transport.is_closing()
    await peer.end()


@in_loop
async def test_a_drain_in_the_turn_of_the_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await hello(scope, receive, send)
        peer.shared.draining = True

    peer = Peer(app)
    peer.feed(request("/1") + request("/2") + request("/3"))
    await settle()
    assert bodies(peer) == [b"/1", b"/2", b"/3"]
    assert [answer.closes for answer in peer.answers] == [False, False, True]
    await peer.end()


@in_loop
async def test_an_app_that_fails_behind_its_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, scope["path"].encode())
        raise ValueError("too late")

    peer = Peer(app)
    peer.feed(request("/1") + request("/2"))
    await settle()
    assert bodies(peer) == [b"/1", b"/2"]
    assert caplog.text.count("the application failed") == 2
    await peer.end()


@in_loop
async def test_a_stream_that_breaks_behind_an_answer_that_waits() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/1":
            await reply(send, b"/1")
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise ValueError("in the middle")

    peer = Peer(app)
    peer.feed(request("/1") + request("/2"))
    await settle()
    assert bodies(peer) == [b"/1"], "what was answered before stays answered"
    assert peer.transport.is_aborted()
    await peer.end()


@in_loop
async def test_a_late_answer_of_many_connections() -> None:
    """All leave although the app answers them in one step, one after the other."""
    app = ByHand()
    peer = Peer(app)
    transports = [peer.transport]
    for _ in range(20):
        connection = Http11Connection(peer.shared)
        transports.append(FakeTransport(asyncio.get_running_loop(), connection))
        connection.connection_made(transports[-1])
        connection.data_received(request("/x"))
    peer.feed(request("/x"))
    await until(lambda: len(app.calls) == 21)
    for call in app.calls:
        await call.reply(b"late")
    assert not any(transport.writes for transport in transports[1:]), "together"
    await settle()
    assert all(len(transport.writes) == 1 for transport in transports)
    for transport in transports[1:]:
        transport.lose()
    await peer.end()


# On sockets


async def answer_lengths(scope: Scope, receive: Receive, send: Send) -> None:
    await read_body(receive)
    await sized(scope, receive, send)


@on_both_loops
async def test_many_clients_get_all_their_answers() -> None:
    server = Server(answer_lengths, config=config())
    async with server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server)) for _ in range(24)]
        for turn in range(40):
            for number, client in enumerate(clients):
                client.send(request(f"/{turn * 100 + number}", method="POST" if turn % 3 else "GET"))
            for number, client in enumerate(clients):
                assert len((await client.answer()).body) == turn * 100 + number


@on_both_loops
async def test_a_lonely_client_is_answered_all_the_same() -> None:
    server = Server(answer_lengths, config=config())
    async with server, connected(server) as client:
        for turn in range(AT_ONCE * 2 + LONELY_TURNS * 3):
            assert len((await client.ask(request(f"/{turn}"))).body) == turn


@on_both_loops
async def test_tls(pki: Pki) -> None:
    server = Server(answer_lengths, config=config(), certfile=pki.certfile, keyfile=pki.keyfile)
    tls = pki.client()
    async with server, connected(server, tls=tls) as one, connected(server, tls=tls) as two:
        for size in (1, 100, POSTED, HIGH_WATER * 3, 5):
            one.send(request(f"/{size}"))
            two.send(request(f"/{size}"))
            assert [len((await client.answer()).body) for client in (one, two)] == [size, size]
        one.send(request("/7", "Connection: close"))
        assert (await one.rest()).endswith(b"\r\n\r\n" + b"x" * 7)


@on_both_loops
async def test_a_client_that_half_closes_behind_its_requests() -> None:
    server = Server(answer_lengths, config=config())
    async with server, connected(server) as client:
        client.send(request("/1") + request("/2") + request("/3"))
        client.half_close()
        answers, rest = parse_answers(await client.rest())
        assert [answer.body for answer in answers] == [b"x", b"xx", b"xxx"]
        assert not rest


class Stops:
    """Answers, and stops its server in the same step."""

    def __init__(self) -> None:
        self.server: Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"last words")
        assert self.server is not None
        if scope["path"] == "/cut":
            self.server.cut()
        self.server.should_exit = True


@pytest.mark.parametrize("path", ["/stop", "/cut"])
@on_both_loops
async def test_a_stop_in_the_turn_of_the_answer(path: str) -> None:
    app = Stops()
    server = app.server = Server(app, config=config(drain_timeout=1.0))
    await server.start()
    async with connected(server) as client:
        client.send(request(path))
        serving = asyncio.ensure_future(server.shutdown())
        assert (await client.answer()).body == b"last words"
        await serving
    assert not shared_of(server).connections
