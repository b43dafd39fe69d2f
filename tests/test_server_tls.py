"""A server over TLS, in this process and on real sockets: on both loops, with aiofastnet and without."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from asgiri.config.schema import Config, Limits, Listen, Timeouts, Tls
from asgiri.errors import ConfigError
from asgiri.proto import connection as proto_connection
from asgiri.proto import http11_ends, secure
from asgiri.server import Server, ServerState
from asgiri.sockets.bind import bind
from asgiri.types import Receive, Scope, Send
from tests.pki import Pki
from tests.proto.fakes import ByHand, Held, echo, hello, read_body, reply, request, settle, until
from tests.serving import MIB, Recorder, config, connected, on_both_loops, shared_of, state_of


@pytest.fixture(autouse=True, params=["aiofastnet", "loop"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who does TLS."""
    assert secure.fast_connect() is not None, "the extra test brings aiofastnet"
    if request.param == "loop":
        monkeypatch.setattr(secure, "fast_connect", lambda: None)
    return str(request.param)


T = TypeVar("T")

EXPECTED = "cut off while stopping"


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a peer does here is worth a warning, ours, asyncio's or aiofastnet's."""
    yield
    loud = [record.getMessage() for record in caplog.get_records("call") if record.levelno > logging.INFO]
    assert not [line for line in loud if not line.startswith(EXPECTED)]


def over_tls(pki: Pki, bind: str = "127.0.0.1:0", **more: object) -> Config:
    """A config with one TLS listener."""
    tls = Tls(certfile=pki.certfile, keyfile=pki.keyfile)
    return config(Listen(bind=bind, tls=tls), **more)  # type: ignore[arg-type]


def open_sockets() -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum(link.startswith("socket:") for link in links)


class Peer:
    """A client that sees TLS as it is: the end by close_notify or without, and no more read than it asks for."""

    def __init__(self, server: Server, context: ssl.SSLContext, *, rcvbuf: int = 0) -> None:
        sock = socket.socket(server.sockets[0].family)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.connect(server.sockets[0].getsockname())
        sock.setblocking(False)
        self.tls = context.wrap_socket(
            sock, server_hostname="localhost", do_handshake_on_connect=False, suppress_ragged_eofs=False
        )

    async def handshake(self) -> None:
        await until_done(self.tls.do_handshake)

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await until_done(functools.partial(self.tls.send, view)) :]

    async def read(self, size: int) -> bytes:
        """What is there, ``size`` bytes at most; empty at close_notify; OSError when the server just went."""
        try:
            return await until_done(functools.partial(self.tls.recv, size))
        except ssl.SSLZeroReturnError:
            return b""

    async def read_until(self, enough: bytes) -> bytes:
        data = b""
        while enough not in data:
            piece = await self.read(1 << 16)
            assert piece, f"the connection ended after {data!r}"
            data += piece
        return data

    def reset(self) -> None:
        self.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tls.close()

    def close(self) -> None:
        self.tls.close()


async def until_done(step: Callable[[], T]) -> T:
    """What a step of a socket that does not block returns, once it can be taken."""
    async with asyncio.timeout(20):
        while True:
            try:
                return step()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                await asyncio.sleep(0)


async def passes(server: Server, seconds: float) -> None:
    """Wait until the server's sweeps have seen so much time go by."""
    shared = shared_of(server)
    over = shared.now + seconds
    await until(lambda: shared.now > over)


@contextlib.asynccontextmanager
async def peer_of(server: Server, context: ssl.SSLContext, *, rcvbuf: int = 0) -> AsyncIterator[Peer]:
    """A client in TLS whose connection the server knows."""
    peer = Peer(server, context, rcvbuf=rcvbuf)
    try:
        await peer.handshake()
        await until(lambda: shared_of(server).connections)
        yield peer
    finally:
        peer.close()


# What the application and the client see


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@on_both_loops
async def test_scope(pki: Pki, version: str) -> None:
    app = Recorder()
    client = pki.client(alpn=("http/1.1",))
    if version == "TLSv1.2":
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    async with Server(app, config=over_tls(pki)) as server, connected(server, tls=client) as conn:
        assert (await conn.ask(request("/"))).body == b"hello"
        tls = conn._writer.get_extra_info("ssl_object")
        assert (tls.version(), tls.selected_alpn_protocol()) == (version, "http/1.1")
        [scope] = app.scopes
        assert scope["scheme"] == "https"
        assert scope["server"] == server.sockets[0].getsockname()
        assert scope["client"] == conn._writer.get_extra_info("sockname")
        assert scope["extensions"]["tls"] == {
            "server_cert": ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True)),
            "client_cert_chain": [],
            "client_cert_name": None,
            "client_cert_error": None,
            "tls_version": 0x0303 if version == "TLSv1.2" else 0x0304,
            "cipher_suite": 0xC02B if version == "TLSv1.2" else 0x1302,
        }
        sock = next(iter(shared_of(server).connections)).transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@on_both_loops
async def test_no_tls_extension_without_tls() -> None:
    app = Recorder()
    async with Server(app, config=config()) as server, connected(server) as conn:
        await conn.ask(request("/"))
        assert app.scopes[0]["scheme"] == "http"
        assert "tls" not in app.scopes[0]["extensions"]


@on_both_loops
async def test_the_arguments_put_tls_on_every_listener(pki: Pki) -> None:
    for arguments in (
        {"port": 0},
        {"config": config()},
        {"config": Config(lifespan="off"), "listeners": [bind(Listen(bind="127.0.0.1:0"))]},
    ):
        server = Server(hello, certfile=pki.certfile, keyfile=Path(pki.keyfile), **arguments)
        async with server, httpx.AsyncClient(verify=pki.client(), trust_env=False) as client:
            port = server.sockets[0].getsockname()[1]
            answer = await client.get(f"https://127.0.0.1:{port}/a")
            assert (answer.http_version, answer.text) == ("HTTP/1.1", "/a")


@on_both_loops
async def test_what_is_spoken_on_a_socket_is_the_configs_word(pki: Pki) -> None:
    """As after a reload: the listener was bound in plaintext, and the config of today says TLS."""
    listener = bind(Listen(bind="127.0.0.1:0"))
    plain = bind(Listen(bind="127.0.0.1:0"))
    both = Config(
        lifespan="off",
        listen=(
            Listen(bind="127.0.0.1:0", tls=Tls(certfile=pki.certfile, keyfile=pki.keyfile)),
            Listen(bind="127.0.0.1:0"),
        ),
    )
    async with Server(hello, config=both, listeners=[listener, plain]) as server:
        async with connected(server, tls=pki.client()) as conn:
            assert (await conn.ask(request("/a"))).body == b"/a"
        server.sockets.reverse()
        async with connected(server) as conn:
            assert (await conn.ask(request("/b"))).body == b"/b"


@on_both_loops
async def test_bad_files_are_told_before_the_app_is_started(pki: Pki) -> None:
    app = Recorder()
    server = Server(app, port=0, certfile=pki.certfile, keyfile=pki.certfile)
    with pytest.raises(ConfigError, match=r"listen\[0\]\.tls\.keyfile.*no private key"):
        await server.start()
    assert state_of(server) is ServerState.STOPPED
    assert not app.lifespan


@on_both_loops
async def test_unix_socket(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    app = Recorder()
    async with (
        Server(app, config=over_tls(pki, f"unix:{path}")) as server,
        connected(server, tls=pki.client()) as conn,
    ):
        assert (await conn.ask(request("/"))).body == b"hello"
        assert app.scopes[0]["scheme"] == "https"
        assert app.scopes[0]["server"] == (str(path), None)
        assert app.scopes[0]["extensions"]["tls"]["tls_version"] == 0x0304


@on_both_loops
async def test_a_session_is_resumed(pki: Pki) -> None:
    app = Recorder()
    client = pki.client()
    async with Server(app, config=over_tls(pki)) as server:
        async with peer_of(server, client) as first:
            await first.send(request("/"))
            await first.read_until(b"hello")
            session = first.tls.session
        second = Peer(server, client)
        second.tls.session = session
        await second.handshake()
        await second.send(request("/"))
        await second.read_until(b"hello")
        assert second.tls.session_reused
        second.close()
    assert [scope["extensions"]["tls"]["tls_version"] for scope in app.scopes] == [0x0304, 0x0304]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("arguments", [["--tlsv1.3"], ["--tls-max", "1.2"], ["--http1.0"], ["--http2"]])
@on_both_loops
async def test_curl(pki: Pki, arguments: list[str]) -> None:
    async with Server(echo, config=over_tls(pki)) as server:
        port = server.sockets[0].getsockname()[1]
        body = os.urandom(300_000)
        process = await asyncio.create_subprocess_exec(
            *["curl", "-sS", "--fail", "--max-time", "20", "--cacert", pki.ca_file, *arguments],
            *["--data-binary", "@-", f"https://localhost:{port}/", "--resolve", f"localhost:{port}:127.0.0.1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate(body)
        assert process.returncode == 0
        assert out == body


# Client certificates


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("asked", ["optional", "required"])
@on_both_loops
async def test_client_certificates(pki: Pki, asked: str, shows: bool) -> None:
    app = Recorder()
    tls = Tls(certfile=pki.certfile, keyfile=pki.keyfile, client_ca=pki.ca_file, client_certs=asked)  # type: ignore[arg-type]
    between = pki.authority.create_child_ca()
    chain, key = pki.issue("jane", "jane@asgiri.test", authority=between)
    client = pki.client((chain, key) if shows else None)
    async with Server(app, config=config(Listen(bind="127.0.0.1:0", tls=tls))) as server:
        peer = Peer(server, client)
        try:
            await peer.handshake()
            await peer.send(request("/"))
            data = await peer.read(1 << 16)
        except OSError:  # of TLS 1.3, the client's side of the handshake is over before the server has its certificate
            data = b""
        finally:
            peer.close()
        if not data:
            assert (asked, shows) == ("required", False)
            assert not app.scopes
            return
        assert data.startswith(b"HTTP/1.1 200")
        extension = app.scopes[0]["extensions"]["tls"]
    if not shows:
        assert (extension["client_cert_chain"], extension["client_cert_name"]) == ([], None)
        return
    sent = Path(chain).read_text().replace("\r", "")
    leaf, *others = extension["client_cert_chain"]
    assert sent.startswith(leaf)
    assert all(other in sent for other in others)
    assert len(others) == (1 if hasattr(ssl.SSLObject, "get_unverified_chain") else 0)
    assert extension["client_cert_name"].startswith("OU=Testing cert #")
    assert ",O=trustme v" in extension["client_cert_name"]
    assert extension["client_cert_error"] is None


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ((), ""),
        (((("countryName", "NL"),), (("organizationName", "a, b"),), (("commonName", "x"),)), r"CN=x,O=a\, b,C=NL"),
        (((("commonName", "x"), ("userId", "7")),), "CN=x+UID=7"),
        (((("domainComponent", "test"),), (("domainComponent", "asgiri"),)), "DC=asgiri,DC=test"),
        (((("emailAddress", "a@b"),), (("1.2.3", "c"),)), "1.2.3=c,emailAddress=a@b"),
        (((("commonName", ' #"+;<=>\\\0 '),),), r"CN=\ #\"\+\;\<=\>\\\00\ "),
        (((("commonName", "#1"),), (("commonName", " "),)), r"CN=\ ,CN=\#1"),
    ],
)
def test_distinguished_names(subject: tuple[tuple[tuple[str, str], ...], ...], name: str, by: str) -> None:
    assert secure.distinguished_name(subject) == name


# Handshakes that do not come about


@pytest.mark.parametrize("what", ["nothing", "garbage", "http", "half a hello", "reset", "old version", "silence"])
@on_both_loops
async def test_a_handshake_that_fails_is_the_peers_affair(
    pki: Pki, what: str, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    caplog.set_level(logging.DEBUG, "asgiri")
    times = Timeouts(tls_handshake=0.2 if what == "silence" else 10)
    async with Server(hello, config=over_tls(pki, timeouts=times)) as server:
        shared = shared_of(server)
        before = open_sockets()
        sock = socket.create_connection(server.sockets[0].getsockname())
        await until(lambda: shared.arriving)
        await settle()
        match what:
            case "nothing":
                sock.close()
            case "garbage":
                sock.sendall(bytes(1000))
            case "http":
                sock.sendall(request("/"))
            case "half a hello":
                sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
                await settle()
                sock.close()
            case "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
            case "old version":
                sock.sendall(bytes.fromhex("160301002f0100002b0302" + "00" * 32 + "00000400050035" + "0100"))
        await until(lambda: not shared.arriving)
        assert shared.quiet
        sock.close()
        await until(lambda: open_sockets() == before)
        assert "no connection was made" in caplog.text
        async with connected(server, tls=pki.client()) as conn:
            assert (await conn.ask(request("/after"))).body == b"/after"


@on_both_loops
async def test_a_handshake_that_drips_is_cut(pki: Pki) -> None:
    async with Server(hello, config=over_tls(pki, timeouts=Timeouts(tls_handshake=0.3))) as server:
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            began = time.monotonic()
            hello_bytes = iter(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
            await until(lambda: shared_of(server).arriving)
            while shared_of(server).arriving:
                with contextlib.suppress(OSError):
                    sock.send(bytes([next(hello_bytes)]))
                await asyncio.sleep(0.01)
            assert 0.2 < time.monotonic() - began < 5
        assert shared_of(server).quiet


@on_both_loops
async def test_without_a_limit_a_handshake_may_take_its_time(pki: Pki) -> None:
    async with Server(hello, config=over_tls(pki, timeouts=Timeouts(tls_handshake=0))) as server:
        peer = Peer(server, pki.client())
        await until(lambda: shared_of(server).arriving)
        await settle()
        await peer.handshake()
        await peer.send(request("/late"))
        assert b"/late" in await peer.read_until(b"/late")
        peer.close()


@on_both_loops
async def test_handshakes_count_as_connections(pki: Pki) -> None:
    async with Server(hello, config=over_tls(pki, limits=Limits(connections=2))) as server:
        shared = shared_of(server)
        address = server.sockets[0].getsockname()
        silent = [socket.create_connection(address) for _ in range(3)]
        await until(lambda: shared.arriving == 2)
        peer = Peer(server, pki.client())
        await settle()
        assert (shared.arriving, len(shared.connections)) == (2, 0)
        for sock in silent:
            sock.close()
        await peer.handshake()
        await peer.send(request("/next"))
        assert b"/next" in await peer.read_until(b"/next")
        peer.close()


# Large answers and slow readers


@pytest.mark.parametrize("shape", ["whole", "pieces"])
@on_both_loops
async def test_a_slow_reader_gets_it_all(pki: Pki, shape: str) -> None:
    """It takes longer than any timeout, the closing's too, but never as long as ``timeouts.write`` for a piece."""
    body = os.urandom(MIB) * 20

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"connection", b"close"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        step = len(body) if shape == "whole" else 100_000
        for at in range(0, len(body), step):
            more = at + step < len(body)
            await send({"type": "http.response.body", "body": body[at : at + step], "more_body": more})

    times = Timeouts(write=0.4, keep_alive=0.2)
    async with (
        Server(large, config=over_tls(pki, timeouts=times)) as server,
        peer_of(server, pki.client(), rcvbuf=1 << 16) as peer,
    ):
        shared = shared_of(server)
        await peer.send(request("/"))
        data, began = bytearray(), shared.now
        while piece := await peer.read(1 << 16):
            if len(data) // (2 * MIB) < (len(data) + len(piece)) // (2 * MIB):
                await passes(server, 0.15)
            data += piece
        assert shared.now - began > 1.2
        assert bytes(data).partition(b"\r\n\r\n")[2] == body


@on_both_loops
async def test_a_file_goes_through_tls_and_not_around_it(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(body := os.urandom(3 * MIB))

    async def sends(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.pathsend", "path": str(path)})

    async with Server(sends, config=over_tls(pki)) as server, connected(server, tls=pki.client()) as conn:
        assert (await conn.ask(request("/"))).body == body


@on_both_loops
async def test_a_stalled_reader_is_cut(pki: Pki) -> None:
    raised = asyncio.Event()

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(64):
                await send({"type": "http.response.body", "body": bytes(MIB), "more_body": True})
        except OSError:
            raised.set()

    async with (
        Server(large, config=over_tls(pki, timeouts=Timeouts(write=0.2))) as server,
        peer_of(server, pki.client()) as peer,
    ):
        await peer.send(request("/"))
        async with asyncio.timeout(10):
            await raised.wait()
        await until(lambda: shared_of(server).quiet)


@on_both_loops
async def test_a_reader_that_stalls_at_the_end_is_cut(pki: Pki) -> None:
    """The application is done and the transport closing: only the kernel knows that nothing moves."""

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, bytes(16 * MIB), 200, (b"connection", b"close"))

    async with (
        Server(large, config=over_tls(pki, timeouts=Timeouts(write=0.2))) as server,
        peer_of(server, pki.client()) as peer,
    ):
        await peer.send(request("/"))
        await until(lambda: not shared_of(server).sessions)
        async with asyncio.timeout(10):
            await until(lambda: shared_of(server).quiet)


@on_both_loops
async def test_an_upload_to_a_slow_app(pki: Pki) -> None:
    app = ByHand()
    body = os.urandom(4 * MIB)
    async with (
        Server(app, config=over_tls(pki)) as server,
        connected(server, tls=pki.client()) as conn,
    ):
        conn.send(request("/", method="POST", body=body))
        call = await app.next()
        await until(lambda: any(not one._reading for one in shared_of(server).connections))  # type: ignore[attr-defined]
        assert await read_body(call.receive) == body
        await call.reply()
        assert (await conn.answer()).status == 200


# Ends


@on_both_loops
async def test_the_end_of_an_answer_is_told_by_close_notify(pki: Pki) -> None:
    async with Server(hello, config=over_tls(pki)) as server, peer_of(server, pki.client()) as peer:
        await peer.send(request("/", "Connection: close"))
        await peer.read_until(b"\r\n\r\n/")
        assert await peer.read(10) == b"", "not SSLEOFError"


@on_both_loops
async def test_a_cut_answer_is_not_told_by_close_notify(pki: Pki) -> None:
    app = ByHand()
    server = Server(app, config=over_tls(pki, drain_timeout=0.1))
    await server.start()
    async with peer_of(server, pki.client()) as peer:
        await peer.send(request("/", version="1.0"))
        call = await app.next()
        await call.start()
        await call.body(b"half")
        await peer.read_until(b"half")
        await server.shutdown()
        with pytest.raises(OSError):  # noqa: PT011 - a reset, or an end of file without close_notify
            await peer.read(10)


@on_both_loops
async def test_a_peer_that_does_not_answer_close_notify_is_not_waited_for(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proto_connection, "LINGER_SECONDS", 0.1)
    times = Timeouts(keep_alive=0.2)
    async with Server(hello, config=over_tls(pki, timeouts=times)) as server:
        peer = Peer(server, pki.client())
        await peer.handshake()
        await peer.send(request("/", "Connection: close"))
        async with asyncio.timeout(5):
            await until(lambda: shared_of(server).quiet and not shared_of(server).arriving)
        peer.close()


@on_both_loops
async def test_a_refused_peer_has_its_time_and_then_a_clean_end(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http11_ends, "LINGER_SECONDS", 0.2)
    times = Timeouts(keep_alive=0.2)  # so that the sweep comes often
    async with (
        Server(hello, config=over_tls(pki, timeouts=times)) as server,
        peer_of(server, pki.client()) as peer,
    ):
        began = shared_of(server).now
        await peer.send(b"GARBAGE\r\n\r\n")
        assert b" 400 " in await peer.read_until(b"\r\n\r\n")
        await peer.send(b"still here")
        while await peer.read(1 << 16):
            pass
        assert shared_of(server).now - began > 0.15


@pytest.mark.parametrize("how", ["close_notify", "eof", "reset"])
@on_both_loops
async def test_a_client_that_leaves_in_the_middle_of_the_answer(pki: Pki, how: str) -> None:
    raised: list[BaseException] = []
    heard: list[str] = []

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(1 << 10), "more_body": True})
                await asyncio.sleep(0)
        except OSError as error:
            raised.append(error)
        heard.append((await receive())["type"])

    async with Server(endless, config=over_tls(pki)) as server:
        async with peer_of(server, pki.client()) as peer:
            await peer.send(request("/"))
            await peer.read_until(b"HTTP/1.1 200")
            if how == "close_notify":
                with contextlib.suppress(OSError):
                    peer.tls.unwrap()
            elif how == "reset":
                peer.reset()
        await until(lambda: shared_of(server).quiet)
    assert isinstance(raised[0], OSError)
    assert heard == ["http.disconnect"]


@on_both_loops
async def test_tls_knows_no_half_close(pki: Pki) -> None:
    """A client that says that it sends no more is taken to have gone (RFC 8446 section 6.1 would let it read on)."""
    app = ByHand()
    async with Server(app, config=over_tls(pki)) as server, peer_of(server, pki.client()) as peer:
        await peer.send(request("/"))
        call = await app.next()
        assert (await call.receive())["type"] == "http.request"
        with contextlib.suppress(OSError):
            peer.tls.unwrap()
        assert (await call.receive())["type"] == "http.disconnect"
        call.finish()
        await until(lambda: shared_of(server).quiet)


@on_both_loops
async def test_an_answer_before_the_upload_reaches_a_client_that_sends_on(pki: Pki) -> None:
    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, b"too much", 413)

    async with Server(refuses, config=over_tls(pki)) as server, peer_of(server, pki.client()) as peer:
        await peer.send(request("/", f"Content-Length: {64 * MIB}", method="POST"))
        for _ in range(8):
            await peer.send(bytes(MIB))
        assert (await peer.read_until(b"too much")).startswith(b"HTTP/1.1 413")


# Drain


@on_both_loops
async def test_a_drain_finishes_what_is_running(pki: Pki) -> None:
    app = Held()
    server = Server(app, config=over_tls(pki))
    await server.start()
    async with (
        connected(server, tls=pki.client()) as busy,
        connected(server, tls=pki.client()) as idle,
    ):
        busy.send(request("/slow"))
        await until(lambda: app.paths)
        stopping = asyncio.ensure_future(server.shutdown(window=0.3))
        await until(lambda: shared_of(server).draining)
        app.release("/idle")
        assert (await idle.ask(request("/idle"))).closes
        assert await idle.rest() == b""
        assert not stopping.done()
        app.release("/slow")
        answer = await busy.answer()
        assert (answer.body, answer.closes) == (b"/slow", True)
        assert await busy.rest() == b""
        await stopping


@on_both_loops
async def test_a_handshake_in_progress_is_finished_within_the_window(pki: Pki) -> None:
    server = Server(hello, config=over_tls(pki))
    await server.start()
    peer = Peer(server, pki.client())  # in the kernel's queue
    stopping = asyncio.ensure_future(server.shutdown(window=0.5))
    await until(lambda: shared_of(server).draining)
    await peer.handshake()
    await peer.send(request("/queued"))
    answer = await peer.read_until(b"/queued")
    assert b"connection: close" in answer.lower()
    peer.close()
    await stopping


@on_both_loops
async def test_a_handshake_that_does_not_begin_does_not_hold_the_drain_up(pki: Pki) -> None:
    server = Server(hello, config=over_tls(pki))
    await server.start()
    before = open_sockets()
    with socket.create_connection(server.sockets[0].getsockname()) as silent:
        await until(lambda: shared_of(server).arriving)
        began = time.monotonic()
        await server.shutdown(window=0.1)
        assert time.monotonic() - began < 5
        assert shared_of(server).quiet
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""
    await until(lambda: open_sockets() < before)


@on_both_loops
async def test_the_quick_stop_cuts_handshakes_that_have_only_just_come(pki: Pki) -> None:
    server = Server(hello, config=over_tls(pki))
    await server.start()
    clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(20)]
    server.cut()
    await server.shutdown()
    assert shared_of(server).quiet
    for client in clients:
        with client, contextlib.suppress(ConnectionResetError):
            client.settimeout(5)
            assert client.recv(1) == b""
