"""The built-in demo application: what a newcomer sees first, and what the server is tried out with.

It uses the standard library alone, and of ASGI 3.0 what any application may use: nothing here knows the
server, but for the optional ``extensions["asgiri"]`` of the scope.
"""

from __future__ import annotations

import asyncio
import math
import platform
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from html import escape
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote

from asgiri import __version__
from asgiri.demo.pages import NOT_FOUND, PAGE, SCRIPT_HASH, STYLE, TALK

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_TEXT = b"text/plain; charset=utf-8"
_HTML = b"text/html; charset=utf-8"

# For every answer: nothing is to be cached, sniffed, framed, or run.
_GUARDS: Headers = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]
_PAGE_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# For the page that speaks to /ws: its one script, and its own origin, which a WebSocket counts as of.
_TALK_POLICY = _PAGE_POLICY + b"; script-src " + SCRIPT_HASH + b"; connect-src 'self'"
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'; sandbox"

_READS = frozenset({"GET", "HEAD"})
_UPLOADS = frozenset({"POST", "PUT", "PATCH"})
_BODILESS = frozenset({204, 205, 304})

_MOST_LINES = 1000
_LONGEST_INTERVAL = 10.0  # seconds
_LONGEST_WAIT = 600.0  # seconds


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI 3.0 application: answers HTTP, lifespan, and a WebSocket at /ws.

    Raises ValueError for a scope of another type.
    """
    kind = scope["type"]
    if kind == "lifespan":
        await _lifespan(receive, send)
    elif kind in ("http", "websocket"):
        try:
            await (_http if kind == "http" else _websocket)(scope, receive, send)
        except OSError:  # send() after the client had gone (ASGI HTTP spec 2.4): nobody is left to answer
            pass
    else:
        raise ValueError(f"the demo does not know the scope type {kind!r}")


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def _http(scope: Scope, receive: Receive, send: Send) -> None:
    path = _path(scope)
    if path == "/echo":
        await _echo(scope, receive, send)
        return
    handler = _status if path.startswith("/status/") else _READ_ONLY.get(path, _not_found)
    if scope["method"] not in _READS and handler is not _not_found:
        await _method_not_allowed(scope, send, "GET, HEAD")
        return
    await handler(scope, receive, send)


def _path(scope: Scope) -> str:
    """The path below ``root_path``."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] or "/" if path == root or path.startswith(f"{root}/") else path


# Answers


async def _answer(
    scope: Scope,
    send: Send,
    body: str,
    *,
    status: int = 200,
    content_type: bytes = _TEXT,
    policy: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Answer in one piece, ``body`` as UTF-8; a HEAD gets its length alone (RFC 9110 section 9.3.2)."""
    data = body.encode("utf-8", "backslashreplace")
    length = (b"content-length", str(len(data)).encode("ascii"))
    fields = [*_head(content_type, policy), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else data})


def _head(content_type: bytes, policy: bytes | None = None) -> Headers:
    policy = policy or (_PAGE_POLICY if content_type == _HTML else _DATA_POLICY)
    return [(b"content-type", content_type), *_GUARDS, (b"content-security-policy", policy)]


async def _method_not_allowed(scope: Scope, send: Send, allow: str) -> None:
    text = f"{scope['method']} is not allowed here, only {allow}.\n"
    await _answer(scope, send, text, status=405, headers=((b"allow", allow.encode("ascii")),))


async def _not_found(scope: Scope, _receive: Receive, send: Send) -> None:
    page = NOT_FOUND.substitute(style=STYLE, path=escape(scope["path"]), home=_link(scope, "/"))
    await _answer(scope, send, page, status=404, content_type=_HTML)


# /echo


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["method"] in _UPLOADS:
        await _echo_body(scope, receive, send)
    elif scope["method"] in ("TRACE", "CONNECT"):
        await _method_not_allowed(scope, send, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    else:
        await _answer(scope, send, _request_as_text(scope))


async def _echo_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Send the body back as it arrives, byte for byte, under its own content type and length."""
    fields = _head(_header(scope, b"content-type") or b"application/octet-stream")
    if length := _header(scope, b"content-length"):
        fields.append((b"content-length", length))
    # The first piece comes before the answer starts: it is receive() that lets "Expect: 100-continue" go on.
    message = await receive()
    if message["type"] == "http.disconnect":
        return
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    more = True
    while more and message["type"] == "http.request":
        more = message.get("more_body", False)
        await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})
        if more:
            message = await receive()


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for field, value in scope["headers"] if field == name), None)


def _request_as_text(scope: Scope) -> str:
    lines = [f"{scope['method']} {_target(scope)} HTTP/{scope['http_version']}"]
    lines += [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in scope["headers"]]
    return "\n".join(lines) + "\n"


def _target(scope: Scope) -> str:
    """The request target as it was sent, as nearly as the scope tells it."""
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw is not None else quote(scope["path"])
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path


# /stream and /slow


async def _stream(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        count = int(_parameter(scope, "count", 10, _MOST_LINES))
        interval = _parameter(scope, "interval", 0.2, _LONGEST_INTERVAL)
    except ValueError as error:
        await _answer(scope, send, f"{error}\n", status=400)
        return
    await send({"type": "http.response.start", "status": 200, "headers": _head(_TEXT)})
    if scope["method"] != "HEAD":
        async with _watch(receive) as gone:
            for number in range(1, count + 1):
                line = f"line {number} of {count}\n".encode("ascii")
                await send({"type": "http.response.body", "body": line, "more_body": True})
                if number < count and await _pause(gone, interval):
                    return
    await send({"type": "http.response.body"})


async def _slow(scope: Scope, receive: Receive, send: Send) -> None:
    try:
        seconds = _parameter(scope, "seconds", 3.0, _LONGEST_WAIT)
    except ValueError as error:
        await _answer(scope, send, f"{error}\n", status=400)
        return
    async with _watch(receive) as gone:
        if await _pause(gone, seconds):
            return
    await _answer(scope, send, f"This answer took {seconds:g} seconds.\n")


def _parameter(scope: Scope, name: str, default: float, most: float) -> float:
    """A number of the query string, held within 0 and ``most``. Raises ValueError when it is no number."""
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    text = query.get(name, [str(default)])[-1]
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name} must be a number between 0 and {most:g}")
    return min(max(number, 0.0), most)


@asynccontextmanager
async def _watch(receive: Receive) -> AsyncIterator[asyncio.Task[None]]:
    """A task that ends when the client goes away; it does not outlive the block."""
    gone = asyncio.create_task(_until_disconnect(receive))
    try:
        yield gone
    finally:
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _pause(gone: asyncio.Task[None], seconds: float) -> bool:
    """Wait so long, or until the client has gone: then True."""
    done, _ = await asyncio.wait({gone}, timeout=seconds)
    return bool(done)


# /ws


async def _websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Send each message back as it came, until the client closes or says "close"."""
    await receive()
    if _path(scope) != "/ws":
        await send({"type": "websocket.close"})  # before accepting: the server answers 403 (ASGI spec, "Close")
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 1000, "reason": "as you said"})
            return
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def _talk(scope: Scope, _receive: Receive, send: Send) -> None:
    """The page at /ws for a browser that comes by HTTP."""
    page = TALK.substitute(style=STYLE, path=_link(scope, "/ws"), home=_link(scope, "/"))
    await _answer(scope, send, page, content_type=_HTML, policy=_TALK_POLICY)


# /status/NNN


async def _status(scope: Scope, _receive: Receive, send: Send) -> None:
    code = _path(scope).removeprefix("/status/")
    if not re.fullmatch("[2-5][0-9][0-9]", code):
        await _answer(scope, send, "A status is a number from 200 to 599.\n", status=404)
        return
    status = int(code)
    if status in _BODILESS:
        headers = [*_GUARDS, (b"content-length", b"0")] if status == HTTPStatus.RESET_CONTENT else _GUARDS
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body"})
        return
    await _answer(scope, send, f"{status} {_phrase(status)}".strip() + "\n", status=status)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


# The page


async def _page(scope: Scope, _receive: Receive, send: Send) -> None:
    facts = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _facts(scope))
    links = {name: _link(scope, target) for name, target in _LINKS.items()}
    page = PAGE.substitute(style=STYLE, facts=facts, version=escape(_server_version(scope)), **links)
    await _answer(scope, send, page, content_type=_HTML)


def _facts(scope: Scope) -> list[tuple[str, str]]:
    """What the page tells of the request and of who answered it, as plain text."""
    server = _extension(scope)
    return [
        ("Protocol", f"HTTP/{scope['http_version']}"),
        ("Scheme", str(scope.get("scheme", "http"))),
        ("Client", _address(scope.get("client"))),
        ("Server", _address(scope.get("server"))),
        ("Worker", _or_dash(server.get("worker"))),
        ("Generation", _or_dash(server.get("generation"))),
        ("Process", _or_dash(server.get("pid"))),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
    ]


def _extension(scope: Scope) -> MutableMapping[str, Any]:
    found: MutableMapping[str, Any] = (scope.get("extensions") or {}).get("asgiri") or {}
    return found


def _server_version(scope: Scope) -> str:
    return str(_extension(scope).get("version", __version__))


def _or_dash(value: object) -> str:
    return "\N{EN DASH}" if value is None else str(value)


def _address(pair: tuple[str, int | None] | None) -> str:
    """``host:port``, ``[v6]:port``, or the path of a Unix socket."""
    if not pair or not pair[0]:
        return _or_dash(None)
    host, port = pair
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _link(scope: Scope, target: str) -> str:
    return escape(quote(scope.get("root_path", "").rstrip("/")) + target)


_READ_ONLY: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]] = {
    "/": _page,
    "/stream": _stream,
    "/slow": _slow,
    "/ws": _talk,
}

_LINKS = {
    "echo": "/echo",
    "stream": "/stream",
    "slow": "/slow?seconds=3",
    "status": "/status/418",
    "websocket": "/ws",
}
