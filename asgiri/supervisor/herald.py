"""The herald: what the service manager is told, and when. It compares the fleet with what it has said."""

from __future__ import annotations

from asgiri.supervisor.fleet import Fleet, Phase
from asgiri.supervisor.notify import Notifier
from asgiri.supervisor.scoreboard import Scoreboard, State
from asgiri.supervisor.status import Status

# How often the status is told, and what a reload or a drain is extended by each second, in seconds.
STATUS_EVERY = 5.0
EXTENSION = 15.0


class Herald:
    """Silent until :meth:`announce`: before that, it is the service manager's own time that counts."""

    def __init__(self, notifier: Notifier, fleet: Fleet, board: Scoreboard, status: Status) -> None:
        self.notifier = notifier
        self._fleet = fleet
        self._board = board
        self._status = status
        self._announced = False
        self._reloading = False
        self._stopping = False
        self._status_at = 0.0

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

    def hand_over(self, pid: int) -> None:
        """Another process is the main one; what is said from here on is its to say."""
        self.notifier.main_pid(pid)
        self.notifier.close()

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
