"""The master: runs the fleet's commands. Single-threaded, blocks in one place, never imports the application."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn, Self

from asgiri.config.schema import Config
from asgiri.errors import AsgiriError, ExitCode
from asgiri.link import Boot, Booted, BootFailed, ChildMain, Order, ParentEnd, make_link
from asgiri.log import setup as log
from asgiri.sockets.bind import bind, bind_all
from asgiri.sockets.listener import Listener, binds_alike
from asgiri.supervisor.fleet import Fleet, Phase
from asgiri.supervisor.messages import (
    Abandon,
    Announce,
    Command,
    Commit,
    Drain,
    DrainReason,
    Ending,
    Event,
    Exit,
    Exited,
    Failed,
    Fork,
    Kill,
    KillHow,
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
from asgiri.supervisor.scoreboard import Scoreboard, Slot
from asgiri.supervisor.signals import SignalQueue
from asgiri.supervisor.stacks import Stacks

logger = logging.getLogger("asgiri.master")

ORDERS = {DrainReason.RETIRE: Order.RETIRE, DrainReason.STOP: Order.STOP}
SIGNALS = {KillHow.TERM: signal.SIGTERM, KillHow.QUIT: signal.SIGQUIT, KillHow.KILL: signal.SIGKILL}
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True)
class Plan:
    """What the workers of one generation are given."""

    config: Config
    listeners: list[Listener]


@dataclass(frozen=True, slots=True)
class Child:
    """The parent's handle of a worker; the worker itself lives in :mod:`asgiri.worker`."""

    worker_id: int
    pid: int
    link: ParentEnd
    slot: Slot
    stacks: Stacks


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the composition root lends the master: it knows the other layers, the master does not.

    ``load`` reads the configuration anew and raises ConfigError; ``apply`` takes over what concerns the master
    itself (its log, its title) from a config that was committed; ``worker_main`` is the child's main.
    """

    load: Callable[[], Config]
    apply: Callable[[Config], None]
    worker_main: ChildMain


class Master:
    """Owns the sockets, the signals and the children of one service: the first two while it is entered."""

    def __init__(self, config: Config, hooks: Hooks) -> None:
        self._hooks = hooks
        self._plans = {1: Plan(config, [])}  # by generation, while a worker of it may still be forked
        self._submitted: Plan | None = None  # for a reload that the fleet has been told of and has not begun
        self._board = Scoreboard()
        self._children: dict[int, Child] = {}  # by pid
        self._by_worker: dict[int, Child] = {}
        self._fleet = Fleet(policy_of(config))
        self._pending: list[Event] = []  # made while commands were run
        self._traces: dict[int, str] = {}  # the application's tracebacks, by worker, until they are logged
        self._interrupted = False  # an INT has asked for the graceful stop
        self._exit_code: ExitCode | None = None

    def __enter__(self) -> Self:
        """Bind, and take over the signals. Raises BindError when an address cannot be had."""
        plan = self._plans[1]
        listeners = bind_all(plan.config.listen)
        plan.listeners.extend(listeners)
        for listener in listeners:
            logger.info("listening on %s (%s)", listener.url, ", ".join(listener.listen.http))
        self._signals = SignalQueue()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._signals, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.close()
        self._selector.close()
        for listener in self._all_listeners():
            listener.close()

    def run(self) -> ExitCode:
        """Fork, and serve until stopped."""
        gc.collect()
        gc.freeze()  # the workers share these pages: no collection of theirs shall write to them
        self._feed(Start())
        while self._exit_code is None:
            for event in self._wait():
                self._feed(event)
        return self._exit_code

    # The one place that blocks

    def _wait(self) -> Iterator[Event]:
        """Sleep until something happens or is due; what it was, as events, and the tick last.

        Each event is fed to the fleet before the next piece of news is looked at: what a signal does may depend on
        what the one before it has led to.
        """
        deadline = self._fleet.deadline()
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._signals:
                for number in self._signals.read():
                    yield from self._on_signal(number)
                yield from self._reap()  # a queue that was full had no room for a CHLD
            else:
                yield from self._hear(key.data)
        deadline = self._fleet.deadline()
        if deadline is not None and deadline <= time.monotonic():
            yield Tick()

    def _feed(self, event: Event) -> None:
        """Give the fleet an event and run what it commands, and what comes of that in turn."""
        self._pending.append(event)
        while self._pending:
            event = self._pending.pop(0)
            trace = self._traces.pop(event.worker_id, "") if isinstance(event, Failed) else ""
            for command in self._fleet.handle(event, time.monotonic()):
                self._execute(command, trace)

    # Events

    def _on_signal(self, number: signal.Signals) -> list[Event]:
        match number:
            case signal.SIGCHLD:
                return self._reap()
            case signal.SIGTERM:
                return self._stop(number)
            case signal.SIGINT:
                if self._interrupted:
                    logger.info("a second INT: stopping quickly")
                    return [QuickStop()]
                self._interrupted = True
                return self._stop(number)
            case signal.SIGQUIT:
                logger.info("QUIT: stopping quickly")
                return [QuickStop()]
            case signal.SIGHUP:
                return self._reload()
            case signal.SIGTTIN:
                logger.info("TTIN: one worker more")
                return [Scale(+1)]
            case signal.SIGTTOU:
                logger.info("TTOU: one worker less, where there is more than one")
                return [Scale(-1)]
            case signal.SIGUSR1:
                self._reopen_logs()
            case signal.SIGUSR2:
                logger.warning("USR2 is ignored: the upgrade of a running master is not there yet")
        return []

    def _stop(self, number: signal.Signals) -> list[Event]:
        if self._fleet.phase is not Phase.STOPPING:
            logger.info("%s: stopping, requests in progress are finished", number.name.removeprefix("SIG"))
        return [Stop()]

    def _reopen_logs(self) -> None:
        log.reopen()
        logger.info("USR1: log files are reopened")
        for child in self._children.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGUSR1)

    def _reap(self) -> list[Event]:
        """Collect every child that has ended; as PID 1, strangers too."""
        events: list[Event] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return events
            if pid == 0:
                return events
            child = self._children.pop(pid, None)
            if child is not None:
                events += self._hear(child)  # its last words come before its exit
                events.append(Exited(child.worker_id, in_words(status)))
                self._forget(child)

    def _forget(self, child: Child) -> None:
        with suppress(KeyError):  # it has closed its end of the link before
            self._selector.unregister(child.link)
        child.link.close()
        child.stacks.close()
        self._board.give_back(child.slot)
        del self._by_worker[child.worker_id]

    def _hear(self, child: Child) -> list[Event]:
        if child.worker_id not in self._by_worker:  # reaped in the same round
            return []
        reports, more = child.link.read()
        if not more:
            with suppress(KeyError):
                self._selector.unregister(child.link)
        events: list[Event] = []
        for report in reports:
            match report:
                case Booted():
                    events.append(Ready(child.worker_id))
                case BootFailed(message, trace):
                    self._traces[child.worker_id] = trace
                    events.append(Failed(child.worker_id, message))
        return events

    # Reload

    def _reload(self) -> list[Event]:
        """Read and check the config, bind what is new. Whatever fails leaves everything as it is."""
        if self._fleet.phase in (Phase.STOPPING, Phase.GONE):
            return []
        logger.info("HUP: reloading")
        try:
            config = self._hooks.load()
            listeners = self._bind_changed(config)
        except AsgiriError as error:
            why = "; ".join(str(error).splitlines())
            logger.error("the reload is refused, generation %d goes on: %s", self._fleet.generation, why)
            return []
        before = self._all_listeners()
        self._submitted = Plan(config, listeners)  # in the place of one that has not begun
        self._close_unused(before)
        return [Reload(policy_of(config))]

    def _bind_changed(self, config: Config) -> list[Listener]:
        """The listeners of ``config``: kept where the address stays, bound where it is new, or its file is gone."""
        kept = [listener for listener in self._all_listeners() if not listener.is_lost]
        wanted: list[Listener] = []
        fresh: list[Listener] = []
        try:
            for listen in config.listen:
                same = next((listener for listener in kept if listener.listen.address == listen.address), None)
                if same is None:
                    fresh.append(bind(listen))
                else:
                    kept.remove(same)  # each of two ports 0 keeps its own
                    if not binds_alike(same.listen, listen):
                        logger.warning("%s stays as it was bound: what else changed needs a restart", same.url)
                wanted.append(same or fresh[-1])
        except BaseException:
            for listener in fresh:
                listener.close()
            raise
        for listener in fresh:
            logger.info("listening on %s (%s)", listener.url, ", ".join(listener.listen.http))
        return wanted

    def _all_listeners(self) -> list[Listener]:
        plans = [*self._plans.values(), *([self._submitted] if self._submitted else [])]
        return list(dict.fromkeys(listener for plan in plans for listener in plan.listeners))

    def _drop_plans(self, *generations: int) -> None:
        before = self._all_listeners()
        for generation in generations:
            del self._plans[generation]
        self._close_unused(before)

    def _close_unused(self, before: list[Listener]) -> None:
        """Close those of the listeners ``before`` that no plan needs any more."""
        used = self._all_listeners()
        for listener in before:
            if listener not in used:
                logger.info("no longer listening on %s", listener.url)
                listener.close()

    # Commands

    def _execute(self, command: Command, trace: str) -> None:
        match command:
            case Fork():
                self._fork(command)
            case Drain(worker_id, reason):
                if child := self._by_worker.get(worker_id):  # else its exit is among the events that come next
                    child.link.send(ORDERS[reason])
            case Kill(worker_id, how):
                if child := self._by_worker.get(worker_id):
                    os.kill(child.pid, SIGNALS[how])
            case Commit(generation):
                self._apply(self._plans[generation].config)
            case Abandon(generation, why):
                logger.error(
                    "the reload failed, generation %d goes on: %s",
                    self._fleet.generation,
                    why,
                    extra={"trace": trace},
                )
                self._drop_plans(generation)
            case Settled(generation):
                logger.info("the reload is complete: generation %d serves", generation)
                self._drop_plans(*[number for number in self._plans if number < generation])
            case Announce():
                logger.info("ready: %d worker%s", self._fleet.count, "s" if self._fleet.count > 1 else "")
            case Report(level, text):
                logger.log(LEVELS[level], text, extra={"trace": trace})
            case Exit(code):
                self._exit_code = code

    def _apply(self, config: Config) -> None:
        try:
            self._hooks.apply(config)
        except AsgiriError as error:  # the workers serve with it already: no reason to leave them
            logger.error("the master itself goes on as it was: %s", error)

    def _fork(self, command: Fork) -> None:
        plan = self._plan(command.generation)
        try:
            stacks = Stacks()
        except OSError as error:
            self._not_forked(command, error)
            return
        try:
            ours, theirs = make_link()
        except OSError as error:
            stacks.close()
            self._not_forked(command, error)
            return
        slot = self._board.take()
        assert slot is not None
        boot = Boot(
            command.number,
            command.generation,
            plan.config,
            plan.listeners,
            theirs,
            master_pid=os.getpid(),
            board=self._board,
            slot=slot,
            stacks=stacks.fileno(),
        )
        flush_streams()  # or the child would write what is in their buffers once more
        with self._signals.held_back():
            try:
                pid = os.fork()
            except OSError as error:
                ours.close()
                theirs.close()
                stacks.close()
                self._board.give_back(slot)
                self._not_forked(command, error)
                return
            if pid == 0:
                self._become_worker(boot, ours)
        theirs.close()
        child = Child(command.worker_id, pid, ours, slot, stacks)
        self._children[pid] = child
        self._by_worker[command.worker_id] = child
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _not_forked(self, command: Fork, error: OSError) -> None:
        self._pending.append(Exited(command.worker_id, f"could not be forked: {error.strerror}", Ending.UNFORKED))

    def _plan(self, generation: int) -> Plan:
        """The generation's plan; a generation that has none yet is the reload that was submitted last."""
        if generation not in self._plans:
            assert self._submitted is not None
            self._plans[generation], self._submitted = self._submitted, None
        return self._plans[generation]

    def _become_worker(self, boot: Boot, ours: ParentEnd) -> NoReturn:
        """In the child: let go of all that is the master's, be a worker, and end without unwinding its stack."""
        status = int(ExitCode.FAILED)
        try:
            self._signals.leave_in_child()
            self._selector.close()
            ours.close()
            for child in self._children.values():
                child.link.close()
                child.stacks.close()
            for listener in self._all_listeners():
                if listener not in boot.listeners:
                    listener.sock.close()
            atexit._clear()
            status = self._hooks.worker_main(boot)
            atexit._run_exitfuncs()
        except BaseException:
            logger.exception("the worker crashed")
        finally:
            flush_streams()
            os._exit(status)


def flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):  # a full disk, a closed pipe: not a reason to fail
                stream.flush()


def policy_of(config: Config) -> Policy:
    workers = config.workers
    return Policy(
        count=workers.processes,
        boot_timeout=workers.boot_timeout,
        drain_timeout=workers.drain_timeout,
        backoff_first=workers.respawn_backoff.first,
        backoff_most=workers.respawn_backoff.most,
    )


def in_words(status: int) -> str:
    """A wait status as a verb phrase: "was killed by SIGKILL", "exited with status 3"."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return f"was killed by {name}" + (" and dumped core" if os.WCOREDUMP(status) else "")
