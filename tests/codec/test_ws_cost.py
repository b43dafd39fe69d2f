"""What a peer can make a WebSocket engine spend, in time and memory, with frames that keep within the limits.

Times are of the processor, and their bounds are passed only by work that grows with what has come before.
"""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache

import pytest

from asgiri.codec.contract import Deflate
from asgiri.codec.engines import WebSocketEngine, websocket_engine
from asgiri.codec.events import Binary, Failure, Ping, Text, WebSocketEvent
from tests.codec.ws_rows_deflate import PACKED, packed, stored
from tests.codec.ws_wire import BINARY, CONT, FIN, KEY, PING, TEXT, begun, each_engine, feed, frame, length, masked

# Seconds of processor for each piece of a drip, on average. A turn of the event loop alone costs ten microseconds.
A_PIECE = 100e-6
MIB = 1 << 20


def peak(work: Callable[[], object]) -> int:
    """The most memory that the work takes at once, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@each_engine
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_large_message_in_reads_of_64_kib(engine: WebSocketEngine, opcode: int) -> None:
    size = 10 * MIB
    codec = engine(16 * MIB, None)
    piece = masked(b"abcd" * 4096, KEY) * 4
    events: list[WebSocketEvent] = []

    def work() -> None:
        codec.receive(bytes((FIN | opcode,)) + length(size) + KEY)
        for _ in range(size // len(piece)):
            events.extend(codec.receive(piece))

    # All of it in pieces, joined, and decoded.
    assert peak(work) < 3.5 * size
    found = events[0]
    assert found == (Text("abcd" * (size // 4), size) if opcode == TEXT else Binary(b"abcd" * (size // 4)))


@each_engine
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_drip_costs_the_same_however_much_has_come(engine: WebSocketEngine, opcode: int) -> None:
    codec = engine(0, None)
    assert codec.receive(begun(opcode, b"", 16 * MIB) + masked(b"a" * 4, KEY) * (2 * MIB)) == []
    pieces = [bytes((0x61 ^ KEY[at % 4],)) for at in range(2000)]

    def work() -> None:
        for piece in pieces:
            assert codec.receive(piece) == []

    assert seconds(work) < len(pieces) * A_PIECE


@each_engine
def test_a_fragment_costs_the_same_however_many_have_come(engine: WebSocketEngine) -> None:
    codec = engine(0, None)
    assert codec.receive(begun(TEXT, b"", 8 * MIB, 0) + masked(b"a" * 4, KEY) * (2 * MIB)) == []
    drip = frame(CONT, b"a", 0)

    def work() -> None:
        for _ in range(2000):
            assert codec.receive(drip) == []

    assert seconds(work) < 2000 * A_PIECE


@each_engine
@pytest.mark.parametrize("held", [b"", b"ab"], ids=["empty", "of two bytes"])
def test_small_fragments_take_no_more_memory_than_they_hold(engine: WebSocketEngine, held: bytes) -> None:
    codec = engine(0, None)
    codec.receive(frame(BINARY, b"", 0))
    drip = frame(CONT, held, 0)

    def work() -> None:
        for _ in range(8000):
            codec.receive(drip)

    assert peak(work) < 50_000


@each_engine
def test_many_small_frames_in_one_read(engine: WebSocketEngine) -> None:
    codec = engine(0, None)
    data = frame(PING) * 20_000
    events: list[WebSocketEvent] = []
    assert seconds(lambda: events.extend(codec.receive(data))) < 20_000 * A_PIECE
    assert events == [Ping(b"")] * 20_000


@cache
def a_bomb() -> bytes:
    return packed(b"a" * (64 * MIB), level=9)


@each_engine
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("pieces", [1, 50], ids=["one frame", "fragments"])
def test_a_bomb_ends_without_the_memory(engine: WebSocketEngine, opcode: int, pieces: int) -> None:
    bomb = a_bomb()
    step = len(bomb) // pieces + 1
    parts = [bomb[at : at + step] for at in range(0, len(bomb), step)]
    frames = [frame(opcode if at == 0 else CONT, part, 0x40 if at == 0 else 0) for at, part in enumerate(parts)]
    codec = engine(MIB, Deflate())
    events: list[WebSocketEvent] = []
    assert peak(lambda: events.extend(feed(codec, frames))) < 6 * MIB
    assert events == [Failure(0, "", 1009)]


@each_engine
def test_a_bomb_within_a_bomb(engine: WebSocketEngine) -> None:
    """Each of its messages is within the limit: one after the other, they are told and forgotten."""
    codec = engine(MIB, Deflate(client_no_context_takeover=True))
    data = frame(BINARY, packed(bytes(MIB)), PACKED)

    def work() -> None:
        for _ in range(20):
            assert len(codec.receive(data)) == 1

    assert peak(work) < 6 * MIB


@each_engine
@pytest.mark.parametrize("block", [b"\x03\x00", stored(b"")], ids=["final blocks", "empty blocks"])
def test_many_blocks_that_hold_nothing(engine: WebSocketEngine, block: bytes) -> None:
    codec = engine(1000, Deflate())
    data = frame(BINARY, block * (512 * 1024 // len(block)) + b"\x00", PACKED)
    events: list[WebSocketEvent] = []
    assert seconds(lambda: events.extend(codec.receive(data))) < 2
    assert events == [Binary(b"")]


def test_an_idle_codec_holds_next_to_nothing() -> None:
    engine = websocket_engine("auto")
    codecs = []

    def make() -> None:
        for _ in range(1000):
            codec = engine(MIB, Deflate(False, False, 12, 12))
            codec.receive(frame(TEXT, b"a"))
            codec.send_text("a")
            codec.take()
            codecs.append(codec)

    assert peak(make) < 1000 * 600


def test_a_codec_that_compresses_holds_little() -> None:
    """zlib's own memory, which tracemalloc does not see, is in the comment on WINDOW."""
    codec = websocket_engine("auto")(MIB, Deflate(False, False, 12, 12))
    data = zlib.compress(b"a" * 1000)
    codec.receive(frame(BINARY, packed(data), PACKED))

    def work() -> None:
        for _ in range(100):
            codec.receive(frame(BINARY, packed(data), PACKED))
            codec.send_binary(b"a" * 1000)
            codec.take()

    assert peak(work) < 500_000
