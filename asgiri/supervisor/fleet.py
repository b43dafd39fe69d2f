"""The policy of the supervisor, sans-I/O: events and a time go in, commands come out.

The fleet decides which workers there should be; the master owns the processes. Nothing here knows a pid, a
file descriptor, a signal number, a clock or a log. The master calls ``handle(event, now)`` for all that
happens, runs the commands it gets in their order, and feeds a ``Tick`` at ``deadline()``. Times are seconds
of one monotonic clock.

The life of a worker: what it, its deadline and the fleet's wishes do to it. Where the table is empty nothing
happens; a late event is no error. Where it names a signal the worker becomes KILLED.

    state     Ready    Failed    Exited  deadline  retire         Stop           QuickStop
    BOOTING   READY    FAILED    gone    KILL      TERM           TERM           QUIT
    READY                        gone              DRAINING       DRAINING       QUIT
    DRAINING                     gone    KILL                     told again     QUIT
    FAILED                       gone    KILL                                    QUIT
    KILLED    DRAINING*          gone    KILL                                    QUIT, if it was TERM

    * after a TERM: it was READY before that came, and drains

What follows from a boot that did not end in READY, or from an exit that nobody asked for:

    while STARTING             the fleet stops, with ExitCode.APP (FAILED when it could not be forked)
    of the candidate           Abandon: the current generation goes on
    of the current generation  another takes its number: at once if it was READY for HEALTHY_AFTER seconds,
                               else after the backoff
    of an older generation     its number goes to the current generation

The life of the fleet: NEW -Start-> STARTING -first Ready-> RUNNING -stop-> STOPPING -last exit-> GONE; a stop
is heard in NEW and STARTING too.

After each event ``_reconcile`` compares what is with what should be, so no path can forget a step.
docs/design/fleet.md tells the same at length.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING

from asgiri.errors import ExitCode
from asgiri.supervisor.messages import (
    Abandon,
    Announce,
    Command,
    Commit,
    Drain,
    DrainReason,
    Event,
    Exit,
    Exited,
    Failed,
    Fork,
    Kill,
    KillHow,
    Level,
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
from asgiri.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

DRAIN_GRACE = 2.0  # seconds a drain may overrun: the worker cuts what is left at drain_timeout by itself
QUICK_GRACE = 2.0  # seconds from TERM or QUIT, or from a worker's own word that it failed, to KILL
HEALTHY_AFTER = 10.0  # seconds of READY after which a worker counts as healthy


class WorkerState(Enum):
    BOOTING = auto()  # forked, not yet READY
    READY = auto()  # serving
    DRAINING = auto()  # asked to finish
    FAILED = auto()  # said itself that it cannot boot; exit awaited
    KILLED = auto()  # signal sent; exit awaited


class Phase(Enum):
    NEW = auto()  # before Start
    STARTING = auto()  # no worker has ever been READY: a failure is the end
    RUNNING = auto()  # never left but by a stop, however many workers fail
    STOPPING = auto()  # nothing is forked any more
    GONE = auto()  # Exit was given; nothing is heard any more


@dataclass(slots=True)
class Worker:
    """The parent's view of one worker: in ``state`` since ``since``, forked at ``born``."""

    id: int  # unique as long as the fleet lives
    number: int  # what people see; an old worker and its replacement share one
    generation: int
    policy: Policy  # the one it was forked under
    state: WorkerState
    since: float
    born: float
    deadline: float | None = None  # when it is overdue in this state
    sent: KillHow | None = None  # the last signal

    def __str__(self) -> str:
        return f"worker {self.number} gen {self.generation}"


@dataclass(frozen=True, slots=True)
class _Generation:
    number: int
    policy: Policy


@dataclass(slots=True)
class _Backoff:
    """Failures in a row of the current generation, and the numbers that wait for their next worker."""

    failures: int = 0
    failed_at: float = 0.0
    waits: dict[int, float] = field(default_factory=dict)  # number -> when it may be forked

    def failed(self, number: int, policy: Policy, now: float) -> float:
        """Count one failure more; the seconds that ``number`` waits for it."""
        doublings = min(self.failures, 62)  # as a float, far more than any duration
        wait = min(policy.backoff_first * 2.0**doublings, policy.backoff_most)
        self.failures += 1
        self.failed_at = now
        self.waits[number] = now + wait
        return wait

    def note_health(self, healthy_at: float, now: float) -> None:
        """A worker became, or will become, healthy at that time: it ends the row of failures before it."""
        if self.failed_at < healthy_at <= now:
            self.failures = 0

    def forget_passed(self, now: float) -> None:
        self.waits = {number: until for number, until in self.waits.items() if until > now}


class Fleet:
    """The state machine. One per master; not thread-safe, never blocks, never raises on an event."""

    def __init__(self, policy: Policy) -> None:
        self._phase = Phase.NEW
        self._now = 0.0  # the time of the event in hand
        self._commands: list[Command] = []  # what came out of it so far
        self._workers: dict[int, Worker] = {}  # in order of birth
        self._last_id = 0
        self._current = _Generation(1, policy)
        self._candidate: _Generation | None = None
        self._queued: Policy | None = None  # the newest reload that has not begun
        self._last_generation = 1  # an abandoned number is not used again
        self._settled = 1  # the last generation that had the fleet for itself
        self._backoff = _Backoff()
        self._announced = False
        self._exit_code = ExitCode.STOPPED

    @property
    def workers(self) -> Mapping[int, Worker]:
        """The workers that were forked and not yet reaped, by id, oldest first; a live, read-only view."""
        return MappingProxyType(self._workers)

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def generation(self) -> int:
        """The number of the current generation: the newest that was committed."""
        return self._current.number

    @property
    def candidate(self) -> int | None:
        """The number of the generation whose first worker is booting, if any."""
        return None if self._candidate is None else self._candidate.number

    @property
    def count(self) -> int:
        """How many workers there should be."""
        return self._current.policy.count

    def deadline(self) -> float | None:
        """When the next ``Tick`` is due, in the clock of ``now``; None: not before another event."""
        times = [worker.deadline for worker in self._workers.values() if worker.deadline is not None]
        return min([*times, *self._backoff.waits.values()], default=None)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at the time ``now`` (monotonic seconds); the commands, in the order to run them."""
        self._now = now
        self._note_health()
        match event:
            case Start():
                self._start()
            case Ready() | Failed() | Exited():
                self._hear_worker(event)
            case Reload():
                self._queue_reload(event.policy)
            case Scale():
                self._scale(event.by)
            case Stop():
                self._stop(ExitCode.STOPPED)
            case QuickStop():
                self._quick_stop()
            case Tick():
                self._act_on_overdue()
        self._reconcile()
        commands, self._commands = self._commands, []
        return commands

    # What the master asks for.

    def _start(self) -> None:
        if self._phase is Phase.NEW:
            self._phase = Phase.STARTING  # and _reconcile fills it

    def _queue_reload(self, policy: Policy) -> None:
        if self._is_over():
            return
        self._queued = policy
        if not self._may_begin():
            self._report("info", "the reload is kept until what is under way lets it begin")

    def _scale(self, by: int) -> None:
        """The later word wins: a reload that is under way, or waits, comes with its own count scaled too."""
        self._current = replace(self._current, policy=self._current.policy.scaled(by))
        if self._candidate is not None:
            self._candidate = replace(self._candidate, policy=self._candidate.policy.scaled(by))
        if self._queued is not None:
            self._queued = self._queued.scaled(by)

    def _stop(self, code: ExitCode) -> None:
        if self._is_over():
            return
        self._enter_stopping(code)
        for worker in self._workers.values():
            match worker.state:
                case WorkerState.BOOTING:
                    self._kill(worker, KillHow.TERM)
                case WorkerState.READY | WorkerState.DRAINING:
                    self._drain(worker, DrainReason.STOP)
                case WorkerState.FAILED | WorkerState.KILLED:
                    pass

    def _quick_stop(self) -> None:
        if not self._is_over():
            self._enter_stopping(ExitCode.STOPPED)
        for worker in self._workers.values():
            if worker.sent in (None, KillHow.TERM):
                self._kill(worker, KillHow.QUIT)

    def _enter_stopping(self, code: ExitCode) -> None:
        self._phase = Phase.STOPPING
        self._exit_code = code
        self._candidate = self._queued = None
        self._backoff = _Backoff()

    # What the workers do.

    def _hear_worker(self, event: Ready | Failed | Exited) -> None:
        worker = self._workers.get(event.worker_id)
        if worker is None:
            return
        match event, worker.state:
            case Ready(), WorkerState.BOOTING:
                self._became_ready(worker)
            case Ready(), WorkerState.KILLED if worker.sent is KillHow.TERM:
                # It serves already: its TERM begins a drain, which is to have its time.
                self._enter(worker, WorkerState.DRAINING, self._drain_limit(worker))
            case Failed(why=why), WorkerState.BOOTING:
                self._enter(worker, WorkerState.FAILED, QUICK_GRACE)
                self._boot_failed(worker, why)
            case Exited(how=how, forked=forked), state:
                del self._workers[worker.id]
                if state is WorkerState.BOOTING:
                    self._boot_failed(worker, f"it {how}", ExitCode.APP if forked else ExitCode.FAILED)
                elif state is WorkerState.READY:
                    self._died(worker, how)

    def _became_ready(self, worker: Worker) -> None:
        self._enter(worker, WorkerState.READY)
        if self._phase is Phase.STARTING:
            self._phase = Phase.RUNNING
        if self._candidate is not None and worker.generation == self._candidate.number:
            self._current, self._candidate = self._candidate, None
            self._backoff = _Backoff()
            self._commands.append(Commit(worker.generation))

    def _boot_failed(self, worker: Worker, why: str, code: ExitCode = ExitCode.APP) -> None:
        if self._phase is Phase.STARTING:
            self._report("error", f"{worker} did not boot: {why}")
            self._stop(code)
        elif self._candidate is not None and worker.generation == self._candidate.number:
            self._candidate = None
            self._commands.append(Abandon(worker.generation, why))
        else:
            self._report("error", f"{worker} did not boot: {why}{self._back_off(worker)}")

    def _died(self, worker: Worker, how: str) -> None:
        young = self._now - worker.since < HEALTHY_AFTER
        age = format_duration(round(self._now - worker.born, 1))
        penalty = self._back_off(worker) if young and not self._is_old(worker) else ""
        self._report("warning", f"{worker} {how} at the age of {age}{penalty}")

    def _back_off(self, worker: Worker) -> str:
        wait = self._backoff.failed(worker.number, self._current.policy, self._now)
        return f"; backing off for {format_duration(wait)}"

    def _note_health(self) -> None:
        """Seen before each event, so no worker leaves READY unnoticed; only the next failure asks for it."""
        for worker in self._ready():
            if not self._is_old(worker):
                self._backoff.note_health(worker.since + HEALTHY_AFTER, self._now)

    # What time does.

    def _act_on_overdue(self) -> None:
        for worker in self._workers.values():
            if worker.deadline is not None and worker.deadline <= self._now:
                self._overdue(worker)

    def _overdue(self, worker: Worker) -> None:
        state, spent = worker.state, format_duration(round(self._now - worker.since, 1))
        self._kill(worker, KillHow.KILL)
        match state:
            case WorkerState.BOOTING:
                self._boot_failed(worker, f"it was not ready within {spent}")
            case WorkerState.DRAINING:
                self._report("warning", f"{worker} was still draining after {spent} and is killed")
            case WorkerState.FAILED | WorkerState.KILLED:
                self._report("warning", f"{worker} did not exit within {spent} and is killed")
            case WorkerState.READY:  # has no deadline
                pass

    # What should be, step by step.

    def _reconcile(self) -> None:
        match self._phase:
            case Phase.STARTING | Phase.RUNNING:
                self._backoff.forget_passed(self._now)
                self._retire_replaced()
                self._retire_surplus()
                self._fill()
                self._begin_reload()
                self._replace_next()
                self._tell_milestones()
            case Phase.STOPPING if not self._workers:
                self._phase = Phase.GONE
                self._commands.append(Exit(self._exit_code))
            case _:
                pass

    def _retire_replaced(self) -> None:
        """Let the old go whose number is taken over; an old one that still boots is of no use to anybody."""
        renewed = {worker.number for worker in self._ready() if not self._is_old(worker)}
        for worker in self._active():
            if not self._is_old(worker):
                continue
            if worker.state is WorkerState.BOOTING:
                self._kill(worker, KillHow.TERM)
            elif worker.number in renewed:
                self._drain(worker, DrainReason.RETIRE)

    def _retire_surplus(self) -> None:
        """Let go what is numbered over the count, but never so that fewer than the count are READY."""
        over = [w for w in self._active() if w.number > self.count and not self._is_candidate(w)]
        for worker in over:
            if worker.state is WorkerState.BOOTING:
                self._kill(worker, KillHow.TERM)
        serving = [worker for worker in over if worker.state is WorkerState.READY]
        serving.sort(key=lambda worker: (worker.generation, -worker.number))
        for worker in serving[: max(0, len(self._ready()) - self.count)]:
            self._drain(worker, DrainReason.RETIRE)

    def _fill(self) -> None:
        """Give each number that has nobody a worker of the current generation, unless it is backing off."""
        for number in self._vacant():
            if number not in self._backoff.waits and self._has_room():
                self._fork(number, self._current)

    def _begin_reload(self) -> None:
        if self._queued is None or not self._may_begin():
            return
        policy, self._queued = self._queued, None
        self._last_generation += 1
        self._candidate = _Generation(self._last_generation, policy)
        self._fork(self._number_for_candidate(policy.count), self._candidate)

    def _may_begin(self) -> bool:
        """A roll finishes first, unless the generation it rolls to is failing: a reload may be the cure."""
        if self._phase is not Phase.RUNNING or self._candidate is not None or not self._has_room():
            return False
        return self._backoff.failures > 0 or not any(map(self._is_old, self._active()))

    def _number_for_candidate(self, count: int) -> int:
        """That of the oldest worker which the next count keeps; with none to replace, 1."""
        return next((worker.number for worker in self._active() if worker.number <= count), 1)

    def _replace_next(self) -> None:
        """One step of the roll: a new worker beside the oldest old one, when the one before is READY."""
        active = self._active()
        if self._vacant() or any(worker.state is WorkerState.BOOTING for worker in active):
            return  # a candidate, too, is BOOTING
        old = [worker.number for worker in active if self._is_old(worker)]
        if old and old[0] not in self._backoff.waits and self._has_room():
            self._fork(old[0], self._current)

    def _tell_milestones(self) -> None:
        if not self._announced and len(self._ready()) >= self.count:
            self._announced = True
            self._commands.append(Announce())
        if self._settled != self.generation and not any(map(self._is_old, self._workers.values())):
            self._settled = self.generation
            self._commands.append(Settled(self.generation))

    # Questions.

    def _is_over(self) -> bool:
        return self._phase in (Phase.STOPPING, Phase.GONE)

    def _is_old(self, worker: Worker) -> bool:
        """It is to be replaced."""
        return worker.generation < self._current.number

    def _is_candidate(self, worker: Worker) -> bool:
        return self._candidate is not None and worker.generation == self._candidate.number

    def _active(self) -> list[Worker]:
        """Those that serve or will, oldest first."""
        serving = (WorkerState.BOOTING, WorkerState.READY)
        return [worker for worker in self._workers.values() if worker.state in serving]

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._workers.values() if worker.state is WorkerState.READY]

    def _vacant(self) -> list[int]:
        """Numbers with nobody. The candidate does not count: it may fail."""
        taken = {worker.number for worker in self._active() if not self._is_candidate(worker)}
        return [number for number in range(1, self.count + 1) if number not in taken]

    def _has_room(self) -> bool:
        """One worker over the count is what new-before-old costs, and all that it may cost."""
        return len(self._active()) <= self.count

    # Steps.

    def _fork(self, number: int, generation: _Generation) -> None:
        self._last_id += 1
        worker = Worker(
            id=self._last_id,
            number=number,
            generation=generation.number,
            policy=generation.policy,
            state=WorkerState.BOOTING,
            since=self._now,
            born=self._now,
        )
        self._enter(worker, WorkerState.BOOTING, generation.policy.boot_timeout or None)
        self._workers[worker.id] = worker
        self._commands.append(Fork(worker.id, number, generation.number))

    def _drain(self, worker: Worker, reason: DrainReason) -> None:
        if worker.state is WorkerState.READY:  # one that drains already keeps its deadline
            self._enter(worker, WorkerState.DRAINING, self._drain_limit(worker))
        self._commands.append(Drain(worker.id, reason))

    def _drain_limit(self, worker: Worker) -> float | None:
        limit = worker.policy.drain_timeout
        return limit + DRAIN_GRACE if limit else None

    def _kill(self, worker: Worker, how: KillHow) -> None:
        self._enter(worker, WorkerState.KILLED, None if how is KillHow.KILL else QUICK_GRACE)
        worker.sent = how
        self._commands.append(Kill(worker.id, how))

    def _enter(self, worker: Worker, state: WorkerState, limit: float | None = None) -> None:
        worker.state = state
        worker.since = self._now
        worker.deadline = None if limit is None else self._now + limit

    def _report(self, level: Level, text: str) -> None:
        self._commands.append(Report(level, text))
