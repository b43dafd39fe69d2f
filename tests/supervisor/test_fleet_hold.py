"""The fleet under reload, by transcripts: what comes waits for the newer code (docs/design/fleet.md, "Holding")."""

from __future__ import annotations

from asgiri.config import schema
from asgiri.config.schema import Config, Workers
from asgiri.supervisor.fleet import Fleet
from asgiri.supervisor.messages import (
    Abandon,
    Commit,
    Drain,
    Failed,
    Fork,
    Gone,
    HandOver,
    Hold,
    Kill,
    Policy,
    QuickStop,
    Ready,
    Reload,
    Report,
    Resume,
    Scale,
    Settled,
    Stop,
    Tick,
)
from tests.supervisor.fleet_play import QUIT, RETIRE, STOP, TERM, Says, crashed, ended, left, play, running, status_3


def held(count: int = 1, **settings: float) -> Fleet:
    """A fleet of so many READY workers, and at 2 s a candidate that boots: the worker with the next id."""
    fleet = running(count, hold=True, **settings)
    holds = [Hold(n) for n in range(1, count + 1)]
    play(fleet, (2, Reload(Policy(count, hold=True, **settings)), [*holds, Fork(count + 1, 1, 2)]))  # type: ignore[arg-type]
    return fleet


def test_the_policy_is_of_the_section() -> None:
    workers = Workers(count=2, max_requests=5, max_memory=1 << 20, max_lifetime=60.0)
    policy = Policy.of(Config(workers=workers, reload=schema.Reload(enabled=True)))
    assert (policy.hold, policy.heartbeat_timeout) == (True, 0)
    assert (policy.max_requests, policy.max_memory, policy.max_lifetime) == (0, 0, 0)
    policy = Policy.of(Config(workers=workers))
    assert (policy.hold, policy.heartbeat_timeout) == (False, 30)
    assert (policy.max_requests, policy.max_memory, policy.max_lifetime) == (5, 1 << 20, 60)


def test_who_serves_is_held_while_the_candidate_boots_and_gone_when_it_is_ready() -> None:
    play(held(), (3, Ready(2), [Commit(2), Drain(1, RETIRE)]), (4, left(1), [Settled(2)]))


def test_nobody_is_held_in_production() -> None:
    play(running(), (2, Reload(Policy(1)), [Fork(2, 1, 2)]), (3, Ready(2), [Commit(2), Drain(1, RETIRE)]))


def test_who_waits_for_its_turn_in_the_roll_stays_held() -> None:
    play(
        held(3),
        (3, Ready(4), [Commit(2), Drain(1, RETIRE), Fork(5, 2, 2)]),
        (4, Ready(5), [Drain(2, RETIRE), Fork(6, 3, 2)]),
        (5, Ready(6), [Drain(3, RETIRE)]),
    )


def test_a_candidate_that_fails_lets_them_go_on() -> None:
    play(
        held(2),
        (3, Failed(3, "no module named shop"), [Abandon(2, "no module named shop"), Resume(1), Resume(2)]),
        (3, status_3(3), []),
        (9, Reload(Policy(2, hold=True)), [Hold(1), Hold(2), Fork(4, 1, 3)]),
    )


def test_a_candidate_that_dies_or_is_too_slow_lets_them_go_on() -> None:
    play(held(), (3, crashed(2), [Abandon(2, "it was killed by SIGSEGV"), Resume(1)]))
    fleet = held(boot_timeout=10)
    commands = fleet.handle(Tick(), 12)
    assert commands[1:] == [Abandon(2, "it was not ready within 10s"), Resume(1)]


def test_a_reload_that_waits_begins_without_letting_them_go_on_in_between() -> None:
    play(
        held(),
        (3, Reload(Policy(1, hold=True)), [Says("debug", "is kept")]),
        (4, Failed(2, "no"), [Abandon(2, "no"), Fork(3, 1, 3)]),
        (4, status_3(2), []),
        (5, Ready(3), [Commit(3), Drain(1, RETIRE)]),
    )


def test_a_reload_that_waits_holds_the_generation_that_came_before_it() -> None:
    play(
        held(),
        (3, Reload(Policy(1, hold=True)), [Says("debug", "is kept")]),
        (4, Ready(2), [Commit(2), Drain(1, RETIRE), Hold(2), Fork(3, 1, 3)]),
        (5, Ready(3), [Commit(3), Drain(2, RETIRE)]),
    )


def test_what_dies_during_the_hold_is_replaced_and_its_successor_held() -> None:
    play(
        held(2),
        (20, crashed(2), [Says("warning", "SIGSEGV"), Fork(4, 2, 1)]),
        (21, Ready(4), [Hold(4)]),
        (22, Failed(3, "no"), [Abandon(2, "no"), Resume(1), Resume(4)]),
    )


def test_what_is_added_during_the_hold_is_held() -> None:
    play(
        held(),
        (3, Scale(1), [Fork(3, 2, 1)]),
        (4, Ready(3), [Hold(3)]),
        (5, Ready(2), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (6, Ready(4), [Drain(3, RETIRE)]),
    )


def test_one_too_many_leaves_during_the_hold_and_hands_over_when_there_is_somebody() -> None:
    play(held(2), (3, Scale(-1), [Drain(2, RETIRE)]), (4, left(2), []), (5, Ready(3), [Commit(2), Drain(1, RETIRE)]))


def test_a_stop_during_the_hold_has_them_answer_what_waits() -> None:
    play(held(2), (3, Stop(), [Resume(1), Resume(2), Drain(1, STOP), Drain(2, STOP), Kill(3, TERM)]))
    play(held(2), (3, HandOver(), [Resume(1), Resume(2), Drain(1, RETIRE), Drain(2, RETIRE), Kill(3, TERM)]))
    play(held(1), (3, QuickStop(), [Kill(1, QUIT), Kill(2, QUIT)]))


def test_a_stop_with_a_delay_serves_on_meanwhile() -> None:
    play(held(drain_delay=5), (3, Stop(), [Resume(1), Kill(2, TERM)]), (4, ended(2), []), (8, Tick(), [Drain(1, STOP)]))


def test_when_the_new_code_crashes_what_comes_waits_for_it() -> None:
    """As with one worker, where nobody else is there: old answers would look like those of the code that was saved."""
    play(
        held(2),
        (3, Ready(3), [Commit(2), Drain(1, RETIRE), Fork(4, 2, 2)]),
        (4, crashed(3), [Says("warning", "backing off")]),
        (4.05, left(1), []),
        (4.1, Tick(), [Fork(5, 1, 2)]),
        (5, Ready(4), [Drain(2, RETIRE)]),
    )


def test_a_reload_that_turns_it_off_lets_them_go_on() -> None:
    """The master lets no config do that; the fleet does not depend on it."""
    play(
        running(hold=True),
        (2, Reload(Policy(1)), [Fork(2, 1, 2)]),
        (3, Ready(2), [Commit(2), Drain(1, RETIRE)]),
        (4, Reload(Policy(1, hold=True)), [Hold(2), Fork(3, 1, 3)]),
    )


def test_a_report_about_a_held_worker_is_like_any_other() -> None:
    fleet = held()
    assert fleet.workers[1].held
    assert [type(c) for c in fleet.handle(crashed(1), 30)] == [Report, Gone, Fork]
