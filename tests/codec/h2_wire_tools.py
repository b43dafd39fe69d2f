"""HTTP/2 frames from values, and values from what an engine wrote: as the tests compare them.

It shares no code with the engines. The numbers are those of RFC 9113 sections 6, 7 and 11; header blocks are written
without any state (RFC 7541 section 6.2.2), and read by the hpack library.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
from hpack import Decoder

from asgiri.codec.contract import Http2Codec
from asgiri.codec.engines import HTTP2_ENGINES
from asgiri.codec.events import Body, Event, Failure, Refused, Request, Reset
from asgiri.codec.h2_wire import Http2Options
from asgiri.types import Headers

each_engine = pytest.mark.parametrize("engine", HTTP2_ENGINES.values(), ids=HTTP2_ENGINES)

# Frame types.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 0x10  # RFC 9218 section 7.1
# Flags.
END_STREAM = ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08
WITH_PRIORITY = 0x20
# Settings.
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, FRAME_SIZE, HEADER_LIST = range(1, 7)
CONNECT_PROTOCOL = 8  # RFC 8441 section 3
NO_PRIORITIES = 9  # RFC 9218 section 2.1
# Error codes.
NO_ERROR = 0x0
PROTOCOL_ERROR = 0x1
INTERNAL_ERROR = 0x2
FLOW_CONTROL_ERROR = 0x3
STREAM_CLOSED = 0x5
FRAME_SIZE_ERROR = 0x6
REFUSED_STREAM = 0x7
CANCEL = 0x8
COMPRESSION_ERROR = 0x9
ENHANCE_YOUR_CALM = 0xB

PRI = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST = 2**31 - 1  # the largest window and the largest stream id
WINDOW = 65_535  # what a window is at first
FULL = 16_384  # the largest frame, before anybody has said another size

GET: Headers = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]
POST: Headers = [(b":method", b"POST"), *GET[1:]]
HOST_A: Headers = [(b"host", b"a")]

# Frames in


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; ``length`` where it lies about its payload's, and bit 31 of ``stream_id`` is the reserved one."""
    size = len(payload) if length is None else length
    return struct.pack(">HBBBL", size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def padded(payload: bytes, padding: int | None) -> bytes:
    return payload if padding is None else bytes([padding]) + payload + bytes(padding)


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """RFC 7541 section 5.1."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    """A literal field with a literal name: not indexed (0x00), never (0x10), or added to the table (0x40)."""
    return bytes([first]) + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields: Headers) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def head(
    stream_id: int,
    fields: Headers = GET,
    end: bool = True,
    *,
    padding: int | None = None,
    priority: bytes = b"",
    flags: int = END_HEADERS,
    encoded: bytes | None = None,
) -> bytes:
    """A HEADERS frame of a whole block; ``encoded`` takes the place of the block."""
    flags |= END_STREAM * end | PADDED * (padding is not None) | WITH_PRIORITY * bool(priority)
    payload = priority + (block(fields) if encoded is None else encoded)
    return frame(HEADERS, flags, stream_id, padded(payload, padding))


def continued(stream_id: int, fields: Headers = GET, end: bool = True, pieces: int = 2) -> bytes:
    """The same in a HEADERS frame and ``pieces`` - 1 CONTINUATION frames."""
    encoded = block(fields)
    step = -(-len(encoded) // pieces)
    first, *rest = (encoded[i : i + step] for i in range(0, len(encoded), step))
    out = frame(HEADERS, END_STREAM * end, stream_id, first)
    for number, piece in enumerate(rest, 2):
        out += frame(CONTINUATION, END_HEADERS * (number == pieces), stream_id, piece)
    return out


def data(stream_id: int, content: bytes = b"", end: bool = False, padding: int | None = None) -> bytes:
    flags = END_STREAM * end | PADDED * (padding is not None)
    return frame(DATA, flags, stream_id, padded(content, padding))


def settings(values: dict[int, int] | Iterable[tuple[int, int]] = (), flags: int = 0) -> bytes:
    pairs = values.items() if isinstance(values, dict) else values
    return frame(SETTINGS, flags, 0, b"".join(struct.pack(">HL", *pair) for pair in pairs))


def rst(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">L", code))


def window(stream_id: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">L", size))


def ping(content: bytes = b"12345678", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, content)


def goaway(last: int = 0, code: int = NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">LL", last, code) + debug)


def priority(stream_id: int, on: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream_id, struct.pack(">LB", on, weight))


def priority_update(stream_id: int, value: bytes, on: int = 0) -> bytes:
    return frame(PRIORITY_UPDATE, 0, on, struct.pack(">L", stream_id) + value)


PREFACE = PRI + settings()

# Frames out


@dataclass(frozen=True)
class Head:
    """HEADERS, and what CONTINUATION frames add to it. The first field is its :status, trailers apart."""

    stream_id: int
    fields: tuple[tuple[bytes, bytes], ...]
    end: bool = False


@dataclass(frozen=True)
class Data:
    stream_id: int
    content: bytes
    end: bool = False


@dataclass(frozen=True)
class Rst:
    stream_id: int
    code: int


@dataclass(frozen=True)
class Settings:
    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class SettingsAck:
    pass


@dataclass(frozen=True)
class Ping:
    content: bytes


@dataclass(frozen=True)
class Pong:
    """A PING that acknowledges one."""

    content: bytes


@dataclass(frozen=True)
class Away:
    """GOAWAY; debug data is for people."""

    last: int
    code: int


@dataclass(frozen=True)
class Window:
    stream_id: int
    size: int


Sent = Head | Data | Rst | Settings | SettingsAck | Ping | Pong | Away | Window


def answered(stream_id: int, status: int, *fields: tuple[bytes, bytes], end: bool = False) -> Head:
    return Head(stream_id, ((b":status", b"%d" % status), *fields), end)


class Reader:
    """What a peer reads: frames of all the bytes that it is given, the header blocks decoded.

    It takes a connection that is cut in the middle of a frame for a defect, and a frame of a kind that a server does
    not send, a wrong length or an unknown flag too.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=1 << 24)
        self._decoder.max_allowed_table_size = 4096
        self.largest = 0  # the largest payload so far, in bytes

    def read(self, out: bytes) -> list[Sent]:
        sent: list[Sent] = []
        at = 0
        while at < len(out):
            high, low, kind, flags, stream_id = struct.unpack_from(">HBBBL", out, at)
            size = high << 8 | low
            payload = out[at + 9 : at + 9 + size]
            assert len(payload) == size, "the output ends in a frame"
            at += 9 + size
            self.largest = max(self.largest, size)
            if kind == HEADERS:
                while not flags & END_HEADERS:
                    high, low, kind, more, again = struct.unpack_from(">HBBBL", out, at)
                    size = high << 8 | low
                    assert (kind, again) == (CONTINUATION, stream_id)
                    payload += out[at + 9 : at + 9 + size]
                    at += 9 + size
                    self.largest = max(self.largest, size)
                    flags |= more
                fields = tuple((name, value) for name, value in self._decoder.decode(payload, raw=True))
                sent.append(Head(stream_id, fields, bool(flags & END_STREAM)))
            else:
                sent.append(self._plain(kind, flags, stream_id, payload))
        return sent

    def _plain(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Sent:
        if kind == DATA:
            assert flags in (0, END_STREAM)
            assert stream_id
            return Data(stream_id, payload, flags == END_STREAM)
        if kind == RST_STREAM:
            assert stream_id
            return Rst(stream_id, *struct.unpack(">L", payload))
        if kind == WINDOW_UPDATE:
            return Window(stream_id, *struct.unpack(">L", payload))
        assert stream_id == 0, "a connection's frame on a stream"
        if kind == SETTINGS:
            assert flags in (0, ACK)
            assert not (flags and payload)
            return SettingsAck() if flags else Settings(tuple(struct.iter_unpack(">HL", payload)))
        if kind == PING:
            assert len(payload) == 8
            return Pong(payload) if flags & ACK else Ping(payload)
        assert kind == GOAWAY, f"a frame of type {kind}"
        return Away(*struct.unpack_from(">LL", payload))


def without_windows(sent: Iterable[Sent]) -> list[Sent]:
    """Without WINDOW_UPDATE frames: when they are due is each engine's own."""
    return [one for one in sent if not isinstance(one, Window)]


def joined(sent: Iterable[Sent]) -> list[Sent]:
    """Adjacent DATA of a stream made one: how content is cut into frames is each engine's own."""
    out: list[Sent] = []
    for one in sent:
        last = out[-1] if out else None
        if isinstance(one, Data) and isinstance(last, Data) and last.stream_id == one.stream_id and not last.end:
            out[-1] = Data(one.stream_id, last.content + one.content, one.end)
        else:
            out.append(one)
    return out


def plain(sent: list[Sent]) -> list[Sent]:
    """Without what engines may do each in its way: credit, frames of content, and an end in a frame of its own."""
    out: list[Sent] = []
    for one in joined(without_windows(sent)):
        last = out[-1] if out else None
        if one == Data(getattr(last, "stream_id", 0), b"", True) and isinstance(last, Head | Data):
            out[-1] = replace(last, end=True)
        else:
            out.append(one)
    return out


# Events


def request(
    stream_id: int = 1, method: str = "GET", target: bytes = b"/", headers: Headers = HOST_A, **more: Any
) -> Request:
    path, _, query = target.partition(b"?")
    parts: dict[str, Any] = {"path": path, "query": query, "http_version": "2", "end_stream": True}
    return Request(stream_id, method, target, headers=headers, **(parts | more))


def post(stream_id: int = 1, headers: Headers = HOST_A, **more: Any) -> Request:
    return request(stream_id, "POST", headers=headers, **({"end_stream": False} | more))


def merged(events: Iterable[Event]) -> list[Event]:
    """Adjacent pieces of one body made one, and the sentences meant for people left out."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        match event:
            case Body() if isinstance(last, Body) and last.stream_id == event.stream_id:
                out[-1] = Body(last.stream_id, last.data + event.data)
            case Failure() | Reset() | Refused():
                assert event.reason
                assert event.reason.isascii()
                assert event.reason.isprintable()
                out.append(replace(event, reason=""))
            case _:
                out.append(event)
    return out


# Conversations

Step = bytes | Callable[[Http2Codec], object]


@dataclass
class Talk:
    """One connection: what is fed and done to the codec, what it said, and what it wrote.

    The engine's own preface is read when it begins; ``sent`` is what came after it.
    """

    codec: Http2Codec
    reader: Reader = field(default_factory=Reader)
    events: list[Event] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    preface: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.preface = self.reader.read(self.codec.take())

    def feed(self, piece: bytes) -> list[Event]:
        more = self.codec.receive(piece)
        assert not (more and self.events and isinstance(self.events[-1], Failure)), "parsed on after a Failure"
        assert not any(isinstance(event, Failure) for event in more[:-1]), "a Failure is the last event"
        assert not any(isinstance(event, Body) and not event.data for event in more), "an empty Body"
        self.events += more
        return more

    def take(self, most: int | None = None) -> list[Sent]:
        """What it writes now, frame by frame; it is in ``sent`` too."""
        out = self.reader.read(self.codec.take() if most is None else self.codec.take(most))
        self.sent += out
        return out

    def do(self, step: Step, pieces: Iterable[bytes] | None = None) -> None:
        if callable(step):
            step(self.codec)
        else:
            for piece in [step] if pieces is None else pieces:
                self.feed(piece)
        self.take()


def begin(engine: Callable[[Http2Options], Http2Codec], options: Http2Options | None = None) -> Talk:
    """A connection behind both prefaces, with the SETTINGS of both acknowledged."""
    talk = Talk(engine(options or Http2Options()))
    assert talk.feed(PREFACE + settings(flags=ACK)) == []
    assert without_windows(talk.take()) == [SettingsAck()]
    talk.sent.clear()
    return talk


def ends_of_frames(wire: bytes) -> Iterator[int]:
    at = 24 if wire.startswith(PRI) else 0
    while at + 9 <= len(wire):
        yield at
        yield at + 9
        at += 9 + int.from_bytes(wire[at : at + 3])
        yield at


# Data up to this long comes byte by byte; longer data in pieces of 97.
LONG = 4000


def cuts(wire: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and cut where frames, their headers and what is next to that end."""
    yield [wire] if wire else []
    step = 1 if len(wire) <= LONG else 97
    yield [wire[i : i + step] for i in range(0, len(wire), step)]
    places = sorted({end + near for end in ends_of_frames(wire) for near in (-1, 0, 1)} & set(range(1, len(wire))))
    yield cut_at(wire, places[::3])
    yield cut_at(wire, places[1::3])


def cut_at(wire: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({0, len(wire), *(place % (len(wire) + 1) for place in places)})
    return [wire[a:b] for a, b in pairwise(ends)]


# Verbs, as the steps of a row


def sends_head(stream_id: int, status: int = 200, headers: Headers | None = None) -> Step:
    return lambda codec: codec.send_head(stream_id, status, headers or [])


def sends_body(stream_id: int, content: bytes, end: bool = True) -> Step:
    return lambda codec: codec.send_body(stream_id, content, end)


def answers(stream_id: int, status: int = 200, headers: Headers | None = None, content: bytes = b"ok") -> Step:
    return lambda codec: codec.answer(stream_id, status, headers or [], content)
