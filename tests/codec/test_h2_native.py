"""What is the native engine's alone: header blocks that it knows already, and how much it remembers."""

from __future__ import annotations

from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec import h2_known
from asgiri.codec.events import Body, End, Event, Failure, Refused, Request, Reset
from asgiri.codec.h2_known import MOST_BLOCKS
from asgiri.codec.h2_native import NativeCodec
from asgiri.codec.h2_reading import MOST_GAPS
from asgiri.codec.h2_state import MOST_PRIORITIES, MOST_RESET
from asgiri.codec.h2_wire import ErrorCode, Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers
from tests.codec.h2_wire_tools import (
    FULL,
    GET,
    HEADERS,
    INITIAL_WINDOW,
    PREFACE,
    TABLE_SIZE,
    Data,
    Head,
    Rst,
    SettingsAck,
    Talk,
    answered,
    begin,
    data,
    frame,
    head,
    integer,
    literal,
    priority_update,
    request,
    rst,
    window,
)
from tests.codec.h2_wire_tools import settings as settings_frame

AUTHORITY = b"\x01\x01a"  # :authority: a
PLAIN = b"\x82\x86\x84" + AUTHORITY  # GET http /
NEWEST = b"\xbe"  # the newest entry of the dynamic table


def adds(name: bytes, value: bytes) -> bytes:
    return literal(name, value, 0x40)


class Asking:
    """A client whose header blocks are given as bytes."""

    def __init__(self, options: Http2Options | None = None) -> None:
        self.talk = begin(NativeCodec, options)
        self.stream_id = -1

    def ask(self, block: bytes, end: bool = True) -> Event | None:
        """What comes of it; the stream is over then, as far as the server's side goes."""
        self.stream_id += 2
        events = self.talk.feed(head(self.stream_id, end=end, encoded=block))
        if not end and isinstance(events[0], Request):
            self.talk.feed(data(self.stream_id, b"", True))
        self.talk.codec.answer(self.stream_id, 200, [], b"")
        self.talk.take()
        return events[0] if events else None

    def headers(self, block: bytes, end: bool = True) -> Headers:
        event = self.ask(block, end)
        assert isinstance(event, Request)
        assert event.stream_id == self.stream_id
        assert event.end_stream is end
        return event.headers


@pytest.mark.parametrize("end", [True, False])
def test_a_known_block_makes_the_same_request_with_fields_of_its_own(end: bool) -> None:
    asking = Asking()
    for _ in range(5):
        headers = asking.headers(PLAIN, end)
        assert headers == [(b"host", b"a")]
        headers.append((b"x", b"the application's"))


CHANGES = {
    "a request": lambda: head(3, encoded=PLAIN + adds(b"x", b"2")),
    "a request with a body": lambda: head(3, end=False, encoded=PLAIN + adds(b"x", b"2")) + data(3, b"", True),
    "trailers": lambda: head(3, end=False, encoded=PLAIN) + head(3, encoded=adds(b"x", b"2")),
    "a malformed request": lambda: head(3, encoded=adds(b"x", b"2")),
    "a refused request": lambda: head(
        3, encoded=b"\x83\x86\x84" + AUTHORITY + adds(b"x", b"2") + literal(b"y", b"z" * 99)
    ),
    "trailers of a stream that was reset": lambda: (
        head(3, end=False, encoded=b"\x82") + head(3, encoded=adds(b"x", b"2"))
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("end", [True, False])
def test_a_block_means_something_else_once_the_table_has_changed(change: object, end: bool) -> None:
    assert callable(change)
    asking = Asking(Http2Options(max_header_list=250))
    talk = asking.talk
    talk.feed(head(1, encoded=PLAIN + adds(b"x", b"1")))
    talk.feed(change())
    asking.stream_id = 3
    known = PLAIN + NEWEST
    first = asking.headers(known, end)
    assert first == asking.headers(known, end) == asking.headers(known, end) == [(b"host", b"a"), (b"x", b"2")]
    asking.ask(PLAIN + adds(b"x", b"3"), end)
    assert asking.headers(known, end) == [(b"host", b"a"), (b"x", b"3")]
    asking.ask(b"\x20" + PLAIN, end)  # no table any more
    asking.stream_id += 2
    assert isinstance(talk.feed(head(asking.stream_id, end=end, encoded=known))[0], Failure)


def path(value: bytes) -> bytes:
    """A request whose :path is the only literal, and not for the table, as nghttp2 writes them."""
    return b"\x82\x86\x04" + integer(len(value), 7) + value + NEWEST


def warm(options: Http2Options | None = None) -> Asking:
    """Behind requests that differ in their :path alone."""
    asking = Asking(options)
    asking.ask(b"\x82\x86\x84" + adds(b":authority", b"a"))
    for value in (b"/a", b"/b?c", b"/d"):
        event = asking.ask(path(value))
        assert isinstance(event, Request)
        assert event.target == value
    return asking


def code(value: bytes) -> bytes:
    """The same with a Huffman code."""
    encoded = Encoder().huffman_coder.encode(value)
    return b"\x82\x86\x04" + bytes([0x80 | len(encoded)]) + encoded + NEWEST


@pytest.mark.parametrize("value", [b"/", b"/e?f", b"/g?", b"/" + b"h" * 100, b"/" + b"0" * 125, b"/\xc3\xa9", b"/a"])
@pytest.mark.parametrize("written", [path, code])
def test_a_block_that_differs_in_its_path_alone(value: bytes, written: object) -> None:
    assert callable(written)
    target, _, query = value.partition(b"?")
    for asking in (warm(), warm()):
        for _ in range(2):
            event = asking.ask(written(value))
            assert event == request(asking.stream_id, "GET", value, path=target, query=query)


@pytest.mark.parametrize("value", [b"", b"*", b"e", b"/ ", b"/\r\n", b"/\0", b"http://a/"])
@pytest.mark.parametrize("written", [path, code])
def test_a_path_is_judged_whatever_is_known(value: bytes, written: object) -> None:
    assert callable(written)
    asking = warm()
    assert asking.ask(written(value)) is None
    assert asking.talk.sent[-1] == Rst(asking.stream_id, ErrorCode.PROTOCOL_ERROR)


def test_a_long_length_is_no_length_of_127() -> None:
    asking = warm()
    asking.stream_id += 2
    block = b"\x82\x86\x04\x7f" + b"/" * 127 + NEWEST
    assert isinstance(asking.talk.feed(head(asking.stream_id, encoded=block))[0], Failure)
    event = warm().ask(path(b"/" * 127))
    assert isinstance(event, Request)
    assert event.target == b"/" * 127


@pytest.mark.parametrize("written", [path, code])
def test_limits_hold_whatever_is_known(written: object) -> None:
    assert callable(written)
    for options, status in (
        (Http2Options(limits=HttpLimits(request_line=20)), 414),
        (Http2Options(max_header_list=180), 431),
    ):
        for size in range(10, 40):
            value = b"/" + b"x" * size
            fresh = Asking(options)
            fresh.ask(b"\x82\x86\x84" + adds(b":authority", b"a"))
            expected, event = fresh.ask(written(value)), warm(options).ask(written(value))
            assert type(event) is type(expected)
            if isinstance(event, Refused):
                assert event.status == status
        assert isinstance(event, Refused)


def test_paths_that_differ_each_time_do_not_gather() -> None:
    asking = warm()
    for place in range(h2_known.MOST_TARGETS + 50):
        event = asking.ask(code(b"/%d" % place))
        assert isinstance(event, Request)
        assert event.target == b"/%d" % place
    assert len(h2_known.TARGETS) <= h2_known.MOST_TARGETS


@settings(max_examples=200)
@given(
    st.binary(max_size=12),
    st.integers(0, 255),
    st.sampled_from([NEWEST, b"", b"\xbe\xbe", b"\x90"]),
    st.sampled_from([b"\x82\x86\x04", b"\x82\x86", b"\x82\x86\x04\x04", b""]),
)
def test_what_is_known_never_changes_what_a_block_means(value: bytes, size: int, behind: bytes, before: bytes) -> None:
    for length in (size, len(value), len(value) | 0x80):
        block = before + bytes([length]) + value + behind
        known = warm()
        unknown = Asking()
        unknown.ask(b"\x82\x86\x84" + adds(b":authority", b"a"))
        unknown.stream_id = known.stream_id
        assert known.ask(block) == unknown.ask(block)


@pytest.mark.parametrize("end", [True, False])
def test_a_priority_that_was_told_apart_is_of_its_stream_alone(end: bool) -> None:
    """RFC 9218 section 7: though the block is known from then on."""
    talk = begin(NativeCodec)
    talk.feed(priority_update(3, b"u=0"))
    for stream_id in (1, 3, 5, 7):
        talk.feed(head(stream_id, end=end, encoded=PLAIN))
        talk.codec.send_head(stream_id, 200, [])
        talk.codec.send_body(stream_id, b"x" * 100, False)
    assert [part.stream_id for part in talk.take() if isinstance(part, Data)] == [3, 1, 5, 7]


def test_a_head_has_no_content_whatever_is_known() -> None:
    asking = Asking()
    for _ in range(3):
        block = literal(b":method", b"HEAD") + PLAIN[1:]
        asking.stream_id += 2
        asking.talk.feed(head(asking.stream_id, encoded=block))
        asking.talk.codec.answer(asking.stream_id, 200, [(b"content-length", b"2")], b"ok")
        assert asking.talk.take() == [answered(asking.stream_id, 200, (b"content-length", b"2"), end=True)]


def test_a_smaller_table_is_acknowledged_in_the_next_block() -> None:
    """RFC 9113 section 4.3.1: though there is nothing in ours. The reader would not take a block without it."""
    talk = begin(NativeCodec)
    talk.reader._decoder.max_allowed_table_size = 100
    talk.feed(settings_frame({TABLE_SIZE: 100}) + head(1) + head(3))
    for stream_id in (1, 3):
        talk.codec.answer(stream_id, 200, [], b"")
    assert talk.take() == [SettingsAck(), answered(1, 200, end=True), answered(3, 200, end=True)]


def test_what_is_remembered_is_bounded() -> None:
    talk = begin(NativeCodec)
    codec = talk.codec
    assert isinstance(codec, NativeCodec)
    for number in range(MOST_RESET + 50):
        talk.feed(head(2 * number + 1, end=False))
        codec.answer(2 * number + 1, 200, [], b"")
        talk.take()
    assert len(codec._reset) == MOST_RESET
    for number in range(1, MOST_GAPS + 50):
        talk.feed(head(10_000 + 10 * number + 1))
        codec.answer(10_000 + 10 * number + 1, 200, [], b"")
        talk.take()
    assert len(codec._gaps) <= MOST_GAPS + 1
    for number in range(MOST_PRIORITIES + 50):
        talk.feed(priority_update(100_001 + 2 * number, b"u=1"))
    assert len(codec._priorities) == MOST_PRIORITIES
    talk.feed(head(200_001))
    assert not codec._priorities
    codec.answer(200_001, 200, [], b"")
    talk.take()
    for number in range(1, 500):
        talk.feed(head(200_001 + 2 * number, [*GET, (b"x", b"%d" % number)]))
        codec.answer(200_001 + 2 * number, 200, [], b"")
        talk.take()
    assert len(codec._known.bodiless) <= MOST_BLOCKS
    assert codec.streams == 0


def test_streams_whose_answers_the_peer_cannot_know_yet_count() -> None:
    """Else a peer that does not read could have us hold any number of answers."""
    talk = begin(NativeCodec, Http2Options(max_concurrent_streams=2))
    for stream_id in (1, 3, 5):
        talk.feed(head(stream_id))
        talk.codec.answer(stream_id, 200, [], b"ok")
    assert talk.take()[-1] == Rst(5, ErrorCode.REFUSED_STREAM)
    assert talk.feed(head(7)) == [request(7)]


def test_a_large_frame_in_small_pieces_is_not_copied_for_each() -> None:
    options = Http2Options(max_frame_size=(1 << 24) - 1, initial_window=1 << 25)
    talk = begin(NativeCodec, options)
    content = b"x" * ((1 << 24) - 1)
    talk.feed(head(1, end=False))
    wire = data(1, content, True) + head(3)
    for at in range(0, len(wire), 1000):  # would be 130 GB
        talk.feed(wire[at : at + 1000])
    assert talk.events == [request(1, end_stream=False), Body(1, content), End(1, []), request(3)]


def test_large_answers_are_not_copied_before_they_go() -> None:
    talk = begin(NativeCodec)
    talk.feed(head(1))
    content = b"x" * (1 << 20)
    talk.codec.answer(1, 200, [], content)
    assert isinstance(talk.codec, NativeCodec)
    stream = talk.codec._streams[1]
    assert stream.pieces is not None
    assert stream.pieces[0] is content
    assert talk.codec.held(1) == 1 << 20
    assert sum(len(part.content) for part in talk.take() if isinstance(part, Data)) == 65_535
    assert talk.codec.blocked(1)
    assert talk.codec.sent_on(1) == 1 << 20


def test_what_a_stream_has_sent_can_be_asked_for_right_behind_its_end() -> None:
    talk = begin(NativeCodec)
    talk.feed(head(1) + head(3))
    talk.codec.answer(1, 200, [], b"ok")
    assert talk.codec.sent_on(1) == 2
    assert (talk.codec.sent_on(3), talk.codec.sent_on(5)) == (0, 0)


def test_an_answer_with_a_head_of_many_frames() -> None:
    talk = begin(NativeCodec)
    talk.feed(head(1))
    fields = [(b"x-%d" % number, b"y" * 4000) for number in range(9)]
    talk.codec.answer(1, 200, fields, b"ok")
    assert talk.take() == [answered(1, 200, *fields), Data(1, b"ok", True)]
    assert talk.reader.largest == FULL


# The verbs, and the ends


def in_head(talk: Talk) -> bool:
    return talk.codec.in_head  # by a call, for mypy takes a property for what does not change


def test_verbs_where_they_do_not_belong() -> None:
    talk = begin(NativeCodec)
    talk.feed(head(1))
    codec = talk.codec
    too_early: list[Callable[[], None]] = [
        lambda: codec.send_body(1, b"x", True),
        lambda: codec.send_trailers(1, []),
        lambda: codec.send_head(1, 103, []),
        lambda: codec.answer(1, 100, [], b""),
        lambda: codec.answer(1, 200, [(b"x", b"\n")], b""),
        lambda: codec.send_informational(1, 200, []),
    ]
    for verb in too_early:
        with pytest.raises(LocalProtocolError):
            verb()
    assert talk.take() == []
    codec.send_head(1, 200, [])
    too_late: list[Callable[[], None]] = [
        lambda: codec.send_head(1, 200, []),
        lambda: codec.answer(1, 200, [], b""),
        lambda: codec.send_informational(1, 103, []),
        lambda: codec.send_trailers(1, [(b"content-length", b"1")]),
    ]
    for verb in too_late:
        with pytest.raises(LocalProtocolError):
            verb()
    codec.send_body(1, b"x", True)
    assert talk.take() == [answered(1, 200), Data(1, b"x", True)]


def test_verbs_for_a_stream_that_is_over_do_nothing() -> None:
    talk = begin(NativeCodec)
    talk.feed(head(1) + rst(1))
    codec = talk.codec
    codec.send_informational(1, 103, [])
    codec.send_head(1, 200, [])
    codec.send_body(1, b"x", True)
    codec.send_trailers(1, [])
    codec.answer(1, 200, [], b"x")
    codec.reset(1, 8)
    codec.consumed(1, 5)
    assert (codec.held(1), codec.blocked(1), codec.starved(1), codec.sent_on(1)) == (0, False, False, 0)
    assert talk.take() == []


def test_only_a_stream_whose_own_window_is_open_is_starved() -> None:
    talk = begin(NativeCodec)
    talk.feed(head(1) + head(3))
    talk.codec.answer(1, 200, [], b"x" * 100_000)
    talk.codec.answer(3, 200, [], b"x" * 100)
    talk.take()
    talk.feed(window(1, 1 << 20))
    assert talk.codec.starved(1)
    talk.feed(window(0, 1 << 20))
    assert not talk.codec.starved(1)


def test_the_end_of_file_resets_what_is_not_whole_and_answers_the_rest() -> None:
    talk = begin(NativeCodec)
    talk.feed(head(1) + head(3, end=False) + head(5, end=False) + data(3, b"x" * 100) + b"\0\0")
    reason = "the peer went away before the end of the request body"
    assert talk.feed(b"") == [Reset(3, reason, ErrorCode.CANCEL), Reset(5, reason, ErrorCode.CANCEL)]
    assert talk.codec.closed
    assert talk.feed(head(7)) == []
    talk.codec.answer(1, 200, [], b"ok")
    assert talk.take() == [answered(1, 200), Data(1, b"ok", True)]
    assert talk.codec.streams == 0


def test_what_http_1_was_upgraded_to() -> None:
    talk = Talk(NativeCodec(Http2Options()))
    upgraded = request(1, http_version="1.1")
    assert talk.codec.upgrade(settings_frame({INITIAL_WINDOW: 5})[9:], upgraded) == [upgraded]
    talk.codec.upgraded_body(True)
    talk.codec.answer(1, 200, [], b"0123456789")
    assert talk.take() == [answered(1, 200), Data(1, b"01234")]
    assert in_head(talk)
    assert talk.feed(PREFACE + head(3)) == [request(3)]
    assert not in_head(talk)
    talk.feed(window(1, 5))
    assert talk.take() == [SettingsAck(), Data(1, b"56789", True)]
    assert (talk.codec.streams, talk.codec.last_stream_id) == (1, 3)


def test_settings_of_an_upgrade_that_are_none() -> None:
    codec = NativeCodec(Http2Options())
    events = codec.upgrade(b"12345", request(1, http_version="1.1"))
    assert [type(event) for event in events] == [Failure]
    assert codec.closed


def test_what_waits_for_the_end_of_a_head() -> None:
    talk = Talk(NativeCodec(Http2Options()))
    assert in_head(talk)  # the preface
    talk.feed(PREFACE)
    assert not in_head(talk)
    wire = head(1, end=False)
    talk.feed(wire[:-1])
    assert in_head(talk)
    talk.feed(wire[-1:] + data(1, b"abc")[:-1])
    assert not in_head(talk)
    talk.feed(b"c" + frame(HEADERS, 0, 3, PLAIN))
    assert in_head(talk)


def test_windows_smaller_than_the_default_are_held_to_once_they_are_acknowledged() -> None:
    """RFC 9113 section 6.9.2: until then the peer cannot know."""
    talk = Talk(NativeCodec(Http2Options(initial_window=100)))
    talk.feed(PREFACE + head(1, end=False) + data(1, b"x" * 150))
    assert talk.codec.streams == 1
    talk.feed(settings_frame(flags=1) + head(3, end=False) + data(3, b"x" * 101))
    assert talk.events[-1] == Reset(3, "DATA is beyond the stream's window", ErrorCode.FLOW_CONTROL_ERROR)
    talk.feed(data(1, b"x"))
    assert talk.events[-1] == Reset(1, "DATA is beyond the stream's window", ErrorCode.FLOW_CONTROL_ERROR)


# With the h2 library as the client


class Client:
    def __init__(self, options: Http2Options | None = None) -> None:
        self.codec = NativeCodec(options or Http2Options())
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=False))
        self.h2.initiate_connection()
        self.events: list[Event] = []
        self.got: list[h2.events.Event] = []

    def settle(self) -> None:
        """Until neither has anything to say. The client reads what it gets."""
        while True:
            asked, answer = self.h2.data_to_send(), self.codec.take()
            if not asked and not answer:
                return
            if asked:
                self.events += self.codec.receive(asked)
            for event in self.h2.receive_data(answer) if answer else []:
                self.got.append(event)
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def content(self, stream_id: int) -> bytes:
        return b"".join(
            [e.data for e in self.got if isinstance(e, h2.events.DataReceived) and e.stream_id == stream_id]
        )


def test_requests_of_the_library_are_answered() -> None:
    client = Client()
    for number in range(300):
        stream_id = 2 * number + 1
        fields = [*GET[:3], (b":path", b"/%d" % (number % 7)), (b"x-number", b"%d" % (number % 3))]
        client.h2.send_headers(stream_id, fields, end_stream=True)
        client.settle()
        expected = [(b"host", b"a"), (b"x-number", b"%d" % (number % 3))]
        assert client.events.pop() == request(stream_id, "GET", b"/%d" % (number % 7), expected)
        client.codec.answer(stream_id, 200, [(b"x", b"%d" % number)], b"answer %d" % number)
        client.settle()
        assert client.content(stream_id) == b"answer %d" % number
        assert any(isinstance(e, h2.events.StreamEnded) and e.stream_id == stream_id for e in client.got)
        client.got.clear()


def test_bodies_and_answers_larger_than_all_windows_go_through() -> None:
    client = Client(Http2Options(initial_window=70_000))
    body = bytes(range(256)) * 2000
    client.h2.send_headers(1, [(b":method", b"POST"), *GET[1:], (b"content-length", b"%d" % len(body))])
    client.settle()
    assert client.events == [
        request(1, "POST", end_stream=False, headers=[(b"host", b"a"), (b"content-length", b"512000")])
    ]
    received, at = bytearray(), 0
    while at < len(body):
        size = min(client.h2.local_flow_control_window(1), client.h2.max_outbound_frame_size, len(body) - at)
        assert size, "the window was not opened in time"
        client.h2.send_data(1, body[at : at + size], pad_length=None)
        at += size
        client.events.clear()
        client.settle()
        for event in client.events:
            assert isinstance(event, Body)
            received += event.data
            client.codec.consumed(1, len(event.data))
        client.settle()
    client.h2.send_data(1, b"", end_stream=True)
    client.events.clear()
    client.settle()
    assert received == body
    assert client.events == [End(1, [])]
    client.codec.send_head(1, 200, [])
    for begin_ in range(0, len(body), 30_000):
        client.codec.send_body(1, body[begin_ : begin_ + 30_000], False)
    client.codec.send_trailers(1, [(b"x-checksum", b"1")])
    client.settle()
    assert client.content(1) == body
    assert isinstance(client.got[-1], h2.events.StreamEnded)
    assert client.codec.streams == 0


def test_bodies_that_nobody_reads_do_not_close_the_connections_window() -> None:
    client = Client(Http2Options(initial_window=65_535, max_concurrent_streams=4))
    for number in range(40):
        stream_id = 2 * number + 1
        client.h2.send_headers(stream_id, GET)
        while client.h2.local_flow_control_window(stream_id):
            client.h2.send_data(stream_id, b"x" * min(client.h2.local_flow_control_window(stream_id), FULL))
        client.settle()
        client.codec.reset(stream_id, ErrorCode.CANCEL)
        client.settle()
    assert not any(isinstance(event, Failure) for event in client.events)
    assert client.h2.outbound_flow_control_window >= 65_535


def test_a_reset_of_the_peers_frees_what_was_held() -> None:
    talk: Talk = begin(NativeCodec)
    talk.feed(head(1) + head(3))
    talk.codec.answer(1, 200, [], b"x" * 200_000)
    talk.codec.answer(3, 200, [], b"ok")
    assert talk.feed(rst(1)) == [Reset(1, "the peer has reset the stream", ErrorCode.CANCEL)]
    assert talk.codec.held(1) == 0
    talk.take()
    assert talk.sent == [Head(1, ((b":status", b"200"),)), Head(3, ((b":status", b"200"),)), Data(3, b"ok", True)]
    assert talk.feed(window(1, 5) + frame(HEADERS, 4 | 1, 5, PLAIN)) == [request(5)]
