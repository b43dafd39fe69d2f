"""Bytes to a codec and events from it, as the tests compare them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from asgiri.codec.contract import Http1Codec
from asgiri.codec.engines import HTTP1_ENGINES
from asgiri.codec.events import Body, End, Event, Failure, Request, Reset
from asgiri.codec.framing import RequestReader
from asgiri.types import Headers

each_engine = pytest.mark.parametrize("engine", HTTP1_ENGINES.values(), ids=HTTP1_ENGINES)

# Data up to this long is cut at every byte; longer data at its beginning, at its end and around its lines' ends.
SHORT = 160
EDGE = 40
LONG = 2000


def merged(events: Iterable[Event]) -> list[Event]:
    """Adjacent pieces of body made one, and the sentences meant for people left out."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        match event:
            case Body() if isinstance(last, Body):
                out[-1] = Body(last.stream_id, last.data + event.data)
            case Failure() | Reset():
                assert event.reason
                assert event.reason.isascii()
                assert event.reason.isprintable()
                out.append(replace(event, reason=""))
            case _:
                out.append(event)
    return out


def feed(codec: Http1Codec | RequestReader, pieces: Iterable[bytes], eof: bool = False) -> list[Event]:
    """The merged events of the pieces. Nothing comes after a Failure."""
    events: list[Event] = []
    for piece in [*pieces, *([b""] if eof else [])]:
        more = codec.receive(piece)
        assert not (more and events and isinstance(events[-1], Failure)), "parsed on after a Failure"
        assert not any(isinstance(event, Failure) for event in more[:-1]), "a Failure is the last event"
        assert not any(isinstance(event, Body) and not event.data for event in more), "an empty Body"
        events += more
    return merged(events)


def dripped(data: bytes) -> list[bytes]:
    """Byte by byte; long data in pieces of seven."""
    step = 1 if len(data) <= LONG else 7
    return [data[i : i + step] for i in range(0, len(data), step)]


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and each way to cut it in two."""
    yield [data] if data else []
    yield dripped(data)
    for i in split_points(data):
        yield [data[:i], data[i:]]


def split_points(data: bytes) -> Iterable[int]:
    size = len(data)
    if size <= SHORT:
        return range(1, size)
    line_ends = [i + step for i, byte in enumerate(data[:-1]) if byte == 10 for step in (-1, 0, 1, 2)][: 4 * EDGE]
    return sorted({*range(1, EDGE), *range(size - EDGE, size), *line_ends} & set(range(1, size)))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut at any places, for generated tests."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


def answer(codec: Http1Codec, stream_id: int = 1) -> bytes:
    codec.send_head(stream_id, 200, [(b"content-length", b"2")])
    codec.send_body(stream_id, b"ok", True)
    return codec.take()


def numbered(events: Iterable[Event], stream_id: int) -> list[Event]:
    own = (Request, Body, End, Reset)  # those of HTTP/1.1 that are of a stream
    return [replace(event, stream_id=stream_id) if isinstance(event, own) else event for event in events]


def is_whole(event: Event) -> bool:
    """Whether the request is complete with this event."""
    return isinstance(event, End) or (isinstance(event, Request) and event.end_stream)


def parsed(data: bytes) -> tuple[bytes, Headers, bytes]:
    """Status line, fields sorted and with names in lower case, and what follows the head."""
    top, _, rest = data.partition(b"\r\n\r\n")
    line, *fields = top.split(b"\r\n")
    pairs = (field.partition(b":") for field in fields)
    return line, sorted((name.lower(), value.strip(b" \t")) for name, _, value in pairs), rest
