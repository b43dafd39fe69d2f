"""Both HTTP/2 engines on the same generated input: what they tell and what they answer is the same."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from random import Random

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    TrailersReceived,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec.engines import HTTP2_ENGINES, Http2Engine
from asgiri.codec.events import Body, End, Failure, Request
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers
from tests.codec.h2_generated import (
    Conversation,
    anything,
    contents,
    conversations,
    damaged,
    damages,
    fields,
    methods,
    places,
    similar_requests,
    split,
    targets,
    wild_frames,
)
from tests.codec.h2_wire_tools import (
    Step,
    Talk,
    begin,
    cut_at,
    each_engine,
    merged,
    plain,
)

SMALL = Http2Options(
    limits=HttpLimits(request_line=30, header_count=8, header_size=300, body_size=60),
    max_concurrent_streams=4,
    initial_window=64,
)
DEFAULT = Http2Options()
each_option = st.sampled_from([DEFAULT, SMALL])


def run(engine: Http2Engine, steps: Iterable[Step], cuts: list[int], options: Http2Options) -> tuple[object, ...]:
    """What the engine tells and writes. It must not raise, and a Failure is its last word."""
    talk = begin(engine, options)
    for step in steps:
        talk.do(step, cut_at(step, cuts) if isinstance(step, bytes) else None)
    codec = talk.codec
    return merged(talk.events), plain(talk.sent), codec.closed, codec.streams, codec.last_stream_id, codec.in_head


def same(steps: list[Step], cuts: list[int], options: Http2Options) -> tuple[object, ...]:
    """What all engines make of the steps; whole and cut, it is the same."""
    outcomes = [run(engine, steps, way, options) for engine in HTTP2_ENGINES.values() for way in ([], cuts)]
    for outcome in outcomes[1:]:
        assert outcome == outcomes[0]
    return outcomes[0]


@settings(deadline=None)
@given(st.binary(max_size=200), st.booleans(), places)
def test_any_bytes_give_events_or_one_failure(noise: bytes, behind: bool, cuts: list[int]) -> None:
    outcomes = []
    for engine in HTTP2_ENGINES.values():
        talk = begin(engine) if behind else Talk(engine(DEFAULT))
        for piece in cut_at(noise, cuts):
            talk.feed(piece)
        talk.take()
        talk.feed(b"") if not talk.codec.closed else None
        outcomes.append((merged(talk.events), plain(talk.sent)))
    assert all(outcome == outcomes[0] for outcome in outcomes)


@settings(deadline=None)
@given(st.lists(wild_frames(), max_size=12), places, each_option)
def test_any_frames_give_the_same(frames: list[bytes], cuts: list[int], options: Http2Options) -> None:
    same([b"".join(frames)], cuts, options)


@settings(deadline=None)
@given(conversations(), places)
def test_a_valid_conversation_is_told_as_it_was_meant(conversation: Conversation, cuts: list[int]) -> None:
    events, _, closed, *_ = same(conversation.steps, cuts, DEFAULT)
    assert events == merged(conversation.events)
    assert not closed


@settings(deadline=None)
@given(conversations(answers=False), damages, places, each_option)
def test_damaged_frames_are_answered_the_same(
    conversation: Conversation, how: list[tuple[str, int, int, int, bytes]], cuts: list[int], options: Http2Options
) -> None:
    same([damaged(split(conversation.wire), how)], cuts, options)


@settings(deadline=None)
@given(conversations(), damages, places)
def test_damage_between_answers_is_answered_the_same(
    conversation: Conversation, how: list[tuple[str, int, int, int, bytes]], cuts: list[int]
) -> None:
    steps: list[Step] = []
    for is_wire, group in groupby(conversation.steps, lambda step: isinstance(step, bytes)):
        if is_wire:
            wire = b"".join(step for step in group if isinstance(step, bytes))
            steps.append(damaged(split(wire), how[:1]) if how else wire)
            how = how[1:]
        else:
            steps += group
    same(steps, cuts, DEFAULT)


def told(engine: Http2Engine, steps: Iterable[Step], options: Http2Options) -> list[object]:
    """What the engine is like after each step. A verb out of turn is refused by all or by none."""
    talk = begin(engine, options)
    out: list[object] = []
    numbers = range(1, 60, 2)
    for step in steps:
        refused = False
        try:
            talk.do(step)
        except LocalProtocolError:
            refused = True
            talk.take()
        codec = talk.codec
        held = [(codec.held(number), codec.blocked(number), codec.starved(number)) for number in numbers]
        state = codec.streams, codec.last_stream_id, codec.in_head, codec.closed
        out.append((refused, merged(talk.events), plain(talk.sent), held, state))
    return out


@settings(deadline=None)
@given(st.integers(0, 1 << 60), st.integers(1, 60), each_option | st.just(Http2Options(initial_window=300)))
def test_any_frames_and_verbs_give_the_same(seed: int, length: int, options: Http2Options) -> None:
    first, *others = [told(engine, anything(Random(seed), length), options) for engine in HTTP2_ENGINES.values()]
    assert all(other == first for other in others)


@settings(deadline=None)
@given(similar_requests(), each_option | st.just(Http2Options(max_header_list=200)))
def test_requests_that_are_nearly_the_same_are_not_taken_for_each_other(
    steps: list[Step], options: Http2Options
) -> None:
    first, *others = [told(engine, steps, options) for engine in HTTP2_ENGINES.values()]
    assert all(other == first for other in others)


# A real client, in memory

Asked = tuple[str, bytes, Headers, bytes | None, Headers | None]


class Client:
    """A client of the h2 library, and what it was told on each stream."""

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.h2.initiate_connection()
        self.got: dict[int, list[object]] = {}

    def ask(self, method: str, target: bytes, more: Headers, body: bytes | None, trailers: Headers | None) -> int:
        number = self.h2.get_next_available_stream_id()
        self.got[number] = []
        pseudo = [(b":method", method.encode()), (b":scheme", b"http"), (b":authority", b"a"), (b":path", target)]
        self.h2.send_headers(number, [*pseudo, *more], end_stream=body is None)
        if body is not None:
            self.h2.send_data(number, body, end_stream=trailers is None)
            if trailers is not None:
                self.h2.send_headers(number, trailers, end_stream=True)
        return number

    def read(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived | InformationalResponseReceived | TrailersReceived):
                self.got[event.stream_id or 0].append([(name, value) for name, value in event.headers or []])
            elif isinstance(event, DataReceived):
                number = event.stream_id or 0
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, number)
                got = self.got[number]
                if got and isinstance(got[-1], bytes):
                    got[-1] += event.data or b""
                elif event.data:
                    got.append(event.data)
            elif isinstance(event, StreamEnded):
                self.got[event.stream_id or 0].append("end")


asked = st.tuples(methods, targets, fields, st.none() | contents, st.none() | fields.filter(bool))


@each_engine
@given(
    st.lists(asked, min_size=1, max_size=4),
    st.sampled_from([200, 404, 500]),
    fields,
    st.booleans(),
    st.lists(contents.map(lambda piece: piece * 2000), max_size=3),
    st.none() | fields.filter(bool),
    places,
)
@settings(max_examples=60, deadline=None)
def test_a_client_of_the_h2_library_is_served(
    engine: Http2Engine,
    requests: list[Asked],
    status: int,
    headers: Headers,
    hints: bool,
    pieces: list[bytes],
    trailers: Headers | None,
    cuts: list[int],
) -> None:
    client, codec = Client(), engine(DEFAULT)
    numbers = [client.ask(*request) for request in requests]
    events = [event for piece in cut_at(client.h2.data_to_send(), cuts) for event in codec.receive(piece)]
    assert [event.stream_id for event in events if isinstance(event, Request)] == numbers
    assert [event.data for event in merged(events) if isinstance(event, Body)] == [one[3] for one in requests if one[3]]
    assert sum(isinstance(event, End) for event in events) == sum(one[3] is not None for one in requests)
    for number in numbers:
        if hints:
            codec.send_informational(number, 103, headers)
        codec.send_head(number, status, headers)
        for piece in pieces:
            codec.send_body(number, piece, False)
        if trailers is None:
            codec.send_body(number, b"", True)
        else:
            codec.send_trailers(number, trailers)
    while out := codec.take():
        client.read(out)
        assert not any(isinstance(event, Failure) for event in codec.receive(client.h2.data_to_send()))
    for number, (method, *_) in zip(numbers, requests, strict=True):
        content = b"" if method == "HEAD" else b"".join(pieces)
        expected: list[object] = [[(b":status", b"103"), *headers]] if hints else []
        expected += [[(b":status", b"%d" % status), *headers], *([content] if content else [])]
        expected += [trailers] if trailers else []
        assert client.got[number] == [*expected, "end"]
