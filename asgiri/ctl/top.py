"""``asgirictl top``: the service, looked at again and again, on the whole terminal.

The picture is a text of so many lines: drawn by rich (asgiri.ctl.screen), or where that is not installed the table of
``asgirictl status``. What goes wrong with the service is part of it: a master that is upgraded or restarts comes back.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from asgiri.ctl import show
from asgiri.ctl.talk import CtlError, talk

if TYPE_CHECKING:
    from asgiri.supervisor.verbs import ServiceStatus

# Seconds for an answer: keys wait for it, too.
PATIENCE: Final = 1.0
# How many rates are remembered: no terminal is wider than that.
MEMORY: Final = 500
# How long it is told that another master serves, in seconds.
NEWS_SECONDS: Final = 15.0

_OWN_PATH: Final = re.compile(r"\d+\.sock", re.ASCII)  # of a master that the config names no path for
EXTRA: Final = "for more to see: pip install 'asgiri[top]'"


class View:
    """What is known of the service: the last status, what it was before, and what is wrong with asking.

    ``find`` looks for the control socket; ``named`` is the one that the user has named.
    """

    def __init__(self, find: Callable[[], str], named: str | None) -> None:
        self._find = find
        self._named = named
        self._path = ""
        self._told_at = 0.0
        self._news_at = 0.0
        self._news = ""
        self.service: ServiceStatus | None = None
        self.rates: deque[float] = deque(maxlen=MEMORY)
        self.trouble = ""  # why there is no status of now

    def look(self) -> None:
        """Ask once more."""
        try:
            self._ask()
        except CtlError as error:
            self._path = ""
            self.trouble = str(error)

    def _ask(self) -> None:
        if not self._path:
            self._path = self._found()
        service = show.understood(talk(self._path, {"verb": "status"}, PATIENCE))
        now, before = time.monotonic(), self.service
        if before is not None and service.pid != before.pid:
            self._news = f"another master serves: pid {service.pid}, asgiri {service.version}; it was pid {before.pid}"
            self._news_at = now
        self.service, self.trouble, self._told_at = service, "", now
        self.rates.append(service.requests_per_second)

    def _found(self) -> str:
        """The socket's path. A master's own path goes with it: its heir's is beside it."""
        path = self._find()
        if self._named is None or self.service is None or os.path.lexists(path):
            return path
        here = Path(path)
        if _OWN_PATH.fullmatch(here.name):
            heirs = [str(one) for one in here.parent.glob("*.sock") if self._is_heir(str(one))]
            if len(heirs) == 1:
                return heirs[0]
        return path

    def _is_heir(self, path: str) -> bool:
        assert self.service is not None
        try:
            return show.understood(talk(path, {"verb": "status"}, PATIENCE)).app == self.service.app
        except CtlError:
            return False

    @property
    def notes(self) -> list[str]:
        """What is to be said besides the status, a line each."""
        now = time.monotonic()
        found = []
        if self.trouble:
            age = f", below is of {show.span(now - self._told_at)} ago" if self.service is not None else ""
            found.append(f"asking again{age}: {self.trouble.splitlines()[0]}")
        if self._news and now - self._news_at < NEWS_SECONDS:
            found.append(self._news)
        return found


class Draw(Protocol):
    """The picture of a view, for a terminal of so many columns and lines."""

    def __call__(self, view: View, columns: int, lines: int) -> list[str]: ...


def plain(view: View, columns: int, lines: int) -> list[str]:
    """The picture without rich."""
    from asgiri.log.setup import escape

    told = [] if view.service is None else show.lines_of(view.service)
    text = [escape(line)[:columns] for line in (*(f"! {note}" for note in view.notes), *told)]
    return [*text[: max(0, lines - 2)], "", f"q quits; {EXTRA}"[:columns]][-lines:]


def picture() -> Draw:
    """How it is drawn here."""
    try:
        from asgiri.ctl.screen import draw
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return plain
    return draw


def watch(find: Callable[[], str], named: str | None, interval: float, *, as_json: bool) -> None:
    """Be ``top`` until somebody ends it. CtlError where there is no terminal, or at first no service."""
    if as_json:
        raise CtlError("top is for people; asgirictl --json status says the same once")
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") in (None, "", "dumb"):
        raise CtlError("top takes a terminal; asgirictl status says the same once")
    from asgiri.ctl.terminal import Key, Terminal

    view, draw = View(find, named), picture()
    view.look()
    if view.service is None:
        raise CtlError(view.trouble)
    with Terminal() as terminal:
        due = time.monotonic() + interval
        while True:
            terminal.show(draw(view, *terminal.size))
            if terminal.wait(due - time.monotonic()) is Key.QUIT:
                return
            if time.monotonic() >= due:
                view.look()
                due = time.monotonic() + interval
