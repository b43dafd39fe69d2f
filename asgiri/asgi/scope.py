"""The one place that builds a connection scope (ASGI spec 3.0, HTTP and WebSocket 2.5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from asgiri.codec.events import Request
from asgiri.types import ASGIApp, Headers, KnownHeaders, Scope

# The byte: to look for b"%" takes seven times as long, for ``in`` first sees whether that is a number.
PERCENT: Final = 0x25
FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
ASGI_VERSION: Final = "3.0"
HTTP_SPEC_VERSION: Final = "2.5"
WEBSOCKET_SPEC_VERSION: Final = "2.5"
LIFESPAN_SPEC_VERSION: Final = "2.0"


# The extensions of HTTP messages that every connection can do. A message of an extension is known to a session only
# when its context offers it.
HTTP_EXTENSIONS: Final[dict[str, dict[str, Any]]] = {
    "http.response.trailers": {},
    "http.response.early_hint": {},
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}

# Those of WebSocket messages.
WEBSOCKET_EXTENSIONS: Final[dict[str, dict[str, Any]]] = {"websocket.http.response": {}}

# Scheme of a connection -> that of a WebSocket on it.
WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}


@dataclass(frozen=True, slots=True)
class Announced:
    """What a trusted proxy has said of a connection, in a header of the PROXY protocol.

    ``client`` and ``server`` are as in :class:`Peers`, a ``server`` of None is the connection's own. ``secure``: the
    client came over TLS, which the proxy has ended. ``details`` are the scope's extension ``proxy_protocol``. Where it
    does not know the two ends (``tells_ends``), they are the connection's own.
    """

    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    secure: bool
    details: dict[str, Any]
    tells_ends: bool = True


@dataclass(frozen=True, slots=True)
class Peers:
    """Who talks to whom, and how: made once a connection.

    ``client`` is None on a unix socket, whose ``server`` is its path. ``extensions`` are the scope's extensions that
    this connection alone has (``tls``). Where the real peer is a proxy that speaks for ``client``, it has ``announced``
    that.
    """

    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str = "http"
    extensions: dict[str, dict[str, Any]] = field(default_factory=dict)
    announced: Announced | None = None


@dataclass(slots=True)
class AppContext:
    """What all sessions of one server share.

    ``state`` is what the lifespan left for the requests; each gets a shallow copy. ``extensions`` are the scope's
    extensions that all connections have. ``default_headers`` are added to an answer where the app set none of that
    name; the server keeps their date fresh.
    """

    app: ASGIApp
    root_path: str = ""
    state: dict[str, Any] = field(default_factory=dict)
    extensions: dict[str, dict[str, Any]] = field(default_factory=dict)
    default_headers: Headers = field(default_factory=list)
    # Names that the server looks for in an answer: of the default headers, and those that tell its length.
    watched: frozenset[bytes] = field(init=False)
    # Heads of answers that were judged since the default headers were set, by what the application said.
    known_heads: dict[object, KnownHeaders] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watched = FRAMING.union(name for name, _ in self.default_headers)

    def set_default_headers(self, fields: Headers) -> None:
        """Take other default headers from the next answer on."""
        if fields == self.default_headers:
            return
        self.known_heads.clear()
        self.default_headers = fields
        self.watched = FRAMING.union(name for name, _ in fields)


def scope_template(peers: Peers, context: AppContext) -> dict[str, Any]:
    """What the scopes of all requests of one connection have in common, and a place for what they have not."""
    return {
        "type": "http",
        "asgi": None,
        "http_version": "1.1",
        "method": "",
        "scheme": peers.scheme,
        "path": "",
        "raw_path": b"",
        "query_string": b"",
        "root_path": context.root_path,
        "headers": None,
        "client": peers.client,
        "server": peers.server,
        "state": None,
        "extensions": context.extensions | peers.extensions,
    }


def http_scope(request: Request, template: dict[str, Any], context: AppContext) -> Scope:
    """The scope of one HTTP request.

    ``path`` is percent-decoded UTF-8 (what is no UTF-8 becomes U+FFFD), ``raw_path`` is as received, without the
    query. Both begin with ``root_path``: a proxy that strips the prefix gets it put back (``*`` is no path and has
    none).
    """
    path, raw_path = paths(request.path, context.root_path)
    scope = template.copy()
    scope["asgi"] = {"version": ASGI_VERSION, "spec_version": HTTP_SPEC_VERSION}
    scope["http_version"] = request.http_version
    scope["method"] = request.method
    scope["path"] = path
    scope["raw_path"] = raw_path
    scope["query_string"] = request.query
    scope["headers"] = request.headers
    scope["state"] = context.state.copy()
    scope["extensions"] = scope["extensions"].copy()
    return scope


def websocket_scope(request: Request, template: dict[str, Any], context: AppContext, subprotocols: list[str]) -> Scope:
    """The scope of one WebSocket, from the request that asks for it.

    ``template`` is the one of the connection's HTTP requests. Paths are as in :func:`http_scope`, ``subprotocols`` as
    the peer offers them.
    """
    path, raw_path = paths(request.path, context.root_path)
    extensions = {name: value for name, value in template["extensions"].items() if name not in HTTP_EXTENSIONS}
    scheme = template["scheme"]
    return {
        "type": "websocket",
        "asgi": {"version": ASGI_VERSION, "spec_version": WEBSOCKET_SPEC_VERSION},
        "http_version": request.http_version,
        "scheme": WEBSOCKET_SCHEMES.get(scheme, scheme),
        "path": path,
        "raw_path": raw_path,
        "query_string": request.query,
        "root_path": template["root_path"],
        "headers": request.headers,
        "client": template["client"],
        "server": template["server"],
        "subprotocols": subprotocols,
        "state": context.state.copy(),
        "extensions": extensions | WEBSOCKET_EXTENSIONS,
    }


def paths(raw_path: bytes, root_path: str) -> tuple[str, bytes]:
    """``path`` and ``raw_path`` of a scope, as :func:`http_scope` says."""
    path = (unquote_to_bytes(raw_path) if PERCENT in raw_path else raw_path).decode("utf-8", "replace")
    if root_path and path != "*" and path != root_path and not path.startswith(root_path + "/"):
        return root_path + path, quote(root_path).encode("ascii") + raw_path
    return path, raw_path
