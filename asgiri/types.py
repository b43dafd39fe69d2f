"""The ASGI types, as the ASGI spec 3.0 names them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# Header fields in the order of the wire; names in lower case.
Headers = list[tuple[bytes, bytes]]


class KnownHeaders(Headers):
    """The whole head of an answer that applications send again and again, as long as it stays as it is.

    ``length`` is its Content-Length and ``framed`` says that the application named that or a transfer coding itself.
    ``http1`` and ``http2`` are what a codec made of it, for the next time; empty until then. Nobody changes the list.
    """

    __slots__ = ("framed", "http1", "http2", "length", "status")

    def __init__(self, status: int, fields: Headers, length: int | None, framed: bool) -> None:
        super().__init__(fields)
        self.status = status
        self.length = length
        self.framed = framed
        self.http1 = b""
        self.http2 = b""
