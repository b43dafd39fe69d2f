"""One of several replicas: it tells which, and what came to it of a request, after as long as it is asked to take."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any
from urllib.parse import parse_qs


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    match scope["type"]:
        case "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
        case "websocket":
            await echo(scope, receive, send)
        case _ if scope["path"] == "/trailers":
            await trailers(send)
        case _:
            size = await taken(receive)
            query = parse_qs(scope["query_string"].decode())
            await asyncio.sleep(float(query.get("seconds", ["0"])[-1]))
            body = json.dumps(seen(scope) | {"size": size}).encode()
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
            )
            await send({"type": "http.response.body", "body": body})


def seen(scope: dict[str, Any]) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "replica": os.environ["REPLICA"],
        **{name: scope.get(name) for name in ("type", "http_version", "scheme", "client", "server")},
        "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        "id": scope["state"]["request_id"],
    }


async def taken(receive: Any) -> int:
    """The size of the whole body."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        size += len(message["body"])
        more = message["more_body"]
    return size


async def trailers(send: Any) -> None:
    """As gRPC has it: the status comes behind the body."""
    headers = [(b"content-type", b"application/grpc"), (b"trailer", b"grpc-status")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    await send({"type": "http.response.body", "body": b"message"})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Tell what was seen, then say again what comes."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": json.dumps(seen(scope))})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
