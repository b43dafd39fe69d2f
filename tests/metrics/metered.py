"""What the tests of the meter share: one with words of its own, and a reader of these by the metrics' names."""

from __future__ import annotations

from array import array

from asgiri.metrics.catalogue import BUCKETS, WORKER_WORDS, Kind, metric
from asgiri.metrics.meter import Meter
from asgiri.server import Post, Server


class Metered:
    """A meter and its words, as if no application wrote over them."""

    def __init__(self, server: Server | None = None) -> None:
        self.cells = memoryview(array("Q", bytes(8 * WORKER_WORDS)))
        self.meter = Meter(self.cells)
        self.server = server

    @property
    def post(self) -> Post:
        return Post(meter=self.meter)

    def series(self, name: str) -> dict[str, int]:
        """The series of a metric that are not 0, by their labels' values with spaces between; of a histogram, how
        many it has."""
        if self.server is not None:
            self.server._measure()
        self.meter.flush()
        one = metric(name)
        width = len(BUCKETS) + 1 if one.kind is Kind.HISTOGRAM else 1
        sums = {" ".join(labels): sum(self.cells[one.word(*labels) :][:width]) for labels in one.series}
        return {labels: number for labels, number in sums.items() if number}

    def __getitem__(self, name: str) -> int:
        """All series of it together."""
        return sum(self.series(name).values())

    def buckets(self, name: str, *labels: str) -> list[int]:
        """A histogram's buckets, and the sum in microseconds."""
        self.meter.flush()
        return self.cells[metric(name).word(*labels) :][: len(BUCKETS) + 2].tolist()
