"""/status and /history: how the service is, as JSON. The names are for others to rely on; docs/operations/status.md."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import parse_qs

from msgspec import Struct, structs

from asgiri import __version__
from asgiri.admin.health import Health, Verdict
from asgiri.admin.history import History, Point, Sample
from asgiri.admin.pages import Page, Question, encode
from asgiri.admin.trouble import Trouble, troubles
from asgiri.config.schema import Config
from asgiri.metrics.catalogue import PROTOCOLS, STATUSES, metric
from asgiri.metrics.certificates import certificates_of
from asgiri.metrics.change import Change, Quantiles, series_with
from asgiri.supervisor.scoreboard import CERTIFICATES, STALE_SECONDS, Scoreboard, Slot, State

ServiceState = Literal["starting", "serving", "draining", "replaced"]
WorkerState = Literal["booting", "serving", "draining", "stuck"]

_DAY: Final = 86400.0


class ListenerStatus(Struct, frozen=True):
    bind: str
    tls: bool
    http: tuple[str, ...]


class ServiceStatus(Struct, frozen=True):
    """``replaced``: another master has taken over. ``silence`` is the master's, in seconds. ``metrics``: it counts."""

    version: str
    python: str
    app: str
    state: ServiceState
    live: bool
    ready: bool
    reason: str
    generation: int
    wanted: int
    serving: int
    pid: int
    started: int
    uptime: float
    silence: float
    metrics: bool
    listeners: list[ListenerStatus]


class WorkerStatus(Struct, frozen=True):
    """``stuck``: its event loop has not turned for more than 2.5 seconds. ``rate`` is requests a second."""

    number: int
    generation: int
    pid: int
    state: WorkerState
    age: float
    silence: float
    memory: int
    connections: int
    requests: int
    served: int
    rate: float


class Rates(Struct, frozen=True):
    """A second, over the last ``seconds``. ``errors`` are answers of class 5xx."""

    seconds: float
    requests: float
    by_status: dict[str, float]
    errors: float
    refused: float
    connections: float
    received: float
    sent: float


class Latency(Struct, frozen=True):
    """Over the last seconds, in seconds."""

    duration: Quantiles
    first_byte: Quantiles
    loop_lag: Quantiles


class Open(Struct, frozen=True):
    """What there is at this moment. ``by_protocol`` are connections."""

    connections: int
    by_protocol: dict[str, int]
    websockets: int
    requests: int
    memory: int


class Totals(Struct, frozen=True):
    """Since the master has started."""

    requests: int
    by_status: dict[str, int]
    by_protocol: dict[str, int]
    refused: int
    connections: int
    websockets: int
    received: int
    sent: int
    worker_exits: dict[str, int]
    reloads: dict[str, int]


class CertificateStatus(Struct, frozen=True):
    """``name`` is the server name that it is shown for, empty for any other; ``expires`` is seconds since 1970."""

    listener: str
    name: str
    certfile: str
    expires: int
    days_left: float


class Status(Struct, frozen=True):
    at: float
    second: int
    service: ServiceStatus
    troubles: list[Trouble]
    workers: list[WorkerStatus]
    rates: Rates
    latency: Latency
    open: Open
    certificates: list[CertificateStatus]
    totals: Totals
    history: list[Point] | None = None


class Reporter:
    """Makes the status of a service that has this board and config."""

    def __init__(
        self,
        board: Scoreboard,
        config: Config,
        history: History,
        clock_ns: Callable[[], int] = Scoreboard.now_ns,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._board = board
        self._config = config
        self._history = history
        self._health = Health(board, clock_ns)
        self._clock_ns = clock_ns
        self._wall = wall

    def status_page(self, question: Question) -> Page:
        """``?history`` adds the last minutes, ``?history=N`` what came after second N of them."""
        asked = parse_qs(question.query.decode("latin-1"), keep_blank_values=True)
        status = self.status()
        if "history" in asked:
            status = structs.replace(status, history=self._history.points(after(asked["history"][-1])))
        return Page(200, encode(status))

    def history_page(self, _question: Question) -> Page:
        return Page(200, encode(self._history.points()))

    def status(self) -> Status:
        now, wall = self._clock_ns(), self._wall()
        before, last = self._history.lately()
        change = Change(before.totals, last.totals, (last.ns - before.ns) / 1e9)
        service = self._service(self._health.verdict(), now)
        workers = [worker_status(slot, before, last, now) for slot in self._board.workers()]
        workers.sort(key=lambda one: (one.number, one.generation, -one.age))
        certificates = self.certificates(wall)
        rates = rates_of(change)
        return Status(
            at=wall,
            second=now // 10**9,
            service=service,
            troubles=troubles(self._config, service, workers, certificates, rates, self._history.points()),
            workers=workers,
            rates=rates,
            latency=Latency(
                change.quantiles("request_duration_seconds"),
                change.quantiles("request_first_byte_seconds"),
                change.quantiles("loop_lag_seconds"),
            ),
            open=open_of(self._board.totals(), workers),
            certificates=certificates,
            totals=totals_of(self._board.totals(), self._board.master.cells),
        )

    def _service(self, verdict: Verdict, now: int) -> ServiceStatus:
        master = self._board.master
        state: ServiceState = "serving"
        if not master.announced:
            state = "starting"
        elif master.handed_over:
            state = "replaced"
        elif master.draining:
            state = "draining"
        return ServiceStatus(
            version=__version__,
            python=sys.version.split()[0],
            app=self._config.target,
            state=state,
            live=master.is_fresh(now),
            ready=verdict.ready,
            reason=verdict.reason,
            generation=master.generation,
            wanted=verdict.wanted,
            serving=verdict.serving,
            pid=master.pid,
            started=master.started,
            uptime=since(master.started_ns, now),
            silence=since(master.beat_ns, now),
            metrics=self._config.metrics.enabled,
            listeners=[ListenerStatus(one.bind, one.tls is not None, one.http) for one in self._config.listen],
        )

    def certificates(self, wall: float) -> list[CertificateStatus]:
        """Those of which the master has told the end."""
        named = certificates_of(self._config)[:CERTIFICATES]
        return [
            CertificateStatus(one.listener, one.name, one.certfile, expires, round((expires - wall) / _DAY, 2))
            for one, expires in zip(named, self._board.master.expiries, strict=False)
            if expires
        ]


def after(text: str) -> int:
    """The second that somebody has all until; 0, for all that there are, where it is no number."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else 0


def since(then_ns: int, now_ns: int) -> float:
    """Seconds from then to now, to the millisecond."""
    return round(max(0, now_ns - then_ns) / 1e9, 3)


def worker_status(slot: Slot, before: Sample, last: Sample, now: int) -> WorkerStatus:
    key = slot.number, slot.pid
    seconds = (last.ns - max(before.ns, slot.born_ns)) / 1e9
    served = last.served.get(key, 0) - before.served.get(key, 0)
    return WorkerStatus(
        number=slot.number,
        generation=slot.generation,
        pid=slot.pid,
        state=word_of(slot, now),
        age=since(slot.born_ns, now),
        silence=since(slot.beat_ns, now),
        memory=slot.memory,
        connections=slot.connections,
        requests=slot.requests,
        served=slot.served,
        rate=round(max(0.0, served / seconds), 2) if seconds > 0 else 0.0,
    )


def word_of(slot: Slot, now_ns: int) -> WorkerState:
    """The worker's state. One that boots may import for long, and does not beat while it does."""
    match slot.state:
        case State.SERVING | State.DRAINING if now_ns - slot.beat_ns > STALE_SECONDS * 1e9:
            return "stuck"
        case State.SERVING:
            return "serving"
        case State.DRAINING:
            return "draining"
        case _:
            return "booting"


def rates_of(change: Change) -> Rates:
    by_status = {status: round(change.rate("requests", status=status), 2) for status in STATUSES}
    return Rates(
        seconds=round(change.seconds, 2),
        requests=round(change.rate("requests"), 2),
        by_status=by_status,
        errors=by_status["5xx"],
        refused=round(change.rate("requests_refused"), 2),
        connections=round(change.rate("connections_accepted"), 2),
        received=round(change.rate("received_bytes")),
        sent=round(change.rate("sent_bytes")),
    )


def open_of(totals: list[int], workers: list[WorkerStatus]) -> Open:
    return Open(
        connections=sum(one.connections for one in workers),
        by_protocol=by_label(totals, "connections_open", "protocol"),
        websockets=total(totals, "websockets_open"),
        requests=sum(one.requests for one in workers),
        memory=sum(one.memory for one in workers),
    )


def totals_of(totals: list[int], cells: list[int]) -> Totals:
    return Totals(
        requests=total(totals, "requests"),
        by_status=by_label(totals, "requests", "status"),
        by_protocol={protocol: total(totals, "requests", protocol=protocol) for protocol in PROTOCOLS},
        refused=total(totals, "requests_refused"),
        connections=total(totals, "connections_accepted"),
        websockets=total(totals, "websockets_opened"),
        received=total(totals, "received_bytes"),
        sent=total(totals, "sent_bytes"),
        worker_exits=by_label(cells, "worker_exits", "reason"),
        reloads=by_label(cells, "reloads", "result"),
    )


def total(row: list[int], name: str, **only: str) -> int:
    """The sum of a metric's series that have these values of the labels, in a row of totals."""
    one = metric(name)
    return sum(row[one.first + index] for index in series_with(one, **only))


def by_label(row: list[int], name: str, label: str) -> dict[str, int]:
    values = dict(metric(name).labels)[label]
    return {value: total(row, name, **{label: value}) for value in values}
