"""Clients that are no Python: node's http, http2 and ws, Go's net/http. Each is a program that checks what it gets."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from asgiri.codec.engines import HTTP1_ENGINES, HTTP2_ENGINES, WEBSOCKET_ENGINES
from asgiri.config.schema import WebSocket
from asgiri.server import Server
from asgiri.types import Receive, Scope, Send
from tests.clients import test_http1 as http1
from tests.clients import test_http2 as http2
from tests.clients.test_http1 import command
from tests.pki import Pki
from tests.proto.fakes import echo, in_loop, read_body, until
from tests.serving import config, shared_of, url_of
from tests.websocket_app import Application

HERE = Path(__file__).parent
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")


@functools.cache
def has_ws() -> bool:
    if shutil.which("node") is None:
        return False
    return subprocess.run(["node", "-e", "require('ws')"], capture_output=True, check=False).returncode == 0


class Talker:
    """Echoes; ``/trailers`` has some behind its body, ``/endless`` never ends by itself."""

    def __init__(self) -> None:
        self.given_up = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["path"]:
            case "/trailers":
                await read_body(receive)
                names = [(b"trailer", b"x-sum")]
                await send({"type": "http.response.start", "status": 200, "headers": names, "trailers": True})
                await send({"type": "http.response.body", "body": b"body"})
                await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")]})
            case "/endless":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                try:
                    while True:
                        await send({"type": "http.response.body", "body": b"on and on " * 1000, "more_body": True})
                except OSError:
                    self.given_up += 1
            case _:
                await echo(scope, receive, send)


async def node(name: str, *arguments: str) -> None:
    out, _ = await command("node", str(HERE / "node" / name), *arguments)
    assert out == b"good\n"


@needs_node
@pytest.mark.parametrize("engine", HTTP1_ENGINES)
@in_loop
async def test_node_http(engine: str) -> None:
    async with http1.serving(Talker(), engine) as server:
        await node("http1.js", str(http2.port_of(server)))
        assert shared_of(server).accepted == 1


@needs_node
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("engine", HTTP2_ENGINES)
@in_loop
async def test_node_http2(engine: str, secured: bool, pki: Pki) -> None:
    app = Talker()
    async with http2.serving(app, engine, pki if secured else None) as server:
        url = http2.url_of(server).replace("localhost", "127.0.0.1")
        await node("http2.js", url, *([pki.ca_file] if secured else []))
        await until(lambda: app.given_up == 1)
        assert shared_of(server).accepted == 1


@pytest.mark.skipif(not has_ws(), reason="node's package ws is not installed")
@pytest.mark.parametrize("engine", WEBSOCKET_ENGINES)
@in_loop
async def test_node_ws(engine: str) -> None:
    app = Application()
    made = msgspec.structs.replace(config(), websocket=msgspec.convert({"engine": engine}, WebSocket))
    async with Server(app, config=made) as server:
        await node("ws.js", url_of(server).replace("http:", "ws:") + "/echo")
        await until(lambda: app.ends == [(4001, "done")])


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, built from what the installed Go brings along; its cache is kept, for the first build takes long."""
    home = tmp_path_factory.mktemp("go")
    env = {"GOFLAGS": "-mod=mod", "GO111MODULE": "off", "GOPROXY": "off", "CGO_ENABLED": "0", **os.environ}
    subprocess.run(["go", "build", "-o", str(home / "client"), str(HERE / "go" / "main.go")], env=env, check=True)
    return str(home / "client")


@needs_go
@pytest.mark.timeout(300)
@in_loop
async def test_go(go_client: str, pki: Pki) -> None:
    app = Talker()
    for engine in HTTP1_ENGINES:
        async with http1.serving(app, engine) as server:
            out, _ = await command(go_client, url_of(server), "HTTP/1.1")
            assert out == b"good\n"
    for engine in HTTP2_ENGINES:
        async with http2.serving(app, engine, pki) as server:
            out, _ = await command(go_client, http2.url_of(server), "HTTP/2.0", pki.ca_file)
            assert out == b"good\n"
    await until(lambda: app.given_up == len(HTTP1_ENGINES) + len(HTTP2_ENGINES))
