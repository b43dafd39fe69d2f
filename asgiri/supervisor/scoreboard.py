"""The scoreboard: what the processes of a service know of each other, in shared memory mapped before the first fork.

One slot for the master, one for what workers that have gone had counted, and one for each child. A slot is a row of
64-bit words, and each word is written by one process only, in one piece (an aligned store of eight bytes), so that
nobody locks and nobody reads half of one. Two words of one slot may be of two moments. Times are CLOCK_MONOTONIC, which
is the same in all processes, in nanoseconds. The words of :mod:`asgiri.metrics.catalogue` follow those of the slot.

An application can write here whatever it likes, over any of it. So whoever reads takes any number, and what the master
must be sure of, such as which slots are free, it keeps to itself.

The pages that nobody uses cost nothing.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from asgiri.metrics.catalogue import MASTER_WORDS, WORKER, WORKER_WORDS, Kind

SLOTS: Final = 1024
BEAT_SECONDS: Final = 1.0  # how often whoever has a slot shows that it is alive
STALE_SECONDS: Final = 2.5  # silent this long, it may be busy; longer, others do not count on it

# How many certificates the master can tell the end of.
CERTIFICATES: Final = 64

# The past as the admin child keeps it, for itself and the one that follows it: rows, one a second, of so many numbers.
HISTORY_SECONDS: Final = 300
HISTORY_NUMBERS: Final = 28

_OWN: Final = 32  # words of a slot that are its own: four cache lines
_WORDS: Final = 256  # with those of the metrics
_SIZE: Final = _WORDS * 8
_MASK: Final = 2**64 - 1
_CERTIFICATES: Final = _OWN + MASTER_WORDS  # where the master's row has them
_PAST: Final = 1  # the row of those that have gone
_MOVED: Final = 0  # its word that is odd while it, and the slot of one that goes, are not to be read
_FIRST: Final = 2  # the row of the first slot
_SUMMED: Final = [
    word for one in WORKER if one.kind is not Kind.GAUGE for word in range(one.first, one.first + one.size)
]
# How often a reader looks again when a worker's counts are being moved; then it takes what it has.
_TRIES: Final = 1000


class State(IntEnum):
    """What a child says of itself."""

    FREE = 0  # nobody has the slot
    BOOTING = 1
    SERVING = 2
    DRAINING = 3


class Slot:
    """What one child tells, once :meth:`take` has given it away; only that child writes.

    ``connections`` and ``requests`` are what is open now; ``accepted`` and ``served`` count from the fork on.
    ``memory`` is resident, in bytes. What somebody else writes over it lasts until the next beat.
    """

    __slots__ = ("_said", "_words", "cells")

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._said: list[int] = []  # in the child: what the first words should be
        self.cells = words[_OWN : _OWN + WORKER_WORDS]  # of the worker's metrics, by the catalogue's words

    def clear(self, born_ns: int) -> None:
        """The master's, before the fork: a slot as new, which beats from now on."""
        self._said = []
        for index in range(_WORDS):
            self._words[index] = 0
        self._words[4] = self._words[5] = born_ns
        self._words[0] = State.BOOTING

    def free(self) -> None:
        """The master's, when the child is reaped."""
        self._words[0] = State.FREE

    @property
    def state(self) -> State:
        """BOOTING, which nobody counts on, for what is no state: any child may write anything."""
        word = self._words[0]
        return State(word) if word <= State.DRAINING else State.BOOTING

    @state.setter
    def state(self, value: State) -> None:
        self._words[0] = value
        if self._said:
            self._said[0] = value

    @property
    def is_serving(self) -> bool:
        """Whether the state is SERVING: for each connection, which has no time to make an enum's member of it."""
        return self._words[0] == State.SERVING

    @property
    def pid(self) -> int:
        return self._words[1]

    @property
    def number(self) -> int:
        """What people call the worker; 0 is no worker."""
        return self._words[2]

    @property
    def generation(self) -> int:
        return self._words[3]

    def introduce(self, pid: int, number: int, generation: int) -> None:
        """The child's first words."""
        self._said = [self._words[0], pid, number, generation, self._words[4]]
        self._words[1], self._words[2], self._words[3] = pid, number, generation

    @property
    def born_ns(self) -> int:
        return self._words[4]

    @property
    def beat_ns(self) -> int:
        """When its event loop last turned, to within :data:`BEAT_SECONDS`."""
        return self._words[5]

    def is_fresh(self, now_ns: int) -> bool:
        """Whether it has shown lately that it is alive."""
        return now_ns - self._words[5] < STALE_SECONDS * 1e9

    def beat(self, *, served: int, requests: int, memory: int, accepted: int) -> None:
        """All that is told once in a while."""
        words = self._words
        for index, value in enumerate(self._said):
            words[index] = value
        words[7], words[8], words[9], words[10] = requests, served, memory, accepted
        words[5] = time.monotonic_ns()

    @property
    def connections(self) -> int:
        return self._words[6]

    @connections.setter
    def connections(self, value: int) -> None:
        self._words[6] = value

    @property
    def requests(self) -> int:
        return self._words[7]

    @property
    def served(self) -> int:
        return self._words[8]

    @property
    def memory(self) -> int:
        return self._words[9]

    @property
    def accepted(self) -> int:
        return self._words[10]


class MasterSlot:
    """What the master tells; only the master writes. What somebody else writes over it lasts a second."""

    __slots__ = ("_said", "_words")

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._said = dict.fromkeys(range(_CERTIFICATES + CERTIFICATES), 0)  # in the master: what the words should be

    def _say(self, index: int, value: int) -> None:
        self._said[index] = self._words[index] = value

    def say_again(self) -> None:
        """The master's, each second."""
        for index, value in self._said.items():
            self._words[index] = value

    @property
    def pid(self) -> int:
        return self._words[0]

    @pid.setter
    def pid(self, value: int) -> None:
        self._say(0, value)

    @property
    def beat_ns(self) -> int:
        """When the master last woke, to within :data:`BEAT_SECONDS`."""
        return self._words[1]

    @beat_ns.setter
    def beat_ns(self, value: int) -> None:
        self._say(1, value)

    def is_fresh(self, now_ns: int) -> bool:
        return now_ns - self._words[1] < STALE_SECONDS * 1e9

    @property
    def wanted(self) -> int:
        """How many workers there should be."""
        return self._words[2]

    @wanted.setter
    def wanted(self, value: int) -> None:
        self._say(2, value)

    @property
    def reached(self) -> int:
        """So many of those wanted have served at once: what a service that is being scaled up is measured by."""
        return self._words[7]

    @reached.setter
    def reached(self, value: int) -> None:
        self._say(7, value)

    @property
    def generation(self) -> int:
        """The one that was committed last."""
        return self._words[3]

    @generation.setter
    def generation(self, value: int) -> None:
        self._say(3, value)

    @property
    def announced(self) -> bool:
        """As many workers as wanted have been ready at once, at some time."""
        return bool(self._words[4])

    @announced.setter
    def announced(self, value: bool) -> None:
        self._say(4, value)

    @property
    def draining(self) -> bool:
        """The service is about to stop, or was asked to look so: whoever balances loads is to look elsewhere."""
        return bool(self._words[5])

    @draining.setter
    def draining(self, value: bool) -> None:
        self._say(5, value)

    @property
    def handed_over(self) -> bool:
        """Another master serves: the workers here drain, and the service does not."""
        return bool(self._words[8])

    @handed_over.setter
    def handed_over(self, value: bool) -> None:
        self._say(8, value)

    @property
    def log_level(self) -> int:
        """The level that asgirictl has set, as :mod:`logging` numbers it; 0: that of the config."""
        return self._words[9]

    @log_level.setter
    def log_level(self, value: int) -> None:
        self._say(9, value)

    @property
    def started(self) -> int:
        """When the master has started, in seconds since 1970."""
        return self._words[16]

    @property
    def started_ns(self) -> int:
        """The same by the clock of the beats."""
        return self._words[17]

    def mark_start(self) -> None:
        """The master's: it has started now."""
        self._say(16, int(time.time()))
        self._say(17, time.monotonic_ns())

    @property
    def cells(self) -> list[int]:
        """What the master has counted, by the catalogue's words."""
        return self._words[_OWN : _OWN + MASTER_WORDS].tolist()

    def count(self, word: int) -> None:
        """One more of what the catalogue has this word for."""
        self._say(_OWN + word, self._said[_OWN + word] + 1)

    @property
    def expiries(self) -> list[int]:
        """When the certificates of the listeners end, in seconds since 1970, 0 for none; in the order of their list."""
        return self._words[_CERTIFICATES : _CERTIFICATES + CERTIFICATES].tolist()

    @expiries.setter
    def expiries(self, value: list[int]) -> None:
        for index in range(CERTIFICATES):
            self._say(_CERTIFICATES + index, value[index] if index < len(value) else 0)

    @property
    def used(self) -> int:
        """So many slots, the first ones, have ever been given away."""
        return self._words[6]

    @used.setter
    def used(self, value: int) -> None:
        self._say(6, value)


class Scoreboard:
    """The whole board, made by the master before it forks. ``slots`` is how many children there can be at once."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._memory = mmap.mmap(-1, (slots + _FIRST) * _SIZE)  # anonymous and shared: forks see the same pages
        self._words = memoryview(self._memory).cast("Q")
        self._history = mmap.mmap(-1, HISTORY_SECONDS * HISTORY_NUMBERS * 8)
        self.history = memoryview(self._history).cast("d")  # the admin child's: see asgiri.admin.history
        self._most = slots
        self.master = MasterSlot(self._row(0))
        past = self._row(_PAST)
        self._moves = 0  # in the master, as what the words of the past should be
        self._gone = [0] * WORKER_WORDS
        self._moved, self._past = past[_MOVED : _MOVED + 1], past[_OWN : _OWN + WORKER_WORDS]
        self._slots: list[Slot] = []  # as far as they have been looked at
        self._given = 0  # slots that have ever been given away: what ``master.used`` tells the others
        self._returned: list[int] = []  # slots that were given away, and are free again

    def _row(self, index: int) -> memoryview:
        return self._words[index * _WORDS : (index + 1) * _WORDS]

    def number_of(self, slot: Slot) -> int:
        """Which slot it is: :meth:`numbered` finds it again, in another process too."""
        return self._slots.index(slot)

    def numbered(self, number: int) -> Slot:
        return self._slot(number)

    def _slot(self, index: int) -> Slot:
        while len(self._slots) <= index:
            self._slots.append(Slot(self._row(len(self._slots) + _FIRST)))
        return self._slots[index]

    def take(self) -> Slot | None:
        """The master's: a cleared slot for a child that is about to be forked; None when all are taken."""
        if self._returned:
            index = self._returned.pop()
        elif self._given < self._most:
            index = self._given
            self._given = index + 1
        else:
            return None
        self.master.used = self._given
        slot = self._slot(index)
        slot.clear(time.monotonic_ns())
        return slot

    def give_back(self, slot: Slot) -> None:
        """The master's: its child is reaped. What it has counted is kept."""
        self._moves += 1
        self._moved[0] = 2 * self._moves - 1
        if slot.number:
            for word in _SUMMED:
                self._gone[word] = (self._gone[word] + slot.cells[word]) & _MASK
                self._past[word] = self._gone[word]
        slot.free()
        self._moved[0] = 2 * self._moves
        self._returned.append(self.number_of(slot))

    def totals(self) -> list[int]:
        """What all workers have counted, those that have gone too, and their gauges of now; by the catalogue's words.

        What a worker has counted is moved when it goes: whoever reads meanwhile would have it twice, or not at all.
        """
        for _ in range(_TRIES):
            before = self._moved[0]
            rows = [self._past.tolist(), *(slot.cells.tolist() for slot in self.workers())]
            if before == self._moved[0] and not before & 1:
                break
        return [sum(column) & _MASK for column in zip(*rows, strict=True)]

    def want(self, count: int) -> None:
        """The master's, each second: there should be so many workers. What is its alone to say, it says again."""
        master = self.master
        master.say_again()
        self._moved[0] = 2 * self._moves
        for word in _SUMMED:
            self._past[word] = self._gone[word]
        for index in self._returned:
            self._slot(index).free()
        serving = sum(slot.state is State.SERVING for slot in self.workers())
        master.wanted, master.reached = count, min(count, max(master.reached, serving))

    @staticmethod
    def now_ns() -> int:
        """The clock that beats are told in."""
        return time.monotonic_ns()

    def __iter__(self) -> Iterator[Slot]:
        """The slots that have somebody, workers and others."""
        slots = map(self._slot, range(min(self.master.used, self._most)))
        return (slot for slot in slots if slot.state is not State.FREE)

    def workers(self) -> list[Slot]:
        """The slots of workers that have introduced themselves."""
        return [slot for slot in self if slot.number]
