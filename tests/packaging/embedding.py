"""A program that embeds the server, with strict types: it is checked against an installed asgiri, and run with it."""

from __future__ import annotations

import asyncio

from asgiri.config.schema import Config
from asgiri.server import HttpProtocolVersion, Server
from asgiri.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Say hello."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def main() -> bytes:
    """The answer to one request."""
    async with Server(app, port=0, http_version=HttpProtocolVersion.HTTP_1_1, config=Config(lifespan="off")) as server:
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    return answer


if __name__ == "__main__":
    answer = asyncio.run(main())
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert answer.endswith(b"hello"), answer
