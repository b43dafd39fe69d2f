"""What HTTP/2 engines do that is no row of the table: prefaces, credit, upgrades, ends, questions, wrong verbs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import pytest

from asgiri.codec.engines import Http2Engine
from asgiri.codec.events import Body, End, Failure, Request, Reset
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError
from tests.codec.h2_wire_tools import (
    ACK,
    CANCEL,
    CONNECT_PROTOCOL,
    CONTINUATION,
    END_HEADERS,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    FULL,
    GET,
    HEADER_LIST,
    HEADERS,
    HOST_A,
    INITIAL_WINDOW,
    MAX_STREAMS,
    NO_ERROR,
    NO_PRIORITIES,
    POST,
    PREFACE,
    PRI,
    PROTOCOL_ERROR,
    WINDOW,
    Away,
    Data,
    Head,
    Ping,
    Rst,
    Settings,
    SettingsAck,
    Step,
    Talk,
    Window,
    answered,
    answers,
    begin,
    block,
    data,
    each_engine,
    frame,
    head,
    joined,
    merged,
    plain,
    post,
    request,
    rst,
    sends_body,
    sends_head,
    settings,
    window,
    without_windows,
)

OPEN = head(1, POST, False)
OPEN_5 = head(5, POST, False)

# The preface


@each_engine
def test_the_server_begins_with_its_settings_before_it_has_heard_anything(engine: Http2Engine) -> None:
    options = Http2Options(
        max_concurrent_streams=7, initial_window=100_000, max_frame_size=20_000, max_header_list=9999
    )
    talk = Talk(engine(options))
    first, *more = talk.preface
    assert isinstance(first, Settings)
    assert dict(first.values) == {
        MAX_STREAMS: 7,
        INITIAL_WINDOW: 100_000,
        FRAME_SIZE: 20_000,
        HEADER_LIST: 9999,
        CONNECT_PROTOCOL: 1,
        NO_PRIORITIES: 1,
    }
    assert more == [Window(0, options.connection_window - WINDOW)]
    assert talk.take() == []


@each_engine
def test_what_is_not_offered_is_not_in_the_settings(engine: Http2Engine) -> None:
    talk = Talk(engine(Http2Options(max_header_list=0, connect_protocol=False, initial_window=WINDOW)))
    (first, *_) = talk.preface
    assert isinstance(first, Settings)
    assert not {HEADER_LIST, CONNECT_PROTOCOL} & dict(first.values).keys()


# Credit


def granted(sent: Sequence[object], stream_id: int) -> int:
    return sum(one.size for one in sent if isinstance(one, Window) and one.stream_id == stream_id)


@each_engine
@pytest.mark.parametrize("initial", [WINDOW, 1 << 20])
def test_what_the_application_takes_is_credited_in_time_and_not_before(engine: Http2Engine, initial: int) -> None:
    talk = begin(engine, Http2Options(initial_window=initial))
    talk.feed(OPEN)
    frames = initial // FULL
    for _ in range(frames):
        talk.feed(data(1, bytes(FULL)))
    assert talk.take() == [], "nothing was taken yet"
    for _ in range(frames):
        talk.codec.consumed(1, FULL)
    sent = talk.take()
    assert initial // 2 <= granted(sent, 1) <= frames * FULL
    assert len(sent) <= 8, "not a frame for each piece"


@each_engine
def test_a_small_piece_is_not_credited_by_itself(engine: Http2Engine) -> None:
    talk = begin(engine)
    talk.feed(OPEN + data(1, b"x" * 100))
    talk.codec.consumed(1, 100)
    assert talk.take() == []


@each_engine
def test_no_more_is_credited_than_has_come(engine: Http2Engine) -> None:
    talk = begin(engine, Http2Options(initial_window=WINDOW))
    talk.feed(OPEN + data(1, bytes(FULL)))
    for _ in range(10):
        talk.codec.consumed(1, 1 << 20)
    assert granted(talk.take(), 1) <= FULL
    assert granted(talk.sent, 0) <= FULL


@each_engine
def test_a_whole_request_needs_no_credit_for_its_stream(engine: Http2Engine) -> None:
    talk = begin(engine, Http2Options(initial_window=WINDOW))
    talk.feed(OPEN + b"".join([data(1, bytes(FULL))] * 2) + data(1, bytes(FULL), True))
    talk.codec.consumed(1, 3 * FULL)
    assert granted(talk.take(), 1) == 0


def complete(talk: Talk, number: int) -> None:
    talk.feed(data(number, b"", True))
    talk.codec.answer(number, 200, [], b"")


def turn_away(talk: Talk, number: int) -> None:
    talk.codec.answer(number, 403, [], b"")


ENDS: dict[str, Callable[[Talk, int], object]] = {
    "reset by the peer": lambda talk, number: talk.feed(rst(number)),
    "reset by us": lambda talk, number: talk.codec.reset(number, CANCEL),
    "answered early": turn_away,
    "broken": lambda talk, number: talk.feed(window(number, 0)),
    "whole, and answered": complete,
}


@each_engine
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_body_that_nobody_took_does_not_keep_the_connection_window(
    engine: Http2Engine, end: Callable[[Talk, int], object]
) -> None:
    """Ten windows of it, one stream after the other, and the application takes nothing."""
    options = Http2Options(initial_window=WINDOW)
    talk = begin(engine, options)
    talk.feed(window(0, 1 << 20))
    room, number = options.connection_window, 1
    for _ in range(10 * options.connection_window // (2 * FULL)):
        talk.feed(head(number, POST, False) + data(number, bytes(FULL)) * 2)
        end(talk, number)
        room += granted(talk.take(), 0) - 2 * FULL
        assert room >= 2 * FULL, "the peer may not send the next body"
        number += 2
    assert not talk.codec.closed


@each_engine
def test_padding_is_credited_though_nobody_takes_it(engine: Http2Engine) -> None:
    options = Http2Options(initial_window=WINDOW)
    talk = begin(engine, options)
    talk.feed(OPEN)
    rooms = {0: options.connection_window, 1: WINDOW}
    for _ in range(2000):
        talk.feed(data(1, b"x" * 255, False, 255))
        talk.codec.consumed(1, 255)
        sent = talk.take()
        for stream_id in rooms:
            rooms[stream_id] += granted(sent, stream_id) - 511
    assert min(rooms.values()) > WINDOW // 4
    assert len(talk.sent) < 200


def late(talk: Talk, number: int) -> None:
    talk.feed(head(number, POST, False))
    talk.codec.reset(number, CANCEL)
    talk.feed(data(number, bytes(FULL)) * 3)


def refused(talk: Talk, number: int) -> None:
    talk.feed(head(number, [*POST, (b"content-length", b"9" * 19)], False) + data(number, bytes(FULL)) * 3)
    talk.codec.reset(number, CANCEL)


def refused_on_the_way(talk: Talk, number: int) -> None:
    talk.feed(head(number, POST, False) + data(number, bytes(FULL)) * 3)
    talk.codec.reset(number, CANCEL)


def behind_the_end(talk: Talk, number: int) -> None:
    talk.feed(head(number) + data(number, bytes(FULL)) * 3)


def over_the_window(talk: Talk, number: int) -> None:
    talk.feed(head(number, POST, False) + data(number, bytes(WINDOW // 4)) * 4 + data(number, bytes(9)) * 9)


UNWANTED = [late, refused, refused_on_the_way, behind_the_end, over_the_window]


@each_engine
@pytest.mark.parametrize("come", UNWANTED, ids=lambda come: come.__name__)
def test_what_no_application_can_take_is_credited_to_the_connection(
    engine: Http2Engine, come: Callable[[Talk, int], None]
) -> None:
    options = Http2Options(initial_window=WINDOW, limits=HttpLimits(body_size=FULL + 1))
    if come is over_the_window:
        options = Http2Options(initial_window=WINDOW)
    talk = begin(engine, options)
    room = options.connection_window
    size = WINDOW // 4 * 4 + 81 if come is over_the_window else 3 * FULL
    for number in range(1, 400, 2):
        come(talk, number)
        room += granted(talk.take(), 0) - size
        assert room >= size, "the peer may not send the next body"
    assert not talk.codec.closed


@each_engine
def test_the_connection_window_is_held_to(engine: Http2Engine) -> None:
    options = Http2Options(initial_window=WINDOW, max_concurrent_streams=9)
    talk = begin(engine, options)
    assert options.connection_window == 4 * WINDOW
    for number in (1, 3, 5, 7):
        talk.feed(head(number, POST, False) + data(number, bytes(FULL)) * 3 + data(number, bytes(FULL - 1)))
    assert not talk.codec.closed
    (failure,) = talk.feed(head(9, POST, False) + data(9, b"x"))[1:]
    assert isinstance(failure, Failure)
    assert failure.code == FLOW_CONTROL_ERROR
    assert without_windows(talk.take()) == [Away(9, FLOW_CONTROL_ERROR)]


@each_engine
def test_data_that_comes_too_late_is_of_the_connection_window_too(engine: Http2Engine) -> None:
    options = Http2Options(initial_window=WINDOW, max_concurrent_streams=9)
    talk = begin(engine, options)
    talk.feed(OPEN)
    talk.codec.reset(1, CANCEL)
    talk.feed(data(1, bytes(10_000)))
    room = options.connection_window - 10_000
    for number in (3, 5, 7, 9):
        part = min(room, WINDOW)
        talk.feed(head(number, POST, False) + data(number, bytes(FULL)) * 3 + data(number, bytes(part - 3 * FULL)))
        room -= part
    assert room == 0
    assert [type(event) for event in talk.feed(data(9, b"x"))] == [Failure]


# The end of the connection


@each_engine
def test_the_end_of_file(engine: Http2Engine) -> None:
    """Who waits for a body hears that it never comes; who has all of the request may still answer."""
    talk = begin(engine)
    talk.feed(head(1) + head(3, POST, False) + data(3, b"x") + head(5, POST, False) + data(5, b"y", True))
    talk.events.clear()
    assert merged(talk.feed(b"")) == [Reset(3, "", CANCEL)]
    assert talk.codec.closed
    assert talk.codec.streams == 2
    assert talk.feed(b"") == []
    assert talk.feed(head(7)) == []
    talk.sent.clear()
    talk.do(answers(1))
    talk.do(answers(5))
    assert talk.sent == [answered(1, 200), Data(1, b"ok", True), answered(5, 200), Data(5, b"ok", True)]
    assert talk.codec.streams == 0


@each_engine
@pytest.mark.parametrize("wire", [b"", PRI[:5], PRI, PREFACE, PREFACE + head(1)[:20], PREFACE + head(1, flags=0)])
def test_the_end_of_file_anywhere(engine: Http2Engine, wire: bytes) -> None:
    talk = Talk(engine(Http2Options()))
    if wire:
        talk.feed(wire)
    assert talk.feed(b"") == []
    assert talk.codec.closed
    assert talk.codec.streams == 0


@each_engine
def test_a_failure_drops_what_is_held_and_not_what_was_said(engine: Http2Engine) -> None:
    talk = begin(engine)
    talk.do(head(1) + settings({INITIAL_WINDOW: 0}) + head(3))
    talk.codec.answer(3, 200, [], b"held")
    talk.codec.answer(1, 200, [], b"sent")
    talk.sent.clear()
    talk.feed(rst(0))
    assert talk.codec.held(3) == talk.codec.held(1) == 0
    assert Away(3, PROTOCOL_ERROR) == talk.take()[-1]
    assert not any(isinstance(one, Data) and one.content == b"held" for one in talk.sent)


# Upgrades, RFC 7540 section 3.2


def setting(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack(">HL", *pair) for pair in pairs)


@each_engine
def test_an_upgraded_request_is_stream_1(engine: Http2Engine) -> None:
    codec = engine(Http2Options())
    asked = request(headers=[*HOST_A, (b"x", b"y")])
    assert codec.upgrade(setting((INITIAL_WINDOW, 1)), asked) == [asked]
    talk = Talk(codec)
    assert isinstance(talk.preface[0], Settings)
    assert SettingsAck() not in talk.preface, "the 101 was the acknowledgement"
    assert (codec.streams, codec.last_stream_id, codec.in_head, codec.closed) == (1, 1, True, False)
    talk.do(answers(1))
    assert talk.sent == [answered(1, 200), Data(1, b"o")], "the settings hold for it"
    talk.do(PREFACE + settings(flags=ACK) + window(1, 1) + head(3))
    assert talk.events == [request(3)]
    assert plain(talk.sent) == [answered(1, 200), Data(1, b"o"), SettingsAck(), Data(1, b"k", True)]
    assert not codec.in_head


@each_engine
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_upgraded_request_is_half_closed(engine: Http2Engine, method: str) -> None:
    codec = engine(Http2Options())
    codec.upgrade(b"", request(method=method))
    talk = Talk(codec)
    talk.do(answers(1))
    content = [] if method == "HEAD" else [answered(1, 200), Data(1, b"ok", True)]
    assert talk.sent == (content or [answered(1, 200, end=True)])
    talk.do(PREFACE + rst(1) + window(1, 1))
    assert not codec.closed


@each_engine
def test_an_upgraded_request_with_a_body_ends_when_the_body_does(engine: Http2Engine) -> None:
    """The body comes over HTTP/1.1, and its events from there."""
    codec = engine(Http2Options())
    asked = post(headers=[*HOST_A, (b"content-length", b"3")])
    assert codec.upgrade(b"", asked) == [asked]
    codec.consumed(1, 3)
    codec.upgraded_body(True)
    talk = Talk(codec)
    talk.do(PREFACE + settings(flags=ACK))
    talk.do(answers(1))
    assert without_windows(talk.sent) == [SettingsAck(), answered(1, 200), Data(1, b"ok", True)]
    assert codec.streams == 0


@each_engine
def test_an_upgraded_request_takes_no_data_over_http2(engine: Http2Engine) -> None:
    codec = engine(Http2Options())
    codec.upgrade(b"", post())
    talk = Talk(codec)
    talk.do(PREFACE + data(1, b"x", True))
    assert merged(talk.events) == [Reset(1, "", 5)]
    assert talk.sent[-1] == Rst(1, 5)


@each_engine
@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"12345", FRAME_SIZE_ERROR), (setting((INITIAL_WINDOW, 1 << 31)), FLOW_CONTROL_ERROR),
     (setting((FRAME_SIZE, 1)), PROTOCOL_ERROR)],
)  # fmt: skip
def test_an_upgrade_with_bad_settings_fails(engine: Http2Engine, payload: bytes, code: int) -> None:
    codec = engine(Http2Options())
    (failure,) = codec.upgrade(payload, request())
    assert isinstance(failure, Failure)
    assert failure.code == code
    assert codec.closed
    assert Talk(codec).preface[-1] == Away(0, code)


# Questions


@each_engine
def test_in_head_is_true_while_a_head_is_due_or_has_begun(engine: Http2Engine) -> None:
    talk = Talk(engine(Http2Options()))
    codec = talk.codec
    seen = []
    for piece in [*[bytes([byte]) for byte in PREFACE], *[bytes([byte]) for byte in head(1)]]:
        seen.append(codec.in_head)
        talk.feed(piece)
    seen.append(codec.in_head)
    due = [True] * len(PREFACE), [False], [True] * (len(head(1)) - 1), [False]
    assert seen == [value for values in due for value in values]
    answers_to = []
    for piece in (
        frame(HEADERS, 0, 3, block(GET)[:9]),
        frame(CONTINUATION, END_HEADERS, 3, block(GET)[9:]),
        OPEN_5 + data(5, b"xyz")[:-1],
        b"",
    ):
        talk.feed(piece)
        answers_to.append(codec.in_head)
    assert answers_to == [True, False, False, False], "a body is no head"


@each_engine
def test_streams_are_counted_while_they_are_open_on_either_side(engine: Http2Engine) -> None:
    talk = begin(engine)
    counts = []
    steps = [head(1), head(3, POST, False), head(5, [(b"X", b"y")]), sends_head(1), data(3, b"x", True), answers(3)]
    for step in [*steps, rst(3), sends_body(1, b"x"), head(9, POST, False), lambda codec: codec.reset(9, 8)]:
        talk.do(step)
        counts.append((talk.codec.streams, talk.codec.last_stream_id))
    assert counts == [(1, 1), (2, 3), (2, 5), (2, 5), (2, 5), (1, 5), (1, 5), (0, 5), (1, 9), (0, 9)]


@each_engine
@pytest.mark.parametrize("content", [b"", b"ok"])
def test_a_stream_counts_until_its_answer_was_taken(engine: Http2Engine, content: bytes) -> None:
    """The peer cannot know before that there is a place for another."""
    talk = begin(engine, Http2Options(max_concurrent_streams=1))
    talk.feed(head(1))
    talk.codec.answer(1, 200, [], content)
    assert talk.feed(head(3)) == []
    assert Rst(3, 7) in talk.take()
    assert talk.feed(head(5)) == [request(5)]


@each_engine
def test_questions_about_streams_that_are_not(engine: Http2Engine) -> None:
    codec = begin(engine).codec
    for number in (0, 1, 2, 77):
        assert (codec.held(number), codec.blocked(number), codec.starved(number), codec.sent_on(number)) == (
            0, False, False, 0,
        )  # fmt: skip
        codec.consumed(number, 100)


@each_engine
def test_who_is_blocked_and_who_is_starved(engine: Http2Engine) -> None:
    talk = begin(engine)
    codec = talk.codec
    talk.do(head(1) + head(3))
    talk.do(answers(1, content=bytes(WINDOW - 10)))
    talk.do(settings({INITIAL_WINDOW: 100_000}) + head(5))
    talk.do(answers(5, content=bytes(100)))
    assert codec.held(5) == 90
    assert codec.blocked(5)
    assert codec.starved(5), "others have spent the connection's window"
    talk.do(window(0, 90))
    assert (codec.held(5), codec.blocked(5), codec.starved(5)) == (0, False, False)
    talk.do(settings({INITIAL_WINDOW: 0}) + window(0, 1000) + head(7))
    talk.do(answers(7, content=b"x"))
    assert (codec.blocked(7), codec.starved(7)) == (True, False)


@each_engine
def test_take_gives_little_more_than_it_is_asked_for(engine: Http2Engine) -> None:
    talk = begin(engine)
    talk.do(settings({INITIAL_WINDOW: 1 << 30}) + window(0, 1 << 30) + head(1) + head(3))
    talk.codec.answer(1, 200, [], b"a" * 500_000)
    talk.codec.answer(3, 200, [], b"b" * 500_000)
    taken = []
    while out := talk.codec.take(100_000):
        taken.append(len(out))
        talk.sent += talk.reader.read(out)
    assert max(taken) < 100_000 + 2 * FULL
    assert len(taken) == 9
    content = {1: b"", 3: b""}
    for one in talk.sent:
        if isinstance(one, Data):
            content[one.stream_id] += one.content
    assert content == {1: b"a" * 500_000, 3: b"b" * 500_000}


@each_engine
def test_frames_are_as_large_as_the_peer_lets_them_be(engine: Http2Engine) -> None:
    for size in (FULL, 50_000):
        talk = begin(engine)
        talk.do(settings({INITIAL_WINDOW: 1 << 30, FRAME_SIZE: size}) + window(0, 1 << 30) + head(1))
        talk.do(answers(1, 200, [(b"x", b"\x80" * 60_000)], bytes(200_000)))
        assert talk.reader.largest == size


@each_engine
def test_a_larger_table_of_the_peer_is_not_used_up_and_a_smaller_one_is_heeded(engine: Http2Engine) -> None:
    for size in (0, 100, 4096, 1 << 20):
        talk = begin(engine)
        talk.reader._decoder.max_allowed_table_size = min(size, 4096)
        talk.do(settings({1: size}))
        for number in range(1, 200, 2):
            talk.do(head(number))
            talk.do(answers(number, 200, [(b"x-%d" % (number % 7), b"v" * 90), (b"set-cookie", b"%d" % number)]))
        heads = [one for one in talk.sent if isinstance(one, Head)]
        assert len(heads) == 100


@each_engine
def test_secrets_do_not_get_into_the_table(engine: Http2Engine) -> None:
    """RFC 7541 section 7.1.3: else who may choose a part of an answer could guess the rest from its size."""
    talk = begin(engine)
    talk.do(head(1) + head(3))
    secret = [(b"set-cookie", b"id=123456"), (b"authorization", b"Basic 12345")]
    talk.codec.answer(1, 200, secret, b"")
    first = len(talk.codec.take())
    talk.codec.answer(3, 200, secret, b"")
    assert len(talk.codec.take()) == first


@each_engine
def test_ping_and_go_away(engine: Http2Engine) -> None:
    talk = begin(engine)
    talk.codec.ping(b"drained!")
    talk.codec.go_away(2**31 - 1)
    talk.codec.go_away(None, NO_ERROR)
    assert talk.take() == [Ping(b"drained!"), Away(2**31 - 1, 0), Away(0, 0)]
    talk.feed(rst(0))
    talk.take()
    talk.codec.ping(b"12345678")
    talk.codec.go_away(None)
    assert talk.take() == []


# Verbs out of turn, and fields that must not go out


def wrong(name: str, *steps: Step) -> object:
    return pytest.param(steps, id=name)


@each_engine
@pytest.mark.parametrize(
    "steps",
    [
        wrong("content before the head", sends_body(1, b"x")),
        wrong("trailers before the head", lambda codec: codec.send_trailers(1, [(b"x", b"y")])),
        wrong("two heads", sends_head(1), sends_head(1)),
        wrong("an answer behind a head", sends_head(1), answers(1)),
        wrong("hints behind a head", sends_head(1), lambda codec: codec.send_informational(1, 103, [])),
        wrong("a status that is none", sends_head(1, 99)),
        wrong("an interim status", sends_head(1, 103)),
        wrong("a status beyond all", answers(1, 600)),
        wrong("a final status for hints", lambda codec: codec.send_informational(1, 200, [])),
        wrong("101", lambda codec: codec.send_informational(1, 101, [])),
        wrong("CRLF in a value", sends_head(1, 200, [(b"x", b"a\r\nb: c")])),
        wrong("NUL in a value", answers(1, 200, [(b"x", b"\x00")])),
        wrong("a bad name", answers(1, 200, [(b"x y", b"z")])),
        wrong("an empty name", answers(1, 200, [(b"", b"z")])),
        wrong("a pseudo-header field", answers(1, 200, [(b":status", b"200")])),
        wrong("a length that is none", sends_head(1, 200, [(b"content-length", b"x")])),
        wrong("two lengths", sends_head(1, 200, [(b"content-length", b"1"), (b"content-length", b"2")])),
        wrong("CRLF in a trailer", sends_head(1), lambda codec: codec.send_trailers(1, [(b"x", b"\r\n")])),
        wrong("a trailer that must be none", sends_head(1), lambda codec: codec.send_trailers(1, [(b"host", b"x")])),
        wrong("CRLF in a hint", lambda codec: codec.send_informational(1, 103, [(b"x", b"\n")])),
    ],
)  # fmt: skip
def test_a_wrong_verb_is_refused_and_nothing_of_it_goes_out(engine: Http2Engine, steps: tuple[Step, ...]) -> None:
    talk = begin(engine)
    talk.do(head(1))
    *before, bad = steps
    for step in before:
        talk.do(step)
    said = len(talk.sent)
    with pytest.raises(LocalProtocolError):
        talk.do(bad)
    assert talk.take() == []
    assert len(talk.sent) == said
    assert talk.codec.streams == 1
    if before:
        talk.do(sends_body(1, b"ok"))
    else:
        talk.do(answers(1))
    assert plain(talk.sent)[-2:] == [answered(1, 200), Data(1, b"ok", True)]
    assert not talk.codec.closed


@each_engine
def test_an_answer_that_is_over_can_be_asked_what_was_sent(engine: Http2Engine) -> None:
    talk = begin(engine)
    talk.do(head(1) + head(3))
    talk.do(answers(1, content=b"12345"))
    assert talk.codec.sent_on(1) == 5
    talk.do(sends_head(3))
    talk.do(sends_body(3, b"123"))
    assert talk.codec.sent_on(3) == 3


@each_engine
def test_events_are_told_in_the_order_of_their_frames(engine: Http2Engine) -> None:
    talk = begin(engine)
    wire = head(1, POST, False) + data(1, b"a") + head(3) + data(1, b"b", True) + rst(3)
    kinds = [type(event) for event in talk.feed(wire)]
    assert kinds == [Request, Body, Request, Body, End, Reset]
    assert joined(talk.take()) == []
