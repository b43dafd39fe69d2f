"""What a worker may take, by what the scoreboard says of the others."""

from __future__ import annotations

import itertools
import sys
import time

import pytest

from asgiri.supervisor.scoreboard import STALE_SECONDS, Scoreboard, Slot, State
from asgiri.worker.share import LEAST_SLACK, MOST_SLACK, BoardShare


class Fleet:
    """Workers with their slots and shares on one board."""

    def __init__(self, *connections: int) -> None:
        self.board = Scoreboard(16)
        self._numbers = itertools.count(1)
        self.slots: list[Slot] = []
        self.shares: list[BoardShare] = []
        for count in connections:
            self.add(count)
        self.refresh()

    def add(self, connections: int, number: int | None = None) -> int:
        slot = self.board.take()
        assert slot is not None
        slot.introduce(1, next(self._numbers) if number is None else number, 1)
        slot.state = State.SERVING
        share = BoardShare(self.board, slot)
        share.tell(connections)
        self.slots.append(slot)
        self.shares.append(share)
        return len(self.slots) - 1

    def refresh(self, later: float = 0.0) -> None:
        for share in self.shares:
            share.refresh(time.monotonic_ns() + int(later * 1e9))

    def rooms(self) -> list[int]:
        return [share.room() for share in self.shares]


def test_alone_there_is_no_limit() -> None:
    assert Fleet(1000).rooms() == [sys.maxsize]


def test_nobody_yields_while_all_have_about_the_same() -> None:
    assert min(Fleet(100, 101, 99, 100).rooms()) > 0
    assert min(Fleet(0, 0, 0, 0).rooms()) > 0


def test_what_somebody_writes_over_it_lasts_until_the_next_beat() -> None:
    fleet = Fleet(3, 4)
    fleet.slots[0].connections = 2**64 - 1
    fleet.refresh()
    assert [slot.connections for slot in fleet.slots] == [3, 4]


@pytest.mark.parametrize("mean", [10, 25, 100, 1000, 10_000])
def test_who_is_over_the_share_has_less_than_a_third_more_than_the_mean(mean: int) -> None:
    fleet = Fleet(mean * 4 // 3, *[mean - mean // 9] * 3)
    assert fleet.rooms()[0] <= 0
    assert min(fleet.rooms()[1:]) > 0


def test_a_restarted_worker_gets_the_new_ones() -> None:
    fleet = Fleet(133, 133, 133, 0)
    assert max(fleet.rooms()[:3]) <= 0
    assert fleet.rooms()[3] > 0
    taken = 0
    while fleet.shares[3].room() > 0:  # until it has as many as the others
        taken += 1
        fleet.shares[3].tell(taken)
    assert taken > 133


@pytest.mark.parametrize("state", [State.BOOTING, State.DRAINING, State.FREE])
def test_who_does_not_serve_does_not_count(state: State) -> None:
    fleet = Fleet(100, 100, 0)
    assert max(fleet.rooms()[:2]) <= 0
    fleet.slots[2].state = state  # and this is seen at once, long before the next beat
    assert min(fleet.rooms()[:2]) > 0


def test_alone_with_those_who_do_not_serve_there_is_no_limit() -> None:
    fleet = Fleet(100, 0)
    fleet.slots[1].state = State.DRAINING
    assert fleet.rooms()[0] == sys.maxsize


def test_who_hangs_does_not_count() -> None:
    """Or all would wait for who will take nothing."""
    fleet = Fleet(100, 0)
    fleet.refresh(later=STALE_SECONDS - 0.5)
    assert fleet.rooms()[0] <= 0
    fleet.refresh(later=STALE_SECONDS)
    assert fleet.rooms()[0] == sys.maxsize
    fleet.refresh()
    assert fleet.rooms()[0] <= 0, "it has beaten again"


def test_a_child_that_is_no_worker_does_not_count() -> None:
    fleet = Fleet(100, 100)
    fleet.add(0, number=0)
    fleet.refresh()
    assert min(fleet.rooms()[:2]) > 0


def test_where_connections_are_short_a_few_more_are_no_reason_to_yield() -> None:
    fleet = Fleet(LEAST_SLACK, 0, 0, 0)
    share = fleet.shares[0]
    assert share.room() <= 0, "nothing has ended yet: they may be here for long"
    for _ in range(MOST_SLACK):
        share.tell(LEAST_SLACK + 1)
        share.tell(LEAST_SLACK)
    share.tell(MOST_SLACK - 1)
    assert share.room() > 0
    share.refresh(time.monotonic_ns())
    assert share.room() > 0, "of the second before"
    share.refresh(time.monotonic_ns())
    assert share.room() <= 0, "that is long ago"


def test_the_board_shows_the_connections() -> None:
    fleet = Fleet(7, 8)
    assert [slot.connections for slot in fleet.slots] == [7, 8]
