"""Clients that people use, against each HTTP/2 engine: curl, nghttp, h2load, httpx, and Chromium without a screen."""

from __future__ import annotations

import asyncio
import functools
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import msgspec
import pytest

from asgiri.codec.engines import HTTP2_ENGINES
from asgiri.config.schema import Config, Http2, Listen, Tls
from asgiri.server import Server
from asgiri.types import ASGIApp, Receive, Scope, Send
from tests.clients.test_http1 import command, tells
from tests.pki import Pki
from tests.proto.fakes import echo, in_loop, reply
from tests.serving import MIB, config, shared_of


@functools.cache
def curl_speaks_http2() -> bool:
    if shutil.which("curl") is None:
        return False
    return "HTTP2" in subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout


CHROMIUM = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)

each_engine = pytest.mark.parametrize("engine", HTTP2_ENGINES)
needs_curl = pytest.mark.skipif(not curl_speaks_http2(), reason="no curl that speaks HTTP/2 is installed")
needs_nghttp = pytest.mark.skipif(shutil.which("nghttp") is None, reason="nghttp is not installed")
needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


def serving(app: ASGIApp, engine: str, pki: Pki | None = None, *, h2c_upgrade: bool = False) -> Server:
    tls = None if pki is None else Tls(certfile=pki.certfile, keyfile=pki.keyfile)
    http2 = msgspec.convert({"engine": engine, "h2c_upgrade": h2c_upgrade}, Http2)
    made: Config = msgspec.structs.replace(config(Listen(bind="127.0.0.1:0", tls=tls)), http2=http2)
    return Server(app, config=made)


def port_of(server: Server) -> int:
    port = server.sockets[0].getsockname()[1]
    assert isinstance(port, int)
    return port


def url_of(server: Server) -> str:
    [connection] = server.config.listen
    return f"{'http' if connection.tls is None else 'https'}://localhost:{port_of(server)}"


async def curl(server: Server, *arguments: str, data: bytes = b"", pki: Pki | None = None) -> tuple[bytes, str]:
    trust = [] if pki is None else ["--cacert", pki.ca_file]
    there = ["--resolve", f"localhost:{port_of(server)}:127.0.0.1"]
    return await command("curl", "-sSv", "--fail", "--max-time", "30", *trust, *there, *arguments, data=data)


# curl


@needs_curl
@each_engine
@in_loop
async def test_curl_with_prior_knowledge(engine: str) -> None:
    async with serving(tells, engine) as server:
        url = url_of(server)
        # One request a connection: curl 7.88 fails at its second one here, whichever server it asks.
        out, said = await curl(server, "--http2-prior-knowledge", f"{url}/a")
        assert out == b"2 GET /a 0"
        assert said.count("< HTTP/2 200") == 1
        out, _ = await curl(server, "--http2-prior-knowledge", "--head", f"{url}/a")
        assert out.lower().startswith(b"http/2 200 \r\n")
        assert b"content-length: 11\r\n" in out.lower()


@needs_curl
@each_engine
@in_loop
async def test_curl_sends_bodies(engine: str) -> None:
    async with serving(echo, engine) as server:
        body = os.urandom(2 * MIB)
        for way in (["--data-binary", "@-"], ["--upload-file", "-"]):
            out, _ = await curl(server, "--http2-prior-knowledge", *way, f"{url_of(server)}/", data=body)
            assert out == body


@needs_curl
@each_engine
@in_loop
async def test_curl_upgrades(engine: str) -> None:
    async with serving(tells, engine, h2c_upgrade=True) as server:
        url = url_of(server)
        out, said = await curl(server, "--http2", f"{url}/a", f"{url}/b")
        assert out == b"2 GET /a 02 GET /b 0"
        assert "< HTTP/1.1 101 Switching Protocols" in said
        assert shared_of(server).accepted == 1
    async with serving(echo, engine, h2c_upgrade=True) as server:
        for size in (5, 300_000, 2 * MIB):  # in one piece; in pieces; with Expect: 100-continue
            body = os.urandom(size)
            out, said = await curl(server, "--http2", "--data-binary", "@-", url_of(server), data=body)
            assert out == body
            assert "< HTTP/2 200" in said
    async with serving(tells, engine) as server:  # off by default, and ignored
        out, _ = await curl(server, "--http2", f"{url_of(server)}/a")
        assert out == b"1.1 GET /a 0"


@needs_curl
@each_engine
@in_loop
async def test_curl_over_tls(pki: Pki, engine: str) -> None:
    async with serving(tells, engine, pki) as server:
        url = url_of(server)
        for flag, version in (("--http2", b"2"), ("--http1.1", b"1.1"), ("--no-alpn", b"1.1")):
            out, said = await curl(server, flag, f"{url}/a", f"{url}/b", pki=pki)
            assert out == version + b" GET /a 0" + version + b" GET /b 0", said
        assert shared_of(server).accepted == 3


# nghttp and h2load


@needs_nghttp
@each_engine
@in_loop
async def test_nghttp(pki: Pki, engine: str, tmp_path: Path) -> None:
    upload = tmp_path / "body"
    upload.write_bytes(os.urandom(2 * MIB))
    for secured in (None, pki):
        async with serving(echo, engine, secured, h2c_upgrade=True) as server:
            url = url_of(server).replace("localhost", "127.0.0.1")
            out, _ = await command("nghttp", "-nv", *[f"{url}/{number}" for number in range(20)])
            assert out.count(b":status: 200") == 20
            assert b"RST_STREAM" not in out
            assert b"error_code=NO_ERROR" in out  # its own GOAWAY
            assert shared_of(server).accepted == 1
            out, _ = await command("nghttp", "-d", str(upload), url)
            assert out == upload.read_bytes()
            if secured is None:
                out, _ = await command("nghttp", "-nvu", f"{url}/a")
                assert b"101 Switching Protocols" in out
                assert out.count(b":status: 200") == 1
                out, _ = await command("nghttp", "-u", "-d", str(upload), url)
                assert out == upload.read_bytes()


@needs_h2load
@each_engine
@in_loop
async def test_h2load(pki: Pki, engine: str) -> None:
    for secured in (None, pki):
        async with serving(tells, engine, secured) as server:
            url = url_of(server).replace("localhost", "127.0.0.1")
            out, _ = await command("h2load", "-n", "1000", "-c", "4", "-m", "20", f"{url}/a", f"{url}/b")
            assert b"1000 total, 1000 started, 1000 done, 1000 succeeded, 0 failed, 0 errored" in out
            assert shared_of(server).accepted == 4


# httpx


@each_engine
@in_loop
async def test_httpx(pki: Pki, engine: str) -> None:
    body = os.urandom(MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 50_000):
            yield body[begin : begin + 50_000]

    async with (
        serving(echo, engine, pki) as server,
        httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{port_of(server)}", http2=True, verify=pki.client(), trust_env=False
        ) as client,
    ):
        first = await client.get("/")
        assert (first.http_version, first.content) == ("HTTP/2", b"")
        assert (await client.head("/")).status_code == 200
        assert (await client.post("/", content=body)).content == body
        assert (await client.put("/", content=pieces())).content == body
        async with client.stream("POST", "/", content=pieces()) as answer:
            assert b"".join([piece async for piece in answer.aiter_bytes()]) == body
        answers = await asyncio.gather(*(client.post("/", content=b"%d" % number) for number in range(50)))
        assert [answer.content for answer in answers] == [b"%d" % number for number in range(50)]
        assert shared_of(server).accepted == 1


@each_engine
@in_loop
async def test_httpx_with_prior_knowledge(engine: str) -> None:
    async with (
        serving(tells, engine) as server,
        httpx.AsyncClient(http1=False, http2=True, trust_env=False) as client,
    ):
        answer = await client.get(f"http://127.0.0.1:{port_of(server)}/a")
        assert (answer.http_version, answer.text) == ("HTTP/2", "2 GET /a 0")


# Chromium

PAGE = b"""<!doctype html><title>asgiri</title><p id=out></p><script>
const paths = Array.from({length: 30}, (_, i) => "/data/" + i);
Promise.all(paths.map(path => fetch(path, {method: "POST", body: path}).then(answer => answer.text()))).then(texts => {
  const spoken = new Set(performance.getEntriesByType("resource").map(entry => entry.nextHopProtocol));
  document.getElementById("out").textContent = texts.join(" ") + "; " + [...spoken].join();
});
</script>"""


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"].startswith("/data/"):
        await echo(scope, receive, send)
    else:
        await reply(send, PAGE, 200, (b"content-type", b"text/html"))


async def chromium(arguments: Sequence[str], home: Path) -> str:
    """What the browser says of a page, once it has run what is in it."""
    assert CHROMIUM is not None
    alone = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--ignore-certificate-errors",
        f"--user-data-dir={home}",
    ]
    out, _ = await command(CHROMIUM, *alone, *arguments)
    return out.decode()


@needs_chromium
@each_engine
@in_loop
async def test_chromium(pki: Pki, engine: str, tmp_path: Path) -> None:
    async with serving(page, engine, pki) as server:
        url = f"https://127.0.0.1:{port_of(server)}/"
        dom = await chromium(["--virtual-time-budget=10000", "--dump-dom", url], tmp_path / "chromium")
        found = re.search(r"<p id=\"out\">(.*); (.*)</p>", dom)
        assert found, dom
        assert found[1] == " ".join(f"/data/{number}" for number in range(30))
        assert found[2] == "h2"
