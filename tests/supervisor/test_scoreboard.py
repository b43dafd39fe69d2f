"""The scoreboard: slots that are given away and come back, and what becomes of nonsense in them."""

from __future__ import annotations

import mmap
import os

import pytest

from asgiri.supervisor.scoreboard import Scoreboard, State


def test_slots_are_given_away_once_and_come_back_as_new() -> None:
    board = Scoreboard(slots=2)
    first, second = board.take(), board.take()
    assert first is not None
    assert second is not None
    assert board.take() is None
    first.introduce(10, 1, 3)
    first.state = State.SERVING
    first.beat(served=5, requests=1, memory=2, accepted=3)
    assert [slot.number for slot in board.workers()] == [1]
    board.give_back(first)
    assert list(board) == [second]
    again = board.take()
    assert again is first
    assert (again.state, again.pid, again.number, again.served) == (State.BOOTING, 0, 0, 0)


def test_a_child_sees_what_the_master_and_the_others_write() -> None:
    board = Scoreboard()
    slot = board.take()
    assert slot is not None
    pid = os.fork()
    if pid == 0:
        slot.introduce(os.getpid(), 7, 2)
        other = board.take()  # of its own memory, but the words are everybody's
        os._exit(0 if other is not None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert (slot.pid, slot.number, slot.generation) == (pid, 7, 2)


@pytest.mark.parametrize("nonsense", [0, 2**64 - 1])
def test_what_is_written_over_a_slot_lasts_until_its_next_beat(nonsense: int) -> None:
    board = Scoreboard()
    slot = board.take()
    assert slot is not None
    born = slot.born_ns
    slot.introduce(10, 1, 3)
    slot.state = State.SERVING
    for word in range(5):
        slot._words[word] = nonsense
    slot.beat(served=5, requests=1, memory=2, accepted=3)
    assert (slot.state, slot.pid, slot.number, slot.generation) == (State.SERVING, 10, 1, 3)
    assert slot.born_ns == born
    assert board.workers() == [slot]


def test_nonsense_that_a_worker_writes_is_nobodys_end() -> None:
    """A worker whose application goes astray can write everywhere: the master reads it all the same."""
    board = Scoreboard(slots=4)
    for _ in range(3):
        board.take()
    memory = board._memory
    assert isinstance(memory, mmap.mmap)
    for byte in (b"\xff", b"\x07"):
        memory[:] = byte * len(memory)
        assert {slot.state for slot in board} == {State.BOOTING}
        assert len(board.workers()) == 4
        board.want(2)
        assert board.master.wanted == 2
        assert not any(slot.is_serving for slot in board)


@pytest.mark.parametrize("word", [0, 2, 99, 2**64 - 1])
def test_whatever_is_written_all_over_it_slots_are_to_be_had(word: int) -> None:
    board = Scoreboard(8)
    first, gone = board.take(), board.take()
    assert first is not None
    assert gone is not None
    board.give_back(gone)
    for index in range(len(board._words)):
        board._words[index] = word
    assert len(board.workers()) <= 8
    board.want(3)
    assert not board.master.draining
    assert not board.master.handed_over
    assert len(board.workers()) <= 1  # not who is gone, nor who never was
    rest = [board.take() for _ in range(7)]
    assert None not in rest
    assert first not in rest
    assert board.take() is None
    board.give_back(first)
    assert board.take() is first
    assert board.master.used == 8
