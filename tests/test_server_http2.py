"""A server that speaks HTTP/2 beside HTTP/1.1, in this process and on real sockets: the ways in, by any TLS."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from asgiri.config.schema import Config, Http2, Limits, Listen, SniPair, Timeouts, Tls
from asgiri.proto import secure
from asgiri.proto.http2 import Http2Connection
from asgiri.proto.http11 import Http11Connection
from asgiri.server import HttpProtocolVersion, Server
from tests.http2_client import http2_connected
from tests.pki import Pki
from tests.proto.fakes import ByHand, Held, echo, hello, request, until
from tests.serving import MIB, Client, Recorder, config, connected, on_both_loops, shared_of

BOTH = ("h2", "http/1.1")


@pytest.fixture(params=["aiofastnet", "loop"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who does TLS."""
    assert secure.fast_connect() is not None, "the extra test brings aiofastnet"
    if request.param == "loop":
        monkeypatch.setattr(secure, "fast_connect", lambda: None)
    return str(request.param)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that a peer does here is worth a warning."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if record.levelno > logging.INFO]


def plaintext(*http: str, http2: dict[str, Any] | None = None, **more: Any) -> Config:
    listen = msgspec.convert({"bind": "127.0.0.1:0", "http": http or BOTH}, Listen)
    return msgspec.structs.replace(config(listen, **more), http2=msgspec.convert(http2 or {}, Http2))


def over_tls(pki: Pki, *http: str, sni: dict[str, SniPair] | None = None, **tls: Any) -> Config:
    section = Tls(certfile=pki.certfile, keyfile=pki.keyfile, sni=sni or {}, **tls)
    listen = msgspec.convert({"bind": "127.0.0.1:0", "http": http or BOTH}, Listen)
    return config(msgspec.structs.replace(listen, tls=section))


def address(server: Server) -> tuple[str, int]:
    name = server.sockets[0].getsockname()
    return name[0], name[1]


def kinds(server: Server) -> list[str]:
    return sorted(type(connection).__name__ for connection in shared_of(server).connections)


# Without TLS


@on_both_loops
async def test_both_versions_on_one_listener() -> None:
    app = Recorder()
    async with (
        Server(app, config=plaintext()) as server,
        connected(server) as old,
        http2_connected(address(server)) as new,
    ):
        assert (await old.ask(request("/old"))).body == b"hello"
        assert (await new.get("/new")).body == b"hello"
        assert (await old.ask(request("/old"))).body == b"hello"
        assert kinds(server) == ["Http11Connection", "Http2Connection"]
        assert shared_of(server).accepted == 2
        seen = [(scope["http_version"], scope["scheme"], scope["path"], scope["client"]) for scope in app.scopes]
        assert seen[1] == ("2", "http", "/new", new.address)
        assert [version for version, *_ in seen] == ["1.1", "2", "1.1"]


@on_both_loops
async def test_a_preface_that_comes_byte_by_byte() -> None:
    async with Server(hello, config=plaintext()) as server, http2_connected(address(server)) as peer:
        stream = peer.request("/a")
        for byte in peer.take():
            peer._writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await peer.answer(stream)).body == b"/a"


@on_both_loops
async def test_prior_knowledge_alone() -> None:
    server = Server(hello, config=config(), http_version=HttpProtocolVersion.HTTP_2)
    async with server, http2_connected(address(server)) as peer, connected(server) as old:
        assert (await peer.get("/a")).body == b"/a"
        old.send(request("/b"))
        answer = await old.answer()
        assert (answer.status, answer.closes) == (505, True)
        assert answer.body == b"505 HTTP Version Not Supported: this listener speaks HTTP/2 only\n"
        assert await old.rest() == b""


@on_both_loops
async def test_http11_alone() -> None:
    server = Server(hello, config=config(), http_version=HttpProtocolVersion.HTTP_1_1)
    async with server, connected(server) as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await client.answer()).status == 505
        assert kinds(server) == ["Http11Connection"]


@on_both_loops
async def test_uploads_and_downloads() -> None:
    body = os.urandom(3 * MIB)
    async with Server(echo, config=plaintext()) as server, http2_connected(address(server)) as peer:
        answer = await peer.post("/", body)
        assert (answer.status, answer.body == body) == (200, True)


@on_both_loops
async def test_the_keys_of_http2_are_what_the_peer_is_told() -> None:
    chosen = {
        "engine": "h2",
        "max_concurrent_streams": 7,
        "initial_window": 70_000,
        "max_frame_size": 20_000,
        "max_header_list": 3_000,
    }
    async with Server(hello, config=plaintext(http2=chosen)) as server, http2_connected(address(server)) as peer:
        assert (await peer.get("/a")).status == 200
        told = {code: peer.settings[code] for code in (3, 4, 5, 6)}
        assert told == {3: 7, 4: 70_000, 5: 20_000, 6: 3_000}
        assert (await peer.get("/a", ("x-large", "a" * 3_000))).status == 431
        [connection] = shared_of(server).connections
        assert isinstance(connection, Http2Connection)
        assert type(connection.codec).__name__ == "H2Codec"
    async with Server(hello, config=plaintext()) as server, http2_connected(address(server)) as peer:
        await peer.get("/a")
        [connection] = shared_of(server).connections
        assert isinstance(connection, Http2Connection)
        assert type(connection.codec).__name__ == "NativeCodec"
        assert {code: peer.settings[code] for code in (3, 4, 5, 6)} == {3: 128, 4: MIB, 5: 16_384, 6: 65_536}


@on_both_loops
async def test_timeouts_of_a_connection_that_says_nothing_or_too_little() -> None:
    times = Timeouts(keep_alive=0.1, request_head=0.1)
    async with Server(hello, config=plaintext(timeouts=times)) as server:
        async with connected(server) as silent:
            assert await silent.rest() == b""
        async with connected(server) as begun:
            begun.send(b"PRI * HT")
            assert (await begun.answer()).status == 408
        async with http2_connected(address(server)) as peer:
            assert (await peer.get("/a")).status == 200
            await peer.end()  # idle
            assert peer.goaways[-1][1] == 0
        await until(lambda: not shared_of(server).connections)


@on_both_loops
async def test_connections_count_once_whatever_they_become() -> None:
    async with Server(hello, config=plaintext(limits=Limits(connections=2))) as server:
        async with http2_connected(address(server)) as first, connected(server) as second:
            assert (await first.get("/a")).status == 200
            assert (await second.ask(request("/b"))).status == 200
            third = Client(*await asyncio.open_connection(*address(server)))
            third.send(request("/c"))
            assert (await first.get("/a")).status == 200
            assert len(shared_of(server).connections) == 2
        assert (await third.answer()).body == b"/c"
        await third.close()
        assert shared_of(server).accepted == 3


# Draining


@on_both_loops
async def test_a_drain_finishes_streams_and_says_goaway() -> None:
    app = Held()
    async with Server(app, config=plaintext()) as server, http2_connected(address(server)) as peer:
        stream = peer.request("/held")
        await peer.until(lambda: app.paths)
        draining = asyncio.create_task(server.shutdown())
        await peer.until(lambda: peer.goaways)
        assert peer.goaways[0] == (2**31 - 1, 0)
        late = peer.request("/late")  # what was on its way when the first GOAWAY went out
        await peer.until(lambda: "/late" in app.paths)
        app.release("/held")
        app.release("/late")
        await peer.until(lambda: peer.done(stream, late))
        await peer.end()
        assert [peer.answers[number].body for number in (stream, late)] == [b"/held", b"/late"]
        assert peer.goaways[-1] == (late, 0)
        await draining


@on_both_loops
async def test_a_drain_ends_connections_that_are_idle_or_undecided() -> None:
    server = Server(hello, config=plaintext())
    async with server, http2_connected(address(server)) as idle, connected(server) as silent:
        assert (await idle.get("/a")).status == 200
        assert kinds(server) == ["Http11Connection", "Http2Connection"]
        await asyncio.gather(server.shutdown(window=0.05), idle.end())
        assert await silent.rest() == b""
        assert idle.goaways


# Over TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@on_both_loops
async def test_alpn(pki: Pki, by: str, version: ssl.TLSVersion) -> None:
    app = Recorder()
    async with Server(app, config=over_tls(pki)) as server:
        client = pki.client(alpn=("http/1.1", "h2"))  # the server's order counts
        client.maximum_version = version
        async with http2_connected(address(server), client) as peer:
            assert peer.tls.selected_alpn_protocol() == "h2"
            assert (await peer.get("/a")).body == b"hello"
            assert (await peer.get("/b")).body == b"hello"
            assert kinds(server) == ["Http2Connection"]
        async with connected(server, tls=pki.client(alpn=("http/1.1",))) as old:
            assert (await old.ask(request("/c"))).body == b"hello"
        assert shared_of(server).accepted == 2
        seen = [(scope["http_version"], scope["scheme"], scope["path"]) for scope in app.scopes]
        assert seen == [("2", "https", "/a"), ("2", "https", "/b"), ("1.1", "https", "/c")]
        assert app.scopes[0]["extensions"]["tls"]["tls_version"] == (0x0303 if version.name == "TLSv1_2" else 0x0304)
        assert app.scopes[0]["extensions"]["tls"]["server_cert"].startswith("-----BEGIN CERTIFICATE-----")


@on_both_loops
async def test_the_order_of_http_is_alpns(pki: Pki, by: str) -> None:
    async with Server(hello, config=over_tls(pki, "http/1.1", "h2")) as server:
        async with connected(server, tls=pki.client(alpn=BOTH)) as client:
            assert (await client.ask(request("/a"))).body == b"/a"
        async with http2_connected(address(server), pki.client(alpn=("h2",))) as peer:
            assert (await peer.get("/a")).body == b"/a"


@pytest.mark.parametrize("alpn", [(), ("acme-tls/1", "spdy/3")])
@on_both_loops
async def test_a_client_that_offers_nothing_known_is_told_by_its_first_bytes(
    pki: Pki, by: str, alpn: tuple[str, ...]
) -> None:
    """OpenSSL's server goes on without ALPN where RFC 7301 section 3.2 has a no_application_protocol alert."""
    async with Server(hello, config=over_tls(pki)) as server:
        async with http2_connected(address(server), pki.client(alpn=alpn)) as peer:
            assert peer.tls.selected_alpn_protocol() is None
            assert (await peer.get("/a")).body == b"/a"
        async with connected(server, tls=pki.client(alpn=alpn)) as client:
            assert (await client.ask(request("/b"))).body == b"/b"


@on_both_loops
async def test_one_version_alone(pki: Pki, by: str) -> None:
    async with Server(hello, config=over_tls(pki, "h2")) as server:
        async with connected(server, tls=pki.client(alpn=("http/1.1",))) as client:
            client.send(request("/a"))
            assert (await client.answer()).status == 505
        async with http2_connected(address(server), pki.client(alpn=BOTH)) as peer:
            assert (await peer.get("/a")).body == b"/a"
    server = Server(
        hello,
        config=config(),
        certfile=pki.certfile,
        keyfile=pki.keyfile,
        http_version=HttpProtocolVersion.HTTP_1_1,
    )
    async with server, connected(server, tls=pki.client(alpn=BOTH)) as client:
        assert client._writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert (await client.ask(request("/a"))).body == b"/a"


@on_both_loops
async def test_uploads_and_downloads_over_tls(pki: Pki, by: str) -> None:
    body = os.urandom(3 * MIB)
    server = Server(echo, config=over_tls(pki))
    async with server, http2_connected(address(server), pki.client(alpn=BOTH)) as peer:
        assert (await peer.post("/", body)).body == body


@on_both_loops
async def test_a_cipher_that_http2_may_not_use(pki: Pki, by: str) -> None:
    """RFC 9113 section 9.2.2: for want of a better one it was agreed on; HTTP/2 is refused, HTTP/1.1 goes on."""
    good, bad = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"
    async with Server(hello, config=over_tls(pki, ciphers=f"{bad}:{good}")) as server:

        def client(*alpn: str, ciphers: str) -> ssl.SSLContext:
            context = pki.client(alpn=alpn)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            return context

        for alpn in (BOTH, ()):
            async with http2_connected(address(server), client(*alpn, ciphers=bad)) as peer:
                await peer.until(lambda peer=peer: peer.goaways)  # type: ignore[misc]
                assert peer.goaways == [(0, 0xC)]
        async with http2_connected(address(server), client(*BOTH, ciphers=f"{bad}:{good}")) as peer:
            assert (await peer.get("/a")).status == 200
        async with connected(server, tls=client("http/1.1", ciphers=bad)) as old:
            assert (await old.ask(request("/a"))).status == 200
        await until(lambda: not shared_of(server).connections)


@on_both_loops
async def test_the_certificate_of_the_name_that_is_asked_for(pki: Pki, by: str) -> None:
    certfile, keyfile = pki.issue("shop", "shop.example.org")
    sni = {"*.example.org": SniPair(certfile=certfile, keyfile=keyfile)}
    app = Recorder()
    async with Server(app, config=over_tls(pki, sni=sni)) as server:
        for name in ("shop.example.org", "localhost"):
            async with http2_connected(address(server), pki.client(alpn=BOTH), name) as peer:
                assert peer.tls.selected_alpn_protocol() == "h2"
                assert (await peer.get("/")).status == 200
                der = peer.tls.getpeercert(binary_form=True)
                assert der is not None
                assert app.scopes[-1]["extensions"]["tls"]["server_cert"] == ssl.DER_cert_to_PEM_cert(der)
        async with connected(server, tls=pki.client()) as client:
            assert (await client.ask(request("/a"))).status == 200
    assert len({scope["extensions"]["tls"]["server_cert"] for scope in app.scopes}) == 2


@on_both_loops
async def test_client_certificates(pki: Pki, by: str) -> None:
    app = Recorder()
    tls = over_tls(pki, client_certs="required", client_ca=pki.ca_file)
    async with Server(app, config=tls) as server:
        client = pki.client(pki.issue("client", "jane@asgiri.test"), alpn=BOTH)
        async with http2_connected(address(server), client) as peer:
            assert (await peer.get("/")).status == 200
            assert len(app.scopes[0]["extensions"]["tls"]["client_cert_chain"]) >= 1


@on_both_loops
async def test_a_silent_client_over_tls(pki: Pki, by: str) -> None:
    silent_config = msgspec.structs.replace(over_tls(pki), timeouts=Timeouts(keep_alive=0.1))
    async with Server(hello, config=silent_config) as server:
        for alpn, kind in (((), Http11Connection), (("h2",), Http2Connection), (("http/1.1",), Http11Connection)):
            async with connected(server, tls=pki.client(alpn=alpn)) as client:
                [connection] = shared_of(server).connections
                assert type(connection) is kind
                await client.rest()
            await until(lambda: not shared_of(server).connections)


# The log


@on_both_loops
async def test_request_ids_of_both_versions(caplog: pytest.LogCaptureFixture) -> None:
    app = ByHand()
    async with (
        Server(app, config=plaintext()) as server,
        http2_connected(address(server)) as peer,
        connected(server) as old,
    ):
        stream = peer.request("/a")
        await peer.flush()
        first = await app.next()
        old.send(request("/b"))
        second = await app.next()
        ids = [session.summary.rsplit(" ", 1)[1] for session in shared_of(server).sessions]
        assert len(set(ids)) == 2
        assert sorted(name.split("-", 1)[1] for name in ids) == ["1-1", "2-1"]
        await first.reply()
        await second.reply()
        assert (await peer.answer(stream)).status == 200
        assert (await old.answer()).status == 200
