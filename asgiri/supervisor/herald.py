"""The herald: what the service manager is told, and when. It compares the fleet with what it has said."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from asgiri.sockets.kept import kept_name
from asgiri.sockets.listener import Listener
from asgiri.supervisor.fleet import Fleet, Phase
from asgiri.supervisor.notify import Notifier
from asgiri.supervisor.scoreboard import Scoreboard, State
from asgiri.supervisor.status import Status

logger = logging.getLogger("asgiri.master")

# How often the status is told, and what a reload or a drain is extended by each second, in seconds.
STATUS_EVERY = 5.0
EXTENSION = 15.0


class Herald:
    """Silent until :meth:`announce`: before that, it is the service manager's own time that counts.

    ``kept`` are the names of the sockets that the manager keeps for us already.
    """

    def __init__(
        self, notifier: Notifier, fleet: Fleet, board: Scoreboard, status: Status, kept: Iterable[str] = ()
    ) -> None:
        self.notifier = notifier
        self._fleet = fleet
        self._board = board
        self._status = status
        self._announced = False
        self._reloading = False
        self._stopping = False
        self._status_at = 0.0
        self._kept = dict.fromkeys(kept)
        self._is_full = False  # which is said once

    def announce(self) -> None:
        """All first workers are ready, and this is the main process."""
        self._announced = True
        self.notifier.ready(self._status.line)

    def begin_reload(self) -> None:
        """Somebody asks for a reload; that it was refused counts as its end."""
        if self._announced and not self._stopping:
            self._reloading = True
            self.notifier.reloading()

    def look(self) -> None:
        """Something has happened."""
        if not self._announced or self._stopping:
            return
        if self._reloading and not self._fleet.is_reloading:
            self._reloading = False
            self.notifier.ready(self._status.line)

    def stop(self) -> None:
        """The service stops, for which TERM and its like are needed: a hand-over is none."""
        if not self._stopping:
            self._stopping = True
            self.notifier.stopping()

    def keep(self, listeners: Iterable[Listener]) -> None:
        """Have the manager keep these sockets, and no others, for the master that comes after a restart or a crash.

        One that is to keep none any more gives up those that it has.
        """
        if not (self.notifier.room or self._kept) or not self._announced or self._stopping:
            return
        kept = listeners if self.notifier.room else ()
        found = {name: listener.sock for listener in kept if (name := kept_name(listener))}
        for name in [name for name in self._kept if name not in found]:
            self.notifier.forget(name)
            del self._kept[name]
        for name, sock in found.items():
            if name not in self._kept and len(self._kept) < self.notifier.room:
                self.notifier.keep(name, sock)
                self._kept[name] = None
        if len(found) > len(self._kept) and not self._is_full:
            told = "the service manager has room for %d sockets of %d: the others are closed in a restart"
            logger.warning(told, self.notifier.room, len(found))
        self._is_full = len(found) > len(self._kept)

    def leave(self, listeners: Iterable[Listener]) -> None:
        """At the end: the files of sockets that are kept are for the next master."""
        for listener in listeners:
            if kept_name(listener) in self._kept:
                listener.disown()

    def hand_over(self, pid: int) -> None:
        """Another process is the main one; what is said from here on is its to say, and its sockets are to be kept."""
        for name in self._kept:
            self.notifier.forget(name)
        self._kept = {}
        self.notifier.main_pid(pid)
        self.notifier.finish()

    def pulse(self, now: float) -> None:
        """Once a second."""
        takes_long = self._reloading or self._fleet.phase is Phase.STOPPING
        if takes_long and self._fleet.deadline() is not None:  # without an end of ours, the manager's limit is one
            self.notifier.extend(EXTENSION)
        if self._announced and now >= self._status_at:
            self._status_at = now + STATUS_EVERY
            self.notifier.status(self._status.line)
        if self.notifier.watchdog is not None and self._is_well():
            self.notifier.alive()

    def _is_well(self) -> bool:
        """The master is, for it is here; and at least one worker's loop turns, or the workers are on their way out."""
        if self._fleet.phase is Phase.STOPPING:
            return True
        now = self._board.now_ns()
        return any(slot.state is State.SERVING and slot.is_fresh(now) for slot in self._board.workers())
