"""Clients that people use, against each HTTP/1.1 engine: curl, ab, wrk, httpx, http.client with a pipeline by hand."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx
import msgspec
import pytest

from asgiri.codec.engines import HTTP1_ENGINES
from asgiri.config.schema import Http1
from asgiri.server import Server
from asgiri.types import ASGIApp, Receive, Scope, Send
from tests.proto.fakes import echo, in_loop, read_body, reply, request
from tests.serving import MIB, config, shared_of, url_of

each_engine = pytest.mark.parametrize("engine", HTTP1_ENGINES)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
needs_ab = pytest.mark.skipif(shutil.which("ab") is None, reason="ab is not installed")


def serving(app: ASGIApp, engine: str) -> Server:
    return Server(app, config=msgspec.structs.replace(config(), http1=msgspec.convert({"engine": engine}, Http1)))


async def tells(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was asked."""
    body = await read_body(receive)
    if body is not None:
        text = f"{scope['http_version']} {scope['method']} {scope['path']} {len(body)}".encode()
        await reply(send, text, 200, (b"content-length", b"%d" % len(text)))


async def command(*arguments: str, data: bytes = b"") -> tuple[bytes, str]:
    """What a command writes to its stdout and its stderr; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(40):
            out, errors = await process.communicate(data)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors
    return out, errors.decode()


async def curl(*arguments: str, data: bytes = b"") -> tuple[bytes, str]:
    return await command("curl", "--silent", "--show-error", "--verbose", "--max-time", "30", *arguments, data=data)


# curl


@needs_curl
@each_engine
@in_loop
async def test_curl_twice_on_one_connection(engine: str) -> None:
    async with serving(tells, engine) as server:
        out, said = await curl("--http1.1", f"{url_of(server)}/a", f"{url_of(server)}/b")
        assert out == b"1.1 GET /a 01.1 GET /b 0"
        assert said.count("< HTTP/1.1 200 OK") == 2
        assert shared_of(server).accepted == 1


@needs_curl
@each_engine
@in_loop
async def test_curl_with_http_1_0(engine: str) -> None:
    async with serving(tells, engine) as server:
        out, said = await curl("--http1.0", f"{url_of(server)}/a")
        assert out == b"1.0 GET /a 0"
        assert "< HTTP/1.1 200 OK" in said  # RFC 9110 section 6.2: a server's version is its own
    async with serving(echo, engine) as server:
        body = os.urandom(300_000)
        out, said = await curl("--http1.0", "--data-binary", "@-", url_of(server), data=body)
        assert out == body
        assert "transfer-encoding" not in said.lower()


@needs_curl
@each_engine
@in_loop
async def test_curl_gets_heads_alone_on_one_connection(engine: str) -> None:
    async with serving(tells, engine) as server:
        out, said = await curl("--head", f"{url_of(server)}/a", f"{url_of(server)}/b")
        heads = out.decode().lower().split("\r\n\r\n")
        assert len(heads) == 3
        assert heads[2] == ""
        assert {"http/1.1 200 ok", "content-length: 13"} <= set(heads[0].split("\r\n")) & set(heads[1].split("\r\n"))
        assert shared_of(server).accepted == 1, said


@needs_curl
@each_engine
@in_loop
async def test_curl_waits_for_the_100(engine: str) -> None:
    async with serving(echo, engine) as server:
        body = os.urandom(2 * MIB)
        patient = ["--expect100-timeout", "60"]  # it outlasts --max-time: without the 100 there is no upload
        arguments = [*patient, "--header", "Expect: 100-continue", "--data-binary", "@-"]
        out, said = await curl(*arguments, url_of(server), data=body)
        assert out == body
        assert said.index("< HTTP/1.1 100 Continue") < said.index("< HTTP/1.1 200 OK")


@needs_curl
@each_engine
@in_loop
async def test_curl_uploads_in_chunks(engine: str) -> None:
    async with serving(echo, engine) as server:
        body = os.urandom(2 * MIB)
        out, said = await curl("--upload-file", "-", f"{url_of(server)}/", data=body)
        assert out == body
        assert "> Transfer-Encoding: chunked" in said


# ab


@needs_ab
@each_engine
@in_loop
async def test_ab_counts_every_answer_as_complete(engine: str) -> None:
    """ab speaks HTTP/1.0 and asks for keep-alive; asgiri closes after each answer, which it must count as well."""
    async with serving(tells, engine) as server:
        out, _ = await command("ab", "-k", "-n", "200", "-c", "4", f"{url_of(server)}/a")
        report = dict(re.findall(r"^([A-Za-z0-9 -]+): +(\d+)", out.decode(), re.MULTILINE))
        assert (report["Complete requests"], report["Failed requests"]) == ("200", "0")
        assert "Non-2xx responses" not in report
        assert report["Document Length"] == "12"


# wrk


@needs_wrk
@each_engine
@in_loop
async def test_wrk(engine: str) -> None:
    async with serving(tells, engine) as server:
        out, _ = await command("wrk", "-t1", "-c8", "-d1s", f"{url_of(server)}/a")
        report = out.decode()
        assert re.search(r"^  [1-9]\d* requests in ", report, re.MULTILINE), report
        assert "Socket errors" not in report
        assert "Non-2xx" not in report
        assert shared_of(server).accepted <= 9  # it asks once before


# httpx


@each_engine
@in_loop
async def test_httpx_uploads_in_pieces_and_gets_them_back(engine: str) -> None:
    body = os.urandom(MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 50_000):
            yield body[begin : begin + 50_000]

    async with serving(echo, engine) as server, httpx.AsyncClient(base_url=url_of(server), trust_env=False) as client:
        assert (await client.get("/")).content == b""
        assert (await client.head("/")).status_code == 200
        assert (await client.post("/", content=body)).content == body
        assert (await client.put("/", content=pieces())).content == body
        async with client.stream("POST", "/", content=pieces()) as answer:
            assert b"".join([piece async for piece in answer.aiter_bytes()]) == body
        assert shared_of(server).accepted == 1
        answers = await asyncio.gather(*(client.post("/", content=b"%d" % number) for number in range(50)))
        assert [answer.content for answer in answers] == [b"%d" % number for number in range(50)]


# http.client


class Stream(io.BufferedReader):
    """The reading side of a socket, as one response after the other wants it."""

    def makefile(self, mode: str) -> Stream:
        assert mode == "rb"
        return self

    def close(self) -> None:
        """A response closes what it has read to its end."""


@contextlib.contextmanager
def reading(sock: socket.socket) -> Iterator[socket.socket]:
    raw = sock.makefile("rb", buffering=0)
    stream = Stream(cast("io.RawIOBase", raw))
    try:
        yield cast("socket.socket", stream)  # of a socket, a response uses makefile() alone
    finally:
        stream.detach().close()


def answer_to(method: str, sock: socket.socket) -> tuple[int, Any, bytes]:
    answer = http.client.HTTPResponse(sock, method=method)
    answer.begin()
    return answer.status, answer.getheader("Connection"), answer.read()


PIPELINE = [
    ("GET", request("/one")),
    ("POST", request("/two", method="POST", body=b"12345")),
    ("HEAD", request("/three", method="HEAD")),
    ("POST", request("/four", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
    ("GET", request("/five", "Connection: close")),
]
ANSWERS = [
    (200, None, b"1.1 GET /one 0"),
    (200, None, b"1.1 POST /two 5"),
    (200, None, b""),
    (200, None, b"1.1 POST /four 7"),
    (200, "close", b"1.1 GET /five 0"),
]


def pipeline(address: tuple[str, int]) -> list[tuple[int, Any, bytes]]:
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=20)) as connection:
        connection.connect()
        connection.sock.sendall(b"".join(data for _, data in PIPELINE))
        with reading(connection.sock) as sock:
            answers = [answer_to(method, sock) for method, _ in PIPELINE]
        assert connection.sock.recv(1) == b""
        return answers


@each_engine
@in_loop
async def test_http_client_with_a_pipeline(engine: str) -> None:
    async with serving(tells, engine) as server:
        address = server.sockets[0].getsockname()
        assert await asyncio.to_thread(pipeline, address) == ANSWERS
        assert shared_of(server).accepted == 1
