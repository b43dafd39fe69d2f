"""The policy of a child that is not a worker, sans-I/O: events and a time go in, commands come out.

Such a child (the admin one) helps the service and is none of it: whatever becomes of it, the master goes on, and at the
end does not wait for it longer than ``LEAVE_SECONDS + KILL_SECONDS``. What is wanted is a *plan*, a number by which the
master knows a config and its listeners. As with the fleet, events change facts, and ``_reconcile`` compares what is
with what is wanted. Times are seconds of one monotonic clock.

The life of a child. Where the table is empty nothing happens; a late event is no error.

    state     Ready    Failed   Exited         deadline           not wanted   Stop     QuickStop
    BOOTING   RUNNING  FAILED   gone, failure  KILLED, failure    RETIRING     LEAVING  KILLED
    RUNNING                     gone, failure*                    RETIRING     LEAVING  KILLED
    FAILED                      gone           KILLED                          LEAVING  KILLED
    RETIRING                    gone           KILLED                          LEAVING  KILLED
    LEAVING                     gone           KILLED                                   KILLED
    KILLED                      gone           gone: left behind

    A child that is RUNNING and silent for SILENT_SECONDS is KILLED, which is a failure.
    * none after HEALTHY_AFTER seconds of RUNNING, nor of an old one that is being replaced

A child is not wanted when its plan is not the one that is, and a child of that one runs: a new one that does not get
there leaves the old one as it is. One that still boots is let go at once. After a failure the next child waits, from
BACKOFF_FIRST on, twice as long each time, BACKOFF_MOST at most; a new plan ends the row, and is tried at once.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeAlias

import msgspec
from msgspec import Struct

from asgiri.supervisor.messages import DrainReason, Level, QuickStop, Report, Stop, Tick
from asgiri.units import format_duration

BOOT_SECONDS = 20.0  # it imports no application, but the machine may be busy with those of the workers
RETIRE_SECONDS = 5.0  # for one that is replaced: it keeps its connections a while, for what is on its way
LEAVE_SECONDS = 1.5  # from the stop of the service, or from its own word that it failed, to KILL
KILL_SECONDS = 0.5  # from KILL to being left behind, if even that does not end it
SILENT_SECONDS = 10.0  # without a beat: the child hangs
SILENT_PULSES = 5  # so many of which must have found that: a master that was asleep has not looked
HEALTHY_AFTER = 10.0  # seconds of RUNNING that end a row of failures
BACKOFF_FIRST = 0.1
BACKOFF_MOST = 10.0


# Events, besides the fleet's Tick, Stop and QuickStop. Both stops are final.


class Want(msgspec.Struct, frozen=True):
    """There shall be a child of this plan, in the place of one of another; None: there shall be none."""

    plan: int | None


class ChildReady(msgspec.Struct, frozen=True):
    """It has booted and serves."""

    child_id: int


class ChildFailed(msgspec.Struct, frozen=True):
    """It says that it cannot boot; its exit follows."""

    child_id: int
    why: str


class ChildExited(msgspec.Struct, frozen=True):
    """It was reaped, or could not be forked. ``how`` is a verb phrase: "was killed by SIGKILL"."""

    child_id: int
    how: str


class ChildPulse(msgspec.Struct, frozen=True):
    """Once a second, of a child that beats: whether it has lately. A master that sleeps asks seldom, blames nobody."""

    child_id: int
    is_fresh: bool


SidecarEvent: TypeAlias = Want | ChildReady | ChildFailed | ChildExited | ChildPulse | Tick | Stop | QuickStop


# Commands, besides the fleet's Report.


class ForkChild(msgspec.Struct, frozen=True):
    """Fork a child of this plan. If that fails, answer with ``ChildExited``."""

    child_id: int
    plan: int


class TellChild(msgspec.Struct, frozen=True):
    """Give it the order to go; again with STOP when it was retiring already."""

    child_id: int
    reason: DrainReason


class KillChild(msgspec.Struct, frozen=True):
    """Send it SIGKILL."""

    child_id: int


SidecarCommand: TypeAlias = ForkChild | TellChild | KillChild | Report


class ChildState(Enum):
    BOOTING = auto()  # forked, not yet ready
    RUNNING = auto()
    FAILED = auto()  # said itself that it cannot boot; exit awaited
    RETIRING = auto()  # told to go: it is replaced, or wanted no more
    LEAVING = auto()  # told to go: the service stops
    KILLED = auto()  # exit awaited


class _Child(Struct):
    id: int
    plan: int
    state: ChildState
    since: float
    deadline: float | None
    silent: int = 0  # pulses in a row
    silent_since: float = 0.0  # the first of them


_LIMITS = {
    ChildState.BOOTING: BOOT_SECONDS,
    ChildState.RUNNING: None,
    ChildState.FAILED: LEAVE_SECONDS,
    ChildState.RETIRING: RETIRE_SECONDS,
    ChildState.LEAVING: LEAVE_SECONDS,
    ChildState.KILLED: KILL_SECONDS,
}


class Sidecar:
    """The state machine. ``name`` is what the log calls the child. Never blocks, never raises on an event."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._now = 0.0  # the time of the event in hand
        self._commands: list[SidecarCommand] = []  # what came out of it so far
        self._children: dict[int, _Child] = {}  # by id, oldest first
        self._last_id = 0
        self._wanted: int | None = None
        self._stopped = False  # nothing is wanted ever again
        self._failures = 0  # in a row, of the plan that is wanted
        self._wait: float | None = None  # until when the next child waits

    @property
    def plans(self) -> set[int]:
        """The plans that are still needed: that of each child, and the one that is wanted."""
        needed = {child.plan for child in self._children.values()}
        return needed if self._wanted is None else needed | {self._wanted}

    @property
    def is_gone(self) -> bool:
        """No child is left that the master should wait for."""
        return not self._children

    def deadline(self) -> float | None:
        """When the next ``Tick`` is due, in the clock of ``now``; None: not before another event."""
        times = [child.deadline for child in self._children.values()]
        return min((time for time in [*times, self._wait] if time is not None), default=None)

    def handle(self, event: SidecarEvent, now: float) -> list[SidecarCommand]:
        """Take one event at the time ``now`` (monotonic seconds); the commands, in the order to run them."""
        self._now = now
        match event:
            case Want(plan):
                self._want(plan)
            case ChildReady() | ChildFailed() | ChildExited():
                self._hear(event)
            case ChildPulse(child_id, is_fresh):
                self._take_pulse(child_id, is_fresh)
            case Tick():
                self._act_on_overdue()
            case Stop():
                self._stop(ChildState.LEAVING)
            case QuickStop():
                self._stop(ChildState.KILLED)
        self._reconcile()
        commands, self._commands = self._commands, []
        return commands

    # Events.

    def _want(self, plan: int | None) -> None:
        if not self._stopped and plan != self._wanted:
            self._wanted = plan
            self._failures, self._wait = 0, None

    def _stop(self, state: ChildState) -> None:
        self._wanted, self._wait = None, None
        self._stopped = True
        for child in self._children.values():
            if child.state is not ChildState.KILLED and child.state is not state:
                self._put_away(child, state)

    def _hear(self, event: ChildReady | ChildFailed | ChildExited) -> None:
        child = self._children.get(event.child_id)
        if child is None:
            return
        match event, child.state:
            case ChildReady(), ChildState.BOOTING:
                self._enter(child, ChildState.RUNNING)
            case ChildFailed(why=why), ChildState.BOOTING:
                self._enter(child, ChildState.FAILED)
                self._failed(child, "error", f"did not boot: {why}")
            case ChildExited(how=how), state:
                del self._children[child.id]
                if state is ChildState.BOOTING:
                    self._failed(child, "error", f"did not boot: it {how}")
                elif state is ChildState.RUNNING:
                    self._died(child, how)

    def _take_pulse(self, child_id: int, is_fresh: bool) -> None:
        child = self._children.get(child_id)
        if child is None or child.state is not ChildState.RUNNING:
            return
        if is_fresh:
            child.silent = 0
            return
        if not child.silent:
            child.silent_since = self._now
        child.silent += 1
        if child.silent >= SILENT_PULSES and self._now >= child.silent_since + SILENT_SECONDS:
            self._put_away(child, ChildState.KILLED)
            self._failed(child, "error", f"has been silent for {format_duration(SILENT_SECONDS)} and is killed")

    def _died(self, child: _Child, how: str) -> None:
        lasted = self._now - child.since
        what = f"{how} after {format_duration(round(lasted, 1))}"
        if lasted < HEALTHY_AFTER:
            self._failed(child, "warning", what)
        else:
            if child.plan == self._wanted:
                self._failures = 0
            self._report("warning", what)

    def _failed(self, child: _Child, level: Level, what: str) -> None:
        """A failure of the plan that is wanted holds the next child back; one of another plan only loses its child."""
        if child.plan != self._wanted:
            self._report(level, what)
            return
        pause = min(BACKOFF_FIRST * 2.0 ** min(self._failures, 30), BACKOFF_MOST)
        self._failures += 1
        self._wait = self._now + pause
        old = any(other.state is ChildState.RUNNING for other in self._children.values())
        goes_on = "; the one before goes on" if old else ""
        self._report(level, f"{what}; the next one comes in {format_duration(pause)}{goes_on}")

    def _act_on_overdue(self) -> None:
        if self._wait is not None and self._wait <= self._now:
            self._wait = None
        for child in list(self._children.values()):
            if child.deadline is not None and child.deadline <= self._now:
                self._overdue(child)

    def _overdue(self, child: _Child) -> None:
        state, spent = child.state, format_duration(round(self._now - child.since, 1))
        if state is ChildState.KILLED:
            del self._children[child.id]
            self._report("error", f"cannot be killed, and is left behind after {spent}")
            return
        self._put_away(child, ChildState.KILLED)
        if state is ChildState.BOOTING:
            self._failed(child, "error", f"did not boot: it was not ready within {spent}")
        else:
            self._report("warning", f"did not exit within {spent} and is killed")

    # What should be.

    def _reconcile(self) -> None:
        """Let go what is not wanted, or is replaced, and fork what is missing."""
        wanted = [child for child in self._active() if child.plan == self._wanted]
        replaced = self._wanted is None or any(child.state is ChildState.RUNNING for child in wanted)
        for child in self._active():
            if child not in wanted and (replaced or child.state is ChildState.BOOTING):
                self._put_away(child, ChildState.RETIRING)
        if self._wanted is not None and not wanted and self._wait is None:
            self._fork(self._wanted)

    def _active(self) -> list[_Child]:
        serving = (ChildState.BOOTING, ChildState.RUNNING)
        return [child for child in self._children.values() if child.state in serving]

    # Steps.

    def _fork(self, plan: int) -> None:
        self._last_id += 1
        child = _Child(self._last_id, plan, ChildState.BOOTING, self._now, None)
        self._enter(child, ChildState.BOOTING)
        self._children[child.id] = child
        self._commands.append(ForkChild(child.id, plan))

    def _put_away(self, child: _Child, state: ChildState) -> None:
        self._enter(child, state)
        match state:
            case ChildState.KILLED:
                self._commands.append(KillChild(child.id))
            case ChildState.RETIRING:
                self._commands.append(TellChild(child.id, DrainReason.RETIRE))
            case _:
                self._commands.append(TellChild(child.id, DrainReason.STOP))

    def _enter(self, child: _Child, state: ChildState) -> None:
        limit = _LIMITS[state]
        child.state = state
        child.since = self._now
        child.deadline = None if limit is None else self._now + limit

    def _report(self, level: Level, what: str) -> None:
        self._commands.append(Report(level, f"the {self._name} process {what}"))
