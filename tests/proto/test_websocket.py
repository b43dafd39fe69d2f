"""WebSockets on both carriers: the same conversation has the same outcome over HTTP/1.1 and over HTTP/2."""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from asgiri.asgi.session import Session
from asgiri.asgi.websocket import MESSAGE_COST
from asgiri.errors import ClientDisconnectedError
from asgiri.proto.carrier import PORTION
from asgiri.proto.connection import HIGH_WATER, LINGER_SECONDS, POSTED
from asgiri.proto.websocket import CLOSE_SECONDS
from tests.proto.fakes import in_loop, parse_answers, request, settle
from tests.proto.fakes_websocket import (
    BINARY,
    CLIENTS,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Client,
    Http1Client,
    Http2Client,
    Played,
    close,
    frame,
    head,
    now,
    opened,
    text,
    times,
)
from tests.proto.test_access import Lines

MakeClient = Callable[..., Client]
DISCONNECT = "websocket.disconnect"
on_each_carrier = pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": DISCONNECT, "code": code, "reason": reason}


def compressed(size: int) -> bytes:
    """A message of so many zeros."""
    packer = zlib.compressobj(wbits=-15)
    message = bytearray(frame(BINARY, (packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]))
    message[0] |= 0x40  # RSV1
    return bytes(message)


# The conversation


@on_each_carrier
@in_loop
async def test_messages_of_any_kind_come_back(make: MakeClient) -> None:
    lines = Lines()
    client = make(echo, access_log=lines)
    await client.open("/chat?a=b")
    assert client.status in (101, 200)
    assert len(client.shared.sessions) == 1
    await client.say(text("hello"), frame(BINARY, b"\x00" * 70000))
    await client.say(text(""))
    await client.say(frame(TEXT, b"in ", fin=False), frame(PING, b"?"), frame(0, b"pieces"))
    expected = [(TEXT, b"hello"), (BINARY, b"\x00" * 70000), (TEXT, b""), (PONG, b"?"), (TEXT, b"in pieces")]
    assert client.frames == expected
    assert not lines.all
    await client.say(close(1000, "bye"))
    assert client.frames == [*expected, (CLOSE, b"\x03\xe8")]
    assert client.ended()
    assert not client.cut()
    assert not client.shared.sessions
    await client.end()
    (line,) = lines.all
    assert (line.target, line.status, line.size) == (b"/chat?a=b", client.status, len(client.received))


@on_each_carrier
@in_loop
async def test_the_scope_tells_the_handshake(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    await client.open("/a%20b?c", ("Sec-WebSocket-Protocol", "one, two"))
    scope = (await app.next()).scope
    assert (scope["type"], scope["scheme"], scope["path"], scope["query_string"]) == ("websocket", "ws", "/a b", b"c")
    assert scope["subprotocols"] == ["one", "two"]
    assert scope["http_version"] == ("1.1" if isinstance(client, Http1Client) else "2")
    assert scope["client"] == ("192.0.2.7", 40000)
    await client.end()


@on_each_carrier
@in_loop
async def test_nothing_is_answered_before_the_application_has_accepted(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    await client.open("/chat", ("Sec-WebSocket-Protocol", "one, two"))
    call = await app.next()
    assert await now(call.receive()) == {"type": "websocket.connect"}
    await client.say(text("early"), text("birds"))
    assert client.answer() is None
    await call.send({"type": "websocket.accept", "subprotocol": "two", "headers": [(b"x-room", b"7")]})
    await client.turn()
    answer = client.answer()
    assert answer is not None
    assert (answer.headers["sec-websocket-protocol"], answer.headers["x-room"]) == ("two", "7")
    assert [(await now(call.receive()))["text"] for _ in range(2)] == ["early", "birds"]
    await client.end()


@on_each_carrier
@in_loop
async def test_the_servers_own_fields(make: MakeClient) -> None:
    client = make(echo)
    client.shared.context.set_default_headers([(b"date", b"today"), (b"x-own", b"1")])
    await client.open()
    answer = client.answer()
    assert answer is not None
    assert (answer.headers["date"], answer.headers["x-own"]) == ("today", "1")
    await client.end()


@in_loop
async def test_the_answer_over_http1() -> None:
    client = Http1Client(echo)
    await client.open()
    assert client.transport.sent == (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    await client.end()


@on_each_carrier
@in_loop
async def test_what_comes_with_the_handshake_is_kept(make: MakeClient) -> None:
    client = make(echo)
    if isinstance(client, Http1Client):
        await client.say(client.asking() + text("at once") + close())
    else:
        assert isinstance(client, Http2Client)
        client.stream = client.connect()
        await client.say(text("at once"), close())
    assert client.frames[0] == (TEXT, b"at once") or client.frames[0][0] == CLOSE
    assert client.frames[-1] == (CLOSE, b"\x03\xe8")
    await client.end()


@on_each_carrier
@in_loop
async def test_the_answers_of_one_turn_leave_in_one_write(make: MakeClient) -> None:
    client = make(echo)
    await client.open()
    for _ in range(200):  # so that the outbox has had its lonely turns, and lets single answers go at once
        await client.say(text("x"))
    writes, before = len(client.transport.writes), len(client.frames)
    await client.say(b"".join(text(f"{number}") for number in range(16)))
    assert [payload for _, payload in client.frames[before:]] == [b"%d" % number for number in range(16)]
    allowed = 1 if isinstance(client, Http1Client) else 2  # a WINDOW_UPDATE may go before
    assert len(client.transport.writes) - writes <= allowed
    await client.end()


@on_each_carrier
@in_loop
async def test_what_is_said_unasked_leaves_in_one_write(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    for _ in range(20):
        await client.say(text("x"))
        await now(call.receive())
        await call.send({"type": "websocket.send", "text": "x"})
        await client.turn()
    writes = len(client.transport.writes)
    for number in range(16):
        await call.send({"type": "websocket.send", "text": f"{number}"})
    await client.turn()
    assert client.frames[-1] == (TEXT, b"15")
    assert len(client.transport.writes) == writes + 1
    await client.end()


@on_each_carrier
@in_loop
async def test_much_in_one_turn_does_not_wait_for_its_end(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    written: list[int] = []
    for _ in range(5):
        await call.send({"type": "websocket.send", "bytes": b"x" * (POSTED // 2)})
        stream: Any = client.peer.connection.streams[client.stream] if isinstance(client, Http2Client) else None
        written.append(len(client.received) if stream is None else stream.get_write_buffer_size())
    assert written[0] < POSTED < written[-1]
    await client.end()


# Other answers


@on_each_carrier
@in_loop
async def test_a_close_before_the_accept_is_a_403(make: MakeClient) -> None:
    lines = Lines()
    app = Played()
    client = make(app, access_log=lines)
    await client.open()
    call = await app.next()
    await call.send({"type": "websocket.close"})
    call.finish()
    await client.turn()
    assert client.status == 403
    assert [line.status for line in lines.all] == [403]
    assert not client.shared.sessions
    await client.end()


@on_each_carrier
@in_loop
async def test_a_denial_in_pieces(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    await client.open()
    call = await app.next()
    await call.send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"you")]})
    await call.send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await client.turn()
    await call.send({"type": "websocket.http.response.body", "body": b"are you?"})
    call.finish()
    await client.turn()
    answer = client.answer()
    assert answer is not None
    assert (answer.status, answer.headers["x-why"], answer.body) == (401, "you", b"who are you?")
    assert await now(call.receive()) == {"type": "websocket.connect"}
    assert await now(call.receive()) == disconnect(1006)
    await client.end()


@on_each_carrier
@in_loop
async def test_a_denial_goes_at_the_pace_of_the_peer(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    await client.open()
    call = await app.next()
    await client.stall()
    await call.send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    piece = {"type": "websocket.http.response.body", "body": b"x" * 300_000, "more_body": True}
    sending = asyncio.ensure_future(call.send(piece))
    await client.turn()
    assert not sending.done()
    await client.read_on()
    await sending
    client.vanish()
    await client.turn()
    with pytest.raises(ClientDisconnectedError):
        await call.send(piece)
    call.finish()
    await client.end()


@in_loop
async def test_a_denied_handshake_is_one_request_of_http1() -> None:
    """What is pipelined behind it is the next one."""
    app = Played()
    client = Http1Client(app)
    client.send(client.asking() + request("/next") + client.asking("/again") + text("hello"))
    call = await app.next()
    assert call.scope["type"] == "websocket"
    await call.send({"type": "websocket.http.response.start", "status": 200, "headers": []})
    await call.send({"type": "websocket.http.response.body", "body": b"no"})
    call.finish()
    call = await app.next()
    assert (call.scope["type"], call.scope["path"]) == ("http", "/next")
    await call.reply(b"yes")
    assert [(answer.status, answer.body) for answer in client.peer.answers] == [(200, b"no"), (200, b"yes")]
    call = await app.next()
    assert (call.scope["type"], call.scope["path"]) == ("websocket", "/again")
    await call.send({"type": "websocket.accept"})
    assert (await now(call.receive()))["type"] == "websocket.connect"
    assert (await now(call.receive()))["text"] == "hello"
    await client.end()


@pytest.mark.parametrize("more", [True, False])
@in_loop
async def test_http2_cannot_deny_with_success(more: bool) -> None:
    app = Played()
    client = Http2Client(app)
    await client.open()
    call = await app.next()
    await call.send({"type": "websocket.http.response.start", "status": 200, "headers": []})
    with pytest.raises(RuntimeError, match="status 200 would accept the WebSocket"):
        await call.send({"type": "websocket.http.response.body", "more_body": more})
    call.finish()
    await client.turn()
    assert client.status == 500
    await client.end()


@on_each_carrier
@in_loop
async def test_a_denial_that_breaks_off_is_cut(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    await client.open()
    call = await app.next()
    await call.send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await call.send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    call.finish()
    await client.turn()
    assert client.cut()
    await client.end()


@on_each_carrier
@pytest.mark.parametrize(("accepted", "expected"), [(False, 500), (True, 1011)])
@in_loop
async def test_the_application_fails(make: MakeClient, accepted: bool, expected: int) -> None:
    app = Played()
    client = make(app)
    await client.open()
    call = await app.next()
    if accepted:
        await call.send({"type": "websocket.accept"})
    call.finish(ZeroDivisionError())
    await client.turn()
    assert (client.closed_with() or (client.status, ""))[0] == expected
    await client.end()


@in_loop
async def test_an_accept_that_breaks_on_its_way_is_cut() -> None:
    """Nobody knows how much of the answer is out, and the client would wait for the rest of it."""
    app = Played()
    client = Http1Client(app)
    await client.open()
    call = await app.next()
    client.transport.breaks = MemoryError()
    with pytest.raises(MemoryError):
        await call.send({"type": "websocket.accept"})
    with pytest.raises(RuntimeError):
        await call.send({"type": "websocket.accept"})
    assert not client.cut(), "the application may have more to do"
    call.finish()
    await client.turn()
    assert client.cut()
    await client.end()


@pytest.mark.parametrize(
    ("but", "fields", "status"),
    [
        ("Sec-WebSocket-Key", [], 400),
        ("", [("Sec-WebSocket-Key", "x")], 400),
        ("Sec-WebSocket-Version", [("Sec-WebSocket-Version", "8")], 426),
        ("", [("Content-Length", "3")], 400),
    ],
)
@in_loop
async def test_what_is_no_handshake_over_http1(but: str, fields: list[tuple[str, str]], status: int) -> None:
    """The connection goes on: the request was whole, and is answered."""
    app = Played()
    client = Http1Client(app)
    body = b"abc" if ("Content-Length", "3") in fields else b""
    await client.say(client.asking("/chat", *fields, but=but) + body + request("/next"))
    (answer,) = client.peer.answers
    assert answer.status == status
    assert answer.headers.get("sec-websocket-version") == ("13" if status == 426 else None)
    assert answer.headers.get("upgrade") == ("websocket" if status == 426 else None)
    call = await app.next()
    assert call.scope["path"] == "/next"
    await client.end()


@in_loop
async def test_what_is_no_handshake_over_http2() -> None:
    client = Http2Client(echo)
    await client.open("/chat", ("sec-websocket-version", "8"))
    assert client.status == 400
    client.stream = client.connect(end_stream=True)
    await client.turn()
    assert client.status == 400
    assert not client.peer.connection.streams
    await client.end()


@in_loop
async def test_an_upgrade_to_something_else_is_a_plain_request() -> None:
    app = Played()
    client = Http1Client(app)
    await client.say(request("/", "Connection: upgrade", "Upgrade: chat/1"))
    assert (await app.next()).scope["type"] == "http"
    await client.end()


@on_each_carrier
@in_loop
async def test_too_many_at_once(make: MakeClient) -> None:
    app = Played()
    client = make(app, requests=1)
    if isinstance(client, Http1Client):
        client.shared.sessions.add(held := Session())
    else:
        assert isinstance(client, Http2Client)
        client.connect("/first")
        await client.turn()
        await app.next()
    await client.open()
    answer = client.answer()
    assert answer is not None
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert not app.calls
    if isinstance(client, Http1Client):
        client.shared.sessions.discard(held)
    await client.end()


@on_each_carrier
@in_loop
async def test_a_handshake_that_takes_too_long(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(request=10))
    await client.open()
    call = await app.next()
    await client.passes(10)
    assert client.answer() is None
    await client.passes(1)
    assert client.status == 503
    assert call.cancelled
    await client.end()


@on_each_carrier
@in_loop
async def test_an_accepted_one_may_last(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(request=10, request_body=10, request_head=10, keep_alive=10, write=10))
    call = await opened(client, app)
    await client.passes(100, step=20)
    await client.say(text("still here"))
    assert (await now(call.receive()))["text"] == "still here"
    await client.end()


# The closing handshake


@on_each_carrier
@in_loop
async def test_the_peer_closes(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.say(text("last words") + close(3001, "enough") + text("and more"))
    assert (await now(call.receive()))["text"] == "last words"
    assert await now(call.receive()) == disconnect(3001, "enough")
    with pytest.raises(ClientDisconnectedError):
        await call.send({"type": "websocket.send", "text": "hello?"})
    assert client.frames == [(CLOSE, (3001).to_bytes(2))]
    assert client.ended()
    await client.end()


@on_each_carrier
@in_loop
async def test_the_application_closes(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await call.send({"type": "websocket.close", "code": 4000, "reason": "done"})
    call.finish()
    await client.turn()
    assert client.closed_with() == (4000, "done")
    assert not client.ended(), "the peer has its turn"
    await client.say(text("on its way"), close(4000))
    assert client.ended()
    assert not client.cut()
    await client.end()


@on_each_carrier
@in_loop
async def test_a_peer_that_does_not_answer_the_close(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await call.send({"type": "websocket.close"})
    await client.passes(CLOSE_SECONDS)
    assert not client.cut()
    await client.passes(1)
    assert client.cut()
    await client.end()


@on_each_carrier
@in_loop
async def test_a_slow_reader_is_not_cut_for_the_close_that_it_has_not_read(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.stall()
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": b"x" * 200_000}))
    await client.turn()
    closing = asyncio.ensure_future(call.send({"type": "websocket.close"}))
    await client.passes(CLOSE_SECONDS * 3)
    assert not client.cut()
    await client.read_on()
    await sending
    await closing
    await client.turn()
    assert client.closed_with() == (1000, "")
    await client.say(close())
    assert client.ended()
    await client.end()


@on_each_carrier
@pytest.mark.parametrize("says_so", [True, False])
@in_loop
async def test_messages_that_nobody_wants_do_not_hide_the_peers_close(make: MakeClient, says_so: bool) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.say(frame(BINARY, b"x" * HIGH_WATER) + text("more"))
    assert not client.is_read()
    if says_so:
        await call.send({"type": "websocket.close"})
    else:
        call.finish()
    await client.turn()
    await client.say(close())
    assert client.ended()
    await client.end()


@on_each_carrier
@pytest.mark.parametrize(
    ("data", "code"),
    [(b"\x81\x00", 1002), (frame(TEXT, b"\xff"), 1007), (head(BINARY, 1 << 20), 1009)],
    ids=["unmasked", "no UTF-8", "too large"],
)
@in_loop
async def test_a_peer_that_breaks_the_protocol(make: MakeClient, data: bytes, code: int) -> None:
    app = Played()
    client = make(app, max_message=1000)
    call = await opened(client, app)
    await client.say(text("good"), data)
    assert (client.closed_with() or (0, ""))[0] == code
    assert (await now(call.receive()))["text"] == "good"
    message = await now(call.receive())
    assert (message["type"], message["code"]) == (DISCONNECT, code)
    assert client.ended()
    await client.end()


@in_loop
async def test_a_peer_that_broke_the_protocol_gets_to_read_why() -> None:
    """What it still sends is thrown away for a while: a reset would take the Close frame from it."""
    client = Http1Client(echo)
    await client.open()
    await client.say(b"\x81\x00")
    assert client.transport.half_closed
    await client.say(b"more " * 10000)
    await client.passes(LINGER_SECONDS)
    assert not client.transport.is_closing()
    await client.passes(1)
    assert client.cut()
    await client.end()


@in_loop
async def test_a_peer_that_broke_the_protocol_and_does_not_read() -> None:
    """The time to read why begins when all of it is out."""
    client = Http1Client(echo)
    await client.open()
    client.transport.stalled = True
    await client.say(b"\x81\x00")
    await client.passes(3 * LINGER_SECONDS)
    assert not client.transport.is_closing()
    await client.read_on()
    await client.passes(LINGER_SECONDS + 1)
    assert client.cut()
    await client.end()


@in_loop
async def test_what_was_read_ahead_may_break_the_protocol_too() -> None:
    """TLS gives what it has deciphered already, though reading has paused meanwhile."""
    app = Played()
    client = Http1Client(app)
    await opened(client, app)
    client.send(frame(BINARY, b"x" * HIGH_WATER))
    assert not client.is_read()
    client.transport.protocol.data_received(b"\x81\x00")
    await client.turn()
    assert client.is_read(), "or what comes would not be thrown away"
    await client.end()


@in_loop
async def test_a_close_that_is_still_in_the_kernel_has_not_been_read() -> None:
    app = Played()
    client = Http1Client(app)
    call = await opened(client, app)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"x" * 1000)
        client.transport.carries(ours)
        await call.send({"type": "websocket.close"})
        await client.passes(3 * CLOSE_SECONDS)
        assert not client.cut()
        theirs.recv(1000)
        await client.passes(CLOSE_SECONDS + 1)
        assert client.cut()
        await client.end()


@in_loop
async def test_what_waits_when_it_is_cut_off() -> None:
    """What was said in this turn goes out, as far as the transport takes it."""
    client = Http1Client(echo)
    await client.open()
    client.begin_drain(1001)
    for connection in list(client.shared.connections):
        connection.abort()
    assert client.closed_with() == (1001, "the server stops")
    await client.end()


@in_loop
async def test_a_peer_that_has_reset_is_seen_while_nothing_is_read() -> None:
    app = Played()
    client = Http1Client(app)
    call = await opened(client, app)
    await client.say(frame(BINARY, b"x" * HIGH_WATER))
    ours, theirs = socket.socketpair()
    with ours:
        client.transport.carries(ours)
        await client.passes(1)
        assert not client.cut()
        theirs.close()
        await client.passes(1)
        assert client.cut()
    assert len((await now(call.receive()))["bytes"]) == HIGH_WATER
    assert await now(call.receive()) == disconnect(1006)
    await client.end()


@on_each_carrier
@in_loop
async def test_a_peer_that_is_lost(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    client.send(text("last words"))
    await client.turn()
    client.vanish()
    await client.turn()
    assert (await now(call.receive()))["text"] == "last words"
    assert await now(call.receive()) == disconnect(1006)
    with pytest.raises(ClientDisconnectedError):
        await call.send({"type": "websocket.send", "text": "hello?"})
    call.finish()
    await client.end()


@on_each_carrier
@in_loop
async def test_a_peer_that_is_lost_before_the_answer(make: MakeClient) -> None:
    lines = Lines()
    app = Played()
    client = make(app, access_log=lines)
    await client.open()
    call = await app.next()
    assert (await now(call.receive()))["type"] == "websocket.connect"
    client.vanish()
    await client.turn()
    assert await now(call.receive()) == disconnect(1006)
    with pytest.raises(ClientDisconnectedError):
        await call.send({"type": "websocket.accept"})
    call.finish()
    await client.end()
    assert [line.status for line in lines.all] == [499]


@on_each_carrier
@in_loop
async def test_a_peer_that_ends_its_side_without_a_close(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    client.half_close()
    await client.turn()
    assert await now(call.receive()) == disconnect(1006)
    assert client.ended()
    call.finish()
    await client.end()


@on_each_carrier
@in_loop
async def test_a_peer_that_ends_its_side_before_the_answer(make: MakeClient) -> None:
    """It may still read."""
    app = Played()
    client = make(app)
    await client.open()
    call = await app.next()
    client.half_close()
    await client.turn()
    assert [await now(call.receive()) for _ in range(2)] == [{"type": "websocket.connect"}, disconnect(1006)]
    await call.send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await call.send({"type": "websocket.http.response.body", "body": b"who are you?"})
    await client.turn()
    assert client.status == 401
    call.finish()
    await client.end()


@on_each_carrier
@pytest.mark.parametrize("early", [text("hello"), b""])
@in_loop
async def test_one_that_is_accepted_for_a_peer_that_has_ended_its_side(make: MakeClient, early: bytes) -> None:
    app = Played()
    client = make(app)
    await client.open()
    call = await app.next()
    if early:
        client.send(early)
    client.half_close()
    await client.turn()
    await call.send({"type": "websocket.accept"})
    await client.turn()
    assert client.ended()
    assert await now(call.receive()) == {"type": "websocket.connect"}
    if (message := await now(call.receive()))["type"] == "websocket.receive":
        assert message["text"] == "hello"
        message = await now(call.receive())
    assert message == disconnect(1006)
    call.finish()
    await client.end()


@in_loop
async def test_what_came_early_is_not_lost_to_an_end_right_behind_the_answer() -> None:
    app = Played()
    client = Http1Client(app)
    await client.say(client.asking() + text("hello"))
    call = await app.next()
    accepting: Any = call.send({"type": "websocket.accept"})
    with pytest.raises(StopIteration):
        accepting.send(None)
    client.half_close()
    await client.turn()
    assert (await now(call.receive()))["type"] == "websocket.connect"
    assert (await now(call.receive()))["text"] == "hello"
    assert await now(call.receive()) == disconnect(1006)
    await client.end()


# Pings


@on_each_carrier
@in_loop
async def test_pings_that_are_answered(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(ping_interval=20, ping_timeout=10))
    await opened(client, app)
    await client.passes(19)
    assert not client.frames
    await client.passes(1)
    (ping,) = client.frames
    assert ping[0] == PING
    await client.say(frame(PONG, ping[1]))
    await client.passes(20)
    assert client.frames == [ping, ping]
    await client.passes(9)
    await client.say(frame(PONG, ping[1]))
    await client.passes(10)
    assert client.closed_with() is None
    await client.end()


@on_each_carrier
@in_loop
async def test_a_ping_that_is_not_answered(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(ping_interval=20, ping_timeout=10))
    call = await opened(client, app)
    await client.passes(20)
    await client.say(frame(PONG, b"of another"), text("I am here"))
    assert (await now(call.receive()))["text"] == "I am here"
    await client.passes(10)
    assert client.closed_with() is None
    await client.passes(1)
    assert client.closed_with() == (1011, "no pong came in time")
    assert await now(call.receive()) == disconnect(1011, "no pong came in time")
    await client.passes(1)
    assert client.ended() or client.cut()
    await client.end()


@on_each_carrier
@in_loop
async def test_a_late_pong_is_not_hidden_by_a_later_ping(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(ping_interval=5, ping_timeout=12))
    await opened(client, app)
    await client.passes(17)
    assert [opcode for opcode, _ in client.frames] == [PING] * 3
    await client.passes(1)
    assert client.closed_with() is not None
    await client.end()


@on_each_carrier
@in_loop
async def test_no_pings_pile_up_before_a_peer_that_does_not_read(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(ping_interval=5))
    call = await opened(client, app)
    await client.stall()
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": b"x" * 300_000}))
    await client.passes(50)
    await client.read_on()
    await sending
    assert [opcode for opcode, _ in client.frames] == [BINARY]
    await client.end()


@on_each_carrier
@in_loop
async def test_a_peer_that_takes_nothing_is_cut_when_it_owes_a_pong(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(ping_interval=20, ping_timeout=10))
    call = await opened(client, app)
    await client.stall()
    await call.send({"type": "websocket.send", "bytes": b"x" * 60000})
    await client.turn()
    if isinstance(client, Http2Client):
        await call.send({"type": "websocket.send", "bytes": b"x" * 20000})  # more than its window
    await client.passes(32)
    assert client.cut()
    assert (await now(call.receive()))["code"] == 1011
    call.finish()
    await client.end()


@on_each_carrier
@in_loop
async def test_a_pong_that_waits_unread_is_not_late(make: MakeClient) -> None:
    """The application takes no messages, so nothing is read: not the peer's fault."""
    app = Played()
    client = make(app, times=times(ping_interval=20, ping_timeout=10))
    call = await opened(client, app)
    await client.say(frame(BINARY, b"x" * HIGH_WATER))
    assert not client.is_read()
    await client.passes(100)
    assert client.closed_with() is None
    await now(call.receive())
    await client.turn()
    assert client.is_read()
    await client.passes(10)
    assert client.closed_with() is None
    await client.passes(1)
    assert client.closed_with() is not None
    await client.end()


@on_each_carrier
@in_loop
async def test_no_pong_can_come_within_a_frame(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(ping_interval=20, ping_timeout=10))
    call = await opened(client, app)
    message = frame(BINARY, b"x" * 90)
    for place in range(0, len(message), 8):
        await client.say(message[place : place + 8])
        await client.passes(9)
    assert client.closed_with() is None
    assert len((await now(call.receive()))["bytes"]) == 90
    await client.passes(11)
    assert client.closed_with() is not None
    await client.end()


@on_each_carrier
@pytest.mark.parametrize(("interval", "timeout", "pings"), [(0, 10, 0), (20, 0, 5)])
@in_loop
async def test_pings_and_their_timeout_can_be_turned_off(
    make: MakeClient, interval: float, timeout: float, pings: int
) -> None:
    app = Played()
    client = make(app, times=times(ping_interval=interval, ping_timeout=timeout))
    await opened(client, app)
    await client.passes(100)
    assert [opcode for opcode, _ in client.frames] == [PING] * pings
    assert not client.cut()
    await client.end()


# Who waits where


@on_each_carrier
@in_loop
async def test_messages_wait_for_the_application(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    sent = 0
    while client.is_read():
        await client.say(frame(BINARY, b"x" * 4000))
        sent += 1
        assert sent * 4000 <= HIGH_WATER + 4000
    assert sent * 4000 > HIGH_WATER // 2
    while not client.is_read():
        assert len((await now(call.receive()))["bytes"]) == 4000
        await client.turn()
        sent -= 1
    assert sent > 0
    await client.end()


@on_each_carrier
@in_loop
async def test_one_read_of_many_compressed_messages_waits_as_well(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    await client.open("/chat", ("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover"))
    call = await app.next()
    await call.send({"type": "websocket.accept"})
    assert (await now(call.receive()))["type"] == "websocket.connect"
    await client.turn()
    (session,) = client.shared.sessions
    size = 100 << 10
    message = compressed(size)
    count = 3 * PORTION // len(message)
    await client.say(message * count)
    assert session.buffered <= (PORTION // len(message) + 2) * (size + MESSAGE_COST)
    assert not client.is_read()
    for _ in range(count):
        assert len((await now(call.receive()))["bytes"]) == size
    await client.turn()
    assert client.is_read()
    await client.say(text("the last"), close())
    assert (await now(call.receive()))["text"] == "the last"
    assert await now(call.receive()) == disconnect(1000)
    await client.end()


@in_loop
async def test_what_waits_of_one_read_is_told_before_the_peers_end() -> None:
    app = Played()
    client = Http1Client(app)
    await client.open("/chat", ("Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover"))
    call = await app.next()
    await call.send({"type": "websocket.accept"})
    message = compressed(100 << 10)
    count = 3 * PORTION // len(message)
    await client.say(message * count)
    client.half_close()
    assert not client.ended()
    assert (await now(call.receive()))["type"] == "websocket.connect"
    for _ in range(count):
        assert len((await now(call.receive()))["bytes"]) == 100 << 10
    assert await now(call.receive()) == disconnect(1006)
    assert client.ended()
    await client.end()


@on_each_carrier
@in_loop
async def test_send_waits_for_a_peer_that_does_not_read(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.stall()
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": b"x" * 300_000}))
    await client.turn()
    assert not sending.done()
    assert not client.is_read(), "it could make us write"
    await client.read_on()
    await sending
    assert client.is_read()
    assert [len(payload) for _, payload in client.frames] == [300_000]
    await client.end()


@on_each_carrier
@in_loop
async def test_a_send_that_waits_ends_with_the_connection(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.stall()
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": b"x" * 300_000}))
    await client.turn()
    client.vanish()
    await client.turn()
    with pytest.raises(ClientDisconnectedError):
        await sending
    call.finish()
    await client.end()


@in_loop
async def test_a_send_that_waits_ends_with_the_peers_close() -> None:
    """What was sent before still goes out, at the peer's pace."""
    app = Played()
    client = Http1Client(app)
    call = await opened(client, app)
    await client.stall()
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": b"x" * 300_000}))
    await client.turn()
    client.transport.protocol.data_received(close())  # which was read before the reading paused
    await client.turn()
    with pytest.raises(ClientDisconnectedError):
        await sending
    await client.read_on()
    assert [len(payload) for _, payload in client.frames] == [300_000, 2]
    assert client.ended()
    call.finish()
    await client.end()


@on_each_carrier
@in_loop
async def test_a_peer_that_pings_and_does_not_read_makes_us_hold_nothing(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    await opened(client, app)
    await client.stall()
    pings = frame(PING, b"x" * 125) * 100
    sent = 0
    while client.is_read():
        await client.say(pings)
        sent += len(pings)
        assert sent < 1 << 20
    assert sent
    await client.end()


@on_each_carrier
@in_loop
async def test_a_peer_that_never_reads_is_cut(make: MakeClient) -> None:
    app = Played()
    client = make(app, times=times(write=60))
    call = await opened(client, app)
    await client.stall()
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": b"x" * 300_000}))
    await client.passes(65)
    assert client.cut()
    with pytest.raises(ClientDisconnectedError):
        await sending
    assert await now(call.receive()) == disconnect(1006)
    call.finish()
    await client.end()


# Draining


@on_each_carrier
@pytest.mark.parametrize(("code", "reason"), [(1001, "the server stops"), (1012, "the server restarts")])
@in_loop
async def test_a_drain_closes_and_what_is_on_its_way_is_heard(make: MakeClient, code: int, reason: str) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.say(text("before"))
    await client.drain(code)
    assert client.closed_with() == (code, reason)
    await client.say(text("on its way"), close(code))
    assert client.ended()
    assert [(await now(call.receive()))["text"] for _ in range(2)] == ["before", "on its way"]
    assert await now(call.receive()) == disconnect(code, reason)
    call.finish()
    await client.turn()
    assert not client.shared.sessions
    await client.end()


@on_each_carrier
@in_loop
async def test_what_an_application_says_in_a_drain(make: MakeClient) -> None:
    """Nothing goes out behind our Close frame: the application is told so, and of all that the peer still says."""
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await call.send({"type": "websocket.send", "text": "before"})
    await client.drain(1012)
    with pytest.raises(ClientDisconnectedError, match="the server is closing the WebSocket"):
        await call.send({"type": "websocket.send", "text": "behind"})
    await client.say(text("on its way"))
    assert (await now(call.receive()))["text"] == "on its way"
    with pytest.raises(ClientDisconnectedError):
        await call.send({"type": "websocket.send", "text": "behind"})
    await client.say(close(1012))
    assert await now(call.receive()) == disconnect(1012, "the server restarts")
    assert [opcode for opcode, _ in client.frames] == [TEXT, CLOSE]
    assert client.ended()
    await client.end()


@on_each_carrier
@in_loop
async def test_a_send_that_waits_when_a_drain_begins_goes_out(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.stall()
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "bytes": b"x" * 300_000}))
    await client.turn()
    await client.drain(1001)
    assert not sending.done()
    await client.read_on()
    await sending
    assert [opcode for opcode, _ in client.frames] == [BINARY, CLOSE]
    await client.end()


@on_each_carrier
@in_loop
async def test_a_drain_that_the_peer_does_not_answer(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.drain(1012)
    await client.passes(CLOSE_SECONDS)
    assert not client.cut()
    await client.passes(1)
    assert client.cut()
    assert await now(call.receive()) == disconnect(1012, "the server restarts")
    await client.end()


@on_each_carrier
@in_loop
async def test_a_peer_that_goes_without_a_close_in_a_drain(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.drain(1001)
    client.half_close()
    await client.turn()
    assert await now(call.receive()) == disconnect(1001, "the server stops")
    await client.end()


@on_each_carrier
@in_loop
async def test_a_drain_waits_for_what_is_on_its_way_to_the_application(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.say(frame(BINARY, b"x" * HIGH_WATER))
    await client.drain(1012)
    await client.passes(3 * CLOSE_SECONDS)
    assert not client.cut()
    await now(call.receive())
    await client.turn()
    await client.say(close(1012))
    assert client.ended()
    assert await now(call.receive()) == disconnect(1012, "the server restarts")
    await client.end()


@on_each_carrier
@in_loop
async def test_a_drain_lets_the_peer_finish_its_message(make: MakeClient) -> None:
    app = Played()
    client = make(app)
    call = await opened(client, app)
    await client.drain(1012)
    message = frame(BINARY, b"x" * 90)
    for place in range(0, len(message), 32):
        await client.say(message[place : place + 32])
        await client.passes(CLOSE_SECONDS - 1)
    assert not client.cut()
    assert len((await now(call.receive()))["bytes"]) == 90
    await client.passes(2)
    assert client.cut()
    await client.end()


@on_each_carrier
@in_loop
async def test_one_that_is_not_answered_when_the_drain_begins(make: MakeClient) -> None:
    """The application has its say; then it is closed like all the others."""
    app = Played()
    client = make(app)
    await client.open()
    call = await app.next()
    await client.drain(1012)
    assert client.answer() is None
    await call.send({"type": "websocket.accept"})
    await client.turn()
    assert client.status in (101, 200)
    assert client.closed_with() == (1012, "the server restarts")
    await client.say(close(1012))
    assert await now(call.receive()) == {"type": "websocket.connect"}
    assert await now(call.receive()) == disconnect(1012, "the server restarts")
    await client.end()


@on_each_carrier
@pytest.mark.parametrize("is_first", [True, False])
@in_loop
async def test_one_that_is_asked_for_in_a_drain(make: MakeClient, is_first: bool) -> None:
    """On a connection that was in use a 503; a new one gets what it came for, once."""
    app = Played()
    client = make(app)
    if not is_first:
        if isinstance(client, Http1Client):
            await client.say(request("/plain"))
        else:
            assert isinstance(client, Http2Client)
            client.peer.request("/plain")
            await client.turn()
        await (await app.next()).reply()
        await client.turn()
    client.begin_drain(1012)
    await client.open()  # before it has heard of that
    if is_first:
        await (await app.next()).send({"type": "websocket.accept"})
        await client.turn()
        assert client.closed_with() == (1012, "the server restarts")
    else:
        answer = client.answer()
        assert answer is not None
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.body.endswith(b"the server restarts\n")
        if isinstance(client, Http1Client):
            assert client.peer.answers[-1].closes
        assert not app.calls
    await client.end()


# HTTP/2's own


@in_loop
async def test_neighbours_on_one_connection() -> None:
    client = Http2Client(echo)
    streams = [client.connect(f"/{number}") for number in range(5)]
    await client.turn()
    for client.stream in streams:
        await client.say(text(f"I am {client.stream}"))
    client.stream = streams[0]
    await client.say(close())
    client.stream = streams[1]
    await client.say(b"\x81\x00")
    client.stream = streams[2]
    client.vanish()
    await client.turn()
    for client.stream in streams[3:]:
        await client.say(text("on"))
        assert client.frames == [(TEXT, b"I am %d" % client.stream), (TEXT, b"on")]
    assert set(client.peer.connection.streams) == set(streams[3:])
    assert len(client.shared.sessions) == 2
    await client.drain(1001)
    for client.stream in streams[3:]:
        assert client.closed_with() == (1001, "the server stops")
        await client.say(close(1001))
    client.peer.connection.close_idle()
    await client.passes(2)
    assert client.transport.half_closed
    await client.end()


@in_loop
async def test_the_last_request_of_a_connection_leaves_its_websockets() -> None:
    client = Http2Client(echo, requests_per_connection=2)
    await client.open()
    client.connect("/last")
    await client.turn()
    assert client.peer.goaways
    assert client.closed_with() is None
    await client.say(text("on"))
    assert client.frames == [(TEXT, b"on")]
    await client.end()


@in_loop
async def test_a_connection_is_idle_from_the_end_of_its_last_websocket_on() -> None:
    client = Http2Client(echo, times=times(keep_alive=10))
    await client.open()
    await client.passes(30)
    await client.say(close())
    assert client.ended()
    await client.passes(10)
    assert not client.transport.is_closing()
    await client.passes(1)
    assert client.transport.is_closing()
    await client.end()


@in_loop
async def test_a_client_of_http2_that_ends_its_side_of_tcp() -> None:
    app = Played()
    client = Http2Client(app)
    call = await opened(client, app)
    client.peer.eof()
    assert await now(call.receive()) == disconnect(1006)
    call.finish()
    await client.turn()
    assert client.transport.is_closing()
    await client.end()


@in_loop
async def test_who_asks_where_nobody_speaks_it_is_served_as_before() -> None:
    app = Played()
    client = Http1Client(app)
    client.shared.websocket = None
    await client.open()
    assert (await app.next()).scope["type"] == "http"
    await client.end()


@in_loop
async def test_pipelined_requests_are_answered_before_the_switch() -> None:
    app = Played()
    client = Http1Client(app)
    client.send(request("/first") + client.asking() + text("hello"))
    first = await app.next()
    assert first.scope["path"] == "/first"
    await first.reply(b"one")
    call = await app.next()
    await call.send({"type": "websocket.accept"})
    await settle()
    (answer,), rest = parse_answers(client.transport.sent)
    assert answer.body == b"one"
    assert rest.startswith(b"HTTP/1.1 101 ") or not rest
    assert (await now(call.receive()))["type"] == "websocket.connect"
    assert (await now(call.receive()))["text"] == "hello"
    await client.end()


@in_loop
async def test_an_answer_before_the_switch_that_the_peer_has_not_read_slows_the_websocket_down() -> None:
    app = Played()
    client = Http1Client(app)
    await client.stall()
    client.send(request("/first") + client.asking())
    first = await app.next()
    await first.reply(b"x" * (HIGH_WATER - 100))
    call = await app.next()
    assert client.is_read()
    await call.send({"type": "websocket.accept"})
    await settle()
    assert client.transport.waiting > HIGH_WATER
    assert not client.is_read(), "it could make us write"
    sending = asyncio.ensure_future(call.send({"type": "websocket.send", "text": "hello"}))
    await settle()
    assert not sending.done()
    await client.read_on()
    await sending
    assert client.is_read()
    await client.end()
