"""A client's frames, a server's frames taken apart, and a codec's events as the tests compare them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, pairwise

import pytest

from asgiri.codec.contract import WebSocketCodec
from asgiri.codec.engines import WEBSOCKET_ENGINES
from asgiri.codec.events import Failure, WebSocketEvent

each_engine = pytest.mark.parametrize("engine", WEBSOCKET_ENGINES.values(), ids=WEBSOCKET_ENGINES)

KEY = b"\x37\xfa\x21\x3d"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10

# Data up to this long is cut at every byte; longer data at its beginning and at its end.
SHORT = 160
EDGE = 24


def masked(data: bytes, key: bytes = KEY) -> bytes:
    return bytes(byte ^ mask for byte, mask in zip(data, cycle(key), strict=False))


def length(size: int, form: int = 0) -> bytes:
    """The second byte of a masked frame's head, and the length behind it; ``form`` makes it longer than it must be."""
    if form == 127 or size > 65535:
        return b"\xff" + size.to_bytes(8, "big")
    if form == 126 or size > 125:
        return b"\xfe" + size.to_bytes(2, "big")
    return bytes((0x80 | size,))


def frame(opcode: int, payload: bytes = b"", bits: int = FIN, key: bytes = KEY) -> bytes:
    return bytes((bits | opcode,)) + length(len(payload)) + key + masked(payload, key)


def begun(opcode: int, payload: bytes, size: int, bits: int = FIN) -> bytes:
    """A frame of ``size`` bytes of which only these are there."""
    return bytes((bits | opcode,)) + length(size) + KEY + masked(payload)


@dataclass(frozen=True)
class Sent:
    """A frame of the server's: its first byte, and its payload."""

    first: int
    payload: bytes


def sent_frames(data: bytes) -> list[Sent]:
    """What a server has written, which must be whole frames, not masked, with lengths in their shortest form."""
    frames = []
    at = 0
    while at < len(data):
        first, size = data[at], data[at + 1]
        at += 2
        assert size < 0x80, "a server's frame is not masked"
        if size >= 126:
            digits = 2 if size == 126 else 8
            size = int.from_bytes(data[at : at + digits], "big")
            at += digits
            assert size > (125 if digits == 2 else 65535)
        assert at + size <= len(data), "half of a frame"
        frames.append(Sent(first, data[at : at + size]))
        at += size
    return frames


def told(events: Iterable[WebSocketEvent]) -> list[WebSocketEvent]:
    """The events with the sentences meant for people left out."""
    out: list[WebSocketEvent] = []
    for event in events:
        if isinstance(event, Failure):
            assert event.reason
            assert event.reason.isascii()
            assert event.reason.isprintable()
            assert event.status == 0
            event = replace(event, reason="")
        out.append(event)
    return out


def feed(codec: WebSocketCodec, pieces: Iterable[bytes]) -> list[WebSocketEvent]:
    events: list[WebSocketEvent] = []
    for piece in pieces:
        events += codec.receive(piece)
    return told(events)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The data whole, in two at many places, and in many pieces."""
    yield [data]
    places = range(1, len(data))
    if len(data) > SHORT:
        places = [*range(1, EDGE), len(data) // 2, *range(len(data) - EDGE, len(data))]  # type: ignore[assignment]
    for place in places:
        yield [data[:place], data[place:]]
    yield dripped(data, 1 if len(data) <= SHORT else 997)


def dripped(data: bytes, size: int = 1) -> list[bytes]:
    return [data[at:stop] for at, stop in pairwise([*range(0, len(data), size), len(data)])]
