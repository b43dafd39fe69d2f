"""What every WebSocket engine says of the frame that comes next, before it gets it."""

from __future__ import annotations

from itertools import accumulate

import pytest

from asgiri.codec.contract import Deflate
from asgiri.codec.engines import WebSocketEngine
from tests.codec.ws_rows_deflate import PACKED, packed
from tests.codec.ws_wire import BINARY, CLOSE, CONT, FIN, KEY, PING, PONG, TEXT, each_engine, feed, frame, length

FRAMES = [
    frame(TEXT, b""),
    frame(BINARY, b"x"),
    frame(TEXT, b"x" * 126),
    frame(PING, b"?" * 125),
    frame(TEXT, b"begins ", 0),
    frame(CONT, b"", 0),
    frame(PONG),
    frame(CONT, b"x" * 300, 0),
    frame(CONT, b" and ends"),
    frame(BINARY, b"x" * 65536),
    frame(TEXT, b"x"),
]
ENDS = list(accumulate(map(len, FRAMES)))
DATA = b"".join(FRAMES)
# Every place but those that lie deep in the largest frame.
PLACES = [place for place in range(len(DATA)) if place < ENDS[8] + 40 or place > ENDS[9] - 20]


@each_engine
@pytest.mark.parametrize("deflate", [None, Deflate()], ids=["plain", "deflate"])
def test_it_is_what_is_left_of_the_frame(engine: WebSocketEngine, deflate: Deflate | None) -> None:
    codec = engine(0, deflate)
    before = 0
    for place in PLACES:
        codec.receive(DATA[before:place])
        end = next(end for end in ENDS if end > place)
        assert codec.ahead(DATA, place) == end - place
        assert codec.ahead(b"abc" + DATA, place + 3) == end - place
        before = place


@each_engine
def test_it_changes_nothing(engine: WebSocketEngine) -> None:
    events = feed(engine(0, None), [DATA])
    assert len(events) == 8
    for place in PLACES[:700:7]:
        codec = engine(0, None)
        before = feed(codec, [DATA[:place]])
        codec.ahead(DATA, place)
        codec.ahead(b"\xff\xff", 0)
        assert before + feed(codec, [DATA[place:]]) == events


@each_engine
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 1 << 62, (1 << 63) - 1])
def test_a_head_that_is_not_whole_says_nothing(engine: WebSocketEngine, size: int) -> None:
    head = bytes((FIN | BINARY,)) + length(size)
    for given in range(len(head)):
        for there in range(given + 1, len(head) + 1):
            codec = engine(0, None)
            codec.receive(head[:given])
            expected = len(head) + len(KEY) + size - given if there == len(head) else 0
            assert codec.ahead(head[:there], given) == expected


@each_engine
@pytest.mark.parametrize(
    "head",
    [
        b"\x83\x80",
        b"\xc2\x80",
        b"\x82\x01",
        b"\x80\x80",
        b"\x89\xfe\x01\x00",
        b"\x82\xfe\x00\x01",
        b"\x82" + b"\xff" * 9,
    ],
    ids=["opcode", "reserved", "not masked", "continues nothing", "a large ping", "not shortest", "64 bits"],
)
def test_a_head_that_breaks_the_rules_says_nothing(engine: WebSocketEngine, head: bytes) -> None:
    codec = engine(0, None)
    assert codec.ahead(head + bytes(20), 0) == 0
    codec.receive(head[:1])
    assert codec.ahead(head + bytes(20), 1) == 0


@each_engine
@pytest.mark.parametrize("end", [frame(CLOSE), b"\xff"], ids=["close", "failure"])
def test_nothing_comes_behind_the_end(engine: WebSocketEngine, end: bytes) -> None:
    codec = engine(0, None)
    codec.receive(frame(TEXT, b"", 0) + end)
    assert codec.ahead(DATA, 0) == 0
    codec.receive(DATA)
    assert codec.ahead(DATA, 0) == 0


@each_engine
def test_a_compressed_frame_counts_as_it_is_on_the_wire(engine: WebSocketEngine) -> None:
    data = frame(BINARY, packed(bytes(100_000)), PACKED)
    codec = engine(0, Deflate())
    assert codec.ahead(data, 0) == len(data)
    codec.receive(data[:20])
    assert codec.ahead(data, 20) == len(data) - 20
