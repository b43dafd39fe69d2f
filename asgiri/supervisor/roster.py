"""The workers of a fleet: who there is, and the steps that change one. Pure; what to do when is the fleet's.

Each step leaves in ``_commands`` what the master is to do about it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct

from asgiri.supervisor.crew import Limits, Worker, WorkerState
from asgiri.supervisor.messages import Command, Drain, DrainReason, Fork, Kill, KillHow, Level, Policy, Report

DRAIN_GRACE = 2.0  # seconds a drain may overrun: the worker cuts what is left at drain_timeout by itself
QUICK_GRACE = 2.0  # seconds from TERM or QUIT, or from a worker's own word that it failed, to KILL


def lot() -> float:
    """Chance, from 0 to 1. Not of :mod:`random`, which with all that it brings would be memory of each worker."""
    return int.from_bytes(os.urandom(2), "big") / 0xFFFF


class Generation(Struct, frozen=True):
    number: int
    policy: Policy


class Roster:
    """What a fleet knows of its workers, of the generation that they should be of, and of the one that is on trial.

    ``spread`` gives each worker its lot, from 0 to 1: how far from the limits of the config its own ones are.
    """

    def __init__(self, policy: Policy, spread: Callable[[], float]) -> None:
        self._spread = spread
        self._now = 0.0  # the time of the event in hand
        self._commands: list[Command] = []  # what came out of it so far
        self._workers: dict[int, Worker] = {}  # in order of birth
        self._last_id = 0
        self._current = Generation(1, policy)
        self._candidate: Generation | None = None
        self._farewell = DrainReason.RETIRE  # why workers go: STOP, once the service does

    @property
    def count(self) -> int:
        """How many workers there should be."""
        return self._current.policy.count

    # Questions.

    def _is_outdated(self, worker: Worker) -> bool:
        return worker.generation < self._current.number

    def _is_old(self, worker: Worker) -> bool:
        """It is to be replaced."""
        return self._is_outdated(worker) or bool(worker.worn)

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

    def _fork(self, number: int, generation: Generation) -> None:
        self._last_id += 1
        worker = Worker(
            id=self._last_id,
            number=number,
            generation=generation.number,
            policy=generation.policy,
            limits=Limits.of(generation.policy, self._spread()),
            state=WorkerState.BOOTING,
            since=self._now,
            born=self._now,
        )
        self._enter(worker, WorkerState.BOOTING, generation.policy.boot_timeout or None)
        self._workers[worker.id] = worker
        self._commands.append(Fork(worker.id, number, generation.number))

    def _wear(self, worker: Worker, reason: str, why: str) -> None:
        if not worker.worn:
            worker.worn, worker.worn_by = why, reason

    def _drain(self, worker: Worker, reason: str) -> None:
        worker.goes_for(reason)
        self._enter(worker, WorkerState.DRAINING, self._drain_limit(worker))
        self._commands.append(Drain(worker.id, self._farewell))

    def _drain_limit(self, worker: Worker) -> float | None:
        limit = worker.policy.drain_timeout
        return limit + DRAIN_GRACE if limit else None

    def _kill(self, worker: Worker, how: KillHow, reason: str = "") -> None:
        """``reason`` is why it goes, where it did not go already."""
        worker.goes_for(reason)
        self._enter(worker, WorkerState.KILLED, None if how is KillHow.KILL else QUICK_GRACE)
        worker.sent = how
        self._commands.append(Kill(worker.id, how))

    def _enter(self, worker: Worker, state: WorkerState, limit: float | None = None) -> None:
        worker.state = state
        worker.since = self._now
        worker.deadline = None if limit is None else self._now + limit

    def _report(self, level: Level, text: str, worker: Worker | None = None, *, stacks: bool = False) -> None:
        if worker is None:
            self._commands.append(Report(level, text))
        else:
            self._commands.append(Report(level, text, worker.id, worker.number, worker.generation, stacks))
