"""From HTTP/1.1 to HTTP/2 by Upgrade: h2c (RFC 7540 section 3.2): what is taken, what is ignored, and bodies."""

from __future__ import annotations

import ssl

import pytest

from asgiri.codec.engines import HTTP1_ENGINES
from asgiri.codec.events import Request
from asgiri.codec.h2c import asked_settings, upgraded
from asgiri.proto.detect import Way
from asgiri.proto.http2 import Http2Connection
from asgiri.proto.http2_exchange import Exchange
from asgiri.proto.http11 import Http11Connection
from asgiri.proto.secure import Secure
from asgiri.proto.upgrade import UpgradableConnection
from tests.proto.fakes import ByHand, echo, in_loop, parse_answers, request, settle
from tests.proto.test_detect import BOTH, Wire
from tests.serving import Recorder

each_engine = pytest.mark.parametrize("engine", HTTP1_ENGINES)

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
ASKING = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")


def asking(wire: Wire, *more: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request that asks for HTTP/2 as it should."""
    settings = wire.client.upgrade()
    return request("/a", *ASKING, f"HTTP2-Settings: {settings}", *more, method=method, body=body)


def field(name: str, value: str) -> tuple[bytes, bytes]:
    return name.encode(), value.encode()


# What asks


@pytest.mark.parametrize(
    ("fields", "settings"),
    [
        ([("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "")], b""),
        (
            [("connection", "upgrade,http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")],
            bytes.fromhex("000300000064"),
        ),
        (
            [
                ("connection", "keep-alive, http2-settings"),
                ("connection", "upgrade"),
                ("upgrade", "foo/1, h2c"),
                ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
            ],
            bytes.fromhex("000300000064000402000000000200000000"),
        ),
        ([("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2"), ("http2-settings", "")], None),
        ([("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "websocket"), ("http2-settings", "")], None),
        ([("connection", "Upgrade"), ("upgrade", "h2c"), ("http2-settings", "")], None),
        ([("connection", "HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "")], None),
        ([("connection", "Upgrade, HTTP2-Settings, close"), ("upgrade", "h2c"), ("http2-settings", "")], None),
        ([("upgrade", "h2c"), ("http2-settings", "")], None),
        ([("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")], None),
        (
            [
                ("connection", "Upgrade, HTTP2-Settings"),
                ("upgrade", "h2c"),
                ("http2-settings", ""),
                ("http2-settings", ""),
            ],
            None,
        ),
        *[
            ([("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", bad)], None)
            for bad in ("AAMAAABk=", "AAMAAABkA", "AAMAAAB", "AAMAAAB+", "AA==", "AAMAAABk,AAMAAABk", "AAMA AABk", "ä")
        ],
        ([("host", "a")], None),
    ],
)
def test_what_asks_for_http2(fields: list[tuple[str, str]], settings: bytes | None) -> None:
    headers = [field(*one) for one in fields]
    for version in ("1.1", "1.0"):
        asked = Request(1, "GET", b"/", b"/", b"", headers, version, True)
        assert asked_settings(asked) == (settings if version == "1.1" else None)


def test_the_request_leaves_its_connections_fields_behind() -> None:
    fields = [
        ("host", "a"),
        ("connection", "Upgrade, HTTP2-Settings, X-Hop"),
        ("upgrade", "h2c"),
        ("http2-settings", ""),
        ("x-hop", "1"),
        ("keep-alive", "1"),
        ("transfer-encoding", "chunked"),
        ("accept", "*/*"),
    ]
    asked = Request(7, "POST", b"/a?b", b"/a", b"b", [field(*one) for one in fields], "1.1", False)
    made = upgraded(asked)
    assert (made.stream_id, made.http_version, made.method, made.path) == (1, "2", "POST", b"/a")
    assert made.headers == [(b"host", b"a"), (b"accept", b"*/*")]
    assert not made.end_stream
    assert asked.stream_id == 7


# What is taken


@each_engine
@in_loop
async def test_a_request_becomes_stream_1(engine: str) -> None:
    app = Recorder()
    wire = Wire(app=app, h2c_upgrade=True, engine=engine)
    wire.send(asking(wire))
    sent = await wire.sent()
    assert sent.startswith(SWITCHING)
    assert isinstance(wire.now, Http2Connection)
    assert wire.shared.accepted == 1
    wire.client.feed(sent.removeprefix(SWITCHING))
    wire.send(wire.client.take())
    wire.client.feed(await wire.sent())
    assert (wire.client.answers[1].status, wire.client.answers[1].body) == (200, b"hello")
    [scope] = app.scopes
    assert (scope["http_version"], scope["path"], scope["method"]) == ("2", "/a", "GET")
    assert scope["headers"] == [(b"host", b"asgiri.test")]
    third = wire.client.request("/b")
    wire.send(wire.client.take())
    wire.client.feed(await wire.sent())
    assert wire.client.answers[third].body == b"hello"
    assert wire.transport.is_reading()
    await wire.end()


@each_engine
@in_loop
async def test_cut_anywhere(engine: str) -> None:
    probe = Wire(app=echo, h2c_upgrade=True, engine=engine)
    whole = asking(probe, method="POST", body=b"0123456789")
    await probe.end()
    for cut in range(1, len(whole) + 1):
        wire = Wire(app=echo, h2c_upgrade=True, engine=engine)
        data = asking(wire, method="POST", body=b"0123456789")
        wire.send(data[:cut])
        await settle()
        if data[cut:]:
            assert wire.transport.sent == b""  # the 101 waits for the end of the body
            wire.send(data[cut:])
        wire.client.feed((await wire.sent()).removeprefix(SWITCHING))
        wire.send(wire.client.take())
        wire.client.feed(await wire.sent())
        assert (wire.client.answers[1].status, wire.client.answers[1].body) == (200, b"0123456789")
        await wire.end()


@each_engine
@in_loop
async def test_a_chunked_body_and_the_preface_right_behind_it(engine: str) -> None:
    wire = Wire(app=echo, h2c_upgrade=True, engine=engine)
    head = asking(wire, "Transfer-Encoding: chunked", method="POST")
    wire.send(head + b"5\r\nhello\r\n")
    wire.send(b"7\r\n, world\r\n0\r\n\r\n" + wire.client.take())
    sent = await wire.sent()
    assert sent.startswith(SWITCHING)
    wire.client.feed(sent.removeprefix(SWITCHING))
    assert wire.client.answers[1].body == b"hello, world"
    await wire.end()


@each_engine
@in_loop
async def test_a_body_of_which_the_application_answers_before_it_is_whole(engine: str) -> None:
    """The application may not read on before some of its answer has gone: then the 101 waits no longer."""
    app = ByHand()
    wire = Wire(app=app, h2c_upgrade=True, engine=engine)
    wire.send(asking(wire, "Content-Length: 10", method="POST"))
    call = await app.next()
    await call.start()
    await call.body(b"x" * 10)
    assert await wire.sent() == b""
    await call.body(bytes(100_000), more=False)
    sent = await wire.sent()
    assert sent.startswith(SWITCHING)
    wire.send(b"0123456789")
    call.finish()
    wire.client.feed(sent.removeprefix(SWITCHING))
    wire.send(wire.client.take())
    wire.client.feed(await wire.sent())
    wire.send(wire.client.take())
    wire.client.feed(await wire.sent())
    assert len(wire.client.answers[1].body) == 100_010
    await wire.end()


@each_engine
@in_loop
async def test_little_goes_out_before_the_clients_preface(engine: str) -> None:
    app = ByHand()
    wire = Wire(app=app, h2c_upgrade=True, engine=engine)
    wire.send(asking(wire))
    call = await app.next()
    await call.start()
    await call.body(bytes(60_000), more=False)
    sent = await wire.sent()
    assert sent.startswith(SWITCHING)
    assert len(sent) < 32_000
    wire.client.feed(sent.removeprefix(SWITCHING))
    wire.send(wire.client.take())
    wire.client.feed(await wire.sent())
    assert len(wire.client.answers[1].body) == 60_000
    call.finish()
    await wire.end()


@each_engine
@in_loop
async def test_who_waits_for_a_100_gets_it_before_the_101(engine: str) -> None:
    wire = Wire(app=echo, h2c_upgrade=True, engine=engine)
    wire.send(asking(wire, "Expect: 100-continue", "Content-Length: 5", method="POST"))
    assert await wire.sent() == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(b"hello")
    sent = await wire.sent()
    wire.client.feed(sent.removeprefix(SWITCHING))
    wire.send(wire.client.take())
    wire.client.feed(await wire.sent())
    assert wire.client.answers[1].body == b"hello"
    assert wire.client.answers[1].interim == []
    await wire.end()


@each_engine
@in_loop
async def test_after_requests_of_http11_on_the_same_connection(engine: str) -> None:
    wire = Wire(h2c_upgrade=True, engine=engine)
    wire.send(request("/first"))
    assert [answer.body for answer in await wire.answers()] == [b"/first"]
    wire.send(request("/second") + asking(wire))  # pipelined before it
    before, _, after = (await wire.sent()).partition(SWITCHING)
    [answer], rest = parse_answers(before)
    assert (answer.body, rest) == (b"/second", b"")
    wire.client.feed(after)
    assert isinstance(wire.now, Http2Connection)
    exchange = wire.now.streams[1]
    assert isinstance(exchange, Exchange)
    assert exchange._request.id == "1-3"  # no number names two requests
    await wire.end()


# What is ignored


@each_engine
@in_loop
async def test_off_by_default(engine: str) -> None:
    wire = Wire(engine=engine)
    for http in (BOTH, ("http/1.1",)):
        wire = Wire(*http, engine=engine)
        wire.send(asking(wire))
        [answer] = await wire.answers()
        assert (answer.status, answer.body) == (200, b"/a")
        assert isinstance(wire.now, Http11Connection)
        await wire.end()


@in_loop
async def test_only_where_both_are_spoken_and_never_over_tls() -> None:
    wire = Wire("http/1.1", h2c_upgrade=True)
    assert type(wire.made) is Http11Connection
    wire.send(asking(wire))
    assert [answer.status for answer in await wire.answers()] == [200]
    await wire.end()
    kinds = [Way(BOTH, None, on).http1 for on in (True, False)]
    assert kinds == [UpgradableConnection, Http11Connection]
    assert Way(BOTH, Secure(ssl.create_default_context(), {}, 0.0), True).http1 is Http11Connection
    assert Way(("h2",), None, True).http1 is None


@each_engine
@in_loop
async def test_what_is_wrong_is_ignored_and_served(engine: str) -> None:
    for fields in (
        (*ASKING, "HTTP2-Settings: !"),
        (*ASKING, "HTTP2-Settings: AAMAAABk", "HTTP2-Settings: AAMAAABk"),
        ASKING,
        (*ASKING, "HTTP2-Settings: AAIAAAAC"),  # ENABLE_PUSH may be 0 or 1
    ):
        wire = Wire(h2c_upgrade=True, engine=engine)
        wire.send(request("/a", *fields))
        [answer] = await wire.answers()
        assert (answer.status, answer.body) == (200, b"/a")
        wire.send(request("/b"))
        assert [answer.body for answer in await wire.answers()] == [b"/b"]
        assert wire.shared.accepted == 1
        assert len(wire.shared.connections) == 1
        await wire.end()


@each_engine
@in_loop
async def test_a_pipeline_behind_it_is_http11s(engine: str) -> None:
    wire = Wire(h2c_upgrade=True, engine=engine)
    wire.send(asking(wire) + request("/b"))
    assert [answer.body for answer in await wire.answers()] == [b"/a", b"/b"]
    await wire.end()


@each_engine
@in_loop
async def test_a_drain_upgrades_nothing(engine: str) -> None:
    wire = Wire(h2c_upgrade=True, engine=engine)
    wire.shared.draining = True
    wire.send(asking(wire))
    [answer] = await wire.answers()
    assert (answer.body, answer.closes) == (b"/a", True)
    await wire.end()


# Ends


@each_engine
@in_loop
async def test_no_preface_comes(engine: str) -> None:
    wire = Wire(h2c_upgrade=True, engine=engine)
    wire.send(asking(wire))
    await wire.sent()
    wire.passes(10.5)  # the time of a request head
    await settle()
    assert wire.transport.half_closed or wire.transport.is_closing()
    await wire.end()


@each_engine
@in_loop
async def test_something_else_than_the_preface_comes(engine: str) -> None:
    wire = Wire(h2c_upgrade=True, engine=engine)
    wire.send(asking(wire))
    wire.client.feed((await wire.sent()).removeprefix(SWITCHING))
    wire.send(request("/b"))
    wire.client.feed(await wire.sent())
    assert [code for _, code in wire.client.goaways] == [1]
    await wire.end()


@each_engine
@in_loop
async def test_the_peer_leaves_in_the_body(engine: str) -> None:
    app = ByHand()
    wire = Wire(app=app, h2c_upgrade=True, engine=engine)
    wire.send(asking(wire, "Content-Length: 10", method="POST"))
    call = await app.next()
    assert not wire.transport.protocol.eof_received()
    assert (await call.receive())["type"] == "http.disconnect"
    call.finish()
    await wire.end()


@each_engine
@in_loop
async def test_a_broken_body_ends_the_connection(engine: str) -> None:
    app = ByHand()
    wire = Wire(app=app, h2c_upgrade=True, engine=engine)
    wire.send(asking(wire, "Transfer-Encoding: chunked", method="POST"))
    call = await app.next()
    wire.send(b"what\r\n")
    await settle()
    assert wire.transport.is_aborted()
    assert (await call.receive())["type"] == "http.disconnect"
    call.finish()
    await settle()
    assert wire.shared.quiet
