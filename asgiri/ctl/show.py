"""What a service answers, as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from asgiri.ctl.talk import CtlError
from asgiri.units import format_duration

if TYPE_CHECKING:
    from asgiri.supervisor.verbs import Recent, ServiceStatus, WorkerStatus


def field(result: object, name: str) -> object:
    """What the service says under this name, or a question mark."""
    return result.get(name, "?") if isinstance(result, dict) else "?"


def reloaded(result: object) -> str:
    """What a reload has come to for people: what it has changed, and what it could not."""
    lines = [f"reloaded: generation {field(result, 'generation')} serves"]
    for name, form in (("changed", "  {}"), ("stays", "  not changed, for that takes an upgrade or a restart: {}")):
        found = field(result, name)  # a service of an earlier release does not say
        lines += [form.format(one) for one in found] if isinstance(found, list) else []
    return "\n".join(lines)


def recycled(result: object) -> str:
    """What a recycling has come to."""
    count = field(result, "replaced")
    return f"recycled: {count} worker{'' if count == 1 else 's'} replaced"


def log_level(result: object) -> str:
    level, configured = field(result, "level"), field(result, "configured")
    return f"log level {level}" + ("" if level == configured else f"; that of the config is {configured}")


def stacks(result: object) -> str:
    """Each worker's, under its name."""
    import msgspec

    from asgiri.supervisor.verbs import WorkerStacks

    try:
        workers = msgspec.convert(field(result, "workers"), list[WorkerStacks])
    except msgspec.ValidationError as error:
        raise CtlError(f"the stacks are not understood, --json shows them: {error}") from error
    parts = [f"worker {one.number} gen {one.generation} (pid {one.pid})\n\n{one.stacks}" for one in workers]
    return "\n\n\n".join(parts) or "there are no workers"


def understood(result: object) -> ServiceStatus:
    """The status. A service of another release may tell less, or more; CtlError where it tells something else."""
    import msgspec

    from asgiri.supervisor.verbs import ServiceStatus

    try:
        return msgspec.convert(result, ServiceStatus)
    except msgspec.ValidationError as error:
        raise CtlError(f"the status is not understood, --json shows it: {error}") from error


def describe(result: object) -> str:
    """The status for people."""
    return "\n".join(lines_of(understood(result)))


def lines_of(service: ServiceStatus) -> list[str]:
    lines = [*head(service), *(f"listening on {url}" for url in service.listeners)]
    lines += [f"{name}: {spread}" for name, spread in spreads(service.recent)]
    lines += [f"! {sentence}" for sentence in service.wrong]
    if service.workers:
        lines += ["", *table([HEAD, *map(row, service.workers)])]
    return lines


def head(service: ServiceStatus) -> tuple[str, str]:
    """What it is, and how it is, in a line each."""
    draining = ", draining (/readyz says 503)" if service.draining else ""
    serving = sum(worker.state == "serving" for worker in service.workers)
    workers = f"{service.count} worker{'s' if service.count != 1 else ''}"
    life = f"{service.state}{draining}, up {span(service.uptime)}"
    rate = f"{service.requests_per_second:.1f} requests/s"
    return (
        f"{service.app}: {life}, asgiri {service.version}, pid {service.pid}",
        f"{serving} of {workers} serving, generation {service.generation}, {rate}",
    )


def spreads(recent: Recent | None) -> Iterator[tuple[str, str]]:
    """What was measured, and how it is spread; nothing of what was not."""
    if recent is not None:
        found = (("requests", recent.duration), ("first byte", recent.first_byte), ("loop lag", recent.loop_lag))
        for name, spread in found:
            if spread is not None:
                parts = ((50, spread.p50), (90, spread.p90), (99, spread.p99))
                told = ", ".join(f"p{part} {short(seconds)}" for part, seconds in parts)
                yield name, f"{told} (last {recent.seconds:.0f}s)"


HEAD: Final = ("worker", "gen", "pid", "state", "age", "memory", "connections", "in flight", "served", "req/s")


def row(worker: WorkerStatus) -> tuple[str, ...]:
    return (
        str(worker.number),
        str(worker.generation),
        str(worker.pid),
        worker.state,
        span(worker.age),
        mebibytes(worker.memory),
        str(worker.connections),
        str(worker.requests),
        str(worker.served),
        f"{worker.requests_per_second:.1f}",
    )


def short(seconds: float) -> str:
    """A time that was measured, to three digits: ``0.250ms``, ``1.20ms``, ``34.0ms``, ``1.50s``."""
    if seconds >= 1.0:
        return f"{seconds:.2f}s"
    return f"{seconds * 1e3:.{3 if seconds < 1e-3 else 2 if seconds < 1e-2 else 1}f}ms"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """The rows with their columns under each other, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in rows]


def span(seconds: float) -> str:
    """A duration to two units or so: ``12s``, ``5m3s``, ``3h12m``, ``2d5h``."""
    coarse = next((unit for least, unit in ((86400, 3600), (3600, 60)) if seconds >= least), 1)
    return format_duration(seconds // coarse * coarse)


def mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f}MiB"
