"""What the two load generators, wrk and h2load, have in common: how they are run, and what they find."""

from __future__ import annotations

import re
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
GRACE = 30  # seconds that a load generator may take beyond the length of the measurement


class LoadError(Exception):
    """A load generator failed, or printed what its module does not understand."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times are seconds; ``errors`` says what went wrong and how often, and is empty when nothing did.

    ``latency`` has what the tool tells: p50 and p99 of wrk, mean and max of h2load. ``protocol`` is what was spoken, as
    far as the tool says so: "h2c", "h2 TLSv1.3".
    """

    requests: int
    rate: float
    elapsed: float
    latency: dict[str, float]
    errors: dict[str, int]
    protocol: str = ""


def run(command: Sequence[str], *, core: int, seconds: int) -> tuple[str, float]:
    """Run a load generator on its core: what it printed, and the CPU seconds that it used. Raises LoadError."""
    tool = command[0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + GRACE,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"{tool} did not end within {error.timeout:.0f} s") from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise LoadError(f"{tool} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def find(pattern: str, text: str, tool: str) -> re.Match[str]:
    """Raises LoadError where ``tool`` printed something else."""
    match = re.search(pattern, text)
    if match is None:
        raise LoadError(f"no {pattern!r} in the output of {tool}: {text.strip() or 'nothing'}")
    return match
