"""Generated requests: any bytes, valid traffic and damaged traffic, on every engine and at any cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec.engines import HTTP1_ENGINES, http1_engine
from asgiri.codec.events import Body, End, Event, Failure, Request, Reset
from asgiri.codec.rules import HttpLimits
from tests.codec.generated import Message, damaged, damages, messages, places, talk, traffic
from tests.codec.rows import CHUNKED, GOOD, POST, SMALL, A, head
from tests.codec.wire import cut, dripped, numbered, parsed

GENEROUS = HttpLimits()
limits = st.sampled_from([GENEROUS, GENEROUS, SMALL, HttpLimits(60, 6, 120, 20)])
fragments = st.sampled_from(
    b"GET POST HEAD / http://a ? * HTTP/1.1 HTTP/1.0 HTTP/2.0 abc : 5;a".split()
    + b"Host: a|Host:|Content-Length: 3|Content-Length:|Transfer-Encoding: chunked".split(b"|")
    + b"Connection: close|Expect: 100-continue|Upgrade: h2c|X: \xe9|\0|\t| ".split(b"|")
    + [b"\r\n", b"\r\n\r\n", b"\r", b"\n", b"3\r\nabc\r\n", b"0\r\n\r\n"]
    + [GOOD, CHUNKED, head(POST, A, b"Content-Length: 3"), head(b"GET / HTTP/1.0")]
)
noise = st.binary(max_size=60) | st.lists(fragments, max_size=14).map(b"".join)


def transcripts(data: bytes, where: list[int], bounds: HttpLimits, eof: bool) -> list[list[Event]]:
    """What each engine makes of the data, whole, cut, in heads and bodies, and dripped."""
    end = [b""] if eof else []
    whole = [data] if data else []
    heads = [piece for piece in re.split(rb"(?<=\r\n\r\n)", data) if piece]
    return [
        talk(engine(bounds), [*pieces, *end])[0]
        for engine in HTTP1_ENGINES.values()
        for pieces in (whole, cut(data, where), heads, dripped(data))
    ]


def check_shape(events: list[Event]) -> None:
    """Requests in order, each with a body that ends or is cut off; one Failure or Reset at most, and at the end."""
    stream_id, open_body = 0, False
    for event in events:
        match event:
            case Request():
                assert not open_body
                stream_id += 1
                open_body = not event.end_stream
            case Body():
                assert open_body
            case End():
                assert open_body
                open_body = False
            case Reset():
                assert open_body
            case _:
                assert isinstance(event, Failure)
                continue
        assert event.stream_id == stream_id
    assert not any(isinstance(event, Failure | Reset) for event in events[:-1])


@settings(deadline=None)
@given(data=noise, where=places, bounds=limits, eof=st.booleans())
def test_any_bytes_make_the_same_events_on_every_engine_at_any_cut(
    data: bytes, where: list[int], bounds: HttpLimits, eof: bool
) -> None:
    first, *others = transcripts(data, where, bounds, eof)
    check_shape(first)
    for other in others:
        assert other == first


@settings(deadline=None)
@given(
    traffic=traffic(3),
    how=damages,
    where=places,
    bounds=limits,
    eof=st.booleans(),
)
def test_damaged_requests_make_the_same_events_on_every_engine_at_any_cut(
    traffic: list[Message],
    how: list[tuple[str, bool, int, bytes, int]],
    where: list[int],
    bounds: HttpLimits,
    eof: bool,
) -> None:
    data = damaged(b"".join(message.data for message in traffic), how)
    first, *others = transcripts(data, where, bounds, eof)
    check_shape(first)
    for other in others:
        assert other == first


@pytest.mark.parametrize("name", HTTP1_ENGINES)
@settings(deadline=None)
@given(traffic=traffic(), where=places, behind=st.binary(max_size=10))
def test_valid_requests_round_trip_at_any_cut(
    name: str, traffic: list[Message], where: list[int], behind: bytes
) -> None:
    count = next((n for n, message in enumerate(traffic, 1) if message.last), len(traffic))
    expected = [event for n, message in enumerate(traffic[:count], 1) for event in numbered(message.events, n)]
    data = b"".join(message.data for message in traffic)
    if traffic[count - 1].last:
        data += behind  # bytes behind the last request are never parsed
    one_by_one = [message.data for message in traffic[:count]]
    for pieces in ([data], one_by_one, cut(data, where), dripped(data)):
        events, answers = talk(http1_engine(name)(GENEROUS), pieces)
        assert events == expected
        assert [parsed(answer)[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * count
        closing = [(b"connection", b"close") in parsed(answer)[1] for answer in answers]
        assert closing == [message.last for message in traffic[:count]]


@settings(deadline=None)
@given(
    traffic=traffic(),
    where=places,
)
def test_every_engine_gives_the_same_answers(traffic: list[Message], where: list[int]) -> None:
    data = b"".join(message.data for message in traffic)
    answers = [talk(engine(GENEROUS), cut(data, where))[1] for engine in HTTP1_ENGINES.values()]
    assert all([parsed(answer) for answer in other] == [parsed(answer) for answer in answers[0]] for other in answers)


@settings(deadline=None)
@given(message=messages(), size=st.integers(0, 200))
def test_a_request_that_is_cut_off_is_never_whole(message: Message, size: int) -> None:
    size %= len(message.data)
    for engine in HTTP1_ENGINES.values():
        events, answers = talk(engine(GENEROUS), [*([message.data[:size]] if size else []), b""])
        assert answers == []
        assert not events or isinstance(events[-1], Failure | Reset)
