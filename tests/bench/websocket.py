"""WebSocket's side of the harness: how its load generator is called and what it prints, and idle WebSockets."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.bench.client import SOURCES, TIMEOUT, IdleConnections, ServerError
from tests.bench.load import LoadError, Outcome

CLIENT = Path(__file__).parent / "websocket_client.py"


@dataclass(frozen=True, slots=True)
class WebSocketLoad:
    """``streams``: WebSockets on each connection. ``flight``: messages under way on each of them. ``size``: bytes."""

    connections: int
    streams: int
    flight: int
    size: int


def command(python: Path, port: int, load: WebSocketLoad, *, http: int, seconds: float) -> list[str]:
    """``http`` is 1 or 2. The script stands alone (-P), for the servers' interpreter runs it."""
    found = [str(python), "-P", str(CLIENT), str(port), str(seconds), "--http", str(http)]
    for name in ("connections", "streams", "flight", "size"):
        found += [f"--{name}", str(getattr(load, name))]
    return found


def parse(text: str) -> Outcome:
    """The outcome from what the client prints. Raises LoadError."""
    try:
        said = json.loads(text)
        messages, elapsed = int(said["messages"]), float(said["elapsed"])
        return Outcome(messages, messages / elapsed, elapsed, said["latency"], said["errors"])
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise LoadError(f"the WebSocket client printed {text.strip() or 'nothing'}") from error


class IdleWebSockets(IdleConnections):
    """``count`` WebSockets over HTTP/1.1 that have each had a message of ``body`` back, and wait.

    ``compressed``: permessage-deflate is offered, so that what the server keeps for it counts too.
    """

    def __init__(self, port: int, count: int, body: bytes, *, compressed: bool) -> None:
        fields = ["Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        fields += ["Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="]
        fields += ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"] if compressed else []
        self._request = "\r\n".join(["GET /ws HTTP/1.1", *fields, "\r\n"]).encode()
        super().__init__(port, count, body)

    def _open(self, port: int, number: int, body: bytes) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), TIMEOUT, (f"127.0.0.{1 + number % SOURCES}", 0))
        try:
            sock.sendall(self._request)
            with sock.makefile("rb") as answer:
                status = answer.readline()
                if not status.startswith(b"HTTP/1.1 101 "):
                    raise ServerError(f"answered a handshake with {status!r}")
                while answer.readline().strip():
                    pass
                sock.sendall(bytes((0x82, 0x80 | len(body), 0, 0, 0, 0)) + body)  # a mask of 0 is one too
                first, size = answer.read(2)
                if first & 0x8F != 0x82 or len(answer.read(size)) != size:
                    raise ServerError("sent something else back than a message")
        except BaseException:
            sock.close()
            raise
        return sock
