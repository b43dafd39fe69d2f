"""How the transcripts of the fleet are written and played.

Workers get the ids 1, 2, 3 ... in the order of their Forks, which read ``Fork(id, number, generation)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asgiri.supervisor.crew import WorkerState
from asgiri.supervisor.fleet import Fleet
from asgiri.supervisor.messages import (
    Announce,
    Command,
    DrainReason,
    Ending,
    Event,
    Exited,
    Fork,
    Gone,
    KillHow,
    Level,
    Policy,
    Pulse,
    Ready,
    Report,
    Start,
    Tick,
    Vitals,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RETIRE, STOP = DrainReason.RETIRE, DrainReason.STOP
TERM, QUIT, ABRT, KILL = KillHow.TERM, KillHow.QUIT, KillHow.ABRT, KillHow.KILL


def left(worker_id: int) -> Exited:
    return Exited(worker_id, "exited with status 0", Ending.CLEAN)


def status_3(worker_id: int) -> Exited:
    return Exited(worker_id, "exited with status 3", Ending.FAILED)


def crashed(worker_id: int) -> Exited:
    return Exited(worker_id, CRASH, Ending.FAILED)


def killed(worker_id: int) -> Exited:
    return Exited(worker_id, KILLED_9, Ending.KILLED)


def ended(worker_id: int) -> Exited:
    """By a signal that the fleet had it sent."""
    return Exited(worker_id, "was killed by SIGTERM", Ending.KILLED)


CRASH = "was killed by SIGSEGV"
KILLED_9 = "was killed by SIGKILL"


class Says:
    """Equal to a Report of this level with all these parts in its text; and it comes with stacks, or it does not."""

    def __init__(self, level: Level, *parts: str, stacks: bool = False) -> None:
        self.level = level
        self.parts = parts
        self.stacks = stacks

    def __repr__(self) -> str:
        return f"Says({self.level!r}, {self.parts!r}, stacks={self.stacks})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Report):
            return NotImplemented
        return (other.level, other.stacks) == (self.level, self.stacks) and all(p in other.text for p in self.parts)

    __hash__ = None  # type: ignore[assignment]


Line = tuple[float, Event, "Sequence[Command | Says]"]


def play(fleet: Fleet, *lines: Line) -> None:
    """Play the transcript. A Tick must be due at its very time; no line may skip one that was due before.

    But for a Pulse, which comes before the Tick of the same wake, and may move it.
    """
    for at, event, expected in lines:
        now, due = at, fleet.deadline()
        if isinstance(event, Tick):
            assert due is not None, f"no tick is due at {at}"
            assert due == pytest.approx(at)
            now = due
        elif not isinstance(event, Pulse):
            assert due is None or due >= at, f"a tick was due at {due}, before {event} at {at}"
        told = fleet.handle(event, now)
        if not any(isinstance(line, Gone) for line in expected):  # who counts the ends says so
            told = [command for command in told if not isinstance(command, Gone)]
        assert told == list(expected), f"at {at}, on {event}"


def pulse(**heard: float) -> Pulse:
    """``pulse(w1=5, w3=2)``: worker 1 was last heard at 5 s, worker 3 at 2 s."""
    return Pulse({int(name.removeprefix("w")): Vitals(at) for name, at in heard.items()})


def vital(worker_id: int, heard: float, *, served: int = 0, memory: int = 0) -> Pulse:
    return Pulse({worker_id: Vitals(heard, served, memory)})


def started(count: int = 1, spread: Callable[[], float] = lambda: 0.0, /, **settings: float) -> Fleet:
    """A fleet that forked its first workers (ids 1 to count) at 0 s."""
    fleet = Fleet(Policy(count, **settings), spread)  # type: ignore[arg-type]
    play(fleet, (0, Start(), [Fork(n, n, 1) for n in range(1, count + 1)]))
    return fleet


def running(count: int = 1, spread: Callable[[], float] = lambda: 0.0, /, **settings: float) -> Fleet:
    """A fleet whose first workers (ids 1 to count) are READY since 1 s."""
    fleet = started(count, spread, **settings)
    for n in range(1, count):
        play(fleet, (1, Ready(n), []))
    play(fleet, (1, Ready(count), [Announce()]))
    return fleet


def numbers(fleet: Fleet, state: WorkerState = WorkerState.READY) -> list[tuple[int, int]]:
    """(number, generation) of the workers in that state."""
    return sorted((w.number, w.generation) for w in fleet.workers.values() if w.state is state)
