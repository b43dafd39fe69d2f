"""What was measured lately: the readings of the last seconds, and the percentiles of what lies between them."""

from __future__ import annotations

from collections import deque
from typing import Final

from asgiri.metrics.change import Change, quantile
from asgiri.supervisor.verbs import Recent, Spread

# Seconds, or readings: there is one a second.
WINDOW: Final = 10
_PARTS: Final = (0.5, 0.9, 0.99)


class Readings:
    """The totals of the last WINDOW seconds."""

    def __init__(self) -> None:
        self._all: deque[tuple[float, list[int]]] = deque(maxlen=WINDOW + 1)

    def add(self, now: float, totals: list[int]) -> None:
        self._all.append((now, totals))

    def recent(self) -> Recent | None:
        """None in the first second."""
        if len(self._all) < 2:
            return None
        (began, before), (ended, now) = self._all[0], self._all[-1]
        change = Change(before, now, ended - began)
        return Recent(
            seconds=round(change.seconds, 1),
            duration=spread(change, "request_duration_seconds"),
            first_byte=spread(change, "request_first_byte_seconds"),
            loop_lag=spread(change, "loop_lag_seconds"),
        )


def spread(change: Change, name: str) -> Spread | None:
    """Of a histogram; None where nothing has come to it."""
    counts = change.buckets(name)
    found = [quantile(counts, part) for part in _PARTS]
    return Spread(sum(counts), *(round(one, 6) for one in found if one is not None)) if any(counts) else None
