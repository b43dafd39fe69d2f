"""``python -m docs._site.diagrams``: draws the sequence diagrams of docs/guide/reload.md into docs/assets.

They are files, in the colours that the reader's system has, so that they are the same on GitHub, on the site and from a
disk; narrow, so that a telephone shows them whole. Their description, for who does not see them, is made of their rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

ASSETS: Final = Path(__file__).resolve().parents[1] / "assets"
WIDTH: Final = 420
CHARACTER: Final = 6.3  # how wide one is, about, in the font's 12 px
LINE: Final = 15

STYLE: Final = """\
.paper { fill: #fbfbf9; stroke: #dfe3e1; } .life { stroke: #b9c1be; stroke-dasharray: 3 3; }
.lane { fill: #1f6a6e; } text.lane-name { fill: #fff; font-weight: 600; font-size: 10.5px; }
.part { fill: #e6eeec; } .part-name { fill: #1d2426; font-weight: 600; }
text { font: 12px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; fill: #1d2426; }
.said { paint-order: stroke; stroke: #fbfbf9; stroke-width: 5px; stroke-linejoin: round; }
.arrow { stroke: #1f6a6e; stroke-width: 1.5; } .head, .via { fill: #1f6a6e; }
.note { fill: #fff; stroke: #b9c1be; } .else { fill: #fdf4e2; stroke: #d9b26a; }
.end { stroke: #b3261e; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14181a; stroke: #2a3234; } .life { stroke: #4a5658; }
  .lane { fill: #85c7c6; } text.lane-name { fill: #10292b; }
  .part { fill: #222b2d; } text, .part-name { fill: #dde3e2; }
  .said { stroke: #14181a; } .arrow { stroke: #85c7c6; } .head, .via { fill: #85c7c6; }
  .note { fill: #1e2527; stroke: #4a5658; } .else { fill: #322816; stroke: #8a6a2c; } .end { stroke: #ff8f80; }
}"""


@dataclass(frozen=True)
class Part:
    """A heading over what follows."""

    text: str


@dataclass(frozen=True)
class Arrow:
    """Who says what to whom; ``via`` passes it on."""

    source: str
    target: str
    text: str
    via: str = ""


@dataclass(frozen=True)
class Note:
    """What somebody does by itself. ``otherwise``: what happens where it goes wrong."""

    lane: str
    text: tuple[str, ...]
    otherwise: bool = False


@dataclass(frozen=True)
class End:
    """Somebody is there no more."""

    lane: str


Row = Part | Arrow | Note | End


@dataclass
class Diagram:
    """``lanes``: who takes part, and where they stand, in px. ``late`` come with the arrow that is for them first."""

    title: str
    lanes: dict[str, int]
    rows: tuple[Row, ...]
    late: tuple[str, ...] = ()
    _shapes: list[str] = field(default_factory=list)

    def svg(self) -> str:
        self._shapes = []
        begins = {lane: 34 for lane in self.lanes if lane not in self.late}
        ends: dict[str, int] = {}
        y = 44
        for row in self.rows:
            if isinstance(row, Arrow):
                begins.setdefault(row.target, y + 14)
            elif isinstance(row, End):
                ends[row.lane] = y + 8
            y += self._draw(row, y)
        height = y + 6
        lives = [
            f'<line class="life" x1="{x}" x2="{x}" y1="{begins[lane]}" y2="{ends.get(lane, height - 6)}"/>'
            for lane, x in self.lanes.items()
        ]
        names = [
            f'<rect class="lane" x="{x - 39}" y="10" width="78" height="24" rx="4"/>'
            f'<text class="lane-name" x="{x}" y="26" text-anchor="middle">{escape(lane)}</text>'
            for lane, x in self.lanes.items()
        ]
        size = f'width="{WIDTH * 5 // 4}" height="{height * 5 // 4}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {size}',
                ' role="img" aria-labelledby="title description">',
                f'<title id="title">{escape(self.title)}</title>',
                f'<desc id="description">{escape(self.told())}</desc>',
                f"<style>\n{STYLE}\n</style>",
                f'<rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
                *lives,
                *names,
                *self._shapes,
                "</svg>\n",
            ]
        )

    def told(self) -> str:
        """The rows as sentences."""
        said = []
        for row in self.rows:
            match row:
                case Part(text):
                    said.append(f"{text}.")
                case Arrow(source, target, text, via):
                    said.append(f"{source} to {target}{f', by the {via}' if via else ''}: {text}.")
                case Note(lane, text, otherwise):
                    said.append(f"{'Otherwise' if otherwise else lane}: {' '.join(text).rstrip('.')}.")
                case End(lane):
                    said.append(f"{lane} is gone.")
        return " ".join(said)

    def _draw(self, row: Row, y: int) -> int:
        """Draw a row whose top is at ``y``; its height."""
        match row:
            case Part(text):
                self._shapes += [
                    f'<rect class="part" x="8" y="{y + 4}" width="{WIDTH - 16}" height="22" rx="3"/>',
                    f'<text class="part-name" x="16" y="{y + 19}">{escape(text)}</text>',
                ]
                return 34
            case Arrow():
                return self._arrow(row, y)
            case Note(lane, text, otherwise):
                return self._note(self.lanes[lane], text, "else" if otherwise else "note", y)
            case End(lane):
                x = self.lanes[lane]
                self._shapes += [
                    f'<path class="end" d="M{x - 6} {y + 2}l12 12m0-12l-12 12"/>',
                ]
                return 22

    def _arrow(self, row: Arrow, y: int) -> int:
        start, stop = self.lanes[row.source], self.lanes[row.target]
        way = 1 if stop > start else -1
        at = y + 24
        middle = self._within((start + stop) / 2, len(row.text) * CHARACTER)
        self._shapes += [
            f'<line class="arrow" x1="{start}" x2="{stop - 6 * way}" y1="{at}" y2="{at}"/>',
            f'<path class="head" d="M{stop} {at}l{-9 * way} -4.5v9z"/>',
            *([f'<circle class="via" cx="{self.lanes[row.via]}" cy="{at}" r="3.5"/>'] if row.via else []),
            f'<text class="said" x="{middle:.0f}" y="{at - 7}" text-anchor="middle">{escape(row.text)}</text>',
        ]
        return 36

    def _note(self, x: int, text: tuple[str, ...], kind: str, y: int) -> int:
        width = max(map(len, text)) * CHARACTER + 16
        height = LINE * len(text) + 9
        middle = self._within(x, width)
        left = middle - width / 2
        self._shapes.append(
            f'<rect class="{kind}" x="{left:.0f}" y="{y + 3}" width="{width:.0f}" height="{height}" rx="3"/>'
        )
        self._shapes += [
            f'<text x="{middle:.0f}" y="{y + 17 + LINE * number}" text-anchor="middle">{escape(line)}</text>'
            for number, line in enumerate(text)
        ]
        return height + 10

    @staticmethod
    def _within(middle: float, width: float) -> float:
        """The middle, so that nothing is beyond an edge."""
        return min(max(middle, width / 2 + 8), WIDTH - width / 2 - 8)


CLIENT, BALANCER, MASTER, OLD, NEW = "client", "balancer", "master", "old worker", "new worker"
ADMIN, WORKERS = "admin", "workers"
ALL: Final = {CLIENT: 45, BALANCER: 127, MASTER: 210, OLD: 293, NEW: 375}
THREE: Final = {CLIENT: 60, OLD: 210, NEW: 360}

RELOAD: Final = Diagram(
    "A reload, from the signal to the end of the old worker",
    ALL,
    (
        Arrow(CLIENT, OLD, "requests: the old code answers", BALANCER),
        Part("The configuration"),
        Note(MASTER, ("HUP, or asgirictl reload: reads the file,", "checks all of it, binds what is new")),
        Note(MASTER, ("Something is wrong: it says what,", "and nothing has changed"), otherwise=True),
        Part("One worker of the new generation"),
        Arrow(MASTER, NEW, "fork"),
        Note(NEW, ("imports the application,", "runs its startup")),
        Arrow(CLIENT, OLD, "meanwhile: the old code", BALANCER),
        Note(
            NEW,
            ("It fails, or takes longer than boot_timeout:", "it goes, and the old generation stays"),
            otherwise=True,
        ),
        Arrow(NEW, MASTER, "READY"),
        Arrow(CLIENT, NEW, "new connections, on the same socket", BALANCER),
        Part("An old worker goes"),
        Arrow(MASTER, OLD, "retire"),
        Note(OLD, ("accepts nothing more,", "finishes what it has")),
        Arrow(OLD, CLIENT, "the last answers", BALANCER),
        Note(OLD, ("After drain_timeout (30 s) what is left", "is cut, and the log says what it was"), otherwise=True),
        End(OLD),
        Note(MASTER, ("and so on, one new and one old worker at a time;", "the sockets have been open all the while")),
    ),
    late=(NEW,),
)

CONNECTIONS: Final = Diagram(
    "What a client sees of a reload on HTTP/1.1, HTTP/2 and a WebSocket",
    THREE,
    (
        Part("HTTP/1.1, kept alive"),
        Arrow(CLIENT, OLD, "a request"),
        Arrow(OLD, CLIENT, "its answer"),
        Note(OLD, ("is told to retire",)),
        Arrow(CLIENT, OLD, "one more, within 5 s"),
        Arrow(OLD, CLIENT, "answer, Connection: close"),
        Arrow(CLIENT, NEW, "the next one, on a new connection"),
        Part("HTTP/2"),
        Arrow(OLD, CLIENT, "GOAWAY(2^31-1), PING"),
        Arrow(CLIENT, OLD, "a request on its way"),
        Arrow(CLIENT, OLD, "the PING's answer"),
        Note(OLD, ("or a second goes by",), otherwise=True),
        Arrow(OLD, CLIENT, "GOAWAY(last stream)"),
        Arrow(OLD, CLIENT, "all answers, to their end"),
        Arrow(CLIENT, NEW, "new requests, on a new connection"),
        Part("WebSocket"),
        Arrow(OLD, CLIENT, "Close 1012"),
        Arrow(CLIENT, OLD, "what it had said, Close"),
        Arrow(CLIENT, NEW, "a new WebSocket"),
    ),
)

STOP: Final = Diagram(
    "A stop behind a load balancer",
    {BALANCER: 55, ADMIN: 158, MASTER: 262, WORKERS: 365},
    (
        Note(MASTER, ("TERM: /readyz says 503 from now on",)),
        Part("workers.drain_delay: all is served as before"),
        Arrow(BALANCER, WORKERS, "requests"),
        Arrow(WORKERS, BALANCER, "answers"),
        Arrow(BALANCER, ADMIN, "GET /readyz"),
        Arrow(ADMIN, BALANCER, "503"),
        Note(BALANCER, ("takes it out",)),
        Part("workers.drain_timeout: what runs is finished"),
        Arrow(MASTER, WORKERS, "stop"),
        Arrow(WORKERS, BALANCER, "the last answers"),
        End(WORKERS),
        Note(MASTER, ("exits with 0",)),
    ),
)

DIAGRAMS: Final = {"reload.svg": RELOAD, "connections.svg": CONNECTIONS, "stop.svg": STOP}

if __name__ == "__main__":
    for name, diagram in DIAGRAMS.items():
        (ASSETS / name).write_text(diagram.svg(), "utf-8")
