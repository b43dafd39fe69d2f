"""What a histogram says in a few numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asgiri.metrics.catalogue import BUCKETS

if TYPE_CHECKING:
    from asgiri.metrics.catalogue import Metric


def buckets(metric: Metric, now: Sequence[int], before: Sequence[int] | None = None) -> list[int]:
    """How many fell into each bucket, over all series of a histogram, between two readings of all words.

    Without ``before``: ever. A count that is less than it was has been written over, and counts as none.
    """
    found = [0] * (len(BUCKETS) + 1)
    for first in range(metric.first, metric.first + metric.size, metric.width):
        for index in range(len(found)):
            more = now[first + index] - (before[first + index] if before is not None else 0)
            found[index] += max(0, more)
    return found


def quantile(counts: Sequence[int], part: float) -> float:
    """The time in seconds that this part (0 to 1) of what was counted is not above; 0.0 of nothing.

    Within a bucket all is taken to be spread evenly. What is over the last bound is taken for that bound.
    """
    wanted = part * sum(counts)
    below = 0
    for index, count in enumerate(counts):
        if count and below + count >= wanted:
            if index == len(BUCKETS):
                break
            low = BUCKETS[index - 1] if index else 0.0
            return low + (BUCKETS[index] - low) * (wanted - below) / count
        below += count
    return BUCKETS[-1] if below or any(counts) else 0.0
