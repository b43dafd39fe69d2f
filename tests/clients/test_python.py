"""Clients of Python that know HTTP/1.1 and block, or have an engine of their own: requests, urllib3, aiohttp."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Iterator

import aiohttp
import requests
import urllib3

from asgiri.config.schema import Listen, Tls
from asgiri.server import Server
from asgiri.types import Receive, Scope, Send
from tests.clients.test_http1 import each_engine, serving
from tests.pki import Pki
from tests.proto.fakes import echo, in_loop, reply
from tests.serving import MIB, config, shared_of, url_of
from tests.websocket_app import Application


async def shop(scope: Scope, receive: Receive, send: Send) -> None:
    """What clients do by themselves: follow, keep cookies, decode, take lines as they come; else it echoes."""
    match scope["path"]:
        case "/old":
            await reply(send, b"", 302, (b"location", b"/new"), (b"set-cookie", b"seen=old; Path=/"))
        case "/new":
            await reply(send, dict(scope["headers"]).get(b"cookie", b"none"))
        case "/many":
            await reply(send, b"", 200, (b"x-tag", b"one"), (b"x-tag", b"two"), (b"set-cookie", b"a=1"))
        case "/lines":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number in range(20):
                await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        case "/none":
            await reply(send, b"", 204)
        case _:
            await echo(scope, receive, send)


def pieces(body: bytes) -> Iterator[bytes]:
    for begin in range(0, len(body), 50_000):
        yield body[begin : begin + 50_000]


@each_engine
@in_loop
async def test_requests(engine: str) -> None:
    body = os.urandom(MIB)

    def ask(url: str) -> None:
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(f"{url}/old").text == "seen=old"
            assert session.post(url, data=body).content == body
            assert session.put(url, data=pieces(body)).content == body  # chunked
            upload = session.post(url, files={"file": ("a.bin", body)}, data={"word": "caf\u00e9"})
            assert body in upload.content
            assert list(session.get(f"{url}/lines", stream=True).iter_lines()) == [b"%d" % n for n in range(20)]
            assert session.get(f"{url}/none").status_code == 204
            assert session.head(url).status_code == 200
            assert session.get(f"{url}/many").headers["x-tag"] == "one, two"

    async with serving(shop, engine) as server:
        await asyncio.to_thread(ask, url_of(server))
        assert shared_of(server).accepted == 1


@each_engine
@in_loop
async def test_urllib3(engine: str) -> None:
    body = os.urandom(MIB)

    def ask(url: str) -> None:
        with urllib3.PoolManager(retries=False) as pool:
            assert pool.request("GET", f"{url}/new").data == b"none"
            assert pool.request("POST", url, body=body).data == body
            assert pool.request("POST", url, body=pieces(body), chunked=True).data == body
            answer = pool.request("GET", f"{url}/lines", preload_content=False)
            assert b"".join(answer.stream(7)) == b"".join(b"%d\n" % number for number in range(20))
            answer.release_conn()
            assert pool.request("HEAD", url).status == 200
            assert pool.request("GET", f"{url}/many").headers.getlist("x-tag") == ["one", "two"]

    async with serving(shop, engine) as server:
        await asyncio.to_thread(ask, url_of(server))
        assert shared_of(server).accepted == 1


@each_engine
@in_loop
async def test_aiohttp(engine: str) -> None:
    body = os.urandom(MIB)

    async def feed() -> AsyncIterator[bytes]:
        for piece in pieces(body):
            yield piece

    async with (
        serving(shop, engine) as server,
        aiohttp.ClientSession(
            url_of(server), cookie_jar=aiohttp.CookieJar(unsafe=True)
        ) as session,  # from addresses, too
    ):
        async with session.get("/old") as answer:
            assert await answer.text() == "seen=old"
        for data in (body, feed()):
            async with session.post("/", data=data) as answer:
                assert await answer.read() == body
        async with session.post("/", data=body, expect100=True, compress="deflate") as answer:
            assert zlib.decompress(await answer.read()) == body
        async with session.get("/lines") as answer:
            assert [line async for line in answer.content] == [b"%d\n" % number for number in range(20)]
        async with session.get("/many") as answer:
            assert answer.headers.getall("x-tag") == ["one", "two"]
        assert shared_of(server).accepted == 1
        answers = await asyncio.gather(*(text_of(session, b"%d" % number) for number in range(50)))
        assert answers == [b"%d" % number for number in range(50)]


async def text_of(session: aiohttp.ClientSession, body: bytes) -> bytes:
    async with session.post("/", data=body) as answer:
        return await answer.read()


@in_loop
async def test_aiohttp_websocket() -> None:
    app = Application()
    async with Server(app, config=config()) as server, aiohttp.ClientSession(url_of(server)) as session:
        async with session.ws_connect("/echo", compress=15, max_msg_size=4 * MIB) as socket:
            assert socket.compress  # agreed on
            for word in ("hello", "e\u0301 \U0001f600", "x" * MIB):
                await socket.send_str(word)
                assert await socket.receive_str() == word
            data = os.urandom(2 * MIB)
            await socket.send_bytes(data)
            assert await socket.receive_bytes() == data
            await socket.ping(b"there?")
            await socket.send_str("still here")
            assert await socket.receive_str() == "still here"
            await socket.close(code=4000)
        assert socket.close_code == 4000


@in_loop
async def test_over_tls(pki: Pki) -> None:
    def ask(port: int) -> None:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(f"https://localhost:{port}/", data=b"hello", verify=pki.ca_file)
            assert answer.content == b"hello"
        with urllib3.PoolManager(retries=False, ca_certs=pki.ca_file) as pool:
            assert pool.request("POST", f"https://localhost:{port}/", body=b"hello").data == b"hello"

    listen = Listen(bind="127.0.0.1:0", tls=Tls(certfile=pki.certfile, keyfile=pki.keyfile))
    async with Server(shop, config=config(listen)) as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.to_thread(ask, port)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"https://127.0.0.1:{port}/", data=b"hello", ssl=pki.client()) as answer,
        ):
            assert await answer.read() == b"hello"
