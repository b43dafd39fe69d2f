"""The push: each interval, what has been counted since the last one, as statsd's lines in datagrams.

Counters are ``|c``, by how much they have grown; gauges are ``|g``; of a histogram there is a counter ``NAME.count``
and percentiles of the interval as gauges, ``NAME.p50``. The values of labels are parts of the name.
https://github.com/statsd/statsd/blob/master/docs/metric_types.md

Nobody waits for whoever listens there: what cannot be sent is lost, and is no part of the next interval.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec import structs

from asgiri.admin.families import Families, Family
from asgiri.config.schema import Statsd
from asgiri.metrics.catalogue import Kind
from asgiri.metrics.change import grown, quantiles

logger = logging.getLogger("asgiri.admin")

# Bytes of a datagram: what goes through any network in one piece.
PACKET_MOST: Final = 1400
# How often a name is looked up again, in intervals: where it leads may change.
LOOK_UP_EVERY: Final = 30

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")

# The number that each series had, by family and the values of its labels.
Baseline = dict[tuple[str, tuple[str, ...]], Sequence[float]]


class Lines:
    """The lines of each interval. ``prefix`` is what names begin with, dots in it are kept."""

    def __init__(self, families: Families, prefix: str) -> None:
        self._families = families
        self._prefix = ".".join(part for part in map(safe, prefix.split(".")) if part)
        self._before = self._take()[1]

    def next(self) -> list[str]:
        """What has come since the last call."""
        families, now = self._take()
        before, self._before = self._before, now
        return [
            f"{self._name(family.name, values, *more)}:{number}"
            for family in families
            for values, numbers in family.samples
            for more, number in parts(family, numbers, before.get((family.name, values)))
        ]

    def _take(self) -> tuple[list[Family], Baseline]:
        families = self._families.all()
        return families, {(one.name, values): numbers for one in families for values, numbers in one.samples}

    def _name(self, *parts: str | tuple[str, ...]) -> str:
        flat = [one for part in parts for one in ((part,) if isinstance(part, str) else part)]
        return ".".join([*filter(None, [self._prefix]), *(safe(one) for one in flat)])


def parts(
    family: Family, numbers: Sequence[float], before: Sequence[float] | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is sent of a series: more of its name, and the number with its type. Of what has not happened, nothing."""
    if family.kind is Kind.GAUGE:
        yield (), f"{plain(numbers[0])}|g"
        return
    since = [grown(int(then), int(now)) for then, now in zip(before or [0] * len(numbers), numbers, strict=True)]
    if family.kind is Kind.COUNTER:
        if since[0]:
            yield (), f"{since[0]}|c"
        return
    buckets = since[:-1]
    if count := sum(buckets):
        yield ("count",), f"{count}|c"
        for name, number in structs.asdict(quantiles(buckets)).items():
            yield (name,), f"{plain(number)}|g"


def plain(number: float) -> str:
    """Without an exponent, which not all understand, and to the microsecond."""
    return str(number) if isinstance(number, int) else f"{number:.6f}".rstrip("0").rstrip(".")


def safe(text: str) -> str:
    """A part of a name: what others than letters, digits, "-" and "_" mean, nobody agrees on."""
    return _UNSAFE.sub("_", text).strip("_")


def packets(lines: Iterable[str], most: int = PACKET_MOST) -> Iterator[bytes]:
    """The lines in as few datagrams as they go into; a line that goes into none is left out."""
    packet = b""
    for text in lines:
        line = text.encode("ascii")
        if len(line) > most:
            continue
        if packet and len(packet) + 1 + len(line) > most:
            yield packet
            packet = b""
        packet = packet + b"\n" + line if packet else line
    if packet:
        yield packet


class Pusher:
    """Sends the lines each interval, from :meth:`start` to :meth:`stop`, in the running loop."""

    def __init__(self, config: Statsd, families: Families) -> None:
        assert config.address is not None
        self._address = config.address
        self._interval = config.interval
        self._lines = Lines(families, config.prefix)
        self._sock: socket.socket | None = None
        self._sent = 0  # intervals, on this socket
        self._fails = False  # and has said so
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._wait()
        self._connect()

    def stop(self) -> None:
        """Send what there is, and no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
            self._send()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _wait(self) -> None:
        self._next = asyncio.get_running_loop().call_later(self._interval, self._push)

    def _push(self) -> None:
        self._wait()
        self._send()
        if self._sock is None or self._sent >= LOOK_UP_EVERY:
            self._connect()

    def _send(self) -> None:
        lines = self._lines.next()
        if self._sock is None:
            return
        try:
            for packet in packets(lines):
                self._sock.send(packet)
        except OSError as error:
            self._failed(error)
        else:
            self._sent += 1
            if self._fails and self._sent > 1:  # that nobody listens, UDP tells at the next one
                self._fails = False
                logger.info("metrics are sent to %s again", self._address)

    def _failed(self, error: OSError) -> None:
        """A full buffer is the listener's, and passes; anything else is a reason to look for it anew."""
        if not self._fails:
            self._fails = True
            logger.warning("metrics cannot be sent to %s: %s", self._address, error.strerror or error)
        if self._sock is not None and error.errno not in (errno.EAGAIN, errno.ENOBUFS):
            self._sock.close()
            self._sock = None

    def _connect(self) -> None:
        """Find whoever listens. A name is looked up in a thread that nobody waits for: it may take its time."""
        scheme, _, path = self._address.partition(":")
        if scheme == "unix":
            self._take(open_unix(path))
            return
        loop = asyncio.get_running_loop()

        def look_up() -> None:
            found = open_udp(self._address)
            with suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(partial(self._take, found))

        threading.Thread(target=look_up, name="statsd", daemon=True).start()

    def _take(self, found: socket.socket | OSError) -> None:
        if isinstance(found, OSError):
            self._failed(found)
            return
        if self._sock is not None:
            self._sock.close()
        self._sock, self._sent = found, 0
        if self._next is None:  # stopped meanwhile
            found.close()
            self._sock = None


def open_unix(path: str) -> socket.socket | OSError:
    return opened(socket.AF_UNIX, f"\0{path[1:]}" if path.startswith("@") else path)


def open_udp(address: str) -> socket.socket | OSError:
    """A socket for a HOST:PORT or [V6]:PORT. Blocks while the name is looked up."""
    host, _, port = address.rpartition(":")
    try:
        family, *_, where = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError) as error:
        return error if isinstance(error, OSError) else OSError(errno.EINVAL, f"this is no name: {host}")
    return opened(family, where)


def opened(family: int, where: object) -> socket.socket | OSError:
    """A datagram socket that sends there, and never waits."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    try:
        sock.connect(where)  # type: ignore[arg-type]
    except OSError as error:
        sock.close()
        return error
    return sock
