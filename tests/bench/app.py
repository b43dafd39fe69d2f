"""The application that every server runs: plain ASGI 3, no framework, as little work of its own as can be."""

from __future__ import annotations

import os
from typing import Any

HELLO = b"Hello, world!"
KIB = b"0123456789abcdef" * 64

PAGES = {"/": HELLO, "/10k": 10 * KIB, "/100k": 100 * KIB}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """``/``, ``/10k``, ``/100k`` and all below ``/any/`` answer a text, ``/echo`` the body, ``/pid`` the process.

    A WebSocket gets its messages back.
    """
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path = scope["path"]
    if path in PAGES:
        body = PAGES[path]
    elif path.startswith("/any/"):
        body = HELLO
    elif path == "/echo":
        body = await read(receive)
    elif path == "/pid":
        body = str(os.getpid()).encode()
    else:
        raise LookupError(path)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    """The whole body of the request."""
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body") or b""
        if not message.get("more_body"):
            return body


async def echo(receive: Any, send: Any) -> None:
    """Send back each binary message until the WebSocket is over."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
