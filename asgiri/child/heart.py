"""The heartbeat of a child: its event loop, while it turns, tells the scoreboard so, and how busy it is."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from typing import Final, Protocol

from asgiri.supervisor.scoreboard import BEAT_SECONDS, Slot, State

# How often the event loop is asked how late it is, in seconds.
LAG_SECONDS: Final = 0.1

# Bytes of a page, and of what getrusage(2) counts in.
_PAGE: Final = resource.getpagesize()
_RUSAGE_UNIT: Final = 1 if sys.platform == "darwin" else 1024


class Busy(Protocol):
    """What a child tells of itself; a server's counts are it."""

    @property
    def accepted(self) -> int: ...

    @property
    def served(self) -> int: ...

    @property
    def requests(self) -> int: ...


class Lags(Protocol):
    """Who wants to know how late the event loop is: :class:`asgiri.metrics.meter.Meter`."""

    def late(self, seconds: float, /) -> None: ...


class Heart:
    """Beats into a slot, at once and then each :data:`BEAT_SECONDS`, from :meth:`start` to :meth:`stop`.

    ``busy`` tells the numbers. ``on_beat`` is called behind each beat, with the time in nanoseconds: whatever else is
    to be looked at once in a while. ``lags`` is told each :data:`LAG_SECONDS` how late the loop was for that.
    """

    def __init__(
        self,
        slot: Slot,
        busy: Callable[[], Busy],
        on_beat: Callable[[int], None] | None = None,
        lags: Lags | None = None,
    ) -> None:
        self._slot = slot
        self._busy = busy
        self._on_beat = on_beat
        self._lags = lags
        self._next: asyncio.TimerHandle | None = None
        self._sampling: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """In the running loop."""
        loop = asyncio.get_running_loop()
        self._beat(loop)
        if self._lags is not None:
            self._sample(loop, self._lags, None)

    def enter(self, state: State) -> None:
        """Say that the child is in this state from now on, and beat."""
        self._slot.state = state
        self._tell()

    def stop(self) -> None:
        for handle in (self._next, self._sampling):
            if handle is not None:
                handle.cancel()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        # From now on, and not from when it was due: after a long block there is one beat, and no burst of them.
        self._next = loop.call_later(BEAT_SECONDS, self._beat, loop)
        self._tell()

    def _sample(self, loop: asyncio.AbstractEventLoop, lags: Lags, due: float | None) -> None:
        """``due`` is when it was to be called; not by the loop's clock, which uvloop has in whole milliseconds."""
        now = time.perf_counter()
        if due is not None:
            lags.late(max(0.0, now - due))
        self._sampling = loop.call_later(LAG_SECONDS, self._sample, loop, lags, now + LAG_SECONDS)

    def _tell(self) -> None:
        busy = self._busy()
        try:
            memory = resident()
        except OSError:  # no descriptor is left: how much it is can wait, that the loop turns cannot
            memory = self._slot.memory
        self._slot.beat(served=busy.served, requests=busy.requests, memory=memory, accepted=busy.accepted)
        if self._on_beat is not None:
            self._on_beat(self._slot.beat_ns)


def resident() -> int:
    """Bytes of this process that are in memory; where the system does not tell, the most that ever were. OSError."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_UNIT
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
