"""The fleet, by transcripts: drains, stops, and the hand-over to another master."""

from __future__ import annotations

import pytest

from asgiri.errors import ExitCode
from asgiri.supervisor.fleet import Fleet, Phase
from asgiri.supervisor.messages import (
    Commit,
    Drain,
    Ending,
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
    Resize,
    Scale,
    Settled,
    Start,
    Stop,
    Tick,
)
from asgiri.supervisor.roster import DRAIN_GRACE, QUICK_GRACE
from tests.supervisor.fleet_play import (
    CRASH,
    KILL,
    KILLED_9,
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
    running,
    started,
    status_3,
)

# Drains.


def test_a_drain_that_hangs_is_killed() -> None:
    play(
        running(1, drain_timeout=30),
        (10, Reload(Policy(1)), [Fork(2, 1, 2)]),
        (11, Ready(2), [Commit(2), Drain(1, RETIRE)]),
        (41 + DRAIN_GRACE, Tick(), [
            Kill(1, KILL),
            Report("warning", "worker 1 gen 1 was still draining after 32s and is killed", 1, 1, 1),
        ]),
        (43, killed(1), [Settled(2)]),
    )  # fmt: skip


def test_a_drain_timeout_of_zero_is_no_limit() -> None:
    fleet = running(1, drain_timeout=0)
    play(fleet, (10, Stop(), [Drain(1, STOP)]))
    assert fleet.deadline() is None
    play(fleet, (10_000, left(1), [Exit(ExitCode.STOPPED)]))


# Stop.


def test_stop_before_the_start() -> None:
    fleet = Fleet(Policy(2))
    play(fleet, (0, Stop(), [Exit(ExitCode.STOPPED)]), (1, Start(), []))
    assert fleet.phase is Phase.GONE


def test_stop_while_starting_is_no_failure() -> None:
    play(
        started(2),
        (1, Stop(), [Kill(1, TERM), Kill(2, TERM)]),
        (1, ended(1), []),
        (3, Tick(), [Kill(2, KILL), Says("warning", "worker 2", "did not exit within 2s")]),
        (3, killed(2), [Exit(ExitCode.STOPPED)]),
    )


def test_stop_while_running_drains() -> None:
    fleet = running(2)
    play(fleet, (10, Stop(), [Drain(1, STOP), Drain(2, STOP)]))
    assert fleet.phase is Phase.STOPPING
    play(
        fleet,
        (11, Stop(), []),
        (12, left(2), []),
        (13, Reload(Policy(2)), []),
        (14, Scale(+1), []),
        (15, left(1), [Exit(ExitCode.STOPPED)]),
        (16, Stop(), []),
        (17, QuickStop(), []),
    )


def test_stop_while_everything_backs_off_exits_at_once() -> None:
    fleet = running()
    play(
        fleet,
        (2, crashed(1), [Says("warning", "backing off")]),
        (2.05, Stop(), [Exit(ExitCode.STOPPED)]),
    )
    assert fleet.deadline() is None


def test_stop_while_the_candidate_boots() -> None:
    fleet = running()
    play(
        fleet,
        (10, Reload(Policy(1)), [Fork(2, 1, 2)]),
        (11, Stop(), [Drain(1, STOP), Kill(2, TERM)]),
        (11, Ready(2), []),  # too late
        (12, left(2), []),
        (13, left(1), [Exit(ExitCode.STOPPED)]),
    )
    assert fleet.candidate is None


def test_stop_in_the_roll_tells_the_retiring_too_and_keeps_their_deadline() -> None:
    fleet = running(2, drain_timeout=30)
    play(
        fleet,
        (10, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (11, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (11.9, Failed(4, "no"), [Says("error", "no")]),
        (11.9, Stop(), [Drain(1, STOP), Drain(2, STOP), Drain(3, STOP)]),  # worker 4 exits by itself
    )
    assert fleet.workers[1].deadline == 11 + 30 + DRAIN_GRACE
    play(
        fleet,
        (12, status_3(4), []),
        (13, left(1), []),
        (13, left(2), []),
        (13, left(3), [Exit(ExitCode.STOPPED)]),
    )


def test_stop_during_a_failed_start_does_not_hide_the_failure() -> None:
    play(
        started(),
        (1, Failed(1, "no"), [Says("error", "no")]),
        (1, Stop(), []),
        (2, status_3(1), [Exit(ExitCode.APP)]),
    )


def test_a_hung_drain_at_stop_is_killed() -> None:
    play(
        running(1, drain_timeout=5),
        (10, Stop(), [Drain(1, STOP)]),
        (17, Tick(), [Kill(1, KILL), Says("warning", "still draining after 7s")]),
        (17, killed(1), [Exit(ExitCode.STOPPED)]),
    )


def test_quick_stop_quits_all_and_then_kills() -> None:
    play(
        running(2),
        (10, Scale(+1), [Fork(3, 3, 1)]),
        (11, QuickStop(), [Kill(1, QUIT), Kill(2, QUIT), Kill(3, QUIT)]),
        (11, ended(1), []),
        (12, QuickStop(), []),
        (12, Stop(), []),
        (11 + QUICK_GRACE, Tick(), [
            Kill(2, KILL),
            Says("warning", "worker 2", "did not exit within 2s"),
            Kill(3, KILL),
            Says("warning", "worker 3", "did not exit within 2s"),
        ]),
        (13, QuickStop(), []),
        (13, killed(2), []),
        (13, killed(3), [Exit(ExitCode.STOPPED)]),
    )  # fmt: skip


def test_quick_stop_after_stop() -> None:
    play(
        running(2),
        (10, Scale(+1), [Fork(3, 3, 1)]),
        (11, Stop(), [Drain(1, STOP), Drain(2, STOP), Kill(3, TERM)]),
        (12, QuickStop(), [Kill(1, QUIT), Kill(2, QUIT), Kill(3, QUIT)]),
        (12, ended(1), []),
        (12, ended(2), []),
        (12, ended(3), [Exit(ExitCode.STOPPED)]),
    )


def test_quick_stop_while_starting_and_before() -> None:
    play(
        started(),
        (1, QuickStop(), [Kill(1, QUIT)]),
        (1, ended(1), [Exit(ExitCode.STOPPED)]),
    )
    play(Fleet(Policy(1)), (0, QuickStop(), [Exit(ExitCode.STOPPED)]))


# A stop that goes on serving for a while.


def test_a_delayed_stop_goes_on_serving_and_then_drains() -> None:
    fleet = running(2, drain_delay=5, drain_timeout=30)
    play(fleet, (10, Stop(), []))
    assert (fleet.phase, numbers(fleet), fleet.deadline()) == (Phase.STOPPING, [(1, 1), (2, 1)], 15)
    play(
        fleet,
        (12, Stop(), []),
        (15, Tick(), [Drain(1, STOP), Drain(2, STOP)]),
        (16, left(1), []),
    )
    assert fleet.deadline() == 15 + 30 + DRAIN_GRACE
    play(fleet, (17, left(2), [Exit(ExitCode.STOPPED)]))
    assert fleet.deadline() is None


def test_a_delayed_stop_lets_go_at_once_what_does_not_serve() -> None:
    fleet = running(2, drain_delay=5)
    play(
        fleet,
        (10, Reload(Policy(2, drain_delay=5)), [Fork(3, 1, 2)]),
        (11, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (12, Stop(), [Drain(1, STOP), Kill(4, TERM)]),
        (13, ended(4), []),
        (13, left(1), []),
    )
    assert not fleet.is_leaving  # sockets stay as they are: others serve
    play(fleet, (17, Tick(), [Drain(2, STOP), Drain(3, STOP)]))
    assert fleet.is_leaving


def test_the_delay_is_that_of_the_current_generation() -> None:
    play(
        running(1, drain_delay=5),
        (10, Reload(Policy(1)), [Fork(2, 1, 2)]),
        (11, Ready(2), [Commit(2), Drain(1, RETIRE)]),
        (12, left(1), [Settled(2)]),
        (13, Stop(), [Drain(2, STOP)]),
    )


def test_a_quick_stop_does_not_wait_for_the_delay() -> None:
    fleet = running(2, drain_delay=5)
    play(
        fleet,
        (10, Stop(), []),
        (11, QuickStop(), [Kill(1, QUIT), Kill(2, QUIT)]),
        (11.5, ended(1), []),
        (11.5, ended(2), [Exit(ExitCode.STOPPED)]),
    )
    assert fleet.deadline() is None


def test_after_a_quick_stop_nothing_is_left_of_the_delay() -> None:
    fleet = running(1, drain_delay=5)
    play(
        fleet,
        (10, Stop(), []),
        (11, QuickStop(), [Kill(1, QUIT)]),
        (13, Tick(), [Kill(1, KILL), Says("warning", "did not exit within 2s")]),
    )
    assert fleet.deadline() is None


def test_who_dies_young_in_the_delay_holds_nothing_back() -> None:
    fleet = running(2, drain_delay=50)
    play(
        fleet,
        (2, Stop(), []),
        (3, crashed(1), [Report("warning", f"worker 1 gen 1 {CRASH} at the age of 3s, after 0 requests", 1, 1, 1)]),
    )
    assert fleet.deadline() == 52


def test_who_dies_in_the_delay_is_reported_and_not_replaced() -> None:
    fleet = running(2, drain_delay=5)
    play(
        fleet,
        (10, Stop(), []),
        (11, crashed(1), [Report("warning", f"worker 1 gen 1 {CRASH} at the age of 11s, after 0 requests", 1, 1, 1)]),
        (12, left(2), [Says("warning", "exited with status 0"), Exit(ExitCode.STOPPED)]),
    )
    assert fleet.deadline() is None  # the delay has nobody left


def test_a_delayed_stop_while_nobody_serves_is_not_delayed() -> None:
    play(
        started(2, drain_delay=5),
        (1, Stop(), [Kill(1, TERM), Kill(2, TERM)]),
        (1, Ready(2), []),  # that TERM begins a drain
        (2, ended(1), []),
        (3, left(2), [Exit(ExitCode.STOPPED)]),
    )


def test_a_delayed_stop_of_a_fleet_that_backs_off_exits_at_once() -> None:
    play(
        running(1, drain_delay=5),
        (2, crashed(1), [Says("warning", "backing off")]),
        (2.05, Stop(), [Exit(ExitCode.STOPPED)]),
    )


def test_nothing_is_forked_in_the_delay() -> None:
    fleet = running(2, drain_delay=5)
    play(
        fleet,
        (10, Stop(), []),
        (11, Reload(Policy(3)), []),
        (11, Scale(+1), []),
        (11, Resize(5), []),
        (11, Recycle(), []),
        (11, Start(), []),
        (15, Tick(), [Drain(1, STOP), Drain(2, STOP)]),
    )
    assert fleet.count == 2


# Another master takes over.


def test_a_hand_over_retires_all_without_delay() -> None:
    fleet = running(2, drain_delay=5)
    play(
        fleet,
        (10, HandOver(), [Drain(1, RETIRE), Drain(2, RETIRE)]),
        (11, Stop(), []),  # they drain already
        (12, HandOver(), []),
        (13, crashed(1), [Says("warning", "worker 1 gen 1", CRASH, "while it drained")]),
        (14, left(2), [Exit(ExitCode.STOPPED)]),
    )
    assert fleet.phase is Phase.GONE


def test_a_hand_over_in_the_roll_tells_nobody_twice() -> None:
    play(
        running(2),
        (10, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (11, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (12, HandOver(), [Drain(2, RETIRE), Drain(3, RETIRE), Kill(4, TERM)]),
    )


def test_a_quick_stop_after_a_hand_over() -> None:
    play(
        running(1),
        (10, HandOver(), [Drain(1, RETIRE)]),
        (11, QuickStop(), [Kill(1, QUIT)]),
        (12, ended(1), [Exit(ExitCode.STOPPED)]),
    )


def test_a_hand_over_in_the_delay_of_a_stop_changes_nothing() -> None:
    play(
        running(1, drain_delay=5),
        (10, Stop(), []),
        (11, HandOver(), []),
        (15, Tick(), [Drain(1, STOP)]),
    )


# How drains end.


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.KILLED])
def test_a_worker_that_dies_while_it_drains_is_reported(ending: Ending) -> None:
    play(
        running(2),
        (10, Scale(-1), [Drain(2, RETIRE)]),
        (11, Exited(2, KILLED_9, ending, served=3), [
            Says("warning", f"worker 2 gen 1 {KILLED_9} while it drained at the age of 11s, after 3 requests"),
        ]),
    )  # fmt: skip


def test_a_worker_that_ends_as_it_should_is_not() -> None:
    play(running(2), (10, Scale(-1), [Drain(2, RETIRE)]), (11, left(2), []))
