"""``python -m tests.bench.startup``: from the start of a process to its first answer, asgiri next to uvicorn.

Both run the same small application from one virtual environment, in turns, the server on one core and who asks on
another. A round ends with the answer to a request that is sent as soon as the port takes it. Also how long
``asgiri --version`` takes. Needs Linux and taskset. It asks nobody and leaves nothing running.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.venv import VenvError, add_options, chosen

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})
"""
PATIENCE = 20.0  # seconds for one round
PAUSE = 0.0005  # between two attempts to connect, in seconds
VERSION_MOST = 0.150  # seconds: what the design promises


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="starts of each; default 30")
    add_options(parser)
    args = parser.parse_args()
    try:
        venv = chosen(args, ["uvicorn"], ["uvicorn[standard]"])
    except VenvError as error:
        print(f"startup: {error}", file=sys.stderr)
        return 1
    os.sched_setaffinity(0, {args.client_core})
    pinned = ["taskset", "-c", str(args.server_core)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "hello.py").write_text(APP, "utf-8")
        bare = [*pinned, str(venv.bin / "asgiri"), "--version"]
        version = medians({"version": lambda: finished(bare, folder)}, args.rounds)["version"]
        servers = {
            "asgiri": [str(venv.bin / "asgiri"), "--bind", "127.0.0.1:PORT", "hello:app"],
            "uvicorn": [str(venv.bin / "uvicorn"), "--port", "PORT", "hello:app"],
        }
        starts = medians(
            {name: starting([*pinned, *command], folder) for name, command in servers.items()}, args.rounds
        )
    ratio = starts["asgiri"] / starts["uvicorn"]
    print(f"{venv.version()}, medians of {args.rounds}")
    print(f"asgiri --version       {version * 1e3:6.0f} ms   (to be under {VERSION_MOST * 1e3:.0f})")
    print(f"asgiri, first answer   {starts['asgiri'] * 1e3:6.0f} ms   {ratio:.2f}x uvicorn")
    print(f"uvicorn, first answer  {starts['uvicorn'] * 1e3:6.0f} ms")
    return 0


def medians(things: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of what each returns, in turns; a first round, which fills the caches, does not count."""
    found: dict[str, list[float]] = {name: [] for name in things}
    for number in range(rounds + 1):
        for name, one in things.items():
            seconds = one()
            if number:
                found[name].append(seconds)
    return {name: statistics.median(all_) for name, all_ in found.items()}


def finished(command: Sequence[str], folder: str) -> float:
    """Seconds until a command has ended."""
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def starting(command: Sequence[str], folder: str) -> Callable[[], float]:
    """What starts a server, asks it, and ends it; it returns the seconds from the one to the other."""

    def start() -> float:
        port = free_port()
        began = time.perf_counter()
        with subprocess.Popen(
            [part.replace("PORT", str(port)) for part in command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                while not answers(port):
                    if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                        raise RuntimeError(f"no answer from {' '.join(command)}")
                    time.sleep(PAUSE)
                return time.perf_counter() - began
            finally:
                process.terminate()

    return start


def answers(port: int) -> bool:
    """Whether somebody listens; then also its answer is waited for."""
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return client.recv(4096).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
