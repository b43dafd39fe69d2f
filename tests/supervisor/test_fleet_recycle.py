"""The fleet, by transcripts: workers worn by requests, memory or lifetime, or to be replaced on request."""

from __future__ import annotations

import pytest

from asgiri.supervisor.crew import Limits
from asgiri.supervisor.messages import (
    Abandon,
    Commit,
    Drain,
    Failed,
    Fork,
    Kill,
    KillHow,
    Policy,
    Pulse,
    Ready,
    Recycle,
    Reload,
    Report,
    Resize,
    Scale,
    Settled,
    Stop,
    Tick,
    Vitals,
)
from tests.supervisor.fleet_play import (
    CRASH,
    RETIRE,
    STOP,
    TERM,
    Says,
    crashed,
    ended,
    killed,
    left,
    numbers,
    play,
    running,
    status_3,
)

MIB = 1 << 20


def vitals(at: float, *, served: dict[int, int] | None = None, memory: dict[int, int] | None = None) -> Pulse:
    """Workers that beat, with what they have served and how many MiB they are, by id."""
    served, memory = served or {}, memory or {}
    return Pulse({n: Vitals(at, served.get(n, 0), memory.get(n, 0) * MIB) for n in served.keys() | memory.keys()})


def worn(worker: str = "worker 1 gen 1", why: str = "") -> Says:
    return Says("info", f"{worker} is to be replaced: {why}")


# Who drains by itself.


def drains(at: float, worker_id: int) -> Pulse:
    return Pulse({worker_id: Vitals(at, drains=True)})


def test_a_worker_that_somebody_else_has_told_to_drain_is_replaced_at_once() -> None:
    fleet = running(1, drain_timeout=30)
    play(
        fleet,
        (20, vitals(20, served={1: 1}), []),
        (21, drains(21, 1), [
            Says("warning", "worker 1 gen 1 drains, which the master has not asked for"),
            Drain(1, RETIRE),
            Fork(2, 1, 1),
        ]),
        (22, drains(22, 1), []),  # said once
        (23, Ready(2), []),
        (53, Tick(), [Kill(1, KillHow.KILL), Says("warning", "worker 1 gen 1 was still draining after 32s")]),
        (53, left(1), []),
    )  # fmt: skip
    assert numbers(fleet) == [(1, 1)]


def test_one_that_drains_as_soon_as_it_is_ready_does_not_make_the_fleet_spin() -> None:
    fleet = running(1)
    told = fleet.handle(drains(2, 1), 2)
    assert [type(command) for command in told] == [Report, Drain]
    assert isinstance(told[0], Report)
    assert "backing off for 100ms" in told[0].text
    play(fleet, (2.1, Tick(), [Fork(2, 1, 1)]))


def test_in_a_stop_that_waits_nobody_is_put_in_the_place_of_one_that_drains() -> None:
    fleet = running(2, drain_delay=5)
    fleet.handle(Stop(), 2)
    play(fleet, (3, drains(3, 1), []), (4, left(1), [Says("warning", "worker 1 gen 1 exited with status 0")]))


# Limits.


@pytest.mark.parametrize(
    ("spread", "limits"),
    [
        (0.0, Limits(1000, 100 * MIB, 3600.0)),
        (0.5, Limits(1050, 95 * MIB, 3420.0)),
        (1.0, Limits(1100, 90 * MIB, 3240.0)),
    ],
)
def test_each_worker_has_limits_of_its_own(spread: float, limits: Limits) -> None:
    policy = Policy(1, max_requests=1000, max_requests_jitter=100, max_memory=100 * MIB, max_lifetime=3600)
    assert Limits.of(policy, spread) == limits


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_limits_of_zero_are_off_whatever_the_spread(spread: float) -> None:
    assert Limits.of(Policy(1, max_requests_jitter=50), spread) == Limits(0, 0, 0.0)


def test_no_spread_turns_a_limit_off() -> None:
    limits = Limits.of(Policy(1, max_requests=1, max_memory=1, max_lifetime=0.001), 1.0)
    assert min(limits.requests, limits.memory, limits.lifetime) > 0


# What wears a worker.


def test_a_worker_that_has_served_its_requests_drains_when_another_is_ready() -> None:
    fleet = running(1, max_requests=100)
    play(
        fleet,
        (2, vitals(2, served={1: 99}), []),
        (3, vitals(3, served={1: 100}), [
            Report("info", "worker 1 gen 1 is to be replaced: it has served 100 requests", 1, 1, 1),
            Fork(2, 1, 1),
        ]),
        (4, vitals(4, served={1: 150}), []),  # said once
        (5, Ready(2), [Drain(1, RETIRE)]),
        (6, left(1), []),  # and nothing is settled: there was no reload
    )  # fmt: skip
    assert numbers(fleet) == [(1, 1)]


def test_requests_have_a_jitter() -> None:
    lots = iter([0.5, 1.0, 0.0, 0.0])
    play(
        running(2, lambda: next(lots), max_requests=100, max_requests_jitter=10),
        (2, vitals(2, served={1: 104, 2: 109}), []),
        (3, vitals(3, served={1: 105, 2: 109}), [worn(why="it has served 105"), Fork(3, 1, 1)]),
        (4, Ready(3), [Drain(1, RETIRE)]),
        (5, vitals(5, served={2: 109, 3: 99}), []),
        (6, vitals(6, served={2: 110, 3: 100}), [
            worn("worker 2 gen 1", "it has served 110"),
            worn("worker 1 gen 1", "it has served 100"),
            Fork(4, 2, 1),
        ]),
    )  # fmt: skip


def test_a_worker_that_has_grown_is_replaced_but_not_before_it_was_healthy() -> None:
    """One that is too large from the start would be replaced in a circle, as fast as workers boot."""
    play(
        running(1, max_memory=100 * MIB),
        (10, vitals(10, memory={1: 120}), []),
        (10.9, vitals(10.9, memory={1: 120}), []),
        (11, vitals(11, memory={1: 120}), [worn(why="it has grown to 120MiB"), Fork(2, 1, 1)]),
        (12, Ready(2), [Drain(1, RETIRE)]),
        (13, left(1), []),
        (21, vitals(21, memory={2: 120}), []),
        (22, vitals(22, memory={2: 99}), []),
        (23, vitals(23, memory={2: 100}), [worn(why="it has grown to 100MiB"), Fork(3, 1, 1)]),
    )


def test_a_worker_that_has_lived_long_enough_is_replaced() -> None:
    play(
        running(1, lambda: 1.0, max_lifetime=100),
        (89.5, vitals(89.5, served={1: 7}), []),
        (90.5, vitals(90.5, served={1: 7}), [worn(why="it has lived for 1m30s500ms"), Fork(2, 1, 1)]),
        (91.5, Ready(2), [Drain(1, RETIRE)]),
        (92, left(1), []),
        (180, vitals(180, served={2: 7}), []),
        (180.5, vitals(180.5, served={2: 7}), [worn(why="it has lived for 1m30s"), Fork(3, 1, 1)]),
    )


def test_what_goes_anyway_is_not_said_to_be_worn() -> None:
    play(
        running(2, max_requests=100),
        (2, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (3, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (4, vitals(4, served={1: 100, 2: 100}), []),
        (5, Ready(4), [Drain(2, RETIRE)]),
    )


# One after the other.


def test_a_recycle_replaces_all_that_serve_one_by_one_oldest_first() -> None:
    fleet = running(3)
    play(
        fleet,
        (20, crashed(1), [Says("warning", CRASH), Fork(4, 1, 1)]),
        (21, Ready(4), []),
        (22, Recycle(), [Fork(5, 2, 1)]),
        (23, Ready(5), [Drain(2, RETIRE), Fork(6, 3, 1)]),
        (24, Ready(6), [Drain(3, RETIRE), Fork(7, 1, 1)]),
        (25, Ready(7), [Drain(4, RETIRE)]),
        (26, left(2), []),
        (26, left(3), []),
        (26, left(4), []),
    )
    assert numbers(fleet) == [(1, 1), (2, 1), (3, 1)]


def test_several_that_are_worn_at_once_go_one_by_one() -> None:
    play(
        running(3, max_requests=10),
        (2, vitals(2, served={1: 10, 2: 9, 3: 10}), [worn(), worn("worker 3 gen 1"), Fork(4, 1, 1)]),
        (3, vitals(3, served={1: 10, 2: 10, 3: 10}), [worn("worker 2 gen 1")]),
        (4, Ready(4), [Drain(1, RETIRE), Fork(5, 2, 1)]),
        (5, Ready(5), [Drain(2, RETIRE), Fork(6, 3, 1)]),
        (6, Ready(6), [Drain(3, RETIRE)]),
    )


def test_a_recycle_leaves_those_that_boot() -> None:
    play(
        running(1),
        (2, Scale(+1), [Fork(2, 2, 1)]),
        (3, Recycle(), []),  # one step at a time
        (4, Ready(2), [Fork(3, 1, 1)]),
        (5, Ready(3), [Drain(1, RETIRE)]),
    )


def test_a_recycle_in_a_recycle_is_for_the_new_ones_too() -> None:
    play(
        running(2),
        (2, Recycle(), [Fork(3, 1, 1)]),
        (3, Ready(3), [Drain(1, RETIRE), Fork(4, 2, 1)]),
        (4, Recycle(), []),
        (5, Ready(4), [Drain(2, RETIRE), Fork(5, 1, 1)]),
        (6, Ready(5), [Drain(3, RETIRE)]),
    )


# What goes wrong.


def test_a_replacement_that_cannot_boot_leaves_the_old_one_and_backs_off() -> None:
    fleet = running(2)
    play(
        fleet,
        (2, Recycle(), [Fork(3, 1, 1)]),
        (
            3,
            Failed(3, "no database"),
            [Says("error", "worker 1 gen 1 did not boot: no database; backing off for 100ms")],
        ),
        (3, status_3(3), []),
        (3.1, Tick(), [Fork(4, 1, 1)]),
        (4, crashed(4), [Says("error", "200ms")]),
    )
    assert numbers(fleet) == [(1, 1), (2, 1)]
    play(
        fleet,
        (4.2, Tick(), [Fork(5, 1, 1)]),
        (5, Ready(5), [Drain(1, RETIRE), Fork(6, 2, 1)]),
        (6, Ready(6), [Drain(2, RETIRE)]),
    )


def test_a_worn_worker_that_dies_before_another_is_ready_has_its_successor_already() -> None:
    fleet = running(2)
    play(
        fleet,
        (2, Recycle(), [Fork(3, 1, 1)]),
        (3, crashed(1), [Says("warning", f"worker 1 gen 1 {CRASH} at the age of 3s, after 0 requests")]),
        (4, Ready(3), [Fork(4, 2, 1)]),
        (4.5, killed(2), [Says("warning", "worker 2 gen 1")]),
        (5, Ready(4), []),
    )
    assert numbers(fleet) == [(1, 1), (2, 1)]


def test_a_worn_worker_that_dies_before_its_turn_is_followed_at_once() -> None:
    play(
        running(2),
        (2, Recycle(), [Fork(3, 1, 1)]),
        (3, crashed(2), [Says("warning", "worker 2 gen 1"), Fork(4, 2, 1)]),
        (4, Ready(3), [Drain(1, RETIRE)]),
        (5, Ready(4), []),
    )


def test_a_worn_worker_that_dies_while_its_number_backs_off() -> None:
    play(
        running(1),
        (2, Recycle(), [Fork(2, 1, 1)]),
        (3, crashed(2), [Says("error", "100ms")]),
        (3.05, crashed(1), [Says("warning", "worker 1 gen 1")]),
        (3.1, Tick(), [Fork(3, 1, 1)]),
    )


def test_a_worn_worker_that_is_healthy_ends_a_row_of_failures() -> None:
    """The code is good, as far as one can say: that it is worn tells nothing against it."""
    play(
        running(1),
        (2, Recycle(), [Fork(2, 1, 1)]),
        (10.5, crashed(2), [Says("error", "100ms")]),
        (10.6, Tick(), [Fork(3, 1, 1)]),
        (12, crashed(3), [Says("error", "100ms")]),  # worker 1 is READY for 10 s since 11 s
    )


# With a reload.


def test_a_reload_begins_as_soon_as_the_step_of_the_recycling_is_done() -> None:
    play(
        running(3),
        (2, Recycle(), [Fork(4, 1, 1)]),
        (3, Reload(Policy(3)), [Says("info", "kept")]),  # four are active
        (4, Ready(4), [Drain(1, RETIRE), Fork(5, 2, 2)]),  # the candidate, and not the next step
        (5, Ready(5), [Commit(2), Drain(2, RETIRE), Fork(6, 3, 2)]),  # the roll goes on with the oldest
        (6, Ready(6), [Drain(3, RETIRE), Fork(7, 1, 2)]),
        (7, Ready(7), [Drain(4, RETIRE)]),
        (8, left(1), []),
        (8, left(2), []),
        (8, left(3), []),
        (8, left(4), [Settled(2)]),
    )


def test_wear_without_end_locks_no_reload_out() -> None:
    fleet = running(2, max_requests=1)
    play(
        fleet,
        (2, vitals(2, served={1: 1, 2: 1}), [worn(), worn("worker 2 gen 1"), Fork(3, 1, 1)]),
        (3, Ready(3), [Drain(1, RETIRE), Fork(4, 2, 1)]),
        (4, vitals(4, served={3: 1}), [worn("worker 1 gen 1")]),
        (4, Reload(Policy(2, max_requests=1)), [Says("info", "kept")]),
        (5, Ready(4), [Drain(2, RETIRE), Fork(5, 1, 2)]),
        (6, vitals(6, served={4: 1}), [worn("worker 2 gen 1")]),
        (7, Ready(5), [Commit(2), Drain(3, RETIRE), Fork(6, 2, 2)]),
        (8, vitals(8, served={5: 1}), [worn("worker 1 gen 2")]),
        (9, Ready(6), [Drain(4, RETIRE), Fork(7, 1, 2)]),
    )
    for worker in (1, 2, 3):
        play(fleet, (10, left(worker), []))
    play(fleet, (10, left(4), [Settled(2)]))  # though worker 5 is worn


def test_reloads_that_fail_do_not_keep_the_worn_for_ever() -> None:
    play(
        running(2),
        (2, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (3, Recycle(), []),
        (4, Failed(3, "typo"), [Abandon(2, "typo"), Fork(4, 1, 1)]),
        (4, status_3(3), []),
        (5, Reload(Policy(2)), [Says("info", "kept")]),
        (6, Ready(4), [Drain(1, RETIRE), Fork(5, 2, 3)]),
        (7, Failed(5, "typo"), [Abandon(3, "typo"), Fork(6, 2, 1)]),
    )


def test_a_commit_replaces_worn_and_others_alike() -> None:
    play(
        running(2),
        (2, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (3, Recycle(), []),
        (4, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (5, Ready(4), [Drain(2, RETIRE)]),
        (6, left(1), []),
        (6, left(2), [Settled(2)]),
    )


def test_a_recycle_in_a_roll_is_for_the_new_ones_when_the_roll_is_done() -> None:
    play(
        running(2),
        (2, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (3, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (4, Recycle(), []),
        (5, left(1), []),
        (6, Ready(4), [Drain(2, RETIRE), Fork(5, 1, 2)]),
        (7, left(2), [Settled(2)]),  # worker 3 is worn, and of the current generation
        (8, Ready(5), [Drain(3, RETIRE)]),
    )


# With another count.


def test_scaling_down_takes_the_last_number_also_if_it_is_not_worn() -> None:
    play(
        running(3),
        (2, Recycle(), [Fork(4, 1, 1)]),
        (3, Scale(-1), [Drain(3, RETIRE)]),
        (4, Ready(4), [Drain(1, RETIRE), Fork(5, 2, 1)]),
        (5, Ready(5), [Drain(2, RETIRE)]),
    )


def test_scaling_down_to_one_puts_a_replacement_that_boots_away_with_its_number() -> None:
    play(
        running(2),
        (2, Recycle(), [Fork(3, 1, 1)]),
        (3, Ready(3), [Drain(1, RETIRE), Fork(4, 2, 1)]),
        (4, Resize(1), [Kill(4, TERM), Drain(2, RETIRE)]),
        (5, ended(4), []),
    )


def test_scaling_up_comes_before_the_next_step() -> None:
    play(
        running(2),
        (2, Recycle(), [Fork(3, 1, 1)]),
        (3, Scale(+2), [Fork(4, 3, 1), Fork(5, 4, 1)]),
        (4, Ready(3), [Drain(1, RETIRE)]),
        (5, Ready(4), []),
        (6, Ready(5), [Fork(6, 2, 1)]),
        (7, Ready(6), [Drain(2, RETIRE)]),
    )


def test_resizing_says_how_many_and_never_none() -> None:
    fleet = running(2)
    play(
        fleet,
        (2, Resize(4), [Fork(3, 3, 1), Fork(4, 4, 1)]),
        (3, Ready(3), []),
        (3, Ready(4), []),
        (4, Resize(4), []),
        (5, Resize(2), [Drain(4, RETIRE), Drain(3, RETIRE)]),
        (6, Resize(0), [Drain(2, RETIRE)]),
    )
    assert fleet.count == 1


def test_resizing_holds_for_a_reload_that_is_under_way_and_one_that_waits() -> None:
    fleet = running(1)
    play(
        fleet,
        (2, Reload(Policy(1)), [Fork(2, 1, 2)]),
        (3, Reload(Policy(5)), [Says("info", "kept")]),
        (4, Resize(2), [Fork(3, 2, 1)]),
        (5, Ready(3), []),
        (6, Ready(2), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (7, Ready(4), [Drain(3, RETIRE), Fork(5, 1, 3)]),
        (8, Ready(5), [Commit(3), Drain(2, RETIRE), Fork(6, 2, 3)]),
    )
    assert fleet.count == 2


def test_nothing_wears_when_the_service_goes() -> None:
    play(
        running(1, max_requests=10, drain_delay=30),
        (2, Stop(), []),
        (3, vitals(3, served={1: 10}), []),
        (4, Recycle(), []),
        (32, Tick(), [Drain(1, STOP)]),
    )
