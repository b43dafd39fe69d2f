"""HTTP/2 conversations made by hypothesis, whole and damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from hpack import Encoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import strategies as st

from asgiri.codec.contract import Http2Codec
from asgiri.codec.events import Body, End, Event, Request
from asgiri.codec.rules import NO_TRAILERS
from asgiri.types import Headers
from tests.codec.h2_wire_tools import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE,
    GET,
    HEADERS,
    INITIAL_WINDOW,
    PADDED,
    POST,
    TABLE_SIZE,
    WITH_PRIORITY,
    Step,
    answers,
    block,
    data,
    frame,
    head,
    integer,
    literal,
    padded,
    ping,
    priority,
    priority_update,
    rst,
    settings,
    window,
)

TCHARS = "!#$%&'*+-.^_`|~0123456789abcxyz"
VALUE_BYTES = [9, *range(32, 127), *range(128, 256)]
TARGET_BYTES = [*range(33, 127), *range(128, 256)]
# What a name must not be, for it would mean something.
SPECIAL = {b"te", b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"upgrade"} | {
    b"proxy-connection",
    b"expect",
    b"cookie",
    b"priority",
}

places = st.lists(st.integers(0, 10_000), max_size=8)
names = st.text(TCHARS, min_size=1, max_size=8).map(str.encode).filter(lambda name: name not in SPECIAL)
values = st.lists(st.sampled_from(VALUE_BYTES), max_size=12).map(lambda codes: bytes(codes).strip(b" \t"))
fields = st.lists(st.tuples(names, values), max_size=4)
# Of fields that come again, tables are made.
usual = st.sampled_from(
    [(b"user-agent", b"hypothesis"), (b"accept", b"*/*"), (b"x", b"1"), (b"x", b"2"), (b"authorization", b"me")]
)
many_fields = st.lists(st.tuples(names, values) | usual, max_size=5)
targets = st.lists(st.sampled_from(TARGET_BYTES), max_size=8).map(lambda codes: b"/" + bytes(codes))
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PROPFIND", "get"])
contents = st.binary(max_size=40)
paddings = st.none() | st.integers(0, 9)


@dataclass
class Conversation:
    """Steps, and the events that their bytes make. Each step of bytes is a frame, or the frames of a header block."""

    steps: list[Step] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def wire(self) -> bytes:
        return b"".join(step for step in self.steps if isinstance(step, bytes))


class Writer:
    """Draws a conversation, step by step."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.out = Conversation()
        self.encoder = Encoder()
        self.next_stream = 1
        self.open: dict[
            int, int | None
        ] = {}  # streams whose request is not whole, and what their length still lets come
        self.whole: list[int] = []
        self.begun: set[int] = set()  # whose answer has begun

    def headers(self, stream_id: int, fields: Headers, end: bool) -> None:
        draw = self.draw
        encoded = (
            block(fields) if draw(st.integers(0, 2)) == 0 else self.encoder.encode(fields, huffman=draw(st.booleans()))
        )
        first = draw(st.sampled_from([b"", struct.pack(">LB", 3, 7)]))
        padding = draw(paddings)
        flags = END_STREAM * end | PADDED * (padding is not None) | WITH_PRIORITY * bool(first)
        ends = sorted(place % (len(encoded) + 1) for place in draw(st.lists(st.integers(0, 200), max_size=3)))
        pieces = [encoded[a:b] for a, b in zip([0, *ends], [*ends, len(encoded)], strict=True)]
        wire = frame(HEADERS, flags | END_HEADERS * (len(pieces) == 1), stream_id, padded(first + pieces[0], padding))
        for number, piece in enumerate(pieces[1:], 2):
            wire += frame(CONTINUATION, END_HEADERS * (number == len(pieces)), stream_id, piece)
        self.out.steps.append(wire)

    def request(self) -> None:
        draw = self.draw
        stream_id = self.next_stream
        self.next_stream += draw(st.sampled_from([2, 2, 2, 4, 100]))
        method, target, end = draw(methods), draw(targets), draw(st.booleans())
        more = draw(many_fields)
        length = None if end or draw(st.booleans()) else draw(st.integers(0, 60))
        if length is not None:
            more.append((b"content-length", b"%d" % length))
        crumbs = draw(st.lists(st.sampled_from([b"a=b", b"c=d"]), max_size=2))
        told: Headers = [(b"host", b"a"), *more]
        if crumbs:
            told.append((b"cookie", b"; ".join(crumbs)))
        wants = not end and draw(st.integers(0, 5)) == 0
        if wants:
            told.append((b"expect", b"100-continue"))
        pseudo: Headers = [
            (b":method", method.encode()),
            (b":scheme", b"http"),
            (b":path", target),
            (b":authority", b"a"),
        ]
        sent = [*draw(st.permutations(pseudo)), *more, *[(b"cookie", crumb) for crumb in crumbs]]
        if wants:
            sent.append((b"expect", b"100-continue"))
        self.headers(stream_id, sent, end)
        path, _, query = target.partition(b"?")
        self.out.events.append(Request(stream_id, method, target, path, query, told, "2", end, wants))
        if end:
            self.whole.append(stream_id)
        else:
            self.open[stream_id] = length

    def data(self) -> None:
        if not self.open:
            return
        stream_id = self.draw(st.sampled_from(sorted(self.open)))
        left = self.open[stream_id]
        content = self.draw(contents)
        end = self.draw(st.booleans())
        if left is not None:
            content = content[:left] if not end else b"x" * left
            self.open[stream_id] = left - len(content)
        self.out.steps.append(data(stream_id, content, end, self.draw(paddings)))
        if content:
            self.out.events.append(Body(stream_id, content))
        if end:
            self.end(stream_id, [])

    def trailers(self) -> None:
        ready = sorted(stream_id for stream_id, left in self.open.items() if not left)
        if not ready:
            return
        stream_id = self.draw(st.sampled_from(ready))
        trailers = self.draw(fields)
        self.headers(stream_id, trailers, True)
        self.end(stream_id, [pair for pair in trailers if pair[0] not in NO_TRAILERS])

    def end(self, stream_id: int, trailers: Headers) -> None:
        self.out.events.append(End(stream_id, trailers))
        del self.open[stream_id]
        self.whole.append(stream_id)

    def connection(self) -> None:
        draw = self.draw
        numbers = st.integers(1, 40)
        wire = draw(
            st.one_of(
                st.binary(min_size=8, max_size=8).map(ping),
                st.integers(1, 1000).map(lambda size: window(0, size)),
                st.tuples(numbers, numbers).map(lambda pair: priority(*pair)),
                st.tuples(numbers, st.sampled_from([b"u=1", b"i", b"u=7, i=?0", b"?"])).map(
                    lambda pair: priority_update(*pair)
                ),
                st.tuples(st.integers(0x11, 0xFF), st.integers(0, 255), numbers, contents).map(
                    lambda parts: frame(*parts)
                ),
                st.just(settings(flags=ACK)),
                st.dictionaries(
                    st.sampled_from([TABLE_SIZE, INITIAL_WINDOW, FRAME_SIZE, 0xF0F0]),
                    st.integers(16384, 70_000),
                    max_size=2,
                ).map(settings),
            )
        )
        self.out.steps.append(wire)

    def answer(self) -> None:
        """A verb for a stream whose request is whole: what comes of an early answer is another test's."""
        if not self.whole:
            return
        draw = self.draw
        stream_id = draw(st.sampled_from(self.whole))
        status = draw(st.sampled_from([200, 204, 304, 404]))
        headers, content = draw(many_fields), draw(contents) * draw(st.sampled_from([0, 1, 1, 1000]))
        if stream_id not in self.begun:
            kind = draw(st.sampled_from(["whole", "whole", "head", "hints"]))
            if kind == "hints":
                self.step(lambda codec: codec.send_informational(stream_id, 103, headers))
            elif kind == "head":
                self.begun.add(stream_id)
                self.step(lambda codec: codec.send_head(stream_id, status, headers))
            else:
                self.whole.remove(stream_id)
                self.step(lambda codec: codec.answer(stream_id, status, headers, content))
            return
        kind = draw(st.sampled_from(["piece", "end", "trailers", "reset"]))
        if kind != "piece":
            self.whole.remove(stream_id)
        if kind == "reset":
            self.step(lambda codec: codec.reset(stream_id, 8))
        elif kind == "trailers":
            self.step(lambda codec: codec.send_trailers(stream_id, [(b"x-t", b"y")]))
        else:
            self.step(lambda codec: codec.send_body(stream_id, content, kind == "end"))

    def step(self, verb: Callable[[Http2Codec], object]) -> None:
        self.out.steps.append(verb)


@st.composite
def conversations(draw: st.DrawFn, most: int = 16, answers: bool = True) -> Conversation:
    """A valid conversation behind the preface."""
    writer = Writer(draw)
    kinds = ["request", "request", "data", "data", "trailers", "connection", *(["answer"] * 3 if answers else [])]
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=most)):
        getattr(writer, kind)()
    return writer.out


# Damage


@st.composite
def wild_frames(draw: st.DrawFn) -> bytes:
    """A frame of any kind, more or less of its size."""
    kind = draw(st.integers(0, 0x11))
    flags = draw(st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x24, 0x25, 0x2D, 0xFF]))
    stream_id = draw(st.sampled_from([0, 1, 1, 2, 3, 3, 5, 7, 101, 2**31 - 1, 2**31 + 1]))
    size = {2: 5, 3: 4, 4: 6, 6: 8, 7: 8, 8: 4}.get(kind)
    if kind in (1, 5, 9) and draw(st.booleans()):
        payload = draw(
            st.sampled_from(
                [b"", b"\x82\x86\x84\x41\x01a", b"\x82", b"\x84\x41\x01a", b"\xbe", b"\x20\x82\x86\x84\xbe"]
            )
        )
    elif size is not None and draw(st.integers(0, 4)):
        payload = draw(st.binary(min_size=size, max_size=size))
    else:
        payload = draw(st.binary(max_size=20))
    return frame(kind, flags, stream_id, payload)


@st.composite
def stray_frames(draw: st.DrawFn) -> bytes:
    """A frame that is whole, on a stream that may not want it."""
    stream_id = 2 * draw(st.integers(0, 5)) + 1
    end = draw(st.booleans())
    return draw(
        st.sampled_from(
            [
                data(stream_id, b"stray", end),
                data(stream_id, b"", end, 3),
                data(stream_id, b"s" * 70, end),
                head(stream_id, [(b"x", b"y")], end),
                head(stream_id, [(b"x", b" y")], end),
                head(stream_id, [(b":path", b"/")], end),
                head(stream_id, [*POST, (b"content-length", b"5")], end),
                head(stream_id, [*POST, (b"content-length", b"61")], end),
                head(stream_id, [*GET, (b"x", b"v" * 300)], end),
                head(stream_id, [*GET, (b"Upper", b"case")], end),
                head(stream_id, GET, end),
                window(stream_id, 0),
                window(stream_id, 2**31 - 1),
                window(stream_id, 2**31 - 65_536),
                frame(2, 0, stream_id, b"priority"),
                rst(stream_id),
                settings({INITIAL_WINDOW: 2**31 - 1}),
                settings({INITIAL_WINDOW: 0}),
            ]
        )
    )


damages = st.lists(
    st.tuples(
        st.sampled_from(
            ["flip", "flags", "stream", "type", "cut", "drop", "repeat", "swap", "insert", "length", "rst"]
        ),
        st.integers(0, 1000),
        st.integers(0, 1000),
        st.integers(0, 255),
        stray_frames() | stray_frames() | wild_frames(),
    ),
    min_size=1,
    max_size=4,
)


def split(wire: bytes) -> list[bytes]:
    """The frames of bytes that are nothing else."""
    out, at = [], 0
    while at < len(wire):
        end = at + 9 + int.from_bytes(wire[at : at + 3])
        out.append(wire[at:end])
        at = end
    return out


def damaged(frames: list[bytes], how: list[tuple[str, int, int, int, bytes]]) -> bytes:
    """``frames`` after each of the damages."""
    frames = list(frames)
    for kind, which, place, byte, wild in how:
        if not frames:
            frames = [wild]
        n = which % len(frames)
        one = bytearray(frames[n])
        if kind == "flip" and len(one) > 9:
            one[9 + place % (len(one) - 9)] ^= byte
        elif kind == "flags" and len(one) > 4:
            one[4] ^= byte
        elif kind == "stream" and len(one) > 8:
            one[8] = byte & 0x0F
        elif kind == "type" and len(one) > 3:
            one[3] = byte & 0x0F
        elif kind == "length" and len(one) > 2:
            one[2] = byte
        elif kind == "cut" and len(one) > 9:  # in the middle, and it says so
            del one[9 + place % (len(one) - 9) :]
            one[:3] = (len(one) - 9).to_bytes(3)
        frames[n] = bytes(one)
        if kind == "drop":
            del frames[n]
        elif kind == "repeat":
            frames.insert(n, frames[n])
        elif kind == "swap":
            other = place % len(frames)
            frames[n], frames[other] = frames[other], frames[n]
        elif kind == "insert":  # mostly on the stream of the frame before it
            frames.insert(n + 1, wild[:5] + frames[n][5:9] + wild[9:] if byte > 60 else wild)
    return b"".join(frames)


# Anything at all

TUNNEL: Headers = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]]
HEADS: list[Headers] = [
    GET,
    POST,
    TUNNEL,
    [(b":method", b"HEAD"), *GET[1:]],
    [*GET, (b"x", b"y" * 30)],
    [*POST, (b"content-length", b"40")],
    [*POST, (b"content-length", b"70")],
    [*GET, (b"priority", b"u=5, i")],
    [*POST, (b"Upper", b"x")],
]
ENDS: list[Headers] = [[], [(b"x", b"y")], [(b"x", b" y")], [(b":path", b"/")], [(b"x", b"v" * 400)]]


def anything(random: Random, length: int) -> list[Step]:
    """Frames and verbs on streams that are open, over or not begun, for ``length`` steps."""
    steps: list[Step] = []
    last = -1
    for _ in range(length):
        number = random.choice(range(1, last + 4, 2))
        end = random.random() < 0.5
        kind = random.randrange(20)
        if kind < 4:
            last += 2
            steps.append(head(last, random.choice(HEADS), end))
        elif kind < 8:
            content = bytes(random.choice([0, 1, 5, 40, 61, 100, 400]))
            steps.append(data(number, content, end, random.choice([None, None, 0, 5, 100])))
        elif kind < 11:
            steps.append(
                random.choice(
                    [
                        head(number, random.choice(ENDS), random.random() < 0.9),
                        rst(number, random.randrange(12)),
                        window(number, random.choice([0, 1, 1, 100, 70_000, 2**31 - 1])),
                        window(0, random.choice([1, 100, 70_000])),
                        settings({INITIAL_WINDOW: random.choice([0, 1, 10, 65_535, 100_000, 2**31 - 1])}),
                        frame(2, 0, number, bytes(random.choice([5, 5, 5, 4]))),
                        priority_update(number, b"u=%d" % random.randrange(9)),
                        ping(),
                    ]
                )
            )
        else:
            steps.append(verb(random, number, end))
    return steps


def verb(random: Random, number: int, end: bool) -> Step:
    status = random.choice([200, 204, 304, 404])
    content = bytes(random.choice([0, 1, 2, 600, 1100, 70_000]))
    size = random.choice([1, 10, 50, 300, 1000])
    choices: list[Callable[[Http2Codec], object]] = [
        lambda codec: codec.send_informational(number, 103, []),
        lambda codec: codec.answer(number, status, [(b"x", b"y")], content),
        lambda codec: codec.send_head(number, status, []),
        lambda codec: codec.send_body(number, content, end),
        lambda codec: codec.send_trailers(number, [(b"t", b"u")] * end),
        lambda codec: codec.reset(number, 8),
        lambda codec: codec.consumed(number, size),
        lambda codec: codec.tick(size / 100),
        lambda codec: codec.go_away(2**31 - 1),
    ]
    return random.choices(choices, [1, 3, 3, 4, 1, 1, 3, 1, 1])[0]


# Header blocks that are nearly the same, as clients write them: one of these may be taken for another that is known

PATHS = [
    *(b"/", b"/a", b"/b?c", b"/" + b"p" * 20, b"/" + b"q" * 130, b"/" + b"r" * 300, b"/\xc3\xa9"),
    *(b"*", b"", b"a", b"/ ", b"/\r\n"),
]
EXTRA = [
    literal(b"x", b"y"),
    literal(b"x", b"y", 0x40),
    literal(b"X", b"y"),
    literal(b":path", b"/again"),
    literal(b"priority", b"u=1"),
    literal(b"cookie", b"a=b", 0x10),
    literal(b"content-length", b"0"),
    literal(b"content-length", b"5"),
    literal(b"expect", b"100-continue"),
    b"\x82",  # :method: GET, again
    b"\x90",  # accept-encoding: gzip, deflate
    b"\xbe",  # the newest entry of the dynamic table
    b"\xbf",
    b"\x20",  # the table is emptied
    b"\x3f\xe1\x1f",  # and has its full size
]


@st.composite
def path_fields(draw: st.DrawFn) -> bytes:
    """A :path by its name's index, not for the table, never, or into it; plain, or in Huffman's code."""
    target = draw(st.sampled_from(PATHS) | st.sampled_from(PATHS[:4]))
    first = draw(st.sampled_from([0x04] * 9 + [0x05, 0x14, 0x44]))
    if draw(st.booleans()):
        return bytes([first]) + integer(len(target), 7) + target
    code = bytes(HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(target))
    return bytes([first]) + integer(len(code), 7, 0x80) + code


@st.composite
def similar_requests(draw: st.DrawFn) -> list[Step]:
    """Requests on one connection, each of which differs a bit from one before it."""
    # The first one fills the table: then all but the path is an index, as browsers and load generators have it.
    steps: list[Step] = [head(1, [], encoded=b"\x82\x86\x84\x41\x01a" + literal(b"x", b"y", 0x40))]
    method = draw(st.sampled_from([b"\x82", b"\x82", b"\x82", b"\x83", b"\x02\x04HEAD"]))
    authority = draw(st.sampled_from([b"\xbf"] * 6 + [b"\x01\x01a", b"\x41\x01a"]))
    extra = draw(st.lists(st.sampled_from([b"\xbe", b"\xbe", b"\x90", *EXTRA[4:6]]), max_size=2))
    chunks = [method, b"\x86", authority, *extra]
    path_at = draw(st.integers(0, 3))
    chunks.insert(path_at, b"")
    for number in range(3, 2 * draw(st.integers(4, 12)) + 3, 2):
        if number == 3 or draw(st.integers(0, 3)):
            chunks[path_at] = draw(path_fields())
        variant = list(chunks)
        if draw(st.integers(0, 9)) == 9:
            variant.insert(draw(st.integers(0, len(variant))), draw(st.sampled_from(EXTRA)))
        encoded = bytearray(b"".join(variant))
        if draw(st.integers(0, 19)) == 19:
            encoded[draw(st.integers(0, len(encoded) - 1))] ^= draw(st.sampled_from([1, 2, 0x40, 0x80, 0xFF]))
        end = draw(st.integers(0, 5)) < 5
        steps.append(head(number, [], end, encoded=bytes(encoded)))
        if draw(st.integers(0, 9)) == 9:
            steps.append(priority_update(number + 2, b"u=0"))
        if draw(st.booleans()):
            content = b"ok" * draw(st.sampled_from([1, 20_000]))
            steps.append(answers(number, content=content))
    return steps
