"""``python -m tests.bench.overload_load HOST:PORT``: asks as often as it is told to, whatever becomes of the answers.

    --rate 0    each of the connections asks again as soon as it is answered: what the server can do
    --rate N    N requests a second, each when it is due: over an idle connection, or a new one where there is none, as
                people come. Who is not answered within its patience goes, and closes its connection.

Prints what it has seen as JSON: see :class:`Seen`. Latencies are counted from when a request was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from dataclasses import asdict, dataclass, field
from typing import cast

REQUEST = b"GET / HTTP/1.1\r\nHost: overload\r\n\r\n"


@dataclass(slots=True)
class Seen:
    """``served`` are the latencies of answers with 200, in seconds, ``turned_away`` those of 503.

    ``late`` had no answer within the patience, ``broken`` lost its connection or could not have one; ``unsent`` found
    no connection free among as many as there may be. ``seconds`` is how long it took, ``lag`` how late the client was
    itself at the worst.
    """

    served: list[float] = field(default_factory=list)
    turned_away: list[float] = field(default_factory=list)
    retry_after: int = 0
    late: int = 0
    broken: int = 0
    unsent: int = 0
    seconds: float = 0.0
    lag: float = 0.0


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._data = b""
        self.due: float | None = None  # of the request in flight
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, due: float) -> None:
        self.due = due
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        lower = head.lower()
        _, found, length = lower.partition(b"content-length:")
        if not end or (found and len(rest) < int(length.split(b"\r\n")[0])):
            return
        self._data = b""
        due, self.due = self.due, None
        if due is None:
            return
        self._load.answered(self, due, int(head.split(b" ", 2)[1]), b"retry-after:" in lower)
        if b"connection: close" in lower:
            self.transport.close()
        else:
            self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """All connections, and what has been seen."""

    def __init__(self, address: str, most: int, patience: float) -> None:
        host, _, port = address.rpartition(":")
        self._place = (host, int(port))
        self._most = most
        self._patience = patience
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._again = False  # at once
        self.seen = Seen()

    async def saturate(self, connections: int, seconds: float) -> None:
        self._again = True
        for _ in range(connections):
            self._open(time.monotonic())
        await asyncio.sleep(seconds)
        self._again = False

    async def pace(self, rate: float, seconds: float) -> None:
        """Requests when they are due, and a look after those that wait, each some milliseconds."""
        began = due = time.monotonic()
        while due < began + seconds:
            now = time.monotonic()
            self.seen.lag = max(self.seen.lag, now - due)
            while due <= now:
                self._one(due)
                due += 1 / rate
            self._give_up(now)
            await asyncio.sleep(max(0.0, min(due - time.monotonic(), 0.005)))

    def _one(self, due: float) -> None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                connection.ask(due)
                return
        if len(self._all) + len(self._opening) < self._most:
            self._open(due)
        else:
            self.seen.unsent += 1

    def _open(self, due: float) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(due))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _connect(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._patience):
                _, connection = await loop.create_connection(lambda: Connection(self), *self._place)
        except TimeoutError:
            self.seen.late += 1
        except OSError:
            self.seen.broken += 1
        else:
            self._all.add(connection)
            connection.ask(due)

    def _give_up(self, now: float) -> None:
        for connection in [one for one in self._all if one.due is not None and now - one.due > self._patience]:
            connection.due = None
            self._all.discard(connection)
            connection.transport.abort()
            self.seen.late += 1

    def answered(self, connection: Connection, due: float, status: int, retry_after: bool) -> None:
        latency = time.monotonic() - due
        if status == 200:
            self.seen.served.append(round(latency, 6))
        else:
            self.seen.turned_away.append(round(latency, 6))
            self.seen.retry_after += retry_after

    def free(self, connection: Connection) -> None:
        if self._again:
            connection.ask(time.monotonic())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        if connection.due is not None:
            self.seen.broken += 1
            connection.due = None
        self._all.discard(connection)
        if self._again:
            self._open(time.monotonic())

    def close(self) -> None:
        for connection in list(self._all):
            connection.due = None
            connection.transport.abort()
        for task in self._opening:
            task.cancel()


async def run(args: argparse.Namespace) -> Seen:
    load = Load(args.address, args.connections, args.patience)
    began = time.monotonic()
    if args.rate:
        await load.pace(args.rate, args.seconds)
    else:
        await load.saturate(args.connections, args.seconds)
    load.seen.seconds = time.monotonic() - began
    load.close()
    await asyncio.sleep(0)
    return load.seen


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.bench.overload_load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: as fast as they are answered")
    parser.add_argument("--connections", type=int, default=32, help="at once, at the most")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--patience", type=float, default=2.0, help="seconds until who asks goes")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(run(parser.parse_args()))
    print(json.dumps(asdict(seen)), flush=True)


if __name__ == "__main__":
    main()
