"""``python -m tests.bench.overload``: what is left of a service at three times its capacity, asgiri next to its peers.

Each server runs the application of overload_app.py (5 ms of waiting, 1 ms of the core for each request) with one
worker on one core, the load comes from another. First its peak: as many requests as it answers to a few busy
connections. Then a rate of so many times that, for some seconds, from people who leave after a while. Rows differ in
what a server is told to do about it: ``limits.requests`` (asgiri), ``--limit-concurrency`` (uvicorn),
``--backpressure`` (granian), or nothing.

Needs Linux and taskset. It asks nobody and leaves nothing running.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.process import Running, wait_until
from tests.bench.venv import ROOT, Venv, VenvError, add_options, chosen

LIMIT = 64  # requests at once
LOOP = ["--loop", "uvloop"]
SERVERS = {
    "asgiri, limits.requests": ["asgiri", "-b", "HOST:PORT", "--no-access-log", "--set", f"limits.requests={LIMIT}"],
    "asgiri, limits.connections": [
        *("asgiri", "-b", "HOST:PORT", "--no-access-log", "--set", f"limits.connections={LIMIT}"),
    ],
    "asgiri, no limit": ["asgiri", "-b", "HOST:PORT", "--no-access-log"],
    "uvicorn, --limit-concurrency": [
        *("uvicorn", "--host", "HOST", "--port", "PORT", "--no-access-log", "--log-level", "error"),
        *("--limit-concurrency", str(LIMIT)),
    ],
    "uvicorn, no limit": ["uvicorn", "--host", "HOST", "--port", "PORT", "--no-access-log", "--log-level", "error"],
    "granian, --backpressure": [
        *("granian", "--interface", "asgi", "--host", "HOST", "--port", "PORT", "--no-log"),
        *("--backpressure", str(LIMIT)),
    ],
    "granian, default": ["granian", "--interface", "asgi", "--host", "HOST", "--port", "PORT", "--no-log"],
}
APP = Path(__file__).with_name("overload_app.py")
STARTUP = 20.0  # seconds
HEAD = (
    f"{'':30}{'peak/s':>8}{'asked/s':>9}{'served/s':>10}{'of peak':>9}{'p50 ms':>8}{'p99 ms':>8}"
    f"{'503/s':>8}{'p99 ms':>8}{'late':>7}{'broken':>8}"
)


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.overload", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--times", type=float, default=3.0, help="of the peak that is asked for; default 3")
    parser.add_argument("--seconds", type=float, default=8.0, help="of overload; default 8")
    parser.add_argument("--connections", type=int, default=2000, help="at once, at the most; default 2000")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds until who asks goes; default 2")
    parser.add_argument("--only", action="append", metavar="TEXT", help="rows whose name begins with it; repeatable")
    add_options(parser)
    args = parser.parse_args()
    try:
        venv = chosen(args, ["uvicorn", "granian"], ["uvicorn[standard]"])
    except VenvError as error:
        print(f"overload: {error}", file=sys.stderr)
        return 1
    print(f"{venv.version()}, {args.times:g} times the peak for {args.seconds:g} s\n{HEAD}")
    for name, command in SERVERS.items():
        if not args.only or name.startswith(tuple(args.only)):
            print(row(name, measured(venv, command, args)), flush=True)
    return 0


def measured(venv: Venv, command: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    """What one server does."""
    port = free_port()
    program, *flags = [part.replace("HOST", "127.0.0.1").replace("PORT", str(port)) for part in command]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(APP, folder)  # and not the whole tree: what is measured is what is installed
        command = [str(venv.bin / program), *flags, *LOOP, f"{APP.stem}:app"]
        server = Running(command, core=args.server_core, folder=Path(folder), env=env)
        with server:
            if not wait_until(lambda: server.ended or listens(port), STARTUP) or server.ended:
                raise RuntimeError(f"{program} does not serve: {server.epitaph()}")
            load(port, args, rate=0, connections=16, seconds=1.0)  # warm
            busy = load(port, args, rate=0, connections=16, seconds=3.0)
            peak = len(busy["served"]) / busy["seconds"]
            time.sleep(0.5)
            over = load(port, args, rate=args.times * peak, connections=args.connections, seconds=args.seconds)
    return {"peak": peak, "asked": args.times * peak, **over}


def load(port: int, args: argparse.Namespace, *, rate: float, connections: int, seconds: float) -> dict[str, Any]:
    command = ["taskset", "-c", str(args.client_core), sys.executable, "-m", "tests.bench.overload_load"]
    command += [f"127.0.0.1:{port}", "--rate", str(rate), "--connections", str(connections)]
    command += ["--seconds", str(seconds), "--patience", str(args.patience)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def row(name: str, seen: dict[str, Any]) -> str:
    served, away, seconds = seen["served"], seen["turned_away"], seen["seconds"]
    rate = len(served) / seconds
    return (
        f"{name:30}{seen['peak']:8.0f}{seen['asked']:9.0f}{rate:10.0f}{rate / seen['peak']:8.2f}x"
        f"{percentile(served, 50):8.0f}{percentile(served, 99):8.0f}"
        f"{len(away) / seconds:8.0f}{percentile(away, 99):8.0f}{seen['late'] + seen['unsent']:7d}{seen['broken']:8d}"
        + (f"   the client lagged by {seen['lag'] * 1e3:.0f} ms" if seen["lag"] > 0.1 else "")
    )


def percentile(seconds: list[float], which: int) -> float:
    """In milliseconds; NaN of none."""
    if len(seconds) < 2:
        return float("nan")
    return statistics.quantiles(seconds, n=100, method="inclusive")[which - 1] * 1e3


def listens(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1.0)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
