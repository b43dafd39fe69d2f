"""The application of test_flow_http2.py: large bodies both ways, and an account of what waits where."""

from __future__ import annotations

import json
import os
from typing import Any

MIB = 1 << 20
PIECE = 64 << 10
LARGE = 100 * MIB
MEDIUM = 8 * MIB

whole = b""  # an answer that is one message, made when it is first asked for
begun = 0  # large answers that have begun
sending = 0  # large answers that wait for a send to return
accepted = 0  # bytes of large answers whose send has returned


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    match scope["path"]:
        case "/large":
            await large(send, LARGE, PIECE)
        case "/whole":
            await large(send, LARGE, LARGE)
        case "/medium":
            await large(send, MEDIUM, PIECE)
        case "/upload":
            await upload(receive, send)
        case _:
            found = {"pid": os.getpid(), "begun": begun, "sending": sending, "accepted": accepted}
            await answer(send, json.dumps(found).encode())


async def large(send: Any, size: int, piece: int) -> None:
    """An answer of ``size`` bytes in pieces; small ones are objects of their own, as those of a file are."""
    global whole, begun, sending, accepted
    begun += 1
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
    for offset in range(0, size, piece):
        body = bytes(piece) if piece < LARGE else (whole := whole or b"x" * LARGE)
        sending += 1
        try:
            await send({"type": "http.response.body", "body": body, "more_body": offset + piece < size})
        finally:
            sending -= 1
        accepted += piece


async def upload(receive: Any, send: Any) -> None:
    """Take the body as it comes, and tell its size."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message["body"])
        more = message["more_body"]
    await answer(send, b"%d" % size)


async def answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
