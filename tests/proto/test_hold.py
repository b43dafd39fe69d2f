"""Holding and handing over, with two servers in one process, as two workers would: on both loops, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgiri.config.schema import Config, Limits, Listen, Reload, Timeouts, Tls
from asgiri.proto import transfer
from asgiri.proto.accept import Phase
from asgiri.proto.transfer import is_at
from asgiri.server import Post, Server, ServerState
from asgiri.sockets.bind import bind
from asgiri.sockets.listener import Listener
from asgiri.types import Receive, Scope, Send
from tests.http2_client import http2_connected
from tests.pki import Pki
from tests.proto.fakes import Held, read_body, reply, request, settle, until
from tests.serving import Client, config, connected, on_both_loops, shared_of, state_of

BOTH = ("h2", "http/1.1")


class Named:
    """Answers with its name, and the two addresses of the scope; keeps the scopes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = await read_body(receive) or b""
        await reply(send, self.name.encode() + body)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


class House:
    """Two servers on the same sockets: ``old`` serves and is to be held, ``new`` comes up when it is told to."""

    def __init__(self, conf: Config, pair: tuple[socket.socket, socket.socket], old: Any = None) -> None:
        self.config = msgspec.structs.replace(conf, reload=Reload(enabled=True))
        self._pair = pair
        self._listeners = [bind(one) for one in conf.listen]
        self.app: Any = old or Named("old")
        self.newer = Named("new")
        self.old = self._server(self.app)
        self.new = self._server(self.newer)

    def _server(self, app: Any) -> Server:
        listeners = [Listener(one.listen, one.sock.dup()) for one in self._listeners]
        ends = (self._pair[0].dup(), self._pair[1].dup())
        return Server(app, config=self.config, listeners=listeners, post=Post(transfer=ends))

    async def __aenter__(self) -> House:
        await self.old.start()
        return self

    async def replace(self) -> None:
        """New code serves, and the old one goes."""
        await self.new.start()
        await self.old.shutdown(retiring=True)

    async def __aexit__(self, *_: object) -> None:
        for server in (self.old, self.new):
            await server.shutdown(window=0)
            for listener in server._given or ():
                listener.sock.close()
            if server._post.transfer:
                for end in server._post.transfer:
                    end.close()
        for listener in self._listeners:
            listener.close()


@contextlib.asynccontextmanager
async def another(house: House) -> AsyncIterator[Client]:
    """A connection that nobody need have accepted."""
    streams = await asyncio.open_connection(*house.old.sockets[0].getsockname()[:2])
    client = Client(*streams)
    try:
        yield client
    finally:
        await client.close()


async def waits(house: House, client: Client) -> None:
    """Nothing of what the client has sent is read: a request on it is there, and nobody is asked."""
    before = len(house.app.scopes)
    client.send(request("/waits"))
    await client.drain()
    for _ in range(20):
        await asyncio.sleep(0)
    await until(lambda: shared_of(house.old).now)
    assert len(house.app.scopes) == before


# Held


@on_both_loops
async def test_what_comes_waits_and_goes_on(pair: Any) -> None:
    async with House(config(), pair) as house, connected(house.old) as kept:
        assert (await kept.ask(request())).body == b"old"
        house.old.hold()
        assert state_of(house.old) is ServerState.HELD
        async with another(house) as fresh:
            await waits(house, kept)
            await waits(house, fresh)
            house.old.release()
            assert state_of(house.old) is ServerState.SERVING
            assert [(await client.answer()).body for client in (kept, fresh)] == [b"old", b"old"]
            assert (await kept.ask(request())).body == b"old"


@on_both_loops
async def test_what_runs_goes_on_and_its_connection_is_held_when_it_is_idle(pair: Any) -> None:
    async with House(config(), pair, Held()) as house, connected(house.old) as client:
        client.send(request("/runs"))
        await until(lambda: house.app.scopes)
        house.old.hold()
        house.app.release("/runs")
        answer = await client.answer()
        assert (answer.body, answer.headers.get("connection")) == (b"/runs", None)
        await waits(house, client)
        await house.replace()
        assert (await client.answer()).body == b"new"


@on_both_loops
async def test_what_was_read_before_the_hold_is_answered_by_the_old_code(pair: Any) -> None:
    async with House(config(), pair) as house, connected(house.old) as half, connected(house.old) as two:
        half.send(request("/half")[:-2])
        two.send(request("/a") + request("/b")[:-2])
        assert (await two.answer()).body == b"old"
        await until(lambda: [c._state.value for c in shared_of(house.old).connections] == ["head", "head"])  # type: ignore[attr-defined]
        house.old.hold()
        half.send(b"\r\n")
        two.send(b"\r\n")
        assert [(await client.answer()).body for client in (half, two)] == [b"old", b"old"]
        await waits(house, half)
        await house.replace()
        assert (await half.answer()).body == b"new"


@on_both_loops
async def test_no_time_passes_for_a_connection_that_is_held(pair: Any) -> None:
    async with (
        House(config(timeouts=Timeouts(keep_alive=0.08)), pair) as house,
        connected(house.old) as client,
        http2_connected(house.old.sockets[0].getsockname()) as modern,
    ):
        await modern.get()
        shared = shared_of(house.old)
        client.send(request())
        await client.answer()
        house.old.hold()
        began = shared.now
        await until(lambda: shared.now > began + 0.3)
        assert len(shared.connections) == 2
        house.old.release()
        assert await client.rest() == b""  # and then it does
        await modern.end()


@on_both_loops
async def test_a_stop_of_one_that_is_held_answers_what_waits(pair: Any) -> None:
    async with House(config(), pair) as house, connected(house.old) as client, another(house) as fresh:
        house.old.hold()
        client.send(request())
        fresh.send(request())
        await house.old.shutdown(window=0.2)
        assert [(await one.answer()).body for one in (client, fresh)] == [b"old", b"old"]


@on_both_loops
async def test_a_held_acceptor_hears_no_limit(pair: Any) -> None:
    async with House(config(limits=Limits(connections=1)), pair) as house, connected(house.old) as client:
        acceptors = house.old._intake.acceptors  # type: ignore[union-attr]
        assert {one.phase for one in acceptors} == {Phase.FULL, Phase.ACCEPTING}
        house.old.hold()
        assert {one.phase for one in acceptors} == {Phase.HELD}
        shared_of(house.old).on_room()
        await settle()
        assert {one.phase for one in acceptors} == {Phase.HELD}
        house.old.hold()
        house.old.release()
        house.old.release()
        assert {one.phase for one in acceptors} == {Phase.ACCEPTING}
        await client.close()
        async with connected(house.old) as other:
            assert (await other.ask(request())).body == b"old"


# Handed over


@on_both_loops
async def test_idle_connections_go_to_the_new_code_with_all_that_waits_on_them(pair: Any) -> None:
    async with (
        House(config(), pair) as house,
        connected(house.old) as first,
        connected(house.old) as second,
        connected(house.old) as never,
    ):
        for client in (first, second):
            assert (await client.ask(request())).body == b"old"
        house.old.hold()
        first.send(request("/waits"))
        await house.replace()
        assert shared_of(house.old).quiet
        assert (await first.answer()).body == b"new"
        for client in (first, second, never):
            assert (await client.ask(request())).body == b"new"
        seen = {(str(scope["client"]), str(scope["server"])) for scope in house.app.scopes}
        assert seen <= {(str(scope["client"]), str(scope["server"])) for scope in house.newer.scopes}
        assert (house.new.counts.connections, house.new.counts.accepted) == (3, 3)


@on_both_loops
async def test_more_than_the_queue_has_room_for(pair: Any) -> None:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    async with House(config(), pair) as house, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(another(house)) for _ in range(60)]
        await until(lambda: len(shared_of(house.old).connections) == 60)
        house.old.hold()
        for client in clients:
            client.send(request())
        await house.replace()
        assert {(await client.answer()).body for client in clients} == {b"new"}


@on_both_loops
async def test_when_nobody_takes_them_the_old_code_answers(
    pair: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", 0.05)
    async with House(config(), pair) as house, connected(house.old) as asks, connected(house.old) as idle:
        house.old.hold()
        with contextlib.suppress(BlockingIOError):
            while True:
                pair[0].send(b"full")
        asks.send(request())
        await house.old.shutdown(retiring=True)
        answer = await asks.answer()
        assert (answer.body, answer.headers["connection"]) == (b"old", "close")
        assert await idle.rest() == b""
        assert "nobody takes over: 2 connections stay" in caplog.text
        with contextlib.suppress(BlockingIOError):
            while True:
                pair[1].recv(16)


@on_both_loops
async def test_no_more_are_taken_than_there_is_room_for(pair: Any) -> None:
    conf = config(limits=Limits(connections=2))
    async with House(conf, pair) as house, connected(house.old) as one, connected(house.old) as two:
        house.old.hold()
        await house.new.start()
        async with another(house) as fresh:
            assert (await fresh.ask(request())).body == b"new"
            await house.old.shutdown(retiring=True)
            one.send(request())
            two.send(request())
            await until(lambda: house.new.counts.connections == 2)
        assert [(await client.answer()).body for client in (one, two)] == [b"new", b"new"]


@on_both_loops
async def test_a_unix_socket_and_one_whose_listener_is_gone(pair: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    conf = config(Listen(bind=f"unix:{path}"))
    async with House(conf, pair) as house, connected(house.old) as client:
        assert (await client.ask(request())).body == b"old"
        house.old.hold()
        await house.replace()
        assert (await client.ask(request())).body == b"new"
        assert house.newer.scopes[0]["server"] == (path, None)
    async with House(conf, pair) as house, connected(house.old) as client:
        house.old.hold()
        with socket.create_server(("127.0.0.1", 0)) as other:
            other.setblocking(False)
            for listener in house.new._given or ():
                listener.sock.close()
            house.new._given = [Listener(Listen(bind="127.0.0.1:0"), other.dup())]
            house.new.config = msgspec.structs.replace(house.new.config, listen=(Listen(bind="127.0.0.1:0"),))
            await house.replace()
            assert (await client.ask(request())).body == b"new"


@pytest.mark.parametrize(
    ("address", "bound", "same"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 80), True),
        (("127.0.0.1", 80), ("0.0.0.0", 80), True),
        (("127.0.0.1", 80), ("127.0.0.2", 80), False),
        (("127.0.0.1", 80), ("0.0.0.0", 81), False),
        (("::ffff:127.0.0.1", 80, 0, 0), ("::", 80, 0, 0), True),
        ("/run/a", "/run/a", True),
        ("/run/a", "/run/b", False),
        ("/run/a", ("0.0.0.0", 80), False),
        (b"\0a", b"\0a", True),
    ],
)
def test_whose_a_connection_is(address: object, bound: object, same: bool) -> None:
    assert is_at(address, bound) is same


# What runs while the old code goes


class Streams:
    """``/slow`` answers when it is released; everything else begins an answer, or a WebSocket, and never ends it."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.slow = asyncio.Event()
        self.ended: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        try:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.accept"})
                await asyncio.Event().wait()
            if scope["path"] == "/slow":
                await self.slow.wait()
                await reply(send, b"slow")
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
            if scope["path"] == "/ends":
                await self.slow.wait()
                await send({"type": "http.response.body", "body": b"ended"})
                return
            await asyncio.Event().wait()
        finally:
            self.ended.append(scope["path"])


WEBSOCKET = request("/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")  # fmt: skip


@on_both_loops
async def test_streams_and_websockets_are_cut_and_requests_are_not(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgiri.proto.drain.STREAM_SECONDS", 0.05)
    app = Streams()
    async with (
        House(config(), pair, app) as house,
        connected(house.old) as stream,
        connected(house.old) as socket_,
        connected(house.old) as slow,
    ):
        stream.send(request("/stream"))
        await stream.some(b"begun")
        socket_.send(WEBSOCKET)
        await socket_.some(b"101 ")
        slow.send(request("/slow"))
        await until(lambda: len(app.scopes) == 3)
        house.old.hold()
        await house.new.start()
        leaving = asyncio.create_task(house.old.shutdown(retiring=True))
        with contextlib.suppress(ConnectionResetError):
            await stream.rest()
        with contextlib.suppress(ConnectionResetError):
            assert b"\x88" in await socket_.rest()  # a Close frame came first
        assert sorted(app.ended) == ["/stream", "/ws"]
        assert not leaving.done()
        app.slow.set()
        answer = await slow.answer()
        assert (answer.body, answer.headers["connection"]) == (b"slow", "close")
        await leaving


@on_both_loops
async def test_a_connection_whose_answer_ends_in_the_drain_is_handed_over_then(pair: Any) -> None:
    app = Streams()
    async with House(config(), pair, app) as house, connected(house.old) as client:
        client.send(request("/ends"))
        await client.some(b"begun")
        house.old.hold()
        await house.new.start()
        leaving = asyncio.create_task(house.old.shutdown(retiring=True))
        await until(lambda: shared_of(house.old).draining)
        app.slow.set()
        answers = [await client.answer(), await client.ask(request())]
        assert [one.body for one in answers] == [b"begunended", b"new"]
        await leaving


# What cannot be handed over


@pytest.fixture(params=["aiofastnet", "loop"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who does TLS."""
    if request.param == "loop":
        monkeypatch.setattr("asgiri.proto.secure.fast_connect", lambda: None)
    return str(request.param)


def secure(pki: Pki, *http: str) -> Config:
    listen = msgspec.convert({"bind": "127.0.0.1:0", "http": http or BOTH}, Listen)
    return config(msgspec.structs.replace(listen, tls=Tls(certfile=pki.certfile, keyfile=pki.keyfile)))


@on_both_loops
async def test_over_tls_who_is_idle_is_closed_and_who_has_asked_is_answered(pair: Any, pki: Pki, by: str) -> None:
    tls = pki.client(alpn=("http/1.1",))
    async with (
        House(secure(pki), pair) as house,
        connected(house.old, tls=tls) as idle,
        connected(house.old, tls=tls) as asks,
    ):
        for client in (idle, asks):
            assert (await client.ask(request())).body == b"old"
        house.old.hold()
        await waits(house, asks)
        await house.replace()
        answer = await asks.answer()
        assert (answer.body, answer.headers["connection"]) == (b"old", "close")
        assert await idle.rest() == b""
        async with connected(house.new, tls=tls) as client:
            assert (await client.ask(request())).body == b"new"


@pytest.mark.parametrize("tls", [False, True])
@on_both_loops
async def test_over_http2_a_goaway_says_what_was_not_begun(pair: Any, pki: Pki, tls: bool) -> None:
    conf = secure(pki) if tls else config()
    context = pki.client(alpn=BOTH) if tls else None
    async with House(conf, pair) as house:
        address = house.old.sockets[0].getsockname()
        async with http2_connected(address, context) as idle, http2_connected(address, context) as asks:
            for peer in (idle, asks):
                assert (await peer.get()).body == b"old"
            house.old.hold()
            assert asks.request("/late") == 3
            await asks.flush()
            await idle.flush()
            for _ in range(20):
                await asyncio.sleep(0)
            leaving = asyncio.create_task(house.replace())
            for peer in (idle, asks):
                await peer.until(lambda peer=peer: peer.goaways)  # type: ignore[misc]
                assert peer.goaways == [(1, 0)]
            assert len(house.app.scopes) == 2
        await leaving
        async with http2_connected(address, context) as peer:
            assert (await peer.get()).body == b"new"


@on_both_loops
async def test_over_http2_what_runs_finishes_and_what_waits_goes_on_after_a_release(pair: Any) -> None:
    app = Held()
    async with House(config(), pair, app) as house:
        address = house.old.sockets[0].getsockname()
        async with http2_connected(address) as busy:
            running = busy.request("/runs")
            await busy.flush()
            await until(lambda: app.scopes)
            house.old.hold()
            app.release("/runs")
            assert (await busy.answer(running)).body == b"/runs"
            await asyncio.sleep(0)
            waiting = busy.request("/waits")
            await busy.flush()
            for _ in range(20):
                await asyncio.sleep(0)
            assert app.paths == ["/runs"]
            house.old.release()
            app.release("/waits")
            assert (await busy.answer(waiting)).body == b"/waits"
            last = busy.request("/last")
            await busy.flush()
            await until(lambda: len(app.scopes) == 3)
            house.old.hold()
            await house.new.start()
            leaving = asyncio.create_task(house.old.shutdown(retiring=True))
            await busy.until(lambda: busy.goaways)
            assert busy.goaways[-1][0] == last
            app.release("/last")
            assert (await busy.answer(last)).body == b"/last"
        await leaving
