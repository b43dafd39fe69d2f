"""What a server offers to applications and frameworks, whole: through its config, its scope and real clients."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from asgiri.config.schema import Config, Limits, Listen
from asgiri.equip import loop_factory
from asgiri.server import Server
from asgiri.types import ASGIApp, Receive, Scope, Send
from tests.proto.fakes import ByHand, parse_answers, reply, request, run

SIZE = 3 << 20


def serves(app: ASGIApp, *, requests: int = 0) -> Server:
    listen = (Listen(bind="127.0.0.1:0"),)
    return Server(app, config=Config(listen=listen, limits=Limits(requests=requests), lifespan="off"))


def url_of(server: Server) -> str:
    return "http://{}:{}".format(*server.sockets[0].getsockname())


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_the_scope_offers_them() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, " ".join(sorted(scope["extensions"])).encode())

    async def main() -> None:
        async with serves(app) as server, httpx.AsyncClient() as client:
            offered = (await client.get(url_of(server))).text.split(" ")
            assert offered == [
                "asgiri",
                "http.response.early_hint",
                "http.response.pathsend",
                "http.response.trailers",
                "http.response.zerocopysend",
            ]

    run(main())


def test_over_limits_requests_it_is_503(loop: str) -> None:
    app = ByHand()

    async def main() -> None:
        async with serves(app, requests=2) as server, httpx.AsyncClient() as client:
            url = url_of(server)
            running = [asyncio.ensure_future(client.post(url, content=b"x" * 100)) for _ in range(2)]
            calls = [await app.next() for _ in running]
            for _ in range(3):
                refused = await client.post(url, content=b"x" * 100_000)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                assert "connection" not in refused.headers
            for call in calls:
                await call.reply()
            assert [(await answer).status_code for answer in running] == [200, 200]
            again = asyncio.ensure_future(client.get(url))
            await (await app.next()).reply()
            assert (await again).status_code == 200

    run(main(), loop_factory(loop))


# Frameworks


def framework(directory: Path, middleware: list[Middleware]) -> ASGIApp:
    def by_path(request: Request) -> Response:
        return FileResponse(directory / "file")

    def relative(request: Request) -> Response:
        return FileResponse("file")

    async def hints(request: Request) -> Response:
        await request.send_early_hints("</style.css>; rel=preload; as=style")
        return PlainTextResponse("hello")

    return Starlette(
        routes=[
            Route("/path", by_path),
            Route("/relative", relative),
            Route("/hints", hints),
            Mount("/static", StaticFiles(directory=directory)),
        ],
        middleware=middleware,
    )


async def passes_on(request: Request, call_next: object) -> Response:
    assert callable(call_next)
    response: Response = await call_next(request)
    return response


@pytest.mark.parametrize(
    "middleware",
    [[], [Middleware(GZipMiddleware)], [Middleware(BaseHTTPMiddleware, dispatch=passes_on)]],
    ids=["plain", "gzip", "http"],
)
def test_starlette_sends_files(
    loop: str, middleware: list[Middleware], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    sent: list[int] = []
    real = os.sendfile

    def sendfile(out: int, fd: int, offset: int, count: int) -> int:
        size = real(out, fd, offset, count)
        sent.append(size)
        return size

    monkeypatch.setattr(os, "sendfile", sendfile)

    async def main() -> None:
        async with serves(framework(tmp_path, middleware)) as server, httpx.AsyncClient() as client:
            url = url_of(server)
            for path in ("/path", "/relative", "/static/file"):
                answer = await client.get(url + path)
                assert (answer.status_code, int(answer.headers["content-length"])) == (200, SIZE)
                assert hashlib.sha256(answer.content).digest() == hashlib.sha256(content).digest()
                head = await client.head(url + path)
                assert (head.status_code, int(head.headers["content-length"])) == (200, SIZE)
                known = {"if-none-match": answer.headers["etag"]}
                if path == "/static/file":
                    assert (await client.get(url + path, headers=known)).status_code == 304
                part = await client.get(url + path, headers={"range": "bytes=1000-1999"})
                assert (part.status_code, part.content) == (206, content[1000:2000])
            assert (await client.get(url + "/static/none")).status_code == 404
        assert sum(sent) == 3 * SIZE, "by the kernel"

    run(main(), loop_factory(loop))


@pytest.mark.skipif(not hasattr(Request, "send_early_hints"), reason="Starlette has them from 1.8 on")
def test_starlette_sends_early_hints(loop: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serves(framework(tmp_path, [])) as server:
            answers = await asyncio.get_running_loop().run_in_executor(None, asks, server.sockets[0])
        [(status, interim, body)] = answers
        assert (status, interim, body) == (200, (103,), b"hello")

    def asks(listener: socket.socket) -> list[tuple[int, tuple[int, ...], bytes]]:
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(request("/hints", "Connection: close"))
            data = b""
            while piece := client.recv(1 << 16):
                data += piece
        assert b"link: </style.css>; rel=preload; as=style\r\n" in data
        return [(answer.status, answer.interim, answer.body) for answer in parse_answers(data, ended=True)[0]]

    run(main(), loop_factory(loop))


def test_trailers_reach_a_client_that_asks_for_them(loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"trailer", b"x-digest")]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.body", "body": b"hello"})
        await send({"type": "http.response.trailers", "headers": [(b"x-digest", b"5d41")]})

    def asks(listener: socket.socket, *fields: str) -> bytes:
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(request("/", "Connection: close", *fields))
            data = b""
            while piece := client.recv(1 << 16):
                data += piece
        return data.partition(b"\r\n\r\n")[2]

    async def main() -> None:
        async with serves(app) as server:
            apart = asyncio.get_running_loop()
            told = await apart.run_in_executor(None, asks, server.sockets[0], "TE: trailers")
            assert told == b"5\r\nhello\r\n0\r\nx-digest: 5d41\r\n\r\n"
            assert await apart.run_in_executor(None, asks, server.sockets[0]) == b"5\r\nhello\r\n0\r\n\r\n"

    run(main(), loop_factory(loop))
