"""The three loads of :mod:`tests.bench.soak_load` as a process, and what they have seen. For the soak and for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.soak_load import LOADS, Failure, Ledger

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds that the process has to end

Window = tuple[float, float]  # from, to, of CLOCK_MONOTONIC


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds; ``count`` is of how many requests."""

    count: int
    p50: float
    p99: float
    most: float


class Seen:
    """What the loads have seen."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @property
    def failures(self) -> list[Failure]:
        return self.ledger.failures

    def requests(self, load: str | None = None) -> int:
        """How many were made, failed ones too."""
        good = sum(len(self.ledger.samples[name]) for name in LOADS if load in (None, name))
        return good + sum(1 for failure in self.failures if load in (None, failure.load))

    def latency(self, load: str | None = None, windows: Iterable[Window] | None = None) -> Latency:
        """Of the good answers, of one load or all, that were under way at some time in one of the windows."""
        spans = None if windows is None else list(windows)
        took = sorted(
            seconds
            for name in LOADS
            if load in (None, name)
            for began, seconds in self.ledger.samples[name]
            if spans is None or any(began <= end and began + seconds >= start for start, end in spans)
        )
        if not took:
            return Latency(0, 0.0, 0.0, 0.0)
        return Latency(len(took), at(took, 0.5), at(took, 0.99), took[-1])

    def complaints(self, most: int = 20) -> str:
        """The failures as lines, the same ones once."""
        found: dict[str, list[float]] = {}
        for failure in self.failures:
            found.setdefault(f"{failure.load}: {failure.why} (worker {failure.pid})", []).append(failure.ended)
        lines = [f"{len(ends)} x {why}, last at {ends[-1]:.3f}" for why, ends in found.items()]
        return "\n".join(lines[:most] + (["..."] if len(lines) > most else []))


def at(ordered: list[float], share: float) -> float:
    """The value that this share of them does not exceed (nearest rank)."""
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]


class Load:
    """The process. Entered, every client has been answered once; it is ended, with :attr:`seen`, on the way out.

    ``address`` and ``arguments`` are those of the program; the path of a unix socket may be relative to ``directory``.
    """

    def __init__(self, address: str, *arguments: str, core: int | None = None, directory: Path = ROOT) -> None:
        self._command = [sys.executable, "-m", "tests.bench.soak_load", address, *arguments]
        self._core = core
        self._directory = directory
        self._seen: Seen | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._core is not None:
            os.sched_setaffinity(self._process.pid, {self._core})
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "running\n":
            self._end()
            raise RuntimeError(f"the load generator ended with {self._process.returncode}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        text = self._end()
        if error is None and self._process.returncode:
            raise RuntimeError(f"the load generator ended with {self._process.returncode}")
        if text:
            found = json.loads(text)
            found["failures"] = [Failure(**failure) for failure in found["failures"]]
            self._seen = Seen(Ledger(**found))

    @property
    def seen(self) -> Seen:
        """What it has seen, once it has ended."""
        assert self._seen is not None
        return self._seen

    def _end(self) -> str:
        """End its input, and take what it prints; it ends by itself."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            text: str = process.stdout.read()
            process.wait(PATIENCE)
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.kill()
                process.wait()
        return text
