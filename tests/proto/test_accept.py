"""Accepting: within the limit, with nothing left of the system, in a drain; on both loops."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import itertools
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgiri.config.schema import Config, Limits, Listen
from asgiri.proto import accept
from asgiri.proto.accept import BURST, LIFE, Acceptor, Cause, Intake, Phase, in_words, socket_class
from asgiri.server import Post, Server
from asgiri.sockets.bind import bind
from asgiri.sockets.listener import Listener
from asgiri.types import Receive, Scope, Send
from tests.proto.fakes import Held, hello, parse_answers, reply, request, settle, until
from tests.serving import Client, config, connected, on_both_loops, program, shared_of

ROOT = Path(__file__).resolve().parents[2]


def limited(connections: int, *binds: str | Listen, **more: Any) -> Config:
    return config(*binds, limits=Limits(connections=connections), **more)


def intake_of(server: Server) -> Intake:
    assert server._intake is not None
    return server._intake


def acceptor_of(server: Server) -> Acceptor:
    return intake_of(server).acceptors[0]


def phase_of(server: Server) -> Phase:
    """A call, so that mypy does not take one answer for the next."""
    return acceptor_of(server).phase


@contextlib.asynccontextmanager
async def waiting(server: Server, number: int = 0) -> Any:
    """A connection that the kernel has made, whatever the server thinks of it."""
    reader, writer = await asyncio.open_connection(*server.sockets[number].getsockname()[:2])
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()


def test_a_closed_acceptor_stays_closed() -> None:
    assert {after for (_, cause), after in LIFE.items() if cause is Cause.END} == {Phase.CLOSED}
    assert {cause for (phase, cause) in LIFE if phase is Phase.CLOSED} == {Cause.END}
    assert {phase for phase, cause in LIFE if cause is Cause.END} == set(Phase)


# Plainly


@on_both_loops
async def test_more_than_a_burst_at_once() -> None:
    async with Server(hello, config=config()) as server:
        address = server.sockets[0].getsockname()
        clients = [socket.create_connection(address) for _ in range(3 * BURST)]
        await until(lambda: len(shared_of(server).connections) == 3 * BURST and not shared_of(server).arriving)
        for client in clients:
            client.close()
        await until(lambda: shared_of(server).quiet)


@on_both_loops
async def test_what_is_accepted_is_as_the_loops_want_it() -> None:
    async with Server(hello, config=config()) as server, connected(server):
        [connection] = shared_of(server).connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not os.get_blocking(sock.fileno())
        assert not os.get_inheritable(sock.fileno())


def test_the_class_of_accepted_sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        fd, _ = server._accept()  # type: ignore[attr-defined]
        kind = socket_class(server)
        with kind(server.family, server.type, server.proto, fd) as accepted:
            assert isinstance(accepted, socket.socket)
            assert (accepted.family, accepted.type, accepted.proto) == (server.family, server.type, server.proto)
            assert accepted.getpeername() == client.getsockname()


@on_both_loops
async def test_another_process_was_first() -> None:
    async with Server(hello, config=config()) as server:
        acceptor_of(server)._ready()
        assert phase_of(server) is Phase.ACCEPTING
        async with connected(server) as client:
            assert (await client.ask(request("/a"))).body == b"/a"


@on_both_loops
async def test_a_connection_that_is_gone_before_it_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asgiri.server")
    async with Server(hello, config=config()) as server:
        acceptor = acceptor_of(server)
        fail_first(acceptor, [errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
        async with connected(server) as client:
            assert (await client.ask(request("/a"))).body == b"/a"
    assert caplog.text.count("gone before it was accepted") == 3
    assert {record.levelno for record in caplog.records} <= {logging.DEBUG, logging.INFO}


def fail_first(acceptor: Acceptor, errors: list[int]) -> Callable[[], int]:
    """Let the next calls of accept(2) fail with these; how often it was called."""
    real, left, calls = acceptor._accept, iter(errors), itertools.count()
    called = 0

    def failing() -> tuple[int, Any]:
        nonlocal called
        called = next(calls) + 1
        number = next(left, 0)
        if number:
            raise OSError(number, os.strerror(number))
        return real()

    acceptor._accept = failing
    return lambda: called


@on_both_loops
async def test_a_defect_in_what_makes_connections_is_loud_and_leaks_nothing() -> None:
    heard: list[BaseException | None] = []
    loop = asyncio.get_running_loop()
    async with Server(hello, config=config()) as server:
        loop.set_exception_handler(lambda _, context: heard.append(context.get("exception")))
        acceptor = acceptor_of(server)
        good = acceptor.make

        def broken() -> Any:
            raise KeyError("a defect")

        acceptor.make = broken
        async with waiting(server) as client:
            with contextlib.suppress(ConnectionResetError):
                assert await client.rest() == b"", "the socket is closed"
        assert isinstance(heard[0], KeyError)
        acceptor.make = good
        async with connected(server) as client:
            assert (await client.ask(request("/a"))).body == b"/a"
    assert len(heard) == 1


# The limit


@on_both_loops
async def test_the_limit_pauses_accepting_until_a_connection_has_gone() -> None:
    async with Server(hello, config=limited(2)) as server:
        shared = shared_of(server)
        async with connected(server) as first, connected(server) as second, waiting(server) as third:
            for client, path in ((first, "/1"), (second, "/2")):
                assert (await client.ask(request(path))).body == path.encode()
            third.send(request("/3"))
            await settle()
            assert len(shared.connections) == 2
            assert phase_of(server) is Phase.FULL
            assert acceptor_of(server).has_queue()
            await first.close()
            assert (await third.answer()).body == b"/3"
            assert len(shared.connections) == 2
            assert (await second.ask(request("/still"))).body == b"/still"
        await until(lambda: phase_of(server) is Phase.ACCEPTING)


@on_both_loops
async def test_the_limit_is_kept_and_nobody_is_lost_at_it() -> None:
    most = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most
        most = max(most, len(shared.connections))
        await asyncio.sleep(0)
        await reply(send)

    async with Server(app, config=limited(3, "127.0.0.1:0", "127.0.0.1:0")) as server:
        shared = shared_of(server)

        async def ask(number: int) -> None:
            for _ in range(20):
                async with waiting(server, number % 2) as client:
                    client.send(request("/", "Connection: close"))
                    assert b"hello" in await client.rest()

        await asyncio.gather(*map(ask, range(10)))
    assert 0 < most <= 3


@on_both_loops
async def test_what_one_worker_has_no_room_for_another_takes() -> None:
    with contextlib.closing(bind(Listen(bind="127.0.0.1:0"))) as listener:

        def server(app: Any) -> Server:
            shared = bind(Listen(bind=f"fd:{listener.sock.fileno()}"))
            return Server(app, config=limited(1), listeners=[shared])

        held = Held()
        async with server(held) as busy, connected(busy) as client:
            client.send(request("/held"))
            await until(lambda: held.paths)
            async with server(hello) as free, waiting(free) as other:
                assert (await other.ask(request("/free"))).body == b"/free"
                held.release("/held")
                assert (await client.answer()).body == b"/held"


WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


@on_both_loops
async def test_connections_are_not_made_in_the_context_of_an_earlier_one() -> None:
    made_by: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        WHO.set(scope["path"])
        await reply(send)

    async with Server(app, config=limited(1)) as server:
        acceptor = acceptor_of(server)
        make = acceptor.make

        def noted() -> Any:
            made_by.append(WHO.get())
            return make()

        acceptor.make = noted
        for number in range(3):
            async with waiting(server) as client:
                client.send(request(f"/{number}", "Connection: close"))
                assert b"hello" in await client.rest()
    assert made_by == ["nobody"] * 3


# The share


class Portion:
    """A share as the test wants it, and what it was told."""

    def __init__(self, room: int = 0) -> None:
        self.left = room
        self.told: list[int] = []

    def room(self) -> int:
        return self.left

    def tell(self, connections: int) -> None:
        self.told.append(connections)


def sharing(portion: Portion, *, limit: int = 0, listener: Listener | None = None) -> Server:
    listeners = None if listener is None else [bind(Listen(bind=f"fd:{listener.sock.fileno()}"))]
    return Server(hello, config=limited(limit), listeners=listeners, post=Post(share=portion))


@on_both_loops
async def test_who_is_over_its_share_leaves_them_to_another() -> None:
    with contextlib.closing(bind(Listen(bind="127.0.0.1:0"))) as listener:
        over, under = sharing(Portion(0), listener=listener), sharing(Portion(100), listener=listener)
        async with over as busy, under as free, contextlib.AsyncExitStack() as stack:
            for _ in range(20):
                client = await stack.enter_async_context(waiting(free))
                assert (await client.ask(request("/a"))).body == b"/a"
            assert len(shared_of(busy).connections) <= 2, "a moment may be over just when one comes"


@on_both_loops
async def test_nobody_waits_for_ever_when_the_others_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "YIELD_SECONDS", 0.1)
    loop = asyncio.get_running_loop()
    async with sharing(Portion(0)) as server, waiting(server) as first, waiting(server) as second:
        began = loop.time()
        first.send(request("/a"))
        second.send(request("/b"))
        await until(lambda: phase_of(server) is Phase.YIELDING)
        assert not shared_of(server).connections
        assert (await first.answer()).body == b"/a"
        assert loop.time() - began > 0.08
        assert (await second.answer()).body == b"/b"
        assert loop.time() - began > 0.18, "one a moment"


@on_both_loops
async def test_a_connection_that_goes_may_end_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "YIELD_SECONDS", 60.0)
    portion = Portion(1)
    async with sharing(portion) as server, connected(server) as old, connected(server) as other:
        portion.left = 0
        async with waiting(server) as new:
            new.send(request("/new"))
            await until(lambda: phase_of(server) is Phase.YIELDING)
            await other.close()
            await until(lambda: len(shared_of(server).connections) == 1)
            await settle()
            assert phase_of(server) is Phase.YIELDING, "it still has more than its share"
            portion.left = 1
            await old.close()
            assert (await new.answer()).body == b"/new"
            assert phase_of(server) is Phase.ACCEPTING


@on_both_loops
async def test_the_share_is_told_of_what_comes_and_goes() -> None:
    portion = Portion(100)
    async with sharing(portion) as server:
        async with connected(server) as one, connected(server):
            await until(lambda: not shared_of(server).arriving)
            assert portion.told[-1] == 2
            told = len(portion.told)
            assert (await one.ask(request("/a"))).body == b"/a"
            assert len(portion.told) == told, "not for a request"
        await until(lambda: not shared_of(server).connections)
        assert portion.told[-1] == 0
    assert max(portion.told) == 2


@on_both_loops
async def test_a_drain_tells_the_share_to_the_end() -> None:
    portion = Portion(100)
    server = sharing(portion)
    await server.start()
    async with connected(server) as client:
        await server.shutdown(window=0.05)
        assert await client.rest() == b""
    assert portion.told[-1] == 0


@on_both_loops
async def test_a_drain_takes_over_what_it_has_yielded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "YIELD_SECONDS", 60.0)
    server = sharing(Portion(0))
    await server.start()
    async with waiting(server) as client:
        client.send(request("/queued"))
        await until(lambda: phase_of(server) is Phase.YIELDING)
        stopping = asyncio.ensure_future(server.shutdown(window=0.2))
        answer = await client.answer()
        assert answer.body == b"/queued"
        await stopping


@pytest.mark.parametrize("room", [0, 100])
@on_both_loops
async def test_the_limit_holds_whatever_the_share_is(room: int) -> None:
    async with sharing(Portion(room), limit=1) as server, connected(server) as first, waiting(server) as second:
        assert (await first.ask(request("/1"))).body == b"/1"
        second.send(request("/2"))
        await until(lambda: phase_of(server) is Phase.FULL)
        await first.close()
        assert (await second.answer()).body == b"/2"


@pytest.mark.parametrize("room", [0, 100])
@on_both_loops
async def test_a_shortage_is_waited_out_whatever_the_share_is(room: int, impatient: None) -> None:
    async with sharing(Portion(room)) as server:
        calls = fail_first(acceptor_of(server), [errno.EMFILE] * 2)
        async with waiting(server) as client:
            client.send(request("/late"))
            await until(calls)
            assert phase_of(server) is Phase.STARVED
            assert (await client.answer()).body == b"/late"


# Nothing left of the system


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "RETRY_SECONDS", 0.1)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EINVAL])
@on_both_loops
async def test_a_shortage_is_waited_out(number: int, impatient: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asgiri.server")
    async with Server(hello, config=config()) as server:
        calls = fail_first(acceptor_of(server), [number] * 3)
        async with waiting(server) as client:
            began = asyncio.get_running_loop().time()
            client.send(request("/late"))
            await until(calls)
            assert phase_of(server) is Phase.STARVED
            assert (await client.answer()).body == b"/late", "what waited was not dropped"
            assert asyncio.get_running_loop().time() - began > 0.25, "three pauses"
            assert calls() <= 5, "one try a pause"
            assert phase_of(server) is Phase.ACCEPTING
            await until(lambda: "accepting goes on" in caplog.text)
    said = [record.getMessage() for record in caplog.records if "accepting" in record.getMessage()]
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1] if server.sockets[0].fileno() >= 0 else ''}"
    assert len(said) == 2, said
    assert said[0].startswith(url[:16])
    assert in_words(OSError(number, os.strerror(number))) in said[0]
    assert said[1].endswith("accepting goes on")


@on_both_loops
async def test_a_shortage_ends_when_a_connection_does(caplog: pytest.LogCaptureFixture) -> None:
    """Long before the second is over; and what comes and goes within it is one episode of the log."""
    caplog.set_level(logging.INFO, "asgiri.server")
    async with Server(hello, config=config()) as server:
        acceptor = acceptor_of(server)
        began = asyncio.get_running_loop().time()
        for number in range(3):
            async with connected(server) as old, contextlib.AsyncExitStack() as stack:
                calls = fail_first(acceptor, [errno.EMFILE])
                new = await stack.enter_async_context(waiting(server))
                await until(calls)
                assert phase_of(server) is Phase.STARVED
                await old.close()
                assert (await new.ask(request(f"/{number}"))).body == f"/{number}".encode()
        assert asyncio.get_running_loop().time() - began < 0.9
    assert caplog.text.count("accepting pauses") == 1


@on_both_loops
async def test_a_shortage_at_the_limit(impatient: None) -> None:
    async with Server(hello, config=limited(1)) as server:
        calls = fail_first(acceptor_of(server), [errno.EMFILE])
        async with waiting(server) as first:
            await until(calls)
            assert (await first.ask(request("/1"))).body == b"/1"
            assert phase_of(server) is Phase.FULL
            async with waiting(server) as second:
                await first.close()
                assert (await second.ask(request("/2"))).body == b"/2"


def test_why_accepting_pauses_is_told_with_what_helps() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert in_words(OSError(errno.EMFILE, "")).startswith(f"no file descriptor is left of {soft}; raise RLIMIT_NOFILE")
    assert in_words(OSError(errno.ENFILE, "")) == "the system's file table is full; raise fs.file-max"
    assert in_words(OSError(errno.EINVAL, "Invalid argument")) == "Invalid argument"


STARVED = """
import asyncio, resource, sys, time
from asgiri.config.schema import Config
from asgiri.server import Server
from asgiri.sockets.bind import bind
from asgiri.config.schema import Listen
from asgiri.log import setup

setup.configure(level="info", format="text", file="-", role="test")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

async def app(scope, receive, send):
    body = b"%.3f" % time.process_time()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

listener = bind(Listen(bind="127.0.0.1:0"))
print(listener.sock.getsockname()[1], flush=True)
Server(app, listeners=[listener], config=Config(loop=sys.argv[1], lifespan="off")).run()
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_more_connections_than_the_process_may_have_descriptors(loop: str) -> None:
    with program(STARVED, loop) as (process, port), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)) for _ in range(100)]
        for client in clients:
            client.sendall(request("/"))
        assert process.stderr is not None
        first = process.stderr.readline()
        assert (
            "accepting pauses: no file descriptor is left of 64; raise RLIMIT_NOFILE (LimitNOFILE= in systemd" in first
        )
        clients.reverse()
        spent = float(answered(clients.pop()))
        began = time.monotonic()
        while clients:  # each that leaves makes room for one that waits: all get their answer in the end
            client = clients.pop()
            spent = float(answered(client))
            client.close()
        passed = time.monotonic() - began
        assert passed < 15
        assert spent < 5, "it has waited, and not spun"
        last = process.stderr.readline()
        assert "accepting goes on" in last
        process.terminate()
        process.wait(20)
        assert "accepting" not in process.stderr.read()


def answered(client: socket.socket) -> bytes:
    data = b""
    while True:
        answers, _ = parse_answers(data)
        if answers:
            return answers[0].body
        piece = client.recv(1 << 16)
        assert piece
        data += piece


# The end


@on_both_loops
async def test_a_drain_takes_over_what_there_is_room_for(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(hello, config=limited(4))
    await server.start()
    address = server.sockets[0].getsockname()
    clients = [socket.create_connection(address) for _ in range(4)]
    for client in clients:
        client.sendall(request("/queued"))
    await server.shutdown(window=0.1)
    for client in clients:
        with client:
            client.settimeout(5)
            assert answered(client) == b"/queued"
    assert "left behind" not in caplog.text


@on_both_loops
async def test_what_a_drain_takes_over_is_within_its_timeout() -> None:
    """Or the master would kill what is cut and cleans up."""
    app = Held()
    server = Server(app, config=limited(1, drain_timeout=0.3))
    await server.start()
    async with connected(server) as busy, waiting(server):  # there is never room for the second
        busy.send(request("/busy"))
        await until(lambda: app.paths)
        began = asyncio.get_running_loop().time()
        await server.shutdown(window=0.01)
        assert 0.28 < asyncio.get_running_loop().time() - began < 0.55


@on_both_loops
async def test_a_drain_waits_for_room_and_says_what_it_leaves_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asgiri.proto.drain.TAKE_OVER_SECONDS", 0.3)
    app = Held()
    server = Server(app, config=limited(1))
    await server.start()
    async with connected(server) as busy, waiting(server) as next_one, waiting(server) as last:
        busy.send(request("/busy", "Connection: close"))
        await until(lambda: app.paths)
        app.release("/next")
        next_one.send(request("/next"))
        stopping = asyncio.ensure_future(server.shutdown(window=0.05))
        await settle()
        app.release("/busy")
        assert (await busy.answer()).body == b"/busy"
        assert (await next_one.answer()).body == b"/next"
        with contextlib.suppress(ConnectionResetError):
            assert await last.rest() == b""
        await stopping
    assert "what waited to be accepted is left behind: full" in caplog.text


@on_both_loops
async def test_the_end_of_a_starved_acceptor(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(hello, config=config())
    await server.start()
    calls = fail_first(acceptor_of(server), [errno.EMFILE] * 1000)
    async with waiting(server):
        await until(calls)
        await server.shutdown(window=0)
    assert phase_of(server) is Phase.CLOSED
    assert "left behind: starved" in caplog.text
    assert calls() < 10
