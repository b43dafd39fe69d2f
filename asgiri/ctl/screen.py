"""The picture of ``asgirictl top``, drawn by rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from asgiri.ctl import show
from asgiri.log.setup import escape

if TYPE_CHECKING:
    from asgiri.ctl.top import View
    from asgiri.supervisor.verbs import Recent, ServiceStatus, Spread, WorkerStatus

_BARS: Final = "▁▂▃▄▅▆▇█"
_STATES: Final = {"serving": "green", "booting": "cyan", "draining": "yellow"}  # all others are trouble
_RIGHT: Final = frozenset(show.HEAD) - {"state"}


def draw(view: View, columns: int, lines: int) -> list[str]:
    """Lines with colours, as many as fit, of a view."""
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=columns, height=lines, highlight=False, markup=False)
    top = [_note(note) for note in view.notes]
    if view.service is not None:
        top += _head(view.service, view.rates, columns)
    for line in top[: max(0, lines - 1)]:
        console.print(line, no_wrap=True, overflow="ellipsis")
    room = lines - 1 - len(top)
    if view.service is not None and room > 2:
        console.print(_workers(view.service.workers, room - 1, dim=bool(view.trouble)))
    drawn = out.getvalue().split("\n")[:-1][: max(0, lines - 1)]
    blank = [""] * (lines - 1 - len(drawn))
    with console.capture() as foot:
        console.print(Text("q quits", style="dim"), end="", no_wrap=True, overflow="crop")
    return [*drawn, *blank, foot.get()]


def _note(text: str) -> Text:
    return Text(f" {escape(text)} ", style="bold white on red")


def _head(service: ServiceStatus, rates: Iterable[float], columns: int) -> list[Text]:
    life, load = map(escape, show.head(service))
    flight = sum(worker.requests for worker in service.workers)
    connections = sum(worker.connections for worker in service.workers)
    wrong = [Text(f"! {escape(sentence)}", style="bold red") for sentence in service.wrong]
    return [
        Text(life, style="bold"),
        Text(f"{load}, {flight} in flight, {connections} connections"),
        *wrong,
        Text(),
        _curve(list(rates), columns),
        *_spreads(service.recent),
        Text(),
    ]


def _curve(rates: Sequence[float], columns: int) -> Text:
    """The rate over time, the newest to the right, under the highest that is seen."""
    label = "requests/s "
    seen = rates[-max(1, columns - len(label) - 12) :]
    peak = max(seen, default=0.0)
    bars = "".join(_BARS[round(rate / peak * (len(_BARS) - 1))] if peak else _BARS[0] for rate in seen)
    return Text.assemble((label, "dim"), (bars, "green"), (f" peak {peak:.0f}", "dim"))


def _spreads(recent: Recent | None) -> list[Text]:
    if recent is None:
        return []
    return [
        _spread(name, spread, recent.seconds)
        for name, spread in (
            ("duration   ", recent.duration),
            ("first byte ", recent.first_byte),
            ("loop lag   ", recent.loop_lag),
        )
        if spread is not None
    ]


def _spread(name: str, spread: Spread, seconds: float) -> Text:
    text = Text().append(name, style="dim")
    for part, value in (("p50", spread.p50), ("p90", spread.p90), ("p99", spread.p99)):
        text.append(f"{part} ", style="dim").append(f"{show.short(value):<9}", style="bold")
    return text.append(f"last {seconds:.0f}s", style="dim")


def _workers(workers: Sequence[WorkerStatus], room: int, *, dim: bool) -> Table:
    """A line for each worker that there is room for; ``dim`` when they are of a while ago."""
    table = Table(box=None, pad_edge=False, header_style="bold", row_styles=["dim"] if dim else None)
    for name in show.HEAD:
        table.add_column(name, justify="right" if name in _RIGHT else "left", no_wrap=True)
    shown = workers if len(workers) <= room else workers[: room - 1]
    for worker in shown:
        cells = dict(zip(show.HEAD, show.row(worker), strict=True))
        styled = {"state": Text(escape(worker.state), style=_STATES.get(worker.state, "bold red"))}
        table.add_row(*(styled.get(name, Text(escape(cell))) for name, cell in cells.items()))
    if len(shown) < len(workers):
        table.add_row(Text(f"+{len(workers) - len(shown)}", style="dim"))
    return table
