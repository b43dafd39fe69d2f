"""What a process that serves has counted and measured, into the words that the catalogue gives it.

It is on by default, so it has to cost next to nothing: what a request pays for is that three values go into a list.
When there are enough of them, or once a second, they are sorted and counted, all at once. Gauges, and what connections
count for themselves, are looked at once a second (:mod:`asgiri.proto.survey`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from time import perf_counter
from typing import Any, Final

from asgiri.metrics.catalogue import BUCKETS, METHODS, STATUSES, metric

# Values of a request in each of its batches, and how many requests are counted without waiting for more.
WHOLE: Final = 3
PIECES: Final = 4
FLUSH_REQUESTS: Final = 512

_PLACES: Final[dict[str, int]] = {method: place for place, method in enumerate(METHODS)}
_OTHER: Final = _PLACES["other"]
_ANSWERED: Final = len(STATUSES) - 1  # the classes of statuses; "left" is behind them

# An application can write into shared memory whatever it likes: a sum must not be more than a word holds.
_MASK: Final = 2**64 - 1


class Requests:
    """The requests of one protocol, and the WebSockets on it.

    ``websockets`` are those that are open: who opens and who ends one counts it.
    """

    __slots__ = (
        "_cells",
        "_duration",
        "_first_byte",
        "_open",
        "_opened",
        "_pieces",
        "_requests",
        "_whole",
        "websockets",
    )

    def __init__(self, cells: memoryview, protocol: str) -> None:
        self._cells = cells
        self._whole: list[Any] = []
        self._pieces: list[Any] = []
        # The series of one protocol follow each other: methods, and of each the classes of statuses.
        self._requests = metric("requests").word(protocol, METHODS[0], STATUSES[0])
        self._duration = metric("request_duration_seconds").word(protocol)
        self._first_byte = metric("request_first_byte_seconds").word(protocol)
        self._open = metric("websockets_open").word(protocol)
        self._opened = metric("websockets_opened").word(protocol)
        self.websockets = 0

    def ended(self, method: str, status: int, began: float) -> None:
        """Note a request whose answer, in one piece, is over now. Raises nothing.

        ``began`` is when it came, of :func:`time.perf_counter`.
        """
        batch = self._whole
        batch += (method, status, perf_counter() - began)
        if len(batch) >= FLUSH_REQUESTS * WHOLE:
            self.count()

    def ended_in_pieces(self, method: str, status: int, began: float, first: float) -> None:
        """The same, where the answer began at ``first``; or with ``status`` 0, never: the peer has left before."""
        batch = self._pieces
        batch += (method, status, perf_counter() - began, first - began)
        if len(batch) >= FLUSH_REQUESTS * PIECES:
            self.count()

    def opened(self) -> None:
        """A WebSocket was accepted."""
        self.websockets += 1
        add(self._cells, self._opened, 1)

    def count(self) -> None:
        """Put what was noted into the words."""
        cells = self._cells
        cells[self._open] = self.websockets
        if batch := self._whole:
            self._whole = []
            self._count_kinds(batch[::WHOLE], batch[1::WHOLE])
            spread = distribution(batch[2::WHOLE])
            add_all(cells, self._duration, spread)
            add_all(cells, self._first_byte, spread)
        if batch := self._pieces:
            self._pieces = []
            statuses = batch[1::PIECES]
            self._count_kinds(batch[::PIECES], statuses)
            add_all(cells, self._duration, distribution(batch[2::PIECES]))
            firsts = [first for first, status in zip(batch[3::PIECES], statuses, strict=True) if status]
            add_all(cells, self._first_byte, distribution(firsts))

    def _count_kinds(self, methods: list[str], statuses: list[int]) -> None:
        number = len(methods)
        if methods.count(methods[0]) == number == statuses.count(statuses[0]):  # as it often is, and quick to see
            self._count_kind(methods[0], statuses[0], number)
            return
        for (method, status), number in Counter(zip(methods, statuses, strict=True)).items():
            self._count_kind(method, status, number)

    def _count_kind(self, method: str, status: int, number: int) -> None:
        kind = min(status // 100, _ANSWERED) - 1 if status else _ANSWERED
        add(self._cells, self._requests + _PLACES.get(method, _OTHER) * len(STATUSES) + kind, number)


class Meter:
    """The words of one process, ``cells``; to be used by one thread, the loop's.

    ``received`` and ``sent`` are bytes of connections that have ended; ``messages_*`` are WebSocket messages.
    """

    __slots__ = (
        "_cells",
        "_lags",
        "_told",
        "http1",
        "http2",
        "messages_received",
        "messages_sent",
        "received",
        "sent",
    )

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells
        self.http1 = Requests(cells, "http/1.1")
        self.http2 = Requests(cells, "h2")
        self.received = 0
        self.sent = 0
        self.messages_received = 0
        self.messages_sent = 0
        self._lags: list[float] = []
        self._told: dict[int, int] = {}  # by word, what it was last told to have come to

    def refuse(self, reason: str) -> None:
        """A request that the application never sees: ``overload``, ``host`` or ``malformed``."""
        self.add("requests_refused", reason)

    def refuse_connection(self, reason: str) -> None:
        """A connection that comes to nothing: ``tls``, ``proxy_header`` or ``untrusted``."""
        self.add("connections_refused", reason)

    def pause(self, reason: str) -> None:
        """Accepting pauses: ``limit`` or ``shortage``."""
        self.add("accept_pauses", reason)

    def late(self, seconds: float) -> None:
        """A timer of the event loop was so late."""
        self._lags.append(seconds)

    def add(self, name: str, *labels: str, number: int = 1) -> None:
        """So many more of a counter: for what is rare. KeyError or ValueError for one that the catalogue lacks."""
        add(self._cells, metric(name).word(*labels), number)

    def reached(self, name: str, value: int, *labels: str) -> None:
        """A counter that somebody else keeps has come to ``value``, from 0 when this meter was made."""
        word = metric(name).word(*labels)
        add(self._cells, word, value - self._told.get(word, 0))
        self._told[word] = value

    def gauge(self, name: str, value: int, *labels: str) -> None:
        self._cells[metric(name).word(*labels)] = value

    def flush(self) -> None:
        """Put what was noted into the words."""
        self.http1.count()
        self.http2.count()
        self.reached("websocket_messages", self.messages_received, "received")
        self.reached("websocket_messages", self.messages_sent, "sent")
        if self._lags:
            add_all(self._cells, metric("loop_lag_seconds").word(), distribution(self._lags))
            self._lags = []


def distribution(seconds: list[float]) -> list[int]:
    """What a histogram's words grow by: how many are in each bucket, and their sum in microseconds."""
    ordered = sorted(seconds)
    found = []
    below = 0
    for bound in BUCKETS:
        upto = bisect_right(ordered, bound, below)
        found.append(upto - below)
        below = upto
    found += (len(ordered) - below, round(sum(ordered) * 1e6))
    return found


def add_all(cells: memoryview, first: int, numbers: list[int]) -> None:
    for place, number in enumerate(numbers):
        if number:
            add(cells, first + place, number)


def add(cells: memoryview, word: int, number: int) -> None:
    cells[word] = (cells[word] + number) & _MASK
