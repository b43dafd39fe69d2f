"""Files on real sockets, with asyncio's loop and with uvloop's: every byte of them, at the pace of the peer."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import hashlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext
from asgiri.codec.engines import http1_engine
from asgiri.codec.rules import HttpLimits
from asgiri.proto import files
from asgiri.proto.connection import HIGH_WATER, Shared, TimeLimits
from asgiri.proto.http11 import Http11Connection
from asgiri.types import ASGIApp, Message, Receive, Scope, Send
from tests.proto.fakes import reply, request, settle, until
from tests.serving import on_both_loops

KIB = 1 << 10
MIB = 1 << 20


class Service:
    """Connections on one listening socket, and the clock that the tests turn."""

    def __init__(self, app: ASGIApp, times: TimeLimits | None = None) -> None:
        self.shared = Shared(
            context=AppContext(app=app, extensions=HTTP_EXTENSIONS),
            http1=http1_engine("auto"),
            limits=HttpLimits(),
            times=times or TimeLimits(),
            loop=asyncio.get_running_loop(),
            now=1000.0,
        )
        self.listener: socket.socket | None = None

    def passes(self, seconds: float) -> None:
        self.shared.now += seconds
        for connection in list(self.shared.connections):
            connection.check(self.shared.now)

    @property
    def connection(self) -> Http11Connection:
        [connection] = self.shared.connections
        assert isinstance(connection, Http11Connection)
        return connection

    async def connect(self, *, buffer: int = 0) -> Client:
        """A client that is accepted; ``buffer`` is about how many bytes the kernel holds for it."""
        assert self.listener is not None
        before = set(self.shared.connections)
        sock = socket.socket(self.listener.family)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, self.listener.getsockname())
        await until(lambda: self.shared.connections - before)
        if buffer:
            [connection] = self.shared.connections - before
            ours = connection.transport.get_extra_info("socket")
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        return Client(sock)


@asynccontextmanager
async def serving(app: ASGIApp, *, at: Path | None = None, times: TimeLimits | None = None) -> AsyncIterator[Service]:
    """On TCP, or on a unix socket ``at`` a path; in the end nothing may be open."""
    service = Service(app, times)
    loop = service.shared.loop
    service.listener = sock = socket.socket(socket.AF_UNIX if at else socket.AF_INET)
    sock.bind(str(at) if at else ("127.0.0.1", 0))
    make = functools.partial(Http11Connection, service.shared)
    server = await (loop.create_unix_server(make, sock=sock) if at else loop.create_server(make, sock=sock))
    try:
        yield service
        await until(lambda: service.shared.quiet)
    finally:
        server.close()
        await settle()


class Client:
    """A client that reads what it is told to, and no more."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.left = b""

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def some(self, most: int = MIB) -> bytes:
        """What is here of the next ``most`` bytes; empty at the end of the connection."""
        if self.left:
            data, self.left = self.left[:most], self.left[most:]
            return data
        async with asyncio.timeout(20):
            return await asyncio.get_running_loop().sock_recv(self.sock, most)

    async def head(self) -> dict[str, str]:
        """The fields of the next head, and its status by the name ``status``."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = await self.some(4 * KIB)
            assert more, data
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        self.left = rest + self.left
        line, *fields = head.decode("latin-1").split("\r\n")
        named = dict(field.lower().split(": ", 1) for field in fields)
        return {"status": line.split(" ")[1], **named}

    async def body(self, size: int, *, step: int = MIB) -> str:
        """The digest of the next ``size`` bytes: not they themselves, for the memory is looked at."""
        digest = hashlib.sha256()
        while size:
            data = await self.some(min(step, size))
            assert data, f"the connection ended {size} bytes too early"
            digest.update(data)
            size -= len(data)
        return digest.hexdigest()

    async def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self.some(size - len(data))
            assert more, data
            data += more
        return data

    async def is_reset(self) -> None:
        """What comes does not end like something whole."""
        while True:
            try:
                data = await self.some()
            except ConnectionResetError:
                return
            assert data, "the connection ended in order"

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def made(path: Path, size: int) -> str:
    """A file in which no stretch is like another; its digest."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(0, size, MIB):
            piece = os.urandom(min(MIB, size - number))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("files") / "large"
    return path, made(path, 50 * MIB)


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def open_files_of(service: Service) -> int:
    """Before the first request; the loop and the executor open what they need with the first connection."""
    await asyncio.get_running_loop().run_in_executor(None, os.getpid)
    (await service.connect()).close()
    await until(lambda: service.shared.quiet)
    return open_files()


def resident() -> int:
    """This process's resident size in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmRSS")]
    return int(line.split()[1]) * KIB


def sends(path: Path, *headers: tuple[bytes, bytes]) -> ASGIApp:
    """Answers with the file, by its path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.pathsend", "path": str(path)})

    return app


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each call of sendfile(2) has sent."""
    sent: list[int] = []
    real = os.sendfile

    def sendfile(out: int, fd: int, offset: int, count: int) -> int:
        size = real(out, fd, offset, count)
        sent.append(size)
        return size

    monkeypatch.setattr(os, "sendfile", sendfile)
    return sent


# Whole


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@on_both_loops
async def test_a_large_file_comes_as_it_is_and_costs_no_memory(
    unix: bool, large: tuple[Path, str], tmp_path: Path, calls: list[int]
) -> None:
    path, digest = large
    async with serving(sends(path), at=tmp_path / "socket" if unix else None) as service:
        client = await service.connect()
        before, files_before = resident(), open_files()
        most = 0
        for _ in range(2):
            await client.send(request())
            head = await client.head()
            assert (head["status"], head["content-length"]) == ("200", str(50 * MIB))
            got = hashlib.sha256()
            left = 50 * MIB
            while left:
                data = await client.some()
                assert data
                got.update(data)
                left -= len(data)
                most = max(most, resident())
            assert got.hexdigest() == digest
        assert sum(calls) == 100 * MIB, "by the kernel, all of it"
        assert max(calls) <= files.AT_ONCE
        assert most - before < 16 * MIB
        assert open_files() == files_before
        client.close()


@on_both_loops
async def test_a_slow_reader_gets_all_of_it_and_nobody_waits_for_him(large: tuple[Path, str], calls: list[int]) -> None:
    path, _ = large

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (sends(path)(scope, receive, send) if scope["path"] == "/file" else reply(send))

    async with serving(app) as service:
        slow, quick = await service.connect(buffer=16 * KIB), await service.connect()
        await slow.send(request("/file"))
        await slow.head()
        reading = asyncio.ensure_future(slow.body(4 * MIB, step=8 * KIB))
        asked = 0
        while not reading.done():
            await quick.send(request("/"))
            assert (await quick.head())["status"] == "200"
            assert await quick.exactly(5) == b"hello"
            asked += 1
        assert asked > 20
        with path.open("rb") as file:
            assert await reading == hashlib.sha256(file.read(4 * MIB)).hexdigest()
        assert sum(calls) < 6 * MIB, "no more than the peer takes"
        quick.close()
        slow.close()


@on_both_loops
async def test_a_fast_reader_leaves_others_their_turn(large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    seen: list[int] = []

    def takes_all(out: int, fd: int, offset: int, count: int) -> int:
        seen.append(turns)
        return count

    monkeypatch.setattr(os, "sendfile", takes_all)
    async with serving(sends(large[0])) as service:
        client = await service.connect()
        await client.send(request())
        while len(seen) < 50 * MIB // files.AT_ONCE:
            await asyncio.sleep(0)
            turns += 1
        client.close()
    assert len(set(seen)) == len(seen)


@on_both_loops
async def test_stretches_in_chunks(large: tuple[Path, str], calls: list[int]) -> None:
    path, _ = large
    stretches = [(1, 300 * KIB), (49 * MIB, 10 * MIB), (7 * MIB + 3, 1), (1000, 2 * MIB)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with path.open("rb") as file:
            for offset, count in stretches:
                part = {"file": file, "offset": offset, "count": count, "more_body": True}
                await send({"type": "http.response.zerocopysend", **part})
                await send({"type": "http.response.body", "body": b"-", "more_body": True})
            assert file.read(0) == b"", "it stays the app's, and open"
        await send({"type": "http.response.body"})

    async with serving(app) as service:
        client = await service.connect(buffer=64 * KIB)
        await client.send(request())
        assert (await client.head())["transfer-encoding"] == "chunked"
        got = b""
        while size := int(await line(client), 16):
            got += await client.exactly(size)
            assert await line(client) == b""
        assert await line(client) == b""
        content = path.read_bytes()
        assert got == b"".join(content[offset : offset + count] + b"-" for offset, count in stretches)
        assert sum(calls) == len(got) - 4
        client.close()


async def line(client: Client) -> bytes:
    data = b""
    while not data.endswith(b"\r\n"):
        data += await client.exactly(1)
    return data[:-2]


@on_both_loops
async def test_a_range(large: tuple[Path, str], calls: list[int]) -> None:
    path, _ = large
    fd = os.open(path, os.O_RDONLY)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"1000000")]
        await send({"type": "http.response.start", "status": 206, "headers": headers})
        await send({"type": "http.response.zerocopysend", "file": fd, "offset": 12345, "count": 1_000_000})

    async with serving(app) as service:
        client = await service.connect()
        await client.send(request() * 2)
        for _ in range(2):
            assert (await client.head())["content-length"] == "1000000"
            assert await client.exactly(1_000_000) == os.pread(fd, 1_000_000, 12345)
        assert sum(calls) == 2_000_000
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        client.close()
    os.close(fd)


@on_both_loops
async def test_files_and_bodies_in_one_pipeline(tmp_path: Path, calls: list[int]) -> None:
    """What is written before and behind a file must not overtake it."""
    path = tmp_path / "file"
    digest = made(path, 700 * KIB)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/file":
            await sends(path)(scope, receive, send)
        else:
            await reply(send, b"x" * 200 * KIB)

    async with serving(app) as service:
        client = await service.connect(buffer=32 * KIB)
        await client.send((request("/file") + request("/") + request("/file")) * 3)
        for _ in range(3):
            for size, expected in ((700 * KIB, digest), (200 * KIB, None), (700 * KIB, digest)):
                assert int((await client.head())["content-length"]) == size
                got = await client.body(size, step=16 * KIB)
                assert got == (expected or hashlib.sha256(b"x" * size).hexdigest())
        transport = service.connection.transport
        assert transport.get_write_buffer_limits() == (HIGH_WATER // 4, HIGH_WATER), "as they were before"
        client.close()


@on_both_loops
async def test_a_client_that_half_closes_gets_all_of_it(large: tuple[Path, str]) -> None:
    path, digest = large
    async with serving(sends(path)) as service:
        client = await service.connect()
        await client.send(request())
        client.sock.shutdown(socket.SHUT_WR)
        await client.head()
        assert await client.body(50 * MIB) == digest
        assert await client.some() == b""
        client.close()


@on_both_loops
async def test_a_head_request_keeps_the_connection(large: tuple[Path, str], calls: list[int]) -> None:
    path, _ = large
    async with serving(sends(path)) as service:
        client = await service.connect()
        for _ in range(3):
            await client.send(request(method="HEAD"))
            assert (await client.head())["content-length"] == str(50 * MIB)
            assert not client.left
        assert not calls
        client.close()


# By reading


@pytest.mark.parametrize("reason", ["no socket", "no descriptor", "not this file", "not any more"])
@on_both_loops
async def test_where_the_kernel_cannot_the_file_is_read(
    reason: str, large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = large
    real, calls = os.sendfile, 0

    def refuses(out: int, fd: int, offset: int, count: int) -> int:
        nonlocal calls
        calls += 1
        if reason == "not any more" and calls < 5:
            return real(out, fd, offset, count)
        raise OSError(errno.EINVAL, "not this file")

    def no_more(fd: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "sendfile", refuses)
    if reason == "no socket":
        monkeypatch.setattr(files, "plain_socket", lambda transport: None)
    elif reason == "no descriptor":
        monkeypatch.setattr(os, "dup", no_more)
    async with serving(sends(path)) as service:
        client = await service.connect()
        before, most = resident(), 0
        await client.send(request())
        await client.head()
        got, left = hashlib.sha256(), 50 * MIB
        while left:
            data = await client.some()
            assert data
            got.update(data)
            left -= len(data)
            most = max(most, resident())
        assert got.hexdigest() == digest
        assert most - before < 16 * MIB
        client.close()
    assert calls == {"no socket": 0, "no descriptor": 0, "not this file": 1, "not any more": 5}[reason]


def test_tls_is_not_plain() -> None:
    class Transport(asyncio.Transport):
        pass

    with socket.socket() as sock:
        assert files.plain_socket(Transport({})) is None
        assert files.plain_socket(Transport({"socket": sock, "sslcontext": object()})) is None
        assert files.plain_socket(Transport({"socket": sock, "ssl_object": object()})) is None
        plain = files.plain_socket(Transport({"socket": sock}))
        assert plain is not None
        assert os.fstat(plain).st_ino == os.fstat(sock.fileno()).st_ino
        os.close(plain)
    assert files.plain_socket(Transport({"socket": sock})) is None, "it is closed"


@on_both_loops
async def test_through_tls_a_file_is_read(large: tuple[Path, str], calls: list[int]) -> None:
    path, digest = large
    authority = trustme.CA()
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)

    service = Service(sends(path))
    make = functools.partial(Http11Connection, service.shared)
    server = await service.shared.loop.create_server(make, "127.0.0.1", 0, ssl=ours)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=theirs, server_hostname="localhost")
    before, most = resident(), 0
    writer.write(request())
    await reader.readuntil(b"\r\n\r\n")
    got, left = hashlib.sha256(), 50 * MIB
    while left:
        data = await reader.read(min(MIB, left))
        assert data
        got.update(data)
        left -= len(data)
        most = max(most, resident())
    assert got.hexdigest() == digest
    assert not calls
    assert most - before < 16 * MIB
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    await until(lambda: service.shared.quiet)
    server.close()
    await settle()


# Not whole


@pytest.mark.parametrize("by_kernel", [True, False], ids=["sendfile", "reading"])
@pytest.mark.parametrize("how", ["close", "reset"])
@on_both_loops
async def test_a_client_that_is_cut_leaves_nothing_open(
    how: str,
    by_kernel: bool,
    large: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not by_kernel:
        monkeypatch.setattr(files, "plain_socket", lambda transport: None)
    raised: list[OSError] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(OSError, match="disconnected") as caught:
            await sends(large[0])(scope, receive, send)
        raised.append(caught.value)

    async with serving(app) as service:
        before = await open_files_of(service)
        for _ in range(3):
            client = await service.connect(buffer=32 * KIB)
            await client.send(request())
            await client.head()
            await client.exactly(100 * KIB)
            await until(lambda: service.connection._writable)
            if how == "reset":
                client.reset()
            else:
                client.close()
            await until(lambda: service.shared.quiet)
            await until(lambda: open_files() == before)
    assert len(raised) == 3
    assert not caplog.text


@on_both_loops
async def test_a_reset_is_seen_although_nothing_is_read(large: tuple[Path, str]) -> None:
    """The next request in the pipeline is more than we hold, so the transport does not hear of the reset by itself."""
    async with serving(sends(large[0])) as service:
        client = await service.connect(buffer=32 * KIB)
        await client.send(request() + request("/", f"X-Padding: {'x' * 8 * KIB}") * 20)
        await client.head()
        await until(lambda: service.connection._writable and not service.connection._reading)
        client.reset()
        await until(lambda: service.shared.quiet)


@on_both_loops
async def test_a_stalled_reader_is_cut_off_and_a_slow_one_is_not(large: tuple[Path, str]) -> None:
    async with serving(sends(large[0])) as service:
        client = await service.connect(buffer=32 * KIB)
        await client.send(request())
        await client.head()
        await until(lambda: service.connection._writable)
        for _ in range(8):
            service.passes(50)
            assert not service.connection.transport.is_closing()
            before = service.connection._written
            await asyncio.gather(client.exactly(256 * KIB), until(lambda: service.connection._written > before))  # noqa: B023
            await until(lambda: service.connection._writable)
        service.passes(1)
        service.passes(59)
        assert not service.connection.transport.is_closing()
        connection = service.connection
        service.passes(2)
        assert connection.transport.is_closing()
        await until(lambda: service.shared.quiet)
        await client.is_reset()
        client.close()


@on_both_loops
async def test_an_app_that_gives_up_on_its_file_cuts_the_connection(
    large: tuple[Path, str], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(sends(large[0])(scope, receive, send))
        await until(lambda: service.connection._writable)
        sending.cancel()
        await asyncio.wait([sending])
        with pytest.raises(OSError, match="disconnected"):
            await send({"type": "http.response.body"})

    async with serving(app) as service:
        before = await open_files_of(service)
        client = await service.connect(buffer=32 * KIB)
        await client.send(request())
        await client.head()
        await client.is_reset()
        client.close()
        await until(lambda: open_files() == before)
    assert not caplog.text, "what the app was to see it saw"


@on_both_loops
async def test_a_file_that_becomes_shorter_cannot_be_taken_for_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    made(path, 20 * MIB)
    async with serving(sends(path)) as service:
        client = await service.connect(buffer=32 * KIB)
        await client.send(request())
        assert (await client.head())["content-length"] == str(20 * MIB)
        await until(lambda: service.connection._writable)
        os.truncate(path, 100 * KIB)
        await client.is_reset()
        client.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "truncated while it was being sent (GET '/', request " in caplog.text


@on_both_loops
async def test_a_file_that_grows_is_sent_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    digest = made(path, 10 * MIB)
    async with serving(sends(path)) as service:
        client = await service.connect(buffer=32 * KIB)
        await client.send(request() + request(method="HEAD"))
        assert (await client.head())["content-length"] == str(10 * MIB)
        await until(lambda: service.connection._writable)
        with path.open("ab") as file:
            file.write(b"more")
        assert await client.body(10 * MIB) == digest
        assert (await client.head())["content-length"] == str(10 * MIB + 4)
        client.close()


@on_both_loops
async def test_a_disk_that_fails_is_told_from_a_peer_that_leaves(
    large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(out: int, fd: int, offset: int, count: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "sendfile", broken)
    async with serving(sends(large[0])) as service:
        client = await service.connect()
        await client.send(request())
        await client.is_reset()
        client.close()
    assert "a file could not be sent to its end: [Errno 5]" in caplog.text


@on_both_loops
async def test_a_connection_that_breaks_under_sendfile(
    large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(out: int, fd: int, offset: int, count: int) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(os, "sendfile", gone)
    async with serving(sends(large[0])) as service:
        client = await service.connect()
        await client.send(request())
        with suppress(ConnectionResetError):
            while await client.some():
                pass
        client.close()
    assert not caplog.text


@on_both_loops
async def test_a_server_that_aborts_in_the_middle_of_a_file(large: tuple[Path, str]) -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(OSError):
            await sends(large[0])(scope, receive, send)
        heard.append(await receive())

    async with serving(app) as service:
        before = await open_files_of(service)
        client = await service.connect(buffer=32 * KIB)
        await client.send(request())
        await until(lambda: service.connection._writable)
        service.connection.abort()
        await until(lambda: service.shared.quiet)
        client.close()
        await until(lambda: open_files() == before)
    assert heard == [{"type": "http.disconnect"}]
