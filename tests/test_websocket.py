"""WebSocket from a client's side: real clients and real sockets, over HTTP/1.1 and over HTTP/2, with each engine.

What is said within one test runs over every way that a WebSocket comes to us (websocket_clients.WAYS), unless it is
about one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import fastapi
import msgspec
import pytest
import starlette.websockets
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute

from asgiri.codec.engines import HTTP2_ENGINES, WEBSOCKET_ENGINES
from asgiri.config.schema import Config, Http2, Listen, Tls, WebSocket
from asgiri.server import HttpProtocolVersion, Server
from asgiri.types import ASGIApp, Receive, Scope, Send
from tests.clients.test_http2 import CHROMIUM, needs_chromium
from tests.e2e.service import Service
from tests.pki import Pki
from tests.proto.fakes import in_loop, read_body, reply, until
from tests.serving import MIB, config, on_both_loops, shared_of
from tests.websocket_app import FLOOD, PIECE, TALK, Application
from tests.websocket_clients import (
    WAYS,
    ClosedError,
    DeniedError,
    Offer,
    Peer,
    Wsproto,
    address,
    http2,
    through_http1,
    through_http2,
)

each_engine = pytest.mark.parametrize("engine", WEBSOCKET_ENGINES)
each_http2_engine = pytest.mark.parametrize("http2_engine", HTTP2_ENGINES)
each_way = pytest.mark.parametrize("way", WAYS)
each_carrier = pytest.mark.parametrize("way", ["http1", "http2"])

WORDS = [
    "",
    "a",
    "\x00",
    "NUL \x00 within",
    "e\u0301 is e and a combining accent, \u00e9 is one character",
    "\U0001f600 \U0001d11e \U0010ffff",
    "\u05e2\u05d1\u05e8\u05d9\u05ea \u0639\u0631\u0628\u064a \u202e \u200d",
    "\ufeff at the beginning, \ufffe and \uffff are characters too",
    "".join(map(chr, range(0x20, 0x250))),
    "\n\r\t\x1b\x7f\x80\x9f",
]


def serving(
    app: ASGIApp,
    engine: str = "auto",
    pki: Pki | None = None,
    *,
    version: HttpProtocolVersion = HttpProtocolVersion.AUTO,
    http2_engine: str = "auto",
    **options: Any,
) -> Server:
    """A server on a port of its own; ``options`` are those of ``websocket`` in the config."""
    tls = None if pki is None else Tls(certfile=pki.certfile, keyfile=pki.keyfile)
    websocket = msgspec.convert({"engine": engine, **options}, WebSocket)
    http2 = msgspec.convert({"engine": http2_engine}, Http2)
    listen = Listen(bind="127.0.0.1:0", tls=tls)
    made: Config = msgspec.structs.replace(config(listen), websocket=websocket, http2=http2)
    return Server(app, http_version=version, config=made)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start a master that serves ``tests.websocket_app:app``."""
    services: list[Service] = []

    def begin(*arguments: str) -> Service:
        services.append(Service(tmp_path, "--bind", "127.0.0.1:0", *arguments, "tests.websocket_app:app"))
        return services[-1].ready()

    yield begin
    for service in services:
        service.close()


async def end_of(peer: Peer) -> tuple[int, str]:
    """What the server closes with, when it has nothing else to say."""
    with pytest.raises(ClosedError) as closed:
        await peer.receive()
    return closed.value.code, closed.value.reason


# What is said


@each_engine
@each_way
@in_loop
async def test_every_kind_of_message_comes_back(engine: str, way: str) -> None:
    app = Application()
    async with serving(app, engine) as server, WAYS[way](server, Offer()) as peer:
        for message in ("hello", b"hello", "", b"", b"\x00\xff"):
            await peer.send(message)
            assert await peer.receive() == message
        await peer.send_fragments(["to ", "", "geth", "er"])
        assert await peer.receive() == "to gether"
        await peer.close(1000, "done")
        await until(lambda: app.ends)
    assert app.ends == [(1000, "done")]
    [scope] = app.scopes
    assert scope["http_version"] == ("2" if way == "http2" else "1.1")
    assert (scope["type"], scope["scheme"], scope["path"], scope["subprotocols"]) == ("websocket", "ws", "/echo", [])


@each_engine
@each_way
@in_loop
async def test_many_messages_of_many_lengths(engine: str, way: str) -> None:
    async with serving(Application(), engine) as server, WAYS[way](server, Offer()) as peer:
        for size in [*range(130), 65_534, 65_535, 65_536, 65_537, *range(1000, 1300)]:
            message = bytes([size % 256]) * size if size % 2 else "x" * size
            await peer.send(message)
            assert await peer.receive() == message


@each_engine
@each_way
@in_loop
async def test_special_characters(engine: str, way: str) -> None:
    async with serving(Application(), engine) as server, WAYS[way](server, Offer()) as peer:
        for word in WORDS:
            await peer.send(word)
            assert await peer.receive() == word


@each_engine
@each_way
@in_loop
async def test_both_directions_at_once(engine: str, way: str) -> None:
    app = Application()
    async with serving(app, engine) as server, WAYS[way](server, Offer("/talk")) as peer:

        async def speak() -> None:
            for number in range(TALK):
                await peer.send(f"client {number}")
                await asyncio.sleep(0)

        speaking = asyncio.create_task(speak())
        assert [await peer.receive() for _ in range(TALK)] == [f"server {number}" for number in range(TALK)]
        await speaking
        await peer.close()
        await until(lambda: app.ends)
    assert app.heard == [f"client {number}" for number in range(TALK)]


@each_engine
@each_way
@in_loop
async def test_rapid_exchange(engine: str, way: str) -> None:
    """Many in flight: none is lost, none overtakes another."""
    async with serving(Application(), engine) as server, WAYS[way](server, Offer()) as peer:
        for burst in range(20):
            sent = [f"{burst} {number}" if number % 3 else os.urandom(number) for number in range(40)]
            for message in sent:
                await peer.send(message)
            assert [await peer.receive() for _ in sent] == sent


@each_engine
@each_way
@in_loop
async def test_large_messages(engine: str, way: str) -> None:
    async with serving(Application(), engine) as server, WAYS[way](server, Offer()) as peer:
        data = os.urandom(5 * MIB) * 2
        await peer.send(data)
        assert await peer.receive() == data
        text = "\u20ac \U0001f600 " * (MIB // 10)
        await peer.send(text)
        assert await peer.receive() == text


@each_engine
@each_way
@in_loop
async def test_pings_are_answered_with_their_data(engine: str, way: str) -> None:
    async with serving(Application(), engine) as server, WAYS[way](server, Offer()) as peer:
        for data in (b"ping", b"", b"\xff" * 125):
            await peer.ping(data)
        await peer.send("still here")
        assert await peer.receive() == "still here"


@each_engine
@each_carrier
@in_loop
async def test_the_server_pings(engine: str, way: str) -> None:
    """A client that answers lives on; wsproto answers as soon as it is read."""
    async with (
        serving(Application(), engine, ping_interval=0.05, ping_timeout=20) as server,
        WAYS[way](server, Offer()) as peer,
    ):
        assert isinstance(peer, Wsproto)
        await until(lambda: peer.heard.count(b"\x89") >= 2)
        await peer.send("still here")
        assert await peer.receive() == "still here"


# How it begins


@each_way
@in_loop
async def test_subprotocols(way: str) -> None:
    app = Application()
    async with serving(app) as server:
        async with WAYS[way](server, Offer(subprotocols=["chat.v2", "chat"])) as peer:
            assert peer.subprotocol == "chat.v2"
        async with WAYS[way](server, Offer("/version", subprotocols=["chat"])) as peer:
            assert peer.subprotocol == ""
    assert [scope["subprotocols"] for scope in app.scopes] == [["chat.v2", "chat"], ["chat"]]


@each_way
@in_loop
async def test_a_refused_handshake_gets_its_status(way: str) -> None:
    async with serving(Application()) as server:
        for path, status, body in (
            ("/refuse", 403, None),
            ("/fail-early", 500, None),
            ("/deny", 401, b"who are you?"),
        ):
            with pytest.raises(DeniedError) as denied:
                async with WAYS[way](server, Offer(path)):
                    pass
            assert denied.value.status == status
            if body is not None:
                if way != "picows":  # which gives what has come when the head has
                    assert denied.value.body == body
                assert denied.value.headers["www-authenticate"] == "Bearer"
        async with WAYS[way](server, Offer()) as peer:  # and the next one is served
            await peer.send("hello")
            assert await peer.receive() == "hello"


@each_way
@on_both_loops
async def test_messages_pass_over_tls(pki: Pki, way: str) -> None:
    alpn = ("h2",) if way == "http2" else ("http/1.1",)
    offer = Offer("/version", tls=pki.client(alpn=alpn))
    async with serving(Application(), pki=pki) as server, WAYS[way](server, offer) as peer:
        assert await peer.receive() == ("wss 2" if way == "http2" else "wss 1.1")
        await peer.send("x" * MIB)
        assert await peer.receive() == "x" * MIB


# Compression

COMPRESSIBLE: list[str | bytes] = [
    *WORDS,
    "abc " * 1000,
    b"\x00" * 100_000,
    b"abc" * 5,
    "abc " * 1000,
    os.urandom(5000),
]


@each_engine
@pytest.mark.parametrize("way", [way for way in WAYS if way != "picows"])
@in_loop
async def test_compression(engine: str, way: str) -> None:
    async with (
        serving(Application(), engine) as server,
        WAYS[way](server, Offer(compression=True)) as peer,
        WAYS[way](server, Offer(compression=False)) as plain,
    ):
        assert peer.extensions.startswith("permessage-deflate")
        assert plain.extensions == ""
        for message in COMPRESSIBLE:
            for one in (peer, plain):
                await one.send(message)
                assert await one.receive() == message
        await peer.send_fragments(["abc " * 200, "abc " * 200])
        assert await peer.receive() == "abc " * 400
        if isinstance(peer, Wsproto):
            assert isinstance(plain, Wsproto)
            assert len(peer.heard) < len(plain.heard) / 10


@each_engine
@pytest.mark.parametrize("way", [way for way in WAYS if way != "picows"])
@in_loop
async def test_compression_is_off_where_the_config_says_so(engine: str, way: str) -> None:
    async with (
        serving(Application(), engine, compression=False) as server,
        WAYS[way](server, Offer(compression=True)) as peer,
    ):
        assert peer.extensions == ""
        await peer.send("abc " * 1000)
        assert await peer.receive() == "abc " * 1000


# How it ends


@each_engine
@each_way
@in_loop
async def test_the_client_closes(engine: str, way: str) -> None:
    app = Application()
    async with serving(app, engine) as server:
        for code, reason in ((1000, ""), (1001, "gone"), (3000, "\u20ac" * 41), (4999, "x")):
            async with WAYS[way](server, Offer()) as peer:
                await peer.send("hello")
                await peer.close(code, reason)
                await until(lambda: app.ends)
            assert app.ends.pop() == (code, reason)


@each_engine
@each_way
@in_loop
async def test_the_application_closes(engine: str, way: str) -> None:
    app = Application()
    async with serving(app, engine) as server:
        for code, reason in ((1000, ""), (1008, "against the rules"), (4000, "\u20ac" * 41)):
            async with WAYS[way](server, Offer("/close")) as peer:
                await peer.send(f"{code} {reason}")
                assert await peer.receive() == "farewell"
                assert await end_of(peer) == (code, reason)
                await until(lambda: app.ends)
            assert app.ends.pop()[0] == code


@each_engine
@each_way
@in_loop
async def test_the_application_ends(engine: str, way: str) -> None:
    async with serving(Application(), engine) as server:
        for path, code in (("/leave", 1000), ("/fail", 1011)):
            async with WAYS[way](server, Offer(path)) as peer:
                await peer.send("hello")
                assert (await end_of(peer))[0] == code


@each_engine
@each_way
@in_loop
async def test_a_message_over_the_limit(engine: str, way: str) -> None:
    app = Application()
    async with serving(app, engine, max_message=1000) as server, WAYS[way](server, Offer()) as peer:
        await peer.send(b"x" * 1000)
        assert await peer.receive() == b"x" * 1000
        await peer.send(b"x" * 1001)
        assert (await end_of(peer))[0] == 1009
        await until(lambda: app.ends)
    assert app.ends[0][0] == 1009


# What breaks RFC 6455 at the first byte that does, though more of the message is still to come

BROKEN = {
    "a bad octet within a frame": (b"\x81\x8a\0\0\0\0ab\xff", 1007),
    "a bad octet within a later fragment": (b"\x01\x81\0\0\0\0a\x00\x85\0\0\0\0\xce\xba\xed\xa0", 1007),
    "a code point above U+10FFFF": (b"\x01\x8a\0\0\0\0\xf4\x90", 1007),
    "a reserved bit": (b"\xa1\x85\0\0\0\0", 1002),
    "a reserved opcode": (b"\x83\x80\0\0\0\0", 1002),
    "a long ping": (b"\x89\xfe\0\x7e\0\0\0\0", 1002),
    "no mask": (b"\x81\x05hello", 1002),
    "a continuation of nothing": (b"\x80\x85\0\0\0\0", 1002),
    "a close code that no endpoint sends": (b"\x88\x82\0\0\0\0\x03\xed", 1002),
}


@each_engine
@each_carrier
@pytest.mark.parametrize(("said", "code"), BROKEN.values(), ids=BROKEN)
@in_loop
async def test_who_breaks_the_protocol_is_told_at_once(engine: str, way: str, said: bytes, code: int) -> None:
    app = Application()
    async with serving(app, engine) as server, WAYS[way](server, Offer()) as peer:
        assert isinstance(peer, Wsproto)
        await peer.raw(said)
        assert (await end_of(peer))[0] == code
        await until(lambda: app.ends)
    assert app.ends[0][0] == code


@each_way
@on_both_loops
async def test_a_slow_reader(way: str) -> None:
    """What it does not read waits with the application, not in the server's memory; and nothing is lost."""
    app = Application()
    async with serving(app) as server, WAYS[way](server, Offer("/flood")) as peer:
        if way == "picows":  # which reads whether or not its user takes
            for number in range(FLOOD):
                assert await peer.receive() == number.to_bytes(4, "big") * (PIECE // 4)
            return
        await until(lambda: app.stalled_at is not None)
        assert app.flooded < FLOOD
        for number in range(FLOOD):
            assert await peer.receive() == number.to_bytes(4, "big") * (PIECE // 4)
        await peer.close()
        await until(lambda: app.ends)
    assert app.flooded == FLOOD


@each_way
@on_both_loops
async def test_a_slow_application(way: str) -> None:
    """What it does not take waits with the client, but for 64 KiB and what one read brings; and nothing is lost."""
    app = Application()
    async with serving(app) as server, WAYS[way](server, Offer("/sluggish")) as peer:
        pieces = [number.to_bytes(4, "big") * 5_000 for number in range(200)]
        held = 0

        async def speak() -> None:
            for piece in pieces:
                await peer.send(piece)

        speaking = asyncio.create_task(speak())
        [session] = shared_of(server).sessions
        await until(lambda: session.buffered > 64 << 10)
        for _ in range(100):  # more is on its way
            await asyncio.sleep(0)
            held = max(held, session.buffered)
        app.released.set()
        await speaking
        await peer.close()
        await until(lambda: app.ends)
    assert app.taken == pieces
    assert held <= (64 << 10) + (256 << 10) < sum(map(len, pieces)) / 10


# Many on one connection of HTTP/2


@each_engine
@each_http2_engine
@in_loop
async def test_many_on_one_connection_beside_requests(engine: str, http2_engine: str) -> None:
    app = Application()
    async with serving(app, engine, http2_engine=http2_engine) as server, http2(server) as connection:

        async def converse(number: int) -> None:
            peer = await connection.open(Offer("/version" if number % 2 else "/echo"))
            if number % 2:
                assert await peer.receive() == "ws 2"
            for turn in range(10):
                message = f"{number} {turn} " * (number * turn)
                await peer.send(message)
                assert await peer.receive() == message
            await peer.close(4000 + number)

        async def ask(number: int) -> None:
            for turn in range(5):
                assert (await connection.get(f"/{number}/{turn}")).body == f"2 /{number}/{turn}".encode()

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(converse(number))
                group.create_task(ask(number))
        assert shared_of(server).accepted == 1
        await until(lambda: len(app.ends) == 40)
        assert sorted(code for code, _ in app.ends) == list(range(4000, 4040))


@each_engine
@each_http2_engine
@in_loop
async def test_one_that_ends_leaves_its_neighbours(engine: str, http2_engine: str) -> None:
    app = Application()
    async with serving(app, engine, http2_engine=http2_engine) as server, http2(server) as connection:
        steady = await connection.open(Offer())
        for path, ending in (("/close", 1000), ("/fail", 1011), ("/echo", 1002), ("/leave", 1000)):
            passing = await connection.open(Offer(path))
            await passing.raw(b"\xff" * 10) if ending == 1002 else await passing.send("1000 bye")
            if path == "/close":
                assert await passing.receive() == "farewell"
            assert (await end_of(passing))[0] == ending
            await steady.send(path)
            assert await steady.receive() == path
        await connection.open(Offer())
        connection.h2.reset_stream(max(connection.answers), 8)
        await connection.flush()
        await until(lambda: (1006, "") in app.ends)
        await steady.send("the last one")
        assert await steady.receive() == "the last one"
        assert (await connection.get("/after")).status == 200


# Both carriers

CONVERSATION: list[str | bytes] = [*WORDS, b"", b"\x00" * 126, os.urandom(70_000), "abc " * 20_000, b"bye"]


@each_engine
@pytest.mark.parametrize("compression", [False, True])
@on_both_loops
async def test_the_same_conversation_over_both_carriers(engine: str, compression: bool) -> None:
    """The server says the same bytes behind the handshake, and tells the application the same."""
    heard, told = {}, {}
    for way, through in (("1.1", through_http1), ("2", through_http2)):
        app = Application()
        async with serving(app, engine) as server, through(server, Offer(compression=compression)) as peer:
            for message in CONVERSATION:
                await peer.send(message)
                assert await peer.receive() == message
            await peer.ping(b"are you there?")
            await peer.close(4321, "enough")
            await until(lambda app=app: app.ends)  # type: ignore[misc]
            heard[way] = bytes(peer.heard), peer.extensions
        [scope] = app.scopes
        told[way] = app.ends, {key: scope[key] for key in ("type", "path", "query_string", "scheme", "subprotocols")}
        assert scope["http_version"] == way
    assert heard["1.1"] == heard["2"]
    assert told["1.1"] == told["2"]


# A service that changes while they are open


@dataclass(frozen=True)
class Elsewhere:
    """Where a service of another process is, for clients that ask a Server."""

    host: str
    port: int

    @property
    def sockets(self) -> list[Elsewhere]:
        return [self]

    def getsockname(self) -> tuple[str, int]:
        return self.host, self.port


@in_loop
async def all_are_told(service: Service, number: signal.Signals, code: int) -> None:
    """One WebSocket over each way: each is told, and so is the application of each."""
    server = Elsewhere("127.0.0.1", await asyncio.to_thread(lambda: service.port))
    mark = len(service.log)
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(through(server, Offer())) for through in WAYS.values()]
        for peer in peers:
            await peer.send("hello")
            assert await peer.receive() == "hello"
        service.signal(number)
        for peer in peers:
            assert (await end_of(peer))[0] == code
    if number == signal.SIGHUP:
        await asyncio.to_thread(service.log.wait, "the reload is complete", mark)
        async with through_http1(server, Offer()) as peer:  # by the new worker
            await peer.send("hello")
            assert await peer.receive() == "hello"
            await peer.close()
    else:
        assert await asyncio.to_thread(service.wait) == 0
    await until(lambda: service.log.since(mark).count(f"told {code}") == len(WAYS))


def test_a_reload_and_a_stop_while_they_are_open(start: Callable[..., Service]) -> None:
    service = start()
    all_are_told(service, signal.SIGHUP, 1012)
    all_are_told(service, signal.SIGTERM, 1001)
    assert "cut off" not in str(service.log)


@each_way
@in_loop
async def test_a_server_that_is_left_stops(way: str) -> None:
    """As embedders and tests use it: what has been sent before still reaches the application."""
    app = Application()
    async with contextlib.AsyncExitStack() as stack:
        async with serving(app) as server:
            peer = await stack.enter_async_context(WAYS[way](server, Offer()))
            await peer.send("hello")
            assert await peer.receive() == "hello"
            stopping = asyncio.create_task(server.shutdown(window=0.05))
            assert (await end_of(peer))[0] == 1001
            await stopping
        assert [code for code, _ in app.ends] == [1001]


# Frameworks


class Endpoint(WebSocketEndpoint):
    encoding = "json"

    async def on_receive(self, websocket: starlette.websockets.WebSocket, data: Any) -> None:
        await websocket.send_json(
            {"got": data, "user": websocket.path_params["user"], "q": websocket.query_params["q"]}
        )

    async def on_disconnect(self, websocket: starlette.websockets.WebSocket, close_code: int) -> None:
        websocket.app.state.codes.append(close_code)


async def iterate(websocket: starlette.websockets.WebSocket) -> None:
    await websocket.accept(headers=[(b"x-greeting", b"hello")])
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


async def turn_away(websocket: starlette.websockets.WebSocket) -> None:
    await websocket.send_denial_response(JSONResponse({"error": "no token"}, status_code=401))


@each_way
@in_loop
async def test_starlette(way: str) -> None:
    routes = [
        WebSocketRoute("/users/{user}", Endpoint),
        WebSocketRoute("/iterate", iterate),
        WebSocketRoute("/closed", turn_away),
    ]
    app = Starlette(routes=routes)
    app.state.codes = []
    async with serving(cast(ASGIApp, app)) as server:
        async with WAYS[way](server, Offer("/users/ren%C3%A9?q=a%20b")) as peer:
            await peer.send('{"n": [1, "\u20ac"]}')
            assert json.loads(await peer.receive()) == {"got": {"n": [1, "\u20ac"]}, "user": "ren\u00e9", "q": "a b"}
            await peer.close(4000)
            await until(lambda: app.state.codes)
        assert app.state.codes == [4000]
        async with WAYS[way](server, Offer("/iterate")) as peer:
            await peer.send("stra\u00dfe")
            assert await peer.receive() == "STRASSE"
        refused = b"403 Forbidden\n"
        for path, status, body in (("/closed", 401, b'{"error":"no token"}'), ("/nowhere", 403, refused)):
            with pytest.raises(DeniedError) as denied:
                async with WAYS[way](server, Offer(path)):
                    pass
            assert (denied.value.status, denied.value.body) == (status, body)


async def guest(token: str = "") -> str:
    if token != "secret":
        raise fastapi.WebSocketException(1008, "no token")
    return "guest"


async def room(websocket: fastapi.WebSocket, number: int, guest: Annotated[str, fastapi.Depends(guest)]) -> None:
    await websocket.accept("chat")
    try:
        while True:
            await websocket.send_json({"room": number, "guest": guest, "text": await websocket.receive_text()})
    except fastapi.WebSocketDisconnect as gone:
        websocket.app.state.gone = gone.code, gone.reason


@each_way
@in_loop
async def test_fastapi(way: str) -> None:
    app = fastapi.FastAPI()
    app.add_api_websocket_route("/rooms/{number}", room)
    app.state.gone = None
    async with serving(cast(ASGIApp, app)) as server:
        async with WAYS[way](server, Offer("/rooms/7?token=secret", subprotocols=["chat"])) as peer:
            assert peer.subprotocol == "chat"
            await peer.send("\U0001f600")
            assert json.loads(await peer.receive()) == {"room": 7, "guest": "guest", "text": "\U0001f600"}
            await peer.close(1001, "moved on")
            await until(lambda: app.state.gone)
        assert app.state.gone == (1001, "moved on")
        for path in ("/rooms/7", "/rooms/seven?token=secret"):
            with pytest.raises(DeniedError) as denied:
                async with WAYS[way](server, Offer(path)):
                    pass
            assert denied.value.status == 403


# Chromium

PAGE = """<!doctype html><title>asgiri</title><script>
const words = %s;
async function converse(url) {
  // It uses a connection of HTTP/2 that is there already, if it was made with credentials as this one is.
  await fetch(url.replace("wss:", "https:"), {mode: "no-cors", credentials: "include"});
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  const heard = [];
  return await new Promise(resolve => {
    socket.onmessage = ({data}) => {
      heard.push(typeof data === "string" ? data : Array.from(new Uint8Array(data)));
      if (heard.length === 1) {  // what it is spoken over
        for (const word of words) socket.send(word);
        socket.send(new Uint8Array([0, 127, 255]));
      } else if (heard.length === words.length + 2) socket.close(4000, "enough");
    };
    socket.onclose = event => resolve({heard, code: event.code, clean: event.wasClean, extensions: socket.extensions});
  });
}
Promise.all(%s.map(converse)).then(results => fetch("/results", {method: "POST", body: JSON.stringify(results)}));
</script>"""


class Page:
    """The page, and what it posts."""

    def __init__(self) -> None:
        self.html = b""
        self.results: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/results":
            body = await read_body(receive)
            assert body is not None
            self.results.set_result(body)
        await reply(send, self.html, 200, (b"content-type", b"text/html"))


@contextlib.asynccontextmanager
async def chromium(url: str, home: Path) -> AsyncIterator[None]:
    """The browser with this page open."""
    assert CHROMIUM is not None
    alone = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    alone += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    alone += ["--disable-dev-shm-usage", "--ignore-certificate-errors", "--remote-debugging-port=0"]
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *alone,
        f"--user-data-dir={home}",
        url,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@needs_chromium
@in_loop
async def test_chromium(pki: Pki, tmp_path: Path) -> None:
    """Over both carriers and with both engines, from one page, whose own server the browser trusts no less."""
    page, app = Page(), Application()
    async with contextlib.AsyncExitStack() as stack:
        urls, expected = [], []
        for engine in WEBSOCKET_ENGINES:
            for version, spoken in ((HttpProtocolVersion.AUTO, "2"), (HttpProtocolVersion.HTTP_1_1, "1.1")):
                server = await stack.enter_async_context(serving(app, engine, pki, version=version))
                urls.append(f"wss://127.0.0.1:{address(server)[1]}/version")
                expected.append(f"wss {spoken}")
        home = await stack.enter_async_context(serving(page, pki=pki))
        page.html = (PAGE % (json.dumps(WORDS), json.dumps(urls))).encode()
        async with chromium(f"https://127.0.0.1:{address(home)[1]}/", tmp_path / "chromium"), asyncio.timeout(40):
            results = json.loads(await page.results)
        for spoken, result in zip(expected, results, strict=True):
            assert result["heard"] == [spoken, *WORDS, [0, 127, 255]]
            assert (result["code"], result["clean"]) == (4000, True)
            assert result["extensions"].startswith("permessage-deflate")
        await until(lambda: len(app.ends) == len(urls))
        assert set(app.ends) == {(4000, "enough")}
