"""h2load, the load generator for HTTP/2: how it is called, and what it prints.

It tells no percentiles unless it writes a line for each request to a file, which would take its core's time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import UNITS, LoadError, Outcome, find

TIME = r"([\d.]+)(us|ms|s|m|h)"
TARGETS = 1_000  # of a list: enough that no table of a server's or of h2load's holds them all


@dataclass(frozen=True, slots=True)
class Load:
    """``paths`` are asked for in turn, by each connection from the first on; ``body`` is POSTed where there is one."""

    paths: tuple[str, ...]
    connections: int
    streams: int  # at once on each connection
    headers: Mapping[str, str]
    body: bytes | None = None


def targets() -> tuple[str, ...]:
    """Paths with queries of many lengths, as those of an API.

    A ``:path`` has no place in HPACK's dynamic table as h2load encodes it: each is a Huffman-coded literal.
    """
    words = ("orders", "customers", "invoices", "stock-items", "shipments", "Price-Lists", "users", "sessions")
    return tuple(
        f"/any/{words[number % 8]}/{number * 7919 % 1_000_003}"
        f"?page={number % 40}&fields={words[number * 3 % 8]},{words[number * 5 % 7]}"
        f"&token={number * 2654435761 % 2**40:x}"
        for number in range(TARGETS)
    )


def command(url: str, load: Load, *, seconds: int, folder: Path) -> list[str]:
    """Load the server at ``url`` with one thread; what h2load reads from files is put into ``folder``."""
    found = ["h2load", "-t1", f"-c{load.connections}", f"-m{load.streams}", f"-D{seconds}"]
    for name, value in load.headers.items():
        found += ["-H", f"{name}: {value}"]
    if load.body is not None:
        content = folder / "h2load-body"
        content.write_bytes(load.body)
        found += ["-d", str(content)]
    if len(load.paths) == 1:
        return [*found, url + load.paths[0]]
    listed = folder / "h2load-paths"
    listed.write_text("".join(f"{url}{path}\n" for path in load.paths), "ascii")
    return [*found, "-i", str(listed)]


def parse(text: str) -> Outcome:
    """The outcome from what h2load prints of a run of a fixed time. Raises LoadError."""
    protocol = find(r"Application protocol: (\S+)", text, "h2load")[1]
    if not protocol.startswith("h2"):
        raise LoadError(f"the server spoke {protocol} with h2load")
    tls = re.search(r"TLS Protocol: (\S+)", text)
    counts = find(
        r"requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
        text,
        "h2load",
    )
    total = find(rf"finished in {TIME}, ([\d.]+) req/s", text, "h2load")
    statuses = find(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text, "h2load")
    # "failed" counts the others again; a stream that was reset is one of it too.
    errors = {"failed": int(counts[2]), "errored": int(counts[3]), "timeout": int(counts[4])}
    errors["status"] = sum(int(count) for count in statuses.groups())
    requests = int(counts[1])
    return Outcome(
        requests=requests,
        rate=float(total[3]),
        elapsed=float(total[1]) * UNITS[total[2]],
        latency=times(text) if requests else {},
        errors={name: count for name, count in errors.items() if count},
        protocol=" ".join([protocol, *([tls[1]] if tls else [])]),
    )


def times(text: str) -> dict[str, float]:
    """Of a request, from its first byte to the answer's last."""
    match = find(rf"time for request:\s+{TIME}\s+{TIME}\s+{TIME}", text, "h2load")
    return {"mean": float(match[5]) * UNITS[match[6]], "max": float(match[3]) * UNITS[match[4]]}
