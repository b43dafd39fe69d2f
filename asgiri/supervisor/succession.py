"""The master that runs, and its heir: one upgrade at a time, as :mod:`asgiri.supervisor.upgrade` tells."""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from asgiri.link import flush_streams
from asgiri.sockets.listener import Listener
from asgiri.supervisor.messages import Event
from asgiri.supervisor.notify import Notifier
from asgiri.supervisor.signals import SignalQueue
from asgiri.supervisor.upgrade import SLACK, Recipe, Stage, Upgrade, launch

logger = logging.getLogger("asgiri.master")


class Succession:
    """``handed`` is called with the heir's pid when that serves: what is this master's only is given up there."""

    def __init__(
        self,
        recipe: Recipe,
        notifier: Notifier,
        selector: selectors.BaseSelector,
        signals: SignalQueue,
        handed: Callable[[int], Iterable[Event]],
    ) -> None:
        self._recipe = recipe
        self._notifier = notifier
        self._selector = selector
        self._signals = signals
        self._handed = handed
        self._upgrade: Upgrade | None = None
        self._service_stops = False

    @property
    def is_under_way(self) -> bool:
        return self._upgrade is not None

    def deadline(self) -> float | None:
        return None if self._upgrade is None else self._upgrade.deadline

    def begin(self, listeners: list[Listener], boot_timeout: float) -> None:
        """Start a new master. It has ``boot_timeout`` seconds, and some more, to be ready; 0 is any time."""
        logger.info("USR2: starting a new master")
        flush_streams()
        deadline = time.monotonic() + boot_timeout + SLACK if boot_timeout else None
        try:
            with self._signals.held_back():
                notify = self._notifier.environ()
                upgrade = launch(self._recipe, listeners, notify, self._signals.leave_in_child, deadline)
        except OSError as error:
            logger.error("USR2: the upgrade failed, this master goes on: %s", error.strerror)
            return
        self._upgrade = upgrade
        self._selector.register(upgrade, selectors.EVENT_READ, self._hear)

    def tick(self, now: float) -> None:
        """Give up an heir that is overdue."""
        upgrade = self._upgrade
        if upgrade is not None and upgrade.deadline is not None and upgrade.deadline <= now:
            if upgrade.stage is Stage.STARTED:
                logger.error("the new master (pid %d) is not ready in time, and is stopped", upgrade.pid)
            else:
                logger.error("the new master (pid %d) does not exit, and is killed", upgrade.pid)
            upgrade.give_up(now)

    def stop(self, now: float) -> None:
        """The service stops: in the heir, too."""
        self._service_stops = True
        if self._upgrade is not None and self._upgrade.stage is Stage.STARTED:
            self._upgrade.give_up(now)

    def note_exit(self, pid: int, how: str) -> None:
        """A process was reaped that is no child as others are."""
        if self._upgrade is not None and self._upgrade.pid == pid:
            if self._service_stops:
                logger.info("the upgrade is over, the service stops: the new master %s", how)
            else:
                logger.error("the upgrade failed, this master goes on: the new one %s", how)
            self._end()

    def close_in_child(self) -> None:
        if self._upgrade is not None:
            self._upgrade.close()

    def _hear(self) -> Iterable[Event]:
        upgrade = self._upgrade
        if upgrade is None:  # its exit was found in the same round
            return ()
        match upgrade.is_ready():
            case True if upgrade.stage is Stage.STARTED:
                events = self._handed(upgrade.pid)
                upgrade.hand()
                self._end()
                return events
            case None:
                self._selector.unregister(upgrade)
                upgrade.is_gone(time.monotonic())
        return ()

    def _end(self) -> None:
        assert self._upgrade is not None
        with suppress(KeyError):
            self._selector.unregister(self._upgrade)
        self._upgrade.close()
        self._upgrade = None
