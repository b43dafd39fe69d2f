"""The parts that the table of WebSocket frames is made of. What an engine must make of it is in test_ws_table.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asgiri.codec.contract import Deflate
from asgiri.codec.events import Binary, Close, Failure, Text, WebSocketEvent
from tests.codec.ws_wire import CLOSE, FIN, PONG, Sent


@dataclass(frozen=True)
class Row:
    """``data`` makes ``events`` and has the engine write ``sent``.

    A row whose last event is a Failure fails at the last byte of ``data``, and not before, unless it is ``late``:
    then somewhere in it. ``most``: the largest message. ``why``: where RFC 6455 leaves a choice, or is easily misread.
    """

    name: str
    data: bytes
    events: tuple[WebSocketEvent, ...]
    sent: tuple[Sent, ...] = ()
    most: int = 0
    deflate: Deflate | None = None
    late: bool = False
    why: str = ""

    @property
    def fails(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Failure)

    @property
    def ends(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Failure | Close)


def row(name: str, data: bytes, *events: WebSocketEvent, **more: Any) -> Row:
    return Row(name, data, events, **more)


def broken(name: str, code: int, data: bytes, *before: WebSocketEvent, **more: Any) -> Row:
    sent = (*more.pop("sent", ()), Sent(FIN | CLOSE, code.to_bytes(2, "big")))
    return Row(name, data, (*before, Failure(0, "", code)), sent, **more)


def text(value: str) -> Text:
    return Text(value, len(value.encode()))


def binary(value: bytes) -> Binary:
    return Binary(value)


def pong(payload: bytes) -> Sent:
    return Sent(FIN | PONG, payload)
