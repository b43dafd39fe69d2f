"""The one place that builds a connection scope (ASGI spec 3.0, HTTP and WebSocket 2.5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from asgiri.codec.events import Request
from asgiri.types import ASGIApp, Scope

ASGI_VERSION = "3.0"
HTTP_SPEC_VERSION = "2.5"
LIFESPAN_SPEC_VERSION = "2.0"


@dataclass(frozen=True, slots=True)
class Peers:
    """Who talks to whom: made once a connection. ``client`` is None on a unix socket, whose ``server`` is its path."""

    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    scheme: str = "http"


@dataclass(slots=True)
class AppContext:
    """What all sessions of one server share.

    ``state`` is what the lifespan left for the requests; each gets a shallow copy. ``extensions`` are the scope's
    extensions. ``default_headers`` are added to an answer where the app set none of that name; the server keeps
    their date fresh.
    """

    app: ASGIApp
    root_path: str = ""
    state: dict[str, Any] = field(default_factory=dict)
    extensions: dict[str, dict[str, Any]] = field(default_factory=dict)
    default_headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def http_scope(request: Request, peers: Peers, context: AppContext) -> Scope:
    """The scope of one HTTP request.

    ``path`` is percent-decoded UTF-8 (what is no UTF-8 becomes U+FFFD), ``raw_path`` is as received, without the
    query. Both begin with ``root_path``: a proxy that strips the prefix gets it put back (``*`` is no path and has
    none).
    """
    raw_path = request.path
    plain = unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path
    path = plain.decode("utf-8", "replace")
    root_path = context.root_path
    if root_path and path != "*" and path != root_path and not path.startswith(root_path + "/"):
        path = root_path + path
        raw_path = quote(root_path).encode("ascii") + raw_path
    return {
        "type": "http",
        "asgi": {"version": ASGI_VERSION, "spec_version": HTTP_SPEC_VERSION},
        "http_version": request.http_version,
        "method": request.method,
        "scheme": peers.scheme,
        "path": path,
        "raw_path": raw_path,
        "query_string": request.query,
        "root_path": root_path,
        "headers": request.headers,
        "client": peers.client,
        "server": peers.server,
        "state": context.state.copy(),
        "extensions": context.extensions.copy(),
    }
