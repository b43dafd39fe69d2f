"""Both WebSocket engines on the same generated input, and conversations with the websockets package as the client."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from asgiri.codec.contract import Deflate
from asgiri.codec.engines import WEBSOCKET_ENGINES, WebSocketEngine
from asgiri.codec.events import Binary, Close, Failure, Ping, Pong, Text, WebSocketEvent
from tests.codec.ws_rows_deflate import packed
from tests.codec.ws_wire import BINARY, CLOSE, CONT, FIN, PING, PONG, RSV1, TEXT, Sent, feed, frame, sent_frames

EXAMPLES = settings(max_examples=150, deadline=None)
DEFLATES = st.sampled_from([None, Deflate(), Deflate(True, True, 9, 9), Deflate(False, True, 12, 12)])


def pieces(data: bytes, seed: int, most: int = 30) -> list[bytes]:
    """The data in pieces of random size."""
    random = Random(seed)
    found = []
    while data:
        size = random.choice([1, 2, 5, most, len(data)])
        found.append(data[:size])
        data = data[size:]
    return found


# Events, frames sent, and whether it is closing.
Outcome = tuple[list[WebSocketEvent], list[tuple[int, bytes]], bool]


def outcome(engine: WebSocketEngine, parts: Iterable[bytes], most: int, deflate: Deflate | None) -> Outcome:
    codec = engine(most, deflate)
    events = feed(codec, parts)
    written = sent_frames(codec.take())
    if any(isinstance(event, Failure) for event in events):
        assert isinstance(events[-1], Failure)
        assert sum(isinstance(event, Failure | Close) for event in events) == 1
        assert events[-1].code in (1002, 1007, 1009)
        written[-1] = Sent(written[-1].first, written[-1].payload[:2])
    return events, [(sent.first, sent.payload) for sent in written], codec.closing


def agree(data: bytes, seed: int, most: int, deflate: Deflate | None) -> list[WebSocketEvent]:
    """What the engines make of the data, which is the same for each, and for each way to cut it."""
    found = []
    for way in ([data], pieces(data, seed)):
        outcomes = [outcome(engine, way, most, deflate) for engine in WEBSOCKET_ENGINES.values()]
        for other in outcomes[1:]:
            assert other == outcomes[0]
        found.append(outcomes[0])
    whole, cut = found
    if {code_of(whole), code_of(cut)} == {1007, 1009} and deflate is not None:
        # zlib tells of a mistake behind the limit, or does not, by what it has been given at once.
        assert whole[0][:-1] == cut[0][:-1]
    else:
        assert whole == cut
    return whole[0]


def code_of(found: Outcome) -> int:
    """The code of the failure that it ends with; 0 for none."""
    last = found[0][-1] if found[0] else None
    return last.code if isinstance(last, Failure) else 0


@given(st.binary(max_size=200), st.integers(0, 1 << 16), DEFLATES)
@EXAMPLES
def test_any_bytes(data: bytes, seed: int, deflate: Deflate | None) -> None:
    agree(data, seed, 1000, deflate)


TEXTS = st.text(max_size=40).map(lambda text: text.encode())
PAYLOADS = st.one_of(
    TEXTS,
    st.binary(max_size=140),
    TEXTS.map(packed),
    st.binary(max_size=100).map(packed),
    TEXTS.map(lambda data: zlib.compress(data, wbits=-15) + b"\x00"),
)
CODES = st.sampled_from([b"", b"\x03", b"\x03\xe8", b"\x03\xe8ok", b"\x03\xed", b"\x0b\xb8\xff"])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame that is often a good one, and often in its place."""
    opcode = draw(st.sampled_from([TEXT, TEXT, BINARY, CONT, CONT, PING, PONG, CLOSE, 0x3, 0xB]))
    payload = draw(CODES if opcode == CLOSE else PAYLOADS)
    if opcode & 0x8:
        return frame(opcode, payload[:125])
    bits = draw(st.sampled_from([0, 0, FIN, FIN, FIN | RSV1, RSV1, FIN | 0x20, 0x10]))
    return frame(opcode, payload, bits, draw(st.binary(min_size=4, max_size=4)))


@given(st.lists(frames(), max_size=6), st.binary(max_size=3), st.integers(0, 1 << 16), DEFLATES, st.integers(0, 200))
@settings(max_examples=400, deadline=None)
def test_any_frames(parts: list[bytes], behind: bytes, seed: int, deflate: Deflate | None, most: int) -> None:
    agree(b"".join(parts) + behind, seed, most, deflate)


# Conversations

MESSAGES = st.lists(
    st.one_of(
        st.text(max_size=300),
        st.binary(max_size=300),
        st.integers(256, 70_000).map(lambda size: b"ab" * (size // 2)),
        st.integers(256, 5000).map(lambda size: Random(size).randbytes(size)),
        st.integers(100, 5000).map(lambda size: "añ€😀" * size),
    ),
    max_size=6,
)


def client_of(deflate: Deflate | None) -> list[PerMessageDeflate]:
    """The other side of it; it has no window of 8 either."""
    if deflate is None:
        return []
    return [
        PerMessageDeflate(
            deflate.server_no_context_takeover,
            deflate.client_no_context_takeover,
            deflate.server_max_window_bits,
            max(deflate.client_max_window_bits, 9),
        )
    ]


def asked(messages: list[str | bytes], client: list[PerMessageDeflate], random: Random) -> bytes:
    """The messages as websockets sends them, in fragments, and with pings between these."""
    wire = b""
    for message in messages:
        data = message.encode() if isinstance(message, str) else message
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        for _ in range(random.choice([0, 0, 1, 3])):
            size = random.randrange(len(data) + 1)
            wire += Frame(opcode, data[:size], fin=False).serialize(mask=True, extensions=client)
            wire += Frame(Opcode.PING, b"p").serialize(mask=True, extensions=client)
            opcode, data = Opcode.CONT, data[size:]
        wire += Frame(opcode, data).serialize(mask=True, extensions=client)
    return wire


def answered(data: bytes, client: list[PerMessageDeflate]) -> list[str | bytes]:
    """The messages that websockets reads, of which each is one frame."""
    reader = StreamReader()
    reader.feed_data(data)
    found: list[str | bytes] = []
    while reader.buffer:
        parsing: Generator[Any, Any, Frame] = Frame.parse(reader.read_exact, mask=False, extensions=client)
        try:
            next(parsing)
        except StopIteration as stop:
            read = stop.value
        else:
            raise AssertionError("half of a frame")
        assert read.fin
        if read.opcode is Opcode.TEXT:
            found.append(bytes(read.data).decode())
        elif read.opcode is Opcode.BINARY:
            found.append(bytes(read.data))
        else:
            assert read.opcode is Opcode.PONG
    return found


@given(MESSAGES, st.integers(0, 1 << 16), DEFLATES)
@settings(max_examples=60, deadline=None)
def test_an_echo_to_the_websockets_package(messages: list[str | bytes], seed: int, deflate: Deflate | None) -> None:
    for engine in WEBSOCKET_ENGINES.values():
        client, random = client_of(deflate), Random(seed)
        codec = engine(0, deflate)
        back = b""
        for piece in pieces(asked(messages, client, random), seed, 5000):
            for event in codec.receive(piece):
                match event:
                    case Text(text, size):
                        assert size == len(text.encode())
                        codec.send_text(text)
                    case Binary(data):
                        codec.send_binary(data)
                    case _:
                        assert isinstance(event, Ping | Pong)
            back += codec.take()
        assert answered(back, client) == messages
