"""The master: runs the fleet's commands. Single-threaded, blocks in one place, never imports the application."""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Self

from msgspec.structs import replace

from asgiri.config.load import Loaded
from asgiri.errors import AsgiriError, ExitCode
from asgiri.link import Boot, Booted, BootFailed, Order
from asgiri.log import setup as log
from asgiri.metrics.catalogue import metric
from asgiri.supervisor.aides import Aide, Aides, Outfit
from asgiri.supervisor.children import Child, Children, Lent, Role, ending, in_words
from asgiri.supervisor.control import ControlServer, open_control
from asgiri.supervisor.crew import WorkerState
from asgiri.supervisor.desk import Desk, Means
from asgiri.supervisor.fleet import PULSE_EVERY, Fleet, Phase
from asgiri.supervisor.herald import Herald
from asgiri.supervisor.hooks import Greeting, Hooks, Origin
from asgiri.supervisor.messages import (
    Abandon,
    Announce,
    AskStacks,
    Command,
    Commit,
    Drain,
    Ending,
    Event,
    Exit,
    Exited,
    Failed,
    Fork,
    Gone,
    HandOver,
    Hold,
    Kill,
    KillHow,
    Policy,
    Pulse,
    QuickStop,
    Ready,
    Reload,
    Report,
    Resume,
    Scale,
    Settled,
    Start,
    Stop,
    Tick,
)
from asgiri.supervisor.mode import Mode
from asgiri.supervisor.plans import Plans
from asgiri.supervisor.process import Standing
from asgiri.supervisor.runtime import Runtime
from asgiri.supervisor.scoreboard import Scoreboard
from asgiri.supervisor.sidecar import Want
from asgiri.supervisor.signals import SignalQueue
from asgiri.supervisor.status import STATES, Status
from asgiri.supervisor.succession import Succession
from asgiri.supervisor.verbs import ServiceStatus
from asgiri.units import format_duration

logger = logging.getLogger("asgiri.master")

SIGNALS = {
    KillHow.TERM: signal.SIGTERM,
    KillHow.QUIT: signal.SIGQUIT,
    KillHow.ABRT: signal.SIGABRT,
    KillHow.KILL: signal.SIGKILL,
}
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Master:
    """Owns the sockets, the signals and the children of one service: the first two while it is entered."""

    def __init__(self, loaded: Loaded, hooks: Hooks, origin: Origin) -> None:
        config = loaded.config
        self._hooks = hooks
        self._origin = origin
        self._plans = Plans(loaded)
        self._routine = config.routine
        self._standing = Standing(config.process, origin.recipe.umask)
        self._board = Scoreboard()
        self._board.master.pid = os.getpid()
        self._board.master.mark_start()
        self._workers: dict[int, Child] = {}  # by the fleet's id
        self._fleet = Fleet(Policy.of(config))
        self._status = Status(self._fleet, self._workers, self._board)
        self._herald = Herald(origin.notifier, self._fleet, self._board, self._status, origin.supply.kept)
        self._desk = Desk(self._means())
        self._control: ControlServer | None = None
        self._aides = Aides()
        self._admin = self._aides.add(
            Aide("admin", hooks.admin_main, self._plans, lambda: self._children, self._admin_outfit, beats=True)
        )
        self._heir = origin.heir  # we are one, and not the master yet
        self._mode = Mode()
        self._pending: list[Event] = []  # made while commands were run
        self._traces: dict[int, str] = {}  # the application's tracebacks, by worker, until they are logged
        self._last_stacks: dict[int, str] = {}  # of the worker that was reaped last
        self._asked_to_stop = False  # by a TERM or an INT
        self._pulse_at = 0.0
        self._is_complete = False  # all that will be needed is imported
        self._exit_code: ExitCode | None = None

    def __enter__(self) -> Self:
        """Take over the signals, and bind. Raises BindError when an address cannot be had."""
        self._signals = SignalQueue()  # first: a stop that comes from here on finds somebody to remove what was made
        try:
            self._plans.open(self._origin.supply)
            if self._origin.supply.kept:
                self._plans.own()
        except BaseException:
            self._signals.close()
            raise
        if self._plans[1].config.reload.enabled:
            self._mode = self._open_workshop()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals, selectors.EVENT_READ, self._read_signals)
        self._children = Children(self._board, self._signals, self._selector, self._hear, self._let_go)
        self._succession = Succession(
            self._origin.recipe, self._origin.notifier, self._selector, self._signals, self._hand_over
        )
        return self

    def _open_workshop(self) -> Mode:
        from asgiri.supervisor.workshop import Scene, Workshop  # production pays nothing for it

        def changed(what: str) -> Iterable[Event]:
            return self._reload(what, "the change")[1]

        scene = Scene(self._aides, self._workers, lambda: self._children, changed)
        return Workshop(self._hooks, self._plans, scene)

    def _means(self) -> Means:
        return Means(
            board=self._board,
            fleet=self._fleet,
            children=lambda: self._children,
            reload=self._reload,
            stop=self._stop,
            drain=self._look_drained,
            reopen=self._reopen_logs,
            status=self._full_status,
            is_stopping=self._is_stopping,
            trouble=self._status.trouble_of,
            level=lambda: self._plans[self._fleet.generation].config.log.level,
        )

    def _show(self) -> None:
        """Be the one that people find. The pid file comes after the sockets: who finds them taken leaves it alone."""
        self._standing.show()
        self._open_control()

    def _open_control(self) -> None:
        self._control = open_control(
            self._plans[1].config.control.socket,
            Runtime.of_this_process(),
            self._selector,
            self._desk.answer,
            replace=self._heir is not None,
        )

    def __exit__(self, *_: object) -> None:
        self._signals.close()
        if self._control is not None:
            self._control.close()
        self._selector.close()
        self._mode.close()
        self._herald.leave(self._plans.listeners)
        self._plans.close()
        self._standing.leave()

    def run(self) -> ExitCode:
        """Fork, and serve until stopped. AsgiriError without the pid file or the control socket that is asked for."""
        if self._heir is None:
            self._show()
        else:
            self._selector.register(self._heir, selectors.EVENT_READ, self._hear_predecessor)
        gc.freeze()  # the workers share these pages: no collection of theirs shall write to them
        gc.enable()  # asgiri.__main__ had it wait for this
        self._feed(Start())
        if self._heir is None:
            self._start_aides()
        while (code := self._exit_code) is None or not self._aides.is_gone or self._succession.is_under_way:
            for event in self._wait():
                self._feed(event)
        return code

    def _start_aides(self) -> None:
        """Have an admin child of the current generation, where the config has something for it to do; and a watcher."""
        generation = self._fleet.generation
        self._show_certificates()
        self._admin.feed(Want(generation if self._plans[generation].wants_admin else None))
        self._mode.look(self._plans[generation].loaded, generation)

    def _admin_outfit(self, generation: int) -> Outfit:
        plan = self._plans[generation]
        return Outfit(generation, plan.config, plan.admin)

    # The one place that blocks

    def _wait(self) -> Iterator[Event]:
        """Sleep until something happens or is due; what it was, as events, and the tick last.

        Each event is fed to the fleet before the next piece of news is looked at: what a signal does may depend on
        what the one before it has led to.
        """
        parts = (self._fleet, self._aides, self._succession, self._desk)
        deadlines = [part.deadline() for part in parts]
        due = min([deadline for deadline in deadlines if deadline is not None], default=self._pulse_at)
        due = min(due, self._pulse_at)
        for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
            yield from key.data()
        now = time.monotonic()
        deadline = self._fleet.deadline()
        if now >= self._pulse_at or (deadline is not None and deadline <= now):
            yield Pulse(self._status.vitals(now))
        if now >= self._pulse_at:
            self._pulse_at = now + self._pulse_every
            self._beat(now)
        self._succession.tick(now)
        self._aides.tick(now)
        self._desk.tick(now)
        deadline = self._fleet.deadline()
        if deadline is not None and deadline <= now:
            yield Tick()

    @property
    def _pulse_every(self) -> float:
        watchdog = self._origin.notifier.watchdog
        return PULSE_EVERY if watchdog is None else min(PULSE_EVERY, watchdog / 2)

    def _beat(self, now: float) -> None:
        """Once a second: what is told without being asked for."""
        master = self._board.master
        self._board.want(self._fleet.count)
        master.generation = self._fleet.generation
        master.beat_ns = self._board.now_ns()
        self._aides.pulse(master.beat_ns)
        self._status.count(now)
        self._herald.pulse(now)
        self._herald.keep(self._plans.listeners)
        if self._control is not None:
            self._control.sweep(now)
        if self._board.master.announced and not self._is_complete:
            self._complete()
        if not self._is_stopping():
            self._renew(now)

    def _show_certificates(self) -> None:
        """Those of the current generation are in effect."""
        certificates = self._plans[self._fleet.generation].certificates
        if certificates is None:
            self._board.master.expiries = []
        else:
            certificates.show(self._board.master, time.time())

    def _renew(self, now: float) -> None:
        """Take changed certificates in, and give them to the workers."""
        generation = self._fleet.generation
        certificates = self._plans[generation].certificates
        if certificates is not None and certificates.look(self._board.master, now, time.time()):
            for child in self._workers.values():
                if child.role.generation == generation:
                    child.renew(certificates.encoded)

    def _complete(self) -> None:
        """Import what the start has left out: now, while it is of this release, and for all workers to come."""
        self._is_complete = True
        try:
            self._hooks.complete(self._plans[self._fleet.generation].config)
        except (AsgiriError, ImportError, SyntaxError) as error:
            logger.warning("not all of this release is there any more: %s", error)
        gc.freeze()
        logger.debug("what the start has left out is imported")

    def _feed(self, event: Event) -> None:
        """Give the fleet an event and run what it commands, and what comes of that in turn."""
        self._pending.append(event)
        while self._pending:
            event = self._pending.pop(0)
            trace = self._traces.pop(event.worker_id, "") if isinstance(event, Failed) else ""
            for command in self._fleet.handle(event, time.monotonic()):
                self._execute(command, trace)
        if self._fleet.is_leaving:  # not by the first Drain: who drains already is told at once, others serve on
            self._herald.leave(self._plans.listeners)
            self._plans.stop_listening()
        self._herald.look()
        self._desk.look()

    # Signals

    def _read_signals(self) -> Iterator[Event]:
        for number in self._signals.read():
            yield from self._on_signal(number)
        yield from self._reap()  # a queue that was full had no room for a CHLD

    def _on_signal(self, number: signal.Signals) -> Iterable[Event]:
        match number:
            case signal.SIGCHLD:
                return self._reap()
            case signal.SIGTERM | signal.SIGINT:
                return self._on_stop_signal(number.name.removeprefix("SIG"))
            case signal.SIGQUIT:
                return self._stop_quickly("QUIT")
            case signal.SIGHUP:
                return self._reload("HUP")[1]
            case signal.SIGTTIN:
                return self._scale(+1, "TTIN: one worker more")
            case signal.SIGTTOU:
                return self._scale(-1, "TTOU: one worker less, where there is more than one")
            case signal.SIGUSR1:
                self._reopen_logs("USR1")
            case signal.SIGUSR2:
                self._begin_upgrade()
        return []

    def _scale(self, by: int, text: str) -> list[Event]:
        if self._is_stopping():
            logger.warning("%s: not now, the service stops", text.partition(":")[0])
            return []
        logger.info("%s", text)
        return [Scale(by)]

    def _is_stopping(self) -> bool:
        return self._fleet.phase in (Phase.STOPPING, Phase.GONE)

    def _on_stop_signal(self, name: str) -> list[Event]:
        """The second one means it."""
        if self._asked_to_stop:
            return self._stop_quickly(f"{name}, a second signal")
        self._asked_to_stop = True
        return self._stop(name)

    def _stop(self, why: str) -> list[Event]:
        if self._fleet.phase is not Phase.STOPPING:
            logger.info("%s: %s", why, self._mode.stopping)
            delay = self._plans[self._fleet.generation].config.workers.drain_delay
            if delay and self._fleet.phase is Phase.RUNNING:
                logger.info("serving for %s more, so that load balancers see /readyz", format_duration(delay))
        self._note_stop()
        return [Stop()]

    def _stop_quickly(self, why: str) -> list[Event]:
        logger.info("%s: stopping quickly", why)
        self._note_stop()
        return [QuickStop()]

    def _note_stop(self) -> None:
        """Tell all who must know, but for the fleet."""
        self._board.master.draining = True
        self._herald.stop()
        self._desk.note_stop()
        self._succession.stop(time.monotonic())  # or the service would go on in it

    def _reopen_logs(self, who: str) -> None:
        log.reopen()
        logger.info("%s: log files are reopened", who)
        for child in self._children:
            child.kill(signal.SIGUSR1)

    # Children

    def _reap(self) -> Iterator[Event]:
        """Collect every process that has ended; as PID 1, strangers too."""
        while (reaped := self._children.reap()) is not None:
            pid, status, child = reaped
            if child is not None:
                yield from self._hear(child)  # its last words come before its exit
                served, stacks = child.slot.served, child.stacks.read()
                self._desk.note_end(child)
                self._children.forget(child)
                if child.is_worker:
                    del self._workers[child.role.id]
                    self._last_stacks = {child.role.id: stacks}
                    self._status.note_end(served)
                    yield Exited(child.role.id, in_words(status), ending(status), served)
                else:
                    self._aides.note_exit(child, in_words(status))
                    self._drop_plans()
            else:
                self._succession.note_exit(pid, in_words(status))

    def _hear(self, child: Child) -> Iterator[Event]:
        if not child.is_worker:
            yield from self._aides.hear(child)
            return
        worker_id = child.role.id
        for report in self._children.reports(child):
            match report:
                case Booted():
                    logger.log(self._routine, "%s is ready (pid %d)", child, child.pid, extra={"about": child.about})
                    generation = child.role.generation
                    self._mode.learn(generation, self._plans[generation].config, report)
                    yield Ready(worker_id)
                case BootFailed(message, trace, trouble):
                    self._traces[worker_id] = trace
                    self._mode.note_trouble(child.role.generation, trouble)
                    yield Failed(worker_id, message)

    def _let_go(self, boot: Boot) -> None:
        """In a child: close what is the master's alone."""
        self._mode.let_go(boot)
        if self._control is not None:
            self._control.close_in_child()
        self._succession.close_in_child()
        self._origin.notifier.close()
        if self._heir is not None:
            self._heir.close()

    # Reload

    def _reload(self, who: str, after: str = "") -> tuple[str, list[Event]]:
        """Read and check the config, bind what is new. Whatever fails leaves everything as it is; why, if it does.

        Who develops is told how long ``after`` what newer code serves.
        """
        if self._is_stopping():
            logger.warning("%s: no reload, the service stops", who)
            return "the service stops", []
        logger.info("%s: reloading", who)
        self._mode.ask(after or who)
        self._herald.begin_reload()
        why = ""
        if self._succession.is_under_way or self._heir is not None:
            why = "an upgrade is under way"
        else:
            try:
                loaded = self._hooks.load()
                self._standing.refuse(loaded.config.process, loaded.origins.get("process.pidfile", ""))
                with self._standing.as_of(loaded.config.process):
                    config = self._plans.submit(loaded, self._fleet.generation)
            except AsgiriError as error:
                why = "; ".join(str(error).splitlines())
        if why:
            logger.error("the reload is refused, generation %d goes on: %s", self._fleet.generation, why)
            self._mode.refuse(why)
            self._board.master.count(metric("reloads").word("failed"))
            self._herald.look()
            self._status.note_reload(f"the last reload was refused: {why}")
            return f"the reload is refused: {why}", []
        return "", [Reload(Policy.of(config))]

    # Upgrade, as the one that is followed

    def _begin_upgrade(self) -> None:
        why = ""
        if self._fleet.phase is not Phase.RUNNING:
            why = f"the service is {STATES[self._fleet.phase]}"
        elif self._succession.is_under_way or self._heir is not None:
            why = "another one is under way"
        elif self._fleet.is_reloading:
            why = "a reload is under way"
        elif os.getpid() == 1:
            why = "PID 1 cannot be followed by another process; start a new container"
        if why:
            logger.error("USR2: no upgrade: %s", why)
            return
        timeout = self._plans[self._fleet.generation].config.workers.boot_timeout
        self._succession.begin(self._plans.listeners, timeout)

    def _hand_over(self, pid: int) -> Iterable[Event]:
        """The heir serves: what people find is its own from here on, and the workers here drain."""
        self._plans.disown()
        self._standing.disown()
        if self._control is not None:
            self._control.disown()
        self._herald.hand_over(pid)
        logger.info("the new master serves (pid %d); this one drains, and leaves", pid)
        self._board.master.handed_over = True
        self._aides.stop()
        return [HandOver()]

    # Upgrade, as the one that follows

    def _hear_predecessor(self) -> Iterable[Event]:
        heir = self._heir
        assert heir is not None
        if heir.is_master():
            self._selector.unregister(heir)
            self._plans.own()
            for show in (self._standing.show, self._open_control):
                try:
                    show()
                except AsgiriError as error:
                    logger.error("the new master goes on without: %s", error)
            heir.close()
            self._heir = None
            if self._board.master.announced:
                self._herald.announce()
                logger.info("the upgrade is complete: this master (pid %d) is the one that serves", os.getpid())
            else:
                logger.warning("the old master is gone: this one (pid %d) starts in its place", os.getpid())
                self._start_aides()  # as at any start: nobody else's /readyz is there to be answered for
        return ()

    # Commands

    def _execute(self, command: Command, trace: str) -> None:
        match command:
            case Fork():
                self._fork(command)
            case Drain(worker_id, reason):
                if child := self._workers.get(worker_id):  # else its exit is among the events that come next
                    child.tell(reason)
            case Hold(worker_id) | Resume(worker_id):
                if child := self._workers.get(worker_id):
                    child.link.send(Order.HOLD if isinstance(command, Hold) else Order.RESUME)
            case Kill(worker_id, how):
                if child := self._workers.get(worker_id):
                    child.kill(SIGNALS[how])
            case AskStacks(worker_id):
                if child := self._workers.get(worker_id):
                    child.stacks.ask(child.pid)
            case Commit(generation):
                self._commit(generation)
                self._mode.commit(generation)
            case Abandon(generation, why):
                self._abandon(generation, why, trace)
            case Settled(generation):
                extra = {"about": {"generation": generation}}
                logger.log(self._routine, "the reload is complete: generation %d serves", generation, extra=extra)
                self._desk.note_settled(generation, self._plans[generation].changes)
                self._drop_plans()
            case Announce():
                self._announce()
            case Report():
                self._report(command, trace)
            case Gone(reason):
                self._board.master.count(metric("worker_exits").word(reason))
            case Exit(code):
                self._exit_code = code
                self._aides.stop()

    def _abandon(self, generation: int, why: str, trace: str) -> None:
        text = "the reload failed, generation %d goes on: %s"
        extra = {"trace": trace, "about": {"generation": generation}}
        logger.error(text, self._fleet.generation, why, extra=extra)
        self._mode.abandon(generation, why, trace)
        self._desk.note_failed(generation, why, trace)
        self._board.master.count(metric("reloads").word("failed"))
        self._status.note_reload(f"the last reload failed: {why}")
        self._plans.drop(generation)

    def _announce(self) -> None:
        self._board.master.announced = True  # before anybody reads that it is so
        plan = self._plans[self._fleet.generation]
        level = logging.DEBUG if plan.config.greets else logging.INFO
        logger.log(level, "ready: %d worker%s", self._fleet.count, "s" if self._fleet.count > 1 else "")
        if plan.config.greets:
            urls, admin = ([listener.url for listener in all_] for all_ in (plan.listeners, plan.admin))
            self._hooks.greet(plan.loaded, Greeting(urls, admin, self._mode.is_troubled))
        if self._heir is None:
            self._herald.announce()
            self._herald.keep(self._plans.listeners)
        else:
            self._start_aides()  # not before: /readyz is to say yes at once
            self._heir.tell_ready()

    def _report(self, report: Report, trace: str) -> None:
        extra: dict[str, object] = {"trace": trace}
        if report.number:
            extra["about"] = {"worker": report.number, "generation": report.generation}
            self._status.note_trouble(report)
        if report.stacks:
            child = self._workers.get(report.worker_id)
            stacks = child.stacks.read() if child else self._last_stacks.get(report.worker_id)
            extra["trace"] = stacks or "(it could not write its stacks)"
        logger.log(LEVELS[report.level], report.text, extra=extra)

    def _commit(self, generation: int) -> None:
        """The config of the generation is in effect: for the master itself and its sockets, too."""
        config = self._plans[generation].config
        for take in (partial(self._standing.take, config.process), partial(self._hooks.apply, config)):
            try:
                take()
            except AsgiriError as error:  # the workers serve with it already: no reason to leave them
                logger.error("the master itself goes on as it was: %s", error)
        self._desk.take_level(config.log.level)
        self._plans.commit(generation)
        self._board.master.count(metric("reloads").word("done"))
        self._status.note_reload("")
        self._start_aides()

    def _fork(self, command: Fork) -> None:
        if command.generation not in self._plans:  # else a worker of a generation that there is, while a reload waits
            self._desk.note_begun(command.generation)
        plan = self._plans.begin(command.generation)
        self._mode.begin(command.generation)
        role = Role(self._hooks.worker_main, command.worker_id, command.number, command.generation)
        try:
            with self._standing.as_of(plan.config.process):
                lent = self._lent(command)
                child = self._children.fork(
                    role, plan.config, plan.listeners, self._plans.listeners, lent, self._mode.spawn
                )
        except OSError as error:
            how = f"could not be forked: {error.strerror}"
            self._pending.append(Exited(command.worker_id, how, Ending.UNFORKED))
        else:
            self._workers[command.worker_id] = child

    def _lent(self, command: Fork) -> Lent:
        """What the worker has of the master's. Of the current code, and with nobody beside it, it is a first one."""
        serves = any(worker.state is WorkerState.READY for worker in self._fleet.workers.values())
        lent = self._mode.lent(first=command.generation == self._fleet.generation and not serves)
        certificates = self._plans[command.generation].certificates
        return lent if certificates is None else replace(lent, material=certificates.encoded)

    def _drop_plans(self) -> None:
        """Let go of the plans that nobody needs any more, and of their sockets."""
        if self._fleet.is_settled:
            self._plans.drop_older(self._fleet.generation, self._admin.plans)

    # What is asked

    def _look_drained(self, drained: bool) -> None:
        logger.info("/readyz says %s", "that this service drains, until that is taken back" if drained else "how it is")
        self._board.master.draining = drained

    def _full_status(self) -> ServiceStatus:
        return self._status.full(self._plans[self._fleet.generation], self._desk.level)
