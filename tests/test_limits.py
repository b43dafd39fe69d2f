"""Every timeout and limit that touches HTTP/1.1, once for real: real sockets, a real clock, each engine.

With an injected clock they are tested in tests/proto/. Here the clock is only waited for: no test says when at the
latest something must happen, but what happens first, and that it does not happen at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from types import FrameType
from typing import Any

import msgspec
import pytest

from asgiri.codec.engines import HTTP1_ENGINES
from asgiri.config.schema import Config, Http1, Limits, Timeouts
from asgiri.equip import loop_factory
from asgiri.proto.connection import Connection, Shared
from asgiri.proto.http11 import Http11Connection
from asgiri.server import Server
from asgiri.types import ASGIApp, Receive, Scope, Send
from tests.proto.fakes import (
    Answer,
    ByHand,
    FakeTransport,
    Held,
    Peer,
    echo,
    hello,
    parse_answers,
    request,
    run,
    settle,
    until,
)
from tests.serving import MIB, Client, config, connected, shared_of

# Each engine on a loop of its own: that each loop goes with the fastest engine is shown in tests/test_server.py.
ENGINES = [(name, "uvloop" if name == "httptools" else "asyncio") for name in HTTP1_ENGINES]
CHUNKED = "Transfer-Encoding: chunked"
# Long enough to be told from "at once" on a busy machine, and short enough to be waited for.
SOON = 0.2


def on_each_engine(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An async test as pytest wants it, once an engine; it takes the engine's name as ``engine``."""

    @functools.wraps(test)
    def sync(*, engine: str, loop: str, **arguments: Any) -> None:
        run(test(engine=engine, **arguments), loop_factory(loop))

    asked = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    vars(sync)["__signature__"] = asked.replace(parameters=[*asked.parameters.values(), loop])
    ids = [name for name, _ in ENGINES]
    each: Callable[..., None] = pytest.mark.parametrize(("engine", "loop"), ENGINES, ids=ids)(sync)
    return each


def with_engine(engine: str, timeouts: Timeouts | None = None, limits: Limits | None = None) -> Config:
    http1 = msgspec.convert({"engine": engine}, Http1)
    # A test that fails leaves its application waiting: the drain then gives up before pytest does.
    return msgspec.structs.replace(config(timeouts=timeouts, limits=limits, drain_timeout=5), http1=http1)


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp, engine: str, timeouts: Timeouts | None = None, limits: Limits | None = None
) -> AsyncIterator[tuple[Server, Client]]:
    """A server and its first client."""
    async with Server(app, config=with_engine(engine, timeouts, limits)) as server, connected(server) as client:
        yield server, client


async def drip(client: Client, piece: bytes) -> Answer:
    """Send a piece every few milliseconds until there is an answer."""
    answering = asyncio.ensure_future(client.answer())
    while not answering.done():
        client.send(piece)
        await asyncio.wait({answering}, timeout=0.005)
    return answering.result()


async def gone(client: Client) -> bool:
    """Wait for the end of the connection; whether nothing came before it."""
    return await client.rest() == b""


def elapsed_since(began: float) -> float:
    return asyncio.get_running_loop().time() - began


# Timeouts


@on_each_engine
async def test_a_head_that_drips_is_408(engine: str) -> None:
    async with serving(hello, engine, Timeouts(request_head=SOON)) as (_, client):
        began = asyncio.get_running_loop().time()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        answer = await drip(client, b"x")
        assert elapsed_since(began) > SOON / 4, "it has a time, and dripping does not renew it"
        assert (answer.status, answer.closes) == (408, True)
        assert await gone(client)


@on_each_engine
async def test_request_head_of_a_later_request(engine: str) -> None:
    async with serving(hello, engine, Timeouts(request_head=SOON)) as (_, client):
        assert (await client.ask(request("/first"))).body == b"/first"
        client.send(b"G")
        answer = await drip(client, b"G")
        assert (answer.status, answer.closes) == (408, True)
        assert await gone(client)


@pytest.mark.parametrize("begun", ["Content-Length: 5", CHUNKED])
@on_each_engine
async def test_a_body_that_stops_coming_is_408(engine: str, begun: str) -> None:
    app = ByHand()
    async with serving(app, engine, Timeouts(request_body=SOON)) as (_, client):
        began = asyncio.get_running_loop().time()
        client.send(request("/", begun, method="POST"))
        client.send(b"1\r\n" if begun == CHUNKED else b"1")
        call = await app.next()
        answer = await client.answer()
        assert elapsed_since(began) > SOON / 4
        assert (answer.status, answer.closes) == (408, True)
        assert await gone(client)
        while (message := await call.receive())["type"] == "http.request":
            assert message["more_body"], "a body that is cut has no end"
        call.finish()


@on_each_engine
async def test_request_body_in_the_middle_of_the_answer(engine: str) -> None:
    app = ByHand()
    async with serving(app, engine, Timeouts(request_body=SOON)) as (_, client):
        client.send(request("/", "Content-Length: 5", method="POST") + b"1")
        call = await app.next()
        await call.start()
        await call.body(b"half")
        with pytest.raises(ConnectionResetError):
            await client.rest()
        call.finish()


@on_each_engine
async def test_a_request_that_takes_too_long_is_503(engine: str) -> None:
    app = ByHand()
    async with serving(app, engine, Timeouts(request=SOON)) as (_, client):
        began = asyncio.get_running_loop().time()
        client.send(request("/"))
        call = await app.next()
        answer = await client.answer()
        assert elapsed_since(began) > SOON / 4
        assert (answer.status, answer.closes) == (503, True)
        assert await gone(client)
        await until(lambda: call.cancelled)


@on_each_engine
async def test_request_in_the_middle_of_the_answer(engine: str) -> None:
    app = ByHand()
    async with serving(app, engine, Timeouts(request=SOON)) as (_, client):
        client.send(request("/"))
        call = await app.next()
        await call.start()
        await call.body(b"half")
        await client.some(b"half")
        with pytest.raises(ConnectionResetError):
            await client.rest()
        await until(lambda: call.cancelled)


@on_each_engine
async def test_an_idle_connection_is_closed_in_time(engine: str) -> None:
    """A connection without a request is closed, whether it had one or not; one with a request in progress is not."""
    app = Held()
    async with (
        serving(app, engine, Timeouts(keep_alive=SOON)) as (server, busy),
        connected(server) as used,
        connected(server) as silent,
    ):
        busy.send(request("/busy"))
        await until(lambda: app.paths == ["/busy"])
        used.send(request("/used"))
        app.release("/used")
        began = asyncio.get_running_loop().time()
        assert (await used.answer()).body == b"/used"
        assert await gone(used)
        assert elapsed_since(began) > SOON / 4
        assert await gone(silent)
        app.release("/busy")
        assert (await busy.answer()).body == b"/busy"
        assert await gone(busy), "now it is idle too"


@on_each_engine
async def test_a_peer_that_reads_nothing_is_cut_off(engine: str) -> None:
    """A peer that reads nothing is cut; one that reads slowly, while the first one is overdue, gets all."""
    enough = asyncio.Event()
    raised: list[str] = []

    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        try:
            while not enough.is_set():
                await send({"type": "http.response.body", "body": bytes(MIB >> 4), "more_body": True})
        except OSError:
            raised.append(scope["path"])
            return
        await send({"type": "http.response.body", "body": b"the end"})

    # Longer than others: a machine that stops for so long would cut the slow one too.
    async with serving(streams, engine, Timeouts(write=1.0)) as (server, slow), connected(server) as stalled:
        began = asyncio.get_running_loop().time()
        stalled.send(request("/stalled"))
        slow.send(request("/slow"))
        cut = asyncio.ensure_future(until(lambda: raised))
        while not cut.done():
            assert await slow.skip_some()
            await asyncio.wait({cut}, timeout=0.005)
        await cut
        assert elapsed_since(began) > 0.25
        with pytest.raises(ConnectionResetError):
            await stalled.skip_rest()
        enough.set()
        assert (await slow.rest()).endswith(b"7\r\nthe end\r\n0\r\n\r\n")
    assert raised == ["/stalled"]


@on_each_engine
async def test_write_of_a_slow_reader(engine: str) -> None:
    """Progress is what the peer takes: the kernel holds megabytes, and asks for more long after it took some."""

    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "http.response.body", "body": bytes(MIB >> 4), "more_body": True})

    async with Server(streams, config=with_engine(engine, Timeouts(write=60))) as server:
        assert server._sweeping is not None
        server._sweeping.cancel()  # here, time is the test's
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.sendall(request("/"))
            sock.setblocking(False)
            await until(lambda: any(one._writable for one in shared_of(server).connections))
            [connection] = shared_of(server).connections
            now = shared_of(server).now
            for _ in range(6):
                now += 50
                connection.check(now)
                assert not connection.transport.is_closing()
                before = acknowledged(connection)
                await read_until(sock, lambda: acknowledged(connection) != before)  # noqa: B023
            connection.check(now + 1)
            connection.check(now + 50)
            assert not connection.transport.is_closing()
            connection.check(now + 62)
            assert connection.transport.is_closing(), "but now it takes nothing any more"
            await until(lambda: shared_of(server).quiet)


def acknowledged(connection: Connection) -> int:
    """How many bytes the peer's kernel has taken for certain."""
    return connection._in_kernel(0)[1]


async def read_until(sock: socket.socket, condition: Callable[[], object]) -> None:
    """Read a little, until the other kernel has heard of it."""

    def reads() -> object:
        with contextlib.suppress(BlockingIOError):
            sock.recv(16 << 10)
        return condition()

    await until(reads)


async def a_while(server: Server) -> None:
    """Until a timeout of the server, ``keep_alive`` or ``request_head``, has ended a connection made now."""
    async with connected(server) as client:
        if not server.config.timeouts.keep_alive:
            client.send(b"G")
        await client.rest()


ALL_OFF = Timeouts(request_head=0, request_body=0, request=0, keep_alive=0, write=0)


@on_each_engine
async def test_timeouts_that_are_off(engine: str) -> None:
    app = ByHand()
    times = msgspec.structs.replace(ALL_OFF, keep_alive=SOON)
    async with (
        serving(app, engine, times) as (server, in_head),
        connected(server) as in_body,
        connected(server) as in_answer,
        connected(server) as stalled,
    ):
        in_head.send(b"GET / HT")
        in_body.send(request("/", "Content-Length: 2", method="POST") + b"1")
        body = await app.next()
        in_answer.send(request("/"))
        answer = await app.next()
        stalled.send(request("/", "Connection: close"))
        large = await app.next()
        writing = asyncio.ensure_future(large.reply(bytes(64 * MIB)))
        await until(lambda: any(one._writable for one in shared_of(server).connections))
        await a_while(server)
        in_head.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        await (await app.next()).reply(b"head")
        assert (await in_head.answer()).body == b"head"
        in_body.send(b"2")
        while (await body.receive())["more_body"]:
            pass
        await body.reply(b"body")
        assert (await in_body.answer()).body == b"body"
        await answer.reply(b"answer")
        assert (await in_answer.answer()).body == b"answer"
        assert await stalled.skip_rest() > 64 * MIB
        await writing


@on_each_engine
async def test_keep_alive_that_is_off(engine: str) -> None:
    times = msgspec.structs.replace(ALL_OFF, request_head=SOON)
    async with serving(hello, engine, times) as (server, client):
        assert (await client.ask(request("/1"))).body == b"/1"
        await a_while(server)
        assert (await client.ask(request("/2"))).body == b"/2"


# Limits


async def refused(client: Client, data: bytes, status: int) -> Answer:
    answer = await client.ask(data)
    assert (answer.status, answer.closes) == (status, True)
    assert await gone(client)
    return answer


FEW = Limits(request_line=64, header_count=4, header_size=256, body_size=8)
NONE = Limits(request_line=0, header_count=0, header_size=0, body_size=0)
LONG = request("/" + "a" * 9_000)  # each of these is over its default, too
MANY = request("/", *(f"X-{number}: y" for number in range(120)))
LARGE = request("/", *(f"X-{number}: {'y' * 20_000}" for number in range(4)))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/" + "a" * 64), 414),
        (b"GET /" + b"a" * 64, 414),  # and its end is not waited for
        (request("/", "A: 1", "B: 2", "C: 3", "D: 4"), 431),
        (request("/", f"A: {'a' * 256}"), 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 256, 431),
        (request("/", "Content-Length: 9", method="POST"), 413),  # before any of it is sent
        (request("/", "Content-Length: 9", "Expect: 100-continue", method="POST"), 413),
    ],
    ids=["line", "line-open", "count", "size", "size-open", "length", "expected"],
)
@on_each_engine
async def test_a_request_over_a_limit(engine: str, data: bytes, status: int) -> None:
    calls = 0

    async def counts(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        await echo(scope, receive, send)

    async with serving(counts, engine, limits=FEW) as (server, client):
        good = await client.ask(request("/" + "a" * 48, "A: 1", "B: 2", method="POST", body=b"12345678"))
        assert (good.status, good.body) == (200, b"12345678")
        answer = await refused(client, data, status)
        assert not answer.interim
        assert calls == 1
        async with connected(server) as other:
            assert (await other.ask(request("/", method="POST", body=b"others"))).body == b"others"


@on_each_engine
async def test_chunks_over_a_limit(engine: str) -> None:
    """413 comes as soon as a chunk's size is known, and before its bytes are."""
    app = ByHand()
    async with serving(app, engine, limits=FEW) as (_, client):
        client.send(request("/", CHUNKED, method="POST") + b"8\r\n12345678\r\n")
        call = await app.next()
        assert (await call.receive())["body"] == b"12345678"
        await refused(client, b"1\r\n", 413)
        assert (await call.receive())["type"] == "http.disconnect"
        call.finish()


@pytest.mark.parametrize("data", [LONG, MANY, LARGE], ids=["line", "count", "size"])
@on_each_engine
async def test_limits_of_the_head_that_are_off(engine: str, data: bytes) -> None:
    async with serving(hello, engine, limits=NONE) as (_, client):
        assert (await client.ask(data)).status == 200
        async with Server(hello, config=with_engine(engine)) as other, connected(other) as client:
            assert (await client.ask(data)).status in (414, 431)


@on_each_engine
async def test_a_request_over_the_limit_is_503(engine: str) -> None:
    app = ByHand()
    async with serving(app, engine, limits=Limits(requests=1)) as (server, client), connected(server) as other:
        client.send(request("/first"))
        call = await app.next()
        over = await other.ask(request("/over"))
        assert (over.status, over.headers["retry-after"], over.closes) == (503, "1", False)
        await call.reply(b"first")
        assert (await client.answer()).body == b"first"
        await until(lambda: not shared_of(server).sessions)
        other.send(request("/again"))
        await (await app.next()).reply(b"again")
        assert (await other.answer()).body == b"again"


@on_each_engine
async def test_accepting_pauses_at_the_limit_of_connections(engine: str) -> None:
    async with serving(hello, engine, limits=Limits(connections=1)) as (server, first):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        second = Client(reader, writer)
        second.send(request("/second"))
        for number in range(20):
            assert (await first.ask(request(f"/{number}"))).body == b"/%d" % number
        assert len(shared_of(server).connections) == 1
        assert reader.at_eof() is False
        await first.close()
        assert (await second.answer()).body == b"/second", "it has waited, and lost nothing"
        await second.close()


@on_each_engine
async def test_requests_per_connection(engine: str) -> None:
    async with serving(hello, engine, limits=Limits(requests_per_connection=3)) as (server, client):
        closes = [(await client.ask(request(f"/{number}"))).closes for number in range(3)]
        assert closes == [False, False, True]
        assert await gone(client)
        async with connected(server) as other:  # in one pipeline: what is behind the last one is not answered
            other.send(b"".join(request(f"/{number}") for number in range(5)))
            answers, left = parse_answers(await other.rest())
            assert [answer.closes for answer in answers] == closes
            assert not left


@on_each_engine
async def test_counts_that_are_off(engine: str) -> None:
    none = Limits(requests=0, connections=0, requests_per_connection=0)
    app = Held()
    async with serving(app, engine, limits=none) as (server, first), contextlib.AsyncExitStack() as stack:
        clients = [first, *[await stack.enter_async_context(connected(server)) for _ in range(20)]]
        for client in clients:
            client.send(request("/"))
        await until(lambda: len(app.paths) == len(clients))
        app.release("/")
        for client in clients:
            answers = [await client.answer(), *[await client.ask(request("/")) for _ in range(10)]]
            assert {(answer.status, answer.closes) for answer in answers} == {(200, False)}


# Idle connections cost a busy one nothing

IDLE = 500


def make_idle(shared: Shared) -> None:
    """Connections that have had a request, and wait for the next."""
    for _ in range(IDLE):
        connection = Http11Connection(shared)
        transport = FakeTransport(shared.loop, connection)
        connection.connection_made(transport)
        connection.data_received(request("/idle"))


class Touched(set[Connection]):
    """The connections of a server; counts how often somebody walks over them."""

    walks = 0

    def __iter__(self) -> Any:
        self.walks += 1
        return super().__iter__()


async def cost_of_a_request(peer: Peer) -> int:
    """How many functions are called for one request, until its answer is written and the loop is quiet."""
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    answered = len(peer.transport.writes)
    gc.collect()
    gc.disable()  # other tests' libraries want to be called when it collects
    sys.setprofile(count)
    try:
        peer.feed(request("/busy"))
        await settle()
    finally:
        sys.setprofile(None)
        gc.enable()
    assert len(peer.transport.writes) == answered + 1
    return calls


@pytest.mark.parametrize("engine", HTTP1_ENGINES)
def test_a_request_touches_no_connection_but_its_own(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peer, "engine", engine)

    async def main() -> None:
        peer = Peer(hello)
        shared = peer.shared
        loop = asyncio.get_running_loop()
        timers: list[object] = []
        monkeypatch.setattr(loop, "call_at", lambda *args, **_: timers.append(args))
        for _ in range(5):  # what is made once is made
            await cost_of_a_request(peer)
        alone = await cost_of_a_request(peer)
        make_idle(shared)
        await settle()
        touched = shared.connections = Touched(shared.connections)
        assert len(touched) == IDLE + 1
        assert await cost_of_a_request(peer) == alone
        assert not touched.walks
        assert not timers, "a request has no timer of its own"
        for connection in list(touched):
            connection.abort()
        await settle()
        await peer.end()

    run(main())


@on_each_engine
async def test_the_sweep_asks_each_connection_once(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Idle:  # no Connection: where that is compiled, nothing else inherits from it
        asked = 0

        def check(self, now: float) -> None:
            self.asked += 1

    sweeps = 0

    def date(now: float) -> bytes:
        nonlocal sweeps
        sweeps += 1
        return b"today"

    async with Server(hello, config=with_engine(engine, Timeouts(write=0.08))) as server, connected(server) as client:
        shared = shared_of(server)
        idle: list[Any] = [Idle() for _ in range(IDLE)]
        shared.connections.update(idle)
        monkeypatch.setattr("asgiri.server.http_date", date)
        answered = 0
        while sweeps < 5 or answered < 50:
            assert (await client.ask(request("/busy"))).body == b"/busy"
            answered += 1
        assert {one.asked for one in idle} == {sweeps}
        shared.connections.difference_update(idle)
