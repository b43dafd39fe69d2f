"""The desk: what is asked over the control socket, as events for the fleet, and the answers.

Who asks for a reload and waits is answered when that is decided: with its generation, or with what has failed. A reload
that another one replaces before it has begun is decided by that. It is complete when no older worker is left and as
many newer ones serve as there should be. Where those die one after the other it may never be: HOPELESS of them in a
row are taken for its end. A recycling that is waited for goes by the same rules.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from asgiri.supervisor.crew import WorkerState
from asgiri.supervisor.messages import Event, Recycle, Resize
from asgiri.supervisor.verbs import (
    AskDrain,
    AskLoglevel,
    AskRecycle,
    AskReload,
    AskReopen,
    AskScale,
    AskStacks,
    AskStatus,
    AskStop,
    Request,
    ServiceStatus,
)

if TYPE_CHECKING:
    from asgiri.config.changes import Change
    from asgiri.supervisor.children import Child
    from asgiri.supervisor.control import Call
    from asgiri.supervisor.fleet import Fleet
    from asgiri.supervisor.inquiry import Inquiries
    from asgiri.supervisor.loudness import Loudness
    from asgiri.supervisor.scoreboard import Scoreboard

# So many failures of the current generation in a row, and nobody should wait for it any more.
HOPELESS: Final = 3


class Means(Struct, frozen=True, eq=False):
    """What the desk has of its master.

    ``reload`` begins one, and returns why not, and events; ``stop``, ``drain``, ``status`` and ``reopen`` do what they
    say. Once ``is_stopping``, nothing can be asked that a service which goes would not do, or would look well again by.
    ``trouble`` is what was last said to be wrong with a worker of a generation; ``level`` the config's log level.
    """

    board: Scoreboard
    fleet: Fleet
    children: Callable[[], Iterable[Child]]
    reload: Callable[[str], tuple[str, list[Event]]]
    stop: Callable[[str], list[Event]]
    drain: Callable[[bool], None]
    reopen: Callable[[str], None]
    status: Callable[[], ServiceStatus]
    is_stopping: Callable[[], bool]
    trouble: Callable[[int], str]
    level: Callable[[], str]


class Settling(Struct, frozen=True):
    """A generation that has the fleet for itself; ``changes`` are those of its config."""

    generation: int
    changes: Sequence[Change]

    def result(self) -> dict[str, object]:
        return {
            "generation": self.generation,
            "changed": [str(change) for change in self.changes if not change.stays],
            "stays": [str(change) for change in self.changes if change.stays],
        }


class Desk:
    """Answers calls, at once or when :meth:`look` finds that what they wait for has happened."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._submitted: list[Call] = []  # they wait for a reload that has no number yet
        self._begun: dict[int, list[Call]] = {}  # by generation
        self._settling: Settling | None = None
        self._recycled: list[tuple[Call, frozenset[int]]] = []  # with the ids of the workers that are to go
        self._inquiries: Inquiries | None = None
        self._loudness: Loudness | None = None

    def answer(self, request: Request, call: Call) -> Iterable[Event]:
        means = self._means
        match request:
            case AskStatus():
                call.reply(means.status())
            case AskStacks(worker):
                self._answer_stacks(call, worker)
            case AskReopen():
                means.reopen("asgirictl")
                call.reply({})
            case AskLoglevel():
                self._answer_level(call, request)
            case AskReload(wait):
                return self._answer_reload(call, wait)
            case AskScale() | AskRecycle() | AskDrain() if means.is_stopping():
                call.fail("the service stops")
            case AskScale(count):
                call.reply({"count": count})
                return [Resize(count)]
            case AskRecycle(wait):
                return self._answer_recycle(call, wait)
            case AskDrain(off):
                means.drain(not off)
                call.reply({"draining": not off})
            case AskStop():
                call.reply({})
                return means.stop("asgirictl")
        return []

    # Reloads and recycling.

    def _answer_reload(self, call: Call, wait: bool) -> list[Event]:
        refused, events = self._means.reload("asgirictl")
        if refused:
            call.fail(refused)
        elif wait:
            self._submitted.append(call)
        else:
            call.reply({})
        return events

    def _answer_recycle(self, call: Call, wait: bool) -> list[Event]:
        if wait:
            workers = self._means.fleet.workers.values()
            going = frozenset(worker.id for worker in workers if worker.state is WorkerState.READY)
            self._recycled.append((call, going))
        else:
            call.reply({})
        return [Recycle()]

    def note_begun(self, generation: int) -> None:
        """The newest reload has this number."""
        if self._submitted:
            self._begun[generation] = self._submitted
            self._submitted = []

    def note_failed(self, generation: int, why: str, trace: str) -> None:
        for call in self._begun.pop(generation, []):
            call.fail(f"the reload failed: {why}", trace)

    def note_settled(self, generation: int, changes: Sequence[Change]) -> None:
        """No older worker is left."""
        self._settling = Settling(generation, changes)

    def note_stop(self) -> None:
        """What is waited for will not be any more."""
        waiting = [*self._submitted, *(call for calls in self._begun.values() for call in calls)]
        for call in [*waiting, *(call for call, _ in self._recycled)]:
            call.fail("the service stops")
        self._submitted, self._begun, self._recycled = [], {}, []

    def look(self) -> None:
        """Something has happened: is what somebody waits for decided?"""
        if self._begun or self._recycled or self._settling is not None:
            fleet = self._means.fleet
            if fleet.failures >= HOPELESS:
                self._give_up()
            elif not fleet.failures and self._ready() >= fleet.count:
                self._answer_settled()
                self._answer_recycled()

    def _ready(self) -> int:
        return sum(worker.state is WorkerState.READY for worker in self._means.fleet.workers.values())

    def _answer_settled(self) -> None:
        settling, self._settling = self._settling, None
        if settling is not None:
            for call in self._waiting(settling.generation):
                call.reply(settling.result())

    def _answer_recycled(self) -> None:
        """Those whose workers are all gone, and replaced."""
        waits, self._recycled = self._recycled, []
        for call, going in waits:
            if going.isdisjoint(self._means.fleet.workers):
                call.reply({"replaced": len(going)})
            else:
                self._recycled.append((call, going))

    def _give_up(self) -> None:
        """The workers of the current generation die as they come. It is tried again and again, but not waited for."""
        generation = self._means.fleet.generation
        said = self._means.trouble(generation)
        why = f"generation {generation} does not stay up, {HOPELESS} of its workers in a row have failed"
        why = f"{why}; the last one: {said}" if said else why
        for call in self._waiting(generation):
            call.fail(f"the reload is not complete: {why}")
        for call, _ in self._recycled:
            call.fail(f"the recycling is not complete: {why}")
        self._recycled, self._settling = [], None

    def _waiting(self, generation: int) -> Iterator[Call]:
        """Those who wait for this generation or one before it, which by now wait no more."""
        for number in [number for number in self._begun if number <= generation]:
            yield from self._begun.pop(number)

    # Stacks.

    def _answer_stacks(self, call: Call, number: int | None) -> None:
        workers = [child for child in self._means.children() if child.is_worker]
        chosen = [child for child in workers if number in (None, child.role.number)]
        if not chosen and number is not None:
            there = ", ".join(str(one) for one in sorted({child.role.number for child in workers}))
            call.fail(f"there is no worker {number}; there {f'are {there}' if ',' in there else f'is {there or None}'}")
            return
        if self._inquiries is None:
            from asgiri.supervisor.inquiry import Inquiries  # a service that nobody asks has no need for it

            self._inquiries = Inquiries()
        self._inquiries.begin(chosen, call, time.monotonic())

    def deadline(self) -> float | None:
        """When :meth:`tick` is due, in monotonic seconds."""
        return None if self._inquiries is None else self._inquiries.deadline(time.monotonic())

    def tick(self, now: float) -> None:
        if self._inquiries is not None:
            self._inquiries.look(now)

    def note_end(self, child: Child) -> None:
        """It is reaped, and about to be forgotten."""
        if self._inquiries is not None:
            self._inquiries.note_end(child)

    # The log level.

    def _answer_level(self, call: Call, asked: AskLoglevel) -> None:
        if self._loudness is None:
            from asgiri.supervisor.loudness import Loudness

            self._loudness = Loudness(self._means.board, self._means.level(), self._means.children)
        try:
            call.reply(self._loudness.answer(asked))
        except ValueError as error:
            call.fail(str(error))

    @property
    def level(self) -> str:
        """The log level in effect."""
        return self._means.level() if self._loudness is None else self._loudness.level

    def take_level(self, configured: str) -> None:
        """A config is in effect, and applied to the master."""
        if self._loudness is not None:
            self._loudness.take(configured)
