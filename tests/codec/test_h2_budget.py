"""What a peer may make us do for nothing, and what honest work gives back."""

from __future__ import annotations

import pytest

from asgiri.codec.h2_budget import CONTINUATIONS, SANE_DATA, TERMS, Budget, Kind, check_block
from asgiri.codec.h2_wire import ConnectionFault, ErrorCode

each_kind = pytest.mark.parametrize("kind", Kind)


def drawn(budget: Budget, kind: Kind) -> int:
    """How much can be drawn before it is too much."""
    unit = 256 if kind is Kind.SMALL_DATA else 1
    total = 0
    while True:
        try:
            budget.draw(kind, unit)
        except ConnectionFault:
            return total
        total += unit


@each_kind
def test_a_flood_ends(kind: Kind) -> None:
    budget = Budget()
    assert drawn(budget, kind) == TERMS[kind].most
    assert drawn(budget, kind) == 0


@each_kind
def test_time_gives_back_and_not_more_than_there_was(kind: Kind) -> None:
    budget = Budget()
    drawn(budget, kind)
    budget.tick(10)
    assert drawn(budget, kind) == min(TERMS[kind].a_second * 10, TERMS[kind].most)
    budget.tick(1e9)
    assert drawn(budget, kind) == TERMS[kind].most


@each_kind
def test_a_life_of_steady_use_ends_nothing(kind: Kind) -> None:
    budget = Budget()
    for _ in range(2000):  # a second each
        budget.draw(kind, int(TERMS[kind].a_second) // 2 or 1)
        budget.tick(1)


@pytest.mark.parametrize("kind", [kind for kind in Kind if TERMS[kind].by_answer])
def test_who_has_an_answer_may_go_on(kind: Kind) -> None:
    budget = Budget()
    for _ in range(3000):
        budget.draw(kind, TERMS[kind].by_answer)
        budget.answers += 1
    assert drawn(budget, kind) == TERMS[kind].most


@pytest.mark.parametrize("kind", [kind for kind in Kind if TERMS[kind].by_frame])
def test_who_is_sent_data_may_go_on(kind: Kind) -> None:
    budget = Budget()
    for _ in range(3000):
        budget.draw(kind, TERMS[kind].by_frame)
        budget.frames += 1


def test_buckets_are_apart() -> None:
    budget = Budget()
    drawn(budget, Kind.PING)
    assert drawn(budget, Kind.RESET) == TERMS[Kind.RESET].most


def test_a_browser_leaves_a_page_with_every_stream_open_and_another_after_it() -> None:
    budget = Budget()
    for _ in range(2):
        for _ in range(128):
            budget.draw(Kind.RESET)


def dribbled(size: int, times: int) -> Budget:
    budget = Budget()
    for _ in range(times):
        budget.data(size, False)
    return budget


def test_data_by_the_byte_ends() -> None:
    with pytest.raises(ConnectionFault):
        dribbled(1, 10_000)
    with pytest.raises(ConnectionFault):
        dribbled(0, 101)


def test_a_body_in_pieces_of_a_sane_size_may_be_endless() -> None:
    dribbled(SANE_DATA, 50_000)
    dribbled(16 << 10, 50_000)


def test_a_large_frame_gives_back_what_small_ones_drew() -> None:
    budget = Budget()
    for _ in range(3000):
        for _ in range(10):
            budget.data(1, False)
        budget.data(1024, False)


def test_the_last_frame_of_a_body_is_free() -> None:
    budget = Budget()
    for _ in range(50_000):
        budget.data(0, True)
        budget.data(1, True)


def test_header_blocks_that_go_on() -> None:
    check_block(1000, CONTINUATIONS, 1000)
    check_block(100_000, 300, 128 << 10)
    for size, frames in ((1001, 0), (0, CONTINUATIONS + 1), (1000, CONTINUATIONS + 4)):
        with pytest.raises(ConnectionFault) as caught:
            check_block(size, frames, 1000)
        assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM
