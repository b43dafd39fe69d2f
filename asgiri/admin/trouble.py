"""What is wrong with a service, in sentences: what stands on top of the status page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct

from asgiri.config.schema import Config
from asgiri.units import format_duration

if TYPE_CHECKING:
    from asgiri.admin.history import Point
    from asgiri.admin.status import CertificateStatus, Rates, ServiceStatus, WorkerStatus

# Most renew a month before the end, and try each day: two weeks before, that does not work.
CERTIFICATE_DAYS: Final = 14

# This share of answers of class 5xx is worth a sentence, when there were so many requests at all.
ERROR_SHARE: Final = 0.05
ERROR_REQUESTS: Final = 20


class Trouble(Struct, frozen=True):
    """``bad``: somebody should do something; ``warning``: or will have to; ``note``: it passes by itself."""

    level: Literal["bad", "warning", "note"]
    text: str


def troubles(
    config: Config,
    service: ServiceStatus,
    workers: Sequence[WorkerStatus],
    certificates: Sequence[CertificateStatus],
    rates: Rates,
    points: Sequence[Point],
) -> list[Trouble]:
    """All that is wrong, the worst first."""
    found = [
        *_of_service(service, workers),
        *_of_workers(config, workers, points),
        *_of_certificates(certificates),
        *_of_answers(rates),
    ]
    return sorted(found, key=lambda one: ("bad", "warning", "note").index(one.level))


def _of_service(service: ServiceStatus, workers: Sequence[WorkerStatus]) -> Iterator[Trouble]:
    if not service.live:
        yield Trouble("bad", f"The master has been silent for {lasting(service.silence)}: nobody replaces a worker.")
    if service.state == "replaced":
        yield Trouble("note", "Another master has taken over: what is left here drains.")
    elif service.state != "serving":
        yield Trouble("note", f"Not ready: {service.reason}.")
    elif not service.ready:
        yield Trouble("bad", f"Not ready: {service.reason} ({service.serving} of {service.wanted}).")
    elif service.serving < service.wanted:
        booting = sum(one.state == "booting" for one in workers)
        more = f"; {booting} {'is' if booting == 1 else 'are'} starting" if booting else ""
        yield Trouble("warning", f"{service.serving} of {service.wanted} workers serve{more}.")


def _of_workers(config: Config, workers: Sequence[WorkerStatus], points: Sequence[Point]) -> Iterator[Trouble]:
    limit = config.workers.heartbeat_timeout
    then = f"after {format_duration(limit)} it is replaced" if limit else "it is never replaced (heartbeat_timeout: 0)"
    for one in workers:
        if one.state == "stuck":
            who = f"Worker {one.number} (pid {one.pid})"
            yield Trouble("bad", f"{who} has not turned its event loop for {lasting(one.silence)}; {then}.")
    known = [point.failures for point in points if point.failures is not None]
    if known and (ended := int(known[-1] - known[0])) > 0:
        seconds = points[-1].second - points[0].second
        what = "1 worker has" if ended == 1 else f"{ended} workers have"
        yield Trouble("warning", f"{what} crashed, hung or failed to start in the last {lasting(seconds)}.")


def _of_certificates(certificates: Sequence[CertificateStatus]) -> Iterator[Trouble]:
    for one in certificates:
        what = f"The certificate {one.certfile} of {one.name or one.listener}"
        if one.days_left <= 0:
            yield Trouble("bad", f"{what} has ended {lasting(-one.days_left * 86400)} ago.")
        elif one.days_left < CERTIFICATE_DAYS:
            yield Trouble("warning", f"{what} ends in {lasting(one.days_left * 86400)}.")


def _of_answers(rates: Rates) -> Iterator[Trouble]:
    if rates.requests * rates.seconds >= ERROR_REQUESTS and rates.errors >= ERROR_SHARE * rates.requests:
        share = round(100 * rates.errors / rates.requests)
        yield Trouble("warning", f"{share}% of the last requests were answered with an error (5xx).")


def lasting(seconds: float) -> str:
    """As people say it: "3.2s", "45s", "5m", "7h", "12 days"."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    for size, unit in ((86400.0, " days"), (3600.0, "h"), (60.0, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds / size)}{unit}"
    return f"{int(seconds)}s"
