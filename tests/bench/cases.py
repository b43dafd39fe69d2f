"""What is measured, and what the project has promised to reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.bench.app import HELLO, KIB
from tests.bench.client import Request
from tests.bench.h2load import targets
from tests.bench.results import OURS, OURS_REFERENCE, WITHOUT, CaseResult, Ratio, compare
from tests.bench.servers import Http

HERE = Path(__file__).parent
ECHO = b"x" * 1024  # as in echo.lua

# Fifteen fields with the Host that wrk adds, as a browser sends them.
BROWSER = {
    "Connection": "keep-alive",
    "Cache-Control": "max-age=0",
    "sec-ch-ua": '"Chromium";v="140", "Not=A?Brand";v="24"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Referer": "https://shop.example/catalogue?page=2",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Cookie": "session=2f6b1c9e7d3a4f58b0c1d2e3f4a5b6c7; theme=dark; consent=necessary.analytics; cart=41-42-57",
}

# What h2load encodes as indexed fields after its first request, and then four that its encoder never puts into HPACK's
# table: a client's short cookie and its validators are Huffman-coded literals in each request.
API = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    "Accept": "application/json, text/plain;q=0.9, */*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.7",
    "Referer": "https://shop.example/catalogue?page=2",
    "Cookie": "theme=dark; a=1",
    "If-None-Match": 'W/"5f3a9c1e-2d7b40"',
    "If-Modified-Since": "Tue, 13 Jan 2026 08:12:31 GMT",
    "Authorization": "Bearer 2YotnFZFEjr1zCsicMWpAA",
}

RATE = "requests/s"
MESSAGES = "messages/s"
MIB = "MiB"


class Kind(Enum):
    LOAD = "load"  # requests a second
    MEMORY = "memory"  # MiB of the worker after one request
    IDLE_MEMORY = "idle memory"  # MiB more with idle connections
    IDLE_LOAD = "idle load"  # requests a second beside idle connections
    WEBSOCKET = "websocket"  # messages a second that WebSockets get back
    IDLE_WEBSOCKETS = "idle websockets"  # MiB more with idle WebSockets


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the results.

    ``without``: who is measured a second time in each round without what the case is about.
    ``servers``: who is measured when nobody names servers; None is everybody who speaks the case's protocol.
    ``streams``: HTTP/2 requests at once on each connection, or WebSockets. ``paths``: asked for in turn instead of the
    request's. ``flight``: messages of ``size`` bytes under way on each WebSocket; ``compressed``: it offers to deflate.
    """

    name: str
    says: str
    expect: bytes = HELLO
    request: Request = field(default_factory=Request)
    connections: int = 64
    kind: Kind = Kind.LOAD
    app: str = "app:app"
    tls: bool = False
    access_log: bool = False
    script: Path | None = None
    idle: int = 0
    without: tuple[str, ...] = ()
    servers: tuple[str, ...] | None = None
    http: Http = Http.ONE
    streams: int = 1
    paths: tuple[str, ...] = ()
    flight: int = 1
    size: int = 64
    compressed: bool = False

    @property
    def unit(self) -> str:
        if self.kind in (Kind.MEMORY, Kind.IDLE_MEMORY, Kind.IDLE_WEBSOCKETS):
            return MIB
        return MESSAGES if self.kind is Kind.WEBSOCKET else RATE

    @property
    def websocket(self) -> bool:
        return self.kind in (Kind.WEBSOCKET, Kind.IDLE_WEBSOCKETS)


def over_http2(
    name: str,
    says: str,
    expect: bytes = HELLO,
    request: Request | None = None,
    *,
    connections: int = 16,
    streams: int = 16,
    paths: tuple[str, ...] = (),
    tls: bool = False,
) -> Case:
    return Case(
        name,
        f"HTTP/2 {says}",
        expect,
        request or Request(),
        connections=connections,
        streams=streams,
        paths=paths,
        tls=tls,
        http=Http.TWO,
    )


WITH_UVICORN = (OURS, "asgiri-h11", "uvicorn")
VARIED = targets()

CASES = {
    case.name: case
    for case in (
        Case("hello", "GET, 64 connections"),
        Case("single", "GET, one connection", connections=1),
        Case("10k", "GET of 10 KiB", 10 * KIB, Request("/10k")),
        Case("echo", "POST of 1 KiB, sent back", ECHO, Request("/echo", "POST", body=ECHO), script=HERE / "echo.lua"),
        Case("browser", "GET with the 15 header fields of a browser", request=Request(headers=BROWSER)),
        Case("newconn", "GET on a new connection each time", request=Request(headers={"Connection": "close"})),
        Case("access", "GET with the access log on, to a file", access_log=True, without=(OURS,)),
        Case("tls", "GET over TLS", tls=True),
        Case(
            "starlette",
            "GET of a Starlette route that answers JSON",
            b'{"number":42,"name":"item 42","price":9.5}',
            Request("/items/42"),
            app="starlette_app:app",
        ),
        Case("memory", "resident memory of an idle worker", kind=Kind.MEMORY, servers=WITH_UVICORN),
        Case(
            "idle10k",
            "memory that 10,000 idle connections add",
            kind=Kind.IDLE_MEMORY,
            idle=10_000,
            servers=WITH_UVICORN,
        ),
        Case(
            "idle500",
            "GET on one connection, beside 500 idle ones",
            connections=1,
            kind=Kind.IDLE_LOAD,
            idle=500,
            without=WITH_UVICORN,
            servers=WITH_UVICORN,
        ),
        over_http2("h2-hello", "GET, 16 connections of 16 streams"),
        over_http2("h2-one", "GET, one connection of 100 streams", connections=1, streams=100),
        over_http2(
            "h2-echo",
            "POST of 1 KiB, sent back",
            ECHO,
            Request("/echo", "POST", {"Content-Type": "application/octet-stream"}, ECHO),
        ),
        over_http2("h2-100k", "GET of 100 KiB", 100 * KIB, Request("/100k")),
        over_http2(
            "h2-varied",
            f"GET of {len(VARIED):,} targets in turn, 9 header fields, of which 4 and the target are literals",
            request=Request(VARIED[0], headers=API),
            paths=VARIED,
        ),
        over_http2("h2-tls", "GET over TLS", tls=True),
        Case(
            "ws-single", "echo of 64 bytes, one message at a time on 32 WebSockets", connections=32, kind=Kind.WEBSOCKET
        ),
        Case("ws-flight", "the same with 16 in flight on each", connections=32, kind=Kind.WEBSOCKET, flight=16),
        Case("ws-64k", "echo of 64 KiB, one at a time on 32", connections=32, kind=Kind.WEBSOCKET, size=64 * 1024),
        Case(
            "ws-h2",
            "over HTTP/2, echo of 64 bytes, one at a time on 32 connections of one stream",
            connections=32,
            kind=Kind.WEBSOCKET,
            http=Http.TWO,
            without=(OURS,),
        ),
        Case(
            "ws-h2-one",
            "the same on one connection of 32 streams",
            connections=1,
            streams=32,
            kind=Kind.WEBSOCKET,
            http=Http.TWO,
        ),
        Case("ws-idle", "memory that 1,000 idle WebSockets add", kind=Kind.IDLE_WEBSOCKETS, idle=1_000),
        Case(
            "ws-idle-deflate",
            "the same where permessage-deflate was offered",
            kind=Kind.IDLE_WEBSOCKETS,
            idle=1_000,
            compressed=True,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Target:
    """A promise about one case: a ratio to another series, or a figure of ours where ``against`` is None.

    ``ours`` is who has promised: asgiri as it is by default, or with another engine.
    """

    case: str
    against: str | None
    bound: float
    at_most: bool = False
    ours: str = OURS

    @property
    def says(self) -> str:
        who = "" if self.ours == OURS else f"{self.ours} "
        unit = f" x {self.against}" if self.against else f" {CASES[self.case].unit}"
        return f"{who}{'<=' if self.at_most else '>='} {self.bound:g}{unit}"

    def flawed(self, case: CaseResult) -> bool:
        """Whether something was odd about a sample that the figure comes from."""
        return any(case.series[name].problems for name in (self.ours, self.against) if name in case.series)

    def measured(self, case: CaseResult) -> Ratio | None:
        """The ratio, or our figure as one; None where there is no measurement."""
        if self.against is not None:
            return compare(case, self.against, self.ours)
        ours = case.series.get(self.ours)
        if ours is None or not ours.samples:
            return None
        values = sorted(sample.value for sample in ours.samples)
        assert ours.median is not None
        return Ratio(ours.median, values[0], values[-1])

    def met(self, figure: Ratio) -> bool:
        return figure.median <= self.bound if self.at_most else figure.median >= self.bound


TARGETS = (
    Target("hello", "h2corn", 1.0),
    Target("hello", "uvicorn", 1.8),
    Target("access", OURS + WITHOUT, 0.9),
    Target("tls", "h2corn", 0.9),
    Target("memory", "uvicorn", 1.0, at_most=True),
    Target("idle10k", None, 120.0, at_most=True),
    Target("idle500", OURS + WITHOUT, 0.95),  # "must not slow": the twentieth is what one connection's rate scatters by
    Target("h2-hello", "granian", 1.0),
    Target("h2-hello", "h2corn", 1.0),
    Target("h2-varied", "granian", 0.7),
    Target("h2-100k", "granian", 0.7),
    Target("ws-single", "h2corn", 1.1),
    Target("ws-flight", "h2corn", 0.8),
    Target("ws-flight", "uvicorn", 2.0),
    Target("ws-64k", "uvicorn", 1.2),
    Target("ws-h2", OURS + WITHOUT, 0.6),
    *(
        Target(name, "hypercorn", 1.0, ours=OURS_REFERENCE)
        for name in ("h2-hello", "h2-one", "h2-echo", "h2-100k", "h2-varied", "h2-tls")
    ),
)
