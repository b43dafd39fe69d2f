"""What every WebSocket engine must make of the same frames: one table, each row whole and cut in many ways."""

from __future__ import annotations

import pytest

from asgiri.codec.engines import WEBSOCKET_ENGINES, WebSocketEngine, websocket_engine
from asgiri.codec.events import Text
from tests.codec import ws_rows_close, ws_rows_deflate, ws_rows_frames, ws_rows_text
from tests.codec.tables import about, in_parts
from tests.codec.ws_rows import Row
from tests.codec.ws_wire import BINARY, CLOSE, FIN, TEXT, Sent, cuts, each_engine, feed, frame, sent_frames

PARTS = {"frames": ws_rows_frames, "text": ws_rows_text, "close": ws_rows_close, "deflate": ws_rows_deflate}
ROWS = {f"{part}: {row.name}": row for part, module in PARTS.items() for row in module.ROWS}

BEFORE = frame(TEXT, b"before")


def test_auto_is_the_fastest_engine_and_a_wrong_name_is_none() -> None:
    assert websocket_engine("auto") is list(WEBSOCKET_ENGINES.values())[-1]
    with pytest.raises(KeyError):
        websocket_engine("apache")


def test_the_table_is_as_large_as_it_should_be_and_its_rows_have_names_of_their_own() -> None:
    assert len(ROWS) > 550
    assert len(ROWS) == sum(len(module.ROWS) for module in PARTS.values())


def sent(data: bytes, row: Row) -> list[Sent]:
    """What was written; a Close frame that tells of a failure without its sentence."""
    frames = sent_frames(data)
    if row.fails:
        assert frames[-1].first == FIN | CLOSE
        assert len(frames[-1].payload) > 2
        frames[-1] = Sent(frames[-1].first, frames[-1].payload[:2])
    return frames


@each_engine
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_table_whole_and_cut(engine: WebSocketEngine, row: Row) -> None:
    for pieces in cuts(row.data):
        codec = engine(row.most, row.deflate)
        assert feed(codec, pieces) == list(row.events), [len(piece) for piece in pieces]
        assert sent(codec.take(), row) == list(row.sent)
        assert codec.closing is row.ends
        if row.ends:
            assert codec.receive(b"\xff" + BEFORE) == []
            codec.send_text("a")
            codec.send_close(1000)
            assert codec.take() == b""


@each_engine
@in_parts(list(ROWS.values()))
def test_the_table_behind_a_message(engine: WebSocketEngine, rows: list[Row]) -> None:
    for row in rows:
        if not 0 < row.most < len("before"):
            with about(row):
                codec = engine(row.most, row.deflate)
                assert feed(codec, [BEFORE + row.data]) == [Text("before", 6), *row.events]
                assert sent(codec.take(), row) == list(row.sent)


@each_engine
@in_parts(list(ROWS.values()))
def test_what_comes_behind_the_end_changes_nothing(engine: WebSocketEngine, rows: list[Row]) -> None:
    for row in rows:
        if row.ends and not (row.deflate and row.most):
            for behind in (BEFORE * 3, b"\xff" * 20, bytes(20)):
                with about(row):
                    codec = engine(row.most, row.deflate)
                    assert feed(codec, [row.data + behind]) == list(row.events), behind
                    assert sent(codec.take(), row) == list(row.sent), behind


@each_engine
@in_parts(list(ROWS.values()))
def test_it_fails_at_the_first_byte_that_is_wrong(engine: WebSocketEngine, rows: list[Row]) -> None:
    for row in rows:
        if row.fails and not row.late:
            with about(row):
                codec = engine(row.most, row.deflate)
                assert feed(codec, [row.data[:-1]]) == list(row.events[:-1])
                assert feed(codec, [row.data[-1:]]) == [row.events[-1]]


@each_engine
def test_the_end_of_the_peer_is_no_event(engine: WebSocketEngine) -> None:
    codec = engine(0, None)
    assert codec.receive(frame(BINARY, b"ab")[:-1]) == []
    assert codec.receive(b"") == []
    assert codec.take() == b""
