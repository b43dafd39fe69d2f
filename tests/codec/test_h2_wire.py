"""What an HTTP/2 server says of itself, and the frames that it makes."""

from __future__ import annotations

import pytest

from asgiri.codec.h2_wire import DEFAULT_WINDOW, MOST_WINDOW, Http2Options, Setting, header_frames
from tests.codec.h2_wire_tools import Head, Reader, block


@pytest.mark.parametrize(
    ("options", "window"),
    [
        (Http2Options(), 4 << 20),
        (Http2Options(max_concurrent_streams=1), 1 << 20),
        (Http2Options(max_concurrent_streams=3, initial_window=100_000), 300_000),
        (Http2Options(initial_window=1), DEFAULT_WINDOW),
        (Http2Options(initial_window=MOST_WINDOW), MOST_WINDOW),
        (Http2Options(max_concurrent_streams=0), DEFAULT_WINDOW),
    ],
)
def test_the_window_of_the_connection(options: Http2Options, window: int) -> None:
    """RFC 9113 section 6.9.2: it is never smaller than it is at first."""
    assert options.connection_window == window


def test_what_is_announced() -> None:
    announced = dict(Http2Options().settings())
    assert announced == {
        Setting.MAX_CONCURRENT_STREAMS: 128,
        Setting.INITIAL_WINDOW_SIZE: 1 << 20,
        Setting.MAX_FRAME_SIZE: 16 << 10,
        Setting.MAX_HEADER_LIST_SIZE: 64 << 10,
        Setting.ENABLE_CONNECT_PROTOCOL: 1,
        Setting.NO_RFC7540_PRIORITIES: 1,
    }
    bare = dict(Http2Options(max_header_list=0, connect_protocol=False).settings())
    assert announced.keys() - bare.keys() == {Setting.MAX_HEADER_LIST_SIZE, Setting.ENABLE_CONNECT_PROTOCOL}


@pytest.mark.parametrize("size", [1, 7, 20, 21, 100])
def test_a_block_in_frames_of_a_size(size: int) -> None:
    fields = [(b"a", b"b" * 4), (b"c", b"d" * 8)]
    reader = Reader()
    assert reader.read(header_frames(5, block(fields), True, size)) == [Head(5, tuple(fields), True)]
    assert reader.largest == min(size, len(block(fields)))
