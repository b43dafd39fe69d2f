"""wrk, the load generator for HTTP/1.1: how it is called, and what it prints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tests.bench.load import UNITS, Outcome, find


def parse(text: str) -> Outcome:
    """The outcome from the output of ``wrk --latency``. Raises LoadError."""
    errors = {}
    socket_errors = re.search(r"Socket errors: (.+)", text)
    if socket_errors:
        errors = {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", socket_errors[1]) if int(count)}
    status = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    if status:
        errors["status"] = int(status[1])
    total = find(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h),", text, "wrk")
    return Outcome(
        requests=int(total[1]),
        rate=float(find(r"Requests/sec:\s+([\d.]+)", text, "wrk")[1]),
        elapsed=float(total[2]) * UNITS[total[3]],
        latency={"p50": percentile(50, text), "p99": percentile(99, text)},
        errors=errors,
    )


def percentile(number: int, text: str) -> float:
    match = find(rf"\b{number}%\s+([\d.]+)(us|ms|s|m|h)\b", text, "wrk")
    return float(match[1]) * UNITS[match[2]]


def command(url: str, *, connections: int, seconds: int, headers: Mapping[str, str], script: Path | None) -> list[str]:
    """Load ``url`` with one thread."""
    found = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for name, value in headers.items():
        found += ["-H", f"{name}: {value}"]
    if script is not None:
        found += ["-s", str(script)]
    return [*found, url]
