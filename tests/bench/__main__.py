"""``python -m tests.bench``: asgiri and its peers, one after the other on one core, the load from another.

Needs Linux, two cores and taskset; wrk for the cases of HTTP/1.1 and h2load for those of HTTP/2; nginx and openssl for
what they are used for. The servers, and picows for the WebSocket cases, come from the package index into a virtual
environment of their own. The process asks nobody and leaves nothing running.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from tests.bench import report, results, system
from tests.bench.cases import CASES, Case
from tests.bench.measure import PATH, Bench, Plan, spoken
from tests.bench.results import CaseResult, MergeError, Run
from tests.bench.servers import SERVERS, Http, Launch, Server
from tests.bench.venv import ROOT, Venv, VenvError, default_path

DOCUMENT = ROOT / "docs" / "benchmarks.md"
QUIET = 0.05  # share of a core that may be busy before the run begins
# The packages whose versions a reader wants to know.
PACKAGES = (
    *("asgiri", "uvicorn", "hypercorn", "granian", "h2corn", "gunicorn", "gunicorn-h1c", "fastpysgi"),
    *("starlette", "uvloop", "httptools", "h11", "h2", "hpack", "aiofastnet", "websockets", "wsproto", "picows"),
)


def main() -> int:
    signal.signal(signal.SIGTERM, end)
    args = arguments()
    try:
        if args.merge is not None:
            runs = results.merge(results.load(path) for path in args.merge)
        else:
            runs = [measure(args)]
            print("\n" + report.text(runs[0]))
    except (MergeError, VenvError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if args.merge is not None and not args.write:
        print("\n\n".join(report.text(run) for run in runs))
    if args.write:
        notes = report.kept_notes(DOCUMENT.read_text("utf-8")) if DOCUMENT.exists() else ""
        DOCUMENT.write_text(report.markdown(runs, notes), "utf-8")
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 0


def end(number: int, frame: FrameType | None) -> None:
    """TERM unwinds the stack, so that what was started is ended."""
    raise SystemExit(128 + number)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__, formatter_class=Formatter)
    parser.add_argument("--servers", type=names(SERVERS), help=f"which of {', '.join(SERVERS)}; default: the main ones")
    parser.add_argument(
        "--cases", type=names(CASES), help="; ".join(f"{one.name}: {one.says}" for one in CASES.values())
    )
    parser.add_argument("--http", choices=["1", "2"], help="only the cases of HTTP/1.1, or only those of HTTP/2")
    parser.add_argument("--bare", action="store_true", help="also a bare httptools protocol on uvloop")
    parser.add_argument("--rounds", type=positive, help="measurements of each server in each case; default 3")
    parser.add_argument("--seconds", type=positive, help="length of a measurement; default 4")
    parser.add_argument("--quick", action="store_true", help="one round of one second: does it work?")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="the servers' interpreter")
    parser.add_argument("--venv", type=Path, metavar="DIR", help="their environment; default: below .bench, kept")
    parser.add_argument("--loop", choices=["uvloop", "asyncio"], default="uvloop", help="event loop of all of them")
    parser.add_argument("--server-core", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument("--client-core", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file, case by case")
    parser.add_argument(
        "--merge", type=Path, nargs="*", metavar="FILE", help="measure nothing; show earlier --json files"
    )
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.seconds = args.seconds or (1 if args.quick else 4)
    if args.merge is None:
        if not asked(args):
            parser.error("none of these cases is of that protocol")
        generators = {"wrk" if case.http is Http.ONE else "h2load" for case in asked(args) if not case.websocket}
        for tool in ("taskset", *sorted(generators)):
            if shutil.which(tool) is None:
                parser.error(f"{tool} is not installed")
        cores = {args.server_core, args.client_core}
        if len(cores) < 2 or not cores <= os.sched_getaffinity(0):
            parser.error(f"two cores are needed; usable here: {sorted(os.sched_getaffinity(0))}")
    return args


def asked(args: argparse.Namespace) -> list[Case]:
    """The cases that the arguments ask for."""
    cases = [CASES[name] for name in args.cases] if args.cases else list(CASES.values())
    wanted = {"1": (Http.ONE,), "2": (Http.TWO,)}.get(args.http, tuple(Http))
    return [case for case in cases if case.http in wanted]


class Formatter(argparse.RawDescriptionHelpFormatter):
    """The docstring as it is written."""


def names(table: Mapping[str, object]) -> Callable[[str], list[str]]:
    """An argument type: names of the table with commas between them."""

    def parse(text: str) -> list[str]:
        found = [name.strip() for name in text.split(",")]
        for name in found:
            if name not in table:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(table)}")
        return found

    return parse


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected 1 or more")
    return number


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure(args: argparse.Namespace) -> Run:
    """One run as the arguments say. Raises VenvError."""
    cases = asked(args)
    servers = chosen(args, cases)
    venv = Venv(args.venv or default_path(args.python))
    say(f"preparing {venv.path}")
    venv.prepare(
        args.python,
        sorted({package for server in servers for package in server.packages}),
        sorted({package for server in servers for package in server.faster}),
    )
    for note in venv.notes:
        say(f"! {note}")
    packages = venv.packages()
    unavailable = missing(servers, venv)
    run = Run(
        python=venv.version(),
        machine=system.machine(),
        versions={name: packages[name] for name in PACKAGES if name in packages} | system.tool_versions(),
        rounds=args.rounds,
        seconds=args.seconds,
        notes=list(venv.notes),
        commands=commands([server for server in servers if server.name not in unavailable], cases, args.loop),
    )
    os.sched_setaffinity(0, {args.client_core})  # what this process does itself must not disturb the servers
    busy = system.background([args.server_core, args.client_core])
    if busy > QUIET:
        run.notes.append(
            f"the machine was not quiet when the run began: a core was {busy:.0%} busy with other programs"
        )
        say(f"! {run.notes[-1]}")
    plan = Plan(
        cases=cases,
        servers=servers,
        bin=venv.bin,
        unavailable=unavailable,
        rounds=args.rounds,
        seconds=args.seconds,
        named=args.servers is not None,
        server_core=args.server_core,
        client_core=args.client_core,
        loop=args.loop,
        commit=system.commit(ROOT),
    )

    def done(name: str, case: CaseResult) -> None:
        run.cases[name] = case
        if args.json is not None:
            results.save(run, args.json)  # after each case: a run that is cut short has not been for nothing

    Bench(plan, say).run(done)
    return run


def chosen(args: argparse.Namespace, cases: list[Case]) -> list[Server]:
    """Those that were named, else the main ones, as far as they have a part in these cases."""
    servers = [
        server
        for server in SERVERS.values()
        if (
            server.name in args.servers
            if args.servers
            else server.chosen and any(case.http in spoken(server, case) for case in cases)
        )
    ]
    if args.bare and SERVERS["bare"] not in servers:
        servers.append(SERVERS["bare"])
    return servers


def missing(servers: list[Server], venv: Venv) -> dict[str, str]:
    """Server -> why it cannot be started here."""
    found = {}
    for server in servers:
        failed = [venv.failures[package] for package in server.packages if package in venv.failures]
        if failed:
            found[server.name] = f"not installed: {failed[0]}"
        elif server.name == "nginx" and shutil.which("nginx", path=PATH) is None:
            found[server.name] = "not installed"
    return found


def commands(servers: list[Server], cases: list[Case], loop: str) -> dict[str, str]:
    """Name of a server, and what is spoken where that is not plain HTTP/1.1 -> how it was started."""
    found: dict[str, str] = {}
    for server in servers:
        for http in Http:
            for websocket in (False, True):
                mine = [case for case in cases if case.http is http and case.websocket is websocket]
                if any(http in spoken(server, case) for case in mine):
                    told = [
                        server.name,
                        *(["WebSocket"] if websocket else []),
                        *([http.value] if http is Http.TWO else []),
                    ]
                    command = shown(server, loop, http, websocket=websocket)
                    if command not in found.values():
                        found[", ".join(told)] = command
    return found


def shown(server: Server, loop: str, http: Http = Http.ONE, *, websocket: bool = False) -> str:
    """The command of a server, without the paths of this machine."""
    if server.name == "nginx":
        return "nginx, one worker: see servers.py for its configuration"
    with tempfile.TemporaryDirectory() as folder:  # some write a file too
        launch = Launch(Path("BIN"), Path(folder), 8000, loop=loop, http=http, websocket=websocket)
        command = server.command(launch)
    return shlex.join(part if not part.startswith(("BIN/", "/")) else Path(part).name for part in command)


if __name__ == "__main__":
    sys.exit(main())
