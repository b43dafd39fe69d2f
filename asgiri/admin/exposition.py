"""/metrics: the exposition for Prometheus, in its text format or that of OpenMetrics, as the asker likes it.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest as as_text
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
from prometheus_client.registry import Collector

from asgiri.admin.families import Families, Family
from asgiri.admin.pages import Page, Question
from asgiri.metrics.catalogue import BUCKETS, Kind

PREFIX: Final = "asgiri_"
OPENMETRICS: Final = "application/openmetrics-text"
TEXT: Final = "text/plain"
_BOUNDS: Final = (*(str(bound) for bound in BUCKETS), "+Inf")


class Exposition(Collector):
    """The page, and the collector that it is made of."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def describe(self) -> list[Exposed]:
        """Nothing: the registry has no other collector whose names these could take."""
        return []

    def collect(self) -> Iterator[Exposed]:
        yield InfoMetricFamily("asgiri", "What serves, and what is served.", self._families.info)
        for family in self._families.all():
            yield exposed(family)

    def page(self, question: Question) -> Page:
        if prefers_openmetrics(question.accept):
            body: bytes = as_openmetrics(self._registry)  # type: ignore[no-untyped-call]
            content_type = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
        else:
            body, content_type = as_text(self._registry), f"{TEXT}; version=0.0.4; charset=utf-8"
        return Page(200, body, content_type.encode("ascii"))


def prefers_openmetrics(accept: str) -> bool:
    """Whether an Accept field (RFC 9110 section 12.5.1) names it, and no other format of ours before it.

    The library's own look at the field fails for versions that are no numbers. Of each format there is one here.
    """
    weights: dict[str, float] = {}
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        known = re.fullmatch(r"[01](?:\.\d{0,3})?", weight, re.ASCII)
        weights[kind] = max(weights.get(kind, 0.0), float(weight) if known else 0.0)
    return 0 < weights.get(OPENMETRICS, 0.0) >= weights.get(TEXT, 0.0)


def exposed(family: Family) -> Exposed:
    """The family as the library has it: its counters get their ``_total``, its buckets those below them."""
    name = PREFIX + family.name
    match family.kind:
        case Kind.COUNTER:
            counter = CounterMetricFamily(name, family.help, labels=family.labels)
            for values, (number,) in family.samples:
                counter.add_metric(values, number)
            return counter
        case Kind.GAUGE:
            gauge = GaugeMetricFamily(name, family.help, labels=family.labels)
            for values, (number,) in family.samples:
                gauge.add_metric(values, number)
            return gauge
        case Kind.HISTOGRAM:
            histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
            for values, numbers in family.samples:
                *buckets, total = numbers
                histogram.add_metric(values, list(zip(_BOUNDS, accumulate(buckets), strict=True)), total)
            return histogram
