"""The policy of the admin child, by transcripts (at this time, on this event, these commands) and by a random walk.

Children get the ids 1, 2, 3 ... in the order of their forks, which read ``ForkChild(id, plan)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asgiri.supervisor.messages import DrainReason, Level, QuickStop, Report, Stop, Tick
from asgiri.supervisor.sidecar import (
    BACKOFF_FIRST,
    BACKOFF_MOST,
    BOOT_SECONDS,
    HEALTHY_AFTER,
    KILL_SECONDS,
    LEAVE_SECONDS,
    RETIRE_SECONDS,
    SILENT_PULSES,
    SILENT_SECONDS,
    ChildExited,
    ChildFailed,
    ChildPulse,
    ChildReady,
    ForkChild,
    KillChild,
    Sidecar,
    SidecarCommand,
    SidecarEvent,
    TellChild,
    Want,
)

RETIRE, STOP = DrainReason.RETIRE, DrainReason.STOP

KILLED_9 = "was killed by SIGKILL"
STATUS_0 = "exited with status 0"


class Says:
    """Equal to a Report of this level with all these parts in its text."""

    def __init__(self, level: Level, *parts: str) -> None:
        self.level = level
        self.parts = parts

    def __repr__(self) -> str:
        return f"Says({self.level!r}, {self.parts!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Report):
            return NotImplemented
        return other.level == self.level and all(part in other.text for part in self.parts)

    __hash__ = None  # type: ignore[assignment]


Line = tuple[float, SidecarEvent, Sequence[SidecarCommand | Says]]


def play(sidecar: Sidecar, *lines: Line) -> None:
    """Play the transcript. A Tick must be due at its very time; no line may skip one that was due before."""
    for at, event, expected in lines:
        now, due = at, sidecar.deadline()
        if isinstance(event, Tick):
            assert due is not None, f"no tick is due at {at}"
            assert due == pytest.approx(at)
            now = due
        else:
            assert due is None or due >= at, f"a tick was due at {due}, before {event} at {at}"
        assert sidecar.handle(event, now) == list(expected), f"at {at}, on {event}"


def gone(sidecar: Sidecar) -> bool:
    """A call, so that mypy does not take one answer for the next."""
    return sidecar.is_gone


def running(plan: int = 1) -> Sidecar:
    """One child, with the id 1, ready at 0."""
    sidecar = Sidecar("admin")
    play(sidecar, (0, Want(plan), [ForkChild(1, plan)]), (0, ChildReady(1), []))
    return sidecar


def test_none_is_wanted() -> None:
    sidecar = Sidecar("admin")
    play(sidecar, (0, Want(None), []), (1, Stop(), []))
    assert gone(sidecar)
    assert sidecar.deadline() is None
    assert sidecar.plans == set()


def test_a_child_comes_and_goes_with_the_service() -> None:
    sidecar = running()
    assert sidecar.deadline() is None
    play(sidecar, (100, Stop(), [TellChild(1, STOP)]))
    assert not gone(sidecar)
    play(sidecar, (100.2, ChildExited(1, STATUS_0), []))
    assert gone(sidecar)
    play(sidecar, (101, Want(2), []), (102, Stop(), []))  # a stop is final


def test_one_that_hangs_is_killed_and_another_one_comes() -> None:
    sidecar = running()
    for second in range(10):
        play(sidecar, (second, ChildPulse(1, False), []))
    play(sidecar, (9.5, ChildPulse(1, True), []))  # it was only busy
    for half in range(20):  # a master that a watchdog looks after looks more often
        play(sidecar, (10 + half / 2, ChildPulse(1, False), []))
    play(
        sidecar,
        (20, ChildPulse(1, False), [KillChild(1), Says("error", "silent for 10s and is killed", "comes in 100ms")]),
        (20.05, ChildExited(1, KILLED_9), []),
        (20.1, Tick(), [ForkChild(2, 1)]),
        (20.2, ChildPulse(1, False), []),
        (20.3, ChildReady(2), []),
        (21, ChildPulse(2, True), []),
    )


def test_a_master_that_was_asleep_looks_some_times_before_it_blames_anybody() -> None:
    sidecar = running()
    play(sidecar, (1, ChildPulse(1, False), []))
    for pulse in range(SILENT_PULSES - 2):
        play(sidecar, (1 + 100 * SILENT_SECONDS + pulse, ChildPulse(1, False), []))
    play(sidecar, (1006, ChildPulse(1, True), []))


def test_one_that_boots_or_goes_need_not_beat() -> None:
    sidecar = Sidecar("admin")
    play(sidecar, (0, Want(1), [ForkChild(1, 1)]), *((at, ChildPulse(1, False), []) for at in range(1, 19)))
    play(sidecar, (19, ChildReady(1), []), (20, Stop(), [TellChild(1, STOP)]))
    play(sidecar, *((20 + LEAVE_SECONDS * at / 20, ChildPulse(1, False), []) for at in range(20)))


def test_what_is_wanted_already_is_no_news() -> None:
    play(running(), (5, Want(1), []))


def test_one_that_is_wanted_no_more_goes() -> None:
    sidecar = running()
    play(sidecar, (5, Want(None), [TellChild(1, RETIRE)]))
    assert sidecar.plans == {1}  # its listener is in use until it is gone
    play(sidecar, (6, ChildExited(1, STATUS_0), []))
    assert sidecar.plans == set()
    play(sidecar, (7, Want(3), [ForkChild(2, 3)]))


def test_the_new_one_is_ready_before_the_old_one_goes() -> None:
    sidecar = running()
    play(sidecar, (5, Want(2), [ForkChild(2, 2)]))
    assert sidecar.plans == {1, 2}
    play(sidecar, (6, ChildReady(2), [TellChild(1, RETIRE)]), (6.1, ChildExited(1, STATUS_0), []))
    assert sidecar.plans == {2}


def test_a_new_one_that_fails_leaves_the_old_one_and_is_tried_again() -> None:
    sidecar = running()
    play(
        sidecar,
        (5, Want(2), [ForkChild(2, 2)]),
        (
            6,
            ChildFailed(2, "no such user"),
            [Says("error", "admin", "no such user", "100ms", "the one before goes on")],
        ),
        (6, ChildExited(2, "exited with status 2"), []),
        (6.1, Tick(), [ForkChild(3, 2)]),
        (7, ChildExited(3, KILLED_9), [Says("error", "did not boot: it was killed by SIGKILL", "200ms")]),
    )
    assert sidecar.plans == {1, 2}
    # back to what it was: nothing is to be done
    play(sidecar, (7.1, Want(1), []))
    assert sidecar.plans == {1}
    assert sidecar.deadline() is None


def test_the_old_one_dies_while_the_new_one_boots() -> None:
    play(
        running(),
        (5, Want(2), [ForkChild(2, 2)]),
        (6, ChildExited(1, KILLED_9), [Says("warning", KILLED_9)]),
        (7, ChildReady(2), []),
    )


def test_one_that_still_boots_is_not_waited_for_when_another_is_wanted() -> None:
    play(
        Sidecar("admin"),
        (0, Want(1), [ForkChild(1, 1)]),
        (1, Want(2), [TellChild(1, RETIRE), ForkChild(2, 2)]),
        (1.1, ChildReady(1), []),  # too late
        (1.2, ChildReady(2), []),
        (1.3, ChildExited(1, STATUS_0), []),
    )


def test_the_pause_doubles_and_a_new_plan_ends_it() -> None:
    sidecar = Sidecar("admin")
    play(sidecar, (0, Want(1), [ForkChild(1, 1)]))
    now, pauses = 0.0, []
    for child in range(1, 12):
        [report] = sidecar.handle(ChildExited(child, "could not be forked: no memory"), now)
        assert isinstance(report, Report)
        assert (report.level, sidecar.is_gone) == ("error", True)
        due = sidecar.deadline()
        assert due is not None
        pauses.append(round(due - now, 6))
        now = due
        assert sidecar.handle(Tick(), now) == [ForkChild(child + 1, 1)]
    assert pauses[:4] == [BACKOFF_FIRST, 0.2, 0.4, 0.8]
    assert pauses[-2:] == [BACKOFF_MOST, BACKOFF_MOST]
    play(
        sidecar,
        (now, ChildExited(12, KILLED_9), [Says("error", "10s")]),
        (now + 1, Want(2), [ForkChild(13, 2)]),
        (now + 2, ChildExited(13, KILLED_9), [Says("error", "100ms")]),
    )


def test_ten_seconds_of_health_end_a_row_of_failures() -> None:
    sidecar = running()
    play(
        sidecar,
        (1, ChildExited(1, KILLED_9), [Says("warning", "admin process was killed by SIGKILL after 1s", "100ms")]),
        (1.1, Tick(), [ForkChild(2, 1)]),
        (2, ChildReady(2), []),
        (3, ChildExited(2, KILLED_9), [Says("warning", "200ms")]),
        (3.2, Tick(), [ForkChild(3, 1)]),
        (4, ChildReady(3), []),
        (4 + HEALTHY_AFTER, ChildExited(3, KILLED_9), [Says("warning", "after 10s"), ForkChild(4, 1)]),
        (20, ChildExited(4, KILLED_9), [Says("error", "100ms")]),
    )


def test_a_boot_that_hangs_is_killed() -> None:
    play(
        Sidecar("admin"),
        (0, Want(1), [ForkChild(1, 1)]),
        (BOOT_SECONDS, Tick(), [KillChild(1), Says("error", "not ready within 20s", "100ms")]),
        (BOOT_SECONDS + 0.05, ChildExited(1, KILLED_9), []),
        (BOOT_SECONDS + BACKOFF_FIRST, Tick(), [ForkChild(2, 1)]),
    )


def test_one_that_says_it_failed_and_stays_is_killed() -> None:
    sidecar = Sidecar("admin")
    play(sidecar, (0, Want(1), [ForkChild(1, 1)]), (1, ChildFailed(1, "why"), [Says("error", "why")]))
    play(sidecar, (1.1, Tick(), [ForkChild(2, 1)]), (1.2, ChildReady(2), []))
    play(sidecar, (1 + LEAVE_SECONDS, Tick(), [KillChild(1), Says("warning", "did not exit within 1s500ms")]))


@pytest.mark.parametrize("ready", [False, True])
def test_a_stop_is_never_held_up(ready: bool) -> None:
    sidecar = Sidecar("admin")
    play(sidecar, (0, Want(1), [ForkChild(1, 1)]))
    if ready:
        play(sidecar, (0, ChildReady(1), []))
    play(
        sidecar,
        (10, Stop(), [TellChild(1, STOP)]),
        (10.1, Stop(), []),  # no news, and no new deadline
        (10 + LEAVE_SECONDS, Tick(), [KillChild(1), Says("warning", "is killed")]),
    )
    assert not gone(sidecar)
    play(sidecar, (10 + LEAVE_SECONDS + KILL_SECONDS, Tick(), [Says("error", "left behind")]))
    assert gone(sidecar)
    play(sidecar, (20, ChildExited(1, KILLED_9), []))


def test_one_that_is_replaced_has_its_time_until_the_stop() -> None:
    sidecar = running()
    play(
        sidecar,
        (5, Want(2), [ForkChild(2, 2)]),
        (6, ChildReady(2), [TellChild(1, RETIRE)]),
        (6 + RETIRE_SECONDS, Tick(), [KillChild(1), Says("warning", "did not exit within 5s")]),
        (11.1, ChildExited(1, KILLED_9), []),
        (12, Want(3), [ForkChild(3, 3)]),
        (13, ChildReady(3), [TellChild(2, RETIRE)]),
        (14, Stop(), [TellChild(2, STOP), TellChild(3, STOP)]),
    )
    assert sidecar.deadline() == 14 + LEAVE_SECONDS


def test_a_quick_stop_kills() -> None:
    sidecar = running()
    play(sidecar, (5, Want(2), [ForkChild(2, 2)]), (6, Stop(), [TellChild(1, STOP), TellChild(2, STOP)]))
    play(sidecar, (6.1, QuickStop(), [KillChild(1), KillChild(2)]), (6.2, QuickStop(), []))
    play(sidecar, (6.3, ChildExited(1, KILLED_9), []), (6.3, ChildExited(2, KILLED_9), []))
    assert gone(sidecar)


def test_a_stop_while_the_next_one_waits() -> None:
    sidecar = running()
    play(sidecar, (1, ChildExited(1, KILLED_9), [Says("warning", "100ms")]), (1.05, Stop(), []))
    assert gone(sidecar)
    assert sidecar.deadline() is None


class Walk(RuleBasedStateMachine):
    """Whatever happens in whatever order: a master that obeys, and children that do as they like."""

    def __init__(self) -> None:
        super().__init__()
        self.sidecar = Sidecar("admin")
        self.now = 0.0
        self.wanted: int | None = None
        self.stopped_at: float | None = None
        self.alive: dict[int, int] = {}  # id -> plan
        self.ready: set[int] = set()  # and not told to go since

    def feed(self, event: SidecarEvent) -> None:
        serving = [child for child in self.ready if child in self.alive]
        for command in self.sidecar.handle(event, self.now):
            match command:
                case ForkChild(child_id, plan):
                    assert self.stopped_at is None
                    assert plan == self.wanted
                    self.alive[child_id] = plan
                case TellChild(child_id) | KillChild(child_id):
                    assert child_id in self.alive
                    self.ready.discard(child_id)
                case _:
                    pass
        if serving and self.wanted is not None:
            left = [child for child in self.ready if child in self.alive]
            assert left or isinstance(event, ChildExited | ChildPulse), "none serves where one did"

    @rule(seconds=st.floats(0, 12))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.sidecar.deadline()) is not None and due <= end:
            assert due >= self.now
            self.now = due
            self.feed(Tick())
            assert self.sidecar.deadline() != due, "a tick that changes nothing would spin"
        self.now = end

    @rule(plan=st.sampled_from([None, 1, 2, 3]))
    def want(self, plan: int | None) -> None:
        if self.stopped_at is None:
            self.wanted = plan
        self.feed(Want(plan))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def a_child_gets_ready(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from(sorted(self.alive)))
        self.ready.add(child)
        self.feed(ChildReady(child))
        self.ready &= {child for child in self.ready if self.counts(child)}

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), says=st.booleans())
    def a_child_ends(self, data: st.DataObject, says: bool) -> None:
        child = data.draw(st.sampled_from(sorted(self.alive)))
        if says:
            self.feed(ChildFailed(child, "it cannot"))
        del self.alive[child]
        self.feed(ChildExited(child, STATUS_0))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), silent=st.integers(1, 2 * SILENT_PULSES))
    def a_child_is_silent(self, data: st.DataObject, silent: int) -> None:
        child = data.draw(st.sampled_from(sorted(self.alive)))
        for _ in range(silent):
            self.feed(ChildPulse(child, False))

    def counts(self, child: int) -> bool:
        return any(one.id == child and one.state.name == "RUNNING" for one in self.sidecar._children.values())

    @precondition(lambda self: self.now > 30)  # or most walks would be short ones
    @rule(quick=st.booleans())
    def stop(self, quick: bool) -> None:
        if self.stopped_at is None:
            self.stopped_at = self.now
        self.wanted = None
        self.feed(QuickStop() if quick else Stop())

    @invariant()
    def something_serves_boots_or_waits_when_wanted(self) -> None:
        if self.wanted is not None:
            mine = [one for one in self.sidecar._children.values() if one.plan == self.wanted]
            active = [one for one in mine if one.state.name in ("BOOTING", "RUNNING")]
            assert len(active) == 1 or (not active and self.sidecar.deadline() is not None)

    @invariant()
    def a_stop_takes_two_seconds_at_most(self) -> None:
        if self.stopped_at is not None and self.now > self.stopped_at + LEAVE_SECONDS + 2 * KILL_SECONDS:
            assert gone(self.sidecar)


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
