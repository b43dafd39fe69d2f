"""What was measured lately: the readings of the last seconds, and the percentiles of what lies between them."""

from __future__ import annotations

from collections import deque
from typing import Final

from asgiri.metrics.catalogue import metric
from asgiri.metrics.summary import buckets, quantile
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

        def spread(name: str) -> Spread | None:
            counts = buckets(metric(name), now, before)
            if not any(counts):
                return None
            return Spread(sum(counts), *(round(quantile(counts, part), 6) for part in _PARTS))

        return Recent(
            seconds=round(ended - began, 1),
            duration=spread("request_duration_seconds"),
            first_byte=spread("request_first_byte_seconds"),
            loop_lag=spread("loop_lag_seconds"),
        )
