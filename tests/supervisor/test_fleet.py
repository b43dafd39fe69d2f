"""The fleet, by transcripts: at this time, on this event, these commands. Boots, deaths, reloads, scaling, stops."""

from __future__ import annotations

import pytest

from asgiri.errors import ExitCode
from asgiri.supervisor.crew import WorkerState
from asgiri.supervisor.fleet import Fleet, Phase
from asgiri.supervisor.messages import (
    Abandon,
    Announce,
    AskStacks,
    Commit,
    Drain,
    Ending,
    Event,
    Exit,
    Exited,
    Failed,
    Fork,
    Gone,
    Kill,
    Policy,
    QuickStop,
    Ready,
    Reload,
    Report,
    Scale,
    Settled,
    Start,
    Stop,
    Tick,
)
from asgiri.supervisor.roster import DRAIN_GRACE, QUICK_GRACE
from tests.supervisor.fleet_play import (
    ABRT,
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

# Boot.


def test_the_first_workers_boot_at_once_and_are_announced_when_all_are_ready() -> None:
    fleet = Fleet(Policy(3))
    phases = [fleet.phase]
    play(fleet, (0, Start(), [Fork(1, 1, 1), Fork(2, 2, 1), Fork(3, 3, 1)]))
    phases.append(fleet.phase)
    assert fleet.deadline() == 60
    play(fleet, (1, Ready(2), []))
    phases.append(fleet.phase)
    assert phases == [Phase.NEW, Phase.STARTING, Phase.RUNNING]
    play(fleet, (2, Ready(1), []), (3, Ready(3), [Announce()]))
    assert fleet.deadline() is None
    assert numbers(fleet) == [(1, 1), (2, 1), (3, 1)]
    assert (fleet.generation, fleet.candidate, fleet.count) == (1, None, 3)


def test_a_second_start_is_ignored() -> None:
    play(started(), (1, Start(), []), (2, Ready(1), [Announce()]), (3, Start(), []))


def test_a_worker_is_known_with_its_times() -> None:
    fleet = running(1, drain_timeout=30)
    worker = fleet.workers[1]
    assert (worker.number, worker.generation, worker.born, worker.since) == (1, 1, 0, 1)
    assert str(worker) == "worker 1 gen 1"
    play(fleet, (5, Stop(), [Drain(1, STOP)]))
    assert (worker.state, worker.since, worker.deadline) == (WorkerState.DRAINING, 5, 35 + DRAIN_GRACE)


def test_a_policy_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        Policy(0)


# A first start that fails.


def test_a_first_worker_that_cannot_boot_ends_everything_with_one_report() -> None:
    fleet = started(3)
    play(
        fleet,
        (1, Failed(2, "no module named app"), [
            Report("error", "worker 2 gen 1 did not boot: no module named app", 2, 2, 1),
            Kill(1, TERM),
            Kill(3, TERM),
        ]),
        (1, Failed(1, "no module named app"), []),  # it said so before the signal came
        (1, status_3(2), []),
        (1, status_3(1), []),
        (2, ended(3), [Exit(ExitCode.APP)]),
    )  # fmt: skip
    assert fleet.phase is Phase.GONE


def test_a_first_worker_that_dies_while_booting_ends_everything() -> None:
    play(
        started(2),
        (1, crashed(1), [
            Report("error", "worker 1 gen 1 did not boot: it was killed by SIGSEGV", 1, 1, 1),
            Kill(2, TERM),
        ]),
        (2, ended(2), [Exit(ExitCode.APP)]),
    )  # fmt: skip


def test_a_first_worker_that_cannot_be_forked_is_no_fault_of_the_application() -> None:
    fleet = started(2)
    play(
        fleet,
        (
            0,
            Exited(1, "could not be forked: x", Ending.UNFORKED),
            [Says("error", "could not be forked"), Kill(2, TERM)],
        ),
        (1, killed(2), [Exit(ExitCode.FAILED)]),
    )


def test_a_first_boot_that_takes_too_long_ends_everything() -> None:
    play(
        started(2, boot_timeout=5),
        (5, Tick(), [
            AskStacks(1),
            Report("error", "worker 1 gen 1 did not boot: it was not ready within 5s", 1, 1, 1),
            Kill(2, TERM),
        ]),
        (6, Tick(), [
            Report("error", "worker 1 gen 1 was stuck while it booted; it is killed", 1, 1, 1, stacks=True),
            Kill(1, ABRT),
        ]),
        (6, Exited(1, "was killed by SIGABRT"), []),
        (7, Tick(), [Kill(2, KILL), Says("warning", "worker 2", "did not exit within 2s")]),
        (7, killed(2), [Exit(ExitCode.APP)]),
    )  # fmt: skip


def test_a_worker_that_failed_but_does_not_exit_is_killed() -> None:
    play(
        started(),
        (1, Failed(1, "lifespan failed"), [Says("error", "lifespan failed")]),
        (1 + QUICK_GRACE, Tick(), [Kill(1, KILL), Says("warning", "did not exit within 2s")]),
        (3, killed(1), [Exit(ExitCode.APP)]),
    )


def test_a_boot_timeout_of_zero_is_no_limit() -> None:
    fleet = started(1, boot_timeout=0)
    assert fleet.deadline() is None
    play(fleet, (10_000, Ready(1), [Announce()]))


def test_once_a_worker_was_ready_a_boot_failure_is_retried() -> None:
    play(
        started(2),
        (1, Ready(1), []),
        (2, Failed(2, "no database"), [
            Report("error", "worker 2 gen 1 did not boot: no database; backing off for 100ms", 2, 2, 1),
        ]),
        (2, status_3(2), []),
        (2.1, Tick(), [Fork(3, 2, 1)]),
        (3, Ready(3), [Announce()]),
    )  # fmt: skip


# Crashes.


def test_kill_9_of_one_of_two_long_lived_workers_is_repaired_at_once() -> None:
    play(
        running(2),
        (100, Exited(1, KILLED_9, Ending.KILLED, served=17), [
            Report("warning", "worker 1 gen 1 was killed by SIGKILL at the age of 1m40s, after 17 requests", 1, 1, 1),
            Fork(3, 1, 1),
        ]),
        (101, Ready(3), []),
    )  # fmt: skip


def test_kill_9_of_a_young_worker_is_repaired_within_a_second() -> None:
    fleet = running(2)
    play(
        fleet,
        (3.5, Exited(2, KILLED_9, Ending.KILLED, served=1), [
            Report(
                "warning",
                f"worker 2 gen 1 {KILLED_9} at the age of 3s500ms, after 1 request; backing off for 100ms",
                2, 2, 1,
            ),
        ]),
        (3.6, Tick(), [Fork(3, 2, 1)]),
        (4.0, Ready(3), []),
    )  # fmt: skip
    assert numbers(fleet) == [(1, 1), (2, 1)]


def test_a_worker_that_somebody_terminates_is_replaced() -> None:
    play(running(), (50, left(1), [Says("warning", "exited with status 0 at"), Fork(2, 1, 1)]))


def test_a_crash_loop_backs_off_more_and_more_and_health_resets_it() -> None:
    fleet = running(1, backoff_first=0.5, backoff_most=3)
    play(
        fleet,
        (2, crashed(1), [Says("warning", "backing off for 500ms")]),
        (2.5, Tick(), [Fork(2, 1, 1)]),
        (3, Failed(2, "no database"), [Says("error", "backing off for 1s")]),
        (3, status_3(2), []),
        (4, Tick(), [Fork(3, 1, 1)]),
        (4, crashed(3), [Says("error", "backing off for 2s")]),
        (6, Tick(), [Fork(4, 1, 1)]),
        (7, Ready(4), []),
        (16.5, crashed(4), [Says("warning", "backing off for 3s")]),  # READY for 9.5 s only
        (19.5, Tick(), [Fork(5, 1, 1)]),
        (20, Ready(5), []),
        (30, crashed(5), [Says("warning", "at the age of 10s500ms"), Fork(6, 1, 1)]),
        (31, Ready(6), []),
        (32, crashed(6), [Says("warning", "backing off for 500ms")]),  # from the start again
    )
    assert fleet.phase is Phase.RUNNING


def test_health_before_the_last_failure_resets_nothing() -> None:
    play(
        running(2),  # worker 1 stays, and is healthy from 11 s on
        (5, crashed(2), [Says("warning", "100ms")]),
        (5.1, Tick(), [Fork(3, 2, 1)]),
        (12, crashed(3), [Says("error", "100ms")]),  # worker 1 became healthy since the last failure
        (12.1, Tick(), [Fork(4, 2, 1)]),
        (13, crashed(4), [Says("error", "200ms")]),
        (13.2, Tick(), [Fork(5, 2, 1)]),
        (60, crashed(5), [Says("error", "400ms")]),
        (60, crashed(1), [Says("warning", "worker 1"), Fork(6, 1, 1)]),  # the healthy do not wait
    )


def test_a_boot_that_hangs_while_running_is_killed_and_retried() -> None:
    play(
        running(2, boot_timeout=5),
        (20, crashed(1), [Says("warning", CRASH), Fork(3, 1, 1)]),
        (25, Tick(), [AskStacks(3), Says("error", "not ready within 5s", "backing off for 100ms")]),
        (25.1, Tick(), [Fork(4, 1, 1)]),  # it does not wait for the corpse
        (
            26,
            Tick(),
            [Says("error", "worker 1 gen 1 was stuck while it booted; it is killed", stacks=True), Kill(3, ABRT)],
        ),
        (26.5, Ready(4), []),
        (28, Tick(), [Kill(3, KILL), Says("warning", "did not exit within 2s")]),
        (28.2, killed(3), []),
    )


def test_a_running_fleet_never_gives_up() -> None:
    fleet = running()
    fleet.handle(crashed(1), 2)
    now = 2.0
    for _ in range(1100):  # more than a float can double
        due = fleet.deadline()
        assert due is not None
        assert now < due <= now + 10
        now = due
        [fork] = fleet.handle(Tick(), now)
        assert isinstance(fork, Fork)
        assert fleet.handle(Failed(fork.worker_id, "no"), now) == [Says("error", "backing off")]
        assert fleet.handle(status_3(fork.worker_id), now) == [Gone("boot")]
    assert fleet.phase is Phase.RUNNING


def test_a_worker_that_cannot_be_forked_counts_as_a_boot_failure() -> None:
    play(
        running(),
        (20, crashed(1), [Says("warning", CRASH), Fork(2, 1, 1)]),
        (
            20,
            Exited(2, "could not be forked: out of memory"),
            [Says("error", "could not be forked", "100ms")],
        ),
        (20.1, Tick(), [Fork(3, 1, 1)]),
    )


# How a worker ended.


def test_kills_from_outside_pause_a_young_worker_and_grow_no_backoff() -> None:
    fleet = running(1, backoff_first=0.5)
    at, worker = 2.0, 1
    for _ in range(5):
        play(fleet, (at, killed(worker), [Says("warning", KILLED_9, "backing off for 500ms")]))
        worker += 1
        play(fleet, (at + 0.5, Tick(), [Fork(worker, 1, 1)]), (at + 1, Ready(worker), []))
        at += 2
    play(fleet, (at, crashed(worker), [Says("warning", CRASH, "backing off for 500ms")]))  # the first failure


def test_failures_grow_the_backoff_and_kills_between_them_leave_it_as_it_is() -> None:
    play(
        running(1),
        (2, crashed(1), [Says("warning", "100ms")]),
        (2.1, Tick(), [Fork(2, 1, 1)]),
        (3, Ready(2), []),
        (4, killed(2), [Says("warning", "100ms")]),
        (4.1, Tick(), [Fork(3, 1, 1)]),
        (5, Ready(3), []),
        (6, crashed(3), [Says("warning", "200ms")]),
        (6.2, Tick(), [Fork(4, 1, 1)]),
        (7, Ready(4), []),
        (8, left(4), [Says("warning", "exited with status 0", "400ms")]),  # uncalled for, it is a failure, too
    )


def test_kills_let_no_reload_begin_in_the_roll() -> None:
    """Failures do: the reload may be the cure. Kills from outside say nothing against the generation."""
    play(
        running(3),
        (2, Reload(Policy(3)), [Fork(4, 1, 2)]),
        (3, Ready(4), [Commit(2), Drain(1, RETIRE), Fork(5, 2, 2)]),
        (3.5, Reload(Policy(3)), [Says("info", "kept")]),
        (4, killed(4), [Says("warning", "worker 1 gen 2", "100ms")]),
        (4.1, Tick(), [Fork(6, 1, 2)]),
    )


def test_a_boot_that_somebody_kills_is_a_failure() -> None:
    """So does the kernel, where memory is short: the next one may meet the same."""
    play(
        running(1),
        (20, crashed(1), [Says("warning", CRASH), Fork(2, 1, 1)]),
        (21, killed(2), [Says("error", "did not boot: it was killed by SIGKILL", "100ms")]),
        (21.1, Tick(), [Fork(3, 1, 1)]),
        (22, killed(3), [Says("error", "200ms")]),
    )


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.KILLED])
@pytest.mark.parametrize("most", [0.0, 10.0])
def test_not_even_a_backoff_of_nothing_spins(ending: Ending, most: float) -> None:
    fleet = running(1, backoff_first=0, backoff_most=most)
    now = 2.0
    for worker in range(1, 6):
        fleet.handle(Exited(worker, "left", ending), now)
        due = fleet.deadline()
        assert due is not None
        assert due >= now + 0.009
        now = due
        assert fleet.handle(Tick(), now) == [Fork(worker + 1, 1, 1)]
        fleet.handle(Ready(worker + 1), now)


@pytest.mark.parametrize(
    ("served", "words"), [(0, "after 0 requests"), (1, "after 1 request"), (2, "after 2 requests")]
)
def test_a_death_is_told_with_the_requests_served(served: int, words: str) -> None:
    [report, *_] = running().handle(Exited(1, CRASH, served=served), 50)
    assert isinstance(report, Report)
    assert report.text == f"worker 1 gen 1 {CRASH} at the age of 50s, {words}"


# Reload.


def test_a_reload_of_one_worker_has_the_new_ready_before_the_old_drains() -> None:
    fleet = running()
    play(fleet, (10, Reload(Policy(1)), [Fork(2, 1, 2)]))
    assert (fleet.generation, fleet.candidate) == (1, 2)
    play(fleet, (12, Ready(2), [Commit(2), Drain(1, RETIRE)]))
    assert (fleet.generation, fleet.candidate) == (2, None)
    play(fleet, (15, left(1), [Settled(2)]))
    assert numbers(fleet) == [(1, 2)]


def test_a_reload_of_three_workers_rolls_one_by_one() -> None:
    play(
        running(3),
        (10, Reload(Policy(3)), [Fork(4, 1, 2)]),
        (11, Ready(4), [Commit(2), Drain(1, RETIRE), Fork(5, 2, 2)]),
        (12, left(1), []),
        (13, Ready(5), [Drain(2, RETIRE), Fork(6, 3, 2)]),
        (14, Ready(6), [Drain(3, RETIRE)]),
        (15, left(3), []),
        (16, left(2), [Settled(2)]),
    )


def test_the_candidate_takes_the_number_of_the_oldest_worker() -> None:
    play(
        running(2),
        (20, crashed(1), [Says("warning", CRASH), Fork(3, 1, 1)]),
        (21, Ready(3), []),
        (22, Reload(Policy(2)), [Fork(4, 2, 2)]),
        (23, Ready(4), [Commit(2), Drain(2, RETIRE), Fork(5, 1, 2)]),
        (24, Ready(5), [Drain(3, RETIRE)]),
    )


def test_a_drain_follows_the_policy_of_its_own_generation() -> None:
    fleet = running(1, drain_timeout=7)
    play(
        fleet,
        (10, Reload(Policy(1, drain_timeout=100)), [Fork(2, 1, 2)]),
        (11, Ready(2), [Commit(2), Drain(1, RETIRE)]),
    )
    assert fleet.deadline() == 11 + 7 + DRAIN_GRACE


@pytest.mark.parametrize("last_word", ["failed", "exited", "timeout"])
def test_a_reload_that_fails_leaves_the_old_generation_as_it_was(last_word: str) -> None:
    fleet = running(2)
    play(fleet, (10, Reload(Policy(5, boot_timeout=4)), [Fork(3, 1, 2)]))
    if last_word == "failed":
        play(
            fleet,
            (11, Failed(3, "no module named app"), [Abandon(2, "no module named app")]),
            (11, status_3(3), []),
        )
    elif last_word == "exited":
        play(fleet, (11, crashed(3), [Abandon(2, "it was killed by SIGSEGV")]))
    else:
        play(
            fleet,
            (14, Tick(), [AskStacks(3), Abandon(2, "it was not ready within 4s")]),
            (14.5, killed(3), [Says("error", "worker 1 gen 2 was stuck while it booted; it was killed", stacks=True)]),
        )
    assert (fleet.generation, fleet.candidate, fleet.count) == (1, None, 2)
    assert numbers(fleet) == [(1, 1), (2, 1)]
    assert fleet.deadline() is None
    play(  # the number of the failed generation is not used again
        fleet,
        (20, Reload(Policy(2)), [Fork(4, 1, 3)]),
        (21, Ready(4), [Commit(3), Drain(1, RETIRE), Fork(5, 2, 3)]),
        (22, Ready(5), [Drain(2, RETIRE)]),
        (23, left(1), []),
        (23, left(2), [Settled(3)]),
    )


def test_an_old_worker_that_dies_while_the_candidate_boots_is_respawned_in_the_old_generation() -> None:
    play(
        running(2),
        (20, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (21, crashed(1), [Says("warning", CRASH), Fork(4, 1, 1)]),
        (22, Ready(4), []),
        (23, Ready(3), [Commit(2), Drain(4, RETIRE), Fork(5, 2, 2)]),
        (24, Ready(5), [Drain(2, RETIRE)]),
    )


def test_an_old_worker_still_booting_at_the_commit_is_put_away() -> None:
    play(
        running(2),
        (20, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (21, crashed(2), [Says("warning", CRASH), Fork(4, 2, 1)]),
        (22, Ready(3), [Commit(2), Drain(1, RETIRE), Kill(4, TERM), Fork(5, 2, 2)]),
        (23, Ready(4), []),
        (23, Exited(4, "was killed by SIGTERM"), [Says("warning", "was killed by SIGTERM while it drained")]),
        (24, Ready(5), []),
        (25, left(1), [Settled(2)]),
    )


def test_an_old_worker_that_dies_in_the_roll_is_followed_by_a_new_one() -> None:
    play(
        running(3),
        (3, Reload(Policy(3)), [Fork(4, 1, 2)]),
        (4, Ready(4), [Commit(2), Drain(1, RETIRE), Fork(5, 2, 2)]),
        (4.5, crashed(2), [Says("warning", "worker 2 gen 1")]),  # its successor boots already
        (4.6, crashed(3), [Says("warning", "worker 3 gen 1"), Fork(6, 3, 2)]),  # young, but not ours
        (5, Ready(6), []),
        (6, Ready(5), []),
        (7, left(1), [Settled(2)]),
    )


def test_the_roll_waits_while_a_number_is_empty() -> None:
    play(
        running(3),
        (10, Reload(Policy(3)), [Fork(4, 1, 2)]),
        (11, Ready(4), [Commit(2), Drain(1, RETIRE), Fork(5, 2, 2)]),
        (11.95, crashed(4), [Says("warning", "worker 1 gen 2", "100ms")]),
        (12, Ready(5), [Drain(2, RETIRE)]),
        (12.05, Tick(), [Fork(6, 1, 2)]),
        (13, Ready(6), [Fork(7, 3, 2)]),
    )


def test_the_health_of_an_old_worker_resets_no_backoff_of_the_new() -> None:
    play(
        running(2),
        (3, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (4, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (10.5, crashed(4), [Says("error", "100ms")]),
        (10.6, Tick(), [Fork(5, 2, 2)]),
        (11.5, crashed(5), [Says("error", "200ms")]),  # old worker 2 is healthy since 11 s
    )


def test_a_boot_that_fails_in_the_roll_is_retried_and_the_old_worker_stays() -> None:
    fleet = running(2)
    play(
        fleet,
        (10, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (11, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (12, left(1), []),
        (12, Failed(4, "no database"), [Says("error", "worker 2 gen 2", "backing off for 100ms")]),
        (12, status_3(4), []),
    )
    assert numbers(fleet) == [(1, 2), (2, 1)]
    play(
        fleet,
        (12.1, Tick(), [Fork(5, 2, 2)]),
        (13, Ready(5), [Drain(2, RETIRE)]),
        (14, left(2), [Settled(2)]),
    )


def test_a_second_reload_begins_when_no_old_worker_is_left_undrained() -> None:
    play(
        running(2),
        (10, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (10.5, Reload(Policy(5)), [Says("info", "kept")]),
        (10.6, Reload(Policy(2, drain_timeout=8)), [Says("info", "kept")]),  # only the newest is kept
        (11, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (12, Ready(4), [Drain(2, RETIRE), Fork(5, 1, 3)]),
        (13, left(1), []),
        (13, left(2), [Settled(2)]),
        (14, Ready(5), [Commit(3), Drain(3, RETIRE), Fork(6, 2, 3)]),
        (15, Ready(6), [Drain(4, RETIRE)]),
        (16, left(3), []),
        (16, left(4), [Settled(3)]),
    )


def test_a_second_reload_begins_after_the_first_is_abandoned() -> None:
    play(
        running(),
        (10, Reload(Policy(1)), [Fork(2, 1, 2)]),
        (11, Reload(Policy(1)), [Says("info", "kept")]),
        (12, Failed(2, "typo"), [Abandon(2, "typo"), Fork(3, 1, 3)]),
        (12, status_3(2), []),
        (13, Ready(3), [Commit(3), Drain(1, RETIRE)]),
    )


def test_a_reload_cures_a_roll_that_fails() -> None:
    play(
        running(2),
        (10, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (11, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (11, left(1), []),
        (12, Failed(4, "no database"), [Says("error", "backing off")]),
        (12, status_3(4), []),
        (12.05, Reload(Policy(2)), [Fork(5, 2, 3)]),
        (12.1, Tick(), []),
        (13, Ready(5), [Commit(3), Drain(2, RETIRE), Fork(6, 1, 3)]),
        (14, Ready(6), [Drain(3, RETIRE)]),
        (14, left(3), []),
        (14, left(2), [Settled(3)]),
    )


def test_a_reload_that_may_be_the_cure_still_waits_for_room() -> None:
    play(
        running(2),
        (10, Reload(Policy(2)), [Fork(3, 1, 2)]),
        (11, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (12, crashed(4), [Says("error", "backing off")]),
        (12.1, Tick(), [Fork(5, 2, 2)]),
        (12.2, Reload(Policy(2)), [Says("info", "kept")]),  # three are active
        (13, Ready(5), [Drain(2, RETIRE), Fork(6, 1, 3)]),
    )


def test_a_reload_cures_a_crash_loop_without_waiting_for_the_backoff() -> None:
    fleet = running(1, backoff_first=10)
    play(
        fleet,
        (2, crashed(1), [Says("warning", "backing off for 10s")]),
        (3, Reload(Policy(2)), [Fork(2, 1, 2)]),
        (4, Ready(2), [Commit(2), Fork(3, 2, 2), Settled(2)]),
        (5, Ready(3), []),
    )
    assert fleet.deadline() is None


def test_a_reload_while_starting_waits_for_the_first_ready() -> None:
    play(
        started(2),
        (0.5, Reload(Policy(2)), [Says("info", "kept")]),
        (1, Ready(1), [Fork(3, 1, 2)]),
        (2, Ready(2), [Announce()]),
        (3, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
    )


def test_a_reload_comes_with_its_count() -> None:
    fleet = running(2)
    play(
        fleet,
        (10, Reload(Policy(4)), [Fork(3, 1, 2)]),
        (11, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 3, 2), Fork(5, 4, 2)]),
        (12, Ready(4), []),
        (13, Ready(5), [Fork(6, 2, 2)]),
        (14, Ready(6), [Drain(2, RETIRE)]),
    )
    assert numbers(fleet) == [(1, 2), (2, 2), (3, 2), (4, 2)]


def test_a_reload_to_fewer_drains_the_extra_at_the_commit() -> None:
    play(
        running(4),
        (10, Reload(Policy(2)), [Fork(5, 1, 2)]),
        (11, Ready(5), [Commit(2), Drain(1, RETIRE), Drain(4, RETIRE), Drain(3, RETIRE), Fork(6, 2, 2)]),
        (12, Ready(6), [Drain(2, RETIRE)]),
    )


def test_a_reload_to_fewer_numbers_the_candidate_within_the_new_count() -> None:
    fleet = running(2)
    play(
        fleet,
        (20, crashed(1), [Says("warning", CRASH), Fork(3, 1, 1)]),
        (21, Ready(3), []),
        (22, Reload(Policy(1)), [Fork(4, 1, 2)]),  # though worker 2 is the oldest
        (23, Ready(4), [Commit(2), Drain(3, RETIRE), Drain(2, RETIRE)]),
    )


def test_a_boot_that_fails_beside_the_candidate_abandons_nothing() -> None:
    fleet = running(2)
    play(
        fleet,
        (20, crashed(1), [Says("warning", CRASH), Fork(3, 1, 1)]),
        (21, Reload(Policy(2)), [Fork(4, 2, 2)]),
        (22, Failed(3, "no database"), [Says("error", "worker 1 gen 1 did not boot", "100ms")]),
    )
    assert fleet.candidate == 2


def test_a_second_reload_waits_for_the_candidate_also_where_there_is_room() -> None:
    play(
        running(2),
        (2, crashed(1), [Says("warning", "100ms")]),
        (2.01, Reload(Policy(2)), [Fork(3, 2, 2)]),
        (2.02, Reload(Policy(2)), [Says("info", "kept")]),
        (2.1, Tick(), [Fork(4, 1, 1)]),
    )


def test_the_fleet_reloads_until_the_new_generation_has_it_for_itself() -> None:
    fleet = running(1)
    seen = [(fleet.is_reloading, fleet.is_settled)]
    events: list[tuple[float, Event]] = [
        (10, Reload(Policy(1))),  # a candidate
        (11, Ready(2)),  # which is current, with one that drains
        (12, Reload(Policy(1))),  # the next one
        (13, left(1)),
        (14, Failed(3, "no")),  # abandoned; 2 has the fleet for itself
    ]
    for at, event in events:
        fleet.handle(event, at)
        seen.append((fleet.is_reloading, fleet.is_settled))
    assert seen == [(False, True), (True, True), (True, False), (True, False), (True, True), (False, True)]


def test_a_reload_that_waits_is_a_reload() -> None:
    fleet = started(1)
    fleet.handle(Reload(Policy(1)), 0.5)
    assert (fleet.is_reloading, fleet.candidate, fleet.is_settled) == (True, None, True)


# Scale.


def test_scale_up_forks_and_scale_down_drains_the_last() -> None:
    fleet = running(2)
    play(
        fleet,
        (5, Scale(+1), [Fork(3, 3, 1)]),
        (6, Ready(3), []),
        (7, Scale(-1), [Drain(3, RETIRE)]),
        (8, Scale(+1), [Fork(4, 3, 1)]),  # the draining one has lost its number
        (9, Scale(-1), [Kill(4, TERM)]),  # one that boots has nothing to finish
        (9, ended(4), []),
        (9, left(3), []),
        (10, Scale(-9), [Drain(2, RETIRE)]),
        (11, Scale(-1), []),
    )
    assert fleet.count == 1


def test_scale_while_starting() -> None:
    play(
        started(2),
        (0.5, Scale(+1), [Fork(3, 3, 1)]),
        (0.6, Scale(-2), [Kill(2, TERM), Kill(3, TERM)]),
        (0.7, ended(2), []),
        (0.8, ended(3), []),
        (1, Ready(1), [Announce()]),
    )


def test_scale_down_keeps_a_serving_worker_rather_than_an_empty_number() -> None:
    play(
        running(2),
        (5, crashed(1), [Says("warning", "100ms")]),
        (5.05, Scale(-1), []),  # worker 2 is all there is
        (5.1, Tick(), [Fork(3, 1, 1)]),
        (6, Ready(3), [Drain(2, RETIRE)]),
    )


def test_scale_down_to_empty_numbers_fills_them_one_over_the_count_at_a_time() -> None:
    play(
        running(4),
        (5, crashed(1), [Says("warning", "100ms")]),
        (5, crashed(2), [Says("warning", "200ms")]),
        (5.05, Scale(-2), []),
        (5.1, Tick(), [Fork(5, 1, 1)]),
        (5.2, Tick(), []),
        (6, Ready(5), [Drain(4, RETIRE), Fork(6, 2, 1)]),
        (7, Ready(6), [Drain(3, RETIRE)]),
    )


def test_scale_down_below_the_number_of_the_candidate_lets_it_boot() -> None:
    play(
        running(2),
        (20, crashed(1), [Says("warning", CRASH), Fork(3, 1, 1)]),
        (21, Ready(3), []),
        (22, Reload(Policy(2)), [Fork(4, 2, 2)]),
        (23, Scale(-1), [Drain(2, RETIRE)]),
        (24, Ready(4), [Commit(2), Drain(4, RETIRE), Fork(5, 1, 2)]),  # good, but its number is one too many
        (25, Ready(5), [Drain(3, RETIRE)]),
    )


def test_scale_in_the_roll() -> None:
    play(
        running(3),
        (10, Reload(Policy(3)), [Fork(4, 1, 2)]),
        (11, Ready(4), [Commit(2), Drain(1, RETIRE), Fork(5, 2, 2)]),
        (11.5, Scale(-1), [Drain(3, RETIRE)]),
        (12, Ready(5), [Drain(2, RETIRE)]),
        (12.5, Scale(+1), [Fork(6, 3, 2)]),
        (13, Ready(6), []),
    )


def test_scale_while_the_candidate_boots_holds_for_its_generation_too() -> None:
    fleet = running(1)
    play(
        fleet,
        (10, Reload(Policy(2)), [Fork(2, 1, 2)]),
        (10.2, Reload(Policy(7)), [Says("info", "kept")]),
        (10.5, Scale(+1), [Fork(3, 2, 1)]),
        (10.7, Ready(3), []),
        (11, Ready(2), [Commit(2), Drain(1, RETIRE), Fork(4, 3, 2)]),
    )
    assert fleet.count == 3
    play(
        fleet,
        (12, Ready(4), [Fork(5, 2, 2)]),
        (13, Ready(5), [Drain(3, RETIRE), Fork(6, 1, 3)]),
        (14, Ready(6), [Commit(3), Drain(2, RETIRE), *[Fork(n + 3, n, 3) for n in range(4, 9)]]),
    )
    assert fleet.count == 8


# What comes too late.


def test_news_of_unknown_and_gone_workers_is_ignored() -> None:
    fleet = running(2)
    play(
        fleet,
        (20, crashed(1), [Says("warning", CRASH), Fork(3, 1, 1)]),
        (20, Ready(1), []),
        (20, Failed(1, "no"), []),
        (20, killed(1), []),
        (20, Ready(99), []),
        (20, Failed(99, "no"), []),
        (20, killed(99), []),
        (21, Ready(3), []),
        (21, Ready(3), []),
        (21, Failed(3, "no"), []),
    )
    assert numbers(fleet) == [(1, 1), (2, 1)]


def test_a_ready_that_crosses_the_term_has_its_time_to_drain() -> None:
    fleet = started(1, drain_timeout=30)
    play(fleet, (1, Stop(), [Kill(1, TERM)]), (1, Ready(1), []))
    assert fleet.workers[1].state is WorkerState.DRAINING
    assert fleet.deadline() == 31 + DRAIN_GRACE
    play(fleet, (5, QuickStop(), [Kill(1, QUIT)]), (6, Ready(1), []))
    assert fleet.deadline() == 5 + QUICK_GRACE


def test_a_ready_that_comes_after_the_kill_is_ignored() -> None:
    fleet = running(1, boot_timeout=5)
    play(
        fleet,
        (20, Reload(Policy(1, boot_timeout=5)), [Fork(2, 1, 2)]),
        (25, Tick(), [AskStacks(2), Abandon(2, "it was not ready within 5s")]),
        (26, Tick(), [Says("error", "is killed", stacks=True), Kill(2, ABRT)]),
        (26, Ready(2), []),
        (28, Tick(), [Kill(2, KILL), Says("warning", "did not exit within 2s")]),
        (28, Ready(2), []),
        (28, Failed(2, "no"), []),
    )
    assert numbers(fleet) == [(1, 1)]
    assert numbers(fleet, WorkerState.KILLED) == [(1, 2)]
    assert fleet.deadline() is None  # after KILL there is nothing left to try


def test_only_a_tick_makes_overdue() -> None:
    """After a stopped master both a READY and the end of its time are there: the news counts."""
    fleet = started(1, boot_timeout=5)
    assert fleet.handle(Ready(1), 500) == [Announce()]
    assert fleet.handle(Tick(), 500) == []
