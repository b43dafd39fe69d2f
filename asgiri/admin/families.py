"""All metrics of a service at one moment, as families of named numbers: what the exposition and statsd are made of."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from msgspec import Struct

from asgiri import __version__
from asgiri.admin.health import Health
from asgiri.admin.status import WorkerState, since, word_of
from asgiri.config.schema import Config
from asgiri.metrics.catalogue import MASTER, WORKER, Kind, Metric
from asgiri.metrics.certificates import certificates_of
from asgiri.supervisor.scoreboard import CERTIFICATES, Scoreboard, Slot

WORKER_STATES: Final[tuple[WorkerState, ...]] = ("booting", "serving", "draining", "stuck")

K = TypeVar("K", bound=tuple[str, ...])


# Of each worker, by its slot and the time.
_OF_WORKER: Final[tuple[tuple[str, str, Callable[[Slot, int], float]], ...]] = (
    ("memory_bytes", "Resident memory of a worker.", lambda slot, _now: slot.memory),
    ("age_seconds", "How long ago a worker was started.", lambda slot, now: since(slot.born_ns, now)),
    ("silence_seconds", "How long ago a worker's event loop last turned.", lambda slot, now: since(slot.beat_ns, now)),
    ("generation", "Which generation of code and config a worker is of.", lambda slot, _now: slot.generation),
    ("requests_in_flight", "Requests of a worker that are not over.", lambda slot, _now: slot.requests),
    ("connections", "Open connections of a worker.", lambda slot, _now: slot.connections),
)


class Family(Struct, frozen=True):
    """``name`` is without ``asgiri_`` and ``_total``. ``samples`` are the values of the labels, and the numbers: one,
    or of a histogram those of the buckets, each without those below it, and the sum.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    samples: list[tuple[tuple[str, ...], Sequence[float]]]


class Families:
    """Of a service that has this board and config."""

    def __init__(
        self,
        board: Scoreboard,
        config: Config,
        clock_ns: Callable[[], int] = Scoreboard.now_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._board = board
        self._config = config
        self._health = Health(board, clock_ns)
        self._clock_ns = clock_ns
        self._wall = wall

    @property
    def info(self) -> dict[str, str]:
        """What is no number."""
        return {"version": __version__, "python": sys.version.split()[0], "app": self._config.target}

    def all(self) -> list[Family]:
        totals, cells = self._board.totals(), self._board.master.cells
        return [
            *(counted(one, totals) for one in WORKER),
            *(counted(one, cells) for one in MASTER),
            *self._of_workers(),
            *self._of_master(),
            self._expiries(),
        ]

    def _of_workers(self) -> Iterator[Family]:
        now = self._clock_ns()
        slots = self._board.workers()
        words = [word_of(slot, now) for slot in slots]
        yield gauge("workers", "Workers, by state.", {(state,): words.count(state) for state in WORKER_STATES}, "state")
        yield gauge("memory_bytes", "Resident memory of all workers.", {(): sum(slot.memory for slot in slots)})
        each = newest(slots)
        states = {(str(slot.number), word_of(slot, now)): 1 for slot in each}
        yield gauge("worker_state", "The state of each worker; 1 for the one that it is in.", states, "worker", "state")
        for name, text, number in _OF_WORKER:
            numbers = {(str(slot.number),): number(slot, now) for slot in each}
            yield gauge(f"worker_{name}", text, numbers, "worker")

    def _of_master(self) -> Iterator[Family]:
        master = self._board.master
        verdict = self._health.verdict()
        for name, text, number in (
            ("workers_wanted", "How many workers there should be.", master.wanted),
            ("generation", "The generation of code and config that serves.", master.generation),
            ("ready", "1 while requests are welcome, as /readyz says it.", int(verdict.ready)),
            ("draining", "1 while the service drains.", int(master.draining)),
            ("start_time_seconds", "When the master has started, in seconds since 1970.", master.started),
            ("master_silence_seconds", "How long ago the master has last shown that it is at work.",
             since(master.beat_ns, self._clock_ns())),
        ):  # fmt: skip
            yield gauge(name, text, {(): number})

    def _expiries(self) -> Family:
        named = certificates_of(self._config)[:CERTIFICATES]
        found = {
            (one.listener, one.name, one.certfile): expires
            for one, expires in zip(named, self._board.master.expiries, strict=False)
            if expires
        }
        text = "When a certificate ends, in seconds since 1970."
        return gauge("certificate_expiry_seconds", text, found, "listener", "name", "certfile")


def counted(one: Metric, row: Sequence[int]) -> Family:
    """The family of a metric of the catalogue, with what is in this row. Of a histogram, only the sum has a unit."""
    samples: list[tuple[tuple[str, ...], Sequence[float]]] = []
    for index, values in enumerate(one.series):
        words = row[one.first + one.width * index : one.first + one.width * (index + 1)]
        scaled = [*words[:-1], words[-1] if one.scale == 1.0 else words[-1] * one.scale]
        samples.append((values, scaled))
    return Family(one.name, one.kind, one.help, tuple(name for name, _ in one.labels), samples)


def gauge(name: str, text: str, numbers: Mapping[K, float], *labels: str) -> Family:
    return Family(name, Kind.GAUGE, text, labels, [(values, (number,)) for values, number in numbers.items()])


def newest(slots: Sequence[Slot]) -> list[Slot]:
    """One slot for each number: of a worker and the one that replaces it, that one."""
    found = {slot.number: slot for slot in sorted(slots, key=lambda slot: (slot.generation, slot.born_ns))}
    return [found[number] for number in sorted(found)]
