"""The WebSocket session on a hand-written stream: what the application is told, and what it makes of its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

import pytest

from asgiri.asgi.calls import receive, send
from asgiri.asgi.websocket import MESSAGE_COST, WebSocketSession
from asgiri.errors import ClientDisconnectedError
from asgiri.types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi.conversation import (
    ACCEPTED,
    CONNECT,
    FAILED,
    FORBIDDEN,
    Conversation,
    accept,
    binary,
    body,
    close,
    disconnect,
    send_bytes,
    send_text,
    start,
    text,
)
from tests.asgi.exchange import PLAIN, Call, length, lines, listens, says
from tests.proto.fakes import in_loop, settle

MANY = 200_000  # sends that take longer than an application may go on for

# What the app says


@pytest.mark.parametrize(
    ("messages", "calls"),
    [
        # The handshake
        ([accept(), close()], [*ACCEPTED, ("close", 1000, "")]),
        ([{"type": "websocket.accept"}, close()], [*ACCEPTED, ("close", 1000, "")]),
        ([accept((b"X-A", b"1"), [b"x-b", bytearray(b"2")], subprotocol="chat"), close()],
         [("accept", "chat", [(b"x-a", b"1"), (b"x-b", b"2")]), ("close", 1000, "")]),
        ([accept(subprotocol=None), close()], [*ACCEPTED, ("close", 1000, "")]),
        ([close()], FORBIDDEN),
        ([close(code=4000, reason="go away")], FORBIDDEN),
        ([close(code=1008, reason=[{"loc": ["path", "number"]}])], FORBIDDEN),  # as FastAPI does
        # Messages
        ([accept(), send_text("é"), send_bytes(b"b"), send_text(""), send_bytes(b""), close()],
         [*ACCEPTED, ("text", "é"), ("binary", b"b"), ("text", ""), ("binary", b""), ("close", 1000, "")]),
        ([accept(), {"type": "websocket.send", "text": "a", "bytes": None}, close()],
         [*ACCEPTED, ("text", "a"), ("close", 1000, "")]),
        ([accept(), {"type": "websocket.send", "text": None, "bytes": b"a"}, close()],
         [*ACCEPTED, ("binary", b"a"), ("close", 1000, "")]),
        ([accept(), send_bytes(bytearray(b"ab")), send_bytes(memoryview(b"c")), close()],
         [*ACCEPTED, ("binary", b"ab"), ("binary", b"c"), ("close", 1000, "")]),
        # The close
        ([accept(), close(code=3001, reason="räson")], [*ACCEPTED, ("close", 3001, "räson")]),
        ([accept(), close(code=None, reason=None)], [*ACCEPTED, ("close", 1000, "")]),
        ([accept(), close(code=HTTPStatus(500) + 4000)], [*ACCEPTED, ("close", 4500, "")]),
        ([accept()], [*ACCEPTED, ("close", 1000, "")]),
        # The denial
        ([start(), body(b"no")], [("deny", 401, [length(2)], b"no")]),
        ([{"type": "websocket.http.response.start", "status": 404}, {"type": "websocket.http.response.body"}],
         [("deny", 404, [length(0)], b"")]),
        ([start(HTTPStatus.UNAUTHORIZED, (b"X", b"1")), body(b"a", True), body(b"b", True), body()],
         [("head", 401, [(b"x", b"1")]), ("body", b"a", False), ("body", b"b", False), ("body", b"", True)]),
        ([start(401, length(2)), body(b"n", True), body(b"o")],
         [("head", 401, [length(2)]), ("body", b"n", False), ("body", b"o", True)]),
        ([start(401, (b"transfer-encoding", b"chunked")), body(b"no")],
         [("deny", 401, [(b"transfer-encoding", b"chunked")], b"no")]),
        ([start(204), body()], [("deny", 204, [], b"")]),
        ([start(304, length(9)), body()], [("deny", 304, [length(9)], b"")]),
        ([start(200), body(bytearray(b"ok"))], [("deny", 200, [length(2)], b"ok")]),
    ],
)  # fmt: skip
def test_what_the_application_says_is_passed_on(
    messages: list[Message], calls: list[Call], log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        assert await Conversation(says(*messages)).finish() == calls

    test()
    assert not log


@pytest.mark.parametrize(
    "messages", [[accept((b"Server", b"mine"))], [start(401, (b"Server", b"mine")), body()], [close()], []], ids=str
)
@in_loop
async def test_default_headers_are_added_where_the_app_has_none_of_that_name(messages: list[Message]) -> None:
    defaults = [(b"date", b"now"), (b"server", b"asgiri"), (b"via", b"1")]
    answer = (await Conversation(says(*messages), default_headers=defaults).finish())[0]
    fields = [field for field in answer[2] if field[0] not in (b"content-type", b"content-length")]
    mine = [(b"server", b"mine"), (b"date", b"now"), (b"via", b"1")]
    assert fields == (mine if len(messages) and "headers" in messages[0] else defaults)
    assert len(defaults) == 3, "nobody's list is changed"


@in_loop
async def test_the_app_gets_the_scope_itself() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        await send(close())

    conversation = Conversation(app)
    await conversation.finish()
    assert seen[0] is conversation.scope
    assert seen[0]["subprotocols"] == ["chat"]


@in_loop
async def test_the_head_of_a_denial_is_held_back_until_the_first_body() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await go_on.wait()
        await send(body(b"no", True))
        assert not conversation.session.unanswered
        await send(body())

    conversation = Conversation(app)
    conversation.start()
    await settle()
    assert conversation.stream.calls == []
    assert conversation.session.unanswered
    go_on.set()
    await conversation.finish()


# What the app may not do: every kind of message in every state

BEFORE: dict[str, list[Message]] = {
    "none": [],
    "accepted": [accept()],
    "held": [start()],
    "denying": [start(), body(b"a", True)],
    "denied": [start(), body()],
    "closed": [accept(), close()],
    "refused": [close()],
}
FITS = {
    "none": {"websocket.accept", "websocket.close", "websocket.http.response.start"},
    "accepted": {"websocket.send", "websocket.close"},
    "held": {"websocket.http.response.body"},
    "denying": {"websocket.http.response.body"},
    "denied": set(),
}
EXPECTED = {
    "none": "was sent before the handshake was answered: expected websocket.accept, websocket.close or websocket.http",
    "accepted": "was sent after websocket.accept: expected websocket.send or websocket.close",
    "held": "was sent after websocket.http.response.start: expected websocket.http.response.body",
    "denying": "was sent before the denial was complete: expected websocket.http.response.body",
    "denied": "was sent after the denial was complete: expected nothing more",
}
KINDS: list[Message] = [
    accept(),
    send_text("a"),
    close(),
    start(),
    body(b"b"),
    {"type": "http.response.start", "status": 200},
    {"type": "websocket.sned"},
    {},
]


@pytest.mark.parametrize("message", KINDS, ids=lambda message: message.get("type", "no type"))
@pytest.mark.parametrize("state", BEFORE)
def test_each_message_has_its_place(state: str, message: Message, log: list[logging.LogRecord]) -> None:
    kind = message.get("type")

    @in_loop
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await says(*BEFORE[state])(scope, receive, send)
            before = conversation.stream.calls.copy()
            if state in ("closed", "refused"):
                with pytest.raises(ClientDisconnectedError, match="the application has closed the WebSocket"):
                    await send(message)
            elif kind not in FITS[state]:
                with pytest.raises(RuntimeError, match=EXPECTED[state]) as error:
                    await send(message)
                assert str(error.value).startswith(
                    f"{kind} was" if message in KINDS[:5] else f"message type {kind!r} is"
                )
            else:
                await send(message)
                assert (conversation.stream.calls != before) is (kind != "websocket.http.response.start")
                before = conversation.stream.calls.copy()
            assert conversation.stream.calls == before, "a message that is refused leaves no trace"

        conversation = Conversation(app)
        await conversation.finish()

    test()
    unanswered = ("none", "held", "denying") if kind not in FITS.get(state, ()) else ()
    complaints = [line for line in lines(log) if "returned without" in line]
    assert complaints == lines(log), "nothing else is wrong"
    if state in unanswered:
        assert complaints


@pytest.mark.parametrize(
    ("before", "message", "error", "says_so"),
    [
        ([], accept(subprotocol=b"chat"), TypeError, "subprotocol: expected a str or None, got bytes"),
        ([], accept(("x", "1")), TypeError, r"headers: .*\('x', '1'\)"),
        ([], {"type": "websocket.accept", "headers": None}, TypeError, ""),
        ([], accept((b"x", b"1\n2")), RuntimeError, "cannot be accepted like that: a value holds a line feed"),
        ([], accept(subprotocol="unasked"), RuntimeError, "cannot be accepted like that: the peer did not offer"),
        ([], close(code="1000"), TypeError, "code: expected an int, got '1000'"),
        ([accept()], close(reason=b"r"), TypeError, "reason: expected a str or None, got bytes"),
        ([], start("401"), TypeError, "status: expected an int, got '401'"),
        ([], start(None), TypeError, "status"),
        ([], start(401, ("x", "1")), TypeError, "headers"),
        ([], start(401, (b"content-length", b"+1")), ValueError, "content-length"),
        ([accept()], {"type": "websocket.send"}, ValueError, "expected text or bytes, got neither"),
        ([accept()], {"type": "websocket.send", "text": None, "bytes": None}, ValueError, "got neither"),
        ([accept()], {"type": "websocket.send", "text": "", "bytes": b""}, ValueError, "got both"),
        ([accept()], send_text(b"b"), TypeError, "text: expected a str, got bytes"),
        ([accept()], send_bytes("b"), TypeError, "bytes: expected bytes, got str"),
        ([accept()], send_bytes(5), TypeError, "bytes: expected bytes, got int"),
        ([accept()], send_text("a\udc80"), ValueError, "the text cannot be sent: the text holds a surrogate"),
        ([accept()], close(code=1.0), TypeError, "code: expected an int, got 1.0"),
        ([accept()], close(code=1006), ValueError, "cannot be closed like that: code 1006 cannot be sent"),
        ([accept()], close(code=0), ValueError, "code 0 cannot be sent"),
        ([start()], body("b"), TypeError, "body: expected bytes, got str"),
        ([start()], body(None), TypeError, "body: expected bytes, got NoneType"),
        ([start(401, (b"x", b"1\n2"))], body(), RuntimeError, "the answer's head cannot be sent: a value holds a line"),
        ([start(401, (b"x", b"1\n2"))], body(b"", True), RuntimeError, "the answer's head cannot be sent"),
        ([start(401, length(2))], body(b"abc"), RuntimeError, "longer than its Content-Length, by 1 bytes"),
        ([start(401, length(2))], body(b"a"), RuntimeError, "shorter than its Content-Length, by 1 bytes"),
        ([start(401, length(2)), body(b"a", True)], body(b"bc", True), RuntimeError, "longer than its Content-Length"),
    ],
)
@in_loop
async def test_what_is_ill_formed_is_refused_and_another_may_follow(
    before: list[Message], message: Message, error: type[Exception], says_so: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*before)(scope, receive, send)
        sent = conversation.stream.calls.copy()
        for _ in range(2):
            with pytest.raises(error, match=says_so):
                await send(message)
        assert conversation.stream.calls == sent
        if not before:
            await send(accept())
        if before in ([], [accept()]):
            await send(send_text("still here"))
            assert conversation.stream.calls[-1] == ("text", "still here")

    conversation = Conversation(app)
    await conversation.finish()


# What the app is told


@in_loop
async def test_connect_comes_first_and_then_messages_in_order() -> None:
    heard: list[Message] = []
    conversation = Conversation(listens(heard, 5))
    session = conversation.session
    session.message("é", None, 2)
    session.message(None, b"", 0)
    session.message("", None, 0)
    session.closed(1001, "leaving")
    await conversation.finish()
    assert heard == [CONNECT, text("é"), binary(b""), text(""), disconnect(1001, "leaving")]


@in_loop
async def test_the_app_may_accept_before_it_asks() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        conversation.session.message("a", None, 1)
        await listens(heard, 2)(scope, receive, send)

    conversation = Conversation(app)
    await conversation.finish()
    assert heard == [CONNECT, text("a")]


@in_loop
async def test_receive_waits_for_what_comes() -> None:
    heard: list[Message] = []
    conversation = Conversation(listens(heard, 4))
    conversation.start()
    session = conversation.session
    for count in range(1, 3):
        await settle()
        assert len(heard) == count
        session.message(str(count), None, 1)
    await settle()
    session.closed(1005, "")
    await conversation.finish()
    assert heard == [CONNECT, text("1"), text("2"), disconnect(1005)]


@in_loop
async def test_a_message_that_waits_is_taken_without_a_turn_of_the_loop() -> None:
    session = Conversation(says()).session
    session.message("a", None, 1)
    session.lost()
    for expected in (CONNECT, text("a"), disconnect()):
        with pytest.raises(StopIteration) as told:
            receive(session).send(None)
        assert told.value.value == expected


@in_loop
async def test_disconnect_comes_again_and_again() -> None:
    session = Conversation(says()).session
    session.closed(4000, "because")
    session.lost()
    session.closed(1000, "late")
    session.peer_ended()
    session.message("late", None, 4)
    first, *more = [await receive(session) for _ in range(4)]
    assert first == CONNECT
    assert more == [disconnect(4000, "because")] * 3
    assert more[0] is not more[1], "the app may change its own"


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([accept(), close(code=3000, reason="mine")], disconnect(3000, "mine")),
        ([close(code=3000, reason="mine")], disconnect(1006)),
        ([start(), body()], disconnect(1006)),
        ([start(), body(b"a", True), body()], disconnect(1006)),
    ],
)
@in_loop
async def test_who_closes_is_told_as_well(messages: list[Message], told: Message) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = conversation.session
        session.message("before", None, 6)
        await says(*messages)(scope, receive, send)
        assert session.buffered == 0, "the reading goes on, up to the peer's Close frame"
        session.message("after", None, 5)
        session.closed(1001, "the peer's")
        await listens(heard, 4)(scope, receive, send)

    conversation = Conversation(app)
    await conversation.finish()
    assert heard == [CONNECT, text("before"), told, told]


@in_loop
async def test_the_stream_may_speak_while_it_accepts() -> None:
    heard: list[Message] = []
    conversation = Conversation(listens(heard, 1, accept(), send_text("a")))

    def meanwhile() -> None:
        conversation.session.message("early", None, 5)
        conversation.session.closed(1002, "broken")

    conversation.stream.meanwhile = meanwhile
    assert await conversation.finish() == ACCEPTED, "the peer has closed: nothing is sent, and it is nobody's fault"
    assert await receive(conversation.session) == text("early")
    assert await receive(conversation.session) == disconnect(1002, "broken")


@pytest.mark.parametrize(
    ("before", "message", "calls"),
    [
        ([accept()], close(), [*ACCEPTED, ("close", 1000, "")]),
        ([], close(), FORBIDDEN),
        ([start()], body(), [("deny", 401, [length(0)], b"")]),
        ([start()], body(b"a", True), [("head", 401, []), ("body", b"a", False)]),
    ],
)
def test_the_stream_may_be_lost_while_it_closes_or_denies(
    before: list[Message], message: Message, calls: list[Call], log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await says(*before)(scope, receive, send)
            conversation.stream.meanwhile = conversation.session.lost
            await send(message)

        conversation = Conversation(app)
        assert await conversation.finish() == calls, "and no reset of what is gone"

    test()
    assert not log


# Who waits where


@in_loop
async def test_buffered_counts_what_the_app_has_not_taken() -> None:
    conversation = Conversation(says())
    session, calls = conversation.session, conversation.stream.calls
    assert session.buffered == 0
    session.message(None, b"abc", 3)
    session.message("", None, 0)
    assert session.buffered == 3 + 2 * MESSAGE_COST, "empty messages take room too"
    await receive(session)
    assert (session.buffered, calls) == (3 + 2 * MESSAGE_COST, [])
    await receive(session)
    assert (session.buffered, calls) == (MESSAGE_COST, [("took",)])
    session.closed(1000, "")
    assert session.buffered == 0
    assert await receive(session) == text("")
    assert (session.buffered, calls) == (0, [("took",)])


@in_loop
async def test_an_app_that_closes_lets_the_reading_go_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        conversation.session.message("a", None, 1)
        await send(close())

    conversation = Conversation(app)
    assert await conversation.finish() == [*ACCEPTED, ("close", 1000, ""), ("took",)]


@pytest.mark.parametrize(("before", "message"), [(accept(), send_text("a")), (start(), body(b"a", True))])
@in_loop
async def test_an_application_that_sends_without_a_wait_lets_the_loop_turn(before: Message, message: Message) -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(before)
        asyncio.get_running_loop().call_soon(conversation.session.lost)
        for sent in range(MANY):  # noqa: B007
            await send(message)

    conversation = Conversation(app)
    await conversation.finish()
    assert 1 <= sent < MANY - 1


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(
    ("before", "message", "done"),
    [
        ([accept()], send_text("a"), [*ACCEPTED, ("text", "a")]),
        ([start()], body(b"a", True), [("head", 401, []), ("body", b"a", False)]),
    ],
)
@in_loop
async def test_send_waits_while_the_peer_does_not_read(
    before: list[Message], message: Message, done: list[Call], lost: bool
) -> None:
    ways: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*before)(scope, receive, send)
        ways.append("began")
        try:
            await send(message)
        except OSError:
            ways.append("lost")
            raise
        ways.append("sent")

    conversation = Conversation(app)
    stalled = conversation.stream.stalled = asyncio.Event()
    conversation.start()
    await settle()
    assert (ways, conversation.stream.calls) == (["began"], done)
    if lost:
        conversation.session.lost()
    stalled.set()
    calls = await conversation.finish()
    assert ways == ["began", "lost" if lost else "sent"]
    assert (calls == done) is lost


@in_loop
async def test_a_close_waits_for_nobody() -> None:
    conversation = Conversation(says(accept(), close()))
    conversation.stream.stalled = asyncio.Event()
    assert await conversation.finish() == [*ACCEPTED, ("close", 1000, "")]


@in_loop
async def test_several_may_wait_in_receive_and_one_may_leave() -> None:
    heard: list[Message] = []

    async def listen() -> None:
        heard.append(await receive(conversation.session))

    conversation = Conversation(says())
    session = conversation.session
    await receive(session)
    tasks = [asyncio.create_task(listen()) for _ in range(4)]
    await settle()
    for gone in (tasks[0], tasks[2]):
        gone.cancel()
    await settle()
    assert [task.cancelled() for task in tasks] == [True, False, True, False], "one that leaves takes no other along"
    session.message("a", None, 1)
    await settle()
    assert heard == [text("a")]
    session.lost()
    async with asyncio.timeout(10):
        await asyncio.gather(tasks[1], tasks[3])
    assert heard == [text("a"), disconnect()]


@in_loop
async def test_a_message_is_not_lost_with_the_task_that_waited_for_it() -> None:
    session = Conversation(says()).session
    await receive(session)
    for tasks in (1, 2):
        waiting = [asyncio.create_task(receive(session)) for _ in range(tasks)]
        await settle()
        session.message("a", None, 1)
        waiting[0].cancel()  # in the turn in which it would have got it
        await settle()
        assert waiting[0].cancelled()
        assert await (waiting[1] if tasks == 2 else receive(session)) == text("a")
    assert session.buffered == 0


@in_loop
async def test_sends_and_receives_of_many_tasks_go_together() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(accept())
        assert await receive() == CONNECT

        async def echo() -> None:
            while (message := await receive())["type"] == "websocket.receive":
                await send(send_text(message["text"]))

        await asyncio.gather(*[echo() for _ in range(3)])

    conversation = Conversation(app)
    conversation.start()
    for number in range(30):
        conversation.session.message(str(number), None, 1)
        if number % 7 == 0:
            await settle()
    await settle()
    conversation.session.closed(1000, "")
    calls = await conversation.finish()
    assert [call[1] for call in calls if call[0] == "text"] == [str(number) for number in range(30)]


# The app fails


def raises(error: BaseException, *messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*messages)(scope, receive, send)
        raise error

    return app


CUT: list[Call] = [("head", 401, []), ("body", b"a", False), ("reset",)]
WAYS: list[tuple[list[Message], list[Call]]] = [
    ([], FAILED),
    ([start(401, (b"x", b"1"))], FAILED),
    ([start(), body(b"a", True)], CUT),
    ([start(), body(b"a")], [("deny", 401, [length(1)], b"a")]),
    ([close()], FORBIDDEN),
    ([accept()], [*ACCEPTED, ("close", 1011, "")]),
    ([accept(), send_text("a"), close(code=3000)], [*ACCEPTED, ("text", "a"), ("close", 3000, "")]),
]


@pytest.mark.parametrize("error", [ValueError("oh"), SystemExit(3), OSError("disk"), ExceptionGroup("g", [KeyError()])])
@pytest.mark.parametrize(("messages", "calls"), WAYS)
def test_an_app_that_raises(
    error: BaseException, messages: list[Message], calls: list[Call], log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        assert await Conversation(raises(error, *messages)).finish() == calls

    test()
    assert lines(log) == [f"ERROR the application failed: {type(error).__name__} (WebSocket '/ws', request 7-1)"]
    trace = log[0].__dict__["trace"]
    assert "in app" in trace
    assert "asgiri/asgi" not in trace, "the app's own frames, not ours"


@pytest.mark.parametrize(
    ("messages", "calls", "what"),
    [
        ([], FAILED, "answering the handshake"),
        ([start()], FAILED, "completing its denial"),
        ([start(), body(b"a", True)], CUT, "completing its denial"),
    ],
)
def test_an_app_that_returns_too_early(
    messages: list[Message], calls: list[Call], what: str, log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        assert await Conversation(says(*messages)).finish() == calls

    test()
    assert lines(log) == [f"ERROR the application returned without {what} (WebSocket '/ws', request 7-1)"]


@pytest.mark.parametrize(("messages", "calls"), WAYS)
def test_an_app_that_is_cancelled(messages: list[Message], calls: list[Call], log: list[logging.LogRecord]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*messages)(scope, receive, send)
        await receive()
        await receive()
        await asyncio.Event().wait()

    @in_loop
    async def test() -> None:
        conversation = Conversation(app)
        task = conversation.start()
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert conversation.stream.calls == [*calls, ("finished",)]

    test()
    assert not log


@pytest.mark.parametrize("breaks", [RecursionError(), MemoryError()], ids=repr)
@pytest.mark.parametrize(
    "messages",
    [[start(), body(b"a")], [start(), body(b"a", True)], [accept()]],
    ids=["denial", "denial in pieces", "accept"],
)
@in_loop
async def test_an_answer_that_breaks_on_its_way_is_cut(messages: list[Message], breaks: BaseException) -> None:
    conversation = Conversation(says(*messages))
    conversation.stream.breaks = breaks
    assert await conversation.finish() == [("reset",)], "nobody knows how much of it is out"


def test_the_log_shows_no_byte_of_the_peer_as_it_came(log: list[logging.LogRecord]) -> None:
    @in_loop
    async def test() -> None:
        await Conversation(says(), b"/\x1b[31m\xff'").finish()

    test()
    assert "\x1b" not in lines(log)[0]
    assert r"\x1b[31m" in lines(log)[0]


# The peer is gone


@pytest.mark.parametrize("end", [WebSocketSession.lost, lambda session: session.closed(1001, "bye")])
@pytest.mark.parametrize("state", ["none", "accepted", "held", "denying"])
def test_send_raises_oserror_once_it_is_over(
    state: str, end: Callable[[WebSocketSession], None], log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await says(*BEFORE[state])(scope, receive, send)
            before = conversation.stream.calls.copy()
            end(conversation.session)
            assert not conversation.session.unanswered
            for message in KINDS:
                with pytest.raises(ClientDisconnectedError, match="the client has disconnected") as error:
                    await send(message)
                assert isinstance(error.value, OSError)
            assert conversation.stream.calls == before
            await send(close())

        conversation = Conversation(app)
        assert await conversation.finish() == {"accepted": ACCEPTED, "denying": CUT[:2]}.get(state, [])

    test()
    assert not log


def test_send_raises_oserror_once_the_server_has_said_close(log: list[logging.LogRecord]) -> None:
    @in_loop
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(accept())
            conversation.session.closing()
            for message in (accept(), send_text("a"), start(), body(), {}):
                with pytest.raises(ClientDisconnectedError, match="the server is closing the WebSocket"):
                    await send(message)
            conversation.session.message("on its way", None, 10)
            assert [await receive(), await receive()] == [CONNECT, text("on its way")]
            await send(send_text("a"))

        conversation = Conversation(app)
        assert await conversation.finish() == [*ACCEPTED, ("took",), ("close", 1011, "")]

    test()
    assert not log


def test_who_closes_what_the_server_is_closing_has_its_will() -> None:
    @in_loop
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(accept())
            conversation.session.closing()
            await send(close(code=3000))
            assert [await receive(), await receive()] == [CONNECT, disconnect(3000)]
            with pytest.raises(ClientDisconnectedError, match="the application has closed the WebSocket"):
                await send(close())

        conversation = Conversation(app)
        assert await conversation.finish() == [*ACCEPTED, ("close", 3000, "")]

    test()


class WebSocketDisconnect(Exception):  # noqa: N818 - as frameworks call it
    pass


def passes(told: Exception) -> None:
    raise told


def wraps(told: Exception) -> None:
    raise KeyError("wrapped") from told


def groups(told: Exception) -> None:
    raise ExceptionGroup("tasks", [told, ExceptionGroup("more", [told])])


def fails(told: Exception) -> None:
    raise ExceptionGroup("tasks", [told, ValueError("mine")])


def fails_alone(told: Exception) -> None:
    raise ValueError("mine")


@pytest.mark.parametrize(
    ("then", "logged"), [(passes, False), (wraps, False), (groups, False), (fails, True), (fails_alone, True)]
)
@pytest.mark.parametrize("framework", [False, True])
def test_the_news_of_the_disconnect_may_pass_through_the_app(
    then: Callable[[Exception], None], framework: bool, logged: bool, log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        async def told(scope: Scope, receive: Receive, send: Send) -> None:
            await send(accept())
            conversation.session.lost()
            assert [await receive(), await receive()] == [CONNECT, disconnect()]
            with pytest.raises(ClientDisconnectedError) as refused:
                await send(send_text("a"))
            then(WebSocketDisconnect() if framework else refused.value)

        conversation = Conversation(told)
        assert await conversation.finish() == ACCEPTED

    test()
    assert [line.split(" (")[0] for line in lines(log)] == (
        [f"ERROR the application failed: {'ExceptionGroup' if then is fails else 'ValueError'}"] if logged else []
    )


@pytest.mark.parametrize("error", [WebSocketDisconnect(), ClientDisconnectedError()], ids=repr)
def test_news_that_nobody_told_are_a_failure(error: Exception, log: list[logging.LogRecord]) -> None:
    @in_loop
    async def test() -> None:
        assert await Conversation(raises(error, accept())).finish() == [*ACCEPTED, ("close", 1011, "")]

    test()
    assert len(log) == 1


@pytest.mark.parametrize("lost", [False, True])
def test_a_send_after_the_apps_own_close_is_its_failure(lost: bool, log: list[logging.LogRecord]) -> None:
    @in_loop
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await says(accept(), close())(scope, receive, send)
            if lost:
                conversation.session.lost()
            with pytest.raises(ClientDisconnectedError, match="the application has closed the WebSocket"):
                await send(send_text("late"))
            await send(send_text("late"))

        conversation = Conversation(app)
        assert await conversation.finish() == [*ACCEPTED, ("close", 1000, "")]

    test()
    assert lines(log) == ["ERROR the application failed: ClientDisconnectedError (WebSocket '/ws', request 7-1)"]


def test_a_framework_that_is_told_of_its_own_close_has_not_failed(log: list[logging.LogRecord]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await listens([], 1, accept(), close())(scope, receive, send)
        assert await receive() == disconnect(1000)
        raise WebSocketDisconnect

    @in_loop
    async def test() -> None:
        assert await Conversation(app).finish() == [*ACCEPTED, ("close", 1000, "")]

    test()
    assert not log


@pytest.mark.parametrize(
    ("messages", "told"), [([accept()], 1000), ([], 1006), ([start()], 1006), ([start(), body(b"a", True)], 1006)]
)
@in_loop
async def test_tasks_that_an_app_leaves_behind_are_told(messages: list[Message], told: int) -> None:
    conversation = Conversation(says(*messages))
    await conversation.finish()
    session, calls = conversation.session, conversation.stream.calls.copy()
    session.message("late", None, 4)
    assert [await receive(session) for _ in range(2)] == [CONNECT, disconnect(told)]
    for message in KINDS:
        with pytest.raises(ClientDisconnectedError):
            await send(session, message)
    assert conversation.stream.calls == calls


# The peer ends, but may still read


@pytest.mark.parametrize(
    ("messages", "calls"),
    [
        ([], FAILED),
        ([close()], FORBIDDEN),
        ([start(), body(b"no")], [("deny", 401, [length(2)], b"no")]),
        ([accept(), send_text("a")], [*ACCEPTED, ("text", "a"), ("close", 1000, "")]),
    ],
)
def test_a_peer_that_ended_still_gets_its_answer(
    messages: list[Message], calls: list[Call], log: list[logging.LogRecord]
) -> None:
    heard: list[Message] = []

    @in_loop
    async def test() -> None:
        conversation = Conversation(listens(heard, 2, *messages))
        conversation.start()
        await settle()
        conversation.session.peer_ended()
        assert await conversation.finish() == calls

    test()
    assert heard == [CONNECT, disconnect()]
    assert not log, "an app that sees no use in an answer is not blamed"


# An answer in the app's place


@pytest.mark.parametrize("before", [[], [start(401, length(9))]], ids=["nothing sent", "head held"])
def test_the_server_answers_in_the_apps_place(before: list[Message], log: list[logging.LogRecord]) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*before)(scope, receive, send)
        await listens(heard, 2, body(b"too late"))(scope, receive, send)

    @in_loop
    async def test() -> None:
        conversation = Conversation(app, default_headers=[(b"server", b"asgiri")])
        session = conversation.session
        conversation.start()
        await settle()
        session.answer(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests", (b"retry-after", b"1"))
        assert not session.unanswered
        said = b"503 Service Unavailable: too many requests\n"
        fields = [PLAIN, length(len(said)), (b"retry-after", b"1"), (b"server", b"asgiri")]
        assert await conversation.finish() == [("deny", 503, fields, said)]

    test()
    assert heard == [CONNECT, disconnect()]
    assert not log


@in_loop
async def test_a_session_is_what_a_connection_expects_of_one() -> None:
    session = Conversation(says()).session
    session.body_received(b"a handshake has none")
    session.body_ended()
    assert (session.number, session.unanswered, session.buffered) == (1, True, 0)
    assert session.summary == "WebSocket '/ws', request 7-1"
