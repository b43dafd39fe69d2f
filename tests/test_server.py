"""The server in this process, on real sockets, with asyncio's loop and with uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import itertools
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from asgiri.config.schema import Config, Listen, Timeouts
from asgiri.equip import loop_factory
from asgiri.errors import AppError, BindError, ConfigError
from asgiri.server import HttpProtocolVersion, Server, ServerState, http_date
from asgiri.sockets.bind import bind
from asgiri.types import Receive, Scope, Send
from tests.proto.fakes import (
    ByHand,
    Held,
    echo,
    hello,
    parse_answers,
    reply,
    request,
    run,
    settle,
    until,
    unused_port,
)
from tests.serving import LOOPS, MIB, Recorder, config, connected, on_both_loops, program, shared_of, state_of, url_of


def is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# Start and stop


@on_both_loops
async def test_async_with_and_port_0() -> None:
    app = Recorder()
    server = Server(app, port=0)
    assert state_of(server) is ServerState.NEW
    async with server:
        assert state_of(server) is ServerState.SERVING
        host, port = server.sockets[0].getsockname()
        assert host == "127.0.0.1"
        assert port > 0
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/a?b=c")
            assert (answer.status_code, answer.text) == (200, "hello")
            assert answer.headers["date"]
            assert (await client.head(f"http://127.0.0.1:{port}/")).text == ""
        assert app.lifespan == ["lifespan.startup"]
    assert state_of(server) is ServerState.STOPPED
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]
    assert is_free(port)


@pytest.mark.parametrize("loop", LOOPS)
def test_serve_until_another_thread_says_so(loop: str) -> None:
    server = Server(hello, config=config())
    thread = threading.Thread(target=lambda: run(server.serve(), loop_factory(loop)))
    thread.start()
    try:
        wait_for(lambda: state_of(server) is ServerState.SERVING)
        with httpx.Client(trust_env=False) as client:
            assert client.get(url_of(server) + "/a").text == "/a"
        assert not server.should_exit
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
    assert server.should_exit
    assert state_of(server) is ServerState.STOPPED
    server.should_exit = True  # late, and after the loop is closed: no harm


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@on_both_loops
async def test_should_exit_before_the_start() -> None:
    server = Server(hello, config=config())
    server.should_exit = True
    await server.serve()
    assert state_of(server) is ServerState.STOPPED


def test_should_exit_cannot_be_taken_back() -> None:
    with pytest.raises(ValueError, match="True only"):
        Server(hello).should_exit = False


@on_both_loops
async def test_shutdown_ends_serve() -> None:
    server = Server(hello, config=config())
    serving = asyncio.ensure_future(server.serve())
    await until(lambda: state_of(server) is ServerState.SERVING)
    await asyncio.gather(server.shutdown(), server.shutdown())
    await serving
    assert state_of(server) is ServerState.STOPPED
    await server.shutdown()


@on_both_loops
async def test_a_cancelled_serve_drains() -> None:
    server = Server(hello, config=config())
    serving = asyncio.ensure_future(server.serve())
    await until(lambda: state_of(server) is ServerState.SERVING)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert state_of(server) is ServerState.STOPPED


@on_both_loops
async def test_a_server_starts_once() -> None:
    server = Server(hello, config=config())
    async with server:
        with pytest.raises(RuntimeError, match="serving"):
            await server.start()
    with pytest.raises(RuntimeError, match="stopped"):
        await server.start()


@on_both_loops
async def test_a_failing_startup_leaves_nothing_open() -> None:
    port = unused_port()
    server = Server(Recorder(fails=True), port=port)
    with pytest.raises(AppError, match="no database"):
        await server.start()
    assert state_of(server) is ServerState.STOPPED
    assert is_free(port)
    assert not server.sockets


@on_both_loops
async def test_a_taken_port() -> None:
    app = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = Server(app, config=config("127.0.0.1:0", f"127.0.0.1:{port}", lifespan="auto"))
        with pytest.raises(BindError, match=f"127.0.0.1:{port}: the address is in use"):
            await server.start()
    assert state_of(server) is ServerState.STOPPED
    assert app.lifespan == ["lifespan.startup", "lifespan.shutdown"]
    gc.collect()  # a socket that was forgotten would warn


@on_both_loops
async def test_two_servers_in_one_loop() -> None:
    async with (
        Server(hello, port=0) as one,
        Server(echo, port=0) as two,
        connected(one) as first,
        connected(two) as second,
    ):
        assert (await first.ask(request("/one"))).body == b"/one"
        assert (await second.ask(request("/", method="POST", body=b"two"))).body == b"two"


def test_a_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="no certfile"):
        Server(hello, keyfile="key.pem")


def test_what_it_speaks() -> None:
    own = config(Listen(bind="127.0.0.1:1"), Listen(bind="127.0.0.1:2", http=("http/1.1",)))

    def spoken(version: HttpProtocolVersion) -> list[tuple[str, ...]]:
        return [listen.http for listen in Server(hello, config=own, http_version=version).config.listen]

    assert spoken(HttpProtocolVersion.AUTO) == [("h2", "http/1.1"), ("http/1.1",)]
    assert spoken(HttpProtocolVersion.HTTP_2) == [("h2",), ("h2",)]
    assert spoken(HttpProtocolVersion.HTTP_1_1) == [("http/1.1",), ("http/1.1",)]


def test_where_it_listens() -> None:
    def bind_of(**arguments: Any) -> list[str]:
        return [listen.bind for listen in Server(hello, **arguments).config.listen]

    two = config("127.0.0.1:1", "127.0.0.1:2")
    assert bind_of() == ["127.0.0.1:8000"]
    assert bind_of(port=1) == ["127.0.0.1:1"]
    assert bind_of(host="0.0.0.0") == ["0.0.0.0:8000"]
    assert bind_of(host="::1") == ["[::1]:8000"]
    assert bind_of(host="::", port=0) == ["[::]:0"]
    assert bind_of(config=two) == ["127.0.0.1:1", "127.0.0.1:2"]
    assert bind_of(config=two, port=3) == ["127.0.0.1:3"]
    with pytest.raises(ConfigError, match="host name"):
        bind_of(host="not a host")
    with pytest.raises(ConfigError, match="65535"):
        bind_of(port=65536)


def test_loop_factory() -> None:
    for name in (*LOOPS, "auto"):
        loop = loop_factory(name)()
        assert loop.__class__.__module__.startswith("asyncio" if name == "asyncio" else "uvloop")
        loop.close()


def test_a_date_is_an_imf_fixdate() -> None:
    for seconds in (0, 784111777, 951782400.9, 1735689599, 4102444800):  # RFC 9110's own; a 29th of February
        assert http_date(seconds).decode() == formatdate(int(seconds), usegmt=True)


@on_both_loops
async def test_header_fields_of_the_config_and_a_date_that_stays_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    today = ["Monday"]
    monkeypatch.setattr("asgiri.server.http_date", lambda _now: today[0].encode())
    fields = msgspec.structs.replace(
        config(timeouts=Timeouts(keep_alive=0.2)), response_headers={"X-A": "\xe9"}, server_header=True
    )
    async with Server(hello, config=fields) as server, connected(server) as client:
        first = (await client.ask(request("/"))).headers
        assert (first["x-a"], first["server"], first["date"]) == ("\xe9", "asgiri", "Monday")
        today[0] = "Tuesday"
        await until(lambda: (b"date", b"Tuesday") in server._context.default_headers)
        second = (await client.ask(request("/"))).headers
        assert {**first, "date": "Tuesday"} == second
    without = msgspec.structs.replace(config(), date_header=False)
    async with Server(hello, config=without) as server, connected(server) as client:
        assert not {"date", "server"} & set((await client.ask(request("/"))).headers)


# Drain


@on_both_loops
async def test_shutdown_finishes_what_is_running() -> None:
    app = Held()
    server = Server(app, config=config())
    await server.start()
    async with connected(server) as client:
        client.send(request("/slow"))
        await until(lambda: app.paths)
        stopping = asyncio.ensure_future(server.shutdown(window=0))
        await until(lambda: shared_of(server).draining)
        await settle()
        assert not stopping.done()
        assert state_of(server) is ServerState.DRAINING
        app.release("/slow")
        answer = await client.answer()
        assert (answer.status, answer.body, answer.closes) == (200, b"/slow", True)
        assert await client.rest() == b""
        await stopping
    assert state_of(server) is ServerState.STOPPED


@on_both_loops
async def test_idle_connections_are_answered_once_more_within_the_window() -> None:
    server = Server(hello, config=config())
    await server.start()
    async with connected(server) as asks, connected(server) as stays:
        for client in (asks, stays):
            assert not (await client.ask(request("/1"))).closes
        stopping = asyncio.ensure_future(server.shutdown(window=0.3))
        await until(lambda: shared_of(server).draining)
        began = time.monotonic()
        answer = await asks.ask(request("/2"))
        assert (answer.body, answer.closes) == (b"/2", True)
        assert await asks.rest() == b""
        assert await stays.rest() == b""
        assert time.monotonic() - began > 0.25
        await stopping
    assert state_of(server) is ServerState.STOPPED


@on_both_loops
async def test_a_connection_that_falls_idle_after_the_window_does_not_hold_the_drain_up() -> None:
    """Its answer began before the drain, so it could not say close; the peer must not be waited for all the same."""
    app = ByHand()
    server = Server(app, config=config(drain_timeout=30))
    await server.start()
    async with connected(server) as client:
        client.send(request())
        call = await app.next()
        await call.start()
        await call.body(b"one")
        await client.some(b"one")
        stopping = asyncio.ensure_future(server.shutdown(window=0.05))
        await until(server._drain._window_over.is_set)
        await settle()
        began = time.monotonic()
        await call.body(b"two", more=False)
        call.finish()
        assert not (await client.answer()).closes
        assert await client.rest() == b""
        await stopping
        assert time.monotonic() - began < 10
    assert state_of(server) is ServerState.STOPPED


@on_both_loops
async def test_connections_in_the_kernels_queue_are_served() -> None:
    server = Server(hello, config=config())
    await server.start()
    # Connected and sent before the loop gets a turn: the server knows of none of them yet.
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(30)]
    try:
        for client in clients:
            client.sendall(request("/queued"))
        await server.shutdown(window=0.1)
        for client in clients:
            client.settimeout(5)
            with client.makefile("rb") as stream:
                [answer], _ = parse_answers(stream.read())
            assert answer.body == b"/queued"
    finally:
        for client in clients:
            client.close()


@on_both_loops
async def test_a_hand_over_under_load_fails_no_request() -> None:
    """As in a reload: the socket stays open, the next server has it too, and the old one stops."""
    with contextlib.closing(bind(Listen(bind="127.0.0.1:0"))) as listener:
        address = listener.sock.getsockname()
        servers = [
            Server(hello, config=config(), listeners=[bind(Listen(bind=f"fd:{listener.sock.fileno()}"))])
            for _ in range(6)
        ]
        await servers[0].start()
        over = threading.Event()
        answered: list[bytes] = []

        def load() -> None:
            while not over.is_set():
                with socket.create_connection(address, timeout=20) as client:
                    client.sendall(request("/load"))
                    answer = client.recv(1 << 16)
                    assert answer.startswith(b"HTTP/1.1 200")
                    answered.append(answer)

        loads = [asyncio.ensure_future(asyncio.to_thread(load)) for _ in range(4)]
        for old, new in itertools.pairwise(servers):
            await new.start()
            await old.shutdown(window=0.01)
            answered.clear()
            await until(lambda: len(answered) > 20 or any(load.done() for load in loads))
        over.set()
        await asyncio.gather(*loads)
        await servers[-1].shutdown()


@on_both_loops
async def test_the_drain_timeout_cuts_a_hanging_app(caplog: pytest.LogCaptureFixture) -> None:
    app = ByHand()
    server = Server(app, config=config(drain_timeout=0.2))
    await server.start()
    async with connected(server) as client:
        client.send(request("/hang"))
        call = await app.next()
        await server.shutdown()
        assert call.cancelled
        with contextlib.suppress(ConnectionResetError):
            assert await client.rest() == b""
    assert "cut off while stopping: GET '/hang'" in caplog.text
    assert state_of(server) is ServerState.STOPPED


@on_both_loops
async def test_the_lifespan_ends_well_after_a_drain_that_took_all_of_its_time() -> None:
    hangs = asyncio.Event()
    steps: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hangs.set()
            await asyncio.Event().wait()
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for _ in range(100):  # as a pool that closes its connections
            await asyncio.sleep(0)
        steps.append("closed")
        await send({"type": "lifespan.shutdown.complete"})

    server = Server(app, config=config(drain_timeout=0.1, lifespan="auto"))
    await server.start()
    async with connected(server) as client:
        client.send(request("/"))
        await hangs.wait()
        await server.shutdown()
    assert steps == ["closed"]


@on_both_loops
async def test_an_app_that_resists_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    over = asyncio.Event()
    started = asyncio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    server = Server(stubborn, config=config(drain_timeout=0.1))
    await server.start()
    async with connected(server) as client:
        client.send(request())
        await started.wait()
        await server.shutdown()
    assert state_of(server) is ServerState.STOPPED
    over.set()
    await until(lambda: not shared_of(server).sessions)


@on_both_loops
async def test_cut_is_quick() -> None:
    app = ByHand()
    server = Server(app, config=config())
    await server.start()
    async with connected(server) as hangs, connected(server) as idle:
        hangs.send(request("/hang"))
        call = await app.next()
        began = time.monotonic()
        stopping = asyncio.ensure_future(server.shutdown())
        await settle()
        server.cut()
        await stopping
        assert time.monotonic() - began < 0.9
        assert call.cancelled
        with contextlib.suppress(ConnectionResetError):
            assert await idle.rest() == b""


@on_both_loops
async def test_cut_before_the_shutdown() -> None:
    app = ByHand()
    server = Server(app, config=config())
    await server.start()
    async with connected(server) as client:
        client.send(request("/hang"))
        await app.next()
        server.cut()
        async with asyncio.timeout(5):
            await server.shutdown()


@on_both_loops
async def test_background_work_is_waited_for() -> None:
    app = ByHand()
    server = Server(app, config=config())
    await server.start()
    async with connected(server) as client:
        client.send(request("/", "Connection: close"))
        call = await app.next()
        await call.start()
        await call.body(b"done", more=False)
        assert (await client.answer()).body == b"done"
    await until(lambda: not shared_of(server).connections)
    stopping = asyncio.ensure_future(server.shutdown())
    await until(lambda: shared_of(server).draining)
    await settle()
    assert not stopping.done()
    call.finish()
    await stopping
    assert not call.cancelled


# Addresses


@on_both_loops
async def test_scope_of_tcp() -> None:
    app = Recorder()
    async with Server(app, port=0) as server, connected(server) as client:
        await client.ask(request("/"))
        assert app.scopes[0]["server"] == server.sockets[0].getsockname()
        assert app.scopes[0]["client"] == client._writer.get_extra_info("sockname")


@on_both_loops
async def test_scope_of_ipv6() -> None:
    app = Recorder()
    async with Server(app, host="::1", port=0) as server, connected(server) as client:
        await client.ask(request("/"))
        assert app.scopes[0]["server"] == server.sockets[0].getsockname()[:2]
        assert app.scopes[0]["client"] == client._writer.get_extra_info("sockname")[:2]
        assert app.scopes[0]["client"][0] == "::1"


@on_both_loops
async def test_any_ipv6_address_serves_ipv4_too() -> None:
    app = Recorder()
    async with Server(app, host="::", port=0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connected(server, "127.0.0.1") as client:
            await client.ask(request("/"))
            assert app.scopes[0]["client"] == client._writer.get_extra_info("sockname")
        async with connected(server, "::1") as client:
            await client.ask(request("/"))
    assert app.scopes[0]["client"][0] == "127.0.0.1"
    assert app.scopes[0]["server"] == ("127.0.0.1", port)
    assert app.scopes[1]["server"] == ("::1", port)


@on_both_loops
async def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    app = Recorder()
    server = Server(app, config=config(Listen(bind=f"unix:{path}", mode=0o660)))
    async with server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with connected(server) as client:
            assert (await client.ask(request("/"))).body == b"hello"
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
            assert (await http.get("http://asgiri.test/")).text == "hello"
        assert app.scopes[0]["client"] is None
        assert app.scopes[0]["server"] == (str(path), None)
    assert not path.exists()


@on_both_loops
async def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with Server(hello, config=config(f"unix:{path}")) as server:
        async with connected(server) as client:
            assert (await client.ask(request("/"))).body == b"/"
        with pytest.raises(BindError, match="a live server is listening there"):
            await Server(hello, config=config(f"unix:{path}")).start()
        async with connected(server) as client:
            assert (await client.ask(request("/still"))).body == b"/still"
    assert not path.exists()


@on_both_loops
async def test_the_file_of_a_given_unix_listener_is_its_binders(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listener = bind(Listen(bind=f"unix:{path}"))
    async with Server(hello, listeners=[listener], config=config()) as server, connected(server) as client:
        assert (await client.ask(request("/"))).body == b"/"
    assert path.exists()
    listener.close()
    assert not path.exists()


@on_both_loops
async def test_several_listeners(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    async with Server(hello, config=config("127.0.0.1:0", f"unix:{path}", "[::1]:0")) as server:
        assert [sock.family for sock in server.sockets] == [socket.AF_INET, socket.AF_UNIX, socket.AF_INET6]
        for sock in server.sockets:
            with socket.socket(sock.family) as client:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, sock.getsockname())
                await asyncio.get_running_loop().sock_sendall(client, request("/", version="1.0"))
                assert await asyncio.get_running_loop().sock_recv(client, 100)
    assert not path.exists()


# Memory and backpressure


def resident() -> int:
    """This process's resident size in bytes."""
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@on_both_loops
async def test_an_upload_to_a_slow_app_stays_small() -> None:
    size = 64 * MIB
    most = 0

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal most
        taken = 0
        while taken < size:
            for _ in range(20):
                await asyncio.sleep(0)
            message = await receive()
            assert message["type"] == "http.request"
            taken += len(message["body"])
            most = max(most, resident())
        await reply(send, b"%d" % taken)

    async with Server(slow, config=config()) as server, connected(server) as client:
        piece = bytes(1 << 18)
        before = resident()
        client.send(request("/", f"Content-Length: {size}", method="POST"))
        for _ in range(size // len(piece)):
            client.send(piece)
            await client.drain()
        assert (await client.answer()).body == b"%d" % size
    assert most - before < 32 * MIB


@on_both_loops
async def test_a_large_answer_waits_for_a_client_that_does_not_read() -> None:
    sent = 0
    piece = bytes(MIB)

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        for _ in range(64):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            sent += len(piece)
        await send({"type": "http.response.body", "body": b""})

    async with Server(large, config=config()) as server, connected(server) as client:
        before = resident()
        client.send(request("/"))
        await until(lambda: any(connection._writable for connection in shared_of(server).connections))
        quiet, last = 0, -1
        while quiet < 50:  # the kernel takes what its buffers hold, and then no more
            quiet, last = (quiet + 1, last) if sent == last else (0, sent)
            await asyncio.sleep(0.002)
        assert sent < 32 * MIB
        assert resident() - before < 32 * MIB
        assert await client.skip_rest() > 64 * MIB
        assert sent == 64 * MIB


@pytest.mark.parametrize("how", ["close", "reset"])
@on_both_loops
async def test_a_client_that_leaves_in_the_middle_of_the_answer(how: str) -> None:
    raised: list[BaseException] = []
    heard: list[str] = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
                await asyncio.sleep(0)
        except OSError as error:
            raised.append(error)
        heard.append((await receive())["type"])

    async with Server(endless, config=config()) as server:
        async with connected(server) as client:
            client.send(request("/"))
            await client.some(b"HTTP/1.1 200")
            if how == "reset":
                client.reset()
        await until(lambda: shared_of(server).quiet)
    assert isinstance(raised[0], OSError)
    assert heard == ["http.disconnect"]


@on_both_loops
async def test_an_answer_before_the_upload_reaches_a_client_that_sends_on() -> None:
    """Closing at once would reset the connection and lose the answer (RFC 9112 section 9.6)."""

    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"too much", 413)

    async with Server(refuses, config=config()) as server, connected(server) as client:
        client.send(request("/", f"Content-Length: {64 * MIB}", method="POST"))
        for _ in range(4):
            client.send(bytes(MIB))
            await client.drain()
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"too much")
        assert await client.rest() == b""


@on_both_loops
async def test_resets_at_bad_moments_are_nobodys_error() -> None:
    """What an upload's reset meets: reading, discarding, lingering. The loop must hear of no error of ours."""

    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"early")

    async with Server(early, config=config()) as server:
        for size in (0, 100, 1 << 16, 200_000, 300_000, 600_000):
            for _ in range(5):
                async with connected(server) as client:
                    client.send(request("/", f"Content-Length: {size + 300_000}", method="POST") + bytes(size))
                    await client.some(b"early")
                    client.send(bytes(280_000))
                    client.reset()
        await until(lambda: shared_of(server).quiet)


@on_both_loops
async def test_a_reset_while_we_do_not_read() -> None:
    app = ByHand()
    async with Server(app, config=config()) as server:
        for _ in range(5):
            async with connected(server) as client:
                client.send(request("/", "Content-Length: 600000", method="POST") + bytes(300_000))
                call = await app.next()
                await until(lambda: not any(one.transport.is_reading() for one in shared_of(server).connections))
                client.reset()
                await settle()
                with contextlib.suppress(OSError):
                    await call.reply(b"late", 413)
                call.finish()
            await until(lambda: shared_of(server).quiet)


# The sweep, with a real clock


@on_both_loops
async def test_timeouts_with_a_real_clock() -> None:
    times = Timeouts(keep_alive=0.1, request_head=0.1, request_body=0.1)
    async with Server(echo, config=config(timeouts=times)) as server:
        async with connected(server) as client:
            await client.ask(request("/"))
            assert await client.rest() == b"", "keep_alive"
        async with connected(server) as client:
            client.send(b"GET / HT")
            assert (await client.answer()).status == 408
        async with connected(server) as client:
            client.send(request("/", "Content-Length: 5", method="POST") + b"1")
            assert (await client.answer()).status == 408


@on_both_loops
async def test_a_stalled_reader_is_cut_off() -> None:
    app = ByHand()
    async with Server(app, config=config(timeouts=Timeouts(write=0.2))) as server, connected(server) as client:
        client.send(request("/"))
        call = await app.next()
        await call.start()
        with pytest.raises(OSError, match="disconnected"):
            await call.body(bytes(64 * MIB))
        call.finish()
        await until(lambda: shared_of(server).quiet)


@on_both_loops
async def test_a_defect_in_one_connection_does_not_end_the_sweep() -> None:
    class Broken:  # no Connection: where that is compiled, nothing else inherits from it
        def check(self, now: float) -> None:
            raise KeyError("a defect")

    heard: list[BaseException | None] = []
    loop = asyncio.get_running_loop()
    times = Timeouts(keep_alive=0.1)
    async with Server(hello, config=config(timeouts=times)) as server:
        loop.set_exception_handler(lambda _, context: heard.append(context.get("exception")))
        broken: Any = Broken()
        shared_of(server).connections.add(broken)
        async with connected(server) as client:
            await client.ask(request("/"))
            await until(lambda: heard)
            shared_of(server).connections.discard(broken)
            assert await client.rest() == b"", "the other's timeout still holds"
    assert isinstance(heard[0], KeyError)


# run()


RUN = """
import asyncio, sys
from asgiri.config.schema import Config, Listen, Workers
from asgiri.server import Server
from asgiri.sockets.bind import bind

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    if scope["path"] == "/hang":
        await asyncio.Event().wait()
    while (message := await receive())["more_body"]:
        pass
    await send({"type": "http.response.body", "body": b"done"})

listener = bind(Listen(bind="127.0.0.1:0"))
print(listener.sock.getsockname()[1], flush=True)
Server(app, listeners=[listener], config=Config(loop=sys.argv[1], lifespan="off")).run()
"""


@contextlib.contextmanager
def running(loop: str) -> Iterator[tuple[subprocess.Popen[str], socket.socket]]:
    """A process in ``Server.run()`` and a connection to it."""
    with program(RUN, loop) as (process, port), socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        yield process, client


def receive_until(client: socket.socket, enough: bytes) -> bytes:
    data = b""
    while enough not in data:
        piece = client.recv(1 << 16)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_finishes_a_request_on_a_signal(loop: str, number: signal.Signals) -> None:
    with running(loop) as (process, client):
        client.sendall(request("/", "Content-Length: 1", method="POST"))
        receive_until(client, b"begun")
        process.send_signal(number)
        wait_for(functools.partial(is_free, client.getpeername()[1]))  # it drains
        client.sendall(b"x")
        receive_until(client, b"0\r\n\r\n")
        client.close()
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("numbers", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]])
def test_run_is_quick_when_told_so(loop: str, numbers: list[signal.Signals]) -> None:
    with running(loop) as (process, client):
        client.sendall(request("/hang"))
        receive_until(client, b"begun")
        port = client.getpeername()[1]
        for number in numbers:
            process.send_signal(number)
            wait_for(functools.partial(is_free, port))
        assert process.wait(5) == 0


STUCK = """
import asyncio, sys
from asgiri.config.schema import Config, Listen
from asgiri.server import Server
from asgiri.sockets.bind import bind

async def app(scope, receive, send):
    if scope["type"] == "http":
        print("serving", flush=True)
        return
    for step in ("startup", "shutdown"):
        await receive()
        print(step, flush=True)
        if step == sys.argv[2]:
            await asyncio.Event().wait()
        await send({"type": f"lifespan.{step}.complete"})

listener = bind(Listen(bind="127.0.0.1:0"))
print(listener.sock.getsockname()[1], flush=True)
Server(app, listeners=[listener], config=Config(loop=sys.argv[1])).run()
"""


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("step", "numbers"),
    [
        ("startup", [signal.SIGTERM]),
        ("startup", [signal.SIGINT]),
        ("shutdown", [signal.SIGTERM, signal.SIGQUIT]),
        ("shutdown", [signal.SIGINT, signal.SIGINT]),
    ],
)
def test_a_stuck_lifespan_does_not_hold_run(loop: str, step: str, numbers: list[signal.Signals]) -> None:
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, loop, step],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = iter(process.stdout)
            port = int(next(said))
            assert next(said) == "startup\n"
            if step == "shutdown":
                with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                    client.sendall(request("/", "Connection: close"))
                    assert next(said) == "serving\n"
            process.send_signal(numbers[0])
            if step == "shutdown":
                assert next(said) == "shutdown\n"
                process.send_signal(numbers[1])
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_run_serves_from_a_thread_that_is_not_the_main_one() -> None:
    server = Server(hello, port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.state is ServerState.SERVING)
        host, port = server.sockets[0].getsockname()
        assert httpx.get(f"http://{host}:{port}/").status_code == 200
    finally:
        server.should_exit = True
        thread.join(20)
    assert server.state is ServerState.STOPPED


@pytest.mark.parametrize("loop", LOOPS)
def test_an_answer_that_ends_with_the_connection_cannot_be_taken_for_whole(loop: str) -> None:
    """Without a length and without chunks only a reset tells a broken answer from a whole one."""

    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError("the other half")

    async def ask() -> None:
        async with Server(breaks, port=0, config=Config(lifespan="off")) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(ask())


WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def remembers(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what the context knew before this request, and leaves its own name in it."""
    before = WHO.get()
    WHO.set(scope["path"])
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": before.encode()})


@on_both_loops
async def test_no_request_sees_the_context_of_another() -> None:
    async with Server(remembers, config=config()) as server, connected(server) as client:
        size = 1 << 20  # enough to pause the reading, which the app's own task then resumes
        client.send(request("/upload", f"Content-Length: {size}", method="POST") + bytes(size))
        assert (await client.answer()).body == b"nobody"
        client.send(request("/after"))
        assert (await client.answer()).body == b"nobody"
        client.send(request("/slow", "Content-Length: 2", method="POST") + b"a")
        await until(lambda: shared_of(server).sessions)
        client.send(b"b" + request("/behind", "Connection: close"))
        answers, _ = parse_answers(await client.rest())
        assert [answer.body for answer in answers] == [b"nobody", b"nobody"]


@on_both_loops
async def test_a_peer_that_resets_is_seen_however_much_it_has_left_behind() -> None:
    async def polls(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    timeouts = Timeouts(keep_alive=0.2)  # so that the sweep comes often
    async with Server(polls, config=config(timeouts=timeouts)) as server:
        loop = asyncio.get_running_loop()
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.setblocking(False)
            await loop.sock_sendall(sock, request("/wait") + bytes(1 << 19))
            await until(lambda: shared_of(server).sessions)
        await until(lambda: shared_of(server).quiet)


@on_both_loops
async def test_an_answer_that_is_cut_by_a_timeout_cannot_be_taken_for_whole() -> None:
    async def drips(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await asyncio.Event().wait()

    async with Server(drips, config=config(timeouts=Timeouts(request=0.1))) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@on_both_loops
async def test_a_blocked_loop_stops_the_clock_of_the_timeouts() -> None:
    quick = config(timeouts=Timeouts(request_head=0.2))  # a sweep each 50 ms
    async with Server(hello, config=quick) as server:
        shared = shared_of(server)
        await until(lambda: shared.now > 0)
        behind = asyncio.get_running_loop().time() - shared.now
        time.sleep(0.6)  # an application does not give the loop back
        seen = shared.now
        await until(lambda: shared.now > seen)
        assert asyncio.get_running_loop().time() - shared.now > behind + 0.3
