"""The scope of a request, exactly."""

from __future__ import annotations

from typing import Any

import pytest

from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext, Peers, http_scope, scope_template, websocket_scope
from asgiri.codec.events import Request
from asgiri.types import Message, Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("nobody calls it")


TCP = Peers(client=("192.0.2.7", 40000), server=("192.0.2.1", 80))


def request(path: bytes = b"/", query: bytes = b"", **more: Any) -> Request:
    parts: dict[str, Any] = {"headers": [(b"host", b"a")], "http_version": "1.1", "end_stream": True}
    target = path + (b"?" + query if query else b"")
    made = Request(1, "GET", target, path, query, **(parts | more))
    made.id = "5f3a9c1e-7-1"
    return made


def scope_of(path: bytes, root_path: str = "") -> Scope:
    return http_scope(request(path), scope_template(TCP, AppContext(app, root_path)), AppContext(app, root_path))


def test_the_whole_scope() -> None:
    headers = [(b"host", b"a"), (b"x", b"1"), (b"x", b"2")]
    context = AppContext(app, "/api", {"db": 1}, {"http.response.trailers": {}}, [(b"server", b"asgiri")])
    assert http_scope(request(b"/p%20q", b"a=%20", headers=headers), scope_template(TCP, context), context) == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/p q",
        "raw_path": b"/api/p%20q",
        "query_string": b"a=%20",
        "root_path": "/api",
        "headers": headers,
        "client": ("192.0.2.7", 40000),
        "server": ("192.0.2.1", 80),
        "state": {"db": 1, "request_id": "5f3a9c1e-7-1"},
        "extensions": {"http.response.trailers": {}},
    }


def test_the_types_are_the_ones_of_the_spec() -> None:
    scope = scope_of(b"/a%C3%A9", "/r")
    strings = ("type", "http_version", "method", "scheme", "path", "root_path")
    assert {key: type(scope[key]) for key in (*strings, "raw_path", "query_string")} == {
        **dict.fromkeys(strings, str),
        "raw_path": bytes,
        "query_string": bytes,
    }
    assert [tuple(map(type, field)) for field in scope["headers"]] == [(bytes, bytes)]


@pytest.mark.parametrize(
    ("raw_path", "path"),
    [
        (b"/", "/"),
        (b"/a/b", "/a/b"),
        (b"/caf%C3%A9", "/café"),
        (b"/caf%c3%a9", "/café"),
        (b"/a%2Fb", "/a/b"),
        (b"/a%25b", "/a%b"),
        (b"/a%2525", "/a%25"),
        (b"/%00", "/\x00"),
        (b"/a+b", "/a+b"),
        (b"/a%zz%4%", "/a%zz%4%"),
        (b"/%ff/%C3", "/\ufffd/\ufffd"),
        (b"/\xff", "/\ufffd"),
        (b"/%F0%9F%90%8D", "/\U0001f40d"),
        (b"//a/../b", "//a/../b"),
        (b"*", "*"),
    ],
)
def test_paths_are_decoded_once(raw_path: bytes, path: str) -> None:
    scope = scope_of(raw_path)
    assert (scope["path"], scope["raw_path"]) == (path, raw_path)


@pytest.mark.parametrize(
    ("root_path", "came", "path", "raw_path"),
    [
        ("", b"/a", "/a", b"/a"),
        ("/api", b"/a", "/api/a", b"/api/a"),
        ("/api", b"/", "/api/", b"/api/"),
        ("/api", b"/api", "/api", b"/api"),
        ("/api", b"/api/a", "/api/a", b"/api/a"),
        ("/api", b"/apis", "/api/apis", b"/api/apis"),
        ("/api", b"/a%2Fb", "/api/a/b", b"/api/a%2Fb"),
        ("/a/b", b"/c", "/a/b/c", b"/a/b/c"),
        ("/caf\u00e9 1", b"/c", "/caf\u00e9 1/c", b"/caf%C3%A9%201/c"),
        ("/caf\u00e9", b"/caf%C3%A9/c", "/caf\u00e9/c", b"/caf%C3%A9/c"),
        ("/api", b"*", "*", b"*"),
    ],
)
def test_root_path_is_part_of_both_paths(root_path: str, came: bytes, path: str, raw_path: bytes) -> None:
    scope = scope_of(came, root_path)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root_path, path, raw_path)


def test_a_unix_socket_has_no_client_and_its_path_as_the_server() -> None:
    scope = http_scope(
        request(), scope_template(Peers(None, ("/run/asgiri.sock", None), "https"), AppContext(app)), AppContext(app)
    )
    assert (scope["client"], scope["server"], scope["scheme"]) == (None, ("/run/asgiri.sock", None), "https")


def test_a_connection_may_have_extensions_of_its_own() -> None:
    tls: dict[str, Any] = {"server_cert": None, "tls_version": 0x0304}
    context = AppContext(app, extensions={"asgiri": {"worker": 1}, "http.response.trailers": {}})
    secure = Peers(TCP.client, TCP.server, "https", {"tls": tls})
    first, second = (http_scope(request(), scope_template(secure, context), context)["extensions"] for _ in range(2))
    assert first == {"asgiri": {"worker": 1}, "http.response.trailers": {}, "tls": tls}
    first.clear()
    assert "tls" in second
    assert secure.extensions == {"tls": tls}
    assert "tls" not in context.extensions
    assert "tls" not in http_scope(request(), scope_template(TCP, context), context)["extensions"]


@pytest.mark.parametrize("key", ["state", "extensions"])
def test_each_request_has_its_own(key: str) -> None:
    shared: Message = {"pool": object()}
    context = AppContext(app, state=dict(shared), extensions=dict(shared))
    first, second = (http_scope(request(), scope_template(TCP, context), context)[key] for _ in range(2))
    first["mine"] = 1
    assert second == (shared if key == "extensions" else {**shared, "request_id": "5f3a9c1e-7-1"})
    assert second["pool"] is shared["pool"], "a shallow copy (ASGI lifespan: state)"
    assert getattr(context, key) == shared


# A WebSocket's


def websocket_scope_of(path: bytes, peers: Peers = TCP, **more: Any) -> Scope:
    context = AppContext(app, **more)
    return websocket_scope(request(path, b"a=%20"), scope_template(peers, context), context, ["chat", "v2"])


def test_the_whole_scope_of_a_websocket() -> None:
    extensions: dict[str, dict[str, Any]] = {**HTTP_EXTENSIONS, "asgiri": {"worker": 1}}
    assert websocket_scope_of(b"/p%20q", root_path="/api", state={"db": 1}, extensions=extensions) == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/api/p q",
        "raw_path": b"/api/p%20q",
        "query_string": b"a=%20",
        "root_path": "/api",
        "headers": [(b"host", b"a")],
        "client": ("192.0.2.7", 40000),
        "server": ("192.0.2.1", 80),
        "subprotocols": ["chat", "v2"],
        "state": {"db": 1, "request_id": "5f3a9c1e-7-1"},
        "extensions": {"asgiri": {"worker": 1}, "websocket.http.response": {}},
    }


def test_a_websocket_over_tls_says_so() -> None:
    tls: dict[str, Any] = {"tls_version": 0x0304}
    scope = websocket_scope_of(b"/", Peers(TCP.client, TCP.server, "https", {"tls": tls}))
    assert (scope["scheme"], scope["extensions"]) == ("wss", {"tls": tls, "websocket.http.response": {}})


def test_a_websocket_over_http2_is_one_of_it() -> None:
    context = AppContext(app)
    connect = Request(1, "CONNECT", b"/", b"/", b"", [], "2", False, False, b"websocket")
    scope = websocket_scope(connect, scope_template(TCP, context), context, [])
    assert (scope["http_version"], scope["subprotocols"], "method" in scope) == ("2", [], False)


@pytest.mark.parametrize("key", ["state", "extensions"])
def test_each_websocket_has_its_own(key: str) -> None:
    context = AppContext(app, state={"pool": 1}, extensions={"pool": {}})
    template = scope_template(TCP, context)
    first, second = (websocket_scope(request(), template, context, [])[key] for _ in range(2))
    first["mine"] = 1
    assert "mine" not in second
    assert "mine" not in getattr(context, key)
    assert "websocket.http.response" not in http_scope(request(), template, context)["extensions"]
