"""How the service is, for people and for who asks: made of the fleet and of the scoreboard."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asgiri import __version__
from asgiri.supervisor.crew import Worker, WorkerState
from asgiri.supervisor.fleet import Fleet, Phase
from asgiri.supervisor.messages import Report, Vitals
from asgiri.supervisor.recent import Readings
from asgiri.supervisor.scoreboard import BEAT_SECONDS, STALE_SECONDS, Scoreboard, State
from asgiri.supervisor.verbs import ServiceStatus, WorkerStatus
from asgiri.units import format_duration

if TYPE_CHECKING:
    from asgiri.supervisor.children import Child
    from asgiri.supervisor.plans import Plan

STATES = {
    Phase.NEW: "starting",
    Phase.STARTING: "starting",
    Phase.RUNNING: "running",
    Phase.STOPPING: "stopping",
    Phase.GONE: "stopping",
}

# How long before its end a certificate is told of, in seconds.
EXPIRES_SOON = 7 * 86400.0


class Status:
    """``children`` is the master's own view of the workers by the fleet's ids, and is read when asked."""

    def __init__(self, fleet: Fleet, children: Mapping[int, Child], board: Scoreboard) -> None:
        self._fleet = fleet
        self._children = children
        self._board = board
        self._readings = Readings()
        self._counts: dict[int, tuple[int, float]] = {}  # of each worker: served at the last count, and the rate then
        self._reload = ""  # what has come of the last one, if it came to nothing
        self._trouble: Report | None = None  # the last one with a worker
        self._began = self._counted_at = time.monotonic()
        self._served_by_gone = 0  # by workers that are reaped
        self._served = 0  # at the last count
        self._rate = 0.0

    def note_end(self, served: int) -> None:
        """A worker is reaped that has served so many requests."""
        self._served_by_gone += served

    def count(self, now: float) -> None:
        """Once a second: how many requests there were since the last time."""
        by_worker = {worker_id: child.slot.served for worker_id, child in self._children.items()}
        served = self._served_by_gone + sum(by_worker.values())
        seconds = now - self._counted_at
        if seconds > 0.0:
            self._rate = max(0.0, (served - self._served) / seconds)
            self._counts = {
                worker_id: (count, max(0.0, (count - self._counts.get(worker_id, (0, 0.0))[0]) / seconds))
                for worker_id, count in by_worker.items()
            }
        self._served, self._counted_at = served, now
        self._readings.add(now, self._board.totals())

    def note_reload(self, failure: str) -> None:
        """What the last reload has come to: empty where it was taken."""
        self._reload = failure

    def note_trouble(self, report: Report) -> None:
        """The log says something of a worker."""
        if report.level in ("warning", "error"):
            self._trouble = report

    def trouble_of(self, generation: int) -> str:
        """What was last found wrong with a worker of this generation; empty when it was with another."""
        trouble = self._trouble
        return trouble.text if trouble is not None and trouble.generation == generation else ""

    def vitals(self, now: float) -> dict[int, Vitals]:
        """What the slots say. Whom a signal or a debugger holds cannot beat, and is not to be blamed."""
        found = {}
        for worker_id, child in self._children.items():
            heard = min(now, child.slot.beat_ns / 1e9)  # any worker may write anything there
            if now - heard > BEAT_SECONDS and child.is_stopped:
                heard = now
            slot = child.slot
            found[worker_id] = Vitals(heard, slot.served, slot.memory, slot.state is State.DRAINING)
        return found

    @property
    def line(self) -> str:
        """One line: ``4 of 4 workers ready, generation 2, 1234 requests/s``."""
        ready = sum(worker.state is WorkerState.READY for worker in self._fleet.workers.values())
        parts = [f"{ready} of {self._fleet.count} workers ready", f"generation {self._fleet.generation}"]
        if self._fleet.is_reloading:
            parts.append("reloading")
        return ", ".join([*parts, f"{self._rate:.0f} requests/s"])

    def full(self, plan: Plan, level: str) -> ServiceStatus:
        """All there is to say; ``plan`` is that of the current generation, ``level`` what is logged."""
        now = time.monotonic()
        return ServiceStatus(
            version=__version__,
            pid=os.getpid(),
            app=plan.config.target,
            state=STATES[self._fleet.phase],
            draining=self._board.master.draining,
            generation=self._fleet.generation,
            count=self._fleet.count,
            uptime=round(now - self._began, 3),
            requests_per_second=round(self._rate, 1),
            log_level=level,
            recent=self._readings.recent(),
            wrong=list(self._wrong(now)),
            listeners=[listener.url for listener in plan.listeners],
            workers=[self._worker(worker, now) for worker in self._fleet.workers.values()],
        )

    def _wrong(self, now: float) -> Iterator[str]:
        """What somebody should look at."""
        fleet = self._fleet
        if fleet.phase is Phase.RUNNING:
            serving = sum(worker.state is WorkerState.READY for worker in fleet.workers.values())
            if serving < fleet.count:
                yield f"{fleet.count - serving} of {fleet.count} workers not serving"
            if fleet.failures:
                said = self.trouble_of(fleet.generation)
                yield f"workers fail, {fleet.failures} in a row{f'; the last one: {said}' if said else ''}"
        for worker_id, worker in fleet.workers.items():
            child = self._children.get(worker_id)
            if worker.state in (WorkerState.HUNG, WorkerState.STUCK):
                yield worker.trouble
            elif worker.state is WorkerState.READY and child is not None:
                silence = now - child.slot.beat_ns / 1e9
                if silence > STALE_SECONDS:
                    how = "is stopped by a signal or a debugger" if child.is_stopped else "is busy or hangs"
                    yield f"{worker} {how}: its event loop has not turned for {format_duration(round(silence))}"
        if fleet.is_reloading and fleet.phase is Phase.RUNNING:
            yield "a reload is under way"
        elif self._reload:
            yield self._reload
        yield from self._expiries()

    def _expiries(self) -> Iterator[str]:
        for at in self._board.master.expiries:
            left = at - time.time()
            if at and left <= 0.0:
                yield "a certificate has expired"
            elif at and left < EXPIRES_SOON:
                yield f"a certificate expires in {left / 86400:.1f} days"

    def _worker(self, worker: Worker, now: float) -> WorkerStatus:
        child = self._children.get(worker.id)
        told = WorkerStatus(
            number=worker.number,
            generation=worker.generation,
            pid=0,
            state="serving" if worker.state is WorkerState.READY else worker.state.name.lower(),
            age=round(now - worker.born, 3),
        )
        if child is None:  # about to be forked
            return told
        slot = child.slot
        silence = max(0.0, now - slot.beat_ns / 1e9)
        return replace(
            told,
            pid=child.pid,
            state="stuck" if worker.state is WorkerState.READY and silence > STALE_SECONDS else told.state,
            silence=round(silence, 3),
            connections=slot.connections,
            requests=slot.requests,
            served=slot.served,
            memory=slot.memory,
            requests_per_second=round(self._counts.get(worker.id, (0, 0.0))[1], 1),
        )
