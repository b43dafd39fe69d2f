"""What tests of a whole server share: each loop, a server on real sockets, a client that says what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import socket
import ssl
import struct
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from asgiri.config.schema import Config, Limits, Listen, Timeouts, Workers
from asgiri.equip import loop_factory
from asgiri.proto.connection import Shared
from asgiri.server import Server, ServerState
from asgiri.types import Receive, Scope, Send
from tests.proto.fakes import Answer, parse_answers, reply, run, until

LOOPS = ["asyncio", "uvloop"]
MIB = 1 << 20


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An async test as pytest wants it, once a loop."""

    @functools.wraps(test)
    def sync(*, loop: str, **arguments: Any) -> None:
        run(test(**arguments), loop_factory(loop))

    asked = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    vars(sync)["__signature__"] = asked.replace(parameters=[*asked.parameters.values(), loop])
    each: Callable[..., None] = pytest.mark.parametrize("loop", LOOPS)(sync)
    return each


def config(
    *binds: str | Listen,
    drain_timeout: float = 30.0,
    timeouts: Timeouts | None = None,
    limits: Limits | None = None,
    lifespan: str = "off",
) -> Config:
    listen = tuple(Listen(bind=one) if isinstance(one, str) else one for one in binds or ("127.0.0.1:0",))
    return Config(
        listen=listen,
        workers=Workers(drain_timeout=drain_timeout),
        timeouts=timeouts or Timeouts(),
        limits=limits or Limits(),
        lifespan="auto" if lifespan == "auto" else "off",
    )


def state_of(server: Server) -> ServerState:
    """A call, so that mypy does not take one answer for the next."""
    return server.state


def shared_of(server: Server) -> Shared:
    assert server._shared is not None
    return server._shared


class Client:
    """A client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._data = b""

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def half_close(self) -> None:
        self._writer.write_eof()

    async def some(self, enough: bytes) -> None:
        """Read until ``enough`` is there."""
        async with asyncio.timeout(20):
            while enough not in self._data:
                data = await self._reader.read(1 << 16)
                assert data, f"the connection ended after {self._data!r}"
                self._data += data

    async def answer(self) -> Answer:
        """The next whole answer."""
        async with asyncio.timeout(20):
            while True:
                answers, left = parse_answers(self._data)
                if answers:
                    assert len(answers) == 1
                    self._data = left
                    return answers[0]
                data = await self._reader.read(1 << 20)
                assert data, f"the connection ended after {self._data!r}"
                self._data += data

    async def rest(self) -> bytes:
        """All that comes until the connection ends."""
        async with asyncio.timeout(20):
            return self._data + await self._reader.read()

    async def skip_some(self, size: int = 1 << 18) -> int:
        """How many bytes come at once; 0 at the end of the connection."""
        async with asyncio.timeout(20):
            return len(await self._reader.read(size))

    async def skip_rest(self) -> int:
        """How many bytes come until the connection ends."""
        size = len(self._data)
        async with asyncio.timeout(20):
            while data := await self._reader.read(1 << 20):
                size += len(data)
        return size

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    def reset(self) -> None:
        """End the connection with an RST."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def connected(
    server: Server, host: str | None = None, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """A connection to the server's first listener, which the server has accepted."""
    sock = server.sockets[0]
    before = set(shared_of(server).connections)
    secure: dict[str, Any] = {"ssl": tls, "server_hostname": "localhost"} if tls is not None else {}
    if sock.family == socket.AF_UNIX:
        streams = await asyncio.open_unix_connection(sock.getsockname(), **secure)
    else:
        name = sock.getsockname()
        streams = await asyncio.open_connection(host or name[0], name[1], **secure)
    client = Client(*streams)
    try:
        await until(lambda: shared_of(server).connections - before)
        yield client
    finally:
        await client.close()


def url_of(server: Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Recorder:
    """An application that keeps the scopes of its requests and the messages of its lifespan."""

    def __init__(self, *, fails: bool = False) -> None:
        self.scopes: list[Scope] = []
        self.lifespan: list[str] = []
        self._fails = fails

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.scopes.append(scope)
            await reply(send)
            return
        while True:
            kind = (await receive())["type"]
            self.lifespan.append(kind)
            if self._fails:
                await send({"type": f"{kind}.failed", "message": "no database"})
                return
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return


@contextlib.contextmanager
def program(source: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A Python process of ``source``, and the number that it prints first: the port of its server."""
    root = str(Path(__file__).resolve().parent.parent)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            if process.poll() is None:
                process.kill()
