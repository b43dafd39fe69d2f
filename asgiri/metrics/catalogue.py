"""Every metric: its name, its meaning, and which words of shared memory it is written to. Pure.

A metric is a family of series, one for each combination of its labels' values, in the order of the labels. A series is
one word (a counter, a gauge), or for a histogram one for each bucket and the sum. Words are whole numbers: what is in
seconds for whoever reads it is kept in microseconds.

Names are Prometheus's: without ``asgiri_``, and counters without ``_total``, both of which the exposition adds.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum
from itertools import product
from typing import Final

from msgspec import Struct


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


# Upper bounds of the buckets, in seconds; one more is for all that is longer.
BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MICROSECONDS: Final = 1e-6

PROTOCOLS: Final = ("http/1.1", "h2")  # HTTP/1.0 counts as the former
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
STATUSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx", "left")  # left: the peer has, before an answer began


class Metric(Struct, frozen=True):
    """One family. ``first`` is the word that it begins at; ``scale`` makes a word's number one of the name's unit."""

    name: str
    kind: Kind
    help: str
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    scale: float = 1.0
    first: int = 0

    @property
    def width(self) -> int:
        """Words of one series. A histogram's are its buckets, each without those below it, and the sum."""
        return len(BUCKETS) + 2 if self.kind is Kind.HISTOGRAM else 1

    @property
    def series(self) -> list[tuple[str, ...]]:
        """The values of the labels, of each series in its order; one empty tuple where there are no labels."""
        return list(product(*(values for _, values in self.labels)))

    @property
    def size(self) -> int:
        """Words of all series."""
        return self.width * len(self.series)

    def word(self, *values: str) -> int:
        """The first word of the series with these values of the labels. ValueError when there is none."""
        return self.first + self.width * self.series.index(values)


def _placed(*metrics: Metric) -> tuple[tuple[Metric, ...], int]:
    """The metrics, one behind the other, and how many words they have together."""
    placed, first = [], 0
    for metric in metrics:
        placed.append(Metric(metric.name, metric.kind, metric.help, metric.labels, metric.scale, first))
        first += metric.size
    return tuple(placed), first


_PROTOCOL = ("protocol", PROTOCOLS)

# What each worker writes in its own slot.
WORKER, WORKER_WORDS = _placed(
    Metric(
        "requests",
        Kind.COUNTER,
        "Requests that are over, by what was answered; that of a WebSocket is once it is accepted.",
        (_PROTOCOL, ("method", METHODS), ("status", STATUSES)),
    ),
    Metric(
        "request_duration_seconds",
        Kind.HISTOGRAM,
        "From the request's head to the end of its answer.",
        (_PROTOCOL,),
        MICROSECONDS,
    ),
    Metric(
        "request_first_byte_seconds",
        Kind.HISTOGRAM,
        "From the request's head to the beginning of its answer.",
        (_PROTOCOL,),
        MICROSECONDS,
    ),
    Metric(
        "requests_refused",
        Kind.COUNTER,
        "Requests that the application never saw, by why: limits.requests, allowed_hosts, or not well-formed.",
        (("reason", ("overload", "host", "malformed")),),
    ),
    Metric("received_bytes", Kind.COUNTER, "Bytes received on connections, TLS taken off."),
    Metric("sent_bytes", Kind.COUNTER, "Bytes sent on connections, TLS not put on."),
    Metric("connections_accepted", Kind.COUNTER, "Connections accepted."),
    Metric(
        "connections_refused",
        Kind.COUNTER,
        "Connections that came to nothing: a failed TLS handshake, a bad or missing PROXY header, a peer not trusted.",
        (("reason", ("tls", "proxy_header", "untrusted")),),
    ),
    Metric(
        "accept_pauses",
        Kind.COUNTER,
        "Times that accepting paused: at limits.connections, or for want of descriptors or memory.",
        (("reason", ("limit", "shortage")),),
    ),
    Metric(
        "connections_open",
        Kind.GAUGE,
        "Connections open now, by what they speak; a WebSocket over HTTP/1.1 is one of its own kind.",
        (("protocol", (*PROTOCOLS, "websocket", "unknown")),),
    ),
    Metric("requests_in_flight", Kind.GAUGE, "Requests whose application has not returned."),
    Metric("websockets_open", Kind.GAUGE, "WebSockets open now.", (_PROTOCOL,)),
    Metric("websockets_opened", Kind.COUNTER, "WebSockets accepted.", (_PROTOCOL,)),
    Metric("websocket_messages", Kind.COUNTER, "Messages on WebSockets.", (("direction", ("received", "sent")),)),
    Metric("loop_lag_seconds", Kind.HISTOGRAM, "How late the event loop was for a timer.", (), MICROSECONDS),
    Metric("access_log_lines_lost", Kind.COUNTER, "Lines that the access log could not write."),
    Metric(
        "certificate_swaps",
        Kind.COUNTER,
        "Changed TLS files taken in by a worker.",
        (("result", ("taken", "failed")),),
    ),
)

# Why a worker was replaced, or went.
EXITS: Final = (
    "reload",  # newer code or config
    "recycled",  # asked for by asgirictl
    "max_requests",
    "max_memory",
    "max_lifetime",
    "hung",
    "crashed",  # by a signal or a status that nobody asked for
    "boot",  # it never served
    "scale",  # there were to be fewer
    "stop",  # the service stops, or another master has taken over
)

# What the master writes.
MASTER, MASTER_WORDS = _placed(
    Metric("worker_exits", Kind.COUNTER, "Workers that have ended, by why.", (("reason", EXITS),)),
    Metric("reloads", Kind.COUNTER, "Reloads, by what came of them.", (("result", ("done", "failed")),)),
    Metric(
        "certificate_reloads",
        Kind.COUNTER,
        "Changed TLS files, by whether they were taken in.",
        (("result", ("taken", "refused")),),
    ),
)


def metric(name: str) -> Metric:
    """The metric of this name. KeyError when there is none."""
    return _BY_NAME[name]


_BY_NAME: Final = {one.name: one for one in (*WORKER, *MASTER)}


def bucket(seconds: float) -> int:
    """Which bucket of a histogram this belongs to, from 0 on."""
    return bisect_left(BUCKETS, seconds)
