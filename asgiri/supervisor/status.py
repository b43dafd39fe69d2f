"""How the service is, for people and for who asks: made of the fleet and of the scoreboard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asgiri import __version__
from asgiri.supervisor.crew import Worker, WorkerState
from asgiri.supervisor.fleet import Fleet, Phase
from asgiri.supervisor.messages import Vitals
from asgiri.supervisor.scoreboard import BEAT_SECONDS, State
from asgiri.supervisor.verbs import ServiceStatus, WorkerStatus

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


class Status:
    """``children`` is the master's own view of the workers by the fleet's ids, and is read when asked."""

    def __init__(self, fleet: Fleet, children: Mapping[int, Child]) -> None:
        self._fleet = fleet
        self._children = children
        self._began = self._counted_at = time.monotonic()
        self._served_by_gone = 0  # by workers that are reaped
        self._served = 0  # at the last count
        self._rate = 0.0

    def note_end(self, served: int) -> None:
        """A worker is reaped that has served so many requests."""
        self._served_by_gone += served

    def count(self, now: float) -> None:
        """Once a second: how many requests there were since the last time."""
        served = self._served_by_gone + sum(child.slot.served for child in self._children.values())
        if now > self._counted_at:
            self._rate = max(0.0, (served - self._served) / (now - self._counted_at))
        self._served, self._counted_at = served, now

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

    def full(self, plan: Plan, draining: bool) -> ServiceStatus:
        """All there is to say; ``plan`` is that of the current generation."""
        now = time.monotonic()
        return ServiceStatus(
            version=__version__,
            pid=os.getpid(),
            app=plan.config.target,
            state=STATES[self._fleet.phase],
            draining=draining,
            generation=self._fleet.generation,
            count=self._fleet.count,
            uptime=round(now - self._began, 3),
            requests_per_second=round(self._rate, 1),
            listeners=[listener.url for listener in plan.listeners],
            workers=[self._worker(worker, now) for worker in self._fleet.workers.values()],
        )

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
        return replace(
            told,
            pid=child.pid,
            silence=round(max(0.0, now - slot.beat_ns / 1e9), 3),
            connections=slot.connections,
            requests=slot.requests,
            served=slot.served,
            memory=slot.memory,
        )
