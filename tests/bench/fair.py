"""``python -m tests.bench.fair``: how evenly workers share long-lived connections, and what that costs short ones.

Two masters with the same four workers, one that shares the accepts out and one that does not, are measured in turns.
``ab`` makes the short connections, from another core where there is one. The process asks nobody and leaves nothing
running.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.system import processes

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0
MODES = ("fair", "plain")

# HTTP/2 in bytes: the preface, empty SETTINGS, and HEADERS of GET http://x/ on stream 1 (RFC 7541 appendix A).
HTTP2_ASK = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0\0\0\6\1\5\0\0\0\1\x82\x86\x84\x41\1x"
WEBSOCKET_ASK = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

Ask = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[int]]


# The application: says which process it is


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    pid = b"%07d" % os.getpid()
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": pid})
        await receive()
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "body": pid})


# The master, as it is or with workers that take all they can


def serve(mode: str, arguments: list[str]) -> None:
    from asgiri.cli import command
    from asgiri.worker.share import BoardShare

    if mode == "plain":
        BoardShare.room = lambda self: sys.maxsize  # type: ignore[method-assign]
    sys.argv[1:] = arguments
    command.main()


@dataclass(frozen=True, slots=True)
class Service:
    """A master that runs."""

    port: int
    pid: int

    def cpu(self) -> float:
        """CPU seconds that it and its workers have used."""
        return sum(one.cpu for one in processes() if one.session == self.pid)


@contextmanager
def service(mode: str, workers: int, core: int | None, *arguments: str) -> Iterator[Service]:
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "tests.bench.fair", "serve", mode, f"--workers={workers}"]
        command += ["--bind=127.0.0.1:0", "--no-access-log", "--lifespan=off", *arguments, "tests.bench.fair:app"]
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        process = subprocess.Popen(
            [*pinned, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
        try:
            yield Service(port_of(process, log), process.pid)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def port_of(process: subprocess.Popen[bytes], log: Any) -> int:
    deadline = time.monotonic() + PATIENCE
    while True:
        text = os.pread(log.fileno(), 1 << 16, 0).decode()
        port = re.search(r"listening on http://127\.0\.0\.1:(\d+)", text)
        if port and "ready:" in text:
            time.sleep(1.2)  # until each worker has seen the others: they look once a second
            return int(port[1])
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the server did not start:\n{text}")
        time.sleep(0.02)


# Long-lived connections


async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    return int(await reader.readexactly(7))


async def http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(HTTP2_ASK)
    while True:
        head = await reader.readexactly(9)
        content = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] == 0:  # DATA
            return int(content)


async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(WEBSOCKET_ASK)
    await reader.readuntil(b"\r\n\r\n")
    return int((await reader.readexactly(9))[2:])


KINDS: dict[str, Ask] = {"HTTP/1.1": http1, "HTTP/2": http2, "WebSocket": websocket}


async def spread(port: int, ask: Ask, connections: int, rate: float) -> tuple[Counter[int], float]:
    """How many connections each process has, and the longest that one took; ``rate`` a second, 0 is all at once."""
    begun = time.perf_counter()
    open_: list[asyncio.StreamWriter] = []
    slowest = 0.0

    async def one(number: int) -> int:
        nonlocal slowest
        if rate:
            await asyncio.sleep(begun + number / rate - time.perf_counter())
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        open_.append(writer)
        pid = await ask(reader, writer)
        slowest = max(slowest, time.perf_counter() - began)
        return pid

    try:
        async with asyncio.timeout(PATIENCE):
            return Counter(await asyncio.gather(*(one(number) for number in range(connections)))), slowest
    finally:
        for writer in open_:
            writer.transport.abort()
        await asyncio.sleep(0.3)  # until the server has seen it


def most_to_mean(counts: Counter[int], workers: int) -> float:
    return max(counts.values()) * workers / counts.total()


def balance(args: argparse.Namespace, services: dict[str, Service]) -> bool:
    """The table of the balance; whether no worker has more than 1.3 times the mean."""
    good = True
    print(
        f"{args.connections} connections, {args.workers} workers: most / mean, and the slowest, of {args.rounds} rounds"
    )
    for kind, ask in KINDS.items():
        for rate in (0, 1000, 200):
            found: dict[str, list[tuple[float, float]]] = {mode: [] for mode in services}
            for _ in range(args.rounds):
                for mode, service in services.items():
                    counts, slowest = asyncio.run(spread(service.port, ask, args.connections, rate))
                    found[mode].append((most_to_mean(counts, args.workers), slowest))
            good &= max(ratio for ratio, _ in found["fair"]) <= 1.3
            cells = (
                f"{mode} {min(rows)[0]:.2f}..{max(rows)[0]:.2f} {max(slow for _, slow in rows) * 1e3:5.0f} ms"
                for mode, rows in found.items()
            )
            print(f"{kind:10} {f'{rate}/s' if rate else 'at once':8}", *cells, sep="  ", flush=True)
    return good


# Short connections


def rate_of(port: int, clients: int, requests: int, core: int | None) -> float:
    """New connections a second, with one request on each."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    command = [*pinned, "ab", "-q", "-c", str(clients), "-n", str(requests), f"http://127.0.0.1:{port}/"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"Failed requests: +(\d+)", text)
    rate = re.search(r"Requests per second: +([\d.]+)", text)
    assert failed, text
    assert rate, text
    if int(failed[1]):
        raise SystemExit(text)
    return float(rate[1])


def rates(args: argparse.Namespace, services: dict[str, Service], core: int | None) -> None:
    for clients in args.clients:
        rate: dict[str, list[float]] = {mode: [] for mode in services}
        cost: dict[str, list[float]] = {mode: [] for mode in services}
        for number in range(args.rounds * 2):
            for mode in MODES if number % 2 else MODES[::-1]:
                before = services[mode].cpu()
                rate[mode].append(rate_of(services[mode].port, clients, args.requests, core))
                cost[mode].append((services[mode].cpu() - before) / args.requests * 1e6)
        print(f"{clients:4} clients: {compared(rate, '/s')};  CPU: {compared(cost, ' us')}", flush=True)


def compared(found: dict[str, list[float]], unit: str) -> str:
    """The medians, and the median ratio of neighbours in time."""
    ratios = [fair / plain for fair, plain in zip(found["fair"], found["plain"], strict=True)]
    middle = {mode: statistics.median(values) for mode, values in found.items()}
    return (
        f"fair {middle['fair']:5.0f}{unit}, plain {middle['plain']:5.0f}{unit}, ratio"
        f" {statistics.median(ratios):.3f} ({min(ratios):.2f}..{max(ratios):.2f})"
    )


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fair", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=["balance", "rate", "all"])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--connections", type=int, default=400)
    parser.add_argument("--requests", type=int, default=8000, help="short connections a round")
    parser.add_argument("--clients", type=int, nargs="*", default=[4, 16, 64, 256], help="short ones at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loop", default="auto")
    args = parser.parse_args()
    good = True
    for pinned in (True, False):
        with ExitStack() as stack:
            core = 0 if pinned else None
            services = {
                mode: stack.enter_context(service(mode, args.workers, core, f"--loop={args.loop}")) for mode in MODES
            }
            print("\npinned: the server has one core, the clients another" if pinned else "\nnot pinned", flush=True)
            if args.what != "rate":
                good &= balance(args, services)
            if args.what != "balance":
                rates(args, services, 1 if pinned and (os.cpu_count() or 1) > 1 else None)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
