"""A server behind proxies that speak the PROXY protocol, in this process and on real sockets, on both loops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from asgiri.config.schema import Config, Limits, Listen, Proxy, Reload, Timeouts, Tls
from asgiri.metrics.catalogue import metric
from asgiri.proto import secure
from asgiri.proto.announced import WARNING_SECONDS, Tally
from asgiri.server import Post, Server
from asgiri.sockets.bind import bind
from asgiri.sockets.listener import Listener
from tests.codec.proxy_headers import FULL_TLS, INET, INET6, UNIX, inet, tlv, unix, v1, v2
from tests.http2_client import Http2Peer
from tests.metrics.metered import Metered
from tests.pki import Pki
from tests.proto.fakes import Held, request, settle, until
from tests.serving import Client, Recorder, config, on_both_loops, shared_of

HTTP: dict[str, Any] = {"scheme": "http", "client": ("192.0.2.7", 4711), "server": ("198.51.100.1", 443)}
NOTHING = {"authority": None, "alpn": None, "unique_id": None, "tls": None}


def behind(
    address: str = "127.0.0.1:0",
    takes: Literal["v1", "v2", "any"] = "any",
    trusted: tuple[str, ...] = ("127.0.0.0/8", "unix"),
    tls: Tls | None = None,
    **more: Any,
) -> Config:
    """A config with one listener for proxies alone."""
    made = config(Listen(bind=address, proxy_protocol=takes, tls=tls), **more)
    return msgspec.structs.replace(made, proxy=Proxy(trusted=trusted))


@contextlib.asynccontextmanager
async def arrived(server: Server, *, first: bytes = b"", tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """A connection to the server's first listener that begins with these bytes, and goes on with TLS where there is."""
    sock = socket.socket(server.sockets[0].family)
    sock.connect(server.sockets[0].getsockname())
    sock.sendall(first)
    more: dict[str, Any] = {"ssl": tls, "server_hostname": "localhost"} if tls is not None else {}
    streams = await asyncio.open_connection(sock=sock, **more)
    client = Client(*streams)
    try:
        yield client
    finally:
        await client.close()


async def scope_behind(app: Recorder, server: Server, header: bytes, tls: ssl.SSLContext | None = None) -> Any:
    async with arrived(server, first=header + (b"" if tls else request("/")), tls=tls) as client:
        if tls is not None:
            client.send(request("/"))
        assert (await client.answer()).status == 200
    return app.scopes[-1]


def refused(server: Server) -> dict[str, int]:
    """How many connections were, by why."""
    meter, one = shared_of(server).meter, metric("connections_refused")
    assert meter is not None
    counts = {reason: meter._cells[one.word(reason)] for (reason,) in one.series}
    return {reason: count for reason, count in counts.items() if count}


def open_sockets() -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum(link.startswith("socket:") for link in links)


# What the application is told


@on_both_loops
async def test_the_ends_that_the_header_names() -> None:
    app = Recorder()
    async with Server(app, config=behind()) as server:
        own = server.sockets[0].getsockname()
        cases: list[tuple[bytes, dict[str, Any]]] = [
            (v1(), HTTP),
            (v2(inet(), kind=INET), HTTP),
            (v2(inet("2001:db8::7", 1, "::1", 2), kind=INET6), {"client": ("2001:db8::7", 1), "server": ("::1", 2)}),
            (v2(unix(b"/tmp/a"), kind=UNIX), {"client": None, "server": ("/run/proxy.sock", None)}),
            (v2(unix(b"", b""), kind=UNIX), {"client": None, "server": own}),
            (v2(inet() + FULL_TLS, kind=INET), HTTP | {"scheme": "https"}),
        ]
        for header, expected in cases:
            scope = await scope_behind(app, server, header)
            assert expected.items() <= scope.items()
            assert scope["extensions"]["proxy_protocol"]["proxy"][0] == "127.0.0.1"
            assert "tls" not in scope["extensions"]


@on_both_loops
async def test_the_connection_s_own_ends_where_the_header_names_none() -> None:
    app = Recorder()
    async with Server(app, config=behind()) as server:
        for header in (b"PROXY UNKNOWN\r\n", v2(), v2(tlv(2, b"a.example")), v2(command=0x20), v2(b"?", command=0x20)):
            scope = await scope_behind(app, server, header)
            assert scope["client"][0] == "127.0.0.1"
            assert scope["server"] == server.sockets[0].getsockname()
            assert ("proxy_protocol" in scope["extensions"]) == (header[12] != 0x20)


@on_both_loops
async def test_what_else_the_header_says() -> None:
    app = Recorder()
    async with Server(app, config=behind()) as server:
        said = (await scope_behind(app, server, v1()))["extensions"]["proxy_protocol"]
        assert said == NOTHING | {"proxy": said["proxy"]}
        block = inet() + tlv(1, b"http/1.1") + tlv(2, b"a.example") + tlv(5, b"id-1") + FULL_TLS
        said = (await scope_behind(app, server, v2(block, kind=INET)))["extensions"]["proxy_protocol"]
        assert (said["alpn"], said["authority"], said["unique_id"]) == ("http/1.1", "a.example", "id-1")
        assert said["tls"] == {
            "version": "TLSv1.3",
            "cipher": "TLS_AES_128_GCM_SHA256",
            "client_cert_shown": True,
            "client_cert_verified": True,
            "client_cert_common_name": "Zoë",
        }


@on_both_loops
async def test_on_a_unix_socket(tmp_path: Path) -> None:
    app = Recorder()
    path = str(tmp_path / "s")
    async with Server(app, config=behind(f"unix:{path}")) as server:
        scope = await scope_behind(app, server, v1())
        assert scope.items() >= HTTP.items()
        assert scope["extensions"]["proxy_protocol"]["proxy"] is None
        scope = await scope_behind(app, server, v2(command=0x20))
        assert (scope["client"], scope["server"]) == (None, (path, None))


@on_both_loops
async def test_on_ipv6() -> None:
    app = Recorder()
    async with Server(app, config=behind("[::1]:0", trusted=("::1",))) as server:
        assert (await scope_behind(app, server, v1())).items() >= HTTP.items()


@pytest.mark.parametrize("by", ["aiofastnet", "loop"])
@on_both_loops
async def test_tls_begins_behind_the_header(pki: Pki, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "loop":
        monkeypatch.setattr(secure, "fast_connect", lambda: None)
    app = Recorder()
    async with Server(app, config=behind(tls=Tls(certfile=pki.certfile, keyfile=pki.keyfile))) as server:
        for header in (v1(), v2(inet() + FULL_TLS, kind=INET)):
            scope = await scope_behind(app, server, header, pki.client())
            assert scope.items() >= (HTTP | {"scheme": "https"}).items()
            assert scope["extensions"]["tls"]["tls_version"] == 0x0304
            assert "proxy_protocol" in scope["extensions"]


@pytest.mark.parametrize("by", ["aiofastnet", "loop"])
@on_both_loops
async def test_header_and_client_hello_in_one_segment(pki: Pki, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "loop":
        monkeypatch.setattr(secure, "fast_connect", lambda: None)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = pki.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    async with Server(Recorder(), config=behind(tls=Tls(certfile=pki.certfile, keyfile=pki.keyfile))) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(v2(inet(), kind=INET) + outgoing.read())
        while True:
            incoming.write(await reader.read(1 << 16))
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        writer.write(outgoing.read())
        [connection] = await connections(server)
        assert connection.peers.client == HTTP["client"]
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def connections(server: Server) -> list[Any]:
    await until(lambda: shared_of(server).connections)
    return [*shared_of(server).connections]


@on_both_loops
async def test_http2_by_prior_knowledge_behind_it() -> None:
    app = Recorder()
    async with Server(app, config=behind()) as server:
        streams = await asyncio.open_connection(*server.sockets[0].getsockname())
        streams[1].write(v2(inet(), kind=INET))
        peer = Http2Peer(*streams)
        peer.begin()
        assert (await peer.get()).status == 200
        assert app.scopes[-1]["http_version"] == "2"
        assert app.scopes[-1].items() >= HTTP.items()
        streams[1].close()
        await streams[1].wait_closed()


@on_both_loops
async def test_a_websocket_behind_it() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    fields = "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"
    asks = request("/", *fields, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    async with (
        Server(app, config=behind()) as server,
        arrived(server, first=v2(inet() + FULL_TLS, kind=INET) + asks) as client,
    ):
        await client.some(b"101 Switching")
        assert scopes[-1].items() >= (HTTP | {"scheme": "wss"}).items()
        assert "proxy_protocol" in scopes[-1]["extensions"]


@on_both_loops
async def test_header_and_pipelined_requests_byte_by_byte_and_at_once() -> None:
    app = Recorder()
    header = v2(inet() + FULL_TLS, kind=INET)
    async with Server(app, config=behind()) as server:
        async with arrived(server, first=header + request("/a") + request("/b")) as client:
            await until(lambda: len(app.scopes) == 2)
            client.half_close()
            assert (await client.rest()).count(b"200 OK") == 2
        for text in (v1(), header):
            async with arrived(server) as client:
                for byte in text + request("/c"):
                    client.send(bytes([byte]))
                    await client.drain()
                    await asyncio.sleep(0)
                assert (await client.answer()).status == 200
            assert app.scopes[-1]["client"] == HTTP["client"]


# Who is not let in


@on_both_loops
async def test_a_peer_that_is_not_trusted(caplog: pytest.LogCaptureFixture) -> None:
    app = Recorder()
    async with Server(app, post=Metered().post, config=behind(trusted=("192.0.2.1", "unix"))) as server:
        before = open_sockets()
        for number in range(1, 21):
            async with arrived(server) as client:
                with contextlib.suppress(ConnectionResetError):
                    assert await client.rest() == b""
            assert refused(server) == {"untrusted": number}
        await until(lambda: open_sockets() == before)
        assert shared_of(server).quiet
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "not in proxy.trusted are closed: 1, the last from 127.0.0.1:" in warnings[0]


@pytest.mark.parametrize(
    ("takes", "sent"),
    [
        ("any", request("/")),
        ("any", b"\x16\x03\x01\x02\x00\x01\x00"),
        ("any", b"\n"),
        ("any", bytes(70_000)),
        ("any", v1("1.2.3.4.5") + request("/")),
        ("any", v2(length=0xFFFF) + bytes(0xFFFF)),
        ("v1", v2(inet(), kind=INET) + request("/")),
        ("v2", v1() + request("/")),
    ],
    ids=["none", "TLS", "one byte", "garbage", "malformed", "oversize", "v2 for v1", "v1 for v2"],
)
@on_both_loops
async def test_no_good_header(takes: Any, sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    app = Recorder()
    async with Server(app, post=Metered().post, config=behind(takes=takes)) as server:
        before = open_sockets()
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            with contextlib.suppress(OSError):
                writer.write(sent)
                await writer.drain()
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await until(lambda: open_sockets() == before)
        assert shared_of(server).quiet
        assert refused(server) == {"proxy_header": 2}
    assert not app.scopes
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1
    assert "without a good PROXY header are closed: 1, the last from 127.0.0.1:" in caplog.text


@pytest.mark.parametrize("header", [v1(), v2(inet() + tlv(2, b"a.example"), kind=INET)], ids=["v1", "v2"])
@on_both_loops
async def test_cut_at_every_byte(header: bytes, caplog: pytest.LogCaptureFixture) -> None:
    app = Recorder()
    async with Server(app, post=Metered().post, config=behind()) as server:
        before = open_sockets()
        for at in range(len(header)):
            with socket.create_connection(server.sockets[0].getsockname()) as sock:
                sock.sendall(header[:at])
                if at % 2:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with arrived(server, first=header + request("/after")) as client:  # which is the last in the queue
            assert (await client.answer()).status == 200
        await until(lambda: open_sockets() == before)
        # One that was reset may be gone, with what it has sent, before it is accepted or read.
        assert (len(header) - 1) // 2 <= refused(server)["proxy_header"] < len(header)
        assert "before a PROXY header had begun" not in caplog.text
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1


@on_both_loops
async def test_who_only_connects_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """A health check that looks whether somebody listens."""
    async with Server(Recorder(), post=Metered().post, config=behind()) as server:
        before = open_sockets()
        for linger in (0, 1):
            with socket.create_connection(server.sockets[0].getsockname()) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", linger, 0))
                await until(lambda: shared_of(server).arriving)
            await until(lambda: open_sockets() == before)
        assert (refused(server), shared_of(server).quiet) == ({}, True)
    assert max((record.levelno for record in caplog.records), default=0) <= logging.INFO


@pytest.mark.parametrize("drips", [False, True])
@on_both_loops
async def test_the_deadline(drips: bool) -> None:
    async with Server(Recorder(), post=Metered().post, config=behind(timeouts=Timeouts(proxy_header=0.2))) as server:
        began = time.monotonic()
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            await until(lambda: shared_of(server).arriving)
            left = iter(v2(tlv(4, bytes(4000))))
            while shared_of(server).arriving:
                if drips:
                    with contextlib.suppress(OSError):
                        sock.send(bytes([next(left)]))
                await asyncio.sleep(0.005)
        assert 0.15 < time.monotonic() - began < 5
        assert refused(server) == {"proxy_header": 1}


@on_both_loops
async def test_without_a_deadline() -> None:
    app = Recorder()
    async with (
        Server(app, config=behind(timeouts=Timeouts(proxy_header=0))) as server,
        arrived(server) as client,
    ):
        await until(lambda: shared_of(server).arriving)
        await settle()
        assert (await client.ask(v1() + request("/"))).status == 200


# Counted, and ended


@on_both_loops
async def test_many_that_say_nothing_count_and_leave_nothing() -> None:
    app = Recorder()
    async with Server(app, config=behind(limits=Limits(connections=300))) as server:
        before = open_sockets()
        address = server.sockets[0].getsockname()
        silent = [socket.create_connection(address) for _ in range(350)]
        await until(lambda: shared_of(server).arriving == 300)
        await settle()
        assert shared_of(server).arriving == 300
        for sock in silent:
            sock.close()
        async with arrived(server, first=v1() + request("/")) as client:
            assert (await client.answer()).status == 200
        await until(lambda: open_sockets() == before)


@on_both_loops
async def test_a_stop_ends_what_has_no_header_yet() -> None:
    server = Server(Recorder(), config=behind(drain_timeout=5.0))
    await server.start()
    with (
        socket.create_connection(server.sockets[0].getsockname()) as silent,
        socket.create_connection(server.sockets[0].getsockname()) as half,
    ):
        half.sendall(v1()[:20])
        await until(lambda: shared_of(server).arriving == 2)
        began = time.monotonic()
        await server.shutdown(window=0.05)
        assert time.monotonic() - began < 2
        for sock in (silent, half):
            sock.settimeout(5)
            assert sock.recv(1) == b""
    assert shared_of(server).quiet


@on_both_loops
async def test_a_drain_waits_for_a_header_and_what_follows_it() -> None:
    app = Held()
    server = Server(app, config=behind())
    await server.start()
    async with arrived(server, first=v1()[:20]) as client:
        await until(lambda: shared_of(server).arriving)
        stopping = asyncio.ensure_future(server.shutdown(window=5))
        await until(lambda: shared_of(server).draining)
        client.send(v1()[20:] + request("/last"))
        await until(lambda: app.scopes)
        app.release("/last")
        answer = await client.answer()
        assert (answer.body, answer.headers["connection"]) == (b"/last", "close")
        await stopping


@on_both_loops
async def test_a_connection_that_is_handed_over_keeps_what_its_header_said() -> None:
    conf = msgspec.structs.replace(behind(), reload=Reload(enabled=True))
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    listener = bind(conf.listen[0])
    apps = Recorder(), Recorder()
    old, new = (
        Server(
            app,
            config=conf,
            listeners=[Listener(listener.listen, listener.sock.dup())],
            post=Post(transfer=pair),
        )
        for app, pair in zip(apps, (ends, (ends[0].dup(), ends[1].dup())), strict=True)
    )
    await old.start()
    headers = [
        v2(inet() + tlv(2, "ö\xff".encode()) + FULL_TLS, kind=INET),
        v1(),
        b"PROXY UNKNOWN\r\n",
        v2(command=0x20),
    ]
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(arrived(old, first=header + request("/"))) for header in headers]
        for client in clients:
            await client.answer()
        old.hold()
        await new.start()
        await old.shutdown(retiring=True)
        assert not apps[1].scopes
        for client in clients:
            assert (await client.ask(request("/"))).status == 200
        await new.shutdown(window=0)

    def told(app: Recorder) -> list[Any]:
        return sorted(
            (scope["scheme"], scope["client"], scope["server"], repr(scope["extensions"].get("proxy_protocol")))
            for scope in app.scopes
        )

    assert told(apps[1]) == told(apps[0])
    assert len({scope["client"] for scope in apps[1].scopes}) == 3
    listener.close()
    for end in (*ends, *(new._post.transfer or ())):
        end.close()


def test_what_happens_too_often_is_told_now_and_then() -> None:
    tally = Tally()
    told = [tally.tell(100.0 + second) for second in range(int(2 * WARNING_SECONDS) + 1)]
    assert [(second, times) for second, times in enumerate(told) if times] == [(0, 1), (60, 60), (120, 60)]


def test_only_who_wants_it_pays_for_it_and_the_workers_share_it() -> None:
    source = """
        import sys
        from asgiri.cli.check import preload
        from asgiri.config.schema import Config, Listen
        for takes in ("off", "v1"):
            preload(Config(listen=(Listen(bind="127.0.0.1:0", proxy_protocol=takes),)), hurry=True)
            print(*(name in sys.modules for name in ("asgiri.proto.announced", "asgiri.codec.proxy_protocol")))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(source)], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["False False", "True True"]
