"""What was measured, as data: samples, their medians and ratios, and the JSON file that holds a run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

OURS = "asgiri"
OURS_REFERENCE = "asgiri-h2"  # with the h2 library as its HTTP/2 engine
# "asgiri without": the same server in the same round, without what the case is about (WebSocket: over HTTP/1.1)
WITHOUT = " without"

# Parts of a sample's detail that are shares of a time, 0 to 1.
SERVER_BUSY, CLIENT_BUSY, STOLEN = "server core busy", "client core busy", "stolen"
CPU = "CPU us a request"  # of all the server's processes

# Problems of a sample.
SERVER_SHARED = "other programs ran on the server's core"
CLIENT_SHARED = "other programs ran on the client's core"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement of one server: ``value`` is in the unit of its case."""

    round: int
    value: float
    detail: dict[str, float] = {}
    problems: list[str] = []


class Series(msgspec.Struct, kw_only=True):
    """All rounds of one server in one case, or why there is none."""

    samples: list[Sample] = []
    skipped: str | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(sample.value for sample in self.samples) if self.samples else None

    @property
    def spread(self) -> float:
        """(highest - lowest) / median; 0 where there is nothing to compare."""
        if len(self.samples) < 2 or not self.median:
            return 0.0
        values = [sample.value for sample in self.samples]
        return (max(values) - min(values)) / self.median

    @property
    def problems(self) -> list[str]:
        """Each problem once, in the order met."""
        return list(dict.fromkeys(problem for sample in self.samples for problem in sample.problems))

    def middle(self, name: str) -> float | None:
        """The median of one detail over the samples that have it."""
        values = [sample.detail[name] for sample in self.samples if name in sample.detail]
        return statistics.median(values) if values else None


class CaseResult(msgspec.Struct, kw_only=True):
    """One case: server -> its series. ``commit`` is that of the measured tree, with a + where it had changes."""

    unit: str
    series: dict[str, Series] = {}
    date: str = ""
    commit: str = ""


class Run(msgspec.Struct, kw_only=True):
    """One invocation, or what several on the same interpreter add up to."""

    python: str
    machine: dict[str, str]
    versions: dict[str, str]
    rounds: int
    seconds: int
    commands: dict[str, str] = {}
    notes: list[str] = []
    cases: dict[str, CaseResult] = {}


class MergeError(Exception):
    """Results that do not belong in one table."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours divided by a peer's, round by round: the median, the lowest and the highest."""

    median: float
    low: float
    high: float


def ratio(ours: Series, other: Series) -> Ratio | None:
    """Rounds are compared with themselves, so that a machine that slows down in between does not bend the result."""
    mine = {sample.round: sample.value for sample in ours.samples}
    quotients = [mine[sample.round] / sample.value for sample in other.samples if sample.round in mine and sample.value]
    if not quotients:
        return None
    return Ratio(statistics.median(quotients), min(quotients), max(quotients))


def compare(case: CaseResult, other: str, ours: str = OURS) -> Ratio | None:
    """asgiri against another series of the case; None where either was not measured."""
    if ours not in case.series or other not in case.series:
        return None
    return ratio(case.series[ours], case.series[other])


def save(run: Run, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")


def load(path: Path) -> Run:
    """Raises MergeError for a file that is not a run of this harness."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.DecodeError) as error:
        raise MergeError(f"{path}: {error}") from error


def merge(runs: Iterable[Run]) -> list[Run]:
    """One run for each interpreter; of a case that several runs measured, the last one counts.

    Raises MergeError when runs of one interpreter come from different machines or have different packages.
    """
    merged: dict[str, Run] = {}
    for run in runs:
        first = merged.get(run.python)
        if first is None:
            merged[run.python] = run
            continue
        for what, one, two in (("machine", first.machine, run.machine), ("packages", first.versions, run.versions)):
            # What one of them did not need, it does not have.
            changed = sorted(key for key in one.keys() & two.keys() if one[key] != two[key])
            if changed:
                raise MergeError(f"{run.python}: the {what} of these runs differ: {', '.join(changed)}")
        merged[run.python] = msgspec.structs.replace(
            run,
            rounds=min(first.rounds, run.rounds),
            seconds=min(first.seconds, run.seconds),
            commands=first.commands | run.commands,
            notes=list(dict.fromkeys(first.notes + run.notes)),
            versions=first.versions | run.versions,
            cases=first.cases | run.cases,
        )
    return [merged[python] for python in sorted(merged, key=version_key)]


def version_key(python: str) -> tuple[int, ...]:
    """``CPython 3.13.0`` sorts after ``CPython 3.9.1``."""
    return tuple(int(part) for part in python.rsplit(" ", 1)[-1].split(".") if part.isdigit())
