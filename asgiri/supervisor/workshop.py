"""What a master has under reload only: what its workers share of it, and what it tells them of the newest code."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from asgiri.config.load import Loaded
from asgiri.config.schema import Config
from asgiri.link import Boot, Booted, Changed, ChildMain, Order, Report, Watch
from asgiri.supervisor.aides import Aide, Aides, Outfit
from asgiri.supervisor.bulletin import Board
from asgiri.supervisor.children import Child, Children, Lent
from asgiri.supervisor.hooks import Hooks
from asgiri.supervisor.messages import Event
from asgiri.supervisor.mode import Mode
from asgiri.supervisor.plans import Plans
from asgiri.supervisor.sidecar import Want
from asgiri.supervisor.warm import Zygote
from asgiri.tracebacks import Trouble

logger = logging.getLogger("asgiri.master")

_REALTIME_COARSE: Final = 5  # linux/time.h


class Scene(Struct, frozen=True):
    """What of the master's a workshop works with. ``changed`` is told what has changed, and returns events."""

    aides: Aides
    workers: Mapping[int, Child]
    children: Callable[[], Children]
    changed: Callable[[str], Iterable[Event]]


class Watching(Struct, frozen=True):
    """What the watcher of one plan has."""

    generation: int
    config: Config
    watch: Watch


class Lookout:
    """Has a watcher of what the config in effect says is to be watched: another one only where that is something else.

    ``changed`` is told what has changed, as ``main.py changed``; it returns what the fleet is to hear.
    """

    def __init__(
        self,
        main: ChildMain,
        plans: Plans,
        children: Callable[[], Children],
        changed: Callable[[str], Iterable[Event]],
    ) -> None:
        self.aide = Aide("watcher", main, plans, children, self._outfit, self._hear)
        self._changed = changed
        self._plans: list[Watching] = []  # a plan is a number from 1 on
        self._since_ns = now_ns()  # what has changed before that is told, or was there before us

    def look(self, loaded: Loaded, generation: int) -> None:
        """This config is in effect."""
        watch = watch_of(loaded)
        if not self._plans or self._plans[-1].watch != watch:
            self._plans.append(Watching(generation, loaded.config, watch))
        self.aide.feed(Want(len(self._plans)))

    def _outfit(self, plan: int) -> Outfit:
        watching = self._plans[plan - 1]
        watch = replace(watching.watch, since_ns=self._since_ns)
        return Outfit(watching.generation, watching.config, lent=Lent(watch=watch))

    def _hear(self, report: Report) -> Iterator[Event]:
        if isinstance(report, Changed):
            self._since_ns = now_ns()
            yield from self._changed(f"{in_words(report)} changed")


def now_ns() -> int:
    """The time as the kernel stamps files with it, which is a tick late (clock_gettime(2), CLOCK_REALTIME_COARSE)."""
    return time.clock_gettime_ns(_REALTIME_COARSE) if sys.platform == "linux" else time.time_ns()


def watch_of(loaded: Loaded) -> Watch:
    """What is to be watched, by paths that stay true whatever happens to the working directory."""
    reload = loaded.config.reload
    files = [loaded.found.path] if loaded.found is not None else []
    names = [*map(str, files), *([loaded.config.env_file] if loaded.config.env_file is not None else [])]
    return Watch(
        dirs=tuple(map(os.path.abspath, reload.dirs)),
        include=reload.include,
        exclude=reload.exclude,
        files=tuple(map(os.path.abspath, names)),
        delay=reload.delay,
        polling=None if reload.polling == "auto" else reload.polling,
        since_ns=0,
    )


def in_words(changed: Changed) -> str:
    """``main.py``, ``main.py and shop/a.py``, ``main.py, shop/a.py and 3 more``."""
    names = list(changed.files)
    if (more := changed.total - len(names)) > 0:
        names.append(f"{more} more")
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


class Stopwatch:
    """How long after somebody has asked for newer code it serves. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: tuple[str, float] | None = None  # by whom, and when, and not begun: the newest
        self._begun: dict[int, tuple[str, float]] = {}  # by generation

    def ask(self, after: str) -> None:
        """A reload is asked for, because of that: ``the change``, ``HUP``."""
        self._asked = after, self._clock()

    def begin(self, generation: int) -> None:
        """A worker of this generation is forked. Its first one is what the newest reload has come to."""
        if self._asked is not None and generation > max(self._begun, default=1):
            self._begun[generation], self._asked = self._asked, None

    def serves(self, generation: int) -> str:
        """``generation 2 serves, 31 ms after the change``."""
        after, asked = self._begun[generation]
        self._begun = {generation: self._begun[generation]}
        took = self._clock() - asked
        text = f"{took:.1f} s" if took >= 1 else f"{took * 1000:.0f} ms"
        return f"generation {generation} serves, {text} after {after}"


class Workshop(Mode):
    """The watcher, the zygote, the bulletin, the way on which idle connections are handed over, and the stopwatch."""

    stopping = "stopping; once more, and what still runs is cut"

    def __init__(self, hooks: Hooks, plans: Plans, scene: Scene) -> None:
        self._workers = scene.workers
        self._board = Board()
        # Whoever has a message takes a whole one, and who gives learns that the queue is full.
        self._transfer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in self._transfer:
            end.setblocking(False)
        self._troubles: dict[int, Trouble] = {}  # by generation, and not posted yet
        self._stopwatch = Stopwatch()
        self._lookout = Lookout(hooks.watcher_main, plans, scene.children, scene.changed)
        self._zygote = Zygote(hooks.zygote_main, plans, scene.children, self.lent(first=False))
        scene.aides.add(self._lookout.aide)
        scene.aides.add(self._zygote.aide)

    @property
    def is_troubled(self) -> bool:
        return self._board.trouble is not None

    def look(self, loaded: Loaded, generation: int) -> None:
        self._lookout.look(loaded, generation)

    def ask(self, after: str) -> None:
        self._stopwatch.ask(after)

    def begin(self, generation: int) -> None:
        self._stopwatch.begin(generation)

    def lent(self, *, first: bool) -> Lent:
        return Lent(bulletin=self._board.fileno(), transfer=self._transfer, first=first)

    def spawn(self, boot: Boot) -> int | None:
        return self._zygote.fork(boot)

    def let_go(self, boot: Boot) -> None:
        self._zygote.let_go(boot)

    def learn(self, generation: int, config: Config, booted: Booted) -> None:
        """What the zygote may import, or why an error page is served; each of the first workers says the same."""
        self._zygote.learn(generation, config, booted)
        trouble = booted.trouble
        if trouble is not None and self._post(trouble):
            text = "%s; serving an error page until the application can be imported"
            logger.error(text, trouble.message, extra={"trace": trouble.trace})

    def note_trouble(self, generation: int, trouble: Trouble | None) -> None:
        if trouble is not None:
            self._troubles[generation] = trouble

    def refuse(self, why: str) -> None:
        self._post(Trouble(why))

    def abandon(self, generation: int, why: str, trace: str) -> None:
        self._post(self._troubles.pop(generation, None) or Trouble(why, trace=trace))

    def commit(self, generation: int) -> None:
        self._troubles.clear()
        self._post(None)
        extra = {"about": {"generation": generation}}
        logger.info("%s", self._stopwatch.serves(generation), extra=extra)

    def _post(self, trouble: Trouble | None) -> bool:
        """Tell the workers why the newest code does not serve, or that it does; whether that is news."""
        if not self._board.post(trouble):
            return False
        for worker in self._workers.values():
            worker.link.send(Order.NEWS)
        return True

    def close(self) -> None:
        self._zygote.close()
        self._board.close()
        for end in self._transfer:
            end.close()
