"""What every HTTP/2 engine must make of the same conversations: one table, each row whole and cut in many ways."""

from __future__ import annotations

import pytest

from asgiri.codec.engines import HTTP2_ENGINES, Http2Engine, http2_engine
from tests.codec import h2_rows_answers, h2_rows_blocks, h2_rows_frames, h2_rows_requests, h2_rows_streams
from tests.codec.h2_rows import Row
from tests.codec.h2_wire_tools import (
    Talk,
    answered,
    begin,
    cuts,
    each_engine,
    head,
    merged,
    plain,
    request,
)

PARTS = (h2_rows_frames, h2_rows_streams, h2_rows_blocks, h2_rows_requests, h2_rows_answers)
ROWS = [row for part in PARTS for row in part.ROWS]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def test_auto_is_the_fastest_engine_and_a_wrong_name_is_none() -> None:
    assert http2_engine("auto") is list(HTTP2_ENGINES.values())[-1]
    with pytest.raises(KeyError):
        http2_engine("apache")


def test_the_table_is_as_large_as_it_should_be_and_its_rows_have_names_of_their_own() -> None:
    assert len(ROWS) > 700
    assert len({row.name for row in ROWS}) == len(ROWS)


def start(engine: Http2Engine, row: Row) -> Talk:
    return begin(engine, row.options) if row.behind else Talk(engine(row.options))


@each_engine
@each_row
def test_the_table_whole_and_cut(engine: Http2Engine, row: Row) -> None:
    wires = [step for step in row.steps if isinstance(step, bytes)]
    ways = [[*cuts(wire)] for wire in wires]
    for way in range(4):
        talk = start(engine, row)
        place = 0
        for step in row.steps:
            if isinstance(step, bytes):
                talk.do(step, ways[place][min(way, len(ways[place]) - 1)])
                place += 1
            else:
                talk.do(step)
        assert merged(talk.events) == list(row.events), f"way {way}"
        assert plain(talk.sent) == plain(list(row.sent)), f"way {way}"
        if row.fails:
            check_dead(talk)
        else:
            check_alive(talk)


def check_dead(talk: Talk) -> None:
    """Nothing is parsed and nothing is said any more."""
    assert talk.codec.closed
    assert talk.codec.streams == 0
    assert talk.codec.receive(head(0x7FFFFFFF)) == []
    assert talk.codec.receive(b"") == []
    for stream_id in (1, 3):
        talk.codec.send_head(stream_id, 200, [])
        talk.codec.send_body(stream_id, b"x", True)
        talk.codec.reset(stream_id, 8)
    assert talk.codec.take() == b""


def check_alive(talk: Talk) -> None:
    """The connection is as good as a new one."""
    assert not talk.codec.closed
    refused = [one.last for one in talk.sent if hasattr(one, "last")]
    new = 0x7FFFFFFF
    if (refused and refused[-1] != new) or talk.codec.last_stream_id == new:
        return
    for stream_id in range(1, 12, 2):  # lest there are too many
        talk.codec.reset(stream_id, 8)
    talk.take()
    talk.events.clear()
    assert talk.feed(head(new)) == [request(new)]
    talk.codec.answer(new, 200, [], b"")  # for there may be no window left
    assert plain(talk.take()) == [answered(new, 200, end=True)]


@each_engine
@pytest.mark.parametrize("row", h2_rows_answers.ORDERS, ids=lambda row: row.name)
def test_whose_content_goes_first(engine: Http2Engine, row: Row) -> None:
    talk = begin(engine)
    for step in row.steps:
        talk.do(step)
