"""The master's side of the zygote (asgiri.dev.zygote): when there is one, of what, and how it is asked for a worker."""

from __future__ import annotations

import ctypes
import logging
import pickle
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec import Struct

from asgiri.config.schema import Config
from asgiri.link import Aside, Boot, Booted, ChildMain, Errand, Report, Warm
from asgiri.sockets.listener import Listener
from asgiri.supervisor.aides import Aide, Outfit
from asgiri.supervisor.children import Children, Lent
from asgiri.supervisor.messages import Event
from asgiri.supervisor.plans import Plans
from asgiri.supervisor.sidecar import Want

logger = logging.getLogger("asgiri.master")

# How long the zygote may take to fork, in seconds: it is two forks, and a look at the files that it has imported.
PATIENCE: Final = 1.0
_PID_MOST: Final = 32  # bytes
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


class Stock(Struct, frozen=True, eq=False):
    """What the zygote of one plan has."""

    generation: int
    config: Config
    listeners: list[Listener]
    modules: tuple[str, ...]
    lent: Lent

    def serves(self, config: Config, listeners: Iterable[Listener]) -> bool:
        """Whether its zygote can fork workers of this config, and keeps nothing open that is to be closed."""
        return self.listeners == list(listeners) and environment_of(self.config) == environment_of(config)


def environment_of(config: Config) -> object:
    """What of a config an import may see."""
    return config.env, config.env_file, config.reload.dirs


class Zygote:
    """Has one, once a worker has told what its application imports from elsewhere; or none, and workers start cold."""

    def __init__(self, main: ChildMain, plans: Plans, children: Callable[[], Children], lent: Lent) -> None:
        self.aide = Aide("zygote", main, plans, children, self._outfit, self._hear)
        self._plans = plans
        self._lent = lent
        self._stocks: list[Stock] = []  # a plan is a number from 1 on
        self._asked: socket.socket | None = None  # the end of the newest one's socket
        self._is_ready = False
        self._given_up = not adopt_orphans()

    def learn(self, generation: int, config: Config, modules: tuple[str, ...]) -> None:
        """A worker serves, and has imported these modules besides those that its zygote had."""
        process = config.process
        if self._given_up or not config.reload.warm or process.user is not None or process.group is not None:
            return  # what is imported as root must not be the application's to choose
        last = self._stocks[-1] if self._stocks else None
        known = last.modules if last is not None and environment_of(last.config) == environment_of(config) else ()
        union = tuple(dict.fromkeys((*known, *modules)))
        listeners = self._plans.listeners
        if not union or (last is not None and last.modules == union and last.serves(config, listeners)):
            return
        self._stocks.append(Stock(generation, config, listeners, union, self._lent))
        self._is_ready = False
        self.aide.feed(Want(len(self._stocks)))

    def fork(self, boot: Boot) -> int | None:
        """The pid of a worker that the zygote has forked; None: it could not, or there is none."""
        stock = self._stocks[-1] if self._stocks else None
        if not self._is_ready or stock is None or not stock.serves(boot.config, self._plans.listeners):
            return None
        listeners = tuple(stock.listeners.index(listener) for listener in boot.listeners)
        slot = boot.board.number_of(boot.slot)
        errand = Errand(boot.number, boot.generation, boot.config, listeners, slot, boot.first)
        asked = self._asked
        assert asked is not None
        try:
            socket.send_fds(asked, [pickle.dumps(errand)], [*boot.link.descriptors, boot.stacks])
            answer = asked.recv(_PID_MOST)
        except OSError as error:  # TimeoutError is one
            logger.debug("the zygote does not answer: %s", error)
            answer = b""
        if not answer.isdigit():
            self._is_ready = False  # a late answer would be taken for that of the next errand
            return None
        return int(answer)

    def let_go(self) -> None:
        """In a child: the end that asks is the master's."""
        if self._asked is not None:
            self._asked.close()

    def _outfit(self, plan: int) -> Outfit:
        stock = self._stocks[plan - 1]
        self._close()
        self._asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asked.settimeout(PATIENCE)
        self._theirs = theirs
        lent = Lent(
            stock.lent.bulletin, stock.lent.transfer, warm=Warm(theirs, stock.modules, stock.config.reload.dirs)
        )
        return Outfit(stock.generation, stock.config, stock.listeners, lent)

    def _hear(self, report: Report) -> Iterator[Event]:
        match report:
            case Booted():
                self._theirs.close()  # its own end of file is now that of the other end
                self._is_ready = True
            case Aside(why, again):
                logger.debug("no zygote: %s", why)
                self._is_ready = False
                self._given_up = not again
                self._stocks.clear()
                self.aide.feed(Want(None))
        yield from ()

    def _close(self) -> None:
        if self._asked is not None:
            self._asked.close()
            self._theirs.close()
            self._asked = None

    def close(self) -> None:
        self._close()


def adopt_orphans() -> bool:
    """Become the parent of what a child has forked and left behind (prctl(2)); whether that can be."""
    if sys.platform != "linux":
        return False
    done: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return done == 0
