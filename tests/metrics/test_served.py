"""What a server counts, over real sockets: each protocol, each kind of end, each request exactly once."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import msgspec
import pytest

from asgiri.config.schema import Config, Limits, Listen, Timeouts, Tls
from asgiri.metrics.catalogue import METHODS, bucket
from asgiri.server import Server
from tests.http2_client import Http2Peer, http2_connected
from tests.metrics.metered import Metered
from tests.pki import Pki
from tests.proto.fakes import parse_answers, reply, request, until
from tests.proto.fakes_websocket import BINARY, Http1Client, close, frame, text
from tests.serving import config, connected, on_both_loops, shared_of
from tests.websocket_clients import ClosedError, DeniedError, Offer, http2, through_http1, through_http2

PROTOCOLS = ["http/1.1", "h2"]
PAUSE = 0.03  # seconds from the first byte of a streamed answer to its end


class App:
    """Answers by the path. ``gate`` lets /held go on; ``began`` are the paths so far."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.began: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.began.append(scope["path"])
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        match scope["path"]:
            case "/fail":
                raise ValueError("of the test")
            case "/held":
                await self.gate.wait()
            case "/stream" | "/cut":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"a", "more_body": True})
                if scope["path"] == "/cut":
                    await self.gate.wait()
                await asyncio.sleep(PAUSE)
                await send({"type": "http.response.body", "body": b"b"})
                return
            case "/missing":
                await reply(send, b"no", 404)
                return
        await reply(send)

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/denied":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})


class Scene:
    """A server with a meter, and its application. Both protocols on one plaintext listener."""

    def __init__(self, settings: Config | None = None) -> None:
        self.app = App()
        self.metered = Metered()
        self.server = Server(self.app, config=settings or config(), post=self.metered.post)
        self.metered.server = self.server

    def __getattr__(self, name: str) -> Any:
        return getattr(self.metered, name)

    def __getitem__(self, name: str) -> int:
        return self.metered[name]

    async def __aenter__(self) -> Scene:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.app.gate.set()
        await self.server.shutdown(window=0.0)

    def http2(self) -> Any:
        return http2_connected(self.server.sockets[0].getsockname())

    async def ask(self, protocol: str, path: str, method: str = "GET") -> int | None:
        """One request on a connection of its own; the answer's status."""
        if protocol == "h2":
            async with self.http2() as peer:
                answer = await peer.answer(peer.request(path, method=method))
                return int(answer.status)
        async with connected(self.server) as client:
            client.send(request(path, "Connection: close", method=method))
            answers, _ = parse_answers(await client.rest(), methods=[method], ended=True)
            return answers[0].status

    def consistent(self) -> None:
        """What holds for any number of requests, whatever came of them."""
        for protocol in PROTOCOLS:
            kinds = {k: n for k, n in self.metered.series("requests").items() if k.startswith(protocol)}
            answered = sum(number for kind, number in kinds.items() if not kind.endswith("left"))
            assert self.metered.series("request_duration_seconds").get(protocol, 0) == sum(kinds.values())
            assert self.metered.series("request_first_byte_seconds").get(protocol, 0) == answered


@pytest.mark.parametrize("protocol", PROTOCOLS)
@on_both_loops
async def test_answers_by_method_and_status(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Scene() as scene:
        assert await scene.ask(protocol, "/") == 200
        assert await scene.ask(protocol, "/", "POST") == 200
        assert await scene.ask(protocol, "/", "BREW") == 200
        assert await scene.ask(protocol, "/missing", "HEAD") == 404
        with caplog.at_level(logging.CRITICAL):
            assert await scene.ask(protocol, "/fail") == 500
        assert scene.series("requests") == {
            f"{protocol} GET 2xx": 1,
            f"{protocol} POST 2xx": 1,
            f"{protocol} other 2xx": 1,
            f"{protocol} HEAD 4xx": 1,
            f"{protocol} GET 5xx": 1,
        }
        assert scene["connections_accepted"] == 5
        assert scene["requests_refused"] == 0
        await until(lambda: not scene["requests_in_flight"])
        scene.consistent()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@on_both_loops
async def test_a_streamed_answer_has_its_first_byte_before_its_end(protocol: str) -> None:
    async with Scene() as scene:
        assert await scene.ask(protocol, "/stream") == 200
        scene.consistent()
        duration = scene.buckets("request_duration_seconds", protocol)
        first = scene.buckets("request_first_byte_seconds", protocol)
        assert duration[-1] - first[-1] >= PAUSE * 0.9e6
        assert sum(duration[: bucket(PAUSE)]) == 0
        # The one that comes next does not have the time of the one before.
        assert await scene.ask(protocol, "/") == 200
        assert scene.series("request_first_byte_seconds") == {protocol: 2}


@on_both_loops
async def test_one_connection_with_streamed_and_whole_answers() -> None:
    async with Scene() as scene, connected(scene.server) as client:
        for path in ("/stream", "/", "/stream", "/"):
            await client.ask(request(path))
        assert scene.series("requests") == {"http/1.1 GET 2xx": 4}
        gap = scene.buckets("request_duration_seconds", "http/1.1")[-1]
        gap -= scene.buckets("request_first_byte_seconds", "http/1.1")[-1]
        assert gap >= 2 * PAUSE * 0.9e6
        scene.consistent()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@on_both_loops
async def test_a_client_that_leaves(protocol: str) -> None:
    """Before an answer has begun, and behind its first piece."""
    async with Scene() as scene:
        for path in ("/held", "/cut"):
            if protocol == "h2":
                async with scene.http2() as peer:
                    stream = peer.request(path)
                    await peer.flush()
                    await until(lambda: path in scene.app.began)  # noqa: B023 - awaited at once
                    if path == "/cut":
                        await peer.until(lambda: peer.answers[stream].body)  # noqa: B023
                    peer.h2.reset_stream(stream)
                    await peer.flush()
            else:
                async with connected(scene.server) as client:
                    client.send(request(path))
                    await until(lambda: path in scene.app.began)  # noqa: B023
                    if path == "/cut":
                        await client.some(b"a\r\n")
                    client.reset()
            await until(lambda: not shared_of(scene.server).connections)
        assert scene.series("requests") == {f"{protocol} GET left": 1, f"{protocol} GET 2xx": 1}
        scene.consistent()
        assert scene["requests_in_flight"] == 2
        scene.app.gate.set()
        await until(lambda: not scene["requests_in_flight"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@on_both_loops
async def test_over_the_limit_of_requests(protocol: str) -> None:
    async with Scene(config(limits=Limits(requests=1))) as scene:
        if protocol == "h2":
            async with scene.http2() as peer:
                held = peer.request("/held")
                refused = await peer.get("/")
                scene.app.gate.set()
                assert (refused.status, (await peer.answer(held)).status) == (503, 200)
        else:
            async with connected(scene.server) as one, connected(scene.server) as two:
                one.send(request("/held"))
                await until(lambda: scene.app.began)
                assert (await two.ask(request("/"))).status == 503
                scene.app.gate.set()
                assert (await one.answer()).status == 200
        assert scene.series("requests") == {f"{protocol} GET 5xx": 1, f"{protocol} GET 2xx": 1}
        assert scene.series("requests_refused") == {"overload": 1}
        scene.consistent()


@on_both_loops
async def test_what_never_became_a_request() -> None:
    settings = config(timeouts=Timeouts(request_head=0.05))
    async with Scene(settings) as scene:
        no_host, no_length = b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: y\r\n\r\n"
        for data in (b"nonsense\r\n\r\n", no_host, no_length):
            async with connected(scene.server) as client:
                client.send(data)
                assert (await client.answer()).status == 400
        async with connected(scene.server) as client:
            client.send(b"GET / HT")
            assert (await client.answer()).status == 408
        async with connected(scene.server) as client:
            client.send(Http1Client.asking(but="Sec-WebSocket-Key"))
            assert (await client.answer()).status == 400
        async with scene.http2() as peer:
            stream = peer.request("/", *[("x-more", "x")] * 200)
            assert (await peer.answer(stream)).status == 431
        assert scene.app.began == []
        assert scene.series("requests") == {"http/1.1 other 4xx": 4, "http/1.1 GET 4xx": 1, "h2 other 4xx": 1}
        assert scene.series("requests_refused") == {"malformed": 6}
        scene.consistent()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@on_both_loops
async def test_websockets(protocol: str) -> None:
    """Requests that are over once they are accepted; control frames are no messages."""
    through, kind = (through_http2, "other 2xx") if protocol == "h2" else (through_http1, "GET 1xx")
    async with Scene() as scene:
        async with through(scene.server, Offer()) as socket_, through(scene.server, Offer()) as other:
            await socket_.send("one")
            await socket_.send(b"two")
            await socket_.ping(b"three")
            assert [await socket_.receive(), await socket_.receive()] == ["one", b"two"]
            assert scene.series("requests") == {f"{protocol} {kind}": 2}
            assert scene.series("websockets_open") == {protocol: 2}
            assert scene["requests_in_flight"] == 2
            assert scene.series("connections_open") == ({"h2": 2} if protocol == "h2" else {"websocket": 2})
            await socket_.close()
            await other.close()
        await until(lambda: not shared_of(scene.server).connections)
        assert scene.series("websockets_open") == {}
        assert scene.series("websockets_opened") == {protocol: 2}
        assert scene.series("websocket_messages") == {"received": 2, "sent": 2}
        with pytest.raises((DeniedError, ClosedError)):
            async with through(scene.server, Offer(path="/denied")):
                pass
        denied = {f"{protocol} {kind}": 2, f"{protocol} {kind.split()[0]} 4xx": 1}
        await until(lambda: scene.series("requests") == denied)
        assert scene.series("websockets_opened") == {protocol: 2}
        scene.consistent()


@on_both_loops
async def test_a_stream_of_http2_that_is_reset_ends_its_websocket() -> None:
    async with Scene() as scene, http2(scene.server) as connection:
        await connection.open(Offer())
        assert scene.series("websockets_open") == {"h2": 1}
        connection.h2.reset_stream(1)
        await connection.flush()
        await until(lambda: not scene.series("websockets_open"))
        assert scene.series("requests") == {"h2 other 2xx": 1}


@on_both_loops
async def test_bytes_are_those_of_the_wire_and_only_grow() -> None:
    """Through a take-over by HTTP/2, and by a WebSocket with its first frame behind the handshake."""
    async with Scene() as scene:
        asked = request("/")
        async with connected(scene.server) as client:
            client.send(asked)
            await client.some(b"hello")
            first = len(client._data)
            assert (scene["received_bytes"], scene["sent_bytes"]) == (len(asked), first)
        await until(lambda: not shared_of(scene.server).connections)
        assert (scene["received_bytes"], scene["sent_bytes"]) == (len(asked), first)
        words = Http1Client.asking() + text("hello") + frame(BINARY, b"x" * 100_000) + close()
        async with connected(scene.server) as client:
            client.send(words)
            second = len(await client.rest())
        assert (scene["received_bytes"], scene["sent_bytes"]) == (len(asked) + len(words), first + second)
        counted: list[int] = []
        async with scene.http2() as peer:
            sizes = count_writes(peer)
            await peer.get("/")
            for _ in range(20):
                counted.append(scene["received_bytes"])
                await asyncio.sleep(0)
        await until(lambda: not shared_of(scene.server).connections)
        assert scene["received_bytes"] == sum(sizes) + len(asked) + len(words)
        assert counted == sorted(counted)


def count_writes(peer: Http2Peer) -> list[int]:
    """How many bytes each write of this client has, from now on."""
    sizes: list[int] = []
    take = peer.take

    def taken() -> bytes:
        data = take()
        sizes.append(len(data))
        return data

    peer.take = taken  # type: ignore[method-assign]
    return sizes


@on_both_loops
async def test_bytes_of_an_upgrade_to_http2() -> None:
    settings = config()
    settings = msgspec.structs.replace(settings, http2=msgspec.structs.replace(settings.http2, h2c_upgrade=True))
    async with Scene(settings) as scene:
        reader, writer = await asyncio.open_connection(*scene.server.sockets[0].getsockname())
        peer = Http2Peer(reader, writer)
        fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"HTTP2-Settings: {peer.upgrade()}")
        data = request("/", *fields) + peer.take()  # with the preface behind the request
        writer.write(data)
        await reader.readuntil(b"\r\n\r\n")
        sizes = count_writes(peer)
        assert (await peer.answer(1)).status == 200
        await peer.flush()
        await until(lambda: scene["received_bytes"] >= len(data) + sum(sizes))
        assert scene["received_bytes"] == len(data) + sum(sizes)
        assert scene.series("requests") == {"h2 GET 2xx": 1}
        writer.close()
        await until(lambda: not shared_of(scene.server).connections)
        assert scene["received_bytes"] == len(data) + sum(sizes)


@on_both_loops
async def test_connections_by_what_they_speak() -> None:
    async with Scene() as scene:
        async with connected(scene.server), connected(scene.server) as client, scene.http2() as peer:
            await client.ask(request("/"))
            await peer.get("/")
            assert scene.series("connections_open") == {"unknown": 1, "http/1.1": 1, "h2": 1}
        await until(lambda: not shared_of(scene.server).connections)
        assert scene.series("connections_open") == {}
        assert scene["connections_accepted"] == 3


@on_both_loops
async def test_handshakes_that_fail(tmp_path: Any) -> None:
    pki = Pki(tmp_path)
    listen = Listen(bind="127.0.0.1:0", tls=Tls(certfile=pki.certfile, keyfile=pki.keyfile))
    async with Scene(config(listen)) as scene:
        address = scene.server.sockets[0].getsockname()
        with socket.create_connection(address) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: scene.series("connections_refused") == {"tls": 1})
        async with connected(scene.server, tls=pki.client()) as client:
            await client.ask(request("/"))
        assert scene.series("connections_refused") == {"tls": 1}
        assert scene["connections_accepted"] == 1


@on_both_loops
async def test_accepting_pauses_at_the_limit() -> None:
    async with Scene(config(limits=Limits(connections=1))) as scene:
        async with connected(scene.server) as client:
            await client.ask(request("/"))
            assert scene.series("accept_pauses") == {"limit": 1}
        await until(lambda: not shared_of(scene.server).connections)
        async with connected(scene.server) as client:
            await client.ask(request("/"))
            assert scene.series("accept_pauses") == {"limit": 2}


@on_both_loops
async def test_the_sweep_brings_the_words_up_to_date_and_so_does_the_end() -> None:
    settings = config(timeouts=Timeouts(keep_alive=0.4))
    scene = Scene(settings)
    async with scene, connected(scene.server) as client:
        await client.ask(request("/"))
        await until(lambda: any(scene.cells))
        for _ in range(3):
            await client.ask(request("/"))
    scene.metered.server = None
    done = sum(scene.cells[: 2 * len(METHODS) * 6])
    assert done == 4
    assert scene.series("connections_open") == {}


def test_a_server_without_a_meter_has_no_survey() -> None:
    server = Server(App(), config=config())
    server._measure()
    assert server.counts.accepted == 0
