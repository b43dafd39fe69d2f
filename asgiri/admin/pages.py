"""What the admin child is asked, and the application that answers: the pages by path, for GET and HEAD."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from asgiri.admin.hosts import Hosts
from asgiri.types import Receive, Scope, Send

TEXT: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"


class Question(Struct, frozen=True):
    """What of a request a page is made by: the query as it came, and the Accept field, empty where there is none."""

    query: bytes = b""
    accept: str = ""


class Page(Struct, frozen=True):
    """What a path answers with. ``headers`` come to those that each page has."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


# The pages by path; each is made when it is asked for.
Routes: TypeAlias = Mapping[str, Callable[[Question], Page]]

OK: Final = Page(200, b"ok\n", TEXT)
NOT_FOUND: Final = Page(404, b"not found; there are / /status /history /metrics /livez /readyz\n", TEXT)
NOT_ALLOWED: Final = Page(405, b"only GET and HEAD are answered\n", TEXT, ((b"allow", b"GET, HEAD"),))
MISDIRECTED: Final = Page(421, b"this host is not served here: ask for localhost, or the address\n", TEXT)

# What was true a moment ago is worth nothing, and nobody is to take it for something else than it says.
_ALWAYS: Final = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def encode(what: object) -> bytes:
    """As a line of JSON; numbers that it has no word for are null."""
    return msgspec.json.encode(what) + b"\n"


class Admin:
    """The application. ``hosts`` says for which hosts it answers."""

    def __init__(self, routes: Routes, hosts: Hosts) -> None:
        self._routes = routes
        self._hosts = hosts

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a WebSocket: there is none here, which is a 403
            await send({"type": "websocket.close"})
            return
        page = self._answer(scope)
        headers = [
            (b"content-type", page.content_type),
            (b"content-length", b"%d" % len(page.body)),
            *_ALWAYS,
            *page.headers,
        ]
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page.body})

    def _answer(self, scope: Scope) -> Page:
        fields = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"accept")}
        if not self._hosts.serves(fields.get(b"host")):
            return MISDIRECTED
        make = self._routes.get(scope["path"])
        if make is None:
            return NOT_FOUND
        if scope["method"] not in ("GET", "HEAD"):
            return NOT_ALLOWED
        return make(Question(scope["query_string"], fields.get(b"accept", "")))
