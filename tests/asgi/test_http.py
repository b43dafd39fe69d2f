"""The session on a hand-written stream: what the application sees, and what it makes of the answer."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from http import HTTPStatus

import pytest

from asgiri.asgi.calls import receive
from asgiri.codec.events import Request
from asgiri.errors import ClientDisconnectedError
from asgiri.types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi.exchange import (
    ANSWERED,
    DISCONNECT,
    FAILED,
    OK,
    PLAIN,
    Call,
    Exchange,
    body,
    get,
    length,
    lines,
    listens,
    piece,
    post,
    says,
    start,
)
from tests.proto.fakes import in_loop, settle

MANY = 200_000  # sends that take longer than an application may go on for

# The answer


@pytest.mark.parametrize(
    ("method", "messages", "calls"),
    [
        ("GET", [start(200), body(b"ok")], ANSWERED),
        ("GET", [{"type": "http.response.start", "status": 200}, {"type": "http.response.body"}],
         [("head", 200, [length(0)]), ("body", b"", True)]),
        ("GET", [start(HTTPStatus.NOT_FOUND, (b"X-A", b"1"), [b"x-b", b"2"]), body()],
         [("head", 404, [(b"x-a", b"1"), (b"x-b", b"2"), length(0)]), ("body", b"", True)]),
        ("GET", [start(200), body(b"a", True), body(b"b")],
         [("head", 200, []), ("body", b"a", False), ("body", b"b", True)]),
        ("GET", [start(200), body(b"", True), body(b"")],
         [("head", 200, []), ("body", b"", False), ("body", b"", True)]),
        ("GET", [start(200, length(2)), body(b"o", True), body(b"k")],
         [("head", 200, [length(2)]), ("body", b"o", False), ("body", b"k", True)]),
        ("GET", [start(200, length(2)), body(b"ok", True), body()],
         [("head", 200, [length(2)]), ("body", b"ok", False), ("body", b"", True)]),
        ("GET", [start(200, (b"Content-Length", b" 2 ")), body(b"ok")],
         [("head", 200, [(b"content-length", b" 2 ")]), ("body", b"ok", True)]),
        ("GET", [start(200, (b"Transfer-Encoding", b"chunked")), body(b"ok")],
         [("head", 200, [(b"transfer-encoding", b"chunked")]), ("body", b"ok", True)]),
        ("HEAD", [start(200), body(b"ok")], [("head", 200, []), ("body", b"ok", True)]),
        ("HEAD", [start(200, length(9)), body()], [("head", 200, [length(9)]), ("body", b"", True)]),
        ("GET", [start(204), body()], [("head", 204, []), ("body", b"", True)]),
        ("GET", [start(304, length(9)), body()], [("head", 304, [length(9)]), ("body", b"", True)]),
        ("GET", [start(200), body(bytearray(b"ok"))], ANSWERED),
        ("GET", [start(200), body(memoryview(b"ok"))], ANSWERED),
        ("GET", [start(200, (bytearray(b"X"), memoryview(b"1"))), body()],
         [("head", 200, [(b"x", b"1"), length(0)]), ("body", b"", True)]),
    ],
)  # fmt: skip
def test_an_answer_is_passed_on_as_the_application_says_it(
    method: str, messages: list[Message], calls: list[Call], log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        assert await Exchange(says(*messages), get(method)).finish() == calls

    test()
    assert not log


@in_loop
async def test_the_head_is_held_back_until_the_first_body() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await go_on.wait()
        await send(body(b"ok"))

    exchange = Exchange(app)
    exchange.start()
    await settle()
    assert exchange.stream.calls == []
    assert exchange.session.unanswered
    go_on.set()
    assert await exchange.finish() == ANSWERED
    assert not exchange.session.unanswered


@in_loop
async def test_default_headers_are_added_where_the_app_has_none_of_that_name() -> None:
    defaults = [(b"date", b"now"), (b"server", b"asgiri"), (b"via", b"1"), (b"via", b"2")]
    mine = [(b"Server", b"mine")]
    exchange = Exchange(says({**start(204), "headers": mine}, body()), default_headers=defaults)
    expected = [(b"server", b"mine"), (b"date", b"now"), (b"via", b"1"), (b"via", b"2")]
    assert await exchange.finish() == [("head", 204, expected), ("body", b"", True)]
    assert (len(defaults), mine) == (4, [(b"Server", b"mine")]), "nobody's list is changed"


@in_loop
async def test_the_app_gets_the_scope_itself() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await says(*OK)(scope, receive, send)

    exchange = Exchange(app)
    await exchange.finish()
    assert seen[0] is exchange.scope


# What the app may not do

TYPES, ORDER = (TypeError, ValueError), (RuntimeError,)


@pytest.mark.parametrize(
    ("messages", "errors"),
    [
        # Ill-formed messages
        ([{}], ORDER),
        ([{"type": "http.response.sart"}], ORDER),
        ([{"type": "websocket.accept"}], ORDER),
        ([{"type": b"http.response.start", "status": 200}], ORDER),
        ([{"type": "http.response.start"}], TYPES),
        ([start("200")], TYPES),
        ([start(None)], TYPES),
        ([start(200, ("x", "1"))], TYPES),
        ([start(200, (b"x", 1))], TYPES),
        ([start(200, (b"x",))], TYPES),
        ([start(200, (b"x", b"1", b"2"))], TYPES),
        ([start(200, b"xy")], TYPES),
        ([{**start(), "headers": None}], TYPES),
        ([{**start(), "headers": "x: 1"}], TYPES),
        ([{**start(), "headers": {b"x": b"1"}}], TYPES),
        ([start(200, (b"content-length", b"+1"))], TYPES),
        ([start(200, (b"content-length", b""))], TYPES),
        ([start(200, length(1), length(1))], TYPES),
        ([start(200), body("text")], TYPES),
        ([start(200), body(None)], TYPES),
        ([start(200), body(5)], TYPES),
        # Out of order
        ([body(b"ok")], ORDER),
        ([start(200), start(200)], ORDER),
        # A head that cannot be sent is known by the first body
        ([start(200, (b"x", b"1\n2")), body()], ORDER),
        # Not the length that was promised
        ([start(200, length(2)), body(b"ok!")], ORDER),
        ([start(200, length(2)), body(b"ok!", True)], ORDER),
        ([start(200, length(2)), body(b"o")], ORDER),
        ([start(200, length(0)), body(b"o", True)], ORDER),
    ],
)  # fmt: skip
def test_before_anything_is_written_it_costs_a_500(
    messages: list[Message], errors: tuple[type[Exception], ...], log: list[logging.LogRecord]
) -> None:
    raised: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await says(*messages)(scope, receive, send)
        except Exception as error:
            raised.append(error)
            raise

    @in_loop
    async def test() -> None:
        assert await Exchange(app).finish() == FAILED

    test()
    assert isinstance(raised[0], errors)
    assert [record.levelname for record in log] == ["ERROR"]


@pytest.mark.parametrize(
    ("messages", "written"),
    [
        ([start(200, length(2)), body(b"o", True), body(b"kay")], b"o"),
        ([start(200, length(2)), body(b"o", True), body(b"kay", True)], b"o"),
        ([start(200, length(3)), body(b"o", True), body(b"k")], b"o"),
        ([start(200, length(3)), body(b"o", True)], b"o"),
        ([start(200), body(b"o", True)], b"o"),
        ([start(200), body(b"o", True), start(200)], b"o"),
        ([start(200), body(b"o", True), body("k")], b"o"),
        ([start(200), body(b"o", True), {"type": "?"}], b"o"),
    ],
)
def test_after_something_is_written_it_costs_the_connection(
    messages: list[Message], written: bytes, log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        head, *bodies, last = await Exchange(says(*messages)).finish()
        assert head[0] == "head"
        assert b"".join(data for _, data, _ in bodies) == written
        assert not any(end for _, _, end in bodies)
        assert last == ("reset",)

    test()
    assert [record.levelname for record in log] == ["ERROR"]


@pytest.mark.parametrize("late", [start(200), body(b"more"), body(b"", True)], ids=["start", "body", "empty"])
@in_loop
async def test_after_the_answer_nothing_more_may_come(late: Message) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*OK)(scope, receive, send)
        with pytest.raises(RuntimeError):
            await send(late)

    assert await Exchange(app).finish() == ANSWERED


@in_loop
async def test_the_app_may_try_again_after_a_message_that_was_refused() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(TypeError, match=r"headers: .*\('x', b'1'\)"):
            await send(start(200, (b"a", b"1"), ("x", b"1")))
        await send(start(200, length(2)))
        with pytest.raises(RuntimeError, match="longer than its Content-Length, by 3 bytes"):
            await send(body(b"o kay"))
        with pytest.raises(RuntimeError, match="shorter than its Content-Length, by 1 bytes"):
            await send(body(b"o"))
        await send(body(b"ok"))

    assert await Exchange(app).finish() == ANSWERED


# The app fails


def raises(error: BaseException, *messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*messages)(scope, receive, send)
        raise error

    return app


RESET: list[Call] = [("head", 200, []), ("body", b"a", False), ("reset",)]
WAYS: list[tuple[list[Message], list[Call]]] = [
    ([], FAILED),
    ([start(200, (b"x", b"1"))], FAILED),
    ([start(200), body(b"a", True)], RESET),
    ([*OK], ANSWERED),
]


@pytest.mark.parametrize(
    "error", [ValueError("oh"), SystemExit(3), OSError("disk"), ExceptionGroup("g", [KeyError("k")])]
)
@pytest.mark.parametrize(("messages", "calls"), WAYS)
def test_an_app_that_raises(
    error: BaseException, messages: list[Message], calls: list[Call], log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        assert await Exchange(raises(error, *messages)).finish() == calls

    test()
    assert lines(log) == [f"ERROR the application failed: {type(error).__name__} (GET '/p', request 7-1)"]
    trace = log[0].__dict__["trace"]
    assert "in app" in trace
    assert type(error).__name__ in trace
    assert "asgiri/asgi" not in trace, "the app's own frames, not ours"


@pytest.mark.parametrize(("messages", "calls"), WAYS[:3])
def test_an_app_that_returns_too_early(
    messages: list[Message], calls: list[Call], log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        assert await Exchange(says(*messages)).finish() == calls

    test()
    assert lines(log) == ["ERROR the application returned without completing its answer (GET '/p', request 7-1)"]


@pytest.mark.parametrize(("messages", "calls"), WAYS)
def test_an_app_that_is_cancelled(messages: list[Message], calls: list[Call], log: list[logging.LogRecord]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*messages)(scope, receive, send)
        await asyncio.Event().wait()

    @in_loop
    async def test() -> None:
        exchange = Exchange(app)
        task = exchange.start()
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert exchange.stream.calls == [*calls, ("finished",)]

    test()
    assert not log


def test_an_app_that_awaits_what_was_cancelled_has_failed(log: list[logging.LogRecord]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        other = asyncio.create_task(asyncio.Event().wait())
        other.cancel()
        await other

    @in_loop
    async def test() -> None:
        assert await Exchange(app).finish() == FAILED

    test()
    assert lines(log) == ["ERROR the application failed: CancelledError (GET '/p', request 7-1)"]


def test_the_log_shows_no_byte_of_the_peer_as_it_came(log: list[logging.LogRecord]) -> None:
    request = Request(1, "GET", b"/\x1b[31m\xff'", b"/", b"", [], "1.0", True)

    @in_loop
    async def test() -> None:
        await Exchange(says(), request).finish()

    test()
    assert "\x1b" not in lines(log)[0]
    assert r"\x1b[31m" in lines(log)[0]


# The request's body


@in_loop
async def test_a_request_without_a_body_is_one_empty_piece() -> None:
    heard: list[Message] = []
    exchange = Exchange(listens(heard, 1, *OK))
    assert await exchange.finish() == ANSWERED
    assert heard == [piece(b"", False)]


@in_loop
async def test_a_body_comes_in_the_pieces_that_are_there() -> None:
    heard: list[Message] = []
    exchange = Exchange(listens(heard, 4, *OK), post())
    session = exchange.session
    session.body_received(b"ab")
    session.body_received(b"c")
    assert session.buffered == 3
    exchange.start()
    await settle()
    assert (heard, session.buffered) == ([piece(b"abc", True)], 0)
    session.body_received(b"d")
    await settle()
    assert heard[1:] == [piece(b"d", True)]
    session.body_received(b"e")
    session.body_received(b"f")
    await settle()
    assert heard[2:] == [piece(b"ef", True)]
    session.body_ended()
    assert await exchange.finish() == [("took", 3), ("took", 1), ("took", 2), *ANSWERED]
    assert heard[3:] == [piece(b"", False)]


@in_loop
async def test_the_last_piece_says_so_when_the_end_is_known() -> None:
    heard: list[Message] = []
    exchange = Exchange(listens(heard, 1, *OK), post())
    exchange.session.body_received(b"abc")
    exchange.session.body_ended()
    assert await exchange.finish() == [("took", 3), *ANSWERED]
    assert heard == [piece(b"abc", False)]


@pytest.mark.parametrize("how", ["the answer is complete", "the peer ends", "the peer is lost"])
@in_loop
async def test_after_the_body_receive_waits_for_the_end(how: str) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(await receive())
        ear = asyncio.ensure_future(listens(heard, 2)(scope, receive, send))
        await settle()
        assert len(heard) == 1
        if how == "the answer is complete":
            await says(*OK)(scope, receive, send)
        await ear

    exchange = Exchange(app)
    exchange.start()
    await settle()
    if how == "the peer ends":
        exchange.session.peer_ended()
    elif how == "the peer is lost":
        exchange.session.lost()
    await settle()
    assert heard == [piece(b"", False), DISCONNECT, DISCONNECT]
    exchange.session.lost()
    await exchange.finish()


@in_loop
async def test_what_is_left_of_the_body_when_the_answer_is_complete_is_forgotten() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*OK)(scope, receive, send)
        heard.append(await receive())

    exchange = Exchange(app, post())
    session = exchange.session
    session.body_received(b"never read")
    assert await exchange.finish() == ANSWERED
    assert session.buffered == 0, "or it would hold up the reading for ever"
    session.body_received(b"nor this")
    session.body_ended()
    assert (heard, session.buffered) == ([DISCONNECT], 0)


@in_loop
async def test_two_may_receive_and_one_may_be_cancelled() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ears = [asyncio.ensure_future(listens(heard, 1)(scope, receive, send)) for _ in range(3)]
        await settle()
        ears[0].cancel()
        await asyncio.wait(ears)
        await says(*OK)(scope, receive, send)

    exchange = Exchange(app, post())
    exchange.start()
    await settle()
    exchange.session.body_received(b"a")
    await settle()
    assert heard == [piece(b"a", True)]
    exchange.session.body_received(b"b")
    assert await exchange.finish() == [("took", 1), ("took", 1), *ANSWERED]
    assert heard == [piece(b"a", True), piece(b"b", True)]


@in_loop
async def test_a_cancelled_receive_loses_nothing() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ear = asyncio.ensure_future(receive())
        await settle()
        exchange.session.body_received(b"a")  # wakes the ear, which is cancelled before it runs
        ear.cancel()
        await asyncio.wait([ear])
        await listens(heard, 1, *OK)(scope, receive, send)

    exchange = Exchange(app, post())
    await exchange.finish()
    assert heard == [piece(b"a", True)]


# Expect: 100-continue

CONTINUE: Call = ("interim", 100, [])


@in_loop
async def test_100_is_sent_once_when_the_app_asks_for_the_body() -> None:
    heard: list[Message] = []
    exchange = Exchange(listens(heard, 3, *OK), post(expect_continue=True))
    assert exchange.stream.calls == []
    exchange.start()
    await settle()
    assert exchange.stream.calls == [CONTINUE]
    exchange.session.body_received(b"a")
    await settle()
    exchange.session.body_received(b"b")
    await settle()
    exchange.session.body_ended()
    assert await exchange.finish() == [CONTINUE, ("took", 1), ("took", 1), *ANSWERED]


@in_loop
async def test_100_is_not_sent_to_an_app_that_answers_without_the_body() -> None:
    assert await Exchange(says(*OK), post(expect_continue=True)).finish() == ANSWERED


@pytest.mark.parametrize(
    ("answering", "asked"),
    [([start(200)], True), ([start(200), body(b"a", True)], False)],
    ids=["head held back", "on the wire"],
)
@in_loop
async def test_100_is_not_sent_once_the_answer_is_on_the_wire(answering: list[Message], asked: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*answering)(scope, receive, send)
        await receive()
        await send(body(b"b"))

    exchange = Exchange(app, post(expect_continue=True))
    exchange.start()
    await settle()
    exchange.session.body_ended()
    assert (CONTINUE in await exchange.finish()) is asked


@in_loop
async def test_100_is_not_sent_to_a_peer_that_did_not_wait_for_it() -> None:
    heard: list[Message] = []
    exchange = Exchange(listens(heard, 2, *OK), post(expect_continue=True))
    exchange.session.body_received(b"a")
    exchange.start()
    await settle()  # the app took the first piece and waits for the next
    exchange.session.body_ended()
    assert await exchange.finish() == [("took", 1), *ANSWERED]
    assert heard == [piece(b"a", True), piece(b"", False)]


# The peer ends, but may still read


@pytest.mark.parametrize(
    ("request_", "before", "heard"),
    [
        (post(), [], [DISCONNECT]),
        (post(), ["body"], [DISCONNECT]),  # a body that is cut off must not pass for all of it
        (post(), ["body", "receive"], [piece(b"abc", True), DISCONNECT]),
        (post(), ["body", "end"], [piece(b"abc", False), DISCONNECT]),
        (post(), ["body", "end", "receive"], [piece(b"abc", False), DISCONNECT]),
        (post(), ["end"], [piece(b"", False), DISCONNECT]),
        (get(), [], [piece(b"", False), DISCONNECT]),
        (get(), ["peer"], [piece(b"", False), DISCONNECT]),
        (get(), ["receive"], [piece(b"", False), DISCONNECT]),
        (get(), ["receive", "peer"], [piece(b"", False), DISCONNECT]),
        (post(), ["peer", "body", "end"], [DISCONNECT]),
        (get(), ["lost"], [DISCONNECT]),
    ],
)
@in_loop
async def test_the_peer_ends(request_: Request, before: list[str], heard: list[Message]) -> None:
    session = Exchange(says(), request_).session
    told: list[Message] = []
    for step in before:
        match step:
            case "body":
                session.body_received(b"abc")
            case "end":
                session.body_ended()
            case "peer":
                session.peer_ended()
            case "lost":
                session.lost()
            case "receive":
                told.append(await receive(session))
    session.peer_ended()
    session.body_received(b"late")
    while told[-1:] != [DISCONNECT]:
        told.append(await receive(session))
    assert told == heard
    assert session.buffered == 0
    assert await receive(session) == DISCONNECT


@in_loop
async def test_a_peer_that_ended_still_gets_its_answer() -> None:
    heard: list[Message] = []
    exchange = Exchange(listens(heard, 2, *OK))
    exchange.start()
    await settle()
    exchange.session.peer_ended()
    assert await exchange.finish() == ANSWERED
    assert heard == [piece(b"", False), DISCONNECT]


# The peer is gone


@pytest.mark.parametrize("message", [start(200), body(b"b"), body(b"b", True), {"type": "?"}], ids=str)
@pytest.mark.parametrize("before", [[], [start(200)], [start(200), body(b"a", True)]], ids=len)
def test_send_raises_oserror_once_the_peer_is_gone(
    before: list[Message], message: Message, log: list[logging.LogRecord]
) -> None:
    raised: list[OSError] = []

    @in_loop
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await says(*before)(scope, receive, send)
            exchange.session.lost()
            for _ in range(2):
                with pytest.raises(OSError, match="disconnected") as caught:
                    await send(message)
                raised.append(caught.value)

        exchange = Exchange(app)
        calls = await exchange.finish()
        assert calls == RESET[: len(before) if len(before) == 2 else 0]

    test()
    assert [type(error) for error in raised] == [ClientDisconnectedError] * 2
    assert not log


@pytest.mark.parametrize("lost", [False, True])
@in_loop
async def test_send_waits_while_the_peer_does_not_read(lost: bool) -> None:
    sent: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        sent.append(False)
        await send(body(b"a", True))
        sent.append(True)
        await send(body(b"b"))

    exchange = Exchange(app)
    stalled = exchange.stream.stalled = asyncio.Event()
    exchange.start()
    await settle()
    assert sent == [False]
    assert exchange.stream.calls == RESET[:2]
    if lost:
        exchange.session.lost()
    stalled.set()
    calls = await exchange.finish()
    assert (sent, calls) == (([False], RESET[:2]) if lost else ([False, True], [*RESET[:2], ("body", b"b", True)]))


@in_loop
async def test_an_application_that_sends_without_a_wait_lets_the_loop_turn() -> None:
    """Or it would never hear that its transport is lost, which that one tells in a turn of its own."""
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start(200))
        asyncio.get_running_loop().call_soon(exchange.session.lost)
        for sent in range(MANY):  # noqa: B007
            await send(body(b"a", True))

    exchange = Exchange(app)
    await exchange.finish()
    assert 1 <= sent < MANY - 1


@in_loop
async def test_who_waits_in_receive_hears_of_a_disconnect_before_a_send_fails() -> None:
    """As Django does it: whichever of two tasks ends first, the other one is cancelled."""
    ends: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def listens() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def answers() -> None:
            try:
                await send(start(200))
                await send(body(b"a", True))
            except BaseException as error:
                ends.append(type(error).__name__)
                raise

        tasks = [asyncio.create_task(listens()), asyncio.create_task(answers())]
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert done == {tasks[0]}
        for task in others:
            task.cancel()
        await asyncio.wait(tasks)

    exchange = Exchange(app)
    stalled = exchange.stream.stalled = asyncio.Event()
    exchange.start()
    await settle()
    exchange.session.lost()
    stalled.set()
    assert await exchange.finish() == RESET[:2]
    assert ends == ["CancelledError"]


def passes(error: OSError) -> None:
    raise error


def wraps(error: OSError) -> None:
    raise KeyError("wrapped") from error


def groups(error: OSError) -> None:
    raise ExceptionGroup("tasks", [error, ExceptionGroup("more", [error])])


def fails(error: OSError) -> None:
    raise ExceptionGroup("tasks", [error, ValueError("mine")])


@pytest.mark.parametrize(("then", "logged"), [(passes, False), (wraps, False), (groups, False), (fails, True)])
def test_the_news_of_the_disconnect_may_pass_through_the_app(
    then: Callable[[OSError], None], logged: bool, log: list[logging.LogRecord]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert await receive() == DISCONNECT
        try:
            await send(start(200))
        except OSError as error:
            then(error)

    @in_loop
    async def test() -> None:
        exchange = Exchange(app)
        exchange.session.lost()
        assert await exchange.finish() == []

    test()
    assert len(log) == logged


def of_itself() -> BaseException:
    error = ValueError("a circle")
    error.__cause__ = error
    return error


@pytest.mark.parametrize("error", [ValueError("mine"), OSError("disk"), SystemExit(1), of_itself()], ids=repr)
def test_another_failure_is_logged_although_the_peer_is_gone(
    error: BaseException, log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        exchange = Exchange(raises(error))
        exchange.session.lost()
        assert await exchange.finish() == []

    test()
    assert lines(log) == [f"ERROR the application failed: {type(error).__name__} (GET '/p', request 7-1)"]


@in_loop
async def test_lost_after_the_answer_was_complete_is_no_disconnect() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*OK)(scope, receive, send)
        exchange.session.lost()
        with pytest.raises(RuntimeError):
            await send(body(b"more"))

    exchange = Exchange(app)
    assert await exchange.finish() == ANSWERED


# An answer in the app's place


@pytest.mark.parametrize("before", [[], [start(200, length(9))]], ids=["nothing sent", "head held"])
def test_the_connection_answers_in_the_apps_place(before: list[Message], log: list[logging.LogRecord]) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*before)(scope, receive, send)
        heard.append(await receive())
        await send(body(b"too late"))

    @in_loop
    async def test() -> None:
        exchange = Exchange(app, post(), default_headers=[(b"server", b"asgiri")])
        session = exchange.session
        exchange.start()
        await settle()
        session.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request body is too large")
        assert not session.unanswered
        text = b"413 Content Too Large: the request body is too large\n"
        session.body_received(b"late")
        assert session.buffered == 0
        assert await exchange.finish() == [
            ("head", 413, [PLAIN, length(len(text)), (b"server", b"asgiri")]),
            ("body", text, True),
        ]

    test()
    assert heard == [DISCONNECT]
    assert not log


@in_loop
async def test_an_app_that_returns_because_the_peer_has_left_is_not_blamed(log: list[logging.LogRecord]) -> None:
    async def polls(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    exchange = Exchange(polls)
    exchange.start()
    await settle()
    exchange.session.peer_ended()
    await exchange.finish()
    assert lines(log) == []


@pytest.mark.parametrize("pieces", [1, 2], ids=["whole", "in pieces"])
@pytest.mark.parametrize("error", [RecursionError(), MemoryError(), KeyError()], ids=repr)
@in_loop
async def test_an_answer_whose_end_breaks_on_its_way_is_cut(error: BaseException, pieces: int) -> None:
    exchange = Exchange(says(start(), *[body(b"a", more=True)] * (pieces - 1), body(b"b")))
    exchange.stream.breaks = error
    calls = await exchange.finish()
    assert calls[-1] == ("reset",), "nobody knows how much of it is out"


@in_loop
async def test_what_the_app_awaits_are_pythons_own_coroutines() -> None:
    """In every build: see asgi/calls.py."""
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for made in (receive(), send(start(200)), send(body(b"ok"))):
            seen.append(inspect.iscoroutine(made))
            await made
        seen.extend(inspect.iscoroutinefunction(function) for function in (receive, send))
        seen.append(list(inspect.signature(send).parameters))
        await go_on.wait()

    go_on = asyncio.Event()
    exchange = Exchange(app)
    task = exchange.start()
    await settle()
    assert [frame.f_code.co_name for frame in task.get_stack()] == ["run"]
    go_on.set()
    assert await exchange.finish() == ANSWERED
    assert seen == [True] * 5 + [["message"]]


@in_loop
async def test_a_send_that_nobody_awaits_is_warned_of() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.warns(RuntimeWarning, match="'send' was never awaited"):
            send(start(204))
        await says(*OK)(scope, receive, send)

    assert await Exchange(app).finish() == ANSWERED
