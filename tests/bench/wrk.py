"""wrk, the load generator: run it on its core, and read what it prints."""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class WrkError(Exception):
    """wrk failed, or printed what this module does not understand."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times are seconds; ``errors`` says what went wrong and how often, and is empty when nothing did."""

    requests: int
    rate: float
    elapsed: float
    p50: float
    p99: float
    errors: dict[str, int]
    cpu: float = 0.0  # CPU seconds that wrk itself used


def parse(text: str) -> Outcome:
    """The outcome from the output of ``wrk --latency``. Raises WrkError."""
    errors = {}
    socket_errors = re.search(r"Socket errors: (.+)", text)
    if socket_errors:
        errors = {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", socket_errors[1]) if int(count)}
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if status:
        errors["status"] = int(status[1])
    total = find(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h),", text)
    return Outcome(
        requests=int(total[1]),
        rate=float(find(r"Requests/sec:\s+([\d.]+)", text)[1]),
        elapsed=float(total[2]) * UNITS[total[3]],
        p50=percentile(50, text),
        p99=percentile(99, text),
        errors=errors,
    )


def find(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text)
    if match is None:
        raise WrkError(f"no {pattern!r} in the output of wrk: {text.strip() or 'nothing'}")
    return match


def percentile(number: int, text: str) -> float:
    match = find(rf"\b{number}%\s+([\d.]+)(us|ms|s|m|h)\b", text)
    return float(match[1]) * UNITS[match[2]]


def run(
    url: str, *, core: int, connections: int, seconds: int, headers: Mapping[str, str], script: Path | None
) -> Outcome:
    """Load ``url`` with one thread on one core. Raises WrkError."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if script is not None:
        command += ["-s", str(script)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            [*command, url], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 30
        )
    except subprocess.TimeoutExpired as error:
        raise WrkError(f"wrk did not end within {error.timeout:.0f} s") from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise WrkError(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    outcome = parse(done.stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Outcome(outcome.requests, outcome.rate, outcome.elapsed, outcome.p50, outcome.p99, outcome.errors, cpu)
