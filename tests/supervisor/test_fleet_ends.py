"""Why workers have gone, as the fleet tells it for the metrics: one reason for each that is reaped."""

from __future__ import annotations

import pytest

from asgiri.supervisor.fleet import Fleet
from asgiri.supervisor.messages import (
    Abandon,
    Drain,
    Ending,
    Event,
    Exited,
    Failed,
    Gone,
    HandOver,
    Policy,
    Pulse,
    QuickStop,
    Ready,
    Recycle,
    Reload,
    Scale,
    Start,
    Stop,
    Tick,
    Vitals,
)
from tests.supervisor.fleet_play import crashed, killed, left, pulse, running, started, status_3, vital

Line = tuple[float, Event]


def ends(fleet: Fleet, *lines: Line) -> list[str]:
    """Why they went whom these events have end."""
    return [command.reason for at, event in lines for command in fleet.handle(event, at) if isinstance(command, Gone)]


@pytest.mark.parametrize(
    ("settings", "lines", "reasons"),
    [
        ({}, [(2, crashed(1))], ["crashed"]),
        ({}, [(2, killed(1))], ["crashed"]),
        ({}, [(2, left(1))], ["crashed"]),  # whom nobody had asked to
        ({}, [(2, Pulse({1: Vitals(2, drains=True)})), (3, left(1))], ["crashed"]),  # a TERM of somebody else's
        ({}, [(2, Stop()), (3, left(1))], ["stop"]),
        ({}, [(2, Stop()), (3, crashed(1))], ["stop"]),  # it went anyway
        ({"drain_delay": 5}, [(2, Stop()), (7, Tick()), (8, left(1))], ["stop"]),
        ({}, [(2, HandOver()), (3, left(1))], ["stop"]),
        ({}, [(2, QuickStop()), (3, left(1))], ["stop"]),
        ({"drain_timeout": 1}, [(2, Stop()), (5, Tick()), (6, killed(1))], ["stop"]),
        ({}, [(2, Recycle()), (3, Ready(2)), (4, left(1))], ["recycled"]),
        ({}, [(2, Recycle()), (3, crashed(1))], ["crashed"]),  # before its turn came
        ({"max_requests": 5}, [(2, vital(1, 2, served=5)), (3, Ready(2)), (4, left(1))], ["max_requests"]),
        ({"max_memory": 5}, [(20, vital(1, 20, memory=5)), (21, Ready(2)), (22, left(1))], ["max_memory"]),
        ({"max_lifetime": 9}, [(10, vital(1, 10)), (11, Ready(2)), (12, left(1))], ["max_lifetime"]),
        ({}, [(2, Reload(Policy(1))), (3, Ready(2)), (4, left(1))], ["reload"]),
        # Worn, and then outdated: for the newer code it goes.
        ({}, [(2, Reload(Policy(1))), (2, Recycle()), (3, Ready(2)), (4, left(1))], ["reload"]),
        ({}, [(2, Reload(Policy(1))), (3, Failed(2, "no")), (4, status_3(2))], ["boot"]),
        ({}, [(2, Reload(Policy(1))), (3, status_3(2))], ["boot"]),
        ({}, [(2, Reload(Policy(1))), (3, Stop()), (4, killed(2)), (5, left(1))], ["stop", "stop"]),
        ({}, [(2, Reload(Policy(1))), (3, Exited(2, "could not be forked", Ending.UNFORKED))], ["boot"]),
    ],
)
def test_each_end_of_a_worker_has_its_reason(settings: dict[str, float], lines: list[Line], reasons: list[str]) -> None:
    assert ends(running(1, **settings), *lines) == reasons


def test_scaling_down_is_a_reason() -> None:
    assert ends(running(2), (2, Scale(-1)), (3, left(2))) == ["scale"]
    assert ends(running(1), (2, Scale(+1)), (3, Scale(-1)), (4, killed(2))) == ["scale"]


def test_a_first_boot_that_fails_stops_the_others() -> None:
    fleet = started(2)
    lines: list[Line] = [(1.0, Failed(1, "no app")), (1.0, status_3(1)), (2.0, killed(2))]
    assert ends(fleet, *lines) == ["boot", "stop"]


def test_a_silent_worker_is_counted_as_hung() -> None:
    """Hung: until it is killed, or goes on and is replaced."""
    quiet: list[Line] = [(at, pulse(w1=1)) for at in range(2, 12)]
    silent: list[Line] = [*quiet, (12, Tick())]
    fleet = running(1, heartbeat_timeout=10)
    assert ends(fleet, *silent, (13, Tick()), (14, killed(1))) == ["hung"]
    fleet = running(1, heartbeat_timeout=10)
    assert ends(fleet, *silent, (12.5, pulse(w1=12.4)), (13, Ready(2)), (14, left(1))) == ["hung"]


def test_stuck_while_it_boots() -> None:
    fleet = running(1, boot_timeout=5)
    lines: list[Line] = [(2, Reload(Policy(1, boot_timeout=5))), (7, Tick()), (8, Tick()), (9, killed(2))]
    assert ends(fleet, *lines) == ["boot"]
    fleet = running(1, boot_timeout=5)
    late: list[Line] = [(2, Reload(Policy(1, boot_timeout=5))), (7, Tick()), (7.5, Ready(2)), (9, left(2))]
    assert ends(fleet, *late) == ["boot"]


def test_the_transcript_has_it_behind_what_follows_from_the_end() -> None:
    fleet = Fleet(Policy(1))
    fleet.handle(Start(), 0)
    fleet.handle(Ready(1), 1)
    fleet.handle(Reload(Policy(1)), 2)
    assert [type(one) for one in fleet.handle(Failed(2, "no"), 3)] == [Abandon]
    assert fleet.handle(status_3(2), 3) == [Gone("boot")]
    assert [type(one) for one in fleet.handle(Stop(), 4)] == [Drain]
