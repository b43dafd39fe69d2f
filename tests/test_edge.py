"""What requests pass before the application sees them, on real sockets: ids, forwarded fields, allowed hosts."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgiri.config.schema import Config, Http2, Limits, Listen, Proxy, RequestId
from asgiri.log.access import open_access_log, this_process
from asgiri.proto.edge import Edge, Hosts
from asgiri.server import Server
from asgiri.types import Receive, Scope, Send
from tests.http2_client import Answer2, Http2Client, http2_connected
from tests.proto.fakes import Answer, in_loop
from tests.proto.fakes_websocket import Http1Client
from tests.serving import config, connected

TRUSTING = Proxy(trusted=("127.0.0.1", "10.0.0.0/8"), headers="x-forwarded")
UNTRUSTING = Proxy(trusted=("192.0.2.1",), headers="x-forwarded")
every_way = pytest.mark.parametrize("way", ["http11", "http2", "h2c", "websocket", "websocket2"])
every_way_of_proxies = pytest.mark.parametrize("way", ["http11", "http2", "websocket", "websocket2"])


class App:
    """Keeps its scopes; answers, or accepts."""

    def __init__(self, *fields: tuple[bytes, bytes]) -> None:
        self.scopes: list[Scope] = []
        self.fields = list(fields)

    @property
    def scope(self) -> Scope:
        """Of the only request."""
        [scope] = self.scopes
        return scope

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.scope["headers"]}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["path"].endswith("/fails"):
            raise ValueError("on purpose")
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "headers": self.fields})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.fields})
        await send({"type": "http.response.body"})


def edged(bind: str = "127.0.0.1:0", **keys: Any) -> Config:
    return msgspec.structs.replace(config(Listen(bind=bind)), http2=Http2(h2c_upgrade=True), **keys)


async def ask(
    server: Server, way: str, *fields: tuple[str, str], host: str = "asgiri.test", path: str = "/a"
) -> Answer:
    """One request in this way, on a connection of its own: the head of its answer."""
    if way in ("http2", "websocket2"):
        return await ask_http2(server, way, fields, host, path)
    client2 = Http2Client()
    if way == "websocket":
        data = Http1Client.asking(path, *fields).replace(b"asgiri.test", host.encode())
    else:
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
        if way == "h2c":
            lines += ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", f"HTTP2-Settings: {client2.upgrade()}"]
        data = "\r\n".join([*lines, "", ""]).encode("latin-1")
    async with connected(server) as client:
        client.send(data)
        await client.some(b"\r\n\r\n")
        head, _, rest = client._data.partition(b"\r\n\r\n")
        if way != "h2c":
            first, *said = head.decode("latin-1").split("\r\n")
            return Answer(int(first.split()[1]), dict(line.split(": ", 1) for line in said), rest)
        while not client2.answers[1].ended:
            client2.feed(rest)
            client.send(client2.take())
            if not client2.answers[1].ended:
                rest = await client._reader.read(1 << 16)
                assert rest
        return answer_of(client2.answers[1])


async def ask_http2(server: Server, way: str, fields: tuple[tuple[str, str], ...], host: str, path: str) -> Answer:
    async with http2_connected(server.sockets[0].getsockname()) as peer:
        head = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", path)]
        if way == "websocket2":
            await peer.until(lambda: peer.settings)
            head = [(":method", "CONNECT"), (":protocol", "websocket"), *head[1:], ("sec-websocket-version", "13")]
        stream = peer.h2.get_next_available_stream_id()
        answer = peer.answers[stream] = Answer2()
        lower = [(name.lower(), value) for name, value in fields]
        peer.h2.send_headers(stream, [*head, *lower], end_stream=way == "http2")
        await peer.flush()
        await peer.until(lambda: answer.status)
        return answer_of(answer)


def answer_of(answer: Answer2) -> Answer:
    return Answer(answer.status, answer.headers, bytes(answer.body))


# Request ids


@every_way
@in_loop
async def test_the_id_is_the_same_everywhere(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    app, file = App(), tmp_path / "access.log"
    log = open_access_log(str(file), "{request_id}", this_process(1, 1), lambda _seconds, _call: None)
    async with Server(app, config=edged(request_id=RequestId(answer=True)), access_log=log) as server:
        answer = await ask(server, way, ("X-Request-ID", "chosen-by-nobody"), path="/fails")
    log.close()
    made = app.scope["state"]["request_id"]
    assert re.fullmatch(r"[0-9a-f]{8}-1-1", made)
    assert answer.headers["x-request-id"] == made
    assert answer.status == 500
    assert file.read_text() == made + "\n"
    [error] = [record.getMessage() for record in caplog.records if record.name == "asgiri.app"]
    assert f"request {made})" in error
    assert app.headers["x-request-id"] == "chosen-by-nobody", "without proxies, fields are left alone"


@every_way_of_proxies
@in_loop
async def test_a_trusted_peer_names_a_request(way: str) -> None:
    app = App()
    keys = edged(proxy=TRUSTING, request_id=RequestId(header="X-Trace", answer=True))
    async with Server(app, config=keys) as server:
        answer = await ask(server, way, ("X-Trace", "Root=1-67891233-abcdef;Sampled=1"), ("X-Request-ID", "other"))
    assert app.scope["state"]["request_id"] == "Root=1-67891233-abcdef;Sampled=1"
    assert answer.headers["x-trace"] == "Root=1-67891233-abcdef;Sampled=1"
    assert app.headers["x-trace"] == "Root=1-67891233-abcdef;Sampled=1"
    assert app.headers["x-request-id"] == "other"


@pytest.mark.parametrize("value", ["", "a b", "a" * 201, 'a"b', "a\\b", "{a}", "caf\xe9", "<script>"])
@in_loop
async def test_an_id_that_is_none_is_replaced(value: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "asgiri.server")
    app = App()
    async with Server(app, config=edged(proxy=TRUSTING)) as server:
        await ask(server, "http11", ("X-Request-ID", value))
    made = app.scope["state"]["request_id"]
    assert re.fullmatch(r"[0-9a-f]{8}-1-1", made)
    assert "x-request-id" not in app.headers
    assert any(f"request {made}: expected one field" in record.getMessage() for record in caplog.records)


@in_loop
async def test_an_untrusted_peer_names_nothing() -> None:
    app = App()
    async with Server(app, config=edged(proxy=UNTRUSTING)) as server:
        await ask(server, "http11", ("X-Request-ID", "forged"), ("X-Other", "kept"))
    assert app.scope["state"]["request_id"] != "forged"
    assert "x-request-id" not in app.headers
    assert app.headers["x-other"] == "kept"


@every_way
@in_loop
async def test_an_answer_that_has_an_id_keeps_it(way: str) -> None:
    app = App((b"X-Request-Id" if way != "http2" else b"x-request-id", b"own"))
    async with Server(app, config=edged(request_id=RequestId(answer=True))) as server:
        answer = await ask(server, way)
    assert {name.lower(): value for name, value in answer.headers.items()}["x-request-id"] == "own"


@in_loop
async def test_answers_of_our_own_have_it_too() -> None:
    keys = edged(request_id=RequestId(answer=True), limits=Limits(body_size=1), allowed_hosts=("asgiri.test",))
    async with Server(App(), config=keys) as server:
        name = re.compile(r"[0-9a-f]{8}-\d+-\d+")
        async with connected(server) as client:
            answer = await client.ask(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n")
            assert answer.status == 400
            first = answer.headers["x-request-id"]
            answer = await client.ask(b"nonsense\r\n\r\n")
            assert answer.status == 400
            assert name.fullmatch(answer.headers["x-request-id"])
            assert answer.headers["x-request-id"] != first
        async with http2_connected(server.sockets[0].getsockname()) as peer:
            refused = await peer.answer(peer.request(method="POST", body=b"too much"))
            assert refused.status == 413
            assert name.fullmatch(refused.headers["x-request-id"])


# Forwarded fields

SAID = (
    ("X-Forwarded-For", "6.6.6.6, 203.0.113.7:4711, 10.1.2.3"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "shop.example.org"),
    ("X-Forwarded-Prefix", "/shop"),
)


@every_way_of_proxies
@in_loop
async def test_what_a_trusted_proxy_tells(way: str, tmp_path: Path) -> None:
    app, file = App(), tmp_path / "access.log"
    log = open_access_log(str(file), "{client} {host} {port}", this_process(1, 1), lambda _seconds, _call: None)
    keys = edged(proxy=TRUSTING, allowed_hosts=("shop.example.org",))
    async with Server(app, config=keys, access_log=log) as server:
        await ask(server, way, *SAID, ("Forwarded", "for=6.6.6.6"), ("X_Forwarded_For", "6.6.6.6"))
    log.close()
    scope = app.scope
    assert scope["client"] == ("203.0.113.7", 4711)
    assert scope["scheme"] == ("wss" if way.startswith("websocket") else "https")
    assert scope["server"] == ("shop.example.org", 443)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/shop", "/shop/a", b"/shop/a")
    assert app.headers["host"] == "shop.example.org"
    assert app.headers["x-forwarded-for"] == SAID[0][1]
    assert "forwarded" not in app.headers, "the other dialect is nobody's word"
    assert "x_forwarded_for" not in app.headers, "to WSGI that is the same name"
    assert file.read_text() == "203.0.113.7:4711 203.0.113.7 4711\n"


@in_loop
async def test_nobody_speaks_past_a_trusted_proxy() -> None:
    """haproxy passes Upgrade: h2c on, and after a 101 all bytes: the client's own streams would be the proxy's word."""
    app = App()
    async with Server(app, config=edged(proxy=TRUSTING)) as server, connected(server) as client:
        lines = ["GET / HTTP/1.1", "Host: a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: "]
        answer = await client.ask("\r\n".join([*lines, "", ""]).encode())
    assert answer.status == 200
    assert app.scope["http_version"] == "1.1"


@every_way
@in_loop
async def test_what_an_untrusted_peer_tells(way: str) -> None:
    app = App()
    async with Server(app, config=edged(proxy=UNTRUSTING)) as server:
        others = (("X-Forwarded-User", "root"), ("X-Own", "1"), ("X_Forwarded-For", "6.6.6.6"))
        await ask(server, way, *SAID, ("Forwarded", "for=6.6.6.6"), *others)
    scope = app.scope
    assert scope["client"][0] == "127.0.0.1"
    assert scope["scheme"] == ("ws" if way.startswith("websocket") else "http")
    assert scope["path"] == "/a"
    assert app.headers["host"] == "asgiri.test"
    assert not [name for name in app.headers if "forwarded" in name], "in no spelling"
    assert app.headers["x-own"] == "1"


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X-Forwarded_User"])
@every_way
@in_loop
async def test_another_spelling_alone(way: str, name: str) -> None:
    """A request that has no other field that is looked at."""
    app = App()
    async with Server(app, config=edged(proxy=UNTRUSTING)) as server:
        await ask(server, way, (name, "6.6.6.6"))
    assert not [name for name in app.headers if "forwarded" in name]


@in_loop
async def test_without_a_dialect_nothing_is_looked_at() -> None:
    app = App()
    async with Server(app, config=edged(proxy=Proxy(trusted=("127.0.0.1",)))) as server:
        await ask(server, "http11", *SAID)
    assert app.scope["client"][0] == "127.0.0.1"
    assert app.headers["x-forwarded-host"] == "shop.example.org"


@pytest.mark.parametrize(
    ("value", "client", "scheme", "server", "shown"),
    [
        ('for="[2001:db8::1]";proto=https;host="a:8443"', ("2001:db8::1", 0), "https", ("a", 8443), "[2001:db8::1]:0"),
        ("for=_secret;proto=https", None, "https", None, "_secret"),
        ("for=nonsense;proto=https", "peer", "http", None, "127.0.0.1"),
    ],
)
@in_loop
async def test_the_dialect_of_rfc_7239(
    value: str, client: Any, scheme: str, server: Any, shown: str, tmp_path: Path
) -> None:
    app, file = App(), tmp_path / "access.log"
    log = open_access_log(str(file), "{client}", this_process(1, 1), lambda _seconds, _call: None)
    proxy = Proxy(trusted=("127.0.0.1",), headers="forwarded")
    async with Server(app, config=edged(proxy=proxy), access_log=log) as running:
        address = running.sockets[0].getsockname()
        await ask(running, "http11", ("Forwarded", value), ("X-Forwarded-For", "6.6.6.6"))
    log.close()
    scope = app.scope
    if client == "peer":
        assert scope["client"][0] == "127.0.0.1"
    else:
        assert scope["client"] == client
    assert (scope["scheme"], scope["server"]) == (scheme, server or address)
    assert "x-forwarded-for" not in app.headers
    assert file.read_text().startswith(shown)


@in_loop
async def test_one_connection_carries_many_clients() -> None:
    """What was told of one request is not said of the next."""
    app = App()
    async with Server(app, config=edged(proxy=TRUSTING)) as server, connected(server) as client:
        for fields in (
            "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Host: a\r\n",
            "X-Forwarded-For: 203.0.113.8\r\n",
            "",
        ):
            await client.ask(f"GET / HTTP/1.1\r\nHost: own\r\n{fields}\r\n".encode())
    assert [scope["client"][0] for scope in app.scopes] == ["203.0.113.7", "203.0.113.8", "127.0.0.1"]
    assert [dict(scope["headers"])[b"host"] for scope in app.scopes] == [b"a", b"own", b"own"]


@pytest.mark.parametrize("trusted", [True, False])
@in_loop
async def test_a_unix_socket(trusted: bool, tmp_path: Path) -> None:
    app = App()
    proxy = Proxy(trusted=("unix",) if trusted else ("127.0.0.1",), headers="x-forwarded")
    async with Server(app, config=edged(f"unix:{tmp_path}/s", proxy=proxy)) as server:
        await ask(server, "http11", ("X-Forwarded-For", "203.0.113.7"))
    assert app.scope["client"] == (("203.0.113.7", 0) if trusted else None)


# Allowed hosts


@every_way
@in_loop
async def test_a_host_that_is_not_ours(way: str) -> None:
    app = App()
    async with Server(app, config=edged(allowed_hosts=("asgiri.test",))) as server:
        answer = await ask(server, way, host="evil.test")
        assert answer.status == 400
        assert not app.scopes
        await ask(server, way, host="ASGIRI.test.:8000")
    assert app.scope["path"] == "/a"


@in_loop
async def test_the_connection_is_kept() -> None:
    async with Server(App(), config=edged(allowed_hosts=("asgiri.test",))) as server, connected(server) as client:
        refused = await client.ask(b"POST / HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 2\r\n\r\nab")
        assert (refused.status, refused.closes) == (400, False)
        assert refused.body == b"400 Bad Request: this host is not served here\n"
        assert (await client.ask(b"GET / HTTP/1.1\r\nHost: asgiri.test\r\n\r\n")).status == 200
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 400


@pytest.mark.parametrize(
    ("entry", "yes", "no"),
    [
        ("a.org", ["a.org", "A.Org", "a.org.", "a.org:80"], ["x.a.org", "", "xa.org", "a.org.evil"]),
        ("*.a.org", ["x.a.org", "x.y.a.org:80", "X.A.Org."], ["a.org", ".a.org", "xa.org", "x.a.org.evil"]),
        ("*.a.org", ["x_1-a.a.org"], ["'-f()-'.a.org", "e&.a.org", "e%2f.a.org", "x..a.org", "*.a.org", "[x.a.org]"]),
        ("a.org", [], ["[a.org]", "[a.org]:80"]),
        ("[2001:db8::1]", ["[2001:DB8:0::1]", "[2001:db8::1]:80"], ["[2001:db8::2]", "2001"]),
        ("127.0.0.1", ["127.0.0.1:8000"], ["127.0.0.2", "[127.0.0.1]"]),
        ("*", ["anything"], []),
    ],
)
def test_hosts(entry: str, yes: list[str], no: list[str]) -> None:
    hosts = Hosts([entry])
    for _ in range(2):  # the second time they are known
        assert [host for host in yes if not hosts.allow([(b"host", host.encode())])] == []
        assert [host for host in no if hosts.allow([(b"host", host.encode())])] == []
    assert Hosts([]).allow([])


def test_what_proxies_say_is_remembered_within_bounds() -> None:
    edge = Edge(["127.0.0.1"], "x-forwarded", b"", [])
    plain = [(b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-proto", b"https")]
    assert edge.told(plain) is edge.told(plain)
    many = [(b"x-forwarded-host", b"")] * 90  # no values, and still kilobytes
    assert edge.told(many) is not edge.told(many)
