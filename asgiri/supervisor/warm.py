"""The master's side of the zygote (asgiri.dev.zygote): when there is one, of what, and how it is asked for a worker."""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from asgiri.config.schema import Config
from asgiri.link import Aside, Boot, Booted, ChildMain, Errand, Report, Warm
from asgiri.supervisor.aides import Aide, Outfit
from asgiri.supervisor.children import Children, Lent
from asgiri.supervisor.messages import Event
from asgiri.supervisor.plans import Plans
from asgiri.supervisor.sidecar import Want

logger = logging.getLogger("asgiri.master")

# How long the zygote may take to fork, in seconds: it is two forks, and a look at the files that it has imported.
PATIENCE: Final = 1.0
# More listeners than that do not go into one message (unix(7): SCM_RIGHTS, 253 descriptors).
LISTENERS_MOST: Final = 200
_PID_MOST: Final = 32  # bytes
_GO: Final = b"!"
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


class Stock(Struct, frozen=True):
    """What the zygote of one plan has."""

    generation: int
    config: Config
    modules: tuple[str, ...]
    environ: dict[str, str]

    def serves(self, config: Config) -> bool:
        """Whether its zygote can fork workers of this config."""
        return environment_of(self.config) == environment_of(config)


def environment_of(config: Config) -> object:
    """What of a config an import may see. What the env_file says is the zygote's to look after."""
    return config.env, config.env_file, config.reload.dirs, config.app_dir


def wants_one(config: Config) -> bool:
    """What is imported as root must not be the application's to choose."""
    return config.reload.warm and config.process.user is None and config.process.group is None


class Zygote:
    """Has one, once a worker has told what its application imports from elsewhere; or none, and workers start cold."""

    def __init__(self, main: ChildMain, plans: Plans, children: Callable[[], Children], lent: Lent) -> None:
        self.aide = Aide("zygote", main, plans, children, self._outfit, self._hear, abrupt=True)
        self._lent = lent
        self._stocks: list[Stock] = []  # a plan is a number from 1 on
        self._ends: list[socket.socket] = []  # of the newest one's socket: who asks, and until it is up its own
        self._is_ready = False
        self._given_up = not adopt_orphans()

    def learn(self, generation: int, config: Config, booted: Booted) -> None:
        """A worker serves, and has imported modules besides those that its zygote had."""
        if self._given_up or booted.trouble is not None:
            return
        if not wants_one(config):
            self._have_none()
            return
        last = self._stocks[-1] if self._stocks else None
        known = last.modules if last is not None and last.serves(config) else ()
        stock = Stock(generation, config, tuple(dict.fromkeys((*known, *booted.modules))), booted.environ)
        if not stock.modules or (last is not None and last.serves(config) and is_same(last, stock)):
            return
        self._stocks.append(stock)
        self._is_ready = False
        self.aide.feed(Want(len(self._stocks)))

    def fork(self, boot: Boot) -> int | None:
        """The pid of a worker that the zygote has forked; None: it could not, or there is none."""
        config = boot.config
        if not self._is_ready or not wants_one(config) or not self._stocks[-1].serves(config):
            return None
        if len(boot.listeners) > LISTENERS_MOST:
            return None
        ticket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ticket:
            ticket.settimeout(PATIENCE)
            try:
                with theirs:
                    self._ask(boot, theirs)
                pid = ticket.recv(_PID_MOST)
            except TimeoutError:
                # The machine is busy, or somebody has stopped it. Who it may fork later gets no answer, and goes.
                logger.warning("the zygote does not answer within %g s; workers start without it", PATIENCE)
                self._is_ready = False
                self.aide.kill()
                return None
            except OSError as error:
                logger.debug("the zygote cannot be asked: %s", error.strerror)
                return None
            if not pid.isdigit():
                return None  # it has gone, or could not fork
            with suppress(OSError):  # gone already: it is reaped as any other
                ticket.send(_GO)
        return int(pid)

    def _ask(self, boot: Boot, ticket: socket.socket) -> None:
        listens = tuple(listener.listen for listener in boot.listeners)
        slot = boot.board.number_of(boot.slot)
        deposit = [boot.deposit] if boot.deposit >= 0 else []
        errand = Errand(boot.number, boot.generation, boot.config, listens, slot, umask(), boot.first, bool(deposit))
        listeners = [listener.sock.fileno() for listener in boot.listeners]
        descriptors = [ticket.fileno(), *boot.link.descriptors, boot.stacks, *deposit, *listeners]
        socket.send_fds(self._ends[0], [pickle.dumps(errand)], descriptors)

    def let_go(self, boot: Boot) -> None:
        """In a child: the end that asks is the master's, the other one the zygote's."""
        for end in self._ends:
            if boot.warm is None or end is not boot.warm.sock:
                end.close()

    def _outfit(self, plan: int) -> Outfit:
        stock = self._stocks[plan - 1]
        self.close()
        self._is_ready = False  # one that has ended was, and this is the next
        asked, theirs = self._ends = list(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        asked.settimeout(PATIENCE)
        warm = Warm(theirs, stock.modules, stock.environ)
        return Outfit(stock.generation, stock.config, lent=replace(self._lent, warm=warm))

    def _hear(self, report: Report) -> Iterator[Event]:
        match report:
            case Booted():
                self._ends.pop().close()  # its own: who asks one that has gone is to know
                self._is_ready = True
                logger.debug("the zygote is ready: it has imported %d modules", len(self._stocks[-1].modules))
            case Aside(why, again):
                logger.debug("no zygote: %s", why)
                self._given_up = not again
                self._have_none()
        yield from ()

    def _have_none(self) -> None:
        self._is_ready = False
        self._stocks.clear()
        self.aide.feed(Want(None))

    def close(self) -> None:
        for end in self._ends:
            end.close()
        self._ends = []


def is_same(one: Stock, other: Stock) -> bool:
    """Whether the zygotes of both are alike, of configs that serve each other."""
    return one.modules == other.modules and one.environ == other.environ


def umask() -> int:
    """The umask of this process; it can only be had by setting another one."""
    os.umask(now := os.umask(0))
    return now


def adopt_orphans() -> bool:
    """Become the parent of what a child has forked and left behind (prctl(2)); whether that can be."""
    if sys.platform != "linux":
        return False
    done: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return done == 0
