"""The results for people: a table on the terminal, and docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tests.bench.cases import CASES, MESSAGES, MIB, RATE, TARGETS, VARIED, Case
from tests.bench.results import (
    CLIENT_BUSY,
    CLIENT_SHARED,
    CPU,
    OURS,
    SERVER_BUSY,
    STOLEN,
    WITHOUT,
    CaseResult,
    Ratio,
    Run,
    Series,
    compare,
)
from tests.bench.servers import SERVERS, Http

NOTES = "## Notes"
KEPT = "<!-- Written by hand; `python -m tests.bench --write` keeps what stands below this line. -->"
NONE = "-"
FLAG = "!"
BOUND = "*"  # the load generator was the limit

METHOD = f"""\
One server at a time: one worker on one core, logs off unless the case says otherwise, uvloop where the server can take
it, and a load generator with one thread on another core, over the loopback interface: wrk for HTTP/1.1, and h2load for
HTTP/2, which is spoken by prior knowledge, or by ALPN where there is TLS. Every server runs the same ASGI application
([app.py](../tests/bench/app.py); [starlette_app.py](../tests/bench/starlette_app.py) for that case) on the same
interpreter, started anew for each measurement, checked for the right answer, and warmed up for a second. Rounds are
interleaved: all servers once, then all again in the opposite order. Each figure is the median over the rounds of
asgiri's requests a second divided by the other's in the same round: **2.00 means that asgiri answers twice as many**.
asgiri-h2 is asgiri with the h2 library as its HTTP/2 engine. nginx answers from its configuration (`return 200`) and
runs no Python: it shows how far away the physical limit is.

In `h2-varied` the target, a short cookie, the credentials and two validators are Huffman-coded literals in every
request, because h2load's encoder never indexes those; the other fields are indexed after the first request of a
connection. Each connection asks for {len(VARIED):,} targets in turn and then for the same ones again, so that a server
which remembers what it has decoded gains by it.

The WebSocket cases send binary messages to an echo, uncompressed; each that comes back is compared with what was sent,
and the next one goes out. The client is picows, and over HTTP/2 one of our own
([websocket_client.py](../tests/bench/websocket_client.py)): where it is at its limit ({BOUND}) the CPU time a message
is the better figure. uvicorn runs with the websockets package, which its extra `standard` brings, and with wsproto.

Only ratios are shown, since absolute figures of a shared machine tell nothing about another one. *spread* is the
widest distance between the lowest and the highest round in a row, as a share of the median: a difference that is
smaller is none. {FLAG} marks a figure with a flaw that is told below the table, and {BOUND} one where the load
generator, not the server, was at its limit, so that the server's true figure is better than shown.

To repeat it (Linux, two cores, wrk, h2load, nginx, openssl): `python -m tests.bench --json out.json`; `--help` has the
rest."""


def text(run: Run) -> str:
    """All figures of one run, for the terminal."""
    blocks = [f"{run.python}, {run.machine.get('CPU', '')}: {run.rounds} rounds of {run.seconds} s"]
    blocks += [case_text(case, run.cases[case.name]) for case in CASES.values() if case.name in run.cases]
    targets = target_rows(run)
    if targets:
        blocks.append("\n".join(["targets", *("  " + "  ".join(row) for row in aligned(targets))]))
    blocks += [f"note: {note}" for note in run.notes]
    return "\n\n".join(blocks) + "\n"


def case_text(case: Case, result: CaseResult) -> str:
    rows, remarks = [("", result.unit, "spread", "CPU us", "asgiri is", "")], []
    for name, series in result.series.items():
        if series.skipped and not series.samples:
            remarks.append(f"  {name}: skipped: {series.skipped}")
            continue
        if series.skipped:
            remarks.append(f"  {name}: stopped after {len(series.samples)} rounds: {series.skipped}")
        assert series.median is not None
        cpu, against = series.middle(CPU), compare(result, name)
        rows.append(
            (
                name,
                f"{series.median:,.{0 if result.unit != MIB else 1}f}",
                f"{series.spread:.0%}" if len(series.samples) > 1 else "",
                f"{cpu:.1f}" if cpu is not None else "",
                f"{against.median:.2f}x ({against.low:.2f} to {against.high:.2f})" if against and name != OURS else "",
                marks(series),
            )
        )
        remarks += [f"  {name}: {problem}" for problem in series.problems]
    lines = ["  " + "  ".join(row).rstrip() for row in aligned(rows)]
    return "\n".join([f"{case.name}: {case.says}", *lines, *remarks])


def aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Columns of one width: the first and the last to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        [
            cell.ljust(width) if at in (0, last) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]


def client_bound(series: Series) -> bool:
    """Whether the load generator, and nothing else on its core, had no time left while the server had."""
    if CLIENT_SHARED in series.problems:
        return False
    client, server = series.middle(CLIENT_BUSY), series.middle(SERVER_BUSY)
    return client is not None and server is not None and client > 0.97 and server < 0.93


def marks(series: Series) -> str:
    return (f" {FLAG}" if series.problems else "") + (f" {BOUND}" if client_bound(series) else "")


def target_rows(run: Run) -> list[tuple[str, str, str, str]]:
    """What was promised, and what this run measured."""
    rows = []
    for target in TARGETS:
        case = run.cases.get(target.case)
        figure = target.measured(case) if case else None
        if case is None or figure is None:
            rows.append((target.case, target.says, NONE, "not measured"))
            continue
        missed = abs(figure.median - target.bound) / target.bound
        verdict = "met" if target.met(figure) else f"missed by {missed:.1%}"
        flag = f" {FLAG}" if target.flawed(case) else ""
        rows.append((target.case, target.says, f"{figure.median:.2f}", verdict + flag))
    return rows


def markdown(runs: Sequence[Run], notes: str) -> str:
    """docs/benchmarks.md; ``notes`` is the part that is written by hand."""
    parts = ["# Benchmarks", "<!-- Made by `python -m tests.bench --write`. -->"]
    parts += ["How asgiri compares with other ASGI servers of Python, as ratios.", "## Method", METHOD]
    if not runs:
        parts.append("*Nothing has been measured yet.*")
    for run in runs:
        parts += run_markdown(run)
    commands = {name: command for run in runs for name, command in run.commands.items()}
    if commands:
        parts += ["## How each server was started", *(f"- {name}: `{command}`" for name, command in commands.items())]
    text = "\n\n".join(parts)
    text = re.sub(r"(?m)(^- .+)\n\n(?=- )", r"\1\n", text)
    return f"{text}\n\n{NOTES}\n\n{KEPT}\n{notes}"


def run_markdown(run: Run) -> list[str]:
    """One interpreter: where, the targets, the ratios, and what was odd."""
    parts = [f"## {run.python}", about(run)]
    rows = target_rows(run)
    parts.append(table(["case", "target", "measured", ""], rows))
    for unit, http, what, one in (
        (RATE, (Http.ONE,), "Requests a second over HTTP/1.1", "request"),
        (RATE, (Http.TWO,), "Requests a second over HTTP/2", "request"),
        (MESSAGES, tuple(Http), "Messages a second that WebSockets get back", "message"),
    ):
        found = {name for name, case in run.cases.items() if case.unit == unit}
        ordered = [case for case in CASES.values() if case.name in found and case.http in http]
        if not ordered:
            continue
        parts += [f"{what}, asgiri divided by each:", ratio_table(run, ordered)]
        parts += [f"CPU time a {one}, each divided by asgiri (a check of the above that other programs disturb less):"]
        parts += [cpu_table(run, ordered)]
    memory = [case for case in CASES.values() if case.name in run.cases and case.unit == MIB]
    if memory:
        parts += ["Memory, MiB:", memory_table(run, memory)]
    remarks = odd(run)
    if remarks:
        parts.append("\n".join(f"- {remark}" for remark in remarks))
    return parts


def about(run: Run) -> str:
    """The machine, the versions and the date."""
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run.versions.items()))
    dates = sorted({case.date for case in run.cases.values() if case.date})
    commits = sorted({case.commit for case in run.cases.values() if case.commit})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "never"
    tree = f" asgiri at {', '.join(commits)} (+ is with changes)." if commits else ""
    return (
        f"Measured {when}, {run.rounds} rounds of {run.seconds} s. Machine: {machine}.{tree}\n\nVersions: {versions}."
    )


def others(run: Run, cases: Iterable[Case]) -> list[str]:
    """The servers that asgiri is compared with, in the order of the table of servers."""
    found = {name for case in cases for name in run.cases[case.name].series} - {OURS}
    return [name for name in SERVERS if name in found]


def ratio_table(run: Run, cases: Sequence[Case]) -> str:
    names = others(run, cases)
    rows = []
    for case in cases:
        result = run.cases[case.name]
        found = {name: compare(result, name) for name in names}
        spreads = [(one.high - one.low) / one.median for one in found.values() if one]
        cells = [ratio_cell(one, result.series.get(name), result.series.get(OURS)) for name, one in found.items()]
        itself = compare(result, OURS + WITHOUT)
        instead = "over HTTP/1.1" if case.websocket else "without"
        says = f"{case.name}: {case.says}" + (f" (of its own rate {instead}: {itself.median:.2f})" if itself else "")
        rows.append([says, *cells, f"{max(spreads):.0%}" if spreads else NONE])
    return table(["case", *names, "spread"], rows)


def ratio_cell(figure: Ratio | None, other: Series | None, ours: Series | None) -> str:
    if figure is None or other is None or ours is None:
        return NONE
    flags = FLAG if other.problems or ours.problems else ""
    return f"{figure.median:.2f}{flags}" + (BOUND if client_bound(other) or client_bound(ours) else "")


def cpu_table(run: Run, cases: Sequence[Case]) -> str:
    names = others(run, cases)
    rows = []
    for case in cases:
        series = run.cases[case.name].series
        ours = series[OURS].middle(CPU) if OURS in series else None
        theirs = [series[name].middle(CPU) if name in series else None for name in names]
        without = series[OURS + WITHOUT].middle(CPU) if case.websocket and OURS + WITHOUT in series else None
        says = case.name + (f" (of its own over HTTP/1.1: {ours / without:.2f})" if ours and without else "")
        rows.append([says, *(f"{cpu / ours:.2f}" if cpu and ours else NONE for cpu in theirs)])
    return table(["case", *names], rows)


def memory_table(run: Run, cases: Sequence[Case]) -> str:
    names = [name for name in SERVERS if any(name in run.cases[case.name].series for case in cases)]
    rows = []
    for case in cases:
        series = run.cases[case.name].series
        medians = [series[name].median if name in series else None for name in names]
        rows.append([f"{case.name}: {case.says}", *(NONE if one is None else f"{one:.1f}" for one in medians)])
    return table(["case", *names], rows)


def odd(run: Run) -> list[str]:
    """What a reader must know before believing the figures; the same remark on several cases is one line."""
    found: dict[str, list[str]] = {}
    for case in CASES:
        for name, series in run.cases[case].series.items() if case in run.cases else ():
            if series.skipped:
                found.setdefault(f"{name} was not measured: {series.skipped}", []).append(case)
            for problem in series.problems:
                rounds = sum(problem in sample.problems for sample in series.samples)
                found.setdefault(f"{FLAG} {name}: {problem}", []).append(f"{case} ({rounds} of {len(series.samples)})")
            stolen = series.middle(STOLEN)
            if stolen is not None and stolen > 0.01:
                found.setdefault("the host took over 1% of a core's time away", []).append(f"{case}/{name}")
    return [*run.notes, *(f"{remark}: {', '.join(cases)}" for remark, cases in found.items())]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def kept_notes(document: str) -> str:
    """What was written by hand in an earlier docs/benchmarks.md."""
    _, found, notes = document.partition(KEPT + "\n")
    return notes if found else ""
