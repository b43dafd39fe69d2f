"""What is measured, and what the project has promised to reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.bench.app import HELLO, TEN_KIB
from tests.bench.client import Request
from tests.bench.results import OURS, WITHOUT, CaseResult, Ratio, compare

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

RATE = "requests/s"
MIB = "MiB"


class Kind(Enum):
    LOAD = "load"  # requests a second
    MEMORY = "memory"  # MiB of the worker after one request
    IDLE_MEMORY = "idle memory"  # MiB more with idle connections
    IDLE_LOAD = "idle load"  # requests a second beside idle connections


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the results.

    ``without``: who is measured a second time in each round without what the case is about.
    ``servers``: who is measured when nobody names servers; None is everybody.
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

    @property
    def unit(self) -> str:
        return MIB if self.kind in (Kind.MEMORY, Kind.IDLE_MEMORY) else RATE


WITH_UVICORN = (OURS, "asgiri-h11", "uvicorn")

CASES = {
    case.name: case
    for case in (
        Case("hello", "GET, 64 connections"),
        Case("single", "GET, one connection", connections=1),
        Case("10k", "GET of 10 KiB", TEN_KIB, Request("/10k")),
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
    )
}


@dataclass(frozen=True, slots=True)
class Target:
    """A promise about one case: a ratio to another series, or a figure of ours where ``against`` is None."""

    case: str
    against: str | None
    bound: float
    at_most: bool = False

    @property
    def says(self) -> str:
        unit = f" x {self.against}" if self.against else f" {CASES[self.case].unit}"
        return f"{'<=' if self.at_most else '>='} {self.bound:g}{unit}"

    def flawed(self, case: CaseResult) -> bool:
        """Whether something was odd about a sample that the figure comes from."""
        return any(case.series[name].problems for name in (OURS, self.against) if name in case.series)

    def measured(self, case: CaseResult) -> Ratio | None:
        """The ratio, or our figure as one; None where there is no measurement."""
        if self.against is not None:
            return compare(case, self.against)
        ours = case.series.get(OURS)
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
)
