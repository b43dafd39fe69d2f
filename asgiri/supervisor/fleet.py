"""The policy of the supervisor, sans-I/O: events and a time go in, commands come out.

The fleet decides which workers there should be; the master owns the processes. Nothing here knows a pid, a
file descriptor, a signal number, a clock or a log. The master calls ``handle(event, now)`` for all that
happens, runs the commands it gets in their order, and feeds a ``Tick`` at ``deadline()``. Times are seconds
of one monotonic clock.

The life of a worker: what it, its deadline and the fleet's wishes do to it. Where the table is empty nothing
happens; a late event is no error. Where it names a signal the worker becomes KILLED.

    state     Ready     Failed   Exited  deadline  heard      retire     Stop        QuickStop
    BOOTING   READY     FAILED   gone    STUCK                TERM       TERM        QUIT
    READY                        gone    HUNG                 DRAINING   DRAINING*   QUIT
    HUNG                         gone    ABRT      READY***                          QUIT
    STUCK     DRAINING           gone    ABRT                                        QUIT
    DRAINING                     gone    KILL                            told again  QUIT
    FAILED                       gone    KILL                                        QUIT
    KILLED    DRAINING**         gone    KILL                                        QUIT, if it was TERM

    *   when drain_delay is over
    **  after a TERM: it was READY before that came, and drains
    *** to be replaced; when the service goes: DRAINING

What follows from a boot that did not end in READY, or from an exit that nobody asked for:

    while STARTING             the fleet stops, with ExitCode.APP (FAILED when it could not be forked)
    of the candidate           Abandon: the current generation goes on
    of the current generation  another takes its number: at once if it was READY for HEALTHY_AFTER seconds,
                               after a pause if somebody else killed it, else after the backoff
    to be replaced             its number goes to the current generation

A worker is to be replaced when its generation is an older one, or when it is worn: by its requests, memory or
lifetime, because it was silent for too long, or because somebody said so.

The life of the fleet: NEW -Start-> STARTING -first Ready-> RUNNING -stop-> STOPPING -last exit-> GONE; a stop
is heard in NEW and STARTING too.

After each event ``_reconcile`` compares what is with what should be, so no path can forget a step.
docs/design/fleet.md tells the same at length.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asgiri.errors import ExitCode
from asgiri.supervisor.backoff import Backoff
from asgiri.supervisor.crew import HEALTHY_AFTER, Worker, WorkerState
from asgiri.supervisor.messages import (
    Abandon,
    Announce,
    AskStacks,
    Command,
    Commit,
    Drain,
    DrainReason,
    Ending,
    Event,
    Exit,
    Exited,
    Failed,
    Gone,
    HandOver,
    Hold,
    KillHow,
    Level,
    Policy,
    Pulse,
    QuickStop,
    Ready,
    Recycle,
    Reload,
    Resize,
    Resume,
    Scale,
    Settled,
    Start,
    Stop,
    Tick,
    Vitals,
)
from asgiri.supervisor.roster import QUICK_GRACE, Generation, Roster, lot
from asgiri.supervisor.scoreboard import BEAT_SECONDS
from asgiri.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

PULSE_EVERY = 1.0  # seconds between two pulses of a master that is on time
STACKS_GRACE = 1.0  # seconds that a worker which is given up has to write down where it is


class Phase(Enum):
    NEW = auto()  # before Start
    STARTING = auto()  # no worker has ever been READY: a failure is the end
    RUNNING = auto()  # never left but by a stop, however many workers fail
    STOPPING = auto()  # nothing is forked any more
    GONE = auto()  # Exit was given; nothing is heard any more


class Fleet(Roster):
    """The state machine. One per master; not thread-safe, never blocks, never raises on an event.

    ``spread`` gives each worker its lot, from 0 to 1: how far from the limits of the config its own ones are.
    """

    def __init__(self, policy: Policy, spread: Callable[[], float] = lot) -> None:
        super().__init__(policy, spread)
        self._phase = Phase.NEW
        self._queued: Policy | None = None  # the newest reload that has not begun
        self._last_generation = 1  # an abandoned number is not used again
        self._settled = 1  # the last generation that had the fleet for itself
        self._backoff = Backoff()
        self._pulsed: float | None = None  # when the last pulse was
        self._drain_at: float | None = None  # a stop that keeps serving until then
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
    def failures(self) -> int:
        """How many workers of the current generation have failed in a row."""
        return self._backoff.failures

    @property
    def is_reloading(self) -> bool:
        """A reload is under way or waits."""
        return self._queued is not None or self._candidate is not None or not self.is_settled

    @property
    def is_settled(self) -> bool:
        """The current generation has the fleet for itself."""
        return self._settled == self.generation

    @property
    def is_leaving(self) -> bool:
        """The service stops, and serves nobody new any more: its ``drain_delay`` is over."""
        return self._is_over() and self._drain_at is None and self._farewell is DrainReason.STOP

    def deadline(self) -> float | None:
        """When the next ``Tick`` is due, in the clock of ``now``; None: not before another event."""
        deadlines = (worker.deadline for worker in self._workers.values())
        times = (*deadlines, *self._backoff.waits.values(), self._drain_at)
        return min((time for time in times if time is not None), default=None)

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
            case Scale(by):
                self._size(lambda policy: policy.scaled(by))
            case Resize(count):
                self._size(lambda policy: policy.sized(count))
            case Recycle():
                self._recycle()
            case Pulse():
                self._take_pulse(event)
            case HandOver():
                self._stop(ExitCode.STOPPED, DrainReason.RETIRE)
            case Stop():
                self._stop(ExitCode.STOPPED, delay=self._current.policy.drain_delay)
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
            # Who saves often has seen that it is known; what comes of it is said in time.
            level: Level = "debug" if policy.hold else "info"
            self._report(level, "the reload is kept until what is under way lets it begin")

    def _size(self, sized: Callable[[Policy], Policy]) -> None:
        """The later word wins: a reload that is under way, or waits, comes with its own count scaled too."""
        if self._is_over():
            return
        self._current = replace(self._current, policy=sized(self._current.policy))
        if self._candidate is not None:
            self._candidate = replace(self._candidate, policy=sized(self._candidate.policy))
        if self._queued is not None:
            self._queued = sized(self._queued)

    def _recycle(self) -> None:
        for worker in self._ready():
            self._wear(worker, "recycled", "it was asked for")

    def _stop(self, code: ExitCode, reason: DrainReason = DrainReason.STOP, delay: float = 0.0) -> None:
        """Fork nothing more; let what serves go, after ``delay`` seconds in which it goes on serving."""
        if self._is_over():
            return
        self._enter_stopping(code)
        self._hold_back()
        self._farewell = reason
        if delay and self._ready():
            self._drain_at = self._now + delay
        for worker in self._workers.values():
            if worker.state is WorkerState.BOOTING:
                self._kill(worker, KillHow.TERM, "stop")
            elif worker.state is WorkerState.READY and self._drain_at is None:
                self._drain(worker, "stop")
            elif worker.state is WorkerState.DRAINING and reason is not DrainReason.RETIRE:  # else it was told
                self._commands.append(Drain(worker.id, reason))

    def _end_delay(self) -> None:
        self._drain_at = None
        for worker in self._ready():
            self._drain(worker, "stop")

    def _quick_stop(self) -> None:
        if not self._is_over():
            self._enter_stopping(ExitCode.STOPPED)
        self._drain_at = None
        for worker in self._workers.values():
            if worker.state in (WorkerState.HUNG, WorkerState.STUCK):  # its stacks may be there by now
                self._report("error", f"{worker.trouble}; it is told to quit", worker, stacks=True)
            if worker.sent in (None, KillHow.TERM):
                self._kill(worker, KillHow.QUIT, "stop")

    def _enter_stopping(self, code: ExitCode) -> None:
        self._phase = Phase.STOPPING
        self._exit_code = code
        self._candidate = self._queued = None
        self._backoff = Backoff()

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
            case Ready(), WorkerState.STUCK:  # just too late: nobody counts on it any more
                self._report("error", f"{worker.trouble}; it is ready, too late, and drains", worker, stacks=True)
                self._drain(worker, "boot")
            case Failed(why=why), WorkerState.BOOTING:
                self._enter(worker, WorkerState.FAILED, QUICK_GRACE)
                worker.goes_for("boot")
                self._boot_failed(worker, why)
            case Exited(), _:
                del self._workers[worker.id]
                self._hear_end(worker, event)
                self._commands.append(Gone(worker.ended_for))

    def _hear_end(self, worker: Worker, end: Exited) -> None:
        match worker.state:
            case WorkerState.BOOTING:
                unforked = end.ending is Ending.UNFORKED
                self._boot_failed(worker, f"it {end.how}", ExitCode.FAILED if unforked else ExitCode.APP)
            case WorkerState.READY:
                self._died(worker, end)
            case WorkerState.HUNG | WorkerState.STUCK:
                self._report("error", f"{worker.trouble}; it {end.how}", worker, stacks=True)
            case WorkerState.DRAINING if end.ending is not Ending.CLEAN:
                self._report("warning", f"{worker} {end.how} while it drained{self._life(worker, end)}", worker)
            case _:
                pass

    def _became_ready(self, worker: Worker) -> None:
        self._enter(worker, WorkerState.READY)
        self._note_beat(worker, self._now)
        if self._phase is Phase.STARTING:
            self._phase = Phase.RUNNING
        if self._candidate is not None and worker.generation == self._candidate.number:
            self._current, self._candidate = self._candidate, None
            self._backoff = Backoff()
            self._commands.append(Commit(worker.generation))

    def _boot_failed(self, worker: Worker, why: str, code: ExitCode = ExitCode.APP) -> None:
        if self._phase is Phase.STARTING:
            self._report("error", f"{worker} did not boot: {why}", worker)
            self._stop(code)
        elif self._candidate is not None and worker.generation == self._candidate.number:
            self._candidate = None
            self._commands.append(Abandon(worker.generation, why))
        else:
            self._report("error", f"{worker} did not boot: {why}{self._back_off(worker)}", worker)

    def _died(self, worker: Worker, end: Exited) -> None:
        penalty = self._back_off(worker, end.ending) if self._is_penalised(worker) else ""
        self._report("warning", f"{worker} {end.how}{self._life(worker, end)}{penalty}", worker)

    def _life(self, worker: Worker, end: Exited) -> str:
        return f" at the age of {worker.age(self._now)}, after {end.served} request{'' if end.served == 1 else 's'}"

    def _is_penalised(self, worker: Worker) -> bool:
        """It did not serve for long, and what comes in its place is no other."""
        return self._phase is Phase.RUNNING and worker.is_young(self._now) and not self._is_old(worker)

    def _back_off(self, worker: Worker, ending: Ending = Ending.FAILED) -> str:
        policy = self._current.policy
        if ending is Ending.KILLED:  # that says nothing against the code, and the next one may live long
            wait = self._backoff.pause(worker.number, policy, self._now)
        else:
            wait = self._backoff.failed(worker.number, policy, self._now)
        return f"; backing off for {format_duration(wait)}"

    def _note_health(self) -> None:
        """Seen before each event, so no worker leaves READY unnoticed; only the next failure asks for it."""
        for worker in self._ready():
            if not self._is_outdated(worker):
                self._backoff.note_health(worker.since + HEALTHY_AFTER, self._now)

    # What time does.

    def _take_pulse(self, pulse: Pulse) -> None:
        """Hear who is alive. What the master was late by, nobody is blamed for: neither could the workers run then."""
        pulsed = self._now if self._pulsed is None else self._pulsed
        self._pulsed = self._now
        for worker in self._workers.values():
            told = pulse.vitals.get(worker.id)
            late = max(0.0, self._now - max(pulsed, worker.since) - PULSE_EVERY)
            if worker.state is WorkerState.READY and told and told.drains and self._phase is Phase.RUNNING:
                self._drains_unasked(worker)
            elif worker.state is WorkerState.READY:
                self._note_beat(worker, max(worker.heard + late, told.heard if told else 0.0))
                if told and not self._is_old(worker) and self._phase is Phase.RUNNING:
                    self._note_wear(worker, told)
            elif worker.state is WorkerState.HUNG and told and told.heard > worker.heard:
                self._goes_on(worker, told.heard)
            elif worker.deadline is not None:
                worker.deadline += late

    def _note_beat(self, worker: Worker, heard: float) -> None:
        """It is overdue when its next beat is late by ``heartbeat_timeout``."""
        worker.heard = heard
        if worker.policy.heartbeat_timeout:
            worker.deadline = heard + BEAT_SECONDS + worker.policy.heartbeat_timeout

    def _goes_on(self, worker: Worker, heard: float) -> None:
        """A hung one serves again: better than nobody, until another is READY in its place."""
        silence = format_duration(round(heard - worker.heard, 1))
        goes = self._is_over() and self._drain_at is None
        fate = "drains" if goes else "is to be replaced"
        self._report("error", f"{worker.trouble}; it goes on after {silence}, and {fate}", worker, stacks=True)
        if goes:
            self._drain(worker, "stop")
        else:
            self._wear(worker, "hung", "it was silent")
            self._enter(worker, WorkerState.READY)
            self._note_beat(worker, heard)

    def _drains_unasked(self, worker: Worker) -> None:
        """Somebody has sent it a TERM: it serves nobody any more, and ends when its last request does."""
        penalty = self._back_off(worker, Ending.KILLED) if self._is_penalised(worker) else ""
        self._report("warning", f"{worker} drains, which the master has not asked for{penalty}", worker)
        self._drain(worker, "crashed")

    def _note_wear(self, worker: Worker, vitals: Vitals) -> None:
        reason, why = worker.wear(vitals, self._now)
        if why:
            self._wear(worker, reason, why)
            self._report("info", f"{worker} is to be replaced: {worker.worn}", worker)

    def _act_on_overdue(self) -> None:
        if self._drain_at is not None and self._drain_at <= self._now:
            self._end_delay()
        for worker in self._workers.values():
            if worker.deadline is not None and worker.deadline <= self._now:
                self._overdue(worker)

    def _overdue(self, worker: Worker) -> None:
        spent = format_duration(round(self._now - worker.since, 1))
        match worker.state:
            case WorkerState.BOOTING:
                self._give_up(worker, WorkerState.STUCK, f"{worker} was stuck while it booted")
                worker.goes_for("boot")
                self._boot_failed(worker, f"it was not ready within {spent}")
            case WorkerState.READY:
                silence = format_duration(round(self._now - worker.heard, 1))
                penalty = self._back_off(worker) if self._is_penalised(worker) else ""
                text = f"{worker} hangs: its event loop has not turned for {silence}{penalty}"
                self._give_up(worker, WorkerState.HUNG, text)
                worker.goes_for("hung")
            case WorkerState.HUNG | WorkerState.STUCK:
                self._report("error", f"{worker.trouble}; it is killed", worker, stacks=True)
                self._kill(worker, KillHow.ABRT)
            case WorkerState.DRAINING:
                self._kill(worker, KillHow.KILL)
                self._report("warning", f"{worker} was still draining after {spent} and is killed", worker)
            case WorkerState.FAILED | WorkerState.KILLED:
                self._kill(worker, KillHow.KILL)
                self._report("warning", f"{worker} did not exit within {spent} and is killed", worker)

    def _give_up(self, worker: Worker, state: WorkerState, trouble: str) -> None:
        """Nothing is expected of it any more but where it is; its number is free."""
        self._enter(worker, state, STACKS_GRACE)
        worker.trouble = trouble
        self._commands.append(AskStacks(worker.id))

    # What should be, step by step.

    def _reconcile(self) -> None:
        match self._phase:
            case Phase.STARTING | Phase.RUNNING:
                self._backoff.forget_passed(self._now)
                self._retire_replaced()
                self._retire_surplus()
                self._fill()
                self._begin_reload()
                self._hold_back()
                self._replace_next()
                self._tell_milestones()
            case Phase.STOPPING if not self._workers:
                self._phase = Phase.GONE
                self._drain_at = None
                self._commands.append(Exit(self._exit_code))
            case _:
                pass

    def _retire_replaced(self) -> None:
        """Let the old go whose number is taken over; an old one that still boots is of no use to anybody."""
        ranked = sorted(self._ready(), key=lambda worker: (worker.generation, worker.id))
        newest = {worker.number: worker.id for worker in ranked}  # which may be old, too: worn by now
        for worker in self._active():
            if not self._is_old(worker):
                continue
            if worker.state is WorkerState.BOOTING:
                self._kill(worker, KillHow.TERM, "reload")
            elif newest[worker.number] != worker.id:
                self._drain(worker, "reload" if self._is_outdated(worker) else worker.worn_by)

    def _retire_surplus(self) -> None:
        """Let go what is numbered over the count, but never so that fewer than the count are READY."""
        over = [w for w in self._active() if w.number > self.count and not self._is_candidate(w)]
        for worker in over:
            if worker.state is WorkerState.BOOTING:
                self._kill(worker, KillHow.TERM, "scale")
        serving = [worker for worker in over if worker.state is WorkerState.READY]
        serving.sort(key=lambda worker: (worker.generation, -worker.number))
        for worker in serving[: max(0, len(self._ready()) - self.count)]:
            self._drain(worker, "scale")

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
        self._candidate = Generation(self._last_generation, policy)
        self._hold_back()
        self._fork(self._number_for_candidate(policy.count), self._candidate)

    def _hold_back(self) -> None:
        """Under reload, have nobody answer whose code is not the newest, unless that fails."""
        for worker in self._ready():
            if worker.held is not self._is_held_back(worker):
                worker.held = not worker.held
                self._commands.append(Hold(worker.id) if worker.held else Resume(worker.id))

    def _may_begin(self) -> bool:
        """A roll finishes first, unless the generation it rolls to is failing: a reload may be the cure."""
        if self._phase is not Phase.RUNNING or self._candidate is not None or not self._has_room():
            return False
        return self._backoff.failures > 0 or not any(map(self._is_outdated, self._active()))

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
        if self._settled != self.generation and not any(map(self._is_outdated, self._workers.values())):
            self._settled = self.generation
            self._commands.append(Settled(self.generation))

    # Questions.

    def _is_over(self) -> bool:
        return self._phase in (Phase.STOPPING, Phase.GONE)

    def _is_held_back(self, worker: Worker) -> bool:
        """What comes is to wait for code that is newer than this worker's. In a stop there is none to wait for."""
        newer = [one for one in (self._candidate, self._current) if one is not None and one.number > worker.generation]
        return not self._is_over() and any(one.policy.hold for one in newer)
