"""The fleet, by transcripts: workers that fall silent, a master that is late, boots that are stuck."""

from __future__ import annotations

import pytest

from asgiri.errors import ExitCode
from asgiri.supervisor.crew import WorkerState
from asgiri.supervisor.fleet import PULSE_EVERY, STACKS_GRACE, Fleet
from asgiri.supervisor.messages import (
    Abandon,
    AskStacks,
    Commit,
    Drain,
    DrainReason,
    Event,
    Exit,
    Exited,
    Failed,
    Fork,
    HandOver,
    Kill,
    Policy,
    QuickStop,
    Ready,
    Recycle,
    Reload,
    Report,
    Scale,
    Settled,
    Stop,
    Tick,
)
from asgiri.supervisor.roster import DRAIN_GRACE, QUICK_GRACE
from asgiri.supervisor.scoreboard import BEAT_SECONDS
from tests.supervisor.fleet_play import (
    ABRT,
    CRASH,
    KILL,
    QUIT,
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
    pulse,
    running,
    started,
    status_3,
)

assert PULSE_EVERY == BEAT_SECONDS == STACKS_GRACE == 1  # in the times below
HANGS = "worker 1 gen 1 hangs: its event loop has not turned for 31s"


def beats(fleet: Fleet, first: int, last: int, **heard: float) -> None:
    """Pulses of a master that is on time. Who is not in ``heard``, since when it is silent, beats."""
    for at in range(first, last + 1):
        news = {f"w{worker}": float(at) for worker in fleet.workers}
        play(fleet, (at, pulse(**news | heard), []))


def silent(count: int = 1, **settings: float) -> Fleet:
    """A fleet at 41 s: worker 1 was last heard at 10 s, the next Tick finds that it hangs."""
    fleet = running(count, heartbeat_timeout=30, **settings)
    beats(fleet, 2, 41, w1=10)
    return fleet


# A heartbeat.


def test_each_pulse_moves_the_deadline_of_who_is_heard() -> None:
    fleet = running(2, heartbeat_timeout=5)
    assert fleet.deadline() == 1 + 1 + 5  # READY; the next beat is due; late by heartbeat_timeout
    play(fleet, (2, pulse(w1=1.5, w2=1.25), []))
    assert (fleet.workers[1].deadline, fleet.workers[2].deadline) == (7.5, 7.25)
    play(fleet, (3, pulse(w1=2.5, w2=1.25), []))
    assert (fleet.workers[1].deadline, fleet.workers[2].deadline) == (8.5, 7.25)
    assert fleet.deadline() == 7.25


def test_a_heartbeat_timeout_of_zero_is_no_limit() -> None:
    fleet = running()
    beats(fleet, 2, 100, w1=1)
    assert fleet.deadline() is None


def test_a_beat_is_not_late_before_it_is_due() -> None:
    """A timeout as long as the time from beat to beat must not find that everybody hangs."""
    fleet = running(1, heartbeat_timeout=1)
    play(fleet, (2, pulse(w1=1.5), []), (3, pulse(w1=2.5), []), (4, pulse(w1=2.5), []), (4.5, pulse(w1=4.5), []))
    assert fleet.deadline() == 6.5


def test_a_worker_that_is_stopped_is_reported_as_heard_and_not_blamed() -> None:
    fleet = running(1, heartbeat_timeout=5)
    beats(fleet, 2, 500)
    assert numbers(fleet) == [(1, 1)]


def test_a_booting_worker_needs_not_beat() -> None:
    fleet = started(1, boot_timeout=60, heartbeat_timeout=5)
    beats(fleet, 1, 50, w1=0)
    assert fleet.deadline() == 60


def test_each_worker_has_the_timeout_that_it_was_forked_under() -> None:
    fleet = running(1, heartbeat_timeout=30)
    play(fleet, (10, Reload(Policy(1, heartbeat_timeout=5)), [Fork(2, 1, 2)]))
    play(fleet, (11, Ready(2), [Commit(2), Drain(1, RETIRE)]), (12, left(1), [Settled(2)]))
    assert fleet.deadline() == 11 + 1 + 5


# A silent worker.


def test_a_silent_worker_is_replaced_at_once_shows_its_stacks_and_is_aborted_and_killed() -> None:
    fleet = silent()
    play(fleet, (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]))
    assert (numbers(fleet, WorkerState.HUNG), numbers(fleet)) == ([(1, 1)], [])
    play(
        fleet,
        (41.5, Ready(2), []),
        (41.6, pulse(w2=41.6), []),
        (42, pulse(w1=10, w2=42), []),
        (42, Tick(), [Report("error", f"{HANGS}; it is killed", 1, 1, 1, stacks=True), Kill(1, ABRT)]),
        (43, pulse(w1=10, w2=43), []),
        (44, Tick(), [Kill(1, KILL), Says("warning", "worker 1 gen 1 did not exit within 2s and is killed")]),
        (44, killed(1), []),
    )
    assert numbers(fleet) == [(1, 1)]
    assert fleet.deadline() == 43 + 31


def test_a_silent_worker_that_the_signal_ends_has_been_told_of() -> None:
    fleet = silent()
    play(
        fleet,
        (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]),
        (42, Tick(), [Says("error", HANGS, stacks=True), Kill(1, ABRT)]),
        (42.5, Exited(1, "was killed by SIGABRT and dumped core"), []),
    )


def test_a_worker_that_the_pulse_does_not_know_is_silent() -> None:
    fleet = running(1, heartbeat_timeout=30)
    for at in range(2, 33):
        play(fleet, (at, pulse(), []))
    play(fleet, (32, Tick(), [AskStacks(1), Fork(2, 1, 1)]))


def test_several_that_hang_at_once_are_all_replaced_at_once() -> None:
    fleet = running(3, heartbeat_timeout=30)
    beats(fleet, 2, 41, w1=10, w3=10)
    play(
        fleet,
        (41, Tick(), [AskStacks(1), AskStacks(3), Fork(4, 1, 1), Fork(5, 3, 1)]),
        (41.5, Ready(4), []),
        (41.5, Ready(5), []),
        (42, Tick(), [
            Says("error", "worker 1 gen 1 hangs", stacks=True),
            Kill(1, ABRT),
            Says("error", "worker 3 gen 1 hangs", stacks=True),
            Kill(3, ABRT),
        ]),
    )  # fmt: skip
    assert numbers(fleet) == [(1, 1), (2, 1), (3, 1)]


def test_a_young_worker_that_hangs_counts_as_a_failure() -> None:
    fleet = running(1, heartbeat_timeout=3)
    beats(fleet, 2, 5, w1=1)
    play(
        fleet,
        (5, Tick(), [AskStacks(1)]),
        (5.1, Tick(), [Fork(2, 1, 1)]),
        (5.2, Ready(2), []),
        (6, pulse(w1=1, w2=6), []),
        (6, Tick(), [Says("error", "for 4s; backing off for 100ms; it is killed", stacks=True), Kill(1, ABRT)]),
        (6.1, killed(1), []),
    )
    beats(fleet, 7, 10, w2=6)
    play(fleet, (10, Tick(), [AskStacks(2)]), (10.2, Tick(), [Fork(3, 1, 1)]))  # 200 ms: the second in a row


def test_the_number_of_a_hung_worker_is_filled_while_the_candidate_boots() -> None:
    fleet = running(1, heartbeat_timeout=30)
    beats(fleet, 2, 40, w1=10)
    play(
        fleet,
        (40, Reload(Policy(1)), [Fork(2, 1, 2)]),
        (41, Tick(), [AskStacks(1), Fork(3, 1, 1)]),
        (41.5, Ready(3), []),
        (42, Tick(), [Says("error", HANGS, stacks=True), Kill(1, ABRT)]),
        (43, Ready(2), [Commit(2), Drain(3, RETIRE)]),
        (43, killed(1), []),
        (43, left(3), [Settled(2)]),
    )


def test_the_number_of_an_old_worker_that_hangs_in_the_roll_goes_to_the_new_generation() -> None:
    fleet = running(3, heartbeat_timeout=30)
    beats(fleet, 2, 39, w3=10)
    play(
        fleet,
        (39, Reload(Policy(3)), [Fork(4, 1, 2)]),
        (40, Ready(4), [Commit(2), Drain(1, RETIRE), Fork(5, 2, 2)]),
        (41, Tick(), [AskStacks(3), Fork(6, 3, 2)]),
        (41.5, Ready(5), [Drain(2, RETIRE)]),
        (41.6, left(1), []),
        (41.7, left(2), []),
        (41.8, Ready(6), []),
        (42, Tick(), [Says("error", "worker 3 gen 1 hangs", stacks=True), Kill(3, ABRT)]),
        (42.5, killed(3), [Settled(2)]),  # its sockets are needed no more
    )


def test_an_old_worker_that_hangs_beside_its_successor_needs_none() -> None:
    fleet = running(2, heartbeat_timeout=30)
    beats(fleet, 2, 39, w2=10)
    play(
        fleet,
        (39, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (40, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (41, Tick(), [AskStacks(2)]),
        (41.5, Ready(4), []),
    )


def test_scaling_down_while_one_hangs() -> None:
    fleet = running(3, heartbeat_timeout=30)
    beats(fleet, 2, 41, w3=10)
    play(
        fleet,
        (41, Tick(), [AskStacks(3), Fork(4, 3, 1)]),
        (41.2, Scale(-1), [Kill(4, TERM)]),
        (41.5, pulse(w1=41.5, w2=41.5, w3=41.5), [
            Says("error", "worker 3 gen 1 hangs", "it goes on", stacks=True),
            Drain(3, RETIRE),
        ]),
    )  # fmt: skip


# It goes on while its stacks are awaited.


def test_one_that_goes_on_serves_until_another_is_ready_in_its_place() -> None:
    """Also alone: nobody else would accept meanwhile."""
    fleet = silent()
    play(
        fleet,
        (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]),
        (41.5, pulse(w1=41.5), [
            Report("error", f"{HANGS}; it goes on after 31s500ms, and is to be replaced", 1, 1, 1, stacks=True),
        ]),
    )  # fmt: skip
    assert numbers(fleet) == [(1, 1)]
    assert fleet.deadline() == 41.5 + 31  # no ABRT any more
    beats(fleet, 42, 50)
    play(fleet, (50, Ready(2), [Drain(1, RETIRE)]), (51, left(1), []))


def test_one_that_goes_on_when_another_is_ready_already_drains() -> None:
    fleet = silent(drain_timeout=20)
    play(
        fleet,
        (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]),
        (41.2, Ready(2), []),
        (41.5, pulse(w1=41.5, w2=41.5), [Says("error", "goes on after 31s500ms", stacks=True), Drain(1, RETIRE)]),
    )
    assert fleet.deadline() == 61.5 + DRAIN_GRACE


def test_one_that_goes_on_when_another_is_worn_already_drains_too() -> None:
    """Of two workers that both wait to be replaced, one is enough: two would leave no room for who replaces them."""
    fleet = silent()
    play(
        fleet,
        (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]),
        (41.2, Ready(2), []),
        (41.3, Recycle(), [Fork(3, 1, 1)]),
        (41.4, Failed(3, "no"), [Says("error", "no")]),
        (41.5, pulse(w1=41.5, w2=41.5), [Says("error", "goes on", stacks=True), Drain(1, RETIRE), Fork(4, 1, 1)]),
        (41.8, Ready(4), [Drain(2, RETIRE)]),
    )


def test_one_that_goes_on_while_its_number_backs_off_keeps_it() -> None:
    fleet = running(1, heartbeat_timeout=3, backoff_first=2)
    beats(fleet, 2, 5, w1=1)
    play(
        fleet,
        (5, Tick(), [AskStacks(1)]),
        (5.5, pulse(w1=5.5), [Says("error", "backing off for 2s; it goes on", stacks=True)]),
    )
    beats(fleet, 6, 6)
    play(fleet, (7, Tick(), [Fork(2, 1, 1)]), (7.5, Ready(2), [Drain(1, RETIRE)]))


def test_one_that_goes_on_and_hangs_again_is_given_up_again() -> None:
    fleet = silent(boot_timeout=0)
    play(
        fleet,
        (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]),
        (42, pulse(w1=41.5), [Says("error", "goes on", stacks=True)]),
    )
    beats(fleet, 43, 72, w1=41.5)
    play(
        fleet,
        (72.5, pulse(w1=41.5), []),
        (72.5, Tick(), [AskStacks(1)]),  # its number is worker 2's, which boots and boots
        (73.5, Tick(), [Says("error", "for 31s; it is killed", stacks=True), Kill(1, ABRT)]),
    )


def test_all_of_several_that_go_on_serve_until_they_are_replaced() -> None:
    fleet = running(2, heartbeat_timeout=30)
    beats(fleet, 2, 41, w1=10, w2=10)
    on = Says("error", "goes on", stacks=True)
    play(
        fleet,
        (41, Tick(), [AskStacks(1), AskStacks(2), Fork(3, 1, 1), Fork(4, 2, 1)]),
        (41.5, pulse(w1=41.5, w2=41.5), [on, on]),
        (41.6, Reload(Policy(2)), [Says("info", "kept")]),  # four are more than enough
        (41.7, crashed(3), [Says("error", "worker 1 gen 1 did not boot", "100ms")]),
        (42, pulse(w1=42, w2=42), []),  # no other fork: three are one over the count
        (42.5, Ready(4), [Drain(2, RETIRE), Fork(5, 1, 2)]),
        (43, Ready(5), [Commit(2), Drain(1, RETIRE), Fork(6, 2, 2)]),
    )


def test_one_that_exits_while_its_stacks_are_awaited() -> None:
    play(
        silent(),
        (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]),
        (41.5, crashed(1), [Report("error", f"{HANGS}; it {CRASH}", 1, 1, 1, stacks=True)]),
        (42, Ready(2), []),
    )


# A master that is late.


def test_what_the_master_was_late_by_nobody_is_blamed_for() -> None:
    """As after a SIGSTOP and a SIGCONT to all, or on a host that had no time for any of them."""
    fleet = running(2, heartbeat_timeout=5)
    beats(fleet, 2, 10)
    play(fleet, (110, pulse(w1=10.5, w2=10.5), []))  # 99 s late: heard 0.5 s ago, as far as one can say
    assert fleet.deadline() == 109 + 6
    assert fleet.handle(Tick(), 110) == []
    beats(fleet, 111, 120)
    assert numbers(fleet) == [(1, 1), (2, 1)]


def test_an_honest_hang_is_found_after_the_master_was_late() -> None:
    fleet = running(1, heartbeat_timeout=5)
    beats(fleet, 2, 20, w1=17.5)
    play(fleet, (80, pulse(w1=17.5), []))  # 59 s late; silent for 2.5 s before, and for 1 s of these
    assert fleet.deadline() == 17.5 + 59 + 6
    play(fleet, (81, pulse(w1=17.5), []), (82, pulse(w1=17.5), []), (82.5, pulse(w1=17.5), []))
    play(fleet, (82.5, Tick(), [AskStacks(1), Fork(2, 1, 1)]))
    play(fleet, (83.5, Tick(), [Says("error", "has not turned for 6s; it is killed", stacks=True), Kill(1, ABRT)]))


def test_a_master_that_is_always_late_finds_a_hang_in_the_end() -> None:
    fleet = running(1, heartbeat_timeout=5)
    at = 2.0
    fleet.handle(pulse(w1=2), at)
    for _ in range(6):
        at += 10
        assert fleet.handle(pulse(w1=2), at) == []
    assert fleet.handle(Tick(), at) == [AskStacks(1), Fork(2, 1, 1)]


def test_a_worker_that_is_ready_when_the_late_master_wakes_is_not_heard_in_the_future() -> None:
    fleet = started(1, boot_timeout=0, heartbeat_timeout=5)
    play(fleet, (1, pulse(), []))
    assert fleet.handle(Ready(1), 100) != []
    play(fleet, (100, pulse(), []))
    assert fleet.deadline() == 106


def test_a_late_master_kills_no_boot_and_no_drain_either() -> None:
    fleet = running(2, boot_timeout=5, drain_timeout=3)
    play(
        fleet,
        (20, pulse(), []),
        (20, Scale(-1), [Drain(2, RETIRE)]),
        (20, Reload(Policy(1, boot_timeout=5)), [Fork(3, 1, 2)]),
        (21, pulse(), []),
        (121, pulse(), []),  # 99 s late
    )
    assert (fleet.workers[2].deadline, fleet.workers[3].deadline) == (20 + 5 + 99, 20 + 5 + 99)
    play(fleet, (122, Ready(3), [Commit(2), Drain(1, RETIRE)]), (123, left(2), []))


def test_a_pulse_before_a_tick_is_not_late() -> None:
    fleet = running(1, heartbeat_timeout=5)
    play(fleet, (2, pulse(w1=2), []), (2.5, pulse(w1=2), []), (3, pulse(w1=2), []), (4, pulse(w1=2), []))
    assert fleet.deadline() == 8


# A stop while one hangs.


@pytest.mark.parametrize(("stop", "reason"), [(Stop(), STOP), (HandOver(), RETIRE)])
def test_a_stop_waits_for_nobody_who_hangs_longer_than_the_signals_take(stop: Event, reason: DrainReason) -> None:
    play(
        silent(2),
        (41, Tick(), [AskStacks(1), Fork(3, 1, 1)]),
        (41.5, stop, [Drain(2, reason), Kill(3, TERM)]),
        (41.6, ended(3), []),
        (41.7, left(2), []),
        (42, Tick(), [Says("error", HANGS, "it is killed", stacks=True), Kill(1, ABRT)]),
        (44, Tick(), [Kill(1, KILL), Says("warning", "did not exit within 2s")]),
        (44, killed(1), [Exit(ExitCode.STOPPED)]),
    )


@pytest.mark.parametrize(("stop", "reason"), [(Stop(), STOP), (HandOver(), RETIRE)])
def test_one_that_goes_on_when_the_service_goes_drains(stop: Event, reason: DrainReason) -> None:
    fleet = silent(drain_timeout=7)
    play(
        fleet,
        (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]),
        (41.2, stop, [Kill(2, TERM)]),
        (41.5, pulse(w1=41.5), [Says("error", "goes on after 31s500ms, and drains", stacks=True), Drain(1, reason)]),
        (41.6, ended(2), []),
    )
    assert fleet.deadline() == 41.5 + 7 + DRAIN_GRACE
    play(fleet, (43, left(1), [Exit(ExitCode.STOPPED)]))


def test_a_quick_stop_shows_the_stacks_of_who_hangs_before_it_quits() -> None:
    play(
        silent(2),
        (41, Tick(), [AskStacks(1), Fork(3, 1, 1)]),
        (41.5, QuickStop(), [
            Report("error", f"{HANGS}; it is told to quit", 1, 1, 1, stacks=True),
            Kill(1, QUIT), Kill(2, QUIT), Kill(3, QUIT),
        ]),
        (41.6, ended(2), []),
        (41.6, ended(3), []),
        (41.5 + QUICK_GRACE, Tick(), [Kill(1, KILL), Says("warning", "did not exit within 2s")]),
        (44, killed(1), [Exit(ExitCode.STOPPED)]),
    )  # fmt: skip


def test_a_quick_stop_leaves_who_is_being_aborted() -> None:
    play(
        silent(),
        (41, Tick(), [AskStacks(1), Fork(2, 1, 1)]),
        (42, Tick(), [Says("error", HANGS, stacks=True), Kill(1, ABRT)]),
        (42.5, QuickStop(), [Kill(2, QUIT)]),
    )


def test_one_that_hangs_while_the_stop_is_delayed_is_not_replaced() -> None:
    fleet = running(2, heartbeat_timeout=30, drain_delay=20)
    beats(fleet, 2, 40, w1=10)
    play(
        fleet,
        (40, Stop(), []),
        (41, Tick(), [AskStacks(1)]),
        (42, Tick(), [Says("error", HANGS, stacks=True), Kill(1, ABRT)]),
        (43, killed(1), []),
        (60, Tick(), [Drain(2, STOP)]),
        (61, left(2), [Exit(ExitCode.STOPPED)]),
    )


def test_one_that_goes_on_while_the_stop_is_delayed_serves_till_then() -> None:
    fleet = running(1, heartbeat_timeout=30, drain_delay=20)
    beats(fleet, 2, 40, w1=10)
    play(
        fleet,
        (40, Stop(), []),
        (41, Tick(), [AskStacks(1)]),
        (41.5, pulse(w1=41.5), [Says("error", "goes on", stacks=True)]),
    )
    beats(fleet, 42, 60)
    play(fleet, (60, Tick(), [Drain(1, STOP)]), (61, left(1), [Exit(ExitCode.STOPPED)]))


# A boot that is stuck.


def test_one_that_is_ready_just_too_late_is_let_go() -> None:
    fleet = running(2, boot_timeout=5, drain_timeout=7)
    play(
        fleet,
        (20, crashed(1), [Says("warning", CRASH), Fork(3, 1, 1)]),
        (25, Tick(), [AskStacks(3), Says("error", "not ready within 5s", "100ms")]),
        (25.1, Tick(), [Fork(4, 1, 1)]),
        (25.5, Ready(3), [
            Says("error", "worker 1 gen 1 was stuck while it booted; it is ready, too late, and drains", stacks=True),
            Drain(3, RETIRE),
        ]),
        (26, Ready(4), []),
    )  # fmt: skip
    assert fleet.deadline() == 25.5 + 7 + DRAIN_GRACE


def test_one_that_fails_just_too_late_is_shown_with_its_stacks_when_it_exits() -> None:
    play(
        running(1, boot_timeout=5),
        (20, Reload(Policy(1, boot_timeout=4)), [Fork(2, 1, 2)]),
        (24, Tick(), [AskStacks(2), Abandon(2, "it was not ready within 4s")]),
        (24.1, Failed(2, "no database"), []),
        (24.2, status_3(2), [Says("error", "worker 1 gen 2 was stuck while it booted; it exited with", stacks=True)]),
    )


def test_a_candidate_that_is_ready_after_it_was_abandoned_is_no_candidate() -> None:
    fleet = running(1)
    play(
        fleet,
        (20, Reload(Policy(1, boot_timeout=4)), [Fork(2, 1, 2)]),
        (24, Tick(), [AskStacks(2), Abandon(2, "it was not ready within 4s")]),
        (24.5, Ready(2), [Says("error", "too late", stacks=True), Drain(2, RETIRE)]),
        (25, left(2), []),
    )
    assert (fleet.generation, numbers(fleet)) == (1, [(1, 1)])


def test_a_stop_while_a_boot_is_stuck() -> None:
    play(
        running(1),
        (20, Reload(Policy(1, boot_timeout=4)), [Fork(2, 1, 2)]),
        (24, Tick(), [AskStacks(2), Abandon(2, "it was not ready within 4s")]),
        (24.2, Stop(), [Drain(1, STOP)]),
        (24.5, left(1), []),
        (25, Tick(), [Says("error", "was stuck", stacks=True), Kill(2, ABRT)]),
        (25.1, killed(2), [Exit(ExitCode.STOPPED)]),
    )


def test_a_quick_stop_while_a_boot_is_stuck() -> None:
    play(
        running(1),
        (20, Reload(Policy(1, boot_timeout=4)), [Fork(2, 1, 2)]),
        (24, Tick(), [AskStacks(2), Abandon(2, "it was not ready within 4s")]),
        (24.2, QuickStop(), [
            Kill(1, QUIT), Says("error", "was stuck while it booted; it is told to quit", stacks=True), Kill(2, QUIT),
        ]),
    )  # fmt: skip
