"""What has come between two looks at the scoreboard's totals: sums, rates, percentiles. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from asgiri.metrics import summary
from asgiri.metrics.catalogue import BUCKETS, Metric, metric

# Counters are words of 64 bits, and may wrap. One that has gone half of that way was written over, and counts nothing.
_MASK: Final = 2**64 - 1
_HALF: Final = 2**63

Row = Sequence[int]


class Quantiles(Struct, frozen=True):
    """The median, and what nine of ten and 99 of a hundred stay below, in seconds; None where there was nothing."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class Change(Struct, frozen=True):
    """From one row of totals to a later one, ``seconds`` apart."""

    before: Row
    after: Row
    seconds: float

    def words(self, first: int, size: int) -> list[int]:
        """How much each of these words has grown."""
        before, after = self.before[first : first + size], self.after[first : first + size]
        return [grown(one, other) for one, other in zip(before, after, strict=True)]

    def count(self, name: str, **only: str) -> int:
        """How much a counter has grown, all of its series together, or those with these values of the labels."""
        one = metric(name)
        grown_by = self.words(one.first, one.size)
        return sum(grown_by[index] for index in series_with(one, **only))

    def rate(self, name: str, **only: str) -> float:
        """The same in a second."""
        return self.count(name, **only) / self.seconds if self.seconds > 0 else 0.0

    def quantiles(self, name: str) -> Quantiles:
        """Of a histogram, all of its series together."""
        one = metric(name)
        counts = [0] * (len(BUCKETS) + 1)
        for start in range(one.first, one.first + one.size, one.width):
            counts = [sum(pair) for pair in zip(counts, self.words(start, len(counts)), strict=True)]
        return quantiles(counts)


def grown(before: int, after: int) -> int:
    """How much a word has grown; nothing when it has shrunk."""
    by = (after - before) & _MASK
    return by if by < _HALF else 0


def series_with(one: Metric, **only: str) -> list[int]:
    """Which series of a metric, by their place, have these values of the labels."""
    names = [name for name, _ in one.labels]
    wanted = [(names.index(name), value) for name, value in only.items()]
    return [at for at, values in enumerate(one.series) if all(values[index] == value for index, value in wanted)]


def quantiles(counts: Sequence[int]) -> Quantiles:
    """Of what is in the buckets of the catalogue, each without those below it."""
    return Quantiles(*(quantile(counts, share) for share in (0.5, 0.9, 0.99)))


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Where this share of all is below, in seconds; None when there is nothing."""
    return summary.quantile(counts, share) if any(counts) else None
