"""Whose DATA goes next, and how much of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec.h2_budget import Budget
from asgiri.codec.h2_sending import SANE_PIECE, Outgoing, Sender
from asgiri.codec.h2_wire import DEFAULT_WINDOW, LEAST_FRAME, MOST_WINDOW, ConnectionFault, ErrorCode, StreamFault

ALL = 1 << 30


def sender(window: int = 1 << 24) -> Sender:
    made = Sender(Budget())
    made.window = window
    return made


def stream(number: int = 1, window: int = 1 << 20, urgency: int = 3, incremental: bool = True) -> Outgoing:
    made = Outgoing(number, window)
    made.urgency, made.incremental = urgency, incremental
    return made


def sent(sending: Sender, most: int = ALL) -> list[tuple[int, int, bool]]:
    """Stream, size, whether the stream ends."""
    return [(stream.stream_id, len(content), end) for stream, content, end in sending.pieces(most)]


def order(sending: Sender) -> list[int]:
    return [number for number, _, _ in sent(sending)]


FRAME = b"x" * LEAST_FRAME


def holding(sending: Sender, *streams: Outgoing, frames: int = 3) -> None:
    for one in streams:
        sending.put(one, FRAME * frames)
        sending.finish(one)


def test_a_body_goes_out_in_frames_and_its_last_one_ends_the_stream() -> None:
    sending, one = sender(), stream()
    sending.put(one, b"x" * (LEAST_FRAME + 1))
    assert not sending.finish(one)
    assert (one.held, one.sent, sending.held) == (LEAST_FRAME + 1,) * 3
    assert sent(sending) == [(1, LEAST_FRAME, False), (1, 1, True)]
    assert (one.held, one.sent, sending.held) == (0, LEAST_FRAME + 1, 0)
    assert sent(sending) == []


def test_the_frames_of_a_peer_may_be_larger() -> None:
    sending, one = sender(), stream()
    sending.max_frame = 40_000
    holding(sending, one)
    assert sent(sending) == [(1, 40_000, False), (1, 9152, True)]


def test_what_is_not_finished_does_not_end() -> None:
    sending, one = sender(), stream()
    sending.put(one, b"abc")
    assert sent(sending) == [(1, 3, False)]
    assert sending.finish(one)  # the engine ends it itself


def test_trailers_end_the_stream_behind_its_content() -> None:
    sending, one = sender(), stream()
    sending.put(one, b"abc")
    assert not sending.finish(one, [(b"x", b"y")])
    assert sent(sending) == [(1, 3, False)]
    assert one.finished
    assert not one.held


def test_streams_take_turns_a_frame_each() -> None:
    sending = sender()
    holding(sending, stream(1), stream(3), stream(5))
    assert order(sending) == [1, 3, 5] * 3


def test_the_round_goes_on_where_it_stopped() -> None:
    sending = sender()
    holding(sending, stream(1), stream(3), stream(5))
    assert [number for number, _, _ in sent(sending, LEAST_FRAME + 1)] == [1, 3]
    assert order(sending) == [5, 1, 3, 5, 1, 3, 5]


def test_what_is_not_incremental_goes_one_after_the_other_in_the_order_of_the_requests() -> None:
    sending = sender()
    holding(sending, stream(5, incremental=False), stream(1, incremental=False), stream(3, incremental=False))
    assert order(sending) == [1, 1, 1, 3, 3, 3, 5, 5, 5]


def test_both_kinds_share_their_urgency() -> None:
    sending = sender()
    holding(sending, stream(1, incremental=False), stream(3), stream(5), stream(7, incremental=False))
    assert order(sending) == [1, 3, 1, 5, 1, 3, 7, 5, 7, 3, 7, 5]


def test_lower_urgency_numbers_go_first() -> None:
    sending = sender()
    holding(sending, stream(1, urgency=7), stream(3, urgency=3), stream(5, urgency=0), frames=1)
    assert order(sending) == [5, 3, 1]


def test_a_priority_may_change_while_a_stream_waits() -> None:
    sending = sender()
    first, last = stream(1), stream(3)
    holding(sending, first, last)
    sending.prioritise(last, 1, False)
    assert order(sending) == [3, 3, 3, 1, 1, 1]
    sending.prioritise(first, 0, True)  # which waits for nothing
    assert order(sending) == []


def test_a_blocked_urgent_stream_holds_nobody_up() -> None:
    sending = sender()
    holding(sending, stream(1, window=0, urgency=0), stream(3), frames=1)
    assert order(sending) == [3]


def test_a_spent_window_blocks_its_stream_alone() -> None:
    sending = sender()
    first, last = stream(1, window=100), stream(3)
    holding(sending, first, last, frames=1)
    assert sent(sending) == [(1, 100, False), (3, LEAST_FRAME, True)]
    assert sending.is_blocked(first)
    assert not sending.is_blocked(last)
    sending.grant(first, 20_000)
    assert not sending.is_blocked(first)
    assert sent(sending) == [(1, LEAST_FRAME - 100, True)]


def test_a_spent_window_of_the_connection_blocks_all_that_hold() -> None:
    sending = sender(window=LEAST_FRAME + 5)
    first, last, idle = stream(1), stream(3), stream(5)
    holding(sending, first, last)
    assert sent(sending) == [(1, LEAST_FRAME, False), (3, 5, False)]
    assert sending.is_blocked(first)
    assert sending.is_blocked(last)
    assert not sending.is_blocked(idle)
    sending.grant_all(1 << 20)
    assert not sending.is_blocked(first)
    assert sum(size for _, size, _ in sent(sending)) == 5 * LEAST_FRAME - 5


def test_a_window_that_opens_byte_by_byte_makes_no_frame_of_each() -> None:
    """CVE-2019-9511."""
    sending, one = sender(), stream(window=10)
    holding(sending, one)
    assert sent(sending) == [(1, 10, False)]
    for _ in range(SANE_PIECE - 1):
        sending.grant(one, 1)
        assert sent(sending) == []
        assert sending.is_blocked(one)
    sending.grant(one, 1)
    assert sent(sending) == [(1, SANE_PIECE, False)]


def test_nor_does_that_of_the_connection() -> None:
    sending, one = sender(window=10), stream()
    holding(sending, one)
    assert sent(sending) == [(1, 10, False)]
    sending.grant_all(SANE_PIECE - 1)
    assert sent(sending) == []
    sending.grant_all(1)
    assert sent(sending) == [(1, SANE_PIECE, False)]


def test_a_peer_that_grants_no_more_before_its_window_is_used_is_not_waited_for() -> None:
    sending, one = sender(window=10), stream(window=20)
    holding(sending, one)
    sent(sending)
    sending.grant_all(11)
    sending.tick()
    assert sent(sending) == [(1, 10, False)]  # what the stream has left
    sending.grant(one, 5)
    assert sent(sending) == []
    sending.tick()
    assert sent(sending) == [(1, 1, False)]  # what the connection has left
    sending.tick()
    assert sent(sending) == []


def test_the_end_of_an_answer_needs_no_sane_window() -> None:
    sending, one = sender(), stream(window=2)
    sending.put(one, b"abc")
    sending.finish(one)
    assert sent(sending) == [(1, 2, False)]
    sending.grant(one, 1)
    assert sent(sending) == [(1, 1, True)]


def test_a_peer_whose_windows_are_small_gets_small_frames() -> None:
    sending = sender()
    sending.initial_window = 1
    one = stream(window=1)
    holding(sending, one)
    for _ in range(3):
        assert sent(sending) == [(1, 1, False)]
        sending.grant(one, 1)


def test_the_first_window_may_change_and_become_negative() -> None:
    """RFC 9113 section 6.9.2."""
    sending = sender()
    one = stream(window=DEFAULT_WINDOW)
    holding(sending, one, frames=10)
    assert sum(size for _, size, _ in sent(sending)) == DEFAULT_WINDOW
    sending.resize(16, [one])
    assert one.window == 16 - DEFAULT_WINDOW
    sending.grant(one, DEFAULT_WINDOW - 16)
    assert sent(sending) == []
    assert sending.is_blocked(one)
    sending.grant(one, 10)
    assert sent(sending) == [(1, 10, False)]
    sending.resize(DEFAULT_WINDOW, [one])
    assert sum(size for _, size, _ in sent(sending)) == DEFAULT_WINDOW - 16


def test_a_window_that_shrinks_while_its_stream_is_ready() -> None:
    sending = sender()
    one = stream(window=DEFAULT_WINDOW)
    holding(sending, one, frames=1)
    sending.resize(0, [one])
    assert sending.is_blocked(one)
    assert sent(sending) == []


def test_windows_that_are_too_large() -> None:
    """RFC 9113 section 6.9.1."""
    sending, one = sender(window=1), stream(window=1)
    sending.grant(one, MOST_WINDOW - 1)
    with pytest.raises(StreamFault) as of_stream:
        sending.grant(one, 1)
    assert of_stream.value.code is ErrorCode.FLOW_CONTROL_ERROR
    sending.grant_all(MOST_WINDOW - 1)
    with pytest.raises(ConnectionFault) as of_connection:
        sending.grant_all(1)
    assert of_connection.value.code is ErrorCode.FLOW_CONTROL_ERROR
    with pytest.raises(ConnectionFault):
        sending.resize(DEFAULT_WINDOW + 1, [one])


@pytest.mark.parametrize("window", [0, 1 << 20])
def test_a_stream_that_is_dropped_holds_nothing(window: int) -> None:
    sending, one = sender(), stream(window=window)
    holding(sending, one)
    sending.drop(one)
    assert (one.held, sending.held, one.sent) == (0, 0, 3 * LEAST_FRAME)
    assert sent(sending) == []
    sending.tick()
    assert not sending.is_blocked(one)


def test_streams_may_be_dropped_between_two_pieces() -> None:
    sending = sender()
    first, last = stream(1), stream(3)
    holding(sending, first, last)
    numbers = []
    for one, _, _ in sending.pieces(ALL):
        numbers.append(one.stream_id)
        if one is first:
            sending.drop(last)
    assert numbers == [1, 1, 1]


def test_small_pieces_share_a_frame_and_large_ones_are_not_copied() -> None:
    sending, one = sender(), stream()
    for letter in b"abc":
        sending.put(one, bytes([letter]))
    large = b"x" * (2 * LEAST_FRAME)
    sending.put(one, large)
    contents = [content for _, content, _ in sending.pieces(ALL)]
    assert [len(content) for content in contents] == [LEAST_FRAME, LEAST_FRAME, 3]
    assert bytes(contents[0]).startswith(b"abcx")
    assert isinstance(contents[1], memoryview)
    assert contents[1].obj is large


def test_frames_that_give_budget_back() -> None:
    """Not those that are small because the peer has it so."""
    budget = Budget()
    sending = Sender(budget)
    sending.initial_window = 1
    one = stream(window=1)
    holding(sending, one)
    for _ in range(50):
        sent(sending)
        sending.grant(one, 1)
    assert budget.frames == 0
    sending.grant(one, 1 << 20)
    sent(sending)
    assert budget.frames == 3


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 3), st.integers(1, 40_000)),
            st.tuples(st.just("grant"), st.integers(0, 3), st.integers(1, 30_000)),
            st.tuples(st.just("grant all"), st.just(0), st.integers(1, 60_000)),
            st.tuples(st.just("resize"), st.just(0), st.integers(0, 100_000)),
            st.tuples(st.just("take"), st.just(0), st.integers(1, 60_000)),
            st.tuples(st.just("prioritise"), st.integers(0, 3), st.integers(0, 15)),
            st.tuples(st.just("tick"), st.just(0), st.just(0)),
        ),
        max_size=40,
    )
)
def test_nothing_is_lost_nor_goes_beyond_a_window(steps: list[tuple[str, int, int]]) -> None:
    sending = Sender(Budget())
    streams = [Outgoing(2 * number + 1, DEFAULT_WINDOW) for number in range(4)]
    given_ = [bytearray() for _ in streams]
    out = [bytearray() for _ in streams]

    def take(most: int) -> None:
        for one, content, _ in sending.pieces(most):
            assert 0 < len(content) <= LEAST_FRAME
            assert one.window >= 0
            assert sending.window >= 0
            out[one.stream_id // 2] += content

    for what, number, size in steps:
        if what == "put":
            data = bytes([len(given_[number]) & 0xFF]) * size
            given_[number] += data
            sending.put(streams[number], data)
        elif what == "grant":
            sending.grant(streams[number], size)
        elif what == "grant all":
            sending.grant_all(size)
        elif what == "resize":
            sending.resize(size, streams)
        elif what == "take":
            take(size)
        elif what == "prioritise":
            sending.prioritise(streams[number], size % 8, size >= 8)
        else:
            sending.tick()
        assert sending.held == sum(one.held for one in streams)
    for one in streams:
        sending.grant(one, 1 << 24)
    sending.grant_all(1 << 24)
    take(ALL)
    assert out == given_
    assert sending.held == 0
